"""The contract of a kind of step: its fields, what it changes, how it is done and undone.

The engine knows a step only through `Kind`, and a kind knows the engine only through `StepContext`; neither imports the other.
Who adds a kind subclasses `Kind`, or those of its optional parts in `parts.py` that apply, and adds a line to `KINDS` in `__init__.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final

from cutover.messaging import Messenger
from cutover.ports import Cluster, Ref, Resource
from cutover.saga.turn import Done, Outcome, StageRule
from cutover.schema.model import Model
from cutover.steps.standing import Standing, Stands
from cutover.targets.targets import Targets

_SELDOMEST: Final = 2.0
"""Maximum seconds between two checks of what is not streamed."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object that a step changes, in the plan's namespace."""

    resource: Resource
    name: str

    def ref(self, namespace: str) -> Ref:
        """The object by its full address."""
        return Ref(self.resource, namespace, self.name)


@dataclass(frozen=True, slots=True)
class Drain:
    """Traffic has just moved, and what sends the requests may not all know it yet: these workloads keep their pods for now.

    Attributes:
        workloads: those behind both sides.
        until: when it is over, or when to ask again.
        why: half a sentence, such as ``traffic that step shift has moved drains``.
    """

    workloads: frozenset[Ref]
    until: datetime
    why: str


async def _nothing_drains(_: Ref) -> Drain | None:
    return None


async def _needed_by_nobody(_: Ref) -> str:
    return ""


def _not_noted() -> None:
    """For contexts outside of the engine."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a kind works with in one command; created for each command, so nothing is kept in it but `memo`.

    Attributes:
        place: where the step stands in the plan, such as ``steps[shift]``.
        now: the time, UTC.
        elapsed: seconds since the stage (or the undo) was announced, or since the undo last made progress.
        applied: the stage has been seen in effect before, so a difference now is another writer's change, and may be on purpose.
        reapply: a user has requested that the stage is applied again over the values that are there now.
        memo: what the kind remembers of this run; lost in a crash, so it holds only what can be read again.
        approved: a user has approved the current stage.
        earlier: targets of earlier steps of the plan; they may have changed by the time this step starts.
        before: these steps, in their order.
        irreversible: the step says that it cannot be undone once it is done.
        attempt: the number of the attempt.
        undo_attempt: a number that rises when an undo has failed and a user requests another attempt of it.
        made: what an earlier command of this attempt asked to save (`Again.made`).
        prefetched: what `LooksAhead` has read for this command; None when the kind has no such part, or that did not run or failed.
        certain: a postcondition is asked before what cannot be taken back, so what is not streamed is read now.
        runner_image: the image of the runner of database Jobs where the plan gives none; empty when the settings have none.
        moved: notes that the step has just moved traffic, or may have; the drain of the step counts from the last one.
        draining: the drain that keeps the pods of a workload where they are; None when none does.
        needed_elsewhere: until when another plan needs the pods of a workload, such as ``plan checkout ends, whose step …``;
            empty when none does.
    """

    cluster: Cluster
    targets: Targets
    namespace: str
    place: str
    now: datetime
    elapsed: float = 0.0
    applied: bool = False
    reapply: bool = False
    memo: dict[str, Any] = field(default_factory=dict)
    approved: bool = False
    earlier: frozenset[Target] = frozenset()
    before: tuple[Kind, ...] = ()
    irreversible: bool = False
    attempt: int = 1
    undo_attempt: int = 1
    made: str = ""
    prefetched: Any = None
    certain: bool = False
    runner_image: str = ""
    moved: Callable[[], None] = _not_noted
    draining: Callable[[Ref], Awaitable[Drain | None]] = _nothing_drains
    needed_elsewhere: Callable[[Ref], Awaitable[str]] = _needed_by_nobody
    messenger: Messenger = field(kw_only=True)

    def next_look(self, soonest: float = 0.05) -> float:
        """Seconds until the next check of what is not streamed: the longer it takes, the less often, to spare the API server."""
        return min(_SELDOMEST, max(soonest, self.elapsed / 4))


class Kind(Model):
    """One kind of step: the fields under its key in a plan, and what it does.

    The driver saves in the status what it is about to do and only then calls `do` or `undo`. Both return at once: the first
    call starts, later calls report progress. Both may be called any number of times, after any crash; the docstring of each
    kind says why it is idempotent. They may raise what `targets/` and the ports raise; the driver turns it into an outcome.

    This is all that every kind answers. What only some of them do is a part of its own in `parts.py`, to inherit from, and
    the engine asks `isinstance(kind, RollsOut)`. `wait` is the shortest kind, `deploy` the one to copy for fields of an object, and
    `job` for everything that runs a Job.

    Attributes:
        key: the key of the kind in a step.
    """

    key: ClassVar[str]

    @abstractmethod
    def stages(self) -> tuple[StageRule, ...]:
        """The stages, from the spec alone; at least one. Most kinds have one."""

    @abstractmethod
    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Start a stage, or report its progress."""

    async def undo(self, context: StepContext) -> Outcome:
        """Undo the whole step, from any stage that it reached."""
        del context
        return Done()

    async def postcondition(self, context: StepContext) -> Standing:
        """Whether what the step did is still so, apart from its fields, which the engine compares.

        Reads only; asked of the stage in effect and of done steps, in each turn and before all that goes forward.
        """
        del context
        return Stands()

    def touches(self) -> tuple[Target, ...]:
        """The objects that it writes. All are claimed before the first step of the plan."""
        return ()
