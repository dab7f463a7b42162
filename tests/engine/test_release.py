"""The release of a run that is over: whatever right is lost for it, the run ends, and says what is left."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from cutover.errors import Denied, OutsideError, Rejected, Unavailable
from cutover.field_path import Operation
from cutover.ports import APPLIED_LABEL, FENCE_LABEL, JOBS, PLAN_LABEL, PLANS, SNAPSHOTS, Ref
from cutover.status.requests import Answer, RequestVerb
from cutover.status.state import State
from cutover.status.status import ENDED, Phase
from cutover.testing import Crash
from cutover.testing.controllers import react
from engine.test_end_of_run import asked, marks_off, refuse
from steps.test_sides_without_pods import ready
from support.fakes.shop import ROUTES, V1, V2, plan, shop
from support.fakes.simulation import Simulation

TWO = """
steps:
  - {name: old, deploy: {workload: {name: shop-v1}, replicas: 4}}
"""
RELABEL = "kubectl label deployments.apps/shop-v2 -n shop cutover.dev/plan- cutover.dev/fence-"


def warnings(run: Simulation) -> list[str]:
    return [notice.message for notice in run.recorder.notices if notice.reason == "NotReleased" and notice.warning]


async def ends(run: Simulation, within: timedelta) -> None:
    """Take turns when they are due, until the run has ended and its finalizer is off."""
    begin = run.clock.now()
    for _ in range(1000):
        after = await run.turn()
        if run.phase in ENDED and not run.bound:
            break
        if not react(run.cluster):
            run.clock.pass_time(after or timedelta(seconds=1))
    assert run.phase in ENDED
    assert not run.bound
    assert run.clock.now() - begin <= within


@pytest.mark.parametrize("end", [Phase.SUCCEEDED, Phase.ROLLED_BACK])
@pytest.mark.parametrize("error", [Denied("no"), Rejected("a policy says no")])
async def test_targets_that_may_not_be_released_do_not_keep_the_run(end: Phase, error: OutsideError) -> None:
    run = await asked()
    tries = refuse(run, error, V2, marks_off)
    run.request(*((RequestVerb.APPROVE, "ok") if end is Phase.SUCCEEDED else (RequestVerb.ABORT,)))
    await ends(run, timedelta(minutes=3))
    assert run.phase is end
    assert 2 <= len(tries) <= 20
    (told,) = warnings(run)
    assert (
        f"Deployment shop-v2: {error}; a claim is void once its plan has ended; to remove its labels: {RELABEL}" in told
    )
    assert RELABEL in run.status.message
    assert (f"{APPLIED_LABEL}=" in told) is (end is Phase.SUCCEEDED)


async def test_a_right_that_comes_back_in_time_is_used() -> None:
    run = await asked()
    run.cluster.denied.add(("patch", V2))
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: "not everything could be released" in run.status.message)
    assert run.phase is Phase.RUNNING
    assert "kubectl cutover role shop-v2 -n shop | kubectl apply -f -" in run.status.message
    run.cluster.denied.clear()
    assert await run.run() is Phase.SUCCEEDED
    assert warnings(run) == []
    assert run.leftovers() == []


async def test_one_target_that_may_not_be_released_keeps_no_other() -> None:
    run = Simulation(plan(f"{TWO}  - {{name: new, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}\n"), put=shop)
    refuse(run, Denied("no"), V1, marks_off)
    await run.until(lambda: run.status.reason == "Releasing")
    await ends(run, timedelta(minutes=3))
    assert run.phase is Phase.SUCCEEDED
    assert PLAN_LABEL in run.cluster.objects[V1]["metadata"]["labels"]
    assert PLAN_LABEL not in run.cluster.objects[V2]["metadata"]["labels"]
    assert APPLIED_LABEL in run.cluster.objects[V2]["metadata"]["labels"]


async def test_snapshots_that_may_get_no_owner_do_not_keep_the_run() -> None:
    """As where the admission plugin OwnerReferencesPermissionEnforcement is on and the operator may not delete them."""
    run = await asked()
    for ref in [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]:
        run.cluster.denied.add(("patch", ref))
    run.request(RequestVerb.APPROVE, "ok")
    await ends(run, timedelta(minutes=3))
    assert run.phase is Phase.SUCCEEDED
    (told,) = warnings(run)
    assert "snapshots: " in told
    assert "they are deleted after spec.keepSnapshots, or with the plan, all the same" in told
    assert PLAN_LABEL not in run.cluster.objects[V2]["metadata"]["labels"]
    run.request(RequestVerb.ROLLBACK)
    run.cluster.denied.clear()
    await run.until(lambda: run.phase is Phase.ROLLED_BACK)


async def test_snapshots_that_may_not_be_deleted_do_not_keep_an_abandoned_plan() -> None:
    run = await asked()

    async def refused(*_: Any) -> None:
        raise Denied("no deletecollection")

    run.cluster.delete_all = refused  # type: ignore[assignment]
    run.request(RequestVerb.ABANDON)
    await ends(run, timedelta(minutes=3))
    assert run.phase is Phase.ABANDONED
    (told,) = warnings(run)
    assert "snapshots: no deletecollection; to delete them: kubectl delete controllerrevisions -n shop -l" in told


async def test_no_answer_is_waited_for_longer_and_not_for_ever() -> None:
    """The admission webhook of a target's kind is down: the server says 500 to each write of it."""
    run = await asked()
    refuse(run, Unavailable("failed calling webhook"), V2, marks_off)
    run.request(RequestVerb.APPROVE, "ok")
    await ends(run, timedelta(minutes=11))
    assert run.phase is Phase.SUCCEEDED
    (told,) = warnings(run)
    assert "failed calling webhook" in told


@pytest.mark.parametrize("error", [Denied("no"), Unavailable("failed calling webhook")])
@pytest.mark.parametrize("restarted", [True, False])
async def test_the_first_failure_after_an_interruption_does_not_decide(error: OutsideError, *, restarted: bool) -> None:
    """A claim that is left has no label that it was applied: the plan, created again, would run again."""
    run = await asked()
    tries = refuse(run, error, V2, marks_off)
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: bool(tries))
    if restarted:
        run.restart()
    run.clock.pass_time(timedelta(minutes=11))
    await run.turn()
    assert len(tries) == 2
    assert (run.phase, run.status.reason, warnings(run)) == (Phase.RUNNING, "Releasing", [])
    del run.cluster.patch  # the server accepts it again
    assert await run.run() is Phase.SUCCEEDED
    assert APPLIED_LABEL in run.cluster.objects[V2]["metadata"]["labels"]
    assert run.leftovers() == []


async def test_the_next_plan_takes_over_a_claim_that_was_left() -> None:
    run = await asked()
    refuse(run, Denied("no"), V2, marks_off)
    run.request(RequestVerb.ABORT)
    await ends(run, timedelta(minutes=3))
    other = plan("steps: [{name: deploy, deploy: {workload: {name: shop-v2}, replicas: 5}}]")
    other["metadata"] |= {"name": "next", "uid": "uid-of-the-next"}
    run.plan = run.cluster.put(PLANS, other)
    run.cluster.objects[run.plan]["status"] = {"observedGeneration": -1}
    await run.until(lambda: run.status.reason == "Progressing")
    assert run.cluster.objects[V2]["metadata"]["labels"][PLAN_LABEL] == "uid-of-the-next"


async def test_abort_and_abandon_are_answered_while_it_releases() -> None:
    run = await asked()
    refuse(run, Denied("no"), V2, marks_off)
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: "not everything could be released" in run.status.message)
    run.request(RequestVerb.ABORT)
    await run.turn()
    answers = {record.verb: record for record in run.status.requests}
    assert answers[RequestVerb.ABORT].answer is Answer.REJECTED
    assert "abandon ends it at once" in answers[RequestVerb.ABORT].message
    run.request(RequestVerb.ABANDON)
    await ends(run, timedelta(seconds=5))
    assert run.phase is Phase.SUCCEEDED
    (told,) = warnings(run)
    assert RELABEL in told


async def test_what_was_not_tried_yet_is_released_on_abandon_too() -> None:
    """The process dies between announcing the release and its first write, and the plan is abandoned before the next one starts."""
    run = await asked()
    patch = run.cluster.patch

    async def dies(at: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if at == V2 and any(map(marks_off, operations)):
            raise Crash
        return await patch(at, operations, account)

    run.cluster.patch = dies  # type: ignore[assignment]
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.crashes > 0)
    assert run.status.reason == "Releasing"
    del run.cluster.patch
    run.request(RequestVerb.ABANDON)
    await ends(run, timedelta(seconds=5))
    assert run.phase is Phase.ROLLED_BACK
    assert run.leftovers() == []
    assert warnings(run) == []


async def test_a_target_without_an_answer_keeps_no_snapshot() -> None:
    run = await asked()
    refuse(run, Unavailable("failed calling webhook"), V2, marks_off)
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.status.reason == "Releasing")
    run.request(RequestVerb.ABANDON)
    await ends(run, timedelta(seconds=5))
    assert run.phase is Phase.ROLLED_BACK
    assert [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS] == []
    (told,) = warnings(run)
    assert "failed calling webhook" in told


async def test_a_finalizer_that_may_not_be_removed_is_reported_once() -> None:
    run = await asked()
    refuse(run, Denied("no patch"), run.plan, lambda one: one["path"] == "/metadata/finalizers")
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: run.phase is Phase.SUCCEEDED)
    for _ in range(5):
        run.clock.pass_time(await run.turn() or timedelta(minutes=1))
    assert run.phase is Phase.SUCCEEDED
    (told,) = warnings(run)
    assert told == "the operator may not remove its finalizer, so a deletion of the plan waits until it may: no patch"


async def test_a_run_that_turns_out_to_be_no_success_keeps_what_its_rollback_needs() -> None:
    """The plan owns neither snapshots nor Jobs yet: a foreground deletion would take them before the rollback."""
    job = '{spec: {template: {spec: {containers: [{name: tool, image: "tool:1"}]}}}}'
    body = plan(f"""
steps:
  - {{name: schema, job: {{template: '{job}', undo: '{job}'}}}}
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}
  - {{name: ok, approve: {{message: go}}}}
""")
    run = Simulation(body, put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.APPROVE, "ok")
    patch = run.cluster.patch

    async def meddle(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if run.status.state is State.RELEASING:
            run.cluster.patch = patch  # type: ignore[method-assign]
            scaled = copy.deepcopy(run.cluster.objects[V2])
            scaled["spec"]["replicas"] = 2
            run.cluster.put(V2.resource, scaled)
        return await patch(ref, operations, account)

    run.cluster.patch = meddle  # type: ignore[method-assign]
    await run.until(lambda: run.phase is Phase.PAUSED)
    made = [body["metadata"] for ref, body in run.cluster.objects.items() if ref.resource in (SNAPSHOTS, JOBS)]
    assert len(made) == 2
    assert not any(metadata.get("ownerReferences") for metadata in made)


PAIR = f"{TWO}  - {{name: new, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}\n"


async def half_released(spec: str = PAIR, late: Ref = V2) -> Simulation:
    """The first target carries the mark of the success, and the release of another one gets no answer yet."""
    run = Simulation(plan(spec), put=shop)
    refuse(run, Unavailable("failed calling webhook"), late, marks_off)
    await run.until(lambda: APPLIED_LABEL in (run.cluster.objects[V1]["metadata"].get("labels") or {}))
    del run.cluster.patch
    return run


def scale(run: Simulation, ref: Ref, replicas: int) -> None:
    scaled = copy.deepcopy(run.cluster.objects[ref])
    scaled["spec"]["replicas"] = replicas
    run.cluster.put(ref.resource, scaled)


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("verb", [RequestVerb.ABORT, RequestVerb.RESUME])
async def test_what_is_not_released_yet_must_stand_though_another_target_is(
    verb: RequestVerb, *, restarted: bool
) -> None:
    run = await half_released()
    scale(run, V2, 2)
    if restarted:
        run.restart()
    await run.until(lambda: run.phase is not Phase.RUNNING)
    assert (run.phase, run.status.reason) == (Phase.PAUSED, "ForeignChange")
    assert "spec.replicas of Deployment shop-v2 is 2, and this plan has set 3" in run.status.message
    scale(run, V2, 3)
    run.request(verb)
    rolled_back = verb is RequestVerb.ABORT
    assert await run.run() is (Phase.ROLLED_BACK if rolled_back else Phase.SUCCEEDED)
    for ref in (V1, V2):
        assert (APPLIED_LABEL in run.cluster.objects[ref]["metadata"]["labels"]) is not rolled_back
    if rolled_back:
        assert run.specs() == run.specs_before()
    assert run.leftovers() == []


@pytest.mark.parametrize("restarted", [True, False])
async def test_what_is_released_may_be_changed_by_anybody(*, restarted: bool) -> None:
    run = await half_released()
    scale(run, V1, 9)
    if restarted:
        run.restart()
    assert await run.run() is Phase.SUCCEEDED
    assert run.cluster.objects[V1]["spec"]["replicas"] == 9


async def test_a_side_that_loses_its_pods_then_undoes_no_success() -> None:
    """Another plan may have claimed what is released already."""
    shift = "traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100]}"
    run = await half_released(f"{PAIR}  - {{name: shift, {shift}}}\n", ROUTES)
    ready(run, V2, 0)
    for _ in range(5):
        await run.turn()
        run.clock.pass_time(timedelta(seconds=3))
    assert run.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("fails", [1, 3])
async def test_a_plan_that_is_abandoned_is_released_though_that_fails_at_first(fails: int) -> None:
    """The ten minutes for its undo are over; what its release takes is not counted among them."""
    run = await asked()
    tries = list[Any]()
    patch = run.cluster.patch

    async def refusing(at: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if at == V2 and any(map(marks_off, operations)):
            tries.append(operations)
            if len(tries) <= fails:
                raise Unavailable("no answer")
        elif at == V2:
            raise Rejected("a policy says no")
        return await patch(at, operations, account)

    run.cluster.patch = refusing  # type: ignore[assignment]
    begin = run.clock.now()
    run.cluster.delete(run.plan)
    await run.until(lambda: run.plan not in run.cluster.objects)
    assert timedelta(minutes=10) <= run.clock.now() - begin <= timedelta(minutes=12)
    assert len(tries) == fails + 1
    assert not {PLAN_LABEL, FENCE_LABEL} & run.cluster.objects[V2]["metadata"]["labels"].keys()
    assert warnings(run) == []


async def test_where_its_release_gets_no_answer_either_it_ends_all_the_same() -> None:
    run = await asked()
    refuse(run, Unavailable("no answer"), V2, lambda _: True)
    begin = run.clock.now()
    run.cluster.delete(run.plan)
    await run.until(lambda: run.plan not in run.cluster.objects)
    assert run.clock.now() - begin <= timedelta(minutes=13)
    (told,) = warnings(run)
    assert "no answer" in told
