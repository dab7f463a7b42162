"""What other people and controllers do to the targets of a running plan, and what becomes of the plan."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.ports import (
    APPLIED_LABEL,
    DEPLOYMENTS,
    FENCE_LABEL,
    PLAN_LABEL,
    PLANS,
    SERVICE_ACCOUNTS,
    SNAPSHOTS,
    VIRTUAL_SERVICES,
    Ref,
    Sample,
)
from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import Phase, Status, StepState
from support.fakes.shop import NAMESPACE, ROUTES, V1, V2, plan, shop
from support.fakes.simulation import Simulation

SHIFT = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [10, 50, 100], dwell: 10m}
"""


def weights(run: Simulation) -> list[int]:
    return [entry.get("weight", 0) for entry in run.cluster.objects[ROUTES]["spec"]["http"][0]["route"]]


def set_weights(run: Simulation, old: int, new: int) -> None:
    body = copy.deepcopy(run.cluster.objects[ROUTES])
    for entry, weight in zip(body["spec"]["http"][0]["route"], (old, new), strict=True):
        entry["weight"] = weight
    body["metadata"]["managedFields"] = [
        {"manager": "cutover", "time": "2026-01-01T12:00:00Z"},
        {"manager": "argocd-controller", "time": "2026-01-01T12:00:01Z"},
    ]
    run.cluster.put(VIRTUAL_SERVICES, body)


def edit(run: Simulation, ref: Ref, change: Any) -> None:
    body = copy.deepcopy(run.cluster.objects[ref])
    change(body)
    run.cluster.put(ref.resource, body)


def unmark(body: Any) -> None:
    body["metadata"]["labels"] = {
        key: value for key, value in body["metadata"].get("labels", {}).items() if key not in (PLAN_LABEL, FENCE_LABEL)
    }


def held_for(run: Simulation, reason: str) -> bool:
    return run.phase is Phase.PAUSED and run.status.reason == reason


async def at_weight(run: Simulation, weight: int) -> None:
    await run.until(lambda: weights(run)[1] == weight and _in_effect(run.status))


def _in_effect(status: Status) -> bool:
    return status.current is not None and status.current.applied_at is not None


async def shifted(spec: str = SHIFT, weight: int = 50) -> Simulation:
    run = Simulation(plan(spec), put=shop)
    await at_weight(run, weight)
    return run


# --- weights ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lowered", [0, 10, 37])
async def test_a_weight_lowered_by_hand_pauses_and_is_not_fought(lowered: int) -> None:
    run = await shifted()
    set_weights(run, 100 - lowered, lowered)
    await run.turn()
    assert held_for(run, "LoweredByHand")
    assert (
        f"another writer has lowered shop-v2 to weight {lowered} in VirtualService shop, where this plan has 50"
        in run.status.message
    )
    for _ in range(3):
        await run.turn()
    assert weights(run) == [100 - lowered, lowered]
    run.request(RequestVerb.RESUME)
    await at_weight(run, 50)
    assert run.phase is Phase.RUNNING
    assert await run.run() is Phase.SUCCEEDED


async def test_a_weight_raised_by_hand_is_put_back_at_once() -> None:
    run = await shifted()
    set_weights(run, 20, 80)
    await run.turn()
    assert weights(run) == [50, 50]
    assert run.phase is Phase.RUNNING


async def test_weights_that_no_longer_add_up_are_put_right() -> None:
    run = await shifted()
    set_weights(run, 90, 50)
    run.cluster.strict = False
    await run.turn()
    assert weights(run) == [50, 50]


async def test_a_writer_that_raises_again_and_again_pauses_the_plan_and_is_named() -> None:
    run = await shifted()
    for _ in range(5):
        set_weights(run, 20, 80)
        await run.turn()
        assert weights(run) == [50, 50]
    set_weights(run, 20, 80)
    await run.turn()
    assert held_for(run, "ForeignWriter")
    assert (
        "field manager argocd-controller has changed the weights of VirtualService shop more than 5 times"
        in run.status.message
    )


async def test_weights_are_kept_while_a_user_pauses_the_plan() -> None:
    run = await shifted()
    run.request(RequestVerb.PAUSE)
    await run.turn()
    set_weights(run, 20, 80)
    await run.turn()
    assert weights(run) == [50, 50]
    assert held_for(run, "PausedByPerson")
    set_weights(run, 70, 30)
    await run.turn()
    assert held_for(run, "LoweredByHand")


async def test_a_guard_that_fails_while_paused_rolls_the_traffic_back() -> None:
    guard = 'guards: [{name: budget, interval: 5s, prometheus: {query: burn}, pass: {max: "0.5"}}]\n'
    run = await shifted(guard + SHIFT)
    run.request(RequestVerb.PAUSE)
    await run.turn()
    run.metrics.answer = lambda _: Sample(0.9)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "GuardFailed"


async def test_under_pause_on_failure_a_paused_plan_stays_paused_no_matter_what_its_guards_say() -> None:
    guard = 'onFailure: Pause\nguards: [{name: budget, interval: 5s, prometheus: {query: burn}, pass: {max: "0.5"}}]\n'
    run = await shifted(guard + SHIFT)
    run.metrics.answer = lambda _: Sample(0.9)
    await run.until(lambda: held_for(run, "GuardFailed"))
    assert weights(run) == [50, 50]
    run.metrics.answer = lambda _: Sample(0.1)
    run.request(RequestVerb.RESUME)
    assert await run.run() is Phase.SUCCEEDED


# --- claims -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [V2, ROUTES])
async def test_labels_that_were_taken_off_are_set_again(ref: Ref) -> None:
    run = await shifted()
    edit(run, ref, unmark)
    await run.turn()
    assert PLAN_LABEL in run.cluster.objects[ref]["metadata"]["labels"]
    assert run.phase is Phase.RUNNING
    assert await run.run() is Phase.SUCCEEDED


async def test_an_object_overwritten_with_other_values_pauses_the_plan() -> None:
    run = await shifted()

    def rewrite(body: Any) -> None:
        unmark(body)
        body["spec"]["replicas"] = 9

    edit(run, V2, rewrite)
    await run.turn()
    assert held_for(run, "ClaimLost")
    assert "spec.replicas of Deployment shop-v2 is 9" in run.status.message
    edit(run, V2, lambda body: body["spec"].update(replicas=3))
    run.request(RequestVerb.RESUME)
    assert await run.run() is Phase.SUCCEEDED


async def test_a_fence_of_another_writer_pauses_the_plan_and_an_abort_gets_through() -> None:
    run = await shifted()
    for ref in (V2, ROUTES):
        edit(run, ref, lambda body: body["metadata"]["labels"].update({FENCE_LABEL: "1000000000"}))
    written = len(run.cluster.writes)
    await run.turn()
    assert held_for(run, "ClaimLost")
    assert "the label cutover.dev/fence of VirtualService shop is 1000000000" in run.status.message
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.reason == "ClaimLost"
    assert len(run.cluster.writes) - written < 10
    for ref in (V2, ROUTES):
        edit(run, ref, lambda body: body["metadata"]["labels"].update({FENCE_LABEL: "1"}))
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


async def test_while_rolling_back_a_lost_claim_is_stuck_until_it_is_fixed() -> None:
    run = await shifted()

    def rewrite(body: Any) -> None:
        unmark(body)
        body["spec"]["replicas"] = 9

    run.request(RequestVerb.ABORT)
    edit(run, V2, rewrite)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.reason == "ClaimLost"
    assert weights(run) == [100, 0], "the traffic was taken back before"
    edit(run, V2, lambda body: body["spec"].update(replicas=3))
    assert await run.run() is Phase.ROLLED_BACK


async def test_stuck_says_the_present_problem() -> None:
    run = await shifted()
    edit(run, V2, lambda body: body["spec"].update(replicas=9))
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.reason == "ForeignChange"
    assert "9" in run.status.message
    edit(run, V2, lambda body: body["spec"].update(replicas=8))
    await run.turn()
    assert "8" in run.status.message


async def test_a_target_that_is_deleted_rolls_the_plan_back_and_its_undo_is_skipped() -> None:
    run = await shifted()
    run.cluster.delete(V2)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "TargetGone"
    assert "skipped" in run.status.steps[0].message
    assert weights(run) == [100, 0]


async def test_a_recreated_target_is_not_touched_by_the_undo() -> None:
    run = await shifted()
    body = copy.deepcopy(run.cluster.objects[V2])
    run.cluster.delete(V2)
    body["metadata"] = {"name": V2.name, "namespace": V2.namespace, "uid": "another"}
    body["spec"]["replicas"] = 4
    run.cluster.put(DEPLOYMENTS, body)
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.cluster.objects[V2]["spec"]["replicas"] == 4


# --- what is lost -------------------------------------------------------------------------------------------------------


async def test_an_undo_without_its_snapshot_does_not_pretend() -> None:
    run = await shifted()
    for ref in [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]:
        run.cluster.delete(ref)
    run.restart()
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.reason == "SnapshotLost"
    run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is Phase.ABANDONED)
    assert run.status.message == "abandoned on request; not undone: deploy, shift"


async def test_a_save_that_fails_leaves_no_snapshot() -> None:
    """A snapshot taken for a step that never began would be restored over what somebody set afterwards."""
    run = Simulation(plan(SHIFT), put=shop)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "deploy")
    seen: list[Any] = []
    run.cluster.told = lambda verb, _, content: seen.append((verb, content))
    await at_weight(run, 10)
    saves = [
        at for at, (verb, content) in enumerate(seen) if verb == "status" and content["current"]["step"] == "shift"
    ]
    created = [at for at, (verb, content) in enumerate(seen) if verb == "create" and content["data"]["step"] == "shift"]
    assert saves[0] < created[0]


async def test_an_account_that_goes_away_is_stuck_and_heals() -> None:
    run = await shifted()
    account = Ref(SERVICE_ACCOUNTS, NAMESPACE, "migrator")
    kept = run.cluster.objects[account]
    run.cluster.delete(account)
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.reason == "AccountUnusable"
    run.cluster.put(SERVICE_ACCOUNTS, copy.deepcopy(kept))
    assert await run.run() is Phase.ROLLED_BACK


# --- deletion -----------------------------------------------------------------------------------------------------------


async def test_deleted_with_orphan_everything_stays_and_nothing_of_ours_is_left() -> None:
    run = await shifted("deletionPolicy: Orphan\n" + SHIFT)
    run.cluster.delete(run.plan)
    await run.until(lambda: run.plan not in run.cluster.objects)
    assert weights(run) == [50, 50]
    assert run.leftovers() == []
    assert any("not undone: deploy, shift" in notice.message for notice in run.recorder.notices)


@pytest.mark.parametrize("trouble", ["stuck", "terminating", "slow"])
async def test_a_deletion_never_hangs(trouble: str) -> None:
    run = await shifted()
    if trouble == "stuck":
        edit(run, V2, lambda body: body["spec"].update(replicas=9))
    elif trouble == "terminating":
        run.cluster.terminate(NAMESPACE)
    else:
        run.cluster.rollouts = False
    run.cluster.delete(run.plan)
    await run.until(lambda: run.plan not in run.cluster.objects)
    notice = run.recorder.notices[-1]
    assert notice.reason == "Abandoned"
    assert notice.warning
    assert "not undone: deploy" in notice.message
    assert notice.on_namespace is (trouble == "terminating")


# --- the order of undos -------------------------------------------------------------------------------------------------

DRAIN_ANOTHER = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}
  - {name: after, deploy: {workload: {name: WORKLOAD}, replicas: 2}}
  - {name: soak, check: {for: 10m}, gates: [{name: errors, interval: 5s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""


async def undo_order(workload: str) -> list[str]:
    def put(cluster: Any) -> None:
        shop(cluster)
        other = copy.deepcopy(cluster.objects[V1])
        other["metadata"] = {"name": "other", "namespace": NAMESPACE}
        other["spec"]["selector"] = {"matchLabels": {"app": "other"}}
        other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
        cluster.put(DEPLOYMENTS, other)

    run = Simulation(plan(DRAIN_ANOTHER.replace("WORKLOAD", workload)), put=put)
    run.metrics.answer = lambda _: Sample(0.9)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()
    return [notice.message.split()[-1] for notice in run.recorder.notices if notice.reason == "StepUndone"]


async def test_traffic_goes_back_ahead_of_what_it_does_not_rest_on() -> None:
    assert await undo_order("other") == ["shift", "after", "deploy"]


async def test_traffic_waits_for_the_workload_it_rests_on() -> None:
    assert await undo_order("shop-v1") == ["after", "shift", "deploy"]


WALL = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}, irreversible: true}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 5s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""


async def test_a_rollback_stops_after_an_irreversible_step() -> None:
    run = Simulation(plan(WALL), put=shop)
    run.metrics.answer = lambda _: Sample(0.9)
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "PastPointOfNoReturn"
    assert run.status.point_of_no_return == "deploy"
    assert [step.state for step in run.status.steps] == [StepState.DONE, StepState.UNDONE, StepState.UNDONE]
    assert weights(run) == [100, 0]
    run.request(RequestVerb.ABORT)
    await run.turn()
    assert run.phase is Phase.PAUSED
    run.metrics.answer = lambda _: Sample(0.1)
    run.request(RequestVerb.RETRY)
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert weights(run) == [50, 50]


# --- after the end ------------------------------------------------------------------------------------------------------

QUICK = SHIFT.replace("dwell: 10m", "dwell: 1s")


async def succeeded() -> Simulation:
    run = Simulation(plan(QUICK), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    return run


async def test_a_success_can_be_rolled_back_on_request() -> None:
    run = await succeeded()
    assert run.cluster.objects[V2]["metadata"]["labels"][APPLIED_LABEL]
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLED_BACK and not run.bound)
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_a_rollback_is_rejected_when_something_was_changed_since() -> None:
    run = await succeeded()
    edit(run, V2, lambda body: body["spec"].update(replicas=9))
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.SUCCEEDED and bool(run.status.requests) and not run.bound)
    record = run.status.requests[-1]
    assert record.answer is Answer.REJECTED
    assert record.message == "spec.replicas of Deployment shop-v2 is no longer what this run left"
    assert run.cluster.objects[V2]["spec"]["replicas"] == 9
    assert PLAN_LABEL not in run.cluster.objects[V2]["metadata"]["labels"]
    assert run.leftovers() == []


async def test_a_rollback_is_rejected_when_a_snapshot_is_gone() -> None:
    """Also by the process that took it: what it remembers would be lost with it in the middle of the rollback."""
    run = await succeeded()
    changed = run.specs()
    for ref in [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]:
        run.cluster.delete(ref)
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: bool(run.status.requests) and run.over)
    assert run.phase is Phase.SUCCEEDED
    assert run.status.requests[-1].message.startswith("the snapshot of step ")
    assert run.specs() == changed


async def test_snapshots_get_old() -> None:
    run = await succeeded()
    after = await run.turn()
    assert after is not None
    assert after.total_seconds() == pytest.approx(24 * 3600, abs=60)
    run.clock.pass_time(after)
    await run.turn()
    assert [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS] == []
    run.request(RequestVerb.ROLLBACK)
    await run.turn()
    assert run.status.requests[-1].answer is Answer.REJECTED
    assert run.phase is Phase.SUCCEEDED


async def test_a_recreated_plan_is_not_run_again() -> None:
    run = await succeeded()
    writes = len(run.cluster.effects)
    del run.cluster.objects[run.plan]
    await run.turn()
    run.cluster.put(PLANS, plan(QUICK))
    run.cluster.objects[run.plan]["status"] = {"observedGeneration": -1}
    assert await run.run() is Phase.SUCCEEDED
    assert run.status.reason == "AlreadyApplied"
    assert len(run.cluster.effects) == writes


async def test_a_new_spec_is_a_new_run_and_the_old_one_is_remembered() -> None:
    run = await succeeded()
    run.cluster.put(PLANS, plan(QUICK.replace("replicas: 3", "replicas: 4")))
    await run.until(lambda: run.status.run is not None and run.status.run.number == 2 and run.phase is Phase.SUCCEEDED)
    past = run.status.history[0]
    assert (past.number, past.phase, past.reason) == (1, Phase.SUCCEEDED, "Completed")
    runs = {
        body["metadata"]["labels"]["cutover.dev/run"]
        for ref, body in run.cluster.objects.items()
        if ref.resource == SNAPSHOTS
    }
    assert runs == {"2"}


# --- wishes and failures ------------------------------------------------------------------------------------------------

FAILING = """
onFailure: Pause
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]}
    gates: [{name: errors, interval: 5s, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""


def fill_in(run: Simulation) -> None:
    """As a CRD does that has got a default: what is read has changed, and the generation has not."""
    body = run.cluster.objects[run.plan]
    run.cluster.objects[run.plan] = body | {"spec": body["spec"] | {"timeout": "1h"}}


async def test_a_field_that_the_crd_fills_in_begins_no_new_run() -> None:
    run = await succeeded()
    fill_in(run)
    run.restart()
    await run.turn()
    assert (run.phase, run.status.history) == (Phase.SUCCEEDED, ())
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: bool(run.status.requests) and run.over)
    assert run.phase is Phase.SUCCEEDED
    assert run.status.requests[-1].message.startswith("after an upgrade of the CRD the spec is no longer ")


async def test_what_was_refused_is_examined_again_as_it_is_read_now() -> None:
    run = Simulation(plan(f"startDeadline: 0s\n{QUICK}"), put=shop)
    missing = run.cluster.objects.pop(V2)
    assert await run.run() is Phase.REFUSED
    fill_in(run)
    run.cluster.put(DEPLOYMENTS, missing)
    run.request(RequestVerb.RETRY)
    await run.until(lambda: run.phase is Phase.SUCCEEDED and run.over)
    assert run.status.run is not None
    assert run.status.run.number == 1


async def test_what_could_not_be_read_can_be_tried_again_once_it_can() -> None:
    """The plan stays as it is: the operator was older than its CRD, and was upgraded."""
    run = Simulation(plan(QUICK), put=shop)
    good = run.cluster.objects[run.plan]
    run.cluster.objects[run.plan] = good | {"spec": good["spec"] | {"pace": "gentle"}}
    assert await run.run() is Phase.REFUSED
    now = run.cluster.objects[run.plan]
    run.cluster.objects[run.plan] = now | {"spec": good["spec"]}
    run.restart()
    run.request(RequestVerb.RETRY)
    await run.until(lambda: run.phase is Phase.SUCCEEDED and run.over)
    assert run.specs() != run.specs_before()


async def held_by_a_gate() -> Simulation:
    run = Simulation(plan(FAILING), put=shop)
    run.metrics.answer = lambda _: Sample(0.9)
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "GateFailed"
    assert weights(run) == [50, 50]
    return run


async def test_a_paused_failure_can_be_retried() -> None:
    run = await held_by_a_gate()
    run.request(RequestVerb.RESUME)
    await run.turn()
    assert run.status.requests[-1].answer is Answer.REJECTED
    run.metrics.answer = lambda _: Sample(0.1)
    run.request(RequestVerb.RETRY)
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert run.status.steps[1].attempt == 2
    assert weights(run) == [0, 100]


async def test_the_gates_of_a_step_can_be_skipped() -> None:
    run = await held_by_a_gate()
    run.request(RequestVerb.SKIP, "shift")
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert run.status.steps[1].attempt == 1


async def test_a_paused_failure_can_be_rolled_back() -> None:
    run = await held_by_a_gate()
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


async def test_an_empty_request_is_not_a_request() -> None:
    run = await shifted()
    edit(
        run,
        run.plan,
        lambda body: body["metadata"].setdefault("annotations", {}).update({"request.cutover.dev/pause": ""}),
    )
    await run.turn()
    assert run.phase is Phase.RUNNING
    assert run.status.requests == ()


async def test_a_pause_while_the_targets_are_claimed_pauses() -> None:
    run = Simulation(plan(SHIFT), put=shop)

    def told(_: str, ref: Ref, __: Any) -> None:
        if ref == V2 and not run.asked:  # the first claim is being written
            run.request(RequestVerb.PAUSE)

    run.cluster.told = told
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.current is None
    run.request(RequestVerb.RESUME)
    await at_weight(run, 10)
