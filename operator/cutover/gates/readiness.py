"""Measures how many of a workload's pods are ready, in percent of the wanted ones."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field

from cutover.errors import NotFound, OutsideError
from cutover.field_path import Json
from cutover.gates.base import GateContext, Source
from cutover.gates.verdict import Measurement
from cutover.objects.workloads import Rollout, owned, restarted_since, selector
from cutover.ports import PODS, WORKLOADS, Ref, Resource
from cutover.schema.model import Duration, Model, Name


class Workload(Model):
    """A workload of the plan's namespace."""

    kind: Literal["Deployment", "StatefulSet", "DaemonSet"] = Field(
        default="Deployment", description="Kind of the workload. Default Deployment."
    )
    name: Name = Field(description="Name of the workload.")

    @property
    def resource(self) -> Resource:
        """Its kind as the API server knows it."""
        return next(resource for resource in WORKLOADS if resource.kind == self.kind)


class Readiness(Source):
    """Percent of the workload's pods that are ready and run the newest template."""

    key: ClassVar[str] = "readiness"
    live: ClassVar[bool] = True
    patient: ClassVar[bool] = True
    needs_bounds: ClassVar[bool] = False
    unit: ClassVar[str] = "%"

    percent: int = Field(default=100, ge=1, le=100, description="Percent of the wanted pods that must be ready.")
    for_: Duration = Field(
        default=timedelta(),
        alias="for",
        description="How long without interruption. A pod with a container that restarted within this time counts as not ready.",
    )
    workload: Workload | None = Field(
        default=None, description="The workload. Default: the one that the step rolls out."
    )

    def minimum(self) -> float:
        """The percentage of the gate."""
        return float(self.percent)

    def sustain(self) -> timedelta:
        """`for`."""
        return self.for_

    def needs_workload(self) -> bool:
        """Without a workload of its own it measures the step's workload."""
        return self.workload is None

    def details(self) -> tuple[str, ...]:
        """The workload, where it is not that of the step."""
        return (f"measures {self.workload.kind} {self.workload.name}",) if self.workload else ()

    async def measure(self, context: GateContext) -> Measurement:
        """Read the streamed workload; its pods only when restarts count."""
        ref = context.workload
        if self.workload:
            ref = Ref(self.workload.resource, context.namespace, self.workload.name)
        now = context.clock.now()
        if ref is None:
            return Measurement(None, now, "the step rolls out no workload; name one in readiness.workload")
        try:
            body = context.cluster.seen(ref) or await context.cluster.get(ref)
            rollout = Rollout.of(body, ref.resource)
            ready = rollout.ready_new
            if self.for_ and ready:
                ready -= await self._restarted(context, ref, body)
        except NotFound:
            return Measurement(None, now, f"{ref} does not exist")
        except OutsideError:
            return Measurement(None, now, f"{ref} could not be read")
        if rollout.wanted == 0:
            return Measurement(None, now, f"{ref} wants no pods")
        value = 100.0 * max(0, ready) / rollout.wanted
        message = f"{max(0, ready)} of {rollout.wanted} pods of {ref} are ready"
        if rollout.by_hand and not rollout.complete:
            message += "; its updateStrategy is OnDelete, so a pod gets the new template only when it is deleted"
        return Measurement(value, now, message)

    async def _restarted(self, context: GateContext, ref: Ref, body: Json) -> int:
        """Pods that are ready again after a restart within `for`; computed without memory, so a crash loses nothing."""
        pods = await context.cluster.list(PODS, ref.namespace, selector(body))
        return restarted_since(owned(pods, ref, body), context.clock.now() - self.for_)
