"""The end of a run that is disturbed: nothing is tried without a pause, nothing hangs, nothing of a run that goes on is taken away."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from cutover.errors import Denied, OutsideError, Unavailable
from cutover.field_path import Operation
from cutover.ports import JOBS, MADE_LABEL, PLAN_LABEL, SNAPSHOTS, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from engine.test_rollback import DEPLOY_AND_ASK, gone_after
from support.fakes.shop import V2, plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import migrating


async def asked() -> Simulation:
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    return run


def refuse(
    run: Simulation, error: OutsideError, ref: Ref, wanted: Callable[[Operation], bool], most: int = 5_000
) -> list[Any]:
    """The server refuses each write of an object in which such an operation is; what was tried so far."""
    patch, tries = run.cluster.patch, list[Any]()

    async def refusing(at: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if at == ref and any(map(wanted, operations)):
            tries.append(operations)
            assert len(tries) < most, "it is tried again and again without a pause"
            raise error
        return await patch(at, operations, account)

    run.cluster.patch = refusing  # type: ignore[assignment]
    return tries


@pytest.mark.parametrize("error", [Denied("a webhook says no"), Unavailable("away")])
@pytest.mark.parametrize("readable", [True, False])
async def test_an_abandoned_plan_whose_finalizer_cannot_be_removed_is_retried_at_intervals(
    error: OutsideError,
    readable: bool,  # noqa: FBT001
) -> None:
    run = await asked()
    if not readable:
        body = run.cluster.objects[run.plan]
        run.cluster.objects[run.plan] = body | {"spec": body["spec"] | {"unknown": 1}}
        await run.turn()
    tries = refuse(run, error, run.plan, lambda one: one["path"] == "/metadata/finalizers", 100)
    run.request(RequestVerb.ABANDON)
    for _ in range(3):
        before = len(tries)
        after = await run.turn()
        assert run.phase is Phase.ABANDONED
        assert len(tries) - before <= 1
        assert after is not None
        assert after > timedelta()
        run.clock.pass_time(after)


def marks_off(operation: Operation) -> bool:
    return operation["op"] == "remove" and "labels" in operation["path"]


@pytest.mark.parametrize("how", ["rolled back", "abandoned"])
async def test_a_deletion_ends_where_no_answer_ever_comes_to_the_release(how: str) -> None:
    """As where the admission webhook of a target's kind is down: the server says 500 to each write of it."""
    run = await asked()
    refuse(run, Unavailable("failed calling webhook"), V2, marks_off)
    run.request(RequestVerb.ABANDON if how == "abandoned" else RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.ABANDONED or run.status.reason == "Releasing")
    await run.turn()
    run.clock.pass_time(timedelta(hours=1))  # of which half a minute counts, for nothing was tried in it
    assert run.bound
    assert timedelta(minutes=9) <= await gone_after(run) <= timedelta(minutes=11)


async def test_it_has_one_too_where_no_step_has_begun() -> None:
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    refuse(run, Unavailable("failed calling webhook"), V2, lambda _: True)
    await run.until(lambda: run.status.reason == "Claiming")
    run.clock.pass_time(timedelta(hours=1))
    assert run.bound
    assert await gone_after(run) <= timedelta(minutes=11)


async def looks_whether_all_is_as_it_left_it() -> Simulation:
    run = await asked()
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    refuse(run, Unavailable("failed calling webhook"), V2, lambda _: True)
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.status.reason == "Reclaiming" and run.bound)
    return run


async def test_a_rollback_that_gets_no_answer_can_be_abandoned() -> None:
    run = await looks_whether_all_is_as_it_left_it()
    run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is Phase.ABANDONED, turns=5)


async def test_a_rollback_that_gets_no_answer_ends_with_a_deletion() -> None:
    run = await looks_whether_all_is_as_it_left_it()
    run.clock.pass_time(timedelta(hours=1))
    assert timedelta(minutes=10) <= await gone_after(run) <= timedelta(minutes=11)


async def test_a_process_that_slept_sweeps_no_snapshot_of_a_run_that_is_rolled_back() -> None:
    """It wakes when the snapshots would have been kept long enough, and knows the plan as it was before."""
    run = await asked()
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    await run.turn()
    seen, old, sleeper = run.cluster.seen, run.cluster.objects[run.plan], run.driver
    run.clock.pass_time(timedelta(hours=23))
    run.restart()
    run.cluster.rollouts = False
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLING_BACK and run.status.reason != "Reclaiming")
    run.clock.pass_time(timedelta(hours=2))
    run.cluster.seen = lambda ref: old if ref == run.plan else seen(ref)  # type: ignore[method-assign]
    await sleeper.turn(run.plan)
    run.cluster.seen = seen  # type: ignore[method-assign]
    assert [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]
    run.cluster.rollouts = True
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


@pytest.mark.parametrize("ending", ["Abandoned", "RolledBack"])
async def test_a_job_that_changes_while_it_is_released_is_still_released(ending: str) -> None:
    """Its controller counts a pod between our look and our write."""
    run = Simulation(plan(migrating("tool:hangs")), put=shop)
    await run.until(lambda: any((body.get("status") or {}).get("active") for body in run.cluster.objects.values()))
    patch, met = run.cluster.patch, list[Ref]()

    async def meddle(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if ref.resource == JOBS and ref not in met and any(map(marks_off, operations)):
            met.append(ref)
            run.cluster.report(ref, copy.deepcopy(run.cluster.objects[ref]["status"]))
        return await patch(ref, operations, account)

    run.cluster.patch = meddle  # type: ignore[method-assign]
    if ending == "Abandoned":
        run.request(RequestVerb.ABANDON)
    else:
        run.cluster.delete(run.plan)
    await run.until(lambda: run.over)
    assert run.recorder.notices[-1].reason == ending
    assert met
    for ref in met:
        labels = run.cluster.objects[ref]["metadata"]["labels"]
        assert PLAN_LABEL not in labels
        assert (MADE_LABEL in labels) is (ending == "RolledBack"), "what still runs is nobody's"


async def test_of_a_run_that_has_ended_nothing_is_kept() -> None:
    """A process may see thousands of plans end; each had its spec, its snapshots and its status in memory."""
    run = await asked()
    cache = run.driver._caches._caches[run.plan]
    assert cache.run_cache.snapshots
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert run.plan not in run.driver._caches._caches
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLED_BACK)  # what that needs is read again
    assert run.specs() == run.specs_before()
