"""The kind `job`: runs a Job from a template of its author, or of a CronJob, and another Job to undo it."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar, Final

from pydantic import ConfigDict, Field, model_validator

from cutover.errors import Denied, Problem
from cutover.field_path import Json
from cutover.objects import cron_jobs
from cutover.objects.job_templates import BackoffLimit, Template
from cutover.ports import CRON_JOBS, Ref
from cutover.saga.turn import Failed
from cutover.schema.model import Name, validations
from cutover.steps.kind import StepContext, Target
from cutover.steps.shared.job_kind import JobKind

_ONE_TEMPLATE: Final = "give template or cronJob, exactly one of them"
_ACCOUNT: Final = "serviceAccountName goes with cronJob; with template, write it into the template"
_BOTH: Final = "undo and changesNothing exclude each other; keep one"
_NO_WAY_BACK: Final = (
    "no undo is defined; add undo, changesNothing: true (for tests), or irreversible: true on the step"
)
_HAS_WAY_BACK: Final = (
    "!has(self.job) || has(self.job.undo) || (has(self.job.changesNothing) && self.job.changesNothing) "
    "|| (has(self.irreversible) && self.irreversible)"
)


class Job(JobKind):
    """Runs a Job, and an undo Job on rollback.

    Idempotent as every `JobKind` is. What its Job runs stands in the plan, or in a CronJob, which is read when the Job of an
    attempt is created.
    """

    model_config = ConfigDict(
        json_schema_extra=validations(
            ("has(self.template) != has(self.cronJob)", f"job: {_ONE_TEMPLATE}"),
            ("!has(self.serviceAccountName) || has(self.cronJob)", f"job: {_ACCOUNT}"),
            ("!has(self.undo) || !has(self.changesNothing) || !self.changesNothing", _BOTH),
        )
    )
    key: ClassVar[str] = "job"
    undo_rule: ClassVar[tuple[str, str] | None] = (
        _HAS_WAY_BACK,
        f"='step ' + self.name + ', job: {_NO_WAY_BACK}'",
    )
    template: Template | None = Field(
        default=None,
        description="The Job, as the jobTemplate of a CronJob: metadata (labels, annotations) and spec. YAML as text, "
        "below `template: |`.",
    )
    cron_job: Name | None = Field(
        default=None,
        description="Instead of template: the suspended CronJob whose jobTemplate the Job is created from.",
    )
    service_account_name: Name | None = Field(
        default=None,
        description="With cronJob: the ServiceAccount that its pods name. Default: that of the plan. "
        "A CronJob that names another is refused.",
    )
    undo_: Template | None = Field(
        default=None,
        alias="undo",
        description="The Job that undoes what the template did, in whole or in part: a template as well, below `undo: |`.",
    )
    changes_nothing: bool = Field(
        default=False, description="The Job only reads (a smoke test), so there is nothing to undo."
    )
    backoff_limit: BackoffLimit = 0

    @model_validator(mode="after")
    def _one_way_back(self) -> Job:
        if (self.template is None) == (self.cron_job is None):
            raise ValueError(f"{_ONE_TEMPLATE}; it has {'both' if self.template else 'neither'}")
        if self.service_account_name is not None and self.cron_job is None:
            raise ValueError(_ACCOUNT)
        if self.undo_ is not None and self.changes_nothing:
            raise ValueError(_BOTH)
        return self

    def job_template(self) -> Json | None:
        """The template of the plan."""
        return self.template

    def undo_template(self) -> Json | None:
        """The undo of the plan."""
        return self.undo_

    def template_fields(self) -> tuple[str, str]:
        """Both stand in the plan as they are."""
        return "template", "undo"

    def only_reads(self) -> bool:
        """Its author says so."""
        return self.changes_nothing

    def irreversible_reason(self) -> str:
        """It needs an undo Job, unless it changes nothing."""
        return _NO_WAY_BACK if super().irreversible_reason() else ""

    def backoff_limit_of(self, template: Json) -> int:
        """That of the step; where it gives none, that of the CronJob. No template of a plan has one."""
        of_cron_job = template["spec"].get("backoffLimit")
        given = of_cron_job is None or "backoff_limit" in self.model_fields_set
        return self.backoff_limit if given else int(of_cron_job)

    # --- a template in a CronJob ------------------------------------------------------------------------------------------

    def runs(self) -> str:
        """The images, or the CronJob whose images are not known yet."""
        return super().runs() if self.cron_job is None else f"CronJob {self.cron_job}"

    def reads(self) -> tuple[Target, ...]:
        """The CronJob."""
        return () if self.cron_job is None else (Target(CRON_JOBS, self.cron_job),)

    def pod_specs(self, *, undo: bool = False) -> tuple[Json, ...]:
        """Of a CronJob's only the account: no other one is accepted when its template is read."""
        of_cron_job = ({"serviceAccountName": self.service_account_name},) if self.service_account_name else ()
        return (*of_cron_job, *super().pod_specs(undo=undo))

    def changed_since(self) -> str:
        """The CronJob may have changed between the creation of the Job and the save of its uid."""
        return f", or CronJob {self.cron_job} has changed since" if self.cron_job else ""

    async def examine(self, context: StepContext) -> list[Problem]:
        """The CronJob may be used, and the server accepts both Jobs."""
        problems = list[Problem]()
        if self.cron_job is not None:
            with suppress(Denied):  # preflight reports it with all other permissions
                template = await self.read_template(context)
                if isinstance(template, Failed):
                    problems.append(Problem(f"{context.place}.job.cronJob", template.message))
                else:
                    problems += await self.dry_run(context, "cronJob", template)
        return [*problems, *await super().examine(context)]

    async def read_template(self, context: StepContext) -> Json | Failed:
        """That of the plan, or of the CronJob as it is now. Raises Denied."""
        if self.cron_job is None:
            return self.template
        ref, account = Ref(CRON_JOBS, context.namespace, self.cron_job), context.targets.owner.account
        template, problem = await cron_jobs.template_of(
            context.cluster, ref, account, self.service_account_name or account
        )
        return Failed("CronJobUnusable", problem) if problem else template
