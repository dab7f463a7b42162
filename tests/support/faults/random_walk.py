"""One plan in its world, and what happens to it: who works when, what must be true throughout, and how it may end.

What happens is drawn by the rules of `tests/engine/test_random_walks.py`.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from cutover.engine.sweep import sweep
from cutover.field_path import Path, differences, find, write
from cutover.plan.parsing import parse
from cutover.ports import CONFIG_MAPS, PLAN_LABEL, PLANS, SNAPSHOTS, Ref, Sample
from cutover.saga.requests import failed_step
from cutover.status.reasons import Reason
from cutover.status.requests import PREFIX, RequestVerb
from cutover.status.state import State
from cutover.status.status import ACTIVE, ENDED, Phase, Status, StepState
from cutover.targets.finalizer import has_finalizer
from cutover.targets.patching import apply
from cutover.targets.snapshots import labels
from cutover.testing import MemoryCluster, react
from support.fakes.field_owners import keep_owners
from support.fakes.older_crd import status_schema
from support.fakes.shop import NAMESPACE, V2
from support.fakes.simulation import specs_of
from support.faults.change_invariants import FOREIGN, ChangeInvariants
from support.faults.fault_injection import Aim, Fault, Pace, World
from support.plans.walked import WALKED, at_the_end_of, contents, pods_of, the_plan, the_shop

FIGURES: Counter[str] = Counter()
"""Of all walks so far."""
_TURNS = 5000
"""A plan that nobody disturbs ends in fewer turns of all processes; one whose stage asks each second until its timeout of half an hour too."""
_HELP = 12
"""How often people have to help it on, at most."""
_FAR = timedelta(hours=2)
_BOUND = timedelta(seconds=5)


class Walk:
    """One plan over the shop.

    Attributes:
        intention: what people want in the end.
        abandoned: a person has asked for that; `stopped`: the plan was deleted.
        sample: what every gate sees.
        controllers: rollouts go on.
        earlier: the run that was over when the plan was applied again.
        at_release: which target is taken back in the very moment in which a success is announced; None for none.
    """

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)  # tasks of processes that died
        self.asked, self.intention, self.abandoned, self.stopped = Counter[str](), "", False, False
        self.sample: float | None = 0.1
        self.controllers, self.courtesy = True, False
        self.earlier: tuple[str, int] | None = None
        self.was = ""
        self.at_release: int | None = None
        self.set_back: dict[Ref, list[tuple[Path, Any]]] = {}

    def set_up(
        self, name: str, processes: int, policies: dict[str, str], intention: str, missing: tuple[str, ...] = ()
    ) -> None:
        """The shop, the plan and the processes; the server prunes by a CRD that lacks these fields of the status."""
        self.intention, self.goal = intention, at_the_end_of(name)
        cluster = MemoryCluster()
        cluster.status_schema = status_schema(*missing)
        shop = the_shop(name)
        self.before, cluster._version, cluster.unknown = shop.objects, shop.version, shop.unknown
        cluster.objects = dict(self.before)
        cluster.templates = dict(shop.templates)
        keep_owners(cluster)
        self.body = the_plan(name)
        self.body["spec"] |= policies
        self.moves = WALKED[name].moves
        ref = cluster.put(PLANS, copy.deepcopy(self.body))
        cluster.report(ref, {"observedGeneration": -1})
        self.world = World(cluster, ref, cluster.objects[ref]["metadata"]["uid"], missing=missing)
        self.world.metrics.answer = lambda _: Sample(self.sample)
        plan = parse(self.body["spec"])
        self.targets = sorted(plan.targets(NAMESPACE))
        self.changes = ChangeInvariants(ref, plan, cluster, self.moves)
        cluster.changed = self._changed
        for _ in range(processes):
            self.world.start()

    def _changed(self, ref: Ref, before: Any, after: Any) -> None:
        self.world.happened(ref, before, after)
        stale = any(process.paces["lists"] is not Pace.LIVE for process in self.world.processes)
        self.changes.blind = stale or bool(self.world.flights)
        self.changes.changed(ref, before, after)
        if self.at_release is not None and self.status.state is State.RELEASING and self.status.failure is None:
            target, self.at_release = self.targets[self.at_release % len(self.targets)], None
            self.take_back(target)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    # --- what can be seen ---------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        return self.changes.status

    @property
    def there(self) -> bool:
        return self.world.plan in self.world.cluster.objects

    @property
    def over(self) -> bool:
        body = self.world.cluster.objects.get(self.world.plan)
        if body is None:
            return True
        seen = self.status.observed_generation == body["metadata"]["generation"]
        return seen and self.status.phase in ENDED and not body["metadata"].get("finalizers")

    @property
    def active(self) -> bool:
        return self.there and self.status.phase in ACTIVE

    @property
    def bound(self) -> bool:
        return has_finalizer(self.world.cluster.objects[self.world.plan])

    @property
    def unguarded(self) -> bool:
        """Its finalizer was taken off, and nobody has seen that yet: a deletion in that very moment takes it away at once."""
        return self.active and not self.bound and self.status.reason != Reason.RECLAIMING

    def who(self, at: int) -> int:
        return min(at, len(self.world.processes) - 1)

    def weights(self) -> list[int]:
        """Of the old side and the new one."""
        return list(self.changes.shares.values())

    def as_before(self, ref: Ref) -> bool:
        part = _part(ref)
        return bool(self.world.cluster.objects[ref][part] == self.before[ref][part])

    def image(self) -> str:
        return str(self.world.cluster.objects[V2]["spec"]["template"]["spec"]["containers"][1]["image"])

    def taken(self) -> list[Ref]:
        """Snapshots of this run that its saved status knows of; one that died before it was saved takes it again."""
        names = {step.name for step in self.status.steps if step.snapshot_taken}
        return [
            ref
            for ref, body in self.world.cluster.objects.items()
            if ref.resource == SNAPSHOTS
            and body["data"]["step"] in names
            and body["metadata"]["labels"] == labels(*self._run_of_now())
        ]

    def _run_of_now(self) -> tuple[str, int]:
        return self.world.uid, self.status.run.number if self.status.run else 0

    # --- who works ----------------------------------------------------------------------------------------------------

    async def work(self, turns: int, only: int | None = None, until: Callable[[], bool] = lambda: False) -> int:
        """Turns of whoever is awake; time passes when nobody is. How many turns there were."""
        for done in range(turns):
            if until():
                return done
            processes = [
                (at, process)
                for at, process in enumerate(self.world.processes)
                if only in (None, at) and not process.busy
            ]
            now = self.world.clock.now()
            awake = [at for at, process in processes if process.woken or (process.due and process.due <= now)]
            if not awake:
                due = min((process.due for _, process in processes if process.due), default=None)
                if only is None:
                    self._nobody_sleeps_over_a_side_without_pods(timedelta.max if due is None else due - now)
                if due is None or due - now > _FAR:
                    return done
                await self.pass_time(due - now)
                awake = [at for at, process in processes if process.due and process.due <= due]
            await self.world.turn(awake[done % len(awake)])
            self.react()
        return turns

    def _nobody_sleeps_over_a_side_without_pods(self, rest: timedelta) -> None:
        """A plan on its way forward never waits for longer than the bound while a side carries weight and has no ready pod."""
        undisturbed = not self.world.flights and not self.changes.edited and not self.world.counts["snapshot deleted"]
        driven = self.status.phase in (Phase.RUNNING, Phase.WAITING) and self.status.state not in (
            State.CLAIMING,
            State.RELEASING,
        )
        begun = {step.name for step in self.status.steps if step.snapshot_taken and step.state is not StepState.UNDONE}
        moved = any(step.name in begun for step in self.changes.moving())
        if not (driven and moved and undisturbed and self.there and not any(one.busy for one in self.world.processes)):
            return
        for side, share in self.changes.shares.items():
            if share and not pods_of(self.world.cluster.objects, side) and rest > _BOUND:
                self.changes.wrong.append(
                    f"{side} has weight {share} and no pod, and all sleep for {rest}: {self.status}"
                )

    def take_pods(self, ref: Ref, left: int) -> None:
        """So many pods of a workload are ready until its rollouts go on."""
        cluster = self.world.cluster
        cluster.rollouts = False
        body = cluster.objects[ref]
        left = min(left, (body.get("status") or {}).get("readyReplicas", 0))
        cluster.report(ref, {**body["status"], "readyReplicas": left, "availableReplicas": left})
        self.world.counts["pods taken"] += 1
        self.react()

    def react(self) -> None:
        if self.controllers and react(self.world.cluster):
            self.world.hear()

    async def pass_time(self, span: timedelta) -> None:
        """A request whose sender is gone is not under way for ever."""
        self.world.clock.pass_time(span)
        for flight in [one for one in self.world.flights if one.answer.done()]:
            if self.world.clock.now() - flight.sent > timedelta(minutes=1):
                await self.world.land(flight, "at last")

    async def several(self, turns: int, only: int | None = None, until: Callable[[], bool] = lambda: False) -> None:
        await self.work(turns, only, until)

    def fault(self, at: int, fault: Fault, aim: Aim, number: int) -> None:
        """The n-th request of this sort from now goes wrong."""
        process = self.world.processes[at]
        if not process.busy:
            process.transport.fault = fault, aim, number
            self.run(self.several(10, at, lambda: process.transport.fault is None))

    # --- people -------------------------------------------------------------------------------------------------------

    def edit(self, ref: Ref, change: Callable[[Any], None]) -> None:
        body = copy.deepcopy(self.world.cluster.objects[ref])
        change(body)
        self.changes.by_hand = True
        self.world.cluster.put(ref.resource, body)
        self.changes.by_hand = False
        self.world.hear()

    def ask(self, verb: RequestVerb) -> None:
        self.asked[verb] += 1
        step = self.status.current.step if self.status.current else "none"
        text = f"token={self.asked[verb]} step={step} by=alice"
        self.edit(
            self.world.plan, lambda body: body["metadata"].setdefault("annotations", {}).update({PREFIX + verb: text})
        )
        self.abandoned |= verb is RequestVerb.ABANDON
        self.world.counts[f"asked: {verb}"] += 1

    def delete(self) -> None:
        self.stopped = True
        self.world.cluster.delete(self.world.plan)
        self.world.hear()

    def lose(self, ref: Ref) -> None:
        self.changes.lost = True
        self.world.cluster.delete(ref)
        self.world.counts["snapshot deleted"] += 1
        self.world.hear()

    def set_image(self, image: str) -> None:
        def change(body: Any) -> None:
            body["spec"]["template"]["spec"]["containers"][1]["image"] = image

        self.edit(V2, change)

    def take_back(self, ref: Ref) -> None:
        """A tool that knows nothing of the plan writes an object as it was before it."""
        part = _part(ref)
        now, before = self.world.cluster.objects[ref][part], self.before[ref][part]
        self.set_back[ref] = [(path, value) for path, value, _ in differences(now, before, (part,))]
        self.edit(ref, lambda body: body.update({part: copy.deepcopy(before)}))
        self.world.counts["taken back"] += 1

    def put_right(self) -> None:
        """People set again what was taken back, where it is still as that tool has left it."""
        for ref, fields in self.set_back.items():

            def change(body: Any, ref: Ref = ref, fields: list[tuple[Path, Any]] = fields) -> None:
                for path, value in fields:
                    now, before = find(body, path), find(self.before[ref], path)
                    if now and before and now.value == before.value:
                        for operation in write(now, value):
                            apply(body, operation)

            self.edit(ref, change)
        self.set_back.clear()

    def restore_shop(self) -> None:
        """What the last run has left is brought back by people to what it was before."""
        cluster, self.changes.by_hand = self.world.cluster, True
        now = specs_of(cluster.objects, owners=True)
        for ref, wanted in specs_of(self.before, owners=True).items():
            if now[ref] != wanted:
                body, was = copy.deepcopy(cluster.objects[ref]), copy.deepcopy(self.before[ref])
                body[_part(ref)], body["metadata"]["labels"] = was[_part(ref)], dict(wanted[2])
                if "managedFields" in was["metadata"]:
                    body["metadata"]["managedFields"] = was["metadata"]["managedFields"]
                cluster.put(ref.resource, body)
        self.changes.by_hand = False
        self.changes.edited.clear()
        self.changes.drained.clear()
        self.changes.lost = False
        self.earlier = self._run_of_now()

    def recreate(self) -> None:
        """The plan was deleted; another one of its name is made."""
        cluster, plan_ref = self.world.cluster, self.world.plan
        self._collect()
        self.stopped, self.changes.status = False, Status()
        cluster.put(PLANS, copy.deepcopy(self.body))
        cluster.report(plan_ref, {"observedGeneration": -1})
        self.world.uid = cluster.objects[plan_ref]["metadata"]["uid"]
        self.world.hear()

    def _collect(self) -> None:
        """What the plan owned goes with it."""
        for ref, body in list(self.world.cluster.objects.items()):
            if body["metadata"].get("ownerReferences"):
                self.world.cluster.delete(ref)

    # --- what must be true -----------------------------------------------------------------------------------------------

    def keeps_its_promises(self) -> None:
        if not hasattr(self, "world"):
            return
        wrong = [*self.changes.wrong, *map(repr, self.world.wrong)]
        if self.moves and sum(self.weights()) != 100:
            wrong.append(f"weights {self.weights()}")
        if wrong:
            self.intention = "failed"
            error = self.world.wrong[0] if self.world.wrong else None
            raise AssertionError("; ".join(wrong)) from error

    # --- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "world") and self.intention != "failed":
                self.run(self._finish())
                self._count()
        finally:
            if hasattr(self, "world"):
                for process in self.world.processes:
                    process.die()
            self.loop.run_until_complete(asyncio.sleep(0))
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    async def _finish(self) -> None:
        """All faults end, people help where only they can, and the plan must end."""
        await self._calm()
        for helped in range(_HELP):
            if await self._until_quiet():
                break
            self._help(helped)
            self.keeps_its_promises()
        assert self.over, f"it does not end: {self.status}"
        self.end = self.status
        self.keeps_its_promises()
        if not self.there:
            await self._hear_that_it_is_gone()
        self._judge()
        await self._leave_nothing()

    async def _hear_that_it_is_gone(self) -> None:
        """A process that lives is told so; another one has begun since, and looks for itself as each does when it begins."""
        self.world.hear()
        await self.work(20)
        if self.world.counts["crashes"]:
            await sweep(self.world.cluster, ())

    async def _calm(self) -> None:
        for process in self.world.processes:
            process.transport.fault = None
            process.paces.update(dict.fromkeys(process.paces, Pace.LIVE))
        while self.world.flights:
            await self.world.land(self.world.flights[0], "answered")
        self.controllers, self.sample, self.world.cluster.rollouts = True, 0.1, True
        self.world.hear()
        self.react()
        if self.there:
            self.edit(self.world.plan, lambda body: body["spec"].update(suspend=False))
        if self.image() == FOREIGN:
            self.set_image(self.was)

    async def _until_quiet(self) -> bool:
        """Until it has ended, which is true, or only a person can help it on."""
        looks = 0

        def still() -> bool:
            nonlocal looks
            looks += not any(process.woken for process in self.world.processes)
            waits = self.status.phase in (Phase.PAUSED, Phase.WAITING, Phase.STUCK)
            return self.over or ((waits or self.status.reason == Reason.PAUSED_BY_PERSON) and looks > 6)

        turns = await self.work(_TURNS, until=still)
        assert turns < _TURNS, f"it goes on for ever: {self.status}"
        return self.over

    def _help(self, helped: int) -> None:
        status, late = self.status, helped > _HELP // 2
        phase, reason = status.phase, status.reason
        waits = phase in (Phase.PAUSED, Phase.WAITING) or reason == Reason.PAUSED_BY_PERSON
        lost = self.world.counts["snapshot deleted"]
        assert waits or (phase is Phase.STUCK and (self.changes.edited or lost)), f"nothing happens any more: {status}"
        if self.intention == "delete" and not self.stopped:
            assert not self.unguarded
            self.delete()
        elif phase is Phase.STUCK or self.intention == "abandon" or (late and helped > _HELP - 3):
            self.ask(RequestVerb.ABORT if phase is Phase.PENDING else RequestVerb.ABANDON)
        elif reason == Reason.NO_RETURN:
            self.ask(RequestVerb.ABANDON if late or self.intention == "take back" else RequestVerb.RETRY)
        elif self.intention == "take back" or late:
            self.ask(RequestVerb.ABORT)
        elif phase is Phase.WAITING:
            self.ask(RequestVerb.APPROVE)
        else:
            if helped % 2:  # a resume alone has not helped
                self.put_right()
            self.ask(RequestVerb.RETRY if failed_step(status) >= 0 else RequestVerb.RESUME)

    def _judge(self) -> None:
        """How it may end."""
        status, now = self.status, specs_of(self.world.cluster.objects)
        before = specs_of(self.before)
        # The claims of a plan that was abandoned are void already; one that may not be taken off, or comes late, is left.
        denied, late = self.world.counts[f"fault: {Fault.DENIED}"], self.world.counts[f"fault: {Fault.LATE}"]
        self.courtesy = status.phase is Phase.ABANDONED and denied + late > 0
        left = self._leftovers()
        assert not left, left
        if self.earlier == self._run_of_now():  # the plan was applied again, and nobody has read it yet
            assert now == before, status
        elif status.phase is Phase.SUCCEEDED:
            reached = contents(self.world.cluster.objects)
            for ref, content in self.goal.items():
                if ref not in self.changes.edited:
                    assert reached[ref] == content, f"{ref} after {status}"
        elif status.phase is Phase.ABANDONED:
            assert self.abandoned or self.stopped, status
        else:
            assert status.phase in (Phase.ROLLED_BACK, Phase.REFUSED, Phase.PENDING, None), status
            assert now == before, status
            if (
                not denied
            ):  # values come before owners: an undo that may write no more than once leaves the rest to a log line
                self._owners_are_as_before()

    def _owners_are_as_before(self) -> None:
        """A field that the plan has changed belongs to its former owner again."""
        was, now = (specs_of(objects, owners=True) for objects in (self.before, self.world.cluster.objects))
        for ref, (*_, owners) in was.items():
            if ref not in self.changes.edited:
                assert now[ref][-1] == owners, f"owners of {ref} after {self.status}"

    def _leftovers(self) -> list[str]:
        found = []
        for ref, body in self.world.cluster.objects.items():
            labels = body["metadata"].get("labels") or {}
            kept = body["metadata"].get("ownerReferences")  # of a success, for a rollback on request
            # An abandoned plan releases its claims again only while our finalizer is on it; without, the next sweep takes what it has kept.
            unheld = self.courtesy and self.world.counts["replaced"]
            may_stay = (kept or unheld or ref in self.world.strays) if ref.resource == SNAPSHOTS else self.courtesy
            if PLAN_LABEL in labels and not may_stay:
                found.append(f"{ref} after {self.status}")
        return found

    async def _leave_nothing(self) -> None:
        """The plan is deleted; what it owns goes with it, and a new process sweeps up what else there is."""
        cluster = self.world.cluster
        if self.there:
            cluster.delete(self.world.plan)
            await self._hear_that_it_is_gone()
        assert not self.there
        self._collect()
        await sweep(cluster, ())
        self.world.strays.clear()
        self.changes.status = Status()
        left = self._leftovers()
        assert not left, left

    def _count(self) -> None:
        world, phases = self.world, self.changes.phases
        end = str(self.end.phase)
        FIGURES.update({"walks": 1, "turns": world.counts["turns"], "crashes": world.counts["crashes"]})
        FIGURES[f"ended {end}"] += 1
        FIGURES.update(f"was {phase}" for phase in phases)
        FIGURES["ForeignChange after a step"] += self.changes.changed_after_done
        FIGURES["SnapshotLost"] += self.changes.reasons["SnapshotLost"] > 0
        FIGURES["rolled back in mid-traffic"] += self.changes.split
        FIGURES[f"ended {end} after a crash"] += world.counts["crashes"] > 0
        FIGURES.update({name: count for name, count in world.counts.items() if name not in ("turns", "crashes")})


def _part(ref: Ref) -> str:
    return "data" if ref.resource == CONFIG_MAPS else "spec"
