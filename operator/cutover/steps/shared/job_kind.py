"""The base of all kinds that run a Job, and another Job to undo it. Such a kind says what runs; when and how often is decided here.

`job` is one of them, with the templates of its author.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from cutover.errors import Denied, NotFound
from cutover.field_path import Json
from cutover.objects import jobs
from cutover.objects.jobs import State, state_of
from cutover.saga.turn import Again, Done, Failed, Outcome, Wait
from cutover.steps.kind import StepContext
from cutover.steps.shared import job_runs
from cutover.steps.shared.job_runs import SOON, OneJob, short_uid
from cutover.steps.shared.jobs_of_step import JobsOfStep
from cutover.steps.shared.rollouts import stuck_after
from cutover.targets.fields import Foreign

SETTLED_LABEL: Final = "cutover.dev/settled"
"""A user sets it to ``true`` on the Job of a step: what it did has been undone by hand."""
_NEVER_RUN: Final[Json] = {"spec": {"template": {"spec": {"containers": [{"name": "none", "image": "none"}]}}}}
_NONE: Final = "-"
_BY_HAND: Final = Done(message="undone by hand")


@dataclass(frozen=True, slots=True)
class _Made:
    """What is saved of a step (`Again.made`): the ends of the uids of its Jobs, and which attempt of the undo the second one is of."""

    forward: str = ""
    back: str = ""
    attempt: int = 1

    @classmethod
    def read(cls, text: str) -> _Made:
        forward, back, attempt = [*text.split(" "), "", ""][:3]
        return cls("" if forward == _NONE else forward, back, int(attempt or 1))

    def text(self) -> str:
        attempt = f" {self.attempt}" if self.attempt > 1 else ""
        return f"{self.forward or _NONE} {self.back}{attempt}"


class JobKind(JobsOfStep):
    """Runs a Job, and an undo Job on rollback.

    A kind of this shape has its fields, `key`, `job_template` and `undo_template`. It overrides `result` where more than success counts,
    and `only_reads` where there may be nothing to undo. Nothing else needs to know it.

    A Job is created suspended, under a name derived from (plan uid, run, step, attempt, do or undo). Its uid is saved
    with the step, and only then it is started, by a patch that works only once. So it is idempotent: a name is
    taken once, a late creation creates nothing that runs, and a Job that was deleted is known to be lost and is not created
    again. An undo first takes the name of a forward Job that does not exist, suspends one that does, and waits until its
    pods are gone. Another attempt of the undo has a name of its own, and begins once nothing of the one before it runs.

    Attributes:
        made_again: a Job that was deleted is created again: what it does knows by itself what it has done before.
    """

    made_again: ClassVar[bool] = False

    # --- forward ----------------------------------------------------------------------------------------------------------

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Run the Job, and report how it ends."""
        del stage
        name = self.name_of(context, undo=0)
        try:
            ended = await self._run(context, name, context.made)
            if ended is None and self.made_again and not context.applied:
                ended = await self._run(context, name, "")
        except NotFound:
            return Again(SOON, "the Job was deleted just now")
        if isinstance(ended, State):
            return await self.result(context, ended, undo=False)
        if ended is None and context.applied:
            return Done()  # it was seen to succeed before it was deleted
        # A new attempt has a new Job.
        return ended or _vanished(name, "if the plan pauses, retry runs the step again with a new Job")

    async def _run(self, context: StepContext, name: str, made: str) -> State | Outcome | None:
        manifest = None
        if not made:
            template = await self.read_template(context)
            if isinstance(template, Failed):
                return template
            manifest = self.manifest(context, name, template)
        return await job_runs.run(context, OneJob(name, manifest, made, self.changed_since()), save=lambda uid: uid)

    # --- backward ---------------------------------------------------------------------------------------------------------

    async def undo(self, context: StepContext) -> Outcome:
        """Stop the Job for good, wait until its pods are gone, then run the undo Job, if the Job may have done anything."""
        try:
            return await self._undo(context)
        except NotFound:
            return Again(SOON, "the Job was deleted just now")
        except Foreign as foreign:
            if foreign.reason != "TargetReplaced":
                raise
            return Again(SOON, "the Job was replaced just now")

    async def _undo(self, context: StepContext) -> Outcome:
        made = _Made.read(context.made)
        # First the forward Job must be over: an undo beside it would undo what is still being done. Once the undo Job has been
        # created it was over, so it is not asked again.
        if not made.back and (outcome := await self._clear(context, made.forward)):
            return outcome
        template = self.undo_template()
        if template is None:
            name = self.name_of(context, undo=0)
            message = f"Job {name} of a step without undo has started, so what it changed is unknown"
            return await self._ask_people(
                context, Wait("NoUndo", f"{message}; {jobs.logs(context.namespace, name)}; fix by hand what it left")
            )
        if context.undo_attempt > made.attempt:
            if made.back and (outcome := await self._before_another(context, made)):
                return outcome
            made = replace(made, back="", attempt=context.undo_attempt)
        name = self.name_of(context, undo=made.attempt)
        ended = await self._run_back(context, name, made, template)
        if ended is None and self.made_again:
            ended = await self._run_back(context, name, replace(made, back=""), template)
        result = await self.result(context, ended, undo=True) if isinstance(ended, State) else ended
        if result is not None and not isinstance(result, Failed):
            return result
        again = "retry runs the undo again with a new Job; or fix by hand what is left"
        failed = Failed(result.reason, f"{result.message}; {again}") if result else _vanished(name, again)
        return await self._ask_people(context, failed)

    async def _run_back(self, context: StepContext, name: str, made: _Made, template: Json) -> State | Outcome | None:
        manifest = None if made.back else self.manifest(context, name, template)
        job = OneJob(name, manifest, made.back, undo=True)
        return await job_runs.run(context, job, save=lambda uid: replace(made, back=uid).text())

    async def _before_another(self, context: StepContext, made: _Made) -> Outcome | None:
        """Nothing may be left of the attempt of the undo that has failed; None when the next one may begin."""
        if await self._settled(context):
            return _BY_HAND
        name = self.name_of(context, undo=made.attempt)
        body = await job_runs.read(context, name)
        ours = body is not None and short_uid(body) == made.back
        waits = await job_runs.stop(context, body) if ours else await job_runs.pods_end(context, name)
        return stuck_after(context, waits) if waits else None

    async def _clear(self, context: StepContext, forward: str) -> Outcome | None:
        """Make sure that the forward Job does nothing any more; None when what it did must be undone."""
        body = await self._forward(context)
        begun = state_of(body).begun or (bool(forward) and short_uid(body) != forward)
        if waits := await job_runs.stop(context, body):
            return stuck_after(context, waits)
        return None if begun and not self.only_reads() else Done()

    async def _forward(self, context: StepContext) -> Json:
        """The forward Job; if there is none, its name is taken, so that a late creation fails."""
        name = self.name_of(context, undo=0)
        if body := await job_runs.read(context, name):
            return body
        return await job_runs.create(context, self.manifest(context, name, await self._any_template(context), "never"))

    async def _any_template(self, context: StepContext) -> Json:
        """A template for a Job that never runs, so any will do; one that a policy of the cluster accepts is preferred."""
        if given := next((template for template in self.both() if template is not None), None):
            return given
        with suppress(Denied):  # a right that was lost must not keep the undo
            template = await self.read_template(context)
            if not isinstance(template, Failed):
                return template
        return _NEVER_RUN

    async def _ask_people(self, context: StepContext, why: Wait | Failed) -> Outcome:
        """Wait until a user has undone by hand what is unknown here, and confirms it by a label on the Job of the step."""
        if await self._settled(context):
            return _BY_HAND
        command = f"kubectl label job -n {context.namespace} {self.name_of(context, undo=0)} {SETTLED_LABEL}=true"
        return replace(why, message=f"{why.message}, then confirm: {command}")

    async def _settled(self, context: StepContext) -> bool:
        labels = (await self._forward(context))["metadata"].get("labels") or {}
        return bool(labels.get(SETTLED_LABEL) == "true")


def _vanished(name: str, way_out: str) -> Failed:
    return Failed("JobVanished", f"Job {name} was deleted, and how it ended is unknown; {way_out}")
