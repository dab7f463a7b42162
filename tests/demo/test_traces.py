"""What a migration leaves behind is found, of any kind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import follow
import pytest
from traces import CONTROLLED, essence, left, objects, paths

from harness.api import Api
from harness.cluster import Cluster
from harness.process import until

BODY: dict[str, Any] = {
    "metadata": {
        "name": "shop",
        "resourceVersion": "1",
        "generation": 1,
        "labels": {"app": "shop"},
        "annotations": {"team": "a", "deployment.kubernetes.io/revision": "1"},
    },
    "spec": {"replicas": 1},
    "status": {"ready": 1},
}


def changed(*place: str, to: Any) -> dict[str, Any]:
    body = copy.deepcopy(BODY)
    node = body
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = to
    return body


@pytest.mark.parametrize(
    ("body", "shows"),
    [
        (BODY, 0),
        (changed("metadata", "resourceVersion", to="2"), 0),
        (changed("metadata", "annotations", "deployment.kubernetes.io/revision", to="2"), 0),
        (changed("status", to={}), 0),
        (changed("spec", "replicas", to=2), 1),
        (changed("metadata", "labels", "cutover.dev/plan", to="x"), 1),
        (changed("metadata", "annotations", "team", to="b"), 1),
        (changed("rules", to=[]), 1),
    ],
)
def test_what_counts(body: dict[str, Any], shows: int) -> None:
    assert len(left({"x": essence(BODY)}, {"x": essence(body)})) == shows


def test_gone_and_new() -> None:
    assert left({"a": 1}, {"b": 1}) == ["a is gone after migration 2", "b is new after migration 2"]


def entry(name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    spec = {"address": "127.0.0.9"}
    return {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": metadata, "spec": spec}


@pytest.mark.cluster
@pytest.mark.local("belongs to the demo, which runs on the local cluster")
def test_every_kind_is_looked_at(api: Api, namespace: str) -> None:
    kinds = dict(paths(api, namespace))
    for kind in (
        "deployments",
        "controllerrevisions",
        "virtualservices",
        "services",
        "roles",
        "rolebindings",
        "secrets",
    ):
        assert kind in kinds
    assert not kinds.keys() & CONTROLLED
    until("the namespace is complete", lambda: api.find(f"{kinds['configmaps']}/kube-root-ca.crt"))
    before = objects(api, namespace)
    role = "rbac.authorization.k8s.io"
    for kind, content in (
        ("roles", {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ("rolebindings", {"roleRef": {"apiGroup": role, "kind": "Role", "name": "extra"}}),
        ("controllerrevisions", {"revision": 1, "data": {"a": "b"}}),
    ):
        api.create(kinds[kind], {"metadata": {"name": "extra"}, **content})
    api.apply(entry("extra", namespace))
    assert left(before, objects(api, namespace)) == [
        f"{kind}/extra is new after migration 2" for kind in ("controllerrevisions", "rolebindings", "roles")
    ]
    middle = objects(api, namespace)
    api.patch(f"{kinds['roles']}/extra", {"rules": []})
    assert [line.partition(" ")[0] for line in left(middle, objects(api, namespace))] == ["roles/extra"]


@pytest.mark.cluster
@pytest.mark.local("belongs to the demo, which runs on the local cluster")
def test_prometheus_follows_the_pods(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """Also when the API server said no in between."""
    targets = cluster.prometheus.folder / "targets" / "shop.json"
    targets.unlink(missing_ok=True)
    lost = follow.process(cluster, namespace, tmp_path / "lost.log")
    lost._env |= {"HARNESS_TOKEN": "nobody"}
    process = follow.process(cluster, namespace, tmp_path / "follow.log")
    try:
        lost.start()
        until("the problem is logged", lambda: "cannot follow the pods: 401" in lost.tail(), process=lost)
        assert not targets.exists()
        process.start()
        path = cluster.api.path(cluster.api.apply(entry("pod", namespace)))
        until(
            "Prometheus knows it", lambda: targets.exists() and "127.0.0.9:8080" in targets.read_text(), process=process
        )
        cluster.api.delete(path)
        until("it is taken away", lambda: "127.0.0.9" not in targets.read_text(), process=process)
        assert lost.alive
    finally:
        lost.stop()
        process.stop()
        targets.unlink(missing_ok=True)
