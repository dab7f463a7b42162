"""A plan that has ended and needs nothing costs no reading of its spec; as soon as it needs something, its spec is read."""

from __future__ import annotations

import copy
import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from cutover.engine import plan_cache, saving
from cutover.errors import Denied
from cutover.field_path import Operation
from cutover.plan.parsing import parse
from cutover.ports import PLANS, SNAPSHOTS
from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import ENDED, Phase
from engine.test_end_of_run import refuse
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation

DEPLOY = "steps:\n  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 1}}\n"
MISSING = "steps:\n  - {name: deploy, deploy: {workload: {name: elsewhere}, replicas: 1}}\n"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every spec that the engine has read so far."""
    specs = list[Any]()

    def counting(spec: Any) -> Any:
        specs.append(spec)
        return parse(spec)

    monkeypatch.setattr(plan_cache, "parse", counting)
    return specs


def write(run: Simulation, **metadata: Any) -> None:
    """Change metadata of the plan, as a user does."""
    body = copy.deepcopy(run.cluster.objects[run.plan])
    body["metadata"] |= metadata
    run.cluster.put(PLANS, body)


def removes_finalizer(operation: Operation) -> bool:
    return operation["path"] == "/metadata/finalizers" and not operation["value"]


def change(run: Simulation, **fields: Any) -> None:
    """Change the spec, as a user does."""
    body = copy.deepcopy(run.cluster.objects[run.plan])
    body["spec"] |= fields
    run.cluster.put(PLANS, body)


async def ended(how: Phase) -> Simulation:
    """A plan that has ended so, and whose last turn is over."""
    body = plan(MISSING if how is Phase.REFUSED else DEPLOY)
    run = Simulation(body, put=shop)
    if how is Phase.ROLLED_BACK:
        await run.until(lambda: run.phase is Phase.SUCCEEDED and not run.bound)
        run.request(RequestVerb.ROLLBACK)
    elif how is Phase.ABANDONED:
        run.cluster.rollouts = False
        await run.until(lambda: run.phase is Phase.RUNNING and run.status.reason == "Progressing")
        run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is how and run.over)
    await run.turn()
    return run


@pytest.mark.parametrize("how", sorted(ENDED))
@pytest.mark.parametrize("new_process", [False, True])
async def test_the_spec_of_an_ended_plan_is_not_read_again(how: Phase, new_process: bool, read: list[Any]) -> None:  # noqa: FBT001
    run = await ended(how)
    if new_process:
        run.restart()
    read.clear()
    before = run.cluster.objects[run.plan]["status"]
    for at in range(3):
        write(run, labels={"team": str(at)}, annotations={"note": str(at)})
        after = await run.turn()
        assert (after is None) == (how is not Phase.SUCCEEDED)  # its snapshots expire
    assert run.cluster.objects[run.plan]["status"] == before
    assert read == []


async def test_the_spec_of_a_plan_that_was_refused_for_it_is_not_read_again(read: list[Any]) -> None:
    body = plan(DEPLOY)
    body["spec"]["unknown"] = 1
    run = Simulation(body, put=shop)
    await run.until(lambda: run.phase is Phase.REFUSED)
    await run.turn()
    assert run.status.reason == "Invalid"
    read.clear()
    write(run, labels={"team": "a"})
    assert await run.turn() is None
    assert read == []


async def test_a_retry_reads_it(read: list[Any]) -> None:
    run = await ended(Phase.REFUSED)
    read.clear()
    run.request(RequestVerb.RETRY)
    await run.turn()
    assert run.phase is Phase.PENDING
    assert read


async def test_a_rollback_reads_it(read: list[Any]) -> None:
    run = await ended(Phase.SUCCEEDED)
    read.clear()
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLED_BACK)
    assert run.specs() == run.specs_before()
    assert read


async def test_a_request_that_comes_too_late_is_answered_and_then_it_rests(read: list[Any]) -> None:
    run = await ended(Phase.ROLLED_BACK)
    run.request(RequestVerb.PAUSE)
    await run.turn()
    (record,) = [record for record in run.status.requests if record.verb == RequestVerb.PAUSE]
    assert record.answer == Answer.REJECTED
    read.clear()
    await run.turn()
    assert read == []


async def test_a_changed_spec_begins_a_new_run_with_the_old_one_in_its_history(read: list[Any]) -> None:
    run = await ended(Phase.SUCCEEDED)
    read.clear()
    change(run, steps=[{"name": "deploy", "deploy": {"workload": {"name": "shop-v2"}, "replicas": 2}}])
    await run.until(lambda: run.phase is Phase.SUCCEEDED and run.status.run is not None and run.status.run.number == 2)
    assert [(past.number, past.phase) for past in run.status.history] == [(1, Phase.SUCCEEDED)]
    assert read


async def test_its_snapshots_expire_all_the_same(read: list[Any]) -> None:
    run = await ended(Phase.SUCCEEDED)
    assert [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]
    run.restart()
    after = await run.turn()
    assert after is not None
    assert timedelta(hours=23) < after <= timedelta(hours=24)
    run.clock.pass_time(after)
    await run.turn()
    assert [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS] == []
    read.clear()
    assert await run.turn() is None
    assert read == []


async def test_a_finalizer_that_came_back_is_removed() -> None:
    """As from a backup; a deletion would wait for it."""
    run = await ended(Phase.ROLLED_BACK)
    write(run, finalizers=["cutover.dev/rollback"])
    await run.turn()
    assert not run.bound


async def test_what_is_shown_of_it_and_not_saved_yet_is_saved() -> None:
    """What only users see is saved at intervals, so the plan may need nothing any more when it is due."""
    run = Simulation(plan(f"keepSnapshots: 0s\n{DEPLOY}"), put=shop)
    tries = refuse(run, Denied("a webhook says no"), run.plan, removes_finalizer)
    await run.until(lambda: run.phase is Phase.SUCCEEDED and bool(tries))
    assert "finalizer" not in run.status.message
    write(run, finalizers=[])
    await run.until(lambda: "finalizer" in run.status.message, turns=5)


async def test_a_new_process_that_would_save_another_status_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade of the operator that derives something else from the same run."""
    run = await ended(Phase.ROLLED_BACK)
    run.restart()
    monkeypatch.setattr(saving, "present", lambda status, _: dataclasses.replace(status, reason="Renamed"))
    await run.turn()
    assert run.status.reason == "Renamed"
