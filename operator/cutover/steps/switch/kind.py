"""The kind `switch`: switches the selector of a Service to other pods, for blue-green without a mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from cutover.errors import NotFound, PlanError, Problem
from cutover.field_path import Change, Json
from cutover.objects.endpoints import Side, behind, selects
from cutover.objects.services import ports_of
from cutover.objects.serving import pods_of, ready_by_port
from cutover.ports import WORKLOADS, Ref
from cutover.saga.turn import Again, Done, Outcome, Pause
from cutover.steps.kind import Drain, StepContext
from cutover.steps.parts import Examines, UndoneEarly
from cutover.steps.shared import ready_sides
from cutover.steps.shared.backward import change_and_note, drain_of, old_side_not_ready
from cutover.steps.shared.named_ports import lacking
from cutover.steps.shared.other_writers import foreign_writer, forget_written, note_written, repaired_too_often
from cutover.steps.shared.preconditions import dry_run_problem
from cutover.steps.shared.ready_sides import Load
from cutover.steps.shared.rollouts import stuck_after
from cutover.steps.standing import Standing, Stands
from cutover.steps.switch.endpoints import SELECTOR, followed, live, load_in_effect, needed_back, set_back, sides
from cutover.steps.switch.spec import SwitchSpec, shown
from cutover.targets.snapshots import Snapshot


class Switch(Examines, UndoneEarly, SwitchSpec):
    """Switches a Service to other pods at once.

    Changes: the selector of the Service, in one write, as one field: labels named here get their values, the others stay.
    It is switched only when as many pods are ready on the new side as on the old one, and done when the Service's
    EndpointSlices have pods of the new side only. Idempotent, because the selector is set to a value kept in the
    snapshot. Undo restores the selector, once the old side is ready. A user who sets it back asks the plan
    to stop, so that is not repaired.
    """

    async def examine(self, context: StepContext) -> list[Problem]:
        """The Service selects pods, a workload creates pods with the new labels, and the server accepts the selector."""
        place, ref = f"{context.place}.switch", self.ref(context)
        try:
            body = await context.cluster.get(ref)
        except NotFound:
            return []  # preflight reports it for every target
        problems = self.unfit(body, place)
        if problems:
            return problems
        old = body["spec"]["selector"]
        ours = old | self.selector
        if ours != old and selects(old, ours) and self.touches()[0] not in context.earlier:
            message = f"Service {self.service} selects pods with {shown(ours)} already, by {shown(old)} alone"
            so = "they get traffic as soon as they are ready, and count as ready on the old side too"
            way_out = "first add a label to its selector that only the old pods have"
            problems.append(Problem(f"{place}.selector", f"{message}, so {so}; {way_out}", warning=True))
        made = any(target.resource in WORKLOADS for target in context.earlier)
        if not made and not await behind(context.cluster, context.namespace, *sides(self.service, ours)):
            message = f"no workload in namespace {context.namespace} creates pods with {shown(ours)}; create it, or fix the labels"
            problems.append(Problem(f"{place}.selector", message))
        if message := await dry_run_problem(context, ref, {"spec": {"selector": self.selector}}):
            problems.append(Problem(f"{place}.selector", message))
        context.memo.pop(self._memo(context), None)
        needed = self._needed(await self._at_the_start(context, body))
        used = tuple(port for port in ports_of(body) if port.named and needed[str(port.target)])
        side = replace(sides(self.service, ours)[0], ports=used)
        return problems + await lacking(context, f"the pods with {shown(ours)}", side, f"{place}.selector")

    async def would_set(self, context: StepContext) -> list[tuple[Ref, Change]]:
        """The selector."""
        ref = self.ref(context)
        now = live(await context.targets.view(ref))
        ours = (now or {}) | self.selector
        return [(ref, Change(SELECTOR, to=ours, was=now, ours=ours))]

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Switch the selector once the new side is ready, then wait until the endpoints have followed."""
        del stage
        ref = self.ref(context)
        snapshot = await context.targets.saved(ref) if context.targets.remembers(ref) else await self._snapshot(context)
        if snapshot is None:
            return Done(skip=True)
        (change,) = self.forward(snapshot)
        now = live(await context.targets.view(ref))
        if now != change.to:
            if now == change.was and context.applied and not context.reapply and await set_back(context, ref, change):
                message = f"another writer has set the selector of {ref} back to {shown(now)}"
                return Pause("SwitchedBack", f"{message}; resume moves it again, abort rolls everything back")
            needed = await self._needed_now(context, change.was, change.to, snapshot)
            if short := await self._short(context, change.to, needed):
                return Again(
                    context.next_look(),
                    f"the switch waits: {short}{'' if self.min_ready else '; minReady would ask for fewer'}",
                )
        if await repaired_too_often(context, ref, [change]):
            return await foreign_writer(context, ref, "the selector")
        body = await change_and_note(context, ref, snapshot, [change], await context.targets.view(ref))
        note_written(context)
        return Done() if context.applied else await followed(context, self.service, body)

    async def undo(self, context: StepContext) -> Outcome:
        """Restore the selector in one write, once the old side is ready, and wait until the endpoints have followed."""
        forget_written(context)
        ref = self.ref(context)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            # Nothing was written; the fence makes a late write of a former process fail.
            await context.targets.fence(ref)
            return Done()
        (change,) = self.restores(snapshot)
        moved = live(await context.targets.view(ref)) == change.ours
        if moved and (short := await self._short_back(context, change, snapshot)):
            return old_side_not_ready(context, f"{ref} cannot be switched back yet: {short}")
        body = await change_and_note(context, ref, snapshot, [change], await context.targets.view(ref))
        await context.targets.confirm(ref, snapshot.uid, [change])
        outcome = await followed(context, self.service, body, served=snapshot.facts["stood"][""] > 0)
        return stuck_after(context, outcome) if isinstance(outcome, Again) else outcome

    async def postcondition(self, context: StepContext) -> Standing:
        """Whether the Service has as many ready pods as the switch asked for; which pods it selects is one of its fields.

        Of a Service that still selects the old pods, or others, nothing is asked here.
        """
        snapshot = await context.targets.saved(self.ref(context))
        if snapshot is None:
            return Stands()
        (change,) = self.forward(snapshot)
        if live(await context.targets.view(self.ref(context))) != change.to:
            return Stands()
        (side,), most = sides(self.service, change.to), snapshot.facts["ready"]

        async def loads() -> list[Load]:
            return [await load_in_effect(context, side, await context.targets.view(self.ref(context)), most)]

        about = max(most.values())
        return await ready_sides.standing(context, frozenset({self.service}), about, loads, self.unready_deadline)

    async def both_sides(self, context: StepContext) -> Sequence[Side]:
        """By the selectors before and after the switch."""
        if snapshot := await context.targets.saved(self.ref(context)):
            return sides(self.service, *self.restores(snapshot)[0].expects)
        old = live(await context.targets.view(self.ref(context)))
        return sides(self.service, old, old | self.selector) if old else []

    async def early_undo(self, context: StepContext) -> frozenset[Ref] | None:
        """The workloads behind both sides, when the old side can take the traffic now."""
        snapshot = await context.targets.saved(self.ref(context))
        if snapshot is None:
            return frozenset()
        (change,) = self.restores(snapshot)
        if await self._short_back(context, change, snapshot):
            return None
        return frozenset(await behind(context.cluster, context.namespace, *sides(self.service, *change.expects)))

    async def drain_since(self, context: StepContext, moved: datetime) -> Drain | None:
        """For `drain`, from when the endpoints have followed."""
        snapshot = await context.targets.saved(self.ref(context)) if self.drain else None
        if snapshot is None:
            return None
        why = f"traffic that step {context.targets.step} has moved drains"
        return await drain_of(context, moved + self.drain, why, await self.both_sides(context))

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _memo(self, context: StepContext) -> str:
        return f"{context.place}.ready"

    async def _ready(self, context: StepContext, body: Json, labels: Mapping[str, str]) -> dict[str, int]:
        return ready_by_port(body, await pods_of(context.cluster, context.namespace, labels))

    async def _at_the_start(self, context: StepContext, body: Json) -> dict[str, int]:
        """Ready pods of the old side, as counted at the start of the run; a new process counts again."""
        if self._memo(context) not in context.memo:
            context.memo[self._memo(context)] = await self._ready(context, body, body["spec"]["selector"])
        known: dict[str, int] = context.memo[self._memo(context)]
        return known

    async def _needed_now(
        self, context: StepContext, old: Mapping[str, str], new: Mapping[str, str], snapshot: Snapshot
    ) -> dict[str, int]:
        """What the new side needs at each port: by what the old one had at the start, or has now where that is more.

        Pods that both sides select are on the new one.
        """
        pods = await pods_of(context.cluster, context.namespace, old)
        ours = [pod for pod in pods if not selects(new, pod["metadata"].get("labels") or {})]
        body = await context.targets.view(self.ref(context))
        now, then = self._needed(ready_by_port(body, ours)), snapshot.facts["ready"]
        return {port: max(then.get(port, 0), now.get(port, 0)) for port in (*then, *now)}

    def _needed(self, ready: Mapping[str, int]) -> dict[str, int]:
        """What the new side needs at each port: what the old one had; a port without ready pods beside others may be unused."""
        served = any(count for port, count in ready.items() if port)
        return {
            port: self.min_ready or max(1, count) if count or not port or not served else 0
            for port, count in ready.items()
        }

    async def _snapshot(self, context: StepContext) -> Snapshot | None:
        """The selector as it is, and ours; None when the Service has ours already. Read, because a stream may be behind."""
        ref = self.ref(context)
        body = await context.cluster.get(ref)
        if problems := self.unfit(body, f"{context.place}.switch"):
            raise PlanError(*problems)
        ours = body["spec"]["selector"] | self.selector
        if body["spec"]["selector"] == ours:
            return await context.targets.saved(ref)  # written just before a crash, or nothing to write
        needed = self._needed(await self._at_the_start(context, body))
        stood = await self._ready(context, body, body["spec"]["selector"])
        return await context.targets.snapshot(ref, body, [SELECTOR], {"ready": needed, "stood": stood}, [ours])

    async def _short(self, context: StepContext, labels: Mapping[str, str], needed: Mapping[str, int]) -> str:
        """What a side lacks; empty when it is ready."""
        body = await context.targets.view(self.ref(context))
        for port, ready in (await self._ready(context, body, labels)).items():
            if ready < needed.get(port, 0):
                where = f" and a port {port}" if port else ""
                return f"{ready} pods with {shown(labels)}{where} are ready, and {needed[port]} are needed"
        return ""

    async def _short_back(self, context: StepContext, change: Change, snapshot: Snapshot) -> str:
        """As `_short`, for the old side: enough to be better than to stay, and any that answers where the new side does not.

        Never more than it had just before the switch, or it could never be undone. What its workload wants is no measure: an
        autoscaler wants little for a side that gets no requests.
        """
        body = await context.targets.view(self.ref(context))
        needed = needed_back(snapshot.facts, await self._ready(context, body, change.ours), self.backward.share)
        return await self._short(context, change.to, needed)
