"""How the Jobs of a `job` step come to be: from which template, and whether one that is there was created by this step."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from cutover.errors import Denied, Problem
from cutover.field_path import Json
from cutover.objects import cron_jobs, jobs
from cutover.objects.jobs import state_of
from cutover.ports import CRON_JOBS, JOBS, Ref
from cutover.steps.job.spec import JobSpec
from cutover.steps.kind import StepContext
from cutover.steps.parts import Examines

_NEVER_RUN: Final[Json] = {"spec": {"template": {"spec": {"containers": [{"name": "none", "image": "none"}]}}}}


class CreatedJobs(Examines, JobSpec):
    """The Jobs of a step: checked before the first step, and created."""

    async def examine(self, context: StepContext) -> list[Problem]:
        """The server accepts both Jobs."""
        problems, templates = list[Problem](), self.templates()
        if self.cron_job is not None:
            with suppress(Denied):  # preflight reports it with all other permissions
                template, problem = await self._template(context)
                problems += [Problem(f"{context.place}.job.cronJob", problem)] if problem else []
                templates += [] if problem else [("cronJob", template)]
        for field, template in templates:
            body = self.manifest(context, self.name_of(context, undo=field == "undo"), template)
            place = f"{context.place}.job.{field}"
            problems += await jobs.dry_run_problems(context.cluster, place, body, context.targets.owner)
        return problems

    async def _forward(self, context: StepContext) -> Json:
        """The forward Job; if there is none, its name is taken, so that a late creation fails."""
        name = self.name_of(context)
        if body := await jobs.read(context.cluster, Ref(JOBS, context.namespace, name)):
            return body
        # It never runs, so any template will do; one that a policy of the cluster accepts is preferred.
        template = self.template or self.undo_
        if template is None:
            with suppress(Denied):  # a right that was lost must not keep the undo
                template = (await self._template(context))[0]
        template = template or _NEVER_RUN
        return await self._make(context, name, template, started="never")

    async def _template(self, context: StepContext) -> tuple[Json, str]:
        """The template of the forward Job as it is now, or what is wrong with the CronJob that it is in. Raises Denied."""
        if self.cron_job is None:
            return self.template, ""
        ref, account = Ref(CRON_JOBS, context.namespace, self.cron_job), context.targets.owner.account
        return await cron_jobs.template_of(context.cluster, ref, account, self.service_account_name or account)

    async def _make(self, context: StepContext, name: str, template: Json, started: str = "false") -> Json:
        """Take the name with a Job that does not run. Conflict means that another process was faster: read again."""
        body = self.manifest(context, name, template, started)
        return await context.cluster.create(JOBS, context.namespace, body, context.targets.owner.account)

    async def _is_ours(self, context: StepContext, body: Json, template: Json) -> bool:
        """Whether a Job whose uid was not saved is one that this step has created, just before a crash.

        Such a Job has not begun, for it is started only after its uid is saved. One that has begun, or runs something else, was put there
        by another writer, and its success would be taken for that of the step.
        """
        manifest = self.manifest(context, body["metadata"]["name"], template)
        owner = context.targets.owner
        return not state_of(body).begun and await jobs.is_as_created(context.cluster, body, manifest, owner)
