"""The command after the last step: release the targets, the Jobs and the snapshots of a run.

Called by `commands.py`. Nothing that may not be released keeps the rest: what is refused is collected, and the saga decides how long to try.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from cutover.engine import residue
from cutover.engine.command_context import CommandContext
from cutover.errors import Conflict, Denied, NotFound, OutsideError, Rejected, Unavailable
from cutover.field_path import Json
from cutover.names import matching
from cutover.objects import jobs
from cutover.ports import APPLIED_LABEL, FENCE_LABEL, JOBS, MADE_LABEL, PLAN_LABEL, SNAPSHOTS, Ref
from cutover.preflight import accounts
from cutover.saga.turn import Done, Outcome, Wait
from cutover.status.reasons import Reason
from cutover.status.status import ENDED, Phase, StepState
from cutover.targets import snapshots
from cutover.targets.claims import Busy
from cutover.targets.fields import Foreign


async def release(context: CommandContext, asked: Mapping[Ref, str]) -> Outcome:
    """After a success leave its label and keep the snapshots for a while; after anything else delete them.

    A target in `asked` is released at that version only, at which all fields of a success were seen to stand.
    Each part is idempotent, because after a crash the whole command is carried out again. The snapshots are deleted last: what an
    abandoned plan leaves behind is known only from them.
    """
    abandoned, keeps_snapshots = context.status.phase is Phase.ABANDONED, _keeps_snapshots(context)
    if _rolled_back_before_first_step(context):
        await _outdate_claims(context)
    of_snapshots = list[OutsideError]()
    try:
        problems = await _release_claims(context, asked, abandoned=abandoned)
    except Unavailable:  # perhaps of one target only, and the run may end with that
        if not keeps_snapshots and not abandoned:
            with _collecting(of_snapshots):
                await _drop_snapshots(context)
        raise
    left = await residue.residue_of(context) if abandoned else ""
    with _collecting(of_snapshots):
        # What has an owner goes with a foreground deletion. The claims come first: until they are released the run may still
        # turn out to be no success, and a rollback needs its snapshots.
        await (set_snapshot_owner(context, owned=True) if keeps_snapshots else _drop_snapshots(context))
    problems += [_snapshots_left(context, str(error), kept=keeps_snapshots) for error in of_snapshots]
    return Wait("NotReleased", "; ".join((*([left] if left else ()), *problems))) if problems else Done(message=left)


@contextmanager
def _collecting(errors: list[OutsideError]) -> Iterator[None]:
    """Keep what is refused, so that the rest is still released."""
    try:
        yield
    except (Denied, Rejected) as error:
        errors.append(error)


def has_succeeded(context: CommandContext) -> bool:
    """Whether the run ends as a success."""
    return context.status.failure is None and context.status.phase not in ENDED


def _keeps_snapshots(context: CommandContext) -> bool:
    return has_succeeded(context) and bool(context.plan.keep_snapshots)


def _rolled_back_before_first_step(context: CommandContext) -> bool:
    none_begun = all(step.state is StepState.PENDING for step in context.status.steps)
    return context.status.failure is not None and context.status.phase is not Phase.ABANDONED and none_begun


async def _outdate_claims(context: CommandContext) -> None:
    """The run was rolled back while it claimed: raise the fence, so that a late claim of a suspended process fails."""
    for ref in context.all_targets():
        with suppress(Busy, Foreign, NotFound, Denied, Rejected):
            await context.targets().claim(ref)


async def _release_claims(context: CommandContext, asked: Mapping[Ref, str], *, abandoned: bool) -> list[str]:
    """Release the Jobs and all targets; what could not be released, in sentences."""
    targets, label = context.targets(), _label_to_leave(context)
    of_jobs, of_claims, kept = list[OutsideError](), list[OutsideError](), list[Ref]()
    for ref in context.all_targets():
        before = len(of_claims)
        with _collecting(of_claims):
            await targets.release(ref, label, fenced=not abandoned, asked=asked.get(ref))
        kept += [ref] * (len(of_claims) - before)
    if JOBS in context.plan.makes():  # after the targets, as the snapshots: a rollback needs the Jobs too
        with _collecting(of_jobs):
            await jobs.release(context.cluster, targets.owner, abandoned=abandoned)
    if abandoned:  # its claims are void already, so it is not kept active for them
        return []
    said = [_jobs_left(context, await _why(context, error)) for error in of_jobs]
    return said + ([_claims_left(kept, await _why(context, of_claims[0]), label)] if kept else [])


def _label_to_leave(context: CommandContext) -> str | None:
    """The value for the label of a success; empty removes it, None leaves it: after a rollback what it was is true again."""
    failure = context.status.failure
    if has_succeeded(context):
        return context.applied_label
    rolled_back_success = failure is not None and failure.reason == Reason.ROLLBACK
    return "" if context.status.phase is Phase.ABANDONED or rolled_back_success else None


async def set_snapshot_owner(context: CommandContext, *, owned: bool) -> None:
    """Make the plan the owner of its snapshots once it has ended, or no longer."""
    cluster, of = context.cluster, context.targets().owner
    give = partial(
        snapshots.give,
        cluster,
        owners=[snapshots.owner(of.plan, of.uid)] if owned else [],
        still_ours=context.targets().still_ours,
    )
    if owned and (known := _known_snapshots(context)):
        with suppress(Conflict, NotFound):  # one has changed since, so it is not known how it is
            await give(known)
            return
    await give(await cluster.list(SNAPSHOTS, of.namespace, matching(snapshots.labels(of.uid, of.run))))


def _known_snapshots(context: CommandContext) -> list[Json]:
    """The snapshots of the run, as far as a write to them has to know them; none where there may be one that is not known.

    This process has created or read each, and nobody gives them an owner before the end.
    """
    known = dict[str, str]()
    for at, step in enumerate(context.status.steps):
        if step.snapshot_taken and not context.snapshots_taken(at):
            return []
        targets = context.targets(step.name)
        names = [targets.snapshot_of(ref).name for ref in context.targets_of(at)]
        known |= {name: targets.cache[name].version for name in names if name in targets.cache}
    namespace = context.ref.namespace
    metadata = [{"namespace": namespace, "name": name, "resourceVersion": at} for name, at in sorted(known.items())]
    return [{"metadata": one} for one in metadata]


async def _drop_snapshots(context: CommandContext) -> None:
    owner = context.targets().owner
    await snapshots.drop(context.cluster, owner.namespace, owner.uid, owner.run)


# --- what could not be released ---------------------------------------------------------------------------------------


async def _why(context: CommandContext, error: OutsideError) -> str:
    return str(await accounts.explained(context.plan, context.ref, context.cluster, error))


def _claims_left(kept: Sequence[Ref], why: str, label: str | None) -> str:
    objects = " ".join(f"{ref.resource.plural}.{ref.resource.group}".rstrip(".") + f"/{ref.name}" for ref in kept)
    change = f" {APPLIED_LABEL}={label} --overwrite" if label else ""
    return (
        f"{', '.join(map(str, kept))}: {why}; a claim is void once its plan has ended; to remove its labels: "
        f"kubectl label {objects} -n {kept[0].namespace} {PLAN_LABEL}- {FENCE_LABEL}-{change}"
    )


def _jobs_left(context: CommandContext, why: str) -> str:
    owner = context.targets().owner
    return f"Jobs: {why}; to delete them: kubectl delete jobs -n {owner.namespace} -l {MADE_LABEL}={owner.uid}"


def _snapshots_left(context: CommandContext, why: str, *, kept: bool) -> str:
    owner = context.targets().owner
    if kept:
        return f"snapshots: {why}; they are deleted after spec.keepSnapshots, or with the plan, all the same"
    picked = matching(snapshots.labels(owner.uid, owner.run))
    return f"snapshots: {why}; to delete them: kubectl delete controllerrevisions -n {owner.namespace} -l {picked}"
