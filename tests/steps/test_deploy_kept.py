"""What the server would not keep of a `deploy` step, or would put in another's place, is a mistake before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.errors import PlanError
from cutover.steps.kind import Target
from cutover.testing import MemoryCluster
from support.fakes.deploy_step import claimed, do, pod, step, work
from support.fakes.shop import STORE, V2

UNAVAILABLE = (
    "{workload: {kind: StatefulSet, name: store}, patch: '{updateStrategy: {rollingUpdate: {maxUnavailable: 2}}}'}"
)
DROPPED = (
    "steps[roll].deploy: the server drops updateStrategy.rollingUpdate.maxUnavailable (2) without a word, and it would not be there: "
    "a feature gate may be off, or another field decides it; leave it out"
)
PORTS = [
    {"name": "monitoring", "containerPort": 8080},
    {"name": "api", "containerPort": 8080},
    {"name": "dns", "containerPort": 5353},
]


@pytest.fixture
def cluster() -> MemoryCluster:
    return claimed()


def ports(cluster: MemoryCluster) -> list[Any]:
    return pod(cluster, V2)["containers"][1].setdefault("ports", [])  # type: ignore[no-any-return]


def adding(port: str) -> str:
    return f"{{workload: {{name: shop-v2}}, patch: '{{template: {{spec: {{containers: [{{name: app, ports: [{port}]}}]}}}}}}'}}"


async def test_a_field_whose_gate_is_off_is_refused_and_nothing_is_written(cluster: MemoryCluster) -> None:
    assert [str(problem) for problem in await step(UNAVAILABLE).examine(work(cluster))] == [DROPPED]
    writes = list(cluster.writes)
    with pytest.raises(PlanError) as refused:
        await do(cluster, UNAVAILABLE)
    assert str(refused.value) == DROPPED
    assert cluster.writes == writes


async def test_a_field_that_is_there_although_its_gate_is_off_can_be_changed(cluster: MemoryCluster) -> None:
    cluster.objects[STORE]["spec"]["updateStrategy"] = {"rollingUpdate": {"maxUnavailable": 1}}
    assert await step(UNAVAILABLE).examine(work(cluster)) == []


async def test_it_is_refused_too_where_an_earlier_step_changes_the_workload(cluster: MemoryCluster) -> None:
    later = work(cluster, earlier=frozenset({step(UNAVAILABLE).rolls_out()}))
    assert [str(problem) for problem in await step(UNAVAILABLE).examine(later)] == [DROPPED]
    ports(cluster).extend(PORTS)  # an earlier step may change these
    later = work(cluster, earlier=frozenset({Target(V2.resource, V2.name)}))
    assert await step(adding("{name: dns-udp, containerPort: 5353, protocol: UDP}")).examine(later) == []


async def test_all_mistakes_are_told_at_once(cluster: MemoryCluster) -> None:
    ports(cluster).extend(PORTS)
    reads = "envFrom: [{configMapRef: {name: gone}}], ports: [{name: dns-udp, containerPort: 5353, protocol: UDP}]"
    text = f"{{workload: {{name: shop-v2}}, replicas: 1, patch: '{{template: {{spec: {{containers: [{{name: app, {reads}}}]}}}}}}'}}"
    told = [str(problem) for problem in await step(text).examine(work(cluster))]
    assert len(told) == 2
    assert 'would replace {"name": "dns", "containerPort": 5353}' in told[0]
    assert "ConfigMap gone" in told[1]


async def test_a_port_is_put_in_the_place_of_no_other(cluster: MemoryCluster) -> None:
    ports(cluster).extend(PORTS)
    with pytest.raises(PlanError) as refused:
        await do(cluster, adding("{name: dns-udp, containerPort: 5353, protocol: UDP}"))
    assert str(refused.value) == (
        "steps[roll].deploy: the server merges template.spec.containers[name=app].ports by containerPort alone, so the patch would "
        'replace {"name": "dns", "containerPort": 5353}; write the whole list, with - $patch: replace as its first item'
    )
    assert ports(cluster) == PORTS


async def test_the_way_out_adds_exactly_that_port(cluster: MemoryCluster) -> None:
    ports(cluster).extend(PORTS)
    udp = {"name": "dns-udp", "containerPort": 5353, "protocol": "UDP"}
    whole = ", ".join(str(port).replace("'", "") for port in ({"$patch": "replace"}, *PORTS, udp))
    await do(cluster, adding(whole))
    assert ports(cluster) == [*PORTS, udp]


async def test_an_image_loses_no_port(cluster: MemoryCluster) -> None:
    ports(cluster).extend(PORTS)
    await do(cluster, "{workload: {name: shop-v2}, images: [{container: app, image: 'shop:2'}]}")
    assert pod(cluster, V2)["containers"][1]["image"] == "shop:2"
    assert ports(cluster) == PORTS


async def test_what_admission_makes_of_it_is_told_and_stops_nothing(cluster: MemoryCluster) -> None:
    def mirror(_: Any, body: Any) -> None:
        for container in body["spec"]["template"]["spec"]["containers"]:
            container["image"] = f"mirror/{container['image']}"

    cluster.refuse = mirror
    (told,) = await step("{workload: {name: shop-v2}, images: [{container: app, image: 'shop:2'}]}").examine(
        work(cluster)
    )
    assert told.warning
    assert (
        told.message == 'the server would make template.spec.containers[name=app].image "mirror/shop:2", not "shop:2"'
    )
