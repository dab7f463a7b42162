"""What a kind that runs a Job says of it, and what follows from that alone: names, manifests, permissions, what the server refuses.

The base of `JobKind`, which runs them. Nothing is written here.
"""

from __future__ import annotations

from abc import abstractmethod

from cutover.errors import Problem
from cutover.field_path import Json
from cutover.objects import jobs, pods
from cutover.objects.job_templates import images_of, pod_of
from cutover.objects.jobs import STARTED_LABEL, State
from cutover.ports import JOBS, Resource
from cutover.saga.turn import Done, Failed, StageRule
from cutover.steps.kind import StepContext
from cutover.steps.parts import BringsPods, Examines, HasPurposes, MakesObjects, MayBeIrreversible, Purpose


class JobsOfStep(Examines, MakesObjects, BringsPods, MayBeIrreversible, HasPurposes):
    """The Job of a step and that of its undo."""

    # --- what a kind says -------------------------------------------------------------------------------------------------

    @abstractmethod
    def job_template(self) -> Json | None:
        """The Job, as the jobTemplate of a CronJob: metadata (labels, annotations) and spec. None: `read_template` reads it."""

    @abstractmethod
    def undo_template(self) -> Json | None:
        """The Job that undoes it, in whole or in part, also after a failure; None when there is none."""

    def only_reads(self) -> bool:
        """Whether the Job changes nothing, so that there is nothing to undo."""
        return False

    async def result(self, context: StepContext, ended: State, *, undo: bool) -> Done | Failed:
        """What it means that the Job, or that of the undo, has ended."""
        del undo
        if ended.complete:
            return Done(ready=ended.progress)
        name = ended.name
        how = pods.exit_of(await pods.pods_of(context.cluster, context.namespace, name))
        message = f"Job {name} failed ({ended.failed}): {how.message}; {jobs.logs(context.namespace, name)}"
        return Failed("JobFailed", message)

    # --- what `job` says too, whose author writes the templates -----------------------------------------------------------

    async def read_template(self, context: StepContext) -> Json | Failed:
        """The template of the Job as it is now, or why it cannot be used. Raises Denied."""
        del context
        return self.job_template()

    def template_fields(self) -> tuple[str, str]:
        """The fields in which the two templates stand, for messages; empty where the kind makes them of other fields."""
        return "", ""

    def runs(self) -> str:
        """What its Job runs, as shown."""
        return images_of(self.job_template())

    def changed_since(self) -> str:
        """Why a Job that this step has created may look as if another writer had, for the message."""
        return ""

    def backoff_limit_of(self, template: Json) -> int:
        """How many failed pods are replaced before the Job fails."""
        del template
        return 0

    # --- what follows -----------------------------------------------------------------------------------------------------

    def stages(self) -> tuple[StageRule, ...]:
        """One: the Job."""
        return (StageRule(f"run a Job of {self.runs()}"[:512]),)

    def purposes(self) -> frozenset[Purpose]:
        """A test, or a script that changes data."""
        return frozenset({Purpose.VERIFIES if self.only_reads() else Purpose.CHANGES_DATA})

    def makes(self) -> tuple[Resource, ...]:
        """Jobs."""
        return (JOBS,)

    def pod_specs(self, *, undo: bool = False) -> tuple[Json, ...]:
        """Those of both templates, for do and undo alike: an undo may first have to take the name of a Job that never came."""
        del undo
        return tuple(pod_of(template) for template in self.both() if template is not None)

    def irreversible_reason(self) -> str:
        """It needs an undo Job, unless it changes nothing."""
        back = self.only_reads() or self.undo_template() is not None
        return "" if back else "it cannot be undone; add irreversible: true on the step"

    async def examine(self, context: StepContext) -> list[Problem]:
        """The server accepts both Jobs."""
        problems = list[Problem]()
        for undo, (field, template) in enumerate(zip(self.template_fields(), self.both(), strict=True)):
            if template is not None:
                problems += await self.dry_run(context, field, template, undo=undo)
        return problems

    def both(self) -> tuple[Json | None, Json | None]:
        """The templates of do and undo, as far as the spec gives them."""
        return self.job_template(), self.undo_template()

    async def dry_run(self, context: StepContext, field: str, template: Json, undo: int = 0) -> list[Problem]:
        """Why the server would refuse the Job of a template, or that of an attempt of the undo."""
        place = f"{context.place}.{self.key}{f'.{field}' if field else ''}"
        body = self.manifest(context, self.name_of(context, undo=undo), template)
        return await jobs.dry_run_problems(context.cluster, place, body, context.targets.owner)

    def name_of(self, context: StepContext, *, undo: int) -> str:
        """The name of the Job of this attempt, or of the given attempt of its undo; the same in every process."""
        owner, step = context.targets.owner, context.targets.step
        key = (owner.uid, owner.run, step, context.attempt)
        if not undo:
            return jobs.name_of(step, *key, "do")
        again = (undo,) if undo > 1 else ()
        return jobs.name_of(f"{step[:40].rstrip('-')}-undo", *key, "undo", *again)

    def manifest(self, context: StepContext, name: str, template: Json, started: str = "false") -> Json:
        """The Job of a template, suspended."""
        limit, labels = self.backoff_limit_of(template), {STARTED_LABEL: started}
        body = jobs.manifest(template, name, context.targets.owner, limit, labels)
        body["spec"]["suspend"] = True
        return body
