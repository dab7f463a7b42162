"""A DaemonSet with a node that nobody serves, as if it were dead: what a step says, how it fails, and how its rollback ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cutover.status.status import Phase
from harness import kwok
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("a node that nobody serves"), pytest.mark.long]
NODES = ("kwok-1", "kwok-2", "dead-1")


@pytest.fixture
def dead_node(cluster: Cluster) -> Iterator[None]:
    node = kwok.node("dead-1")
    del node["metadata"]["labels"][kwok.LABEL]
    node["spec"]["taints"] = [{"key": "dead", "effect": "NoSchedule"}]  # for the DaemonSet of this test alone
    cluster.control_plane.add_node(node)
    yield
    cluster.api.delete("/api/v1/nodes/dead-1")


def agents(shop: Shop) -> list[Any]:
    return shop.api.list(f"/api/v1/namespaces/{shop.namespace}/pods", "app=agent")


@pytest.mark.usefixtures("dead_node")
def test_forward_it_is_named_and_back_it_is_not_waited_for(shop: Shop) -> None:
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(NODES)}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}}
    containers = [{"name": "agent", "image": "agent:1"}]
    pod = {"affinity": affinity, "tolerations": [{"key": "dead", "operator": "Exists"}], "containers": containers}
    shop.api.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "agent", "namespace": shop.namespace},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod},
            },
        }
    )
    path = f"{shop.apps}/daemonsets/agent"
    until("two agents are available", lambda: shop.api.get(path)["status"].get("numberAvailable") == 2)
    until("nobody has taken the third one on for half a minute", lambda: silent(shop), deadline=60)
    before = shop.objects()
    shop.apply("""
steps:
  - name: agents
    timeout: 20s
    deploy: {workload: {kind: DaemonSet, name: agent}, images: [{container: agent, image: "agent:2"}]}
""")
    named = "waits for node dead-1, which seems not to answer"
    shop.until(lambda status: status.current is not None and named in status.current.message)
    status = shop.until_phase(Phase.ROLLING_BACK)
    assert status.failure is not None
    assert status.failure.reason == "StageTimedOut"
    assert named in status.failure.message
    status = shop.until(lambda status: status.phase in (Phase.ROLLED_BACK, Phase.STUCK), deadline=120)
    assert status.phase is Phase.ROLLED_BACK
    assert status.steps[0].message == "node dead-1 does not answer; its pods of DaemonSet agent are not waited for"
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before
    assert shop.api.get(path)["status"]["numberAvailable"] == 2
    for one in agents(shop):  # nobody else ends a pod of a node that does not answer
        shop.api.delete(f"/api/v1/namespaces/{shop.namespace}/pods/{one['metadata']['name']}", gracePeriodSeconds=0)


def silent(shop: Shop) -> bool:
    pods = [one for one in agents(shop) if one["spec"].get("nodeName") == "dead-1"]
    return any(
        datetime.now(UTC) - datetime.fromisoformat(one["metadata"]["creationTimestamp"]) > timedelta(seconds=31)
        for one in pods
    )
