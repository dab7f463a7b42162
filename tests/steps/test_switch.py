"""`switch` in memory: when the selector moves, what it waits for, what it leaves to people, the rollback."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from cutover.errors import Rejected
from cutover.field_path import Json
from cutover.ports import DEPLOYMENTS, ENDPOINT_SLICES, FENCE_LABEL, PLAN_LABEL, PLANS, PODS, SERVICES, Ref, Sample
from cutover.saga.turn import Again, Done, Outcome, Pause, Wait
from cutover.status.status import Phase
from cutover.steps.kind import StepContext
from cutover.steps.switch import Switch
from cutover.targets.claims import Owner
from cutover.targets.fields import Foreign
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Targets
from cutover.testing import MemoryClock, MemoryCluster, MemoryMessenger
from cutover.testing.controllers import name_endpoints, pod, react
from support.fakes.shop import FRONT, PLAN, V1, V2, plan, shop
from support.fakes.simulation import Simulation

TURN = Switch(service="front", selector={"app": "shop-v2"})
SPEC = """
steps:
  - {name: green, deploy: {workload: {name: shop-v2}, replicas: GREEN}}
  - {name: turn, switch: {service: front, selector: {app: shop-v2}MORE}}
"""


def spec(green: int = 3, more: str = "") -> dict[str, Any]:
    return plan(SPEC.replace("GREEN", str(green)).replace("MORE", f", {more}" if more else ""))


def scale(cluster: MemoryCluster, ref: Ref, replicas: int) -> None:
    body = copy.deepcopy(cluster.objects[ref])
    body["spec"]["replicas"] = replicas
    cluster.put(DEPLOYMENTS, body)
    react(cluster)


@pytest.fixture
def cluster() -> MemoryCluster:
    """The Service is claimed, and three pods are on either side."""
    made = MemoryCluster()
    shop(made)
    scale(made, V2, 3)
    made.objects[FRONT]["metadata"]["labels"] = {PLAN_LABEL: "uid-a", FENCE_LABEL: "1"}
    return made


def work(cluster: MemoryCluster, elapsed: float = 0.0, *, fence: int = 1, applied: bool = False) -> StepContext:
    """As a process that has just begun: it remembers nothing."""
    body = {"metadata": {"name": PLAN.name, "uid": "uid-a"}, "spec": {}}
    cluster.put(PLANS, body | {"status": {"phase": "Running", "run": {"number": 1, "fence": fence}}})
    targets = Targets(cluster, Owner(PLAN, "uid-a", 1, fence, "migrator"), "turn")
    return StepContext(
        cluster,
        targets,
        "shop",
        "steps[turn]",
        MemoryClock().now(),
        elapsed,
        applied=applied,
        messenger=MemoryMessenger(),
    )


def selector(cluster: MemoryCluster) -> Json:
    return cluster.objects[FRONT]["spec"]["selector"]


def change(cluster: MemoryCluster, **fields: Any) -> None:
    """What somebody else does to the Service."""
    body = copy.deepcopy(cluster.objects[FRONT])
    body["spec"] |= fields
    cluster.put(SERVICES, body)


async def do(cluster: MemoryCluster, step: Switch = TURN, **how: Any) -> Outcome:
    return await step.do(work(cluster, **how), 0)


async def undo(cluster: MemoryCluster, elapsed: float = 0.0, step: Switch = TURN) -> Outcome:
    return await step.undo(work(cluster, elapsed, fence=2))


# --- forward ----------------------------------------------------------------------------------------------------------


async def test_done_when_the_endpoints_have_followed(cluster: MemoryCluster) -> None:
    outcome = await do(cluster)
    assert selector(cluster) == {"app": "shop-v2"}
    assert isinstance(outcome, Again)
    assert outcome.message == "3 of 3 endpoints of Service front are still pods without app=shop-v2"
    cluster.objects[Ref(ENDPOINT_SLICES, "shop", "front")]["endpoints"] = []  # the old are gone, the new not yet there
    outcome = await do(cluster)
    assert isinstance(outcome, Again)
    assert outcome.message == "Service front has no ready endpoints yet"
    name_endpoints(cluster)
    assert await do(cluster) == Done(ready="3")


async def test_a_second_do_and_a_second_undo_write_nothing(cluster: MemoryCluster) -> None:
    await do(cluster)
    name_endpoints(cluster)
    before = list(cluster.writes)
    assert await do(cluster) == Done(ready="3")
    assert cluster.writes == before
    await undo(cluster)
    name_endpoints(cluster)
    before = list(cluster.writes)
    assert await undo(cluster) == Done(ready="3")
    assert cluster.writes == before
    assert selector(cluster) == {"app": "shop-v1"}


async def test_labels_that_are_not_named_stay(cluster: MemoryCluster) -> None:
    change(cluster, selector={"app": "shop-v1", "tier": "web"})
    for ref in [ref for ref in cluster.objects if ref.resource == PODS]:
        cluster.objects[ref]["metadata"]["labels"]["tier"] = "web"
    await do(cluster)
    assert selector(cluster) == {"app": "shop-v2", "tier": "web"}
    await undo(cluster)
    assert selector(cluster) == {"app": "shop-v1", "tier": "web"}


@pytest.mark.parametrize(("green", "least", "moves"), [(2, None, False), (3, None, True), (2, 2, True), (3, 4, False)])
async def test_as_many_as_the_old_side_or_as_the_plan_says(
    cluster: MemoryCluster,
    green: int,
    least: int | None,
    moves: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    scale(cluster, V2, green)
    outcome = await do(cluster, Switch(service="front", selector={"app": "shop-v2"}, min_ready=least))
    assert (selector(cluster) == {"app": "shop-v2"}) is moves
    if not moves:
        assert isinstance(outcome, Again)
        says = f"the switch waits: {green} pods with app=shop-v2 are ready, and {least or 3} are needed"
        assert outcome.message == says + ("" if least else "; minReady would ask for fewer")


async def test_what_counts_is_what_the_old_side_had_at_the_start_of_the_run(cluster: MemoryCluster) -> None:
    here = work(cluster)
    assert await TURN.examine(here) == []
    scale(cluster, V1, 1)
    scale(cluster, V2, 2)
    outcome = await TURN.do(here, 0)
    assert isinstance(outcome, Again)
    assert "2 pods with app=shop-v2 are ready, and 3 are needed" in outcome.message


async def test_never_to_a_side_without_pods_even_from_one_without(cluster: MemoryCluster) -> None:
    scale(cluster, V1, 0)
    scale(cluster, V2, 0)
    outcome = await do(cluster)
    assert isinstance(outcome, Again)
    assert "0 pods with app=shop-v2 are ready, and 1 are needed" in outcome.message
    assert selector(cluster) == {"app": "shop-v1"}


_WITH_THE_PORT = {"ports": [{"name": "http", "containerPort": 8080}]}


@pytest.mark.parametrize(
    ("pod_spec", "moves"),
    [
        ({"containers": [_WITH_THE_PORT]}, True),
        ({"initContainers": [{**_WITH_THE_PORT, "restartPolicy": "Always"}], "containers": [{}]}, True),
        ({"initContainers": [_WITH_THE_PORT], "containers": [{}]}, False),
    ],
    ids=["container", "sidecar", "init container"],
)
async def test_pods_without_the_port_that_the_service_names_do_not_count(
    cluster: MemoryCluster,
    pod_spec: Json,
    moves: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    change(cluster, ports=[{"port": 80, "targetPort": "http"}])
    outcome = await do(cluster, Switch(service="front", selector={"app": "shop-v2"}, min_ready=1))
    assert isinstance(outcome, Again)
    assert "0 pods with app=shop-v2 and a port http are ready" in outcome.message
    for ref in [ref for ref in cluster.objects if ref.resource == PODS]:
        cluster.objects[ref]["spec"] = pod_spec
    await do(cluster)
    assert selector(cluster) == {"app": "shop-v2" if moves else "shop-v1"}


async def test_what_is_there_already_is_passed_over(cluster: MemoryCluster) -> None:
    change(cluster, selector={"app": "shop-v2"})
    assert await do(cluster) == Done(skip=True)
    assert await undo(cluster) == Done()
    assert selector(cluster) == {"app": "shop-v2"}


async def test_set_back_by_hand_is_a_request_to_stop(cluster: MemoryCluster) -> None:
    await do(cluster)
    change(cluster, selector={"app": "shop-v1"})
    outcome = await do(cluster, applied=True)
    assert isinstance(outcome, Pause)
    assert outcome.reason == "SwitchedBack"
    assert "another writer has set the selector of Service front back to app=shop-v1" in outcome.message
    assert selector(cluster) == {"app": "shop-v1"}
    assert await TURN.do(replace(work(cluster, applied=True), reapply=True), 0) == Done()
    assert selector(cluster) == {"app": "shop-v2"}, "a person has resumed it"


async def test_a_stream_that_is_behind_is_not_a_request_to_stop(cluster: MemoryCluster) -> None:
    old, seen = copy.deepcopy(cluster.objects[FRONT]), cluster.seen
    await do(cluster)
    cluster.seen = lambda ref: old if ref == FRONT else seen(ref)  # type: ignore[method-assign]
    assert await do(cluster, applied=True) == Done()
    assert selector(cluster) == {"app": "shop-v2"}


async def test_another_selector_of_another_writer_is_left(cluster: MemoryCluster) -> None:
    await do(cluster)
    change(cluster, selector={"app": "shop-v3"})
    for act in (do, undo):
        with pytest.raises(Foreign, match=r"another writer changed it.*kubectl patch service front") as foreign:
            await act(cluster)
        assert foreign.value.reason == "ForeignChange"
    assert selector(cluster) == {"app": "shop-v3"}


# --- back -------------------------------------------------------------------------------------------------------------


async def test_not_back_to_a_side_that_is_not_ready(cluster: MemoryCluster) -> None:
    await do(cluster)
    name_endpoints(cluster)
    for ref in [ref for ref in cluster.objects if ref.resource == PODS and "shop-v1" in ref.name][:2]:
        del cluster.objects[ref]
    outcome = await undo(cluster)
    assert isinstance(outcome, Again)
    assert (
        "Service front cannot be switched back yet: 1 pods with app=shop-v1 are ready, and 2 are needed"
        in outcome.message
    )
    late = await undo(cluster, elapsed=61.0)
    assert isinstance(late, Wait)
    assert late.reason == "OldSideNotReady"
    assert selector(cluster) == {"app": "shop-v2"}
    react(cluster)
    assert isinstance(await undo(cluster), Again)
    assert selector(cluster) == {"app": "shop-v1"}


async def test_an_undo_reads_back(cluster: MemoryCluster) -> None:
    """Something puts our selector back at once: to wait for endpoints that never follow would tell nobody why."""
    await do(cluster)
    real = cluster.patch

    async def patch(ref: Ref, operations: Any, account: str = "") -> Any:
        body = await real(ref, operations, account)
        change(cluster, selector={"app": "shop-v2"})
        return body

    cluster.patch = patch  # type: ignore[method-assign]
    with pytest.raises(Rejected, match="Service front does not keep what was written to it"):
        await undo(cluster)


async def test_where_it_never_moved_the_old_side_is_not_asked_for_more(cluster: MemoryCluster) -> None:
    scale(cluster, V2, 2)
    await do(cluster)
    lose_pods(cluster, "shop-v1", 1)
    name_endpoints(cluster)
    assert await undo(cluster) == Done(ready="1")


@pytest.mark.parametrize(
    ("had", "left", "fields", "back"),
    [
        (20, 19, {}, True),
        (20, 10, {}, True),
        (20, 9, {}, False),
        (3, 2, {}, True),
        (3, 1, {}, False),
        (20, 19, {"backward": {"share": 100}}, False),
        (20, 1, {"backward": {"share": 1}}, True),
        (20, 5, {"min_ready": 10}, True),
        (20, 4, {"min_ready": 10}, False),
    ],
)
async def test_back_to_half_of_what_it_asks_for(
    cluster: MemoryCluster,
    had: int,
    left: int,
    fields: dict[str, Any],
    back: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    """Half of the old pods are better than a new version that fails, and its workload wanting no more is not enough."""
    step = Switch.model_validate({"service": "front", "selector": {"app": "shop-v2"}, **fields})
    scale(cluster, V1, had)
    scale(cluster, V2, had)
    await do(cluster, step)
    scale(cluster, V1, left)
    await undo(cluster, step=step)
    assert selector(cluster) == {"app": "shop-v1" if back else "shop-v2"}


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("ports", [[], [{"port": 80, "targetPort": "http"}]], ids=["no pods", "no port"])
async def test_back_to_any_pod_where_the_new_ones_answer_nothing(cluster: MemoryCluster, left: int, ports: Any) -> None:
    await do(cluster)
    scale(cluster, V1, left)
    for ref in [ref for ref in cluster.objects if ref.resource == PODS and "shop-v1" in ref.name]:
        cluster.objects[ref]["spec"] = {"containers": [_WITH_THE_PORT]}
    if ports:
        change(cluster, ports=ports)
    else:
        scale(cluster, V2, 0)
    await undo(cluster)
    assert selector(cluster) == {"app": "shop-v1" if left else "shop-v2"}


async def test_pods_that_have_traffic_before_the_switch_are_reported(cluster: MemoryCluster) -> None:
    """The old pods and the new ones share a label, and the Service asks for no other."""
    widened = Switch(service="front", selector={"app": "shop-v1", "side": "green"})
    body = copy.deepcopy(cluster.objects[V2])
    body["spec"]["template"]["metadata"]["labels"] = {"app": "shop-v1", "side": "green"}
    cluster.put(DEPLOYMENTS, body)
    (problem,) = await widened.examine(work(cluster))
    assert problem.warning
    assert str(problem) == (
        "steps[turn].switch.selector: Service front selects pods with app=shop-v1, side=green already, by app=shop-v1 alone, so they get "
        "traffic as soon as they are ready, and count as ready on the old side too; first add a label to its selector that only the old pods have"
    )
    later = replace(work(cluster), earlier=frozenset(widened.touches()))
    assert await widened.examine(later) == [], "an earlier step leaves another selector"
    cluster.objects[FRONT]["spec"]["selector"] = {"app": "shop-v1", "side": "blue"}
    assert await widened.examine(work(cluster)) == []
    cluster.objects[FRONT]["spec"]["selector"] = {"app": "shop-v1", "side": "green"}
    assert await widened.examine(work(cluster)) == []


async def test_its_undo_is_ahead_when_the_old_side_is_ready(cluster: MemoryCluster) -> None:
    await do(cluster)
    assert await TURN.early_undo(work(cluster)) == frozenset({V1, V2})
    scale(cluster, V1, 0)
    for ref in [ref for ref in cluster.objects if ref.resource == PODS and "shop-v1" in ref.name]:
        del cluster.objects[ref]
    assert await TURN.early_undo(work(cluster)) is None


def test_the_undo_is_the_snapshot() -> None:
    snapshot = Snapshot("uid", ((("spec", "selector"), {"app": "a"}),), {}, ({"app": "b"},))
    (mark,) = TURN.restores(snapshot)
    assert (mark.to, mark.expects) == ({"app": "a"}, ({"app": "a"}, {"app": "b"}))


# --- whole plans ------------------------------------------------------------------------------------------------------


async def test_it_waits_for_the_new_side_and_times_out(cluster: MemoryCluster) -> None:
    del cluster
    body = spec(2)
    body["spec"]["steps"][1]["timeout"] = "10s"
    run = Simulation(body, put=shop)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert "the switch waits: 2 pods with app=shop-v2 are ready, and 3 are needed" in run.status.failure.message
    assert run.specs() == run.specs_before()


@pytest.mark.parametrize(
    ("service", "labels", "says"),
    [
        ({"selector": None}, "{app: shop-v2}", "Service front has no selector, so its endpoints are set by hand"),
        ({"type": "ExternalName"}, "{app: shop-v2}", "Service front is of type ExternalName, so it has no pods"),
        ({}, "{colour: green}", "no workload in namespace shop creates pods with app=shop-v1, colour=green; create it"),
    ],
)
async def test_what_is_in_the_way_is_reported_before_the_first_step(service: Json, labels: str, says: str) -> None:
    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        change(cluster, **service)

    run = Simulation(plan(f"steps: [{{name: turn, switch: {{service: front, selector: {labels}}}}}]"), put=put)
    assert await run.run() is Phase.REFUSED
    assert says in run.status.message
    assert run.specs() == run.specs_before()


AFTER = """
  - {name: after, deploy: {workload: {kind: KIND, name: NAME}, patch: '{minReadySeconds: 1}'}}
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 5s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""


@pytest.mark.parametrize(
    ("kind", "name", "order"),
    [("DaemonSet", "agent", ["turn", "after", "green"]), ("Deployment", "shop-v1", ["after", "turn", "green"])],
)
async def test_its_undo_comes_first_where_it_does_not_rest_on_the_others(
    kind: str, name: str, order: list[str]
) -> None:
    text = (SPEC + AFTER).replace("GREEN", "3").replace("MORE", "").replace("KIND", kind).replace("NAME", name)
    run = Simulation(plan(text.replace("\n\n", "\n")), put=shop)
    run.metrics.answer = lambda _: Sample(0.9)
    assert await run.run() is Phase.ROLLED_BACK
    assert [notice.message.split()[-1] for notice in run.recorder.notices if notice.reason == "StepUndone"] == order
    assert run.specs() == run.specs_before()


def test_a_pod_is_made_of_its_template() -> None:
    made = pod("p", {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "app"}]}}, "mark")
    assert made["metadata"]["labels"] == {"a": "b", "pod-template-hash": "mark"}


# --- no more than stood there before ----------------------------------------------------------------------------------


def give_ports(cluster: MemoryCluster, **ports: list[str]) -> None:
    """The pods of a side, by the last part of its name, get these ports."""
    for ref in [ref for ref in cluster.objects if ref.resource == PODS and ref.name[7:9] in ports]:
        named = [{"name": name, "containerPort": 1} for name in ports[ref.name[7:9]]]
        cluster.objects[ref]["spec"] = {"containers": [{"ports": named}]}


def lose_pods(cluster: MemoryCluster, app: str, left: int) -> None:
    for ref in sorted(ref for ref in cluster.objects if ref.resource == PODS and app in ref.name)[left:]:
        del cluster.objects[ref]


@pytest.mark.parametrize(
    ("old", "new", "lacks"),
    [
        (["http"], ["http", "admin"], ""),
        (["http"], ["admin"], "0 pods with app=shop-v2 and a port http are ready, and 3 are needed"),
        (["http", "admin"], ["http"], "0 pods with app=shop-v2 and a port admin are ready, and 3 are needed"),
    ],
)
async def test_each_port_that_was_served_is_served_as_well_before_the_switch_and_after_its_undo(
    cluster: MemoryCluster, old: list[str], new: list[str], lacks: str
) -> None:
    change(cluster, ports=[{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": "admin"}])
    give_ports(cluster, v1=old, v2=new)
    outcome = await do(cluster)
    assert isinstance(outcome, Again)
    assert lacks in outcome.message
    assert selector(cluster) == {"app": "shop-v1" if lacks else "shop-v2"}
    name_endpoints(cluster)
    await undo(cluster)
    name_endpoints(cluster)
    assert await undo(cluster) == Done(ready="3")


async def test_one_ready_pod_is_not_enough_where_three_served_at_one_of_two_ports(cluster: MemoryCluster) -> None:
    change(cluster, ports=[{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": "admin"}])
    give_ports(cluster, v1=["http"], v2=["http", "admin"])
    lose_pods(cluster, "shop-v2", 1)
    outcome = await do(cluster)
    assert isinstance(outcome, Again)
    assert "1 pods with app=shop-v2 are ready, and 3 are needed" in outcome.message


@pytest.mark.parametrize("left", [0, 1])
async def test_back_to_a_side_that_was_no_better(cluster: MemoryCluster, left: int) -> None:
    """Its Deployment is asked for three pods all the while; more never came."""
    lose_pods(cluster, "shop-v1", left)
    await do(cluster)
    name_endpoints(cluster)
    assert await do(cluster) == Done(ready="3")
    assert await TURN.early_undo(work(cluster)) == frozenset({V1, V2})
    await undo(cluster)
    assert selector(cluster) == {"app": "shop-v1"}
    name_endpoints(cluster)
    assert await undo(cluster) == Done(ready=str(left))


async def test_endpoints_that_do_not_follow_back_are_reported_after_a_while(cluster: MemoryCluster) -> None:
    await do(cluster)
    name_endpoints(cluster)
    assert isinstance(await undo(cluster, 599), Again)
    late = await undo(cluster, 600)
    assert isinstance(late, Wait)
    assert late.reason == "NotBackYet"
    assert "3 of 3 endpoints of Service front are still pods without app=shop-v1" in late.message


async def test_endpoints_made_by_hand_beside_the_services_own_are_left_out(cluster: MemoryCluster) -> None:
    labels = {"kubernetes.io/service-name": "front"}
    by_hand = {"metadata": {"name": "legacy", "labels": labels}, "endpoints": [{"addresses": ["192.0.2.7"]}]}
    cluster.put(ENDPOINT_SLICES, by_hand)
    await do(cluster)
    name_endpoints(cluster)
    assert await do(cluster) == Done(ready="3")
