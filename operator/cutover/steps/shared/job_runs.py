"""One Job of a step, from its creation to its end: created suspended, its uid saved, started once, and stopped for good.

Used by `job_kind.py` for the Job of do and for that of undo. What its end means is decided there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cutover.field_path import Change, Json
from cutover.objects import jobs, pods
from cutover.objects.jobs import STARTED_LABEL, State, state_of
from cutover.objects.refused_pods import refused_by_events
from cutover.ports import JOBS, Ref
from cutover.saga.turn import Again, Failed, Outcome, Wait
from cutover.steps.kind import StepContext

SOON: Final = 2.0
_LOOK_AGAIN: Final = 30.0
"""Seconds; Jobs are streamed, so this only makes up for a lost event."""
_LONG_FOR_A_POD: Final = 5.0
"""Seconds until events are read that tell why a Job has no pod."""
_OUTLIVED_LIMIT: Final = 60.0
"""Seconds of an undo until a sidecar that keeps its Job from ending is a matter for people: no timeout ends an undo."""
_DIGITS: Final = 12
"""Characters of a uid that are saved: 48 bits tell a Job from another one with its name, and keep a status of 64 steps small."""
_SUSPEND: Final = ("spec", "suspend")
_STARTED: Final = ("metadata", "labels", STARTED_LABEL)


def short_uid(body: Json) -> str:
    """The part of a Job's uid that is saved."""
    return str(body["metadata"]["uid"])[-_DIGITS:]


async def read(context: StepContext, name: str) -> Json | None:
    """The Job of that name; None when there is none."""
    return await jobs.read(context.cluster, Ref(JOBS, context.namespace, name))


async def create(context: StepContext, manifest: Json) -> Json:
    """Take the name with a Job that does not run. Conflict means that another process was faster: read again."""
    return await context.cluster.create(JOBS, context.namespace, manifest, context.targets.owner.account)


@dataclass(frozen=True, slots=True)
class OneJob:
    """The Job that a step runs now.

    Attributes:
        manifest: the Job, suspended; None once its uid is saved, and not needed from then on.
        uid: what is saved of its uid; empty before it is created.
        changed_since: why it may look as if another writer had created it, for the message.
        undo: it is that of the undo.
    """

    name: str
    manifest: Json | None
    uid: str
    changed_since: str = ""
    undo: bool = False


async def run(context: StepContext, job: OneJob, save: Callable[[str], str]) -> State | Outcome | None:
    """Create a Job, save its uid, start it, look how it ends: one of these per call.

    Args:
        context: of the command.
        job: the Job.
        save: what is saved with the step once it is created, of its uid.

    Returns:
        Its state once it has ended; until then what to report. None: it was deleted, and how it ended is unknown.

    Raises:
        NotFound: it was deleted in the middle of this.
    """
    name, manifest, uid = job.name, job.manifest, job.uid
    ref = Ref(JOBS, context.namespace, name)
    body = context.cluster.seen(ref) or await jobs.read(context.cluster, ref)
    if manifest is not None and not uid:
        if body is None:
            body = await create(context, manifest)
        elif not await _is_ours(context, body, manifest):
            who = f"there is a Job {name} that this plan has not created{job.changed_since}"
            return Failed("NameTaken", f"{who}; find out who did, and delete it")
    if body is None or (uid and short_uid(body) != uid):
        return None
    state = state_of(body)
    # The uid is saved before the Job is started: from then on a deleted Job is known to be lost, and is never run twice.
    if not uid:
        await context.targets.change(ref, state.uid, ())  # a process that was suspended in the meantime ends here
        return Again(0.0, f"Job {name} is created", made=save(short_uid(body)))
    # The label changes in the same write as suspend and never back, so a Job that a user suspends is not started again.
    if state.started == "false" and not state.finished:
        changes = [
            Change(_SUSPEND, to=False, was=True, ours=False),
            Change(_STARTED, to="true", was="false", ours="true"),
        ]
        state = state_of(await context.targets.change(ref, state.uid, changes))
    if state.started == "never":
        return Failed("JobStopped", f"Job {name} was stopped before it started")
    return state if state.finished else await _running(context, state, undo=job.undo)


async def _is_ours(context: StepContext, body: Json, manifest: Json) -> bool:
    """Whether a Job whose uid was not saved is one that this step has created, just before a crash.

    Such a Job has not begun, for it is started only after its uid is saved. One that has begun, or runs something else, was put there
    by another writer, and its success would be taken for that of the step.
    """
    owner = context.targets.owner
    return not state_of(body).begun and await jobs.is_as_created(context.cluster, body, manifest, owner)


async def _running(context: StepContext, state: State, *, undo: bool) -> Outcome:
    lead = f"Job {state.name}"
    after = min(_LOOK_AGAIN, max(SOON, context.elapsed / 4))
    if state.deleting:
        return Again(SOON, f"{lead} is being deleted")
    if state.suspended:
        # With our label, so that a Job that lost it is known as started again.
        patch = f'{{"metadata":{{"labels":{{"{STARTED_LABEL}":"true"}}}},"spec":{{"suspend":false}}}}'
        command = f"kubectl patch job -n {context.namespace} {state.name} -p '{patch}'"
        why = (
            "was suspended by another writer"
            if state.started == "true"
            else f"is suspended and has lost its label {STARTED_LABEL}"
        )
        return Again(_LOOK_AGAIN, f"{lead} {why}; to continue: {command}", state.progress)
    if state.active and state.ready >= state.active:
        message = f"{lead} runs; {jobs.logs(context.namespace, state.name)}"
        return Again(_LOOK_AGAIN, message, state.progress)
    seen = await pods.pods_of(context.cluster, context.namespace, state.name)
    if why := pods.outlived(seen):
        message = f"{lead}: {why}; end that container, and keep it out of this Job or make it a native sidecar"
        late = undo and context.elapsed > _OUTLIVED_LIMIT
        return Wait("SidecarRuns", message) if late else Again(after, message, state.progress)
    why = pods.waits_for(seen, context.namespace)
    if not seen and context.elapsed > _LONG_FOR_A_POD:
        since = context.now - timedelta(seconds=context.elapsed)
        why = await refused_by_events(context.cluster, Ref(JOBS, context.namespace, state.name), state.uid, since)
        why = why or f"no pod has been created yet; kubectl describe job -n {context.namespace} {state.name}"
    return Again(after, f"{lead}: {why}" if why else f"{lead} runs", state.progress)


async def stop(context: StepContext, body: Json) -> Again | None:
    """Make sure that nothing of a Job runs now or ever will; None when that is so."""
    state = state_of(body)
    if not state.finished and (waits := await _suspend(context, state)):
        return waits
    return await pods_end(context, state.name)


async def pods_end(context: StepContext, name: str) -> Again | None:
    """Wait for the pods of a Job that is over: one that was stopped may still have some, and a terminating pod still writes."""
    if running := pods.unfinished(await pods.pods_of(context.cluster, context.namespace, name)):
        return Again(SOON, f"the undo waits until pod {running[0]} of Job {name} is gone")
    return None


async def _suspend(context: StepContext, state: State) -> Again | None:
    """Suspend the Job so that it never runs again; None when the Job controller has deleted its pods.

    It is suspended only once its controller has seen that it may run: otherwise the condition Suspended could be from
    before its start, while a pod is being created.
    """
    ref, lead = Ref(JOBS, context.namespace, state.name), f"Job {state.name}"
    if state.deleting:
        return Again(SOON, f"the undo waits until {lead} is deleted")
    if not state.begun:
        await context.targets.change(ref, state.uid, [Change(_STARTED, to="never", was="false", ours="never")])
        return None
    if state.ending:
        return Again(SOON, f"the undo waits until {lead} has ended")
    if not state.suspended:
        if not state.acknowledged:
            return Again(SOON, f"the undo waits until the Job controller has seen {lead}")
        changes = [
            Change(_SUSPEND, to=True, was=False, ours=True),
            Change(_STARTED, to="true", was="false", ours="true"),
        ]
        state = state_of(await context.targets.change(ref, state.uid, changes))
    return None if state.stopped else Again(SOON, f"the undo waits until {lead} is stopped")
