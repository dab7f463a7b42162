"""Processes that get in each other's way, one case at a time: what the state machine has found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from cutover.ports import DEPLOYMENTS, PLAN_LABEL, SNAPSHOTS, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from support.fakes.shop import ROUTES, V1, V2
from support.faults.fault_injection import Aim, Fault, Pace
from support.faults.random_walk import Walk

Begin = Callable[..., Walk]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """A walk; in the end all trouble is over, and the plan must end as well."""
    begun: list[Walk] = []

    def begin(name: str, processes: int = 1) -> Walk:
        begun.append(Walk())
        begun[-1].set_up(name, processes, {"keepSnapshots": "0s"}, "go on")
        return begun[-1]

    yield begin
    for walk in begun:
        walk.teardown()


def replicas(walk: Walk) -> int:
    """Of the old version."""
    return int(walk.world.cluster.objects[V1]["spec"]["replicas"])


def marked(walk: Walk) -> list[str]:
    return [
        ref.name
        for ref, body in walk.world.cluster.objects.items()
        if PLAN_LABEL in (body["metadata"].get("labels") or {})
    ]


def test_a_dwell_continues_when_another_process_takes_over(begin: Begin) -> None:
    """Each of the two has its turn again and again, and neither lives to see the end of a minute."""
    walk = begin("canary", processes=2)
    walk.run(walk.several(200, until=lambda: walk.over))
    assert walk.status.phase is Phase.SUCCEEDED


def test_a_snapshot_of_a_process_that_slept_until_the_next_run_goes(begin: Begin) -> None:
    walk = begin("canary", processes=2)
    walk.run(walk.several(30, 0, lambda: walk.status.current is not None and walk.status.current.step == "deploy"))
    walk.fault(0, Fault.LATE, Aim.WRITE, 2)  # the snapshot of the traffic, after the status
    (late,) = walk.world.flights
    walk.ask(RequestVerb.ABORT)
    walk.run(walk.several(30, 1, lambda: walk.over))
    walk.restore_shop()
    walk.edit(walk.world.plan, lambda body: body["spec"]["steps"][0].update(description="once more"))
    walk.run(walk.several(3, 1))
    walk.run(walk.world.land(late, "answered"))
    kept = {
        body["metadata"]["labels"]["cutover.dev/run"]
        for ref, body in walk.world.cluster.objects.items()
        if ref.resource == SNAPSHOTS
    }
    assert kept == {"2"}


def test_a_snapshot_of_a_process_that_slept_until_the_success_goes(begin: Begin) -> None:
    """The other one has done it all, and taken its snapshots away, because the plan keeps none."""
    walk = begin("canary", processes=2)
    walk.run(walk.several(30, 0, lambda: walk.status.current is not None and walk.status.current.step == "deploy"))
    walk.fault(0, Fault.LATE, Aim.WRITE, 2)  # the snapshot of the traffic, after the status
    (late,) = walk.world.flights
    walk.run(walk.several(200, 1, lambda: walk.over))
    assert walk.status.phase is Phase.SUCCEEDED
    walk.run(walk.world.land(late, "answered"))
    assert [ref for ref in walk.world.cluster.objects if ref.resource == SNAPSHOTS] == []


def test_a_claim_that_arrives_after_the_end_fails(begin: Begin) -> None:
    """The process that took over turned back before it had claimed anything, so it had nothing to let go of."""
    walk = begin("canary")
    walk.fault(0, Fault.LATE, Aim.TARGET, 1)
    (late,) = walk.world.flights
    walk.run(walk.world.kill(0))
    walk.ask(RequestVerb.ABORT)
    walk.run(walk.several(10, until=lambda: walk.over))
    assert walk.status.phase is Phase.ROLLED_BACK
    walk.run(walk.world.land(late, "answered"))
    assert marked(walk) == []


def test_an_answer_is_taken_for_no_other_command(begin: Begin) -> None:
    """The answer to the first weight comes when the other process is letting go: nothing has been let go of by that."""
    walk = begin("canary", processes=2)
    walk.run(walk.several(30, 0, lambda: walk.status.current is not None and walk.status.current.step == "deploy"))
    walk.fault(0, Fault.LATE_ANSWER, Aim.TARGET, 1)
    (late,) = walk.world.flights
    walk.run(walk.several(200, 1, lambda: walk.weights() == [0, 100]))
    walk.run(walk.pass_time(timedelta(minutes=1)))
    walk.fault(1, Fault.LATE, Aim.TARGET, 1)
    assert walk.status.reason == "Releasing"
    walk.run(walk.world.land(late, "answered"))
    assert walk.status.reason == "Releasing"
    assert {V2.name, ROUTES.name} <= set(marked(walk))


def test_one_target_that_may_not_be_released_keeps_no_other(begin: Begin) -> None:
    walk = begin("canary")
    walk.run(walk.several(30, until=lambda: walk.weights() == [90, 10]))
    walk.ask(RequestVerb.ABANDON)
    walk.fault(0, Fault.DENIED, Aim.TARGET, 1)
    walk.run(walk.several(10, until=lambda: walk.over))
    assert walk.status.phase is Phase.ABANDONED
    assert marked(walk) == [V2.name]


@pytest.mark.parametrize("loss", ["deleted", "unmarked"])
def test_what_happened_in_a_gap_of_a_stream_is_found(begin: Begin, loss: str) -> None:
    """The stream begins anew with a list, which does not say what is gone; here it is empty, so no event comes at all."""
    walk = at_the_first_weight(begin)
    (process,) = walk.world.processes
    process.paces["targets"] = Pace.FROZEN
    kept = walk.world.cluster.objects[V2]
    if loss == "deleted":
        walk.world.cluster.delete(V2)
    else:
        walk.edit(V2, lambda body: body["metadata"]["labels"].pop(PLAN_LABEL))
    walk.run(process.relist("targets"))
    walk.run(walk.several(1))
    if loss == "deleted":
        assert (walk.status.phase, walk.status.reason) == (Phase.ROLLED_BACK, "TargetGone")
        walk.changes.by_hand = True  # the shop is looked at in the end
        walk.world.cluster.put(DEPLOYMENTS, kept)
        walk.restore_shop()
    else:
        assert walk.status.phase is Phase.RUNNING
        assert PLAN_LABEL in walk.world.cluster.objects[V2]["metadata"]["labels"]


def test_a_plan_deleted_in_a_gap_of_its_stream_is_forgotten(begin: Begin) -> None:
    walk = begin("canary")
    walk.run(walk.several(200, until=lambda: walk.over))
    (process,) = walk.world.processes
    process.paces["plans"] = Pace.FROZEN
    walk.delete()
    assert process.api.plans() == [walk.world.plan]
    walk.run(process.relist("plans"))
    assert process.api.plans() == []


def test_without_a_gap_nothing_is_missed(begin: Begin) -> None:
    """Also not what was claimed or written while the names were on their way."""
    walk = at_the_first_weight(begin)
    (process,) = walk.world.processes
    for stream in ("plans", "targets"):
        walk.run(process.relist(stream))
    assert all(process.api.seen(ref) for ref in (V2, ROUTES, walk.world.plan))

    ours = process.api.seen(V2)
    assert ours is not None
    other = ours | {"metadata": ours["metadata"] | {"uid": "made anew"}}

    async def late(*_: object) -> set[Ref]:
        process.api.note(V2, other)
        return set()

    process.api.there = late  # type: ignore[assignment, method-assign]
    walk.run(process.missed.compare(DEPLOYMENTS))
    assert process.api.seen(V2) is other
    process.api.note(V2, ours)


def at_the_first_weight(begin: Begin) -> Walk:
    walk = begin("canary")
    walk.run(walk.several(60, until=lambda: walk.weights() == [90, 10]))
    return walk


def test_a_drain_counts_from_the_other_process_too_and_ends(begin: Begin) -> None:
    """Each has seen the run before the other one moved the traffic; and they take over from each other all the while."""
    walk = begin("switched", processes=2)
    walk.run(walk.several(120, until=lambda: replicas(walk) == 0))
    assert replicas(walk) == 0
    assert walk.changes.wrong == []
