"""`deploy` beside what else is there: traffic, autoscalers, pauses, what the server refuses beforehand, other steps."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.errors import Denied, Rejected
from cutover.objects.workloads import TEMPLATE_HASH
from cutover.ports import (
    AUTOSCALERS,
    DAEMON_SETS,
    DEPLOYMENTS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    VIRTUAL_SERVICES,
    Ref,
)
from cutover.saga.turn import Again, Done, Pause, Wait
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from cutover.testing.controllers import react, roll_out
from support.fakes import flags_step
from support.fakes.deploy_step import SCALE, STORE_2, V2_2, claimed, do, pod, step, undo, work
from support.fakes.shop import ROUTES, STORE, V1, V2, plan, service, shop
from support.fakes.simulation import Simulation


@pytest.fixture
def cluster() -> MemoryCluster:
    return claimed()


# --- replicas under traffic -------------------------------------------------------------------------------------------


def weigh(cluster: MemoryCluster, old: int, new: int) -> None:
    for entry, weight in zip(cluster.objects[ROUTES]["spec"]["http"][0]["route"], (old, new), strict=True):
        entry["weight"] = weight


async def test_replicas_stay_while_there_is_weight_that_was_not(cluster: MemoryCluster) -> None:
    await do(cluster, SCALE)
    roll_out(cluster)
    weigh(cluster, 75, 25)
    outcome = await undo(cluster, SCALE)
    assert isinstance(outcome, Wait)
    assert outcome.reason == "StillCarriesTraffic"
    assert (
        "from 3 to 0 replicas while it has weight 25 from VirtualService shop (0 before this step)" in outcome.message
    )
    assert cluster.objects[V2]["spec"]["replicas"] == 3
    weigh(cluster, 100, 0)
    await undo(cluster, SCALE)
    assert cluster.objects[V2]["spec"]["replicas"] == 0


async def test_weight_that_was_there_before_is_not_a_reason(cluster: MemoryCluster) -> None:
    weigh(cluster, 75, 25)
    await do(cluster, SCALE)
    weigh(cluster, 80, 20)
    await undo(cluster, SCALE)
    assert cluster.objects[V2]["spec"]["replicas"] == 0


async def test_replicas_that_go_up_ask_nobody(cluster: MemoryCluster) -> None:
    text = "{workload: {name: shop-v2}, replicas: 0}"
    cluster.objects[V2]["spec"]["replicas"] = 2
    await do(cluster, text)
    weigh(cluster, 0, 100)
    await undo(cluster, text)
    assert cluster.objects[V2]["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("routes", "carried"),
    [
        ({"tcp": [{"route": [{"destination": {"host": "shop-v2"}}]}]}, 100),
        ({"tls": [{"route": [{"destination": {"host": "shop-v2.shop.svc.cluster.local"}, "weight": 7}, {"destination": {"host": "x"}, "weight": 93}]}]}, 7),
        ({"http": [{"redirect": {"uri": "/"}}]}, 0),
        ({"http": [{"route": [{"destination": {"host": "shop-v2.other.svc.cluster.local"}}]}]}, 0),
        ({"http": [{"route": [{"destination": {"host": "shop-v2", "subset": "none"}}]}]}, 0),
        ({"http": [{"route": [{"destination": {"host": "all"}, "weight": 0}, {"destination": {"host": "shop-v1"}, "weight": 100}]}]}, 0),
        ({"http": [{"route": [{"destination": {"host": "all"}}]}, {"route": [{"destination": {"host": "all"}}]}]}, 200),
    ],
)  # fmt: skip
async def test_what_counts_as_weight(cluster: MemoryCluster, routes: dict[str, Any], carried: int) -> None:
    await do(cluster, SCALE)
    cluster.put(SERVICES, service("all", {"app": "shop-v2"}))
    cluster.put(VIRTUAL_SERVICES, {"metadata": {"name": "more"}, "spec": routes})
    outcome = await undo(cluster, SCALE)
    if carried:
        assert isinstance(outcome, Wait)
        assert f"weight {carried} from VirtualService more" in outcome.message
    else:
        assert not isinstance(outcome, Wait)


# --- beforehand -------------------------------------------------------------------------------------------------------


async def examine(cluster: MemoryCluster, text: str) -> list[str]:
    return [str(problem) for problem in await step(text).examine(work(cluster))]


async def test_a_container_that_is_not_there(cluster: MemoryCluster) -> None:
    assert await examine(cluster, "{workload: {name: shop-v2}, images: [{container: web, image: x}]}") == [
        "steps[roll].deploy.images[web]: Deployment shop-v2 has no container web; it has app, sidecar"
    ]


async def test_what_the_server_refuses(cluster: MemoryCluster) -> None:
    def refuse(ref: Ref, _: Any) -> None:
        if ref == STORE:
            raise Rejected(
                '"" is invalid: patch: Invalid value: "map[]": strict decoding error: unknown field "spec.x"'
            )
        raise Denied("exceeded quota: compute")

    cluster.refuse = refuse
    writes = list(cluster.effects)
    assert await examine(cluster, STORE_2) == ['steps[roll].deploy: the server refuses it: unknown field "spec.x"']
    assert await examine(cluster, "{workload: {kind: DaemonSet, name: agent}, patch: '{minReadySeconds: 1}'}") == [
        "steps[roll].deploy.patch: the server refuses it: exceeded quota: compute"
    ]
    assert cluster.effects == writes


async def test_a_change_too_large_to_be_kept(cluster: MemoryCluster) -> None:
    pod(cluster, V2)["containers"][0]["args"] = ["<" * 250_000]
    text = "{workload: {name: shop-v2}, patch: '{template: {spec: {containers: [{name: CONTAINER, args: [x]}]}}}'}"
    name = pod(cluster, V2)["containers"][0]["name"]
    (sentence,) = await examine(cluster, text.replace("CONTAINER", name))
    assert sentence.startswith("steps[roll].deploy.patch: the old and new values of Deployment shop-v2 take 1500")
    assert sentence.endswith("stores at most 1500000; change fewer fields in one step")


async def test_a_missing_permission_is_reported_by_preflight(cluster: MemoryCluster) -> None:
    cluster.denied = {("patch", STORE)}
    assert await examine(cluster, STORE_2) == []


async def test_a_missing_workload_is_reported_by_preflight(cluster: MemoryCluster) -> None:
    assert await examine(cluster, "{workload: {kind: StatefulSet, name: gone}, replicas: 1}") == []


async def test_a_paused_deployment_unless_the_step_ends_the_pause(cluster: MemoryCluster) -> None:
    cluster.objects[V2]["spec"]["paused"] = True
    (sentence,) = await examine(cluster, SCALE)
    assert "Deployment shop-v2 is paused (spec.paused: true), so nothing would roll out" in sentence
    assert await examine(cluster, "{workload: {name: shop-v2}, patch: '{paused: null}'}") == []
    cluster.objects[V2]["spec"]["paused"] = False
    assert await examine(cluster, "{workload: {name: shop-v2}, patch: '{paused: true}'}") != []


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "shop-v2"), ("StatefulSet", "store")])
async def test_an_autoscaler_keeps_its_replicas(cluster: MemoryCluster, kind: str, name: str) -> None:
    aim = {"kind": kind, "name": name}
    cluster.put(AUTOSCALERS, {"metadata": {"name": "scaler"}, "spec": {"scaleTargetRef": aim}})
    cluster.put(AUTOSCALERS, {"metadata": {"name": "other"}, "spec": {"scaleTargetRef": aim | {"name": "else"}}})
    (sentence,) = await examine(cluster, f"{{workload: {{kind: {kind}, name: {name}}}, replicas: 2}}")
    assert sentence == (
        f"steps[roll].deploy.replicas: HorizontalPodAutoscaler scaler manages the replicas of {kind} {name}; "
        "leave replicas out, or delete the autoscaler first"
    )


# --- whole plans ------------------------------------------------------------------------------------------------------


async def test_the_second_step_needs_what_the_first_adds() -> None:
    run = Simulation(
        plan("""
steps:
  - {name: add, deploy: {workload: {name: shop-v2}, replicas: 1, patch: '{template: {spec: {containers: [{name: web, image: "web:1"}]}}}'}}
  - {name: set, deploy: {workload: {name: shop-v2}, images: [{container: web, image: "web:2"}]}}
  - {name: soak, check: {}, gates: [{name: g, prometheus: {query: x}, pass: {min: "5"}}]}
"""),
        put=shop,
    )
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


async def test_a_success_whose_fields_lie_in_each_other_can_be_taken_back() -> None:
    """The first step wrote all of a list, the second a part of it: what the first left is not there any more."""
    run = Simulation(
        plan("""
steps:
  - {name: add, deploy: {workload: {name: shop-v2}, patch: '{template: {spec: {containers: [{name: web, image: "web:1"}]}}}'}}
  - {name: set, deploy: {workload: {name: shop-v2}, images: [{container: web, image: "web:2"}]}}
"""),
        put=shop,
    )
    assert await run.run() is Phase.SUCCEEDED
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is not Phase.SUCCEEDED)
    assert await run.run() is Phase.ROLLED_BACK, run.status
    assert run.specs() == run.specs_before()


@pytest.mark.parametrize(
    ("kind", "name"), [("StatefulSet", "store"), ("DaemonSet", "agent"), ("Deployment", "shop-v1")]
)
async def test_a_readiness_gate_of_each_kind(kind: str, name: str) -> None:
    gate = f"{{name: pods, readiness: {{for: 5s, workload: {{kind: {kind}, name: {name}}}}}}}"
    run = Simulation(plan(f"steps: [{{name: pods, check: {{}}, gates: [{gate}]}}]"), put=shop)
    assert await run.run() is Phase.SUCCEEDED, run.status


async def test_a_workload_that_a_gate_names_must_be_there() -> None:
    run = Simulation(
        plan("""
startDeadline: 1s
steps: [{name: a, check: {}, gates: [{name: g, readiness: {workload: {kind: DaemonSet, name: store}}}]}]
"""),
        put=shop,
    )
    assert await run.run() is Phase.REFUSED
    assert "there is no DaemonSet store in namespace shop" in run.status.message


def test_the_resources_are_distinguished() -> None:
    kinds = {kind: step(f"{{workload: {{kind: {kind}, name: x}}, patch: '{{a: 1}}'}}").rolls_out().resource for kind in ("Deployment", "StatefulSet", "DaemonSet")}  # fmt: skip
    assert kinds == {"Deployment": DEPLOYMENTS, "StatefulSet": STATEFUL_SETS, "DaemonSet": DAEMON_SETS}


# --- paused in the middle ---------------------------------------------------------------------------------------------

_RESUME = "is paused (spec.paused: true), so {so}; run kubectl rollout resume deployment/shop-v2 -n shop"


async def test_a_deployment_paused_in_the_middle_pauses_the_plan_and_names_who_ends_it(cluster: MemoryCluster) -> None:
    """Who pauses the rollout wishes to stop, so nothing is undone; complete all the same, it is done."""
    await do(cluster, SCALE)
    cluster.objects[V2]["spec"]["paused"] = True
    outcome = await do(cluster, SCALE)
    assert isinstance(outcome, Pause)
    assert outcome.reason == "DeploymentPaused"
    assert _RESUME.format(so="its rollout does not progress") in outcome.message
    roll_out(cluster)
    assert isinstance(await do(cluster, SCALE), Done)


async def test_a_deployment_paused_during_the_rollback_waits_and_names_who_ends_it(cluster: MemoryCluster) -> None:
    cluster.objects[V2]["spec"]["replicas"] = 2
    await do(cluster, V2_2)
    cluster.objects[V2]["spec"]["paused"] = True
    outcome = await undo(cluster, V2_2)
    assert outcome == Wait(
        "DeploymentPaused", f"Deployment shop-v2 {_RESUME.format(so='its old pods do not come back')}"
    )
    del cluster.objects[V2]["spec"]["paused"]
    roll_out(cluster)
    assert isinstance(await undo(cluster, V2_2), Done)


async def test_a_pause_in_the_middle_of_a_restart_is_named_both_ways() -> None:
    flagged = flags_step.claimed()
    await flags_step.do(flagged)
    flagged.objects[V1]["spec"]["paused"] = True
    for outcome, kind in ((await flags_step.do(flagged), Pause), (await flags_step.undo(flagged), Wait)):
        assert isinstance(outcome, kind)
        assert outcome.reason == "DeploymentPaused"
        assert "run kubectl rollout resume deployment/shop-v1 -n shop" in outcome.message


async def test_the_end_of_a_pause_is_taken_back_last(cluster: MemoryCluster) -> None:
    """A paused Deployment rolls nothing out, its old template neither."""
    cluster.objects[V2]["spec"] |= {"paused": True, "replicas": 2}
    react(cluster)
    before, pods = copy.deepcopy(cluster.objects[V2]["spec"]), _templates(cluster)
    text = "{workload: {name: shop-v2}, images: [{container: app, image: 'shop:2'}], patch: '{paused: null}'}"
    await do(cluster, text)
    react(cluster)
    assert isinstance(await do(cluster, text), Done)
    assert _templates(cluster).isdisjoint(pods)
    assert isinstance(await undo(cluster, text), Again)
    assert "paused" not in cluster.objects[V2]["spec"]
    react(cluster)
    assert isinstance(await undo(cluster, text), Done)
    assert (cluster.objects[V2]["spec"], _templates(cluster)) == (before, pods)
    assert isinstance(await undo(cluster, text), Again), (
        "the controller has not seen the pause yet, which hinders nothing"
    )
    react(cluster)
    assert isinstance(await undo(cluster, text), Done)


async def test_what_waited_for_the_end_of_a_pause_is_reported(cluster: MemoryCluster) -> None:
    cluster.objects[V2]["spec"] |= {"paused": True, "replicas": 2}
    text = "{workload: {name: shop-v2}, patch: '{paused: null}'}"
    react(cluster)
    assert await examine(cluster, text) == []
    body = copy.deepcopy(cluster.objects[V2])
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "waits:1"
    cluster.put(DEPLOYMENTS, body)
    react(cluster)
    (problem,) = await step(text).examine(work(cluster))
    assert problem.warning
    assert str(problem).startswith(
        "steps[roll].deploy.patch.paused: Deployment shop-v2 is paused, and 2 of its pods do not"
    )


def _templates(cluster: MemoryCluster) -> set[str]:
    return {
        body["metadata"]["labels"][TEMPLATE_HASH]
        for ref, body in cluster.objects.items()
        if ref.resource == PODS and ref.name.startswith("d-shop-v2-")
    }
