"""Snapshots go when nobody can need them any more, whatever became of the plan."""

from __future__ import annotations

import pytest

from cutover.adapters.kubernetes import as_go_writes
from cutover.ports import PLANS, SNAPSHOTS, Ref
from cutover.requests import RequestVerb
from cutover.status import Phase
from cutover.sweep import sweep
from support.shop import V2, plan, shop
from support.simulation import Simulation

DEPLOY = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
"""


def snapshots(run: Simulation) -> list[str]:
    return [ref.name for ref in run.cluster.objects if ref.resource == SNAPSHOTS]


async def test_a_plan_that_may_not_let_go_of_its_targets_keeps_no_snapshot() -> None:
    run = Simulation(plan(f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    assert snapshots(run)
    run.cluster.denied.add(("patch", V2))
    run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is Phase.ABANDONED and not run.bound)
    assert snapshots(run) == []


async def test_snapshots_that_were_orphaned_go_with_their_plan() -> None:
    """Deleted with orphan propagation, a success leaves them without an owner; the one made anew keeps its own."""
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    (old,) = snapshots(run)
    uid = run.cluster.objects[run.plan]["metadata"]["uid"]
    run.cluster.delete(run.plan)
    again = plan(DEPLOY.replace("replicas: 3", "replicas: 4"))
    again["metadata"]["uid"] = "another"
    run.cluster.put(PLANS, again)
    run.cluster.objects[run.plan]["status"] = {"observedGeneration": -1}
    assert await run.run() is Phase.SUCCEEDED
    assert old in snapshots(run), "nothing has said so far that the first plan is gone"
    run.driver.deleted(run.plan, uid)
    await run.turn()
    (left,) = snapshots(run)
    assert left != old


def test_documents_are_written_as_go_writes_them() -> None:
    """Bytes as `json.Marshal` gives them; the data of a ControllerRevision may not change by a byte."""
    body = {"b": [1, None, True], "a": '<a & b> "é" \u2028\u2029\n'}
    assert as_go_writes(body) == r'{"a":"\u003ca \u0026 b\u003e \"é\" \u2028\u2029\n","b":[1,null,true]}'


@pytest.mark.parametrize("verb", [RequestVerb.ABORT, RequestVerb.APPROVE])
async def test_a_new_process_takes_away_what_came_after_the_end(verb: RequestVerb) -> None:
    """Of a run that has ended and keeps nothing: a process that died with a snapshot under way."""
    run = Simulation(plan(f"keepSnapshots: 0s\n{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    (name,) = snapshots(run)
    late = run.cluster.objects[Ref(SNAPSHOTS, run.plan.namespace, name)]
    run.request(verb, "ok" if verb is RequestVerb.APPROVE else "")
    assert await run.run() in (Phase.ROLLED_BACK, Phase.SUCCEEDED)
    assert snapshots(run) == []
    run.cluster.put(SNAPSHOTS, late)
    assert await sweep(run.cluster, ()) == 1
    assert snapshots(run) == []


async def test_a_new_process_leaves_what_is_needed() -> None:
    run = Simulation(plan(f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    assert await sweep(run.cluster, ()) == 0
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert await sweep(run.cluster, ()) == 0
    assert len(snapshots(run)) == 1


SHIFT = f"{DEPLOY}  - {{name: shift, traffic: {{virtualService: {{name: shop}}, from: {{host: shop-v1}}, to: {{host: shop-v2}}, weights: [50], dwell: 10m}}}}\n"


@pytest.mark.parametrize("step", ["deploy", "shift"])
async def test_one_that_is_lost_in_mid_step_is_not_taken_anew(step: str) -> None:
    """It would be of what the step has made, and the rollback would pretend. Put back, the plan goes on."""
    run = Simulation(plan(SHIFT), put=shop)
    run.cluster.rollouts = step != "deploy"
    at = ("deploy", "shift").index(step)
    await run.until(lambda: len(run.status.steps) > at and run.status.steps[at].written)
    (lost,) = [ref for ref, body in run.cluster.objects.items() if body.get("data", {}).get("step") == step]
    kept = run.cluster.objects[lost]
    changed = run.specs()
    run.cluster.delete(lost)
    run.restart()
    await run.until(lambda: run.phase is Phase.HELD)
    assert run.status.reason == "SnapshotLost"
    assert f"ControllerRevision {lost.name}, the snapshot of " in run.status.message
    assert run.specs() == changed
    assert lost not in run.cluster.objects
    run.cluster.rollouts = True
    run.request(RequestVerb.RESUME)
    await run.until(lambda: run.phase is Phase.HELD)
    run.cluster.put(SNAPSHOTS, kept)
    run.request(RequestVerb.RESUME)
    await run.until(lambda: run.status.current is not None and run.status.current.weight == 50)
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []
