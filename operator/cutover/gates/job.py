"""Measures with a Job: the exit code of a check that runs in the cluster, a new Job for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, Field, model_validator

from cutover.errors import Conflict, Denied, NotFound, OutsideError, Problem, Rejected
from cutover.field_path import Json
from cutover.gates.base import GateContext, Pending, Source
from cutover.gates.verdict import Measurement
from cutover.names import matching
from cutover.objects import jobs, pods
from cutover.objects.job_templates import BackoffLimit, images_of, pod_of, possible
from cutover.objects.jobs import GATE_LABEL
from cutover.ports import JOBS, MADE_LABEL, Cluster, Ref, Resource
from cutover.schema.model import Duration, show_duration
from cutover.schema.yaml_text import YamlText
from cutover.targets.claims import Owner
from cutover.targets.snapshots import RUN_LABEL

_MOMENT_LABEL: Final = "cutover.dev/moment"
_SAMPLE_LABEL: Final = "cutover.dev/sample"
_NEVER: Final = (  # at the backoff limit it deletes a pod that restarts in place
    "with OnFailure Kubernetes deletes the pod of a failed Job, and its exit code with it; "
    "use Never, with backoffLimit beside the template"
)
_LOOK: Final = 5.0
"""Seconds between looks at a running Job; its end is streamed."""


class Job(Source):
    """The exit code of a Job; 0 passes. Runs one Job at a time, each starting one interval after the previous one ends and replacing it.

    The logs of the previous one are kept until then. The Job only reads, so it may be created, lost or stopped at any time without harm; the plan owns it from the start.
    """

    key: ClassVar[str] = "job"
    needs_bounds: ClassVar[bool] = False

    template: Annotated[YamlText, AfterValidator(partial(possible, why_never=_NEVER))] = Field(
        description="The Job, as the jobTemplate of a CronJob: metadata (labels, annotations) and spec. YAML as text, "
        "below `template: |`. It must change nothing."
    )
    backoff_limit: BackoffLimit = 0
    timeout: Duration = Field(
        default=timedelta(minutes=5),
        description="A Job that takes longer is stopped and counts as no data. Default 5m.",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_in_the_plan(cls, given: Any) -> Any:
        if isinstance(given, dict) and "cronJob" in given:
            raise ValueError("only a step's job can use cronJob; write a template")
        return given

    def maximum(self) -> float:
        """Only 0 passes."""
        return 0.0

    def makes(self) -> tuple[Resource, ...]:
        """Jobs."""
        return (JOBS,)

    def pod_specs(self, *, undo: bool = False) -> tuple[Json, ...]:
        """That of the template; no gate is judged while a step is undone."""
        return () if undo else (pod_of(self.template),)

    def details(self) -> tuple[str, ...]:
        """What runs, under which account, for how long."""
        named = pod_of(self.template).get("serviceAccountName")
        account = f"ServiceAccount {named}" if named else "the ServiceAccount of the plan"
        return (f"runs a Job of {images_of(self.template)} under {account}, for {show_duration(self.timeout)} at most",)

    async def examine(self, cluster: Cluster, owner: Owner, place: str) -> list[Problem]:
        """The server accepts the Job."""
        name = jobs.name_of("gate", owner.uid, owner.run, self.template)  # equal Jobs are asked about once
        return await jobs.dry_run_problems(cluster, f"{place}.job.template", self._body(owner, name, {}), owner)

    async def measure(self, context: GateContext) -> Measurement | Pending:
        """Create a Job when none is in progress, otherwise report how it ends."""
        now, owner = context.clock.now(), context.owner
        if owner is None:
            return Measurement(None, now, "there is no run to create a Job for")
        try:
            return await self._look(context, owner, now)
        except Conflict:
            return Pending("", _LOOK, "another process creates the Job")
        except Denied:
            return Measurement(None, now, f"ServiceAccount {owner.account} is not allowed to create or delete this Job")
        except Rejected:
            return Measurement(None, now, "the server refuses the Job")
        except OutsideError:
            return Measurement(None, now, "the API server does not answer")

    def ended(self, context: GateContext, pending: Pending) -> bool:
        """The Job has succeeded or failed."""
        body = context.cluster.seen(Ref(JOBS, context.namespace, pending.token))
        return body is not None and jobs.state_of(body).finished

    async def cancel(self, context: GateContext, pending: Pending) -> None:
        """Delete the Job."""
        if context.owner is None or not pending.token:
            return
        ref = Ref(JOBS, context.namespace, pending.token)
        with suppress(NotFound):
            body = context.cluster.seen(ref) or await context.cluster.get(ref)
            await context.cluster.remove(ref, body["metadata"]["uid"], context.owner.account)

    async def _look(self, context: GateContext, owner: Owner, now: datetime) -> Measurement | Pending:
        gate = jobs.name_of(context.gate, owner.uid, owner.run, context.moment.partition("/")[0], context.gate)
        picked = matching({MADE_LABEL: owner.uid, RUN_LABEL: str(owner.run), GATE_LABEL: gate})
        known = await context.cluster.list(JOBS, owner.namespace, picked)
        if context.pending is not None and context.pending.token:
            token = context.pending.token
            body = next((job for job in known if job["metadata"]["name"] == token), None)
            if body is None:
                return Measurement(None, now, f"Job {token} is gone, and how it ended is unknown")
            return await self._end(context, owner, body, now)
        return await self._begin(context, owner, known, gate)

    async def _begin(self, context: GateContext, owner: Owner, known: Sequence[Json], gate: str) -> Pending:
        """Continue with the Job of a process that died, or create one; older ones were counted or are not needed."""
        last = 0
        moment = jobs.name_of("at", context.moment)
        for body in known:
            labels, state = body["metadata"]["labels"], jobs.state_of(body)
            current = labels[_MOMENT_LABEL] == moment and not state.finished and not state.deleting
            if current and await self._is_ours(context, owner, state.name):
                return Pending(state.name, _LOOK, f"Job {state.name} runs")
            last = max(last, int(labels[_SAMPLE_LABEL]))
            await context.cluster.remove(Ref(JOBS, owner.namespace, state.name), state.uid, owner.account)
        name = jobs.name_of(context.gate, gate, moment, last + 1)
        labels = {GATE_LABEL: gate, _MOMENT_LABEL: moment, _SAMPLE_LABEL: str(last + 1)}
        await context.cluster.create(JOBS, owner.namespace, self._body(owner, name, labels), owner.account)
        return Pending(name, _LOOK, f"Job {name} runs")

    async def _is_ours(self, context: GateContext, owner: Owner, name: str) -> bool:
        """Whether a Job is what this gate would create. It is read as a whole, and from then on it is streamed as a whole too."""
        body = await jobs.read(context.cluster, Ref(JOBS, owner.namespace, name))
        return body is not None and await jobs.is_as_created(context.cluster, body, self._body(owner, name, {}), owner)

    async def _end(self, context: GateContext, owner: Owner, body: Json, now: datetime) -> Measurement | Pending:
        state = jobs.state_of(body)
        if state.complete:
            return Measurement(0.0, now)
        seen = await pods.pods_of(context.cluster, owner.namespace, state.name)
        if state.failed:
            ended = pods.exit_of(seen)
            message = (
                f"Job {state.name} failed ({state.failed}): {ended.message}; {jobs.logs(owner.namespace, state.name)}"
            )
            return Measurement(None if ended.code is None else float(ended.code), now, message)
        why = pods.waits_for(seen, owner.namespace) or pods.outlived(seen)
        begun = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
        if now - begun > self.timeout:
            await context.cluster.remove(Ref(JOBS, owner.namespace, state.name), state.uid, owner.account)
            late = f"Job {state.name} did not end within {show_duration(self.timeout)}"
            return Measurement(None, now, f"{late}: {why}" if why else late)
        return Pending(state.name, _LOOK, f"Job {state.name}: {why}" if why else f"Job {state.name} runs")

    def _body(self, owner: Owner, name: str, labels: dict[str, str]) -> Json:
        body = jobs.manifest(self.template, name, owner, self.backoff_limit, labels)
        body["metadata"]["ownerReferences"] = [jobs.owner_reference(owner)]
        return body
