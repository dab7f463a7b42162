"""The real driver in one or two processes at once, over a server that loses, repeats and delays what they ask of it, and people
who interfere: whatever happens in whatever order, each change of the server keeps the promises, and every plan ends.

`make test` takes a repeatable sample. With CUTOVER_WALK_MINUTES=60 new walks are taken for as long, and counted.
"""

from __future__ import annotations

import asyncio
import copy
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase as Stages, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cutover.ports import FENCE_LABEL, PLAN_LABEL, PLANS, SNAPSHOTS, Ref, Sample
from cutover.plan import parse
from cutover.requests import PREFIX, RequestVerb
from cutover.saga.tables import Reason
from cutover.saga.wishes import failed_step
from cutover.status import ACTIVE, ENDED, Phase, Status
from cutover.sweep import sweep
from cutover.testing import MemoryCluster
from support.ledger import Ledger
from support.plans import APPROVED, BACK_AND_FORTH, GUARDED, WALLED, WIDE
from support.shop import CANARY, ROUTES, V1, V2, plan, react, shop
from support.simulation import Simulation, specs_of
from support.turmoil import Aim, Fault, Pace, World

PLANS_TO_WALK = {
    "canary": CANARY,
    "guarded": GUARDED,
    "approved": APPROVED,
    "there and back": BACK_AND_FORTH,
    "walled": WALLED,
    "wide": WIDE,
}
FIGURES: Counter[str] = Counter()
"""Of all walks so far."""
_TURNS = 400
"""A plan that nobody disturbs ends in fewer turns of all processes."""
_HELP = 12
"""How often people have to help it on, at most."""
_FAR = timedelta(hours=2)
NUMBER = st.integers(1, 3) | st.integers(1, 10)
AIM = st.sampled_from([Aim.ANY, Aim.WRITE, Aim.TARGET, Aim.TARGET])
WRITES = st.sampled_from([Aim.WRITE, Aim.TARGET])
WHO = st.sampled_from([0, 1])


@cache
def at_the_end_of(name: str) -> dict[Ref, Any]:
    """The specs after the plan has Succeeded undisturbed."""
    run = Simulation(plan(PLANS_TO_WALK[name]), put=shop)

    async def play() -> Phase:
        for _ in range(20):
            await run.until(lambda: run.over or run.phase is Phase.WAITING)
            if run.over:
                break
            assert run.status.current is not None
            run.request(RequestVerb.APPROVE, run.status.current.step)
            await run.turn()
        return await run.run()

    assert asyncio.run(play()) is Phase.SUCCEEDED
    return run.specs()


_going = precondition(lambda self: not self.over)


class Walk(RuleBasedStateMachine):
    """One plan over the shop."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)  # tasks of processes that died
        self.number, self.wish, self.abandoned, self.stopped = Counter[str](), "", False, False
        self.sample: float | None = 0.1
        self.controllers, self.courtesy = True, False
        self.earlier: tuple[str, int] | None = None

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    @initialize(
        name=st.sampled_from(sorted(PLANS_TO_WALK)),
        processes=st.sampled_from([1, 2, 2]),
        on_failure=st.sampled_from(["Rollback", "Rollback", "Hold"]),
        keep=st.sampled_from(["0s", "24h"]),
        deletion=st.sampled_from(["Rollback", "Rollback", "Orphan"]),
        wish=st.sampled_from(["go on", "go on", "take back", "take back", "delete", "abandon"]),
        ahead=st.integers(0, 24),
    )
    def begin(
        self, name: str, processes: int, on_failure: str, keep: str, deletion: str, wish: str, ahead: int
    ) -> None:
        """A plan is made; the first process does some turns in peace."""
        self.name, self.wish = name, wish
        cluster = MemoryCluster()
        shop(cluster)
        self.before = copy.deepcopy(cluster.objects)
        body = plan(PLANS_TO_WALK[name])
        body["spec"] |= {"onFailure": on_failure, "keepSnapshots": keep, "deletionPolicy": deletion}
        self.body = body
        ref = cluster.put(PLANS, copy.deepcopy(body))
        cluster.objects[ref]["status"] = {"observedGeneration": -1}
        self.world = World(cluster, ref, cluster.objects[ref]["metadata"]["uid"])
        self.world.metrics.answer = lambda _: Sample(self.sample)
        self.ledger = Ledger(ref, parse(body["spec"]))
        cluster.changed = self._changed
        for _ in range(processes):
            self.world.start()
        self._run(self._several(ahead, 0))

    def _changed(self, ref: Ref, before: Any, after: Any) -> None:
        self.world.happened(ref, before, after)
        self.ledger.changed(ref, before, after)

    # --- what can be seen ---------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        return self.ledger.status

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

    def _who(self, at: int) -> int:
        return min(at, len(self.world.processes) - 1)

    # --- processes ----------------------------------------------------------------------------------------------------

    async def _work(self, turns: int, only: int | None = None, until: Callable[[], bool] = lambda: False) -> int:
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
                if due is None or due - now > _FAR:
                    return done
                await self._pass_time(due - now)
                awake = [at for at, process in processes if process.due and process.due <= due]
            await self.world.turn(awake[done % len(awake)])
            self._react()
        return turns

    def _react(self) -> None:
        if self.controllers and react(self.world.cluster):
            self.world.hear()

    async def _pass_time(self, span: timedelta) -> None:
        """A request whose sender is gone is not under way for ever."""
        self.world.clock.pass_time(span)
        for flight in [one for one in self.world.flights if one.answer.done()]:
            if self.world.clock.now() - flight.sent > timedelta(minutes=1):
                await self.world.land(flight, "at last")

    @_going
    @rule(turns=st.integers(1, 5))
    def all_work(self, turns: int) -> None:
        self._run(self._several(turns))

    @_going
    @rule(at=WHO, turns=st.integers(1, 4))
    def one_works(self, at: int, turns: int) -> None:
        self._run(self._several(turns, self._who(at)))

    async def _several(self, turns: int, only: int | None = None, until: Callable[[], bool] = lambda: False) -> None:
        await self._work(turns, only, until)

    def _trouble(self, at: int, fault: Fault, aim: Aim, number: int) -> None:
        """The n-th request of this sort from now goes wrong."""
        process = self.world.processes[at]
        if not process.busy:
            process.fault = fault, aim, number
            self._run(self._several(10, at, lambda: process.fault is None))

    @_going
    @rule(at=WHO, aim=AIM, number=NUMBER, done=st.booleans())
    def dies_in_a_request(self, at: int, aim: Aim, number: int, done: bool) -> None:  # noqa: FBT001 -- drawn
        self._trouble(self._who(at), Fault.DIES_AFTER if done else Fault.DIES_BEFORE, aim, number)

    @_going
    @rule(at=WHO, aim=AIM, number=NUMBER, done=st.booleans())
    def gets_no_answer(self, at: int, aim: Aim, number: int, done: bool) -> None:  # noqa: FBT001 -- drawn
        self._trouble(self._who(at), Fault.UNANSWERED if done else Fault.NOT_DONE, aim, number)

    @_going
    @rule(at=WHO, aim=WRITES, number=NUMBER, fault=st.sampled_from([Fault.TWICE, Fault.REPEATED]))
    def is_repeated(self, at: int, aim: Aim, number: int, fault: Fault) -> None:
        self._trouble(self._who(at), fault, aim, number)

    @_going
    @rule(at=WHO, aim=AIM, number=NUMBER, fault=st.sampled_from([Fault.DENIED, Fault.BUSY]))
    def is_refused(self, at: int, aim: Aim, number: int, fault: Fault) -> None:
        self._trouble(self._who(at), fault, aim, number)

    @_going
    @rule(at=WHO, aim=WRITES, number=NUMBER)
    def loses_a_race(self, at: int, aim: Aim, number: int) -> None:
        self._trouble(self._who(at), Fault.CONFLICT, aim, number)

    @_going
    @rule(
        at=WHO,
        aim=AIM,
        number=NUMBER,
        fault=st.sampled_from([Fault.LATE, Fault.LATE, Fault.LATE_ANSWER]),
        sender=st.sampled_from(["waits", "waits", "dies", "gives up"]),
        verb=st.sampled_from([None, RequestVerb.ABORT, RequestVerb.ABORT, RequestVerb.HOLD, RequestVerb.RETRY]),
        stalls=st.booleans(),
        turns=st.integers(0, 12),
        arrives=st.booleans(),
    )
    def is_late(
        self,
        at: int,
        aim: Aim,
        number: int,
        fault: Fault,
        sender: str,
        verb: RequestVerb | None,
        stalls: bool,  # noqa: FBT001 -- drawn
        turns: int,
        arrives: bool,  # noqa: FBT001 -- drawn
    ) -> None:
        """Others go on meanwhile: the other process, the one that takes the place of the sender, or the sender itself."""
        at = self._who(at)
        self._trouble(at, fault, aim, number)
        late = next((flight for flight in self.world.flights if flight.sender is self.world.processes[at]), None)
        if sender == "dies":
            self._run(self.world.kill(at))
        elif sender == "gives up" and late:
            self._run(self.world.land(late, "given up"))
        if verb is not None and self.there:
            self._ask(verb)
        self.controllers &= not stalls
        self._run(self._several(turns))
        if arrives and late in self.world.flights:
            self._run(self.world.land(late, "answered"))

    @precondition(lambda self: self.world.flights)
    @rule(which=st.integers(0, 5), how=st.sampled_from(["answered", "answered", "unanswered", "given up"]))
    def comes_late(self, which: int, how: str) -> None:
        self._run(self.world.land(self.world.flights[which % len(self.world.flights)], how))

    @_going
    @rule(at=WHO)
    def dies(self, at: int) -> None:
        self._run(self.world.kill(self._who(at)))

    @_going
    @rule(at=WHO, stream=st.sampled_from(["plans", "targets", "lists"]), pace=st.sampled_from(Pace))
    def streams(self, at: int, stream: str, pace: Pace) -> None:
        self.world.processes[self._who(at)].paces[stream] = pace
        self.world.hear()

    # --- the world ----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 5, 20, 60, 700]))
    def time_passes(self, seconds: int) -> None:
        self._run(self._pass_time(timedelta(seconds=seconds)))

    @_going
    @rule(on=st.booleans())
    def rollouts(self, on: bool) -> None:  # noqa: FBT001 -- drawn
        self.controllers = on
        self._react()

    @_going
    @rule(sample=st.sampled_from([0.1, 0.1, 0.9, None]))
    def gates_see(self, sample: float | None) -> None:
        self.sample = sample

    # --- people -------------------------------------------------------------------------------------------------------

    def _edit(self, ref: Ref, change: Callable[[Any], None]) -> None:
        body = copy.deepcopy(self.world.cluster.objects[ref])
        change(body)
        self.ledger.by_hand = True
        self.world.cluster.put(ref.resource, body)
        self.ledger.by_hand = False
        self.world.hear()

    def _ask(self, verb: RequestVerb) -> None:
        self.number[verb] += 1
        step = self.status.current.step if self.status.current else "none"
        text = f"token={self.number[verb]} step={step} by=alice"
        self._edit(
            self.world.plan, lambda body: body["metadata"].setdefault("annotations", {}).update({PREFIX + verb: text})
        )
        self.abandoned |= verb is RequestVerb.ABANDON
        self.world.counts[f"asked: {verb}"] += 1

    @precondition(lambda self: self.there)
    @rule(verb=st.sampled_from([verb for verb in RequestVerb if verb is not RequestVerb.ABANDON]))
    def asks(self, verb: RequestVerb) -> None:
        self._ask(verb)

    @precondition(lambda self: self.there and self.status.phase is Phase.WAITING)
    @rule()
    def approves(self) -> None:
        self._ask(RequestVerb.APPROVE)

    @precondition(lambda self: self.there and self.wish == "abandon")
    @rule()
    def abandons(self) -> None:
        self._ask(RequestVerb.ABANDON)

    @_going
    @rule(on=st.booleans())
    def suspends(self, on: bool) -> None:  # noqa: FBT001 -- drawn
        self._edit(self.world.plan, lambda body: body["spec"].update(suspend=on))

    @precondition(lambda self: self.there and self.wish == "delete" and not self.stopped)
    @rule()
    def deletes(self) -> None:
        self.stopped = True
        self.world.cluster.delete(self.world.plan)
        self.world.hear()

    @precondition(lambda self: self.over)
    @rule()
    def applies_it_again(self) -> None:
        """The shop is as it was before, and the plan has another word in it; or it is made anew."""
        cluster, ledger = self.world.cluster, self.ledger
        ledger.by_hand = True
        for ref, (spec, labels, _) in specs_of(self.before).items():
            if specs_of(cluster.objects)[ref] != specs_of(self.before)[ref]:
                body = copy.deepcopy(cluster.objects[ref])
                body["spec"], body["metadata"]["labels"] = copy.deepcopy(spec), dict(labels)
                cluster.put(ref.resource, body)
        ledger.by_hand = False
        ledger.edited.clear()
        self.earlier = self._run_of_now()
        self.number["again"] += 1
        again = f"again {self.number['again']}"
        if self.there:
            self._edit(self.world.plan, lambda body: body["spec"]["steps"][0].update(description=again))
        else:
            self._collect()
            self.stopped = False
            ledger.status = Status()
            cluster.put(PLANS, copy.deepcopy(self.body))
            cluster.report(self.world.plan, {"observedGeneration": -1})
            self.world.uid = cluster.objects[self.world.plan]["metadata"]["uid"]
            self.world.hear()
        self.world.counts["applied again"] += 1

    def _run_of_now(self) -> tuple[str, int]:
        return self.world.uid, self.status.run.number if self.status.run else 0

    def _collect(self) -> None:
        """What the plan owned goes with it."""
        for ref, body in list(self.world.cluster.objects.items()):
            if body["metadata"].get("ownerReferences"):
                self.world.cluster.delete(ref)

    @precondition(lambda self: self.there and self.status.phase is Phase.SUCCEEDED)
    @rule()
    def asks_for_a_rollback(self) -> None:
        self._ask(RequestVerb.ROLLBACK)

    def _shares(self, body: Any) -> list[int]:
        return [entry.get("weight", 0) for entry in body["spec"]["http"][0]["route"]]

    @property
    def active(self) -> bool:
        return self.there and self.status.phase in ACTIVE

    @precondition(lambda self: self.active and self._shares(self.world.cluster.objects[ROUTES]) != [100, 0])
    @rule(new=st.sampled_from([0, 5, 30, 60, 100]))
    def weights_by_hand(self, new: int) -> None:
        def change(body: Any) -> None:
            for entry, weight in zip(body["spec"]["http"][0]["route"], (100 - new, new), strict=True):
                entry["weight"] = weight

        self._edit(ROUTES, change)

    @precondition(lambda self: self.active)
    @rule(ref=st.sampled_from([V1, V2, ROUTES]))
    def takes_labels_off(self, ref: Ref) -> None:
        def change(body: Any) -> None:
            for label in (PLAN_LABEL, FENCE_LABEL):
                body["metadata"].get("labels", {}).pop(label, None)

        self._edit(ref, change)

    def _image(self) -> str:
        return str(self.world.cluster.objects[V2]["spec"]["template"]["spec"]["containers"][1]["image"])

    def _set_image(self, image: str) -> None:
        def change(body: Any) -> None:
            body["spec"]["template"]["spec"]["containers"][1]["image"] = image

        self._edit(V2, change)

    @precondition(lambda self: self.active and self._image() in ("shop:2", "shop:3"))
    @rule(verb=st.sampled_from([None, RequestVerb.ABORT, RequestVerb.ABANDON]))
    def image_by_hand(self, verb: RequestVerb | None) -> None:
        self.was = self._image()
        self._set_image("foreign:9")
        if verb is not None:
            self._ask(verb)

    @precondition(lambda self: self._image() == "foreign:9")
    @rule(back=st.booleans())
    def image_put_right(self, back: bool) -> None:  # noqa: FBT001 -- drawn
        self._set_image("shop-v2:1" if back else self.was)

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def keeps_its_promises(self) -> None:
        if not hasattr(self, "world"):
            return
        wrong = [*self.ledger.wrong, *map(repr, self.world.wrong)]
        shares = self._shares(self.world.cluster.objects[ROUTES])
        if sum(shares) != 100:
            wrong.append(f"weights {shares}")
        if wrong:
            self.wish = "failed"
            error = self.world.wrong[0] if self.world.wrong else None
            raise AssertionError("; ".join(wrong)) from error

    def teardown(self) -> None:
        try:
            if hasattr(self, "world") and self.wish != "failed":
                self._run(self._finish())
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
        """All trouble ends, people help where only they can, and the plan must end."""
        await self._calm()
        for helped in range(_HELP):
            if await self._until_quiet():
                break
            self._help(helped)
            self.keeps_its_promises()
        assert self.over, f"it does not end: {self.status}"
        self.end = self.status
        self.keeps_its_promises()
        self._judge()
        await self._leave_nothing()

    async def _calm(self) -> None:
        for process in self.world.processes:
            process.fault = None
            process.paces.update(dict.fromkeys(process.paces, Pace.LIVE))
        while self.world.flights:
            await self.world.land(self.world.flights[0], "answered")
        self.controllers, self.sample = True, 0.1
        self.world.hear()
        self._react()
        if self.there:
            self._edit(self.world.plan, lambda body: body["spec"].update(suspend=False))
        if self._image() == "foreign:9":
            self._set_image(self.was)

    async def _until_quiet(self) -> bool:
        """Until it has ended, which is true, or only a person can help it on."""
        looks = 0

        def still() -> bool:
            nonlocal looks
            looks += not any(process.woken for process in self.world.processes)
            waits = self.status.phase in (Phase.HELD, Phase.WAITING, Phase.STUCK) or self.status.reason in (
                Reason.HELD_BY_PERSON,
            )
            return self.over or (waits and looks > 6)

        turns = await self._work(_TURNS, until=still)
        assert turns < _TURNS, f"it goes on for ever: {self.status}"
        return self.over

    def _help(self, helped: int) -> None:
        status, late = self.status, helped > _HELP // 2
        phase, reason = status.phase, status.reason
        waits = phase in (Phase.HELD, Phase.WAITING) or reason == Reason.HELD_BY_PERSON
        assert waits or (phase is Phase.STUCK and self.ledger.edited), f"nothing happens any more: {status}"
        if self.wish == "delete" and not self.stopped:
            self.stopped = True
            self.world.cluster.delete(self.world.plan)
            self.world.hear()
        elif phase is Phase.STUCK or self.wish == "abandon" or (late and helped > _HELP - 3):
            self._ask(RequestVerb.ABORT if phase is Phase.PENDING else RequestVerb.ABANDON)
        elif reason == Reason.NO_RETURN:
            self._ask(RequestVerb.ABANDON if late or self.wish == "take back" else RequestVerb.RETRY)
        elif self.wish == "take back" or late:
            self._ask(RequestVerb.ABORT)
        elif phase is Phase.WAITING:
            self._ask(RequestVerb.APPROVE)
        else:
            self._ask(RequestVerb.RETRY if failed_step(status) >= 0 else RequestVerb.RESUME)

    def _judge(self) -> None:
        """How it may end."""
        status, now = self.status, specs_of(self.world.cluster.objects)
        before = specs_of(self.before)
        # The claims of a plan that was abandoned are void already; one that may not be taken off, or comes late, is left.
        denied, late = bool(self.world.counts[Fault.DENIED]), bool(self.world.counts[Fault.LATE])
        self.courtesy = status.phase is Phase.ABANDONED and (denied or late)
        left = self._leftovers()
        assert not left, left
        if self.earlier == self._run_of_now():  # the plan was applied again, and nobody has looked at that yet
            assert now == before, status
        elif status.phase is Phase.SUCCEEDED:
            for ref, (spec, *_) in at_the_end_of(self.name).items():
                if ref not in self.ledger.edited:
                    assert now[ref][0] == spec, f"{ref} after {status}"
        elif status.phase is Phase.ABANDONED:
            assert self.abandoned or self.stopped, status
        else:
            assert status.phase in (Phase.ROLLED_BACK, Phase.REFUSED, Phase.PENDING, None), status
            assert now == before, status

    def _leftovers(self) -> list[str]:
        found = []
        for ref, body in self.world.cluster.objects.items():
            labels = body["metadata"].get("labels") or {}
            kept = body["metadata"].get("ownerReferences")  # of a success, for a rollback on request
            may_stay = (kept or ref in self.world.strays) if ref.resource == SNAPSHOTS else self.courtesy
            if PLAN_LABEL in labels and not may_stay:
                found.append(f"{ref} after {self.status}")
        return found

    async def _leave_nothing(self) -> None:
        """The plan is deleted; what it owns goes with it, and a new process sweeps up what else there is."""
        cluster = self.world.cluster
        if self.there:
            cluster.delete(self.world.plan)
            self.world.hear()
            await self._work(20)
        assert not self.there
        self._collect()
        await sweep(cluster, ())
        self.world.strays.clear()
        self.ledger.status = Status()
        left = self._leftovers()
        assert not left, left

    def _count(self) -> None:
        world, phases = self.world, self.ledger.phases
        end = str(self.end.phase)
        FIGURES.update({"walks": 1, "turns": world.counts["turns"], "crashes": world.counts["crashes"]})
        FIGURES[f"ended {end}"] += 1
        FIGURES.update(f"was {phase}" for phase in phases)
        FIGURES["turned back in mid-traffic"] += self.ledger.split
        FIGURES[f"ended {end} after a crash"] += world.counts["crashes"] > 0
        FIGURES.update(
            {f"fault: {fault}": number for fault, number in world.counts.items() if fault not in ("turns", "crashes")}
        )


@pytest.mark.timeout(3600)
def test_machine() -> None:
    minutes = float(os.environ.get("CUTOVER_WALK_MINUTES", "0"))
    _walk(1, int(os.environ.get("N", "100")))
    print()
    for name, number in sorted(FIGURES.items()):
        print(f"{number:8} {name}")


def _walk(number: int, walks: int) -> None:
    for name in PLANS_TO_WALK:
        at_the_end_of(name)  # before there is a loop
    chosen = settings(
        max_examples=walks,
        stateful_step_count=30,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(seed(number)(Walk), settings=chosen)  # type: ignore[no-untyped-call]
