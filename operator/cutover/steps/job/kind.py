"""The kind `job`: runs a Job from a template, and another Job to undo it."""

from __future__ import annotations

from typing import Final

from cutover.errors import NotFound
from cutover.field_path import Change, Json
from cutover.objects import jobs, pods
from cutover.objects.jobs import STARTED_LABEL, State, state_of
from cutover.ports import JOBS, Ref
from cutover.saga.turn import Again, Done, Failed, Outcome, Wait
from cutover.steps.job.creation import CreatedJobs
from cutover.steps.kind import StepContext
from cutover.steps.shared.rollouts import stuck_after
from cutover.targets.fields import Foreign

SETTLED_LABEL: Final = "cutover.dev/settled"
"""A user sets it to ``true`` on the Job of a step: what it did has been undone by hand."""
_LOOK_AGAIN: Final = 30.0
"""Seconds; Jobs are streamed, so this only makes up for a lost event."""
_SOON: Final = 2.0
_NONE: Final = "-"
_DIGITS: Final = 12
"""Characters of a uid that are saved: 48 bits tell a Job from another one with its name, and keep a status of 64 steps small."""
_SUSPEND: Final = ("spec", "suspend")
_STARTED: Final = ("metadata", "labels", STARTED_LABEL)


class Job(CreatedJobs):
    """Runs a Job, and an undo Job on rollback.

    A Job is created suspended, under a name derived from (plan uid, run, step, attempt, do or undo). Its uid is saved
    with the step, and only then it is started, by a patch that works only once. So it is idempotent: a name is
    taken once, a late creation creates nothing that runs, and a Job that was deleted is known to be lost and is not created
    again. An undo first takes the name of a forward Job that does not exist, suspends one that does, and waits until its
    pods are gone.
    """

    # --- forward ------------------------------------------------------------------------------------------------------

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Run the Job, and report how it ends."""
        del stage
        template, problem = (self.template, "") if context.made else await self._template(context)
        if problem:
            return Failed("CronJobUnusable", problem)
        try:
            return await self._run(context, self.name_of(context), template, context.made, "")
        except NotFound:
            return Again(_SOON, "the Job was deleted just now")

    async def _run(self, context: StepContext, name: str, template: Json, uid: str, before: str) -> Outcome:
        """Create a Job, save its uid, start it, report how it ends: one of these per call.

        Args:
            context: as for `do`.
            name: of the Job.
            template: what it runs; not needed once its uid is saved.
            uid: what is saved of its uid; empty before it is created.
            before: what is saved before that.
        """
        ref = Ref(JOBS, context.namespace, name)
        body = context.cluster.seen(ref) or await jobs.read(context.cluster, ref)
        if body is None and not uid:
            body = await self._make(context, name, template)
        elif body is not None and not uid and not await self._is_ours(context, body, template):
            return self._taken(name)
        if body is None or (uid and _short_uid(body) != uid):
            return self._vanished(context, name, before)
        state = state_of(body)
        # The uid is saved before the Job is started: from then on a deleted Job is known to be lost, and is never run twice.
        if not uid:
            await context.targets.change(ref, state.uid, ())  # a process that was suspended in the meantime ends here
            return Again(0.0, f"Job {name} is created", made=before + _short_uid(body))
        # The label changes in the same write as suspend and never back, so a Job that a user suspends is not started again.
        if state.started == "false" and not state.finished:
            changes = [
                Change(_SUSPEND, to=False, was=True, ours=False),
                Change(_STARTED, to="true", was="false", ours="true"),
            ]
            state = state_of(await context.targets.change(ref, state.uid, changes))
        if state.started == "never":
            return Failed("JobStopped", f"Job {name} was stopped before it started")
        if state.complete:
            return Done(ready=state.progress)
        if state.failed:
            ended = pods.exit_of(await pods.pods_of(context.cluster, context.namespace, name))
            message = f"Job {name} failed ({state.failed}): {ended.message}; {jobs.logs(context.namespace, name)}"
            return Failed("JobFailed", message)
        return await self._running(context, state)

    def _taken(self, name: str) -> Outcome:
        """A Job of that name that is not what this step creates."""
        or_else = f", or CronJob {self.cron_job} has changed since" if self.cron_job else ""
        who = f"there is a Job {name} that this plan has not created{or_else}"
        return Failed("NameTaken", f"{who}; find out who did, and delete it")

    def _vanished(self, context: StepContext, name: str, before: str) -> Outcome:
        """A Job whose uid was saved and that does not exist any more."""
        if context.applied and not before:
            return Done()  # it was seen to succeed before it was deleted
        # A new attempt has a new Job. Backward there is none: a user has to look at what the undo Job has done.
        again = "" if before else "; if the plan pauses, retry runs the step again with a new Job"
        return Failed("JobVanished", f"Job {name} was deleted, and how it ended is unknown{again}")

    async def _running(self, context: StepContext, state: State) -> Outcome:
        lead = f"Job {state.name}"
        after = min(_LOOK_AGAIN, max(_SOON, context.elapsed / 4))
        if state.deleting:
            return Again(_SOON, f"{lead} is being deleted")
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
        why = pods.waits_for(seen, context.namespace)
        if not seen and context.elapsed > _LOOK_AGAIN:
            why = f"no pod has been created yet; kubectl describe job -n {context.namespace} {state.name}"
        return Again(after, f"{lead}: {why}" if why else f"{lead} runs", state.progress)

    # --- backward -----------------------------------------------------------------------------------------------------

    async def undo(self, context: StepContext) -> Outcome:
        """Stop the Job for good, wait until its pods are gone, then run the undo Job, if the Job may have done anything."""
        try:
            return await self._undo(context)
        except NotFound:
            return Again(_SOON, "the Job was deleted just now")
        except Foreign as foreign:
            if foreign.reason != "TargetReplaced":
                raise
            return Again(_SOON, "the Job was replaced just now")

    async def _undo(self, context: StepContext) -> Outcome:
        saved, _, back = context.made.partition(" ")
        forward = "" if saved == _NONE else saved
        # First the forward Job must be over: an undo beside it would undo what is still being done. Once the undo Job has been
        # created it was over, so it is not asked again.
        if not back and (outcome := await self._clear(context, forward)):
            return outcome
        if self.undo_ is None:
            name = self.name_of(context)
            message = f"Job {name} of a step without undo has started, so what it changed is unknown"
            return await self._ask_people(context, "NoUndo", f"{message}; {jobs.logs(context.namespace, name)}")
        name, before = self.name_of(context, undo=True), f"{forward or _NONE} "
        outcome = await self._run(context, name, self.undo_, back, before)
        if isinstance(outcome, Failed):
            return await self._ask_people(context, outcome.reason, outcome.message)
        return outcome

    async def _clear(self, context: StepContext, forward: str) -> Outcome | None:
        """Make sure that the forward Job does nothing any more; None when what it did must be undone."""
        body = await self._forward(context)
        state = state_of(body)
        begun = state.begun or (bool(forward) and _short_uid(body) != forward)
        if not state.finished and (waits := await self._stop(context, state)):
            return stuck_after(context, waits)
        # A stopped Job may still have pods that terminate, and a terminating pod still writes.
        if running := pods.unfinished(await pods.pods_of(context.cluster, context.namespace, state.name)):
            message = f"the undo waits until pod {running[0]} of Job {state.name} is gone"
            return stuck_after(context, Again(_SOON, message))
        return None if begun and not self.changes_nothing else Done()

    async def _stop(self, context: StepContext, state: State) -> Again | None:
        """Suspend the Job so that it never runs again; None when the Job controller has deleted its pods.

        It is suspended only once its controller has seen that it may run: otherwise the condition Suspended could be from
        before its start, while a pod is being created.
        """
        ref, lead = Ref(JOBS, context.namespace, state.name), f"Job {state.name}"
        if state.deleting:
            return Again(_SOON, f"the undo waits until {lead} is deleted")
        if not state.begun:
            await context.targets.change(ref, state.uid, [Change(_STARTED, to="never", was="false", ours="never")])
            return None
        if state.ending:
            return Again(_SOON, f"the undo waits until {lead} has ended")
        if not state.suspended:
            if not state.acknowledged:
                return Again(_SOON, f"the undo waits until the Job controller has seen {lead}")
            changes = [
                Change(_SUSPEND, to=True, was=False, ours=True),
                Change(_STARTED, to="true", was="false", ours="true"),
            ]
            body = await context.targets.change(ref, state.uid, changes)
            state = state_of(body)
        return None if state.stopped else Again(_SOON, f"the undo waits until {lead} is stopped")

    async def _ask_people(self, context: StepContext, reason: str, message: str) -> Outcome:
        """Wait until a user has undone by hand what is unknown here, and confirms it by a label on the Job."""
        metadata = (await self._forward(context))["metadata"]
        if (metadata.get("labels") or {}).get(SETTLED_LABEL) == "true":
            return Done(message="undone by hand")
        command = f"kubectl label job -n {context.namespace} {metadata['name']} {SETTLED_LABEL}=true"
        return Wait(reason, f"{message}; fix what it left by hand, then confirm: {command}")


def _short_uid(body: Json) -> str:
    """The part of a Job's uid that is saved."""
    return str(body["metadata"]["uid"])[-_DIGITS:]
