"""The contract of a kind of step: its fields, what it changes, how it is done and undone.

Whoever adds a kind starts here; `__init__.py` has the registry. The engine knows of a step only what stands in this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final

from cutover.errors import Problem
from cutover.field_path import Change, Json
from cutover.ports import Cluster, Messenger, Ref, Resource
from cutover.saga.turn import Done, Failed, Outcome, StageRule
from cutover.schema.model import Model
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Targets

_SELDOMEST: Final = 2.0
"""Seconds between looks at what is not streamed, at most."""


class Purpose(StrEnum):
    """What a step can be there for, beside what it changes; the checklist and the report ask."""

    CONFIGURES = "brings the application to another configuration"
    CHANGES_DATA = "runs what may change data"
    VERIFIES = "changes nothing, and proves something"
    NOTIFIES = "tells people"
    STARTS_MAINTENANCE = "begins maintenance mode"
    ENDS_MAINTENANCE = "ends maintenance mode"
    RETIRES_OLD_VERSION = "takes the old version away"


@dataclass(frozen=True, slots=True)
class Target:
    """One object that a step changes, in the plan's namespace."""

    resource: Resource
    name: str

    def ref(self, namespace: str) -> Ref:
        """The object by its full address."""
        return Ref(self.resource, namespace, self.name)


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a kind gets to work with, for one command.

    Attributes:
        place: where the step stands in the plan, such as ``steps[shift]``.
        now: the time, UTC.
        elapsed: seconds since the stage (or the undo) was announced, or the undo last came further; what is prefetched at again
            and again is prefetched at more seldom the longer it takes.
        applied: the stage has been seen in effect, so what stands there now is not ours to repair without a thought.
        reapply: a person has said that the stage is to be brought about once more, whatever stands there now.
        memo: what the kind remembers of this run; lost in a crash, so only what can be found out again.
        approved: a person has approved the stage in hand.
        earlier: what earlier steps of the plan write; it may look different when this step begins.
        attempt: the number of the try.
        made: what an earlier command of this attempt has asked to be saved (`Again.made`).
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
    attempt: int = 1
    made: str = ""
    messenger: Messenger = field(kw_only=True)

    def next_look(self, soonest: float = 0.05) -> float:
        """Seconds until the next look at what is not streamed: the longer it takes, the less often."""
        return min(_SELDOMEST, max(soonest, self.elapsed / 4))


class Kind(Model):
    """One kind of step: the fields people write under its key, and what it does.

    `do` and `undo` return at once: the first call starts, the later ones look. Both may be called any number of times,
    after any crash; each kind's docstring says why that is harmless. They may raise what `targets/` and the ports raise;
    the driver turns it into an outcome.

    Attributes:
        key: the key in a step.
        undoes: there is something to undo.
        passable: an earlier step that `undoes_early` may be undone before this one.
        undoes_early: its undo brings relief by itself, so it is taken ahead of its turn where that is safe (traffic).
        enforced: a stage in effect is prefetched after also while the plan is paused.
        bounded: a stage may time out; false for what only a person can end.
        needs_gates: the step means nothing without a gate.
        undo_rule: a rule in CEL for the step, and its sentence: it can be undone, or says that it cannot.
    """

    key: ClassVar[str]
    undoes: ClassVar[bool] = True
    passable: ClassVar[bool] = False
    undoes_early: ClassVar[bool] = False
    enforced: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = False
    undo_rule: ClassVar[tuple[str, str] | None] = None

    def stages(self) -> tuple[StageRule, ...]:
        """The stages, from the spec alone; at least one."""
        raise NotImplementedError

    def purposes(self) -> frozenset[Purpose]:
        """What it is there for."""
        return frozenset()

    def touches(self) -> tuple[Target, ...]:
        """The objects it writes, which are claimed before the first step."""
        return ()

    def makes(self) -> tuple[Resource, ...]:
        """Kinds of objects that it makes, changes and deletes, as the plan's account."""
        return ()

    def pod_accounts(self, account: str) -> frozenset[str]:
        """Service accounts that it gives to pods, beside the plan's `account`, which must be allowed to use them."""
        del account
        return frozenset()

    def irreversible_reason(self) -> str:
        """Why it cannot be undone, and what to write; empty when it can. The step must then say `irreversible`."""
        return ""

    def rolls_out(self) -> Target | None:
        """What it rolls out; readiness gates measure it."""
        return None

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Each field it writes: the rollback to the snapshot, from every value it may have set, the last one last."""
        del snapshot
        return []

    def forward(self, snapshot: Snapshot) -> list[Change]:
        """The same fields on the way forward: to the last value that the step sets."""
        return [change.forward() for change in self.restores(snapshot)]

    def fields(self, target: Target, body: Json) -> list[str]:
        """Which fields of a target it writes, as jq paths; `body` is the target as it is."""
        del target, body
        return []

    def predicted_spec(self, target: Target, spec: Json) -> Json:
        """What the spec of a workload that it touches will be, as far as it can be told without asking the server."""
        del target
        return spec

    async def early_undo(self, context: StepContext) -> frozenset[Ref] | None:
        """The workloads its undo rests on, when it could be carried out at this moment; else None."""
        del context
        return None

    async def examine(self, context: StepContext) -> list[Problem]:
        """What is missing or in the way before the first step, beside existence of and rights on what it touches."""
        del context
        return []

    async def prefetch(self, context: StepContext, stage: int) -> Any:
        """What `do` needs to know, read beside the saving of the status, so it writes nothing. It is handed to `do`."""
        del context, stage

    async def do(self, context: StepContext, stage: int, prefetched: Any) -> Outcome:
        """Bring one stage about, or look how far it is. `prefetched` is None when `prefetch` did not run or failed."""
        raise NotImplementedError

    async def refused(self, context: StepContext) -> Failed | None:
        """Whether what it has written stands and is refused by who has to carry it out; asked of a step that is done and `enforced`."""
        del context
        return None

    async def prefetch_undo(self, context: StepContext) -> Any:
        """As `prefetch`, for `undo`."""
        del context

    async def undo(self, context: StepContext, prefetched: Any) -> Outcome:
        """Take the whole step back, from whatever stage it reached."""
        del context, prefetched
        return Done()
