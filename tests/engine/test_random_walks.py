"""The real driver in one or two processes at once, over a server that loses, repeats and delays what they ask of it, and people
who interfere: whatever happens in whatever order, each change of the server keeps the promises, and every plan ends.

`make test` takes a repeatable sample of 300 walks, `make test-long` 700. With CUTOVER_WALK_MINUTES=60 new walks are taken for as
long, and counted.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cutover.ports import FENCE_LABEL, PLAN_LABEL, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from support.fakes.shop import FRONT, V1, V2
from support.faults.change_invariants import FOREIGN
from support.faults.fault_injection import Aim, Fault, Pace
from support.faults.random_walk import FIGURES, Walk
from support.plans.walked import WALKED, entries

pytestmark = pytest.mark.exhaustive

_WALKS = 700
"""About a minute's."""
_SAMPLE = 300
_LEAST = {
    "ended Succeeded after a crash": 0.04,
    "ended RolledBack after a crash": 0.04,
    "ended Abandoned": 0.02,
    "rolled back in mid-traffic": 0.05,
    "was Paused": 0.05,
    "was Stuck": 0.01,
    "was Waiting": 0.05,
    "applied again": 0.1,
    "replaced": 0.1,
    "snapshot deleted": 0.1,
    "pods taken": 0.1,
    "SnapshotLost": 0.01,
    "taken back": 0.1,
    "ForeignChange after a step": 0.02,
    "fault: late": 0.05,
    **{f"fault: {fault}": 0.02 for fault in Fault if fault is not Fault.LATE},
}
"""How often each happens at least, per walk: about half of what it does, because a seed does not repeat its walks exactly. What is
rare may happen less often still in a sample; it must happen.
"""
NUMBER = st.integers(1, 3) | st.integers(1, 10)
AIM = st.sampled_from([Aim.ANY, Aim.WRITE, Aim.TARGET, Aim.TARGET])
WRITES = st.sampled_from([Aim.WRITE, Aim.TARGET])
WHO = st.sampled_from([0, 1])
LOST = ("status.conditions", "status.current.gates", "status.current.ready", "status.history",
        "status.progress", "status.report", "status.tally")  # fmt: skip
"""Fields that the CRD may lack without keeping plans from running."""

_going = precondition(lambda self: not self.over)


class Machine(Walk, RuleBasedStateMachine):
    """What may happen."""

    @initialize(
        name=st.sampled_from(sorted(WALKED)),
        processes=st.sampled_from([1, 2, 2]),
        on_failure=st.sampled_from(["Rollback", "Rollback", "Pause"]),
        keep=st.sampled_from(["0s", "24h"]),
        deletion=st.sampled_from(["Rollback", "Rollback", "Orphan"]),
        intention=st.sampled_from(["go on", "go on", "take back", "take back", "delete", "abandon"]),
        ahead=st.integers(0, 24),
        missing=st.just(()) | st.lists(st.sampled_from(LOST), min_size=1, max_size=3, unique=True).map(tuple),
    )
    def begin(
        self,
        name: str,
        processes: int,
        on_failure: str,
        keep: str,
        deletion: str,
        intention: str,
        ahead: int,
        missing: tuple[str, ...],
    ) -> None:
        """A plan is made; the first process does some turns in peace."""
        policies = {"onFailure": on_failure, "keepSnapshots": keep, "deletionPolicy": deletion}
        self.set_up(name, processes, policies, intention, missing)
        self.run(self.several(ahead, 0))

    # --- processes ----------------------------------------------------------------------------------------------------

    @_going
    @rule(turns=st.integers(1, 5))
    def all_work(self, turns: int) -> None:
        self.run(self.several(turns))

    @_going
    @rule(at=WHO, turns=st.integers(1, 4))
    def one_works(self, at: int, turns: int) -> None:
        self.run(self.several(turns, self.who(at)))

    @_going
    @rule(at=WHO, aim=AIM, number=NUMBER, done=st.booleans())
    def dies_in_a_request(self, at: int, aim: Aim, number: int, done: bool) -> None:  # noqa: FBT001 -- drawn
        self.fault(self.who(at), Fault.DIES_AFTER if done else Fault.DIES_BEFORE, aim, number)

    @_going
    @rule(at=WHO, aim=AIM, number=NUMBER, done=st.booleans())
    def gets_no_answer(self, at: int, aim: Aim, number: int, done: bool) -> None:  # noqa: FBT001 -- drawn
        self.fault(self.who(at), Fault.UNANSWERED if done else Fault.NOT_DONE, aim, number)

    @_going
    @rule(at=WHO, aim=WRITES, number=NUMBER, fault=st.sampled_from([Fault.TWICE, Fault.REPEATED]))
    def is_repeated(self, at: int, aim: Aim, number: int, fault: Fault) -> None:
        self.fault(self.who(at), fault, aim, number)

    @_going
    @rule(at=WHO, aim=AIM, number=NUMBER, fault=st.sampled_from([Fault.DENIED, Fault.BUSY]))
    def is_refused(self, at: int, aim: Aim, number: int, fault: Fault) -> None:
        self.fault(self.who(at), fault, aim, number)

    @_going
    @rule(at=WHO, aim=WRITES, number=NUMBER)
    def loses_a_race(self, at: int, aim: Aim, number: int) -> None:
        self.fault(self.who(at), Fault.CONFLICT, aim, number)

    @_going
    @rule(
        at=WHO,
        aim=AIM,
        number=NUMBER,
        fault=st.sampled_from([Fault.LATE, Fault.LATE, Fault.LATE_ANSWER]),
        sender=st.sampled_from(["waits", "waits", "dies", "gives up"]),
        verb=st.sampled_from([None, RequestVerb.ABORT, RequestVerb.ABORT, RequestVerb.PAUSE, RequestVerb.RETRY]),
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
        at = self.who(at)
        self.fault(at, fault, aim, number)
        late = next((flight for flight in self.world.flights if flight.sender is self.world.processes[at]), None)
        if sender == "dies":
            self.run(self.world.kill(at))
        elif sender == "gives up" and late:
            self.run(self.world.land(late, "timed out"))
        if verb is not None and self.there:
            self.ask(verb)
        self.controllers &= not stalls
        self.run(self.several(turns))
        if arrives and late in self.world.flights:
            self.run(self.world.land(late, "answered"))

    @precondition(lambda self: self.world.flights)
    @rule(which=st.integers(0, 5), how=st.sampled_from(["answered", "answered", "unanswered", "timed out"]))
    def comes_late(self, which: int, how: str) -> None:
        self.run(self.world.land(self.world.flights[which % len(self.world.flights)], how))

    @_going
    @rule(at=WHO)
    def dies(self, at: int) -> None:
        self.run(self.world.kill(self.who(at)))

    @_going
    @rule(at=WHO, stream=st.sampled_from(["plans", "targets", "lists"]), pace=st.sampled_from(Pace))
    def streams(self, at: int, stream: str, pace: Pace) -> None:
        self.world.processes[self.who(at)].paces[stream] = pace
        self.world.hear()

    # --- the world ----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 5, 20, 60, 700]))
    def time_passes(self, seconds: int) -> None:
        self.run(self.pass_time(timedelta(seconds=seconds)))

    @_going
    @rule(on=st.booleans())
    def rollouts(self, on: bool) -> None:  # noqa: FBT001 -- drawn
        self.controllers = on
        self.react()

    @precondition(lambda self: self.active)
    @rule(ref=st.sampled_from([V1, V2, V2]), left=st.sampled_from([0, 0, 1]))
    def pods_go(self, ref: Ref, left: int) -> None:
        """They are evicted, or crash, and none comes back."""
        self.take_pods(ref, left)

    @_going
    @rule()
    def pods_come_back(self) -> None:
        self.world.cluster.rollouts = True
        self.react()

    @_going
    @rule(sample=st.sampled_from([0.1, 0.1, 0.9, None]))
    def gates_see(self, sample: float | None) -> None:
        self.sample = sample

    # --- people -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.there)
    @rule(verb=st.sampled_from([verb for verb in RequestVerb if verb is not RequestVerb.ABANDON]))
    def asks(self, verb: RequestVerb) -> None:
        self.ask(verb)

    @precondition(lambda self: self.there and self.status.phase is Phase.WAITING)
    @rule()
    def approves(self) -> None:
        self.ask(RequestVerb.APPROVE)

    @precondition(lambda self: self.there and self.intention == "abandon")
    @rule()
    def abandons(self) -> None:
        self.ask(RequestVerb.ABANDON)

    @_going
    @rule(on=st.booleans())
    def suspends(self, on: bool) -> None:  # noqa: FBT001 -- drawn
        self.edit(self.world.plan, lambda body: body["spec"].update(suspend=on))

    @precondition(lambda self: self.active and not self.stopped and self.bound)
    @rule(turns=st.integers(0, 2))
    def replaces_it(self, turns: int) -> None:
        """As `kubectl replace` does: the same spec, and no finalizer."""
        self.world.counts["replaced"] += 1
        self.edit(self.world.plan, lambda body: body["metadata"].pop("finalizers"))
        self.run(self.several(turns))

    @precondition(lambda self: self.there and self.intention == "delete" and not self.stopped and not self.unguarded)
    @rule()
    def deletes(self) -> None:
        self.delete()

    @precondition(lambda self: self.over)
    @rule()
    def applies_it_again(self) -> None:
        """The shop is as it was before, and the plan has another word in it; or it is made anew."""
        self.restore_shop()
        self.world.counts["applied again"] += 1
        again = f"again {self.world.counts['applied again']}"
        if self.there:
            self.edit(self.world.plan, lambda body: body["spec"]["steps"][0].update(description=again))
        else:
            self.recreate()

    @precondition(lambda self: self.there and self.status.phase is Phase.SUCCEEDED)
    @rule()
    def asks_for_a_rollback(self) -> None:
        self.ask(RequestVerb.ROLLBACK)

    @precondition(lambda self: self.active and self.moves not in (None, FRONT) and self.weights() != [100, 0])
    @rule(new=st.sampled_from([0, 5, 30, 60, 100]))
    def weights_by_hand(self, new: int) -> None:
        def change(body: Any) -> None:
            for entry, weight in zip(entries(body), (100 - new, new), strict=True):
                entry["weight"] = weight

        assert self.moves is not None
        self.edit(self.moves, change)

    @precondition(lambda self: self.active)
    @rule(which=st.integers(0, 5))
    def takes_labels_off(self, which: int) -> None:
        def change(body: Any) -> None:
            for label in (PLAN_LABEL, FENCE_LABEL):
                (body["metadata"].get("labels") or {}).pop(label, None)

        self.edit(self.targets[which % len(self.targets)], change)

    @precondition(lambda self: self.active and self.taken())
    @rule(which=st.integers(0, 3))
    def deletes_a_snapshot(self, which: int) -> None:
        """Whoever has it in mind needs it no more; after a crash the plan is Paused or Stuck, and never says RolledBack for nothing."""
        self.lose(self.taken()[which % len(self.taken())])

    @precondition(lambda self: self.active and self.image() in ("shop:2", "shop:3"))
    @rule(verb=st.sampled_from([None, RequestVerb.ABORT, RequestVerb.ABANDON]))
    def image_by_hand(self, verb: RequestVerb | None) -> None:
        self.was = self.image()
        self.set_image(FOREIGN)
        if verb is not None:
            self.ask(verb)

    @precondition(lambda self: self.image() == FOREIGN)
    @rule(back=st.booleans())
    def image_put_right(self, back: bool) -> None:  # noqa: FBT001 -- drawn
        self.set_image("shop-v2:1" if back else self.was)

    @precondition(lambda self: self.active)
    @rule(which=st.integers(0, 5), turns=st.integers(0, 2))
    def takes_back(self, which: int, turns: int) -> None:
        """A GitOps tool, say, that writes an object as it is in git, at any moment; then nothing may build on it."""
        ref = self.targets[which % len(self.targets)]
        if not self.as_before(ref):
            self.take_back(ref)
            self.run(self.several(turns))

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.keeps_its_promises()


def _take(number: int, walks: int) -> None:
    chosen = settings(
        max_examples=walks,
        stateful_step_count=30,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(Machine), settings=chosen)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("count", [_SAMPLE, pytest.param(_WALKS, marks=pytest.mark.long)])
def test_walks(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    FIGURES.clear()
    minutes = float(os.environ.get("CUTOVER_WALK_MINUTES", "0"))
    share = 0.5 if count == _SAMPLE else 1
    number = time.time_ns() % 2**32 if minutes else 1
    end = time.monotonic() + 60 * minutes
    _take(number, count)
    while time.monotonic() < end:
        number += 1
        _take(number, count)
    if minutes:
        with capsys.disabled():
            sys.stdout.write(f"\nseeds up to {number}\n")
            sys.stdout.writelines(f"{count:9} {name}\n" for name, count in sorted(FIGURES.items()))
    # That all of it is reached, and not by chance once.
    walks = FIGURES["walks"]
    for name, least in _LEAST.items():
        assert FIGURES[name] >= max(walks * least * share, 1), f"{name}: {FIGURES[name]} of {walks} walks"
