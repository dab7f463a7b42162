"""The optional parts of a kind: what only some of them do. A kind inherits from those that apply to it.

The engine, preflight and the reports ask `isinstance(kind, RollsOut)`, and so no kind answers for what it does not do. Parts
without members only tell the engine something about the kind.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from cutover.errors import Problem
from cutover.field_path import Change, Json
from cutover.objects.endpoints import Side
from cutover.ports import Ref, Resource
from cutover.saga.turn import Done, Outcome
from cutover.steps.kind import Drain, Kind, StepContext, Target
from cutover.targets.snapshots import Snapshot

# --- what it does -----------------------------------------------------------------------------------------------------


class Passable(Kind):
    """An earlier step that can be undone early (`UndoneEarly`) may be undone before this one."""


class ChangesNothing(Passable):
    """There is nothing to undo, and by default nothing to do: the dwell of its stages passes, and its gates are evaluated."""

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Nothing."""
        del context, stage
        return Done()


class WritesFields(Kind):
    """Writes fields of its targets (`touches`), and undoes that.

    `do` takes a snapshot before the first write (`context.targets.snapshot`) and writes only with `context.targets.change`.

    Attributes:
        set_again: where another writer has changed its fields since it was done, `resume` carries out its last stage again.
    """

    set_again: ClassVar[bool] = True

    @abstractmethod
    def fields(self, target: Target, body: Json) -> list[str]:
        """The fields of a target that it writes, as jq paths, for users and GitOps tools; `body` is the target as it is."""

    @abstractmethod
    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Each field that it writes, back to the snapshot: from every value that it may have set, in the order it sets them."""

    def forward(self, snapshot: Snapshot) -> list[Change]:
        """The same fields forward: to the last value that the step sets. Follows from `restores`, and is not overridden."""
        return [change.forward() for change in self.restores(snapshot)]

    @abstractmethod
    async def would_set(self, context: StepContext) -> list[tuple[Ref, Change]]:
        """The fields that its spec sets, without a snapshot: `was` is the value that a field has now, `to` what it would get.

        Asked of a spec that was applied before, so what only one run can know is left out, such as the mark of a restart.
        """


class Enforced(WritesFields):
    """Its fields are enforced while the plan is paused, and after the step until the end of the run."""


class RollsOut(Kind):
    """Rolls out a workload."""

    @abstractmethod
    def rolls_out(self) -> Target | None:
        """The workload, which readiness gates measure; None when this step rolls out none, or several."""

    @abstractmethod
    def predicted_spec(self, target: Target, spec: Json) -> Json:
        """What the spec of a workload it touches will be after the step, as far as that is known without asking the server."""


class MakesObjects(Kind):
    """Creates objects."""

    @abstractmethod
    def makes(self) -> tuple[Resource, ...]:
        """Kinds of objects that it creates, changes and deletes, as the plan's account."""

    def reads(self) -> tuple[Target, ...]:
        """Objects that it reads as the plan's account, because what is in them goes into what it creates."""
        return ()


class BringsPods(Kind):
    """Sets any part of a pod spec, in a workload or in what it creates."""

    @abstractmethod
    def pod_specs(self, *, undo: bool = False) -> tuple[Json, ...]:
        """Pod specs that it brings for do, or for undo: whole, or as a merge patch.

        An account in one of them that is not the plan's must be labelled, and the plan's account must have the verb `use` on it.
        """


# --- around it --------------------------------------------------------------------------------------------------------


class Examines(Kind):
    """Needs more before the first step than its targets and the permissions on them, which are checked for it."""

    @abstractmethod
    async def examine(self, context: StepContext) -> list[Problem]:
        """What is missing or conflicts."""


class LooksFirst(Kind):
    """Needs a Job to look at what the operator itself cannot see, before the first step; it only reads."""

    @abstractmethod
    async def look(self, context: StepContext) -> list[Problem]:
        """What is missing, or that the Job still looks. Asked once nothing else is missing, so the plan's account may be used.

        It may be called any number of times; each call creates, reads or deletes one Job at most.
        """


class LooksAhead(Kind):
    """Reads what `do` or `undo` needs while the status is being saved, into `context.prefetched`: that saves a round trip.

    It must not write: nothing is announced yet.
    """

    async def prefetch(self, context: StepContext, stage: int) -> Any:
        """For `do`."""
        del context, stage

    async def prefetch_undo(self, context: StepContext) -> Any:
        """For `undo`."""
        del context


class UndoneEarly(Kind):
    """Its undo helps users by itself, so it is done before its turn where that is safe (traffic)."""

    @abstractmethod
    async def both_sides(self, context: StepContext) -> Sequence[Side]:
        """What traffic leaves and what it goes to, as far as that is there: no other plan takes their pods away while this one is active."""

    @abstractmethod
    async def early_undo(self, context: StepContext) -> frozenset[Ref] | None:
        """The workloads that its undo relies on, when it could be carried out now; otherwise None."""

    @abstractmethod
    async def drain_since(self, context: StepContext, moved: datetime) -> Drain | None:
        """What no step may take pods from yet, after the step has moved traffic (`StepContext.moved`); None: nothing, or not any more."""


class MayBeIrreversible(Kind):
    """Some of its steps cannot be undone; those must say `irreversible`.

    Attributes:
        undo_rule: a CEL rule on the step with its message, so that the API server refuses it too: it can be undone, or says `irreversible`.
    """

    undo_rule: ClassVar[tuple[str, str] | None] = None

    @abstractmethod
    def irreversible_reason(self) -> str:
        """Why it cannot be undone, and what to write; empty when it can."""


class Unbounded(Kind):
    """Only a user or an outside event can end a stage, so it has no timeout by default."""


class NeedsGates(Kind):
    """The step has no meaning without a gate."""


class Purpose(StrEnum):
    """What a step is for, as the checklist of the report and the success criteria ask."""

    CONFIGURES = "changes the version or configuration of the application"
    CHANGES_DATA = "runs a script that may change data"
    VERIFIES = "changes nothing and verifies something"
    NOTIFIES = "notifies users"
    STARTS_MAINTENANCE = "starts maintenance mode"
    ENDS_MAINTENANCE = "ends maintenance mode"
    RETIRES_OLD_VERSION = "removes the old version"


class HasPurposes(Kind):
    """Is of use to the checklist of the report, or to the success criteria."""

    @abstractmethod
    def purposes(self) -> frozenset[Purpose]:
        """What the step is for."""
