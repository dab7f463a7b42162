"""What is done stays true, or the plan says so: fields of done steps that other writers change, and targets that are recreated."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from cutover.ports import (
    APPLIED_LABEL,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    FENCE_LABEL,
    JOBS,
    PLAN_LABEL,
    PLANS,
    Ref,
)
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from engine.test_other_writers import edit, held_for, weights
from support.fakes.shop import FLAGS, FRONT, ROUTES, V1, V2, plan, shop
from support.fakes.simulation import Simulation

RELEASE = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
  - {name: ok, approve: {message: go}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100], dwell: 1m}
"""
FLAGGED = """
steps:
  - {name: dual, flags: {configMap: flags, set: {DUAL_WRITE: "true"}, reload: [{name: shop-v1}, {name: shop-v2}]}}
  - {name: ok, approve: {message: go}}
  - name: contract
    irreversible: true
    job: {template: '{spec: {template: {spec: {containers: [{name: tool, image: "tool:1"}]}}}}'}
"""
SWITCHED = """
steps:
  - {name: green, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - {name: turn, switch: {service: front, selector: {app: shop-v2}}}
  - {name: ok, approve: {message: go}}
  - {name: retire, deploy: {workload: {name: shop-v1}, replicas: 0}}
"""
SHIFTED = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100], drain: 0s}
  - {name: ok, approve: {message: go}}
  - {name: retire, deploy: {workload: {name: shop-v1}, replicas: 0}}
"""
MANAGED = [
    {"manager": "cutover", "operation": "Update", "time": "2026-01-01T12:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    {
        "manager": "argocd-controller",
        "operation": "Update",
        "time": "2026-01-01T12:00:01Z",
        "fieldsV1": {
            "f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"app"}': {".": {}, "f:image": {}}}}}}
        },
    },
    {"manager": "kubelet", "operation": "Update", "time": "2026-01-01T12:00:09Z", "fieldsV1": {"f:metadata": {}}},
]  # fmt: skip


def image(run: Simulation) -> str:
    return str(run.cluster.objects[V2]["spec"]["template"]["spec"]["containers"][1]["image"])


def set_image(run: Simulation, image: str) -> None:
    def change(body: Any) -> None:
        body["spec"]["template"]["spec"]["containers"][1]["image"] = image
        body["metadata"]["managedFields"] = MANAGED

    edit(run, V2, change)


async def asked(spec: str = RELEASE) -> Simulation:
    """The first steps are done, and a person is asked."""
    run = Simulation(plan(spec), put=shop if spec is not SWITCHED else shop_without_routes)
    await run.until(lambda: run.phase is Phase.WAITING)
    return run


def shop_without_routes(cluster: MemoryCluster) -> None:
    shop(cluster)
    cluster.delete(ROUTES)


async def test_an_image_that_is_set_back_after_its_step_pauses_and_gets_no_traffic() -> None:
    run = await asked()
    set_image(run, "shop-v2:1")
    run.request(RequestVerb.APPROVE, "ok")
    await run.turn()
    assert held_for(run, "ForeignChange")
    assert run.status.message == (
        "spec.template.spec.containers[name=app].image of Deployment shop-v2 is shop-v2:1, and this plan has set shop:2; "
        "field manager argocd-controller has changed it; resume sets it again, abort rolls everything back"
    )
    assert weights(run) == [100, 0]
    assert image(run) == "shop-v2:1", "it is not fought"


async def test_a_resume_sets_it_again_and_waits_for_its_rollout() -> None:
    run = await asked()
    set_image(run, "shop-v2:1")
    await run.turn()
    assert held_for(run, "ForeignChange")
    run.cluster.rollouts = False
    run.request(RequestVerb.RESUME)
    await run.turn()
    assert image(run) == "shop:2"
    run.request(RequestVerb.APPROVE, "ok")
    for _ in range(3):
        await run.turn()
    assert run.status.current is not None
    assert run.status.current.step == "ok", "nothing builds on a rollout that is not complete"
    run.cluster.rollouts = True
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert (image(run), weights(run)) == ("shop:2", [0, 100])
    assert not any(step.reapply for step in run.status.steps)


async def test_a_resume_allows_it_once_also_for_a_process_that_dies() -> None:
    run = await asked()
    set_image(run, "shop-v2:1")
    await run.turn()
    run.request(RequestVerb.RESUME)
    run.switch.at, run.switch.after = run.switch.calls + 1, True  # the status that says so is saved, then it dies
    await run.turn()
    assert run.crashes == 1
    await run.until(lambda: run.phase is Phase.WAITING and not any(step.reapply for step in run.status.steps))
    assert image(run) == "shop:2"
    set_image(run, "shop-v2:1")
    await run.turn()
    assert held_for(run, "ForeignChange"), "it was allowed once"


async def test_a_value_that_nobody_knows_is_named_with_the_command_that_settles_it() -> None:
    run = await asked()
    set_image(run, "hotfix:9")
    await run.turn()
    assert held_for(run, "ForeignChange")
    assert "is hotfix:9, and this plan has set shop:2" in run.status.message
    assert "to set it back: kubectl patch deployment shop-v2 -n shop --type=json" in run.status.message
    run.request(RequestVerb.RESUME)
    for _ in range(3):
        await run.turn()
    assert held_for(run, "ForeignChange")
    assert image(run) == "hotfix:9"
    set_image(run, "shop:2")
    run.request(RequestVerb.RESUME)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED


async def test_who_sets_it_back_while_a_person_has_paused_the_plan_is_named_at_once() -> None:
    run = await asked()
    run.request(RequestVerb.PAUSE)
    await run.turn()
    set_image(run, "shop-v2:1")
    await run.turn()
    assert held_for(run, "ForeignChange")


async def test_no_irreversible_job_runs_once_its_flags_were_taken_away() -> None:
    run = await asked(FLAGGED)
    edit(run, FLAGS, lambda body: body["data"].update(DUAL_WRITE="false"))
    run.request(RequestVerb.APPROVE, "ok")
    await run.turn()
    assert held_for(run, "ForeignChange")
    assert "data.DUAL_WRITE of ConfigMap flags is false, and this plan has set true" in run.status.message
    run.request(RequestVerb.RESUME)
    await run.turn()
    assert held_for(run, "ForeignChange"), (
        "pods that started in between may have read it: that is for a person to settle"
    )
    assert run.jobs() == {}


async def test_nothing_is_retired_once_its_service_was_switched_back() -> None:
    run = await asked(SWITCHED)
    edit(run, FRONT, lambda body: body["spec"].update(selector={"app": "shop-v1"}))
    run.request(RequestVerb.APPROVE, "ok")
    await run.turn()
    assert held_for(run, "ForeignChange")
    assert run.cluster.objects[V1]["spec"]["replicas"] == 3
    run.request(RequestVerb.RESUME)
    assert await run.run() is Phase.SUCCEEDED
    assert run.cluster.objects[FRONT]["spec"]["selector"] == {"app": "shop-v2"}
    assert run.cluster.objects[V1]["spec"]["replicas"] == 0


@pytest.mark.parametrize("moment", ["while the end is saved", "while the release is refused"])
async def test_what_is_set_back_at_the_last_moment_stops_the_end(moment: str) -> None:
    run = await asked()
    run.request(RequestVerb.APPROVE, "ok")
    refused = {("patch", V2), ("patch", ROUTES)}

    def told(verb: str, _: Any, content: Any) -> None:
        if verb != "status" or content.get("reason") != "Releasing":
            return
        run.cluster.told = lambda *_: None
        if moment == "while the end is saved":
            set_image(run, "shop-v2:1")
        else:
            run.cluster.denied |= refused

    run.cluster.told = told
    await run.until(lambda: run.phase is Phase.PAUSED or "not everything could be released" in run.status.message)
    if moment == "while the release is refused":
        run.cluster.denied -= refused
        set_image(run, "shop-v2:1")
        await run.until(lambda: run.phase is Phase.PAUSED or run.over)
    assert held_for(run, "ForeignChange")
    assert APPLIED_LABEL not in run.cluster.objects[V2]["metadata"]["labels"]
    run.request(RequestVerb.RESUME)
    assert await run.run() is Phase.SUCCEEDED
    assert image(run) == "shop:2"
    assert run.leftovers() == []


async def stopped_at_its_end() -> Simulation:
    """An image is set back in the moment in which the release is announced."""
    run = await asked()
    run.request(RequestVerb.APPROVE, "ok")

    def told(verb: str, _: Any, content: Any) -> None:
        if verb == "status" and content.get("reason") == "Releasing" and image(run) == "shop:2":
            set_image(run, "shop-v2:1")

    run.cluster.told = told
    await run.until(lambda: run.phase is Phase.PAUSED)
    return run


@pytest.mark.parametrize("seen", ["while it is paused", "by the undo"])
async def test_a_mark_that_a_suspended_process_has_left_too_late_goes_with_the_rollback(seen: str) -> None:
    """It was about to release the targets, and did so after another process had stopped the run."""
    run = await stopped_at_its_end()
    assert run.status.run is not None
    mark = run.status.run.spec_hash[:32]

    def release(body: Any) -> None:
        labels = body["metadata"]["labels"]
        del labels[PLAN_LABEL], labels[FENCE_LABEL]
        labels[APPLIED_LABEL] = mark

    edit(run, ROUTES, release)
    if seen == "while it is paused":
        await run.turn()
        assert PLAN_LABEL in run.cluster.objects[ROUTES]["metadata"]["labels"]
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert not [
        ref for ref, body in run.cluster.objects.items() if APPLIED_LABEL in (body["metadata"].get("labels") or {})
    ]


async def test_the_mark_of_an_earlier_run_stays_where_a_claim_is_set_again() -> None:
    run = await asked()

    def lose(body: Any) -> None:
        labels = body["metadata"]["labels"]
        del labels[PLAN_LABEL]
        labels[APPLIED_LABEL] = "0" * 32

    edit(run, ROUTES, lose)
    await run.turn()
    labels = run.cluster.objects[ROUTES]["metadata"]["labels"]
    assert PLAN_LABEL in labels
    assert labels[APPLIED_LABEL] == "0" * 32


async def test_a_run_stopped_at_its_very_end_can_still_be_rolled_back() -> None:
    run = await stopped_at_its_end()
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_a_field_that_a_later_step_has_taken_over_is_its_own_and_the_others_are_not() -> None:
    run = Simulation(
        plan("""
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
  - {name: more, deploy: {workload: {name: shop-v2}, replicas: 5}}
  - {name: ok, approve: {message: go}}
"""),
        put=shop,
    )
    await run.until(lambda: run.phase is Phase.WAITING)
    set_image(run, "shop-v2:1")
    await run.turn()
    assert held_for(run, "ForeignChange")
    assert "to set it back: kubectl patch" in run.status.message, "the step as a whole would set 3 replicas again"
    set_image(run, "shop:2")
    run.request(RequestVerb.RESUME)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert run.cluster.objects[V2]["spec"]["replicas"] == 5


async def test_a_plan_that_nobody_disturbs_asks_nothing() -> None:
    run = await asked()
    await run.turn()
    before = run.switch.calls
    await run.turn()
    assert run.switch.calls == before


@pytest.mark.parametrize("claimed", [True, False])
async def test_a_target_that_was_recreated_is_gone(*, claimed: bool) -> None:
    run = await asked()
    body = copy.deepcopy(run.cluster.objects[V2])
    run.cluster.delete(V2)
    labels = body["metadata"]["labels"] if claimed else {"team": "shop"}
    body["metadata"] = {"name": V2.name, "namespace": V2.namespace, "uid": "another", "labels": labels}
    run.cluster.put(DEPLOYMENTS, body)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "TargetGone"
    assert "another object was created under its name" in run.status.failure.message
    assert weights(run) == [100, 0]


# --- a plan that is recreated ----------------------------------------------------------------------------------------


async def recreated(run: Simulation, spec: str) -> None:
    """Its targets stay; the plan is deleted, with what it owns, and created again."""
    del run.cluster.objects[run.plan]
    for ref in [ref for ref, body in run.cluster.objects.items() if body["metadata"].get("ownerReferences")]:
        run.cluster.delete(ref)
    await run.turn()
    run.cluster.put(PLANS, plan(spec))
    run.cluster.objects[run.plan]["status"] = {"observedGeneration": -1}
    run.restart()


EVERYTHING = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
  - {name: more, deploy: {workload: {name: shop-v2}, replicas: 5}}
  - {name: closed, flags: {configMap: flags, set: {CLOSED: "true", DUAL_WRITE: "true"}, leave: [{name: shop-v1}, {name: shop-v2}]}}
  - {name: turn, switch: {service: front, selector: {app: shop-v2}}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]}
  - {name: open, flags: {configMap: flags, set: {CLOSED: "false"}, leave: [{name: shop-v1}, {name: shop-v2}]}}
"""


async def applied() -> Simulation:
    run = Simulation(plan(EVERYTHING), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    return run


async def test_a_recreated_plan_whose_values_stand_does_nothing_also_without_its_account() -> None:
    run = await applied()
    writes = len(run.cluster.effects)
    run.cluster.denied |= {("patch", V2)}
    await recreated(run, EVERYTHING)
    assert await run.run() is Phase.SUCCEEDED
    assert run.status.reason == "AlreadyApplied"
    assert len(run.cluster.effects) == writes


def to_v1(body: Any) -> None:
    for entry, weight in zip(body["spec"]["http"][0]["route"], (100, 0), strict=True):
        entry["weight"] = weight


@pytest.mark.parametrize(
    ("ref", "change", "said"),
    [
        (V2, lambda body: body["spec"].update(replicas=4), "spec.replicas of Deployment shop-v2 is 4, where this spec sets 5"),
        (V2, lambda body: body["spec"]["template"]["spec"]["containers"][1].update(image="shop-v2:1"), "is shop-v2:1, where this spec sets shop:2"),
        (FLAGS, lambda body: body["data"].pop("DUAL_WRITE"), "data.DUAL_WRITE of ConfigMap flags is absent, where this spec sets true"),
        (FLAGS, lambda body: body["data"].update(CLOSED="true"), "data.CLOSED of ConfigMap flags is true, where this spec sets false"),
        (FRONT, lambda body: body["spec"].update(selector={"app": "shop-v1"}), 'spec.selector of Service front is {"app": "shop-v1"}'),
        (ROUTES, to_v1, "weight of VirtualService shop is 100, where this spec sets 0; 1 more fields differ"),
    ],
)  # fmt: skip
async def test_a_recreated_plan_takes_nothing_back_that_was_decided_since(ref: Ref, change: Any, said: str) -> None:
    run = await applied()
    edit(run, ref, change)
    writes = len(run.cluster.effects)
    await recreated(run, EVERYTHING)
    assert await run.run() is Phase.REFUSED
    assert run.status.reason == "AppliedThenChanged"
    assert said in run.status.message
    assert "request retry" in run.status.message
    assert len(run.cluster.effects) == writes
    assert run.leftovers() == []


async def test_only_a_retry_runs_it_over_what_was_changed_since() -> None:
    run = await applied()
    set_image(run, "shop-v2:1")
    edit(run, ROUTES, to_v1)  # its first step lowers replicas, which waits while they carry traffic
    await recreated(run, EVERYTHING)
    assert await run.run() is Phase.REFUSED
    run.restart()
    await run.turn()
    assert run.phase is Phase.REFUSED
    run.request(RequestVerb.RETRY)
    await run.turn()
    assert await run.run() is Phase.SUCCEEDED
    assert run.status.reason == "Completed"
    assert image(run) == "shop:2"


async def test_before_an_irreversible_step_a_stream_that_is_behind_is_not_believed() -> None:
    run = await asked(FLAGGED)
    old = run.cluster.objects[FLAGS]

    def take_away(body: Any) -> None:
        del body["data"]["DUAL_WRITE"]

    edit(run, FLAGS, take_away)
    streamed, read = run.cluster.seen, run.cluster.get
    behind = {FLAGS}

    async def get(ref: Ref) -> Any:
        behind.discard(ref)  # what was read is known from then on
        return await read(ref)

    run.cluster.seen = lambda ref: old if ref in behind else streamed(ref)  # type: ignore[method-assign]
    run.cluster.get = get  # type: ignore[method-assign]
    run.request(RequestVerb.APPROVE, "ok")
    for _ in range(3):
        await run.turn()
    assert held_for(run, "ForeignChange")
    assert not [ref for ref in run.cluster.objects if ref.resource == JOBS]


async def test_what_the_operator_may_not_read_has_not_failed_and_nothing_builds_on_it() -> None:
    """A right that is lost for a while, as in an upgrade of the chart, must not roll back every plan that has moved traffic."""
    run = await asked(SHIFTED)
    run.cluster.denied.add(("list", Ref(ENDPOINT_SLICES, "shop", "")))
    for _ in range(5):
        await run.turn()
        run.clock.pass_time(timedelta(seconds=10))
    assert run.phase is Phase.WAITING
    run.request(RequestVerb.APPROVE, "ok")
    for _ in range(5):
        await run.turn()
        run.clock.pass_time(timedelta(seconds=10))
    assert run.status.reason == "Progressing", run.status
    assert run.cluster.objects[V1]["spec"]["replicas"] == 3
    run.cluster.denied.clear()
    assert await run.run() is Phase.SUCCEEDED
    assert run.cluster.objects[V1]["spec"]["replicas"] == 0
