"""What every kind of step is: its fields, what it changes, how it is done and undone. `__init__.py` has the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final

from cutover.errors import Denied, NotFound, Problem, Rejected
from cutover.field_path import Change, Json, stand
from cutover.objects.pods import waits_for
from cutover.objects.workloads import Rollout, owned, paused, pods_to_delete, selector
from cutover.ports import FIELD_MANAGER, PODS, STATEFUL_SETS, Cluster, Messenger, Ref, Resource
from cutover.saga.turn import Again, Done, Failed, Outcome, Pause, StageRule, Wait
from cutover.schema.model import Model
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Targets

_PATIENCE: Final = 60.0
"""Seconds that an undo waits before it says that somebody has to help."""
PATIENCE_WITH_PODS: Final = 600.0
"""The same where pods have to come or go: as long as a Deployment is given by default."""
_LONG_FOR_A_POD: Final = 15.0
"""Seconds after which people ask why pods do not start, and from one such look to the next."""
_SELDOMEST: Final = 2.0
"""Seconds between looks at what is not streamed, at most."""
_MOST_REPAIRS: Final = 5
"""What somebody else set is put back so many times within a minute, before a person must settle who is right."""


class Duty(StrEnum):
    """What a step can be there for, beside what it changes; the checklist and the report ask."""

    CONFIGURES = "brings the application to another configuration"
    SCRIPT = "runs what may change data"
    LOOKS = "changes nothing, and proves something"
    TELLS = "tells people"
    CLOSES = "begins maintenance mode"
    OPENS = "ends maintenance mode"
    RETIRES = "takes the old version away"


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
        elapsed: seconds since the stage (or the undo) was announced, or the undo last came further; what is looked at again
            and again is looked at more seldom the longer it takes.
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

    def pause(self, soonest: float = 0.05) -> float:
        """Seconds until the next look at what is not streamed: the longer it takes, the less often."""
        return min(_SELDOMEST, max(soonest, self.elapsed / 4))


async def refusal(context: StepContext, ref: Ref, patch: Json) -> str:
    """What the server says against a strategic merge patch of an object, asked by a dry run; empty when it takes it.

    Not asked of what an earlier step writes: it looks different by then. What preflight says of every target is left to it.
    """
    if Target(ref.resource, ref.name) in context.earlier:
        return ""
    try:
        await context.cluster.dry_run(ref, patch, context.targets.owner.account)
    except NotFound:
        return ""
    except (Rejected, Denied) as refused:
        return "" if await lacks_the_right(context, ref, refused) else f"the server refuses it: {refused}"
    return ""


def unknown_receiver(messenger: Messenger, name: str) -> str:
    """What is said of a provider of messages that is not there; empty when it is."""
    if messenger.knows(name):
        return ""
    known = ", ".join(messenger.names()) or "none"
    return f"there is no provider {name} for messages; the administrator has configured: {known}"


async def lacks_the_right(context: StepContext, ref: Ref, refused: Rejected | Denied) -> bool:
    """Whether the account may not patch the object at all, which preflight says of every target."""
    if not isinstance(refused, Denied):
        return False
    return not await context.cluster.may(
        context.targets.owner.account, context.namespace, "patch", ref.resource, ref.name
    )


class Kind(Model):
    """One kind of step: the fields people write under its key, and what it does.

    `do` and `undo` return at once: the first call starts, the later ones look. Both may be called any number of times,
    after any crash; each kind's docstring says why that is harmless. They may raise what `targets/` and the ports raise;
    the driver turns it into an outcome.

    Attributes:
        key: the key in a step.
        undoes: there is something to undo.
        passable: an earlier step that `goes_ahead` may be undone before this one.
        goes_ahead: its undo brings relief by itself, so it is taken ahead of its turn where that is safe (traffic).
        keeps: a stage in effect is looked after also while the plan is paused.
        bounded: a stage may time out; false for what only a person can end.
        needs_gates: the step means nothing without a gate.
        way_back: a rule in CEL for the step, and its sentence: it can be undone, or says that it cannot.
    """

    key: ClassVar[str]
    undoes: ClassVar[bool] = True
    passable: ClassVar[bool] = False
    goes_ahead: ClassVar[bool] = False
    keeps: ClassVar[bool] = False
    bounded: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = False
    way_back: ClassVar[tuple[str, str] | None] = None

    def stages(self) -> tuple[StageRule, ...]:
        """The stages, from the spec alone; at least one."""
        raise NotImplementedError

    def duties(self) -> frozenset[Duty]:
        """What it is there for."""
        return frozenset()

    def touches(self) -> tuple[Target, ...]:
        """The objects it writes, which are claimed before the first step."""
        return ()

    def makes(self) -> tuple[Resource, ...]:
        """Kinds of objects that it makes, changes and deletes, as the plan's account."""
        return ()

    def lends(self, account: str) -> frozenset[str]:
        """Service accounts that it gives to pods, beside the plan's `account`, which must be allowed to use them."""
        del account
        return frozenset()

    def no_way_back(self) -> str:
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

    def shaped(self, target: Target, spec: Json) -> Json:
        """What the spec of a workload that it touches will be, as far as it can be told without asking the server."""
        del target
        return spec

    async def ahead(self, context: StepContext) -> frozenset[Ref] | None:
        """The workloads its undo rests on, when it could be carried out at this moment; else None."""
        del context
        return None

    async def examine(self, context: StepContext) -> list[Problem]:
        """What is missing or in the way before the first step, beside existence of and rights on what it touches."""
        del context
        return []

    async def look(self, context: StepContext, stage: int) -> Any:
        """What `do` needs to know, read beside the saving of the status, so it writes nothing. It is handed to `do`."""
        del context, stage

    async def do(self, context: StepContext, stage: int, looked: Any) -> Outcome:
        """Bring one stage about, or look how far it is. `looked` is None when `look` did not run or failed."""
        raise NotImplementedError

    async def refused(self, context: StepContext) -> Failed | None:
        """Whether what it has written stands and is refused by who has to carry it out; asked of a step that is done and `keeps`."""
        del context
        return None

    async def look_back(self, context: StepContext) -> Any:
        """As `look`, for `undo`."""
        del context

    async def undo(self, context: StepContext, looked: Any) -> Outcome:
        """Take the whole step back, from whatever stage it reached."""
        del context, looked
        return Done()


def old_side_not_ready(context: StepContext, message: str) -> Outcome:
    """Traffic cannot go back yet: it is looked at again, and after a while said to be Stuck."""
    return Again(context.pause(), message) if context.elapsed < _PATIENCE else Wait("OldSideNotReady", message)


def patient(context: StepContext, again: Again, limit: float = PATIENCE_WITH_PODS) -> Outcome:
    """What an undo waits for comes by itself, until it has taken so long that somebody has to look: it is Stuck then."""
    return again if context.elapsed < limit else Wait("NotBackYet", again.message)


def stood(body: Json, resource: Resource) -> list[int]:
    """For the snapshot: how many pods a workload had before a step, in all and available."""
    rollout = Rollout.of(body, resource)
    return [rollout.total, rollout.available]


def is_back(context: StepContext, rollout: Rollout, before: Snapshot) -> bool:
    """Whether a workload on its way back is as it was: complete, or, after a while, no worse than it was.

    An undo that asked for more could never end, and all earlier ones would wait for it.
    """
    if rollout.complete:
        return True
    late = bool(rollout.stalled(context.elapsed)) or context.elapsed >= _PATIENCE
    return late and rollout.as_before(*before.facts["stood"])


def needs_hands(context: StepContext, ref: Ref, body: Json, rollout: Rollout) -> Wait | None:
    """Pods of a workload on its way back that no controller replaces by itself; one of a StatefulSet is given some time."""
    if rollout.outdated and (rollout.by_hand or (ref.resource == STATEFUL_SETS and context.elapsed > _PATIENCE)):
        return Wait("PodsToDelete", pods_to_delete(ref, body, rollout))
    return None


async def held_up(context: StepContext, ref: Ref, body: Json) -> str:
    """Why pods of a workload do not start, by the scheduler's and the kubelet's reason, such as a Secret that is not there.

    Only the kubelet may read Secrets, so nobody can tell before. Asked once it takes long, and then seldom: a rollout of hundreds
    of pods brings as many events. Begins with a semicolon, or is empty.
    """
    if context.elapsed < _LONG_FOR_A_POD:
        return ""
    memo = f"{context.place}.held_up[{ref}]"
    at, why = context.memo.get(memo, (None, ""))
    if at is None or context.now - at >= timedelta(seconds=_LONG_FOR_A_POD):
        why = await _why_not_started(context, ref, body)
        context.memo[memo] = (context.now, why)
    return f"; {why}" if why else ""


async def _why_not_started(context: StepContext, ref: Ref, body: Json) -> str:
    pods = owned(await context.cluster.list(PODS, context.namespace, selector(body), fresh=False), ref, body)
    return waits_for(pods, context.namespace)


def hindered(context: StepContext, ref: Ref, rollout: Rollout) -> Pause | Failed | None:
    """A rollout that does not get on by itself. Who pauses it wishes to stop: nothing is undone, and a person decides."""
    if rollout.paused:
        says = paused(ref, "its rollout stands still")
        return Pause("DeploymentPaused", f"{says}, then resume the plan; abort takes everything back")
    says = _stalled(context, ref, rollout)
    return Failed("RolloutStalled", says) if says else None


def hindered_back(context: StepContext, ref: Ref, rollout: Rollout) -> Wait | None:
    """The same on rollback, which goes on by itself once nothing hinders it."""
    if rollout.paused:
        return Wait("DeploymentPaused", paused(ref, "its old pods do not come back"))
    says = _stalled(context, ref, rollout)
    return Wait("RolloutStalled", says) if says else None


def _stalled(context: StepContext, ref: Ref, rollout: Rollout) -> str:
    reason = rollout.stalled(context.elapsed)
    return f"the rollout of {ref} does not progress ({reason}); {rollout.text} pods are ready" if reason else ""


def note_set(context: StepContext) -> None:
    """This process has brought the fields of the step to their values. Forgotten when they are taken back."""
    context.memo[f"{context.place}.set"] = True


def forget_set(context: StepContext) -> None:
    """The fields of the step are not to have its values any more."""
    context.memo.pop(f"{context.place}.set", None)


async def fought_over(context: StepContext, ref: Ref, changes: Sequence[Change]) -> bool:
    """Whether somebody sets again what was before, and has had it put back too often: asked before each write."""
    if f"{context.place}.set" not in context.memo or stand(await context.targets.view(ref), changes):
        return False
    return repaired_too_often(context)


def repaired_too_often(context: StepContext) -> bool:
    """Note that what somebody else set is about to be put back; whether that was done too often within the last minute."""
    memo = f"{context.place}.repairs"
    recent: list[datetime] = [at for at in context.memo.pop(memo, ()) if context.now - at < timedelta(minutes=1)]
    if len(recent) >= _MOST_REPAIRS:  # from here on a person settles it, and then it is counted from the start
        return True
    context.memo[memo] = [*recent, context.now]
    return False


async def foreign_writer(context: StepContext, ref: Ref, what: str) -> Pause:
    """Nobody wins against a writer that does not stop: hold, and name it as a field manager."""
    managed = (await context.cluster.get(ref))["metadata"].get("managedFields") or ()
    others = [entry for entry in managed if entry.get("manager") != FIELD_MANAGER and not entry.get("subresource")]
    last = max(others, key=lambda entry: entry.get("time", ""), default=None)
    who = f"field manager {last['manager']}" if last else "somebody"
    says = f"{who} has changed {what} of {ref} more than {_MOST_REPAIRS} times in a minute"
    return Pause("ForeignWriter", f"{says}; make it leave them alone, then resume")
