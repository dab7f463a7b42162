"""The contract of a kind of step: its fields, what it changes, how it is done and undone.

The engine knows a step only through `Kind`, and a kind knows the engine only through `StepContext`; neither imports the other.
Who adds a kind subclasses `Kind` and adds a line to `KINDS` in `__init__.py`.
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
from cutover.steps.standing import Standing, Stands
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Targets

_SELDOMEST: Final = 2.0
"""Maximum seconds between two checks of what is not streamed."""


class Purpose(StrEnum):
    """What a step is for, as the checklist of the report and the success criteria ask."""

    CONFIGURES = "changes the version or configuration of the application"
    CHANGES_DATA = "runs a script that may change data"
    VERIFIES = "changes nothing and verifies something"
    NOTIFIES = "notifies users"
    STARTS_MAINTENANCE = "starts maintenance mode"
    ENDS_MAINTENANCE = "ends maintenance mode"
    RETIRES_OLD_VERSION = "removes the old version"


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
        attempt: the number of the attempt.
        made: what an earlier command of this attempt asked to save (`Again.made`).
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
        """Seconds until the next check of what is not streamed: the longer it takes, the less often, to spare the API server."""
        return min(_SELDOMEST, max(soonest, self.elapsed / 4))


class Kind(Model):
    """One kind of step: the fields under its key in a plan, and what it does.

    The driver saves in the status what it is about to do and only then calls `do` or `undo`. Both return at once: the first
    call starts, later calls report progress. Both may be called any number of times, after any crash; the docstring of each
    kind says why it is idempotent. They may raise what `targets/` and the ports raise; the driver turns it into an outcome.

    Which members a kind defines (they are grouped so below):

    * Always: `key`, the fields of the step, `stages` and `do`. A kind that changes nothing sets `undoes` to False.
    * When it writes a target: also `touches`, `fields`, `restores` and `undo`, and `examine` for what it needs beyond its targets.
      `do` takes a snapshot before the first write (`context.targets.snapshot`) and writes only with `context.targets.change`.
    * When it creates objects: also `makes` and `undo`, and `reads` when it copies what another author has written.
    * When it sets any part of a pod spec, in a workload or in what it creates: also `pod_specs`.
    * Optional: everything else. `forward` follows from `restores` and is not overridden.

    `deploy` is the one to copy for anything that sets fields of an object; `wait` is the shortest.

    Attributes:
        key: the key of the kind in a step.
        undoes: there is something to undo.
        passable: an earlier step that `undoes_early` may be undone before this one.
        undoes_early: its undo helps users by itself, so it is done before its turn where that is safe (traffic).
        enforced: its effect is enforced while the plan is paused, and after the step until the end of the run.
        bounded: a stage may time out; false where only a user or an outside event can end it.
        needs_gates: the step has no meaning without a gate.
        undo_rule: a CEL rule on the step with its message: the step can be undone, or says `irreversible`.
    """

    key: ClassVar[str]
    undoes: ClassVar[bool] = True
    passable: ClassVar[bool] = False
    undoes_early: ClassVar[bool] = False
    enforced: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = False
    undo_rule: ClassVar[tuple[str, str] | None] = None

    # --- always -------------------------------------------------------------------------------------------------------

    def stages(self) -> tuple[StageRule, ...]:
        """The stages, from the spec alone; at least one. Most kinds have one."""
        raise NotImplementedError

    async def do(self, context: StepContext, stage: int, prefetched: Any) -> Outcome:
        """Start a stage, or report its progress. `prefetched` is None when `prefetch` did not run or failed."""
        raise NotImplementedError

    # --- when it writes a target --------------------------------------------------------------------------------------

    def touches(self) -> tuple[Target, ...]:
        """The objects that it writes. All are claimed before the first step of the plan."""
        return ()

    def fields(self, target: Target, body: Json) -> list[str]:
        """The fields of a target that it writes, as jq paths, for users and GitOps tools; `body` is the target as it is."""
        del target, body
        return []

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Each field that it writes, back to the snapshot: from every value that it may have set, in the order it sets them."""
        del snapshot
        return []

    def forward(self, snapshot: Snapshot) -> list[Change]:
        """The same fields forward: to the last value that the step sets."""
        return [change.forward() for change in self.restores(snapshot)]

    async def undo(self, context: StepContext, prefetched: Any) -> Outcome:
        """Undo the whole step, from any stage that it reached. Only a kind with `undoes` False leaves this out."""
        del context, prefetched
        return Done()

    async def postcondition(self, context: StepContext) -> Standing:
        """Whether what the step did is still so. Reads only; asked of the stage in effect and of done steps."""
        del context
        return Stands()

    async def examine(self, context: StepContext) -> list[Problem]:
        """What is missing or conflicts before the first step. Existence of its targets and permissions on them are checked for it."""
        del context
        return []

    # --- when it creates objects, or brings pods ----------------------------------------------------------------------

    def makes(self) -> tuple[Resource, ...]:
        """Kinds of objects that it creates, changes and deletes, as the plan's account."""
        return ()

    def pod_specs(self, *, undo: bool = False) -> tuple[Json, ...]:
        """Pod specs that it brings for do, or for undo: whole, or as a merge patch.

        An account in one of them that is not the plan's must be labelled, and the plan's account must have the verb `use` on it.
        """
        del undo
        return ()

    def reads(self) -> tuple[Target, ...]:
        """Objects that it reads as the plan's account, because what is in them goes into what it creates."""
        return ()

    # --- optional -----------------------------------------------------------------------------------------------------

    def purposes(self) -> frozenset[Purpose]:
        """What the step is for."""
        return frozenset()

    def irreversible_reason(self) -> str:
        """Why it cannot be undone, and what to write; empty when it can. Otherwise the step must say `irreversible`."""
        return ""

    def rolls_out(self) -> Target | None:
        """The workload that it rolls out; readiness gates measure it."""
        return None

    def predicted_spec(self, target: Target, spec: Json) -> Json:
        """What the spec of a workload it touches will be after the step, as far as that is known without asking the server."""
        del target
        return spec

    async def prefetch(self, context: StepContext, stage: int) -> Any:
        """Read what `do` needs, while the status is being saved; that saves a round trip. It must not write: nothing is announced yet."""
        del context, stage

    async def prefetch_undo(self, context: StepContext) -> Any:
        """As `prefetch`, for `undo`."""
        del context

    async def early_undo(self, context: StepContext) -> frozenset[Ref] | None:
        """The workloads that its undo relies on, when it could be carried out now; otherwise None."""
        del context
        return None

    async def refused(self, context: StepContext) -> Failed | None:
        """Whether the controller that serves its target refuses what it wrote; asked of a done step that is `enforced`."""
        del context
        return None
