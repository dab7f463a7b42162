"""The fields of a `job` step, and what follows from them alone: the stage, the names and manifests of its Jobs. No request is made here."""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import ConfigDict, Field, model_validator

from cutover.field_path import Json
from cutover.objects import jobs
from cutover.objects.job_templates import BackoffLimit, Template, images_of, pod_of
from cutover.objects.jobs import STARTED_LABEL
from cutover.ports import CRON_JOBS, JOBS, Resource
from cutover.saga.turn import StageRule
from cutover.schema.model import Name, validations
from cutover.steps.kind import StepContext, Target
from cutover.steps.parts import BringsPods, HasPurposes, MakesObjects, MayBeIrreversible, Purpose

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


class JobSpec(MakesObjects, BringsPods, MayBeIrreversible, HasPurposes):
    """The fields of a `job` step."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            ("has(self.template) != has(self.cronJob)", f"job: {_ONE_TEMPLATE}"),
            ("!has(self.serviceAccountName) || has(self.cronJob)", f"job: {_ACCOUNT}"),
            ("!has(self.undo) || !has(self.changesNothing) || !self.changesNothing", _BOTH),
        )
    )
    key: ClassVar[str] = "job"
    undo_rule: ClassVar[tuple[str, str]] = (
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
    def _one_way_back(self) -> JobSpec:
        if (self.template is None) == (self.cron_job is None):
            raise ValueError(f"{_ONE_TEMPLATE}; it has {'both' if self.template else 'neither'}")
        if self.service_account_name is not None and self.cron_job is None:
            raise ValueError(_ACCOUNT)
        if self.undo_ is not None and self.changes_nothing:
            raise ValueError(_BOTH)
        return self

    @property
    def _gives_limit(self) -> bool:
        return "backoff_limit" in self.model_fields_set

    def stages(self) -> tuple[StageRule, ...]:
        """One: the Job."""
        what = f"CronJob {self.cron_job}" if self.template is None else images_of(self.template)
        return (StageRule(f"run a Job of {what}"[:512]),)

    def purposes(self) -> frozenset[Purpose]:
        """A test, or a script that changes data."""
        return frozenset({Purpose.VERIFIES if self.changes_nothing else Purpose.CHANGES_DATA})

    def makes(self) -> tuple[Resource, ...]:
        """Jobs."""
        return (JOBS,)

    def pod_specs(self, *, undo: bool = False) -> tuple[Json, ...]:
        """Those of both templates, for do and undo alike: an undo may first have to take the name of a Job that never came.

        Of a CronJob's only the account: no other one is accepted when its template is read.
        """
        del undo
        of_cron_job = ({"serviceAccountName": self.service_account_name},) if self.service_account_name else ()
        return (*of_cron_job, *(pod_of(template) for _, template in self.templates()))

    def reads(self) -> tuple[Target, ...]:
        """The CronJob."""
        return () if self.cron_job is None else (Target(CRON_JOBS, self.cron_job),)

    def irreversible_reason(self) -> str:
        """It needs an undo Job, unless it changes nothing."""
        return "" if self.undo_ is not None or self.changes_nothing else _NO_WAY_BACK

    def templates(self) -> list[tuple[str, Json]]:
        """The templates that are given, each with the field it stands in."""
        both = (("template", self.template), ("undo", self.undo_))
        return [(name, template) for name, template in both if template is not None]

    def name_of(self, context: StepContext, *, undo: bool = False) -> str:
        """The name of the Job of this attempt, the same in every process."""
        owner, step = context.targets.owner, context.targets.step
        verb = "undo" if undo else "do"
        lead = f"{step[:40].rstrip('-')}-undo" if undo else step
        return jobs.name_of(lead, owner.uid, owner.run, step, context.attempt, verb)

    def manifest(self, context: StepContext, name: str, template: Json, started: str = "false") -> Json:
        """The Job of a template, suspended."""
        labels = {STARTED_LABEL: started}
        of_cron_job = template["spec"].get("backoffLimit")  # no template of a plan has one
        limit = self.backoff_limit if of_cron_job is None or self._gives_limit else of_cron_job
        body = jobs.manifest(template, name, context.targets.owner, limit, labels)
        body["spec"]["suspend"] = True
        return body
