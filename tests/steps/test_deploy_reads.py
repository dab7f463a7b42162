"""`deploy` and what its pods read: ConfigMaps that are not there, before the first step; Secrets by the kubelet's reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml

from cutover.ports import CONFIG_MAPS, PODS
from cutover.saga.turn import Again, Failed
from cutover.steps.kind import Target
from cutover.testing import MemoryCluster
from support.fakes.deploy_step import V2_2, claimed, do, status, step, work
from support.fakes.shop import V2

_START = "so its pods would not start; create it first, or mark the reference optional"


@pytest.fixture
def cluster() -> MemoryCluster:
    """Of the ConfigMap `there` exist the keys a and b."""
    made = claimed()
    body = {"metadata": {"name": "there", "namespace": "shop"}, "data": {"a": "1"}, "binaryData": {"b": "MQ=="}}
    made.put(CONFIG_MAPS, body)
    return made


def patched(container: str = "", volume: str = "", replicas: int = 2) -> str:
    spec = f"containers: [{{name: app, {container}}}]" if container else f"volumes: [{volume}]"
    return f"{{workload: {{name: shop-v2}}, replicas: {replicas}, patch: '{{template: {{spec: {{{spec}}}}}}}'}}"


def env(source: str) -> str:
    return patched(f"env: [{{name: COLOUR, valueFrom: {{configMapKeyRef: {source}}}}}]")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (env("{name: gone, key: a}"), "env COLOUR of container app reads ConfigMap gone, which does not exist"),
        (
            env("{name: there, key: c}"),
            "env COLOUR of container app reads key c of ConfigMap there, which it does not have",
        ),
        (
            patched("envFrom: [{configMapRef: {name: gone}}]"),
            "envFrom of container app reads ConfigMap gone, which does not exist",
        ),
        (
            patched(volume="{name: files, configMap: {name: there, items: [{key: a, path: a}, {key: c, path: c}]}}"),
            "files of volume files reads key c of ConfigMap there, which it does not have",
        ),
        (
            patched(volume="{name: files, projected: {sources: [{configMap: {name: gone}}]}}"),
            "files of volume files reads ConfigMap gone, which does not exist",
        ),
    ],
)
async def test_what_its_pods_read_must_be_there(cluster: MemoryCluster, text: str, says: str) -> None:
    problems = [str(problem) for problem in await step(text).examine(work(cluster))]
    assert problems == [f"steps[roll].deploy: {says}, {_START}"]


@pytest.mark.parametrize(
    "text",
    [
        env("{name: there, key: a}"),
        env("{name: there, key: b}"),
        env("{name: gone, key: a, optional: true}"),
        patched("envFrom: [{configMapRef: {name: there}}, {configMapRef: {name: gone, optional: true}}]"),
        patched(volume="{name: files, configMap: {name: gone, optional: true}}"),
        patched("envFrom: [{configMapRef: {name: gone}}]", replicas=0),
    ],
)
async def test_what_exists_or_need_not_is_not_a_problem(cluster: MemoryCluster, text: str) -> None:
    assert await step(text).examine(work(cluster)) == []


async def test_what_an_earlier_step_writes_may_come_yet(cluster: MemoryCluster) -> None:
    later = replace(work(cluster), earlier=frozenset({Target(CONFIG_MAPS, "there")}))
    assert await step(env("{name: there, key: c}")).examine(later) == []


def _waiting(name: str, owner: str, message: str) -> dict[str, Any]:
    text = f"""
    metadata:
      name: {name}
      namespace: shop
      labels: {{app: shop-v2, pod-template-hash: "77"}}
      ownerReferences: [{{kind: ReplicaSet, name: {owner}, uid: u, controller: true}}]
    spec: {{containers: [{{name: app, image: "shop:2"}}]}}
    """
    body: dict[str, Any] = yaml.safe_load(text)
    waiting = {"reason": "CreateContainerConfigError", "message": message}
    body["status"] = {"phase": "Pending", "containerStatuses": [{"name": "app", "state": {"waiting": waiting}}]}
    return body


async def test_a_secret_that_is_not_there_is_reported_by_the_kubelets_reason(cluster: MemoryCluster) -> None:
    """Once it takes long, and of the workload's own pods."""
    cluster.objects[V2]["spec"]["replicas"] = 2
    cluster.put(PODS, _waiting("stranger", "other-77", 'secret "other" not found'))
    cluster.put(PODS, _waiting("shop-v2-77-x", "shop-v2-77", 'secret "token" not found'))
    soon = await do(cluster, V2_2)
    assert isinstance(soon, Again)
    assert "does not start" not in soon.message
    late = await step(V2_2).do(work(cluster, elapsed=20.0), 0)
    assert isinstance(late, Again)
    assert late.message.endswith(
        "; container app of pod shop-v2-77-x does not start: CreateContainerConfigError, there is no Secret token"
    )


async def test_a_stalled_rollout_says_what_its_pods_wait_for(cluster: MemoryCluster) -> None:
    await do(cluster, V2_2)
    cluster.put(PODS, _waiting("shop-v2-77-x", "shop-v2-77", 'secret "token" not found'))
    gave_up = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    status(cluster, V2, replicas=2, updatedReplicas=2, conditions=[gave_up])
    outcome = await step(V2_2).do(work(cluster, elapsed=600.0), 0)
    assert isinstance(outcome, Failed)
    assert outcome.message.endswith("CreateContainerConfigError, there is no Secret token")


async def test_why_pods_do_not_start_is_asked_every_fifteen_seconds_at_most(cluster: MemoryCluster) -> None:
    """A rollout of hundreds of pods brings hundreds of events."""
    cluster.objects[V2]["spec"]["replicas"] = 2
    cluster.put(PODS, _waiting("shop-v2-77-x", "shop-v2-77", 'secret "token" not found'))
    asked, listing = list[str](), cluster.list

    async def count(resource: Any, *args: Any, **options: Any) -> Any:
        asked.extend([resource.plural] if resource == PODS else [])
        return await listing(resource, *args, **options)

    cluster.list = count  # type: ignore[method-assign]
    at = work(cluster, elapsed=20.0)
    for passed in (0, 1, 14.9, 15, 16):
        outcome = await step(V2_2).do(replace(at, now=at.now + timedelta(seconds=passed)), 0)
        assert isinstance(outcome, Again)
        assert "there is no Secret token" in outcome.message
    assert asked == ["pods", "pods"]
