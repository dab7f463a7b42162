"""`flags` on the real control plane: processes that answer with their value, KWOK pods in all the rest, killed in the middle."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, Status
from harness.cluster import ROOT, Cluster
from harness.node import placement
from harness.process import until
from support.cluster.shop import Operator, Shop, without_owners

pytestmark = pytest.mark.cluster

FLAGS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: flags, namespace: NAMESPACE, labels: {team: shop}}
data: {USE_NEW_SCHEMA: "false", COLOUR: blue}
"""
FLIP = """
  - name: flip
    flags: {configMap: flags, set: {USE_NEW_SCHEMA: "true", DUAL_WRITE: "true"}, reload: [{name: NAME}]}
"""
ASK = "  - {name: ok, approve: {message: go}}\n"
OLD = {"USE_NEW_SCHEMA": "false", "DUAL_WRITE": None}
NEW = {"USE_NEW_SCHEMA": "true", "DUAL_WRITE": "true"}


def flags_of(shop: Shop) -> Any:
    return shop.api.get(f"/api/v1/namespaces/{shop.namespace}/configmaps/flags")["data"]


def message(status: Status) -> str:
    return status.current.message if status.current else ""


# --- processes that answer with their value ---------------------------------------------------------------------------


class FlagServers:
    """A Deployment of three processes, each of which answers with the flags it was started with."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.entries = f"/apis/networking.istio.io/v1/namespaces/{shop.namespace}/workloadentries"
        self._addresses: set[str] = set()

    def create(self) -> None:
        self._shop.api.apply(yaml.safe_load(FLAGS.replace("NAMESPACE", self._shop.namespace)))
        self._shop.api.apply(self._manifest())
        until("three of them answer", lambda: self.answers() == [OLD] * 3, deadline=60)

    def _manifest(self) -> dict[str, Any]:
        container = {
            "name": "app",
            "image": "answering:1",
            "command": ["python3", str(ROOT / "tests/support/fakes/flag_server.py")],
            "env": [
                {
                    "name": "USE_NEW_SCHEMA",
                    "valueFrom": {"configMapKeyRef": {"name": "flags", "key": "USE_NEW_SCHEMA"}},
                },
                {
                    "name": "DUAL_WRITE",
                    "valueFrom": {"configMapKeyRef": {"name": "flags", "key": "DUAL_WRITE", "optional": True}},
                },
            ],
            "ports": [{"name": "http", "containerPort": 8091}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        }
        spec = {"terminationGracePeriodSeconds": 10, "containers": [container], **placement()}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "answering", "namespace": self._shop.namespace},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "answering"}},
                "template": {"metadata": {"labels": {"app": "answering"}}, "spec": spec},
            },
        }

    def remove(self) -> None:
        """End its processes: none of a pod may outlive the test. Of a whole namespace that would take ten seconds."""
        self._shop.api.delete(f"{self._shop.deployments}/answering")
        pods = f"/api/v1/namespaces/{self._shop.namespace}/pods"
        until("its pods are gone", lambda: not self._shop.api.list(pods, "app=answering"), deadline=60)

    def answers(self) -> list[Any]:
        """What every process says that still answers, those included that are taken out of routing and on their way out."""
        self._addresses |= {entry["spec"]["address"] for entry in self._shop.api.list(self.entries)}
        found = []
        for address in sorted(self._addresses):
            try:
                with urllib.request.urlopen(f"http://{address}:8091/", timeout=2) as answer:
                    found.append(json.loads(answer.read()))
            except (urllib.error.URLError, OSError):
                continue
        return found


@pytest.fixture
def flag_servers(shop: Shop) -> Any:
    made = FlagServers(shop)
    made.create()
    yield made
    made.remove()


@pytest.mark.local("its pods are processes of the local node")
def test_the_step_ends_only_when_every_process_answers_with_its_value(shop: Shop, flag_servers: FlagServers) -> None:
    before = shop.objects()
    shop.apply(f"steps:{FLIP.replace('NAME', 'answering')}{ASK}")
    status = shop.until(lambda s: flag_servers.answers() != [OLD] * 3 or s.phase is Phase.WAITING, deadline=60)
    assert status.phase is Phase.RUNNING, "the first new process answers long before the step ends"
    shop.until_phase(Phase.WAITING, deadline=60)
    assert flag_servers.answers() == [NEW] * 3, "old ones too, that drain for a second after they are told to end"
    assert flags_of(shop) == {"USE_NEW_SCHEMA": "true", "DUAL_WRITE": "true", "COLOUR": "blue"}
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended(deadline=60).phase is Phase.ROLLED_BACK
    assert flag_servers.answers() == [OLD] * 3
    assert shop.objects() == before
    assert shop.leftovers() == []


@pytest.mark.local("kills, pauses or starts operators that are processes")
def test_the_operator_dies_in_the_middle_of_the_restart_and_of_the_rollback(
    shop: Shop, flag_servers: FlagServers, operator: Operator, cluster: Cluster
) -> None:
    before, mark = shop.objects(), cluster.audit.mark()
    shop.apply(f"steps:{FLIP.replace('NAME', 'answering')}{ASK}")
    shop.until(lambda _: NEW in flag_servers.answers(), deadline=60)
    operator.kill()
    operator.start()
    shop.until_phase(Phase.WAITING, deadline=60)
    assert flag_servers.answers() == [NEW] * 3
    shop.request(RequestVerb.ABORT)
    shop.until(lambda _: OLD in flag_servers.answers(), deadline=60)
    operator.kill()
    operator.start()
    assert shop.until_ended(deadline=60).phase is Phase.ROLLED_BACK
    assert flag_servers.answers() == [OLD] * 3
    assert shop.objects() == before
    assert sorted(revisions(shop, "answering")) == ["2", "3"], (
        "one template with the mark, and the old one once more: nothing was restarted twice"
    )
    account = f"system:serviceaccount:{shop.namespace}:migrator"
    writes = [
        r
        for r in cluster.audit.since(mark, namespace=shop.namespace)
        if r.resource == "configmaps" and r.verb == "patch"
    ]
    assert all(request.impersonated == account for request in writes)


def revisions(shop: Shop, app: str) -> list[str]:
    """Of its ReplicaSets: the number of the last rollout that made each the newest."""
    found = shop.api.list(f"{shop.apps}/replicasets", f"app={app}")
    return [one["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for one in found]


UNREADY = """
steps:
  - name: flip
    flags: {configMap: flags, set: {USE_NEW_SCHEMA: unready}, reload: [{name: answering}]}
"""


def pods(shop: Shop, app: str) -> list[Any]:
    found = shop.api.list(f"/api/v1/namespaces/{shop.namespace}/pods", f"app={app}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def names(found: list[Any]) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in found)


def running(shop: Shop, *, marked: bool) -> set[str]:
    """Pods whose process runs, with or without our mark."""
    return {
        pod["metadata"]["name"]
        for pod in pods(shop, "answering")
        if ("cutover.dev/restarted-by" in (pod["metadata"].get("annotations") or {})) is marked
        and all("running" in one["state"] for one in pod["status"].get("containerStatuses") or [{"state": {}}])
    }


@pytest.mark.local("its pods are processes of the local node")
def test_a_value_that_pods_cannot_live_with_leaves_the_old_ones_running(shop: Shop, flag_servers: FlagServers) -> None:
    """In the middle of a restart: the processes that ran before are the ones that run after."""
    before, ran = shop.objects(), names(pods(shop, "answering"))
    shop.apply(UNREADY)
    until("one runs that was restarted", lambda: bool(running(shop, marked=True)), deadline=60)
    shop.until_phase(Phase.RUNNING)
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended(deadline=60).phase is Phase.ROLLED_BACK
    assert flag_servers.answers() == [OLD] * 3
    assert names(pods(shop, "answering")) == ran
    assert shop.objects() == before


@pytest.mark.local("its pods are processes of the local node")
def test_a_pod_of_the_old_template_that_appeared_since_is_replaced_on_rollback(
    shop: Shop, flag_servers: FlagServers
) -> None:
    """It has the old template and our value. To take the mark off would leave it there."""
    before, ran = shop.objects(), names(pods(shop, "answering"))
    shop.apply(UNREADY)
    until("one runs that was restarted", lambda: bool(running(shop, marked=True)), deadline=60)
    shop.api.delete(f"/api/v1/namespaces/{shop.namespace}/pods/{ran[0]}")

    until("an old one came again", lambda: bool(running(shop, marked=False) - set(ran)), deadline=60)
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended(deadline=90).phase is Phase.ROLLED_BACK
    assert flag_servers.answers() == [OLD] * 3
    assert set(names(pods(shop, "answering"))).isdisjoint(ran)
    assert shop.objects() == before


# --- workloads of simulated pods --------------------------------------------------------------------------------------

WORKLOADS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: NAMESPACE}
spec:
  replicas: 2
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      nodeSelector: {harness.cutover.dev/kwok: "true"}
      containers: [{name: db, image: "db:1", volumeMounts: [{name: flags, mountPath: /etc/flags}]}]
      volumes: [{name: flags, configMap: {name: flags}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}, annotations: {team: shop}}
    spec: {containers: [{name: agent, image: "agent:1", envFrom: [{configMapRef: {name: flags}}]}]}
"""
ALL = "[{name: shop-v1}, {kind: StatefulSet, name: store}, {kind: DaemonSet, name: agent}]"
FLIP_ALL = f"""
  - name: flip
    flags: {{configMap: flags, set: {{USE_NEW_SCHEMA: "true", DUAL_WRITE: "true"}}, reload: {ALL}}}
"""
COUNTS = {"shop-v1": 3, "store": 2, "agent": 2}


def put(shop: Shop) -> None:
    for manifest in yaml.safe_load_all((FLAGS + "---" + WORKLOADS).replace("NAMESPACE", shop.namespace)):
        shop.api.apply(manifest)
    until("all pods are there", lambda: {app: len(ready(shop, app)) for app in COUNTS} == COUNTS)


def ready(shop: Shop, app: str) -> list[Any]:
    return [
        pod
        for pod in pods(shop, app)
        if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or ())
    ]


def marks(shop: Shop) -> set[str | None]:
    """What all pods carry of our annotation."""
    return {
        (pod["metadata"].get("annotations") or {}).get("cutover.dev/restarted-by")
        for app in COUNTS
        for pod in pods(shop, app)
    }


def test_three_kinds_of_workloads_there_and_back(shop: Shop) -> None:
    put(shop)
    before = shop.objects()
    shop.apply(f"steps:{FLIP_ALL}{ASK}")
    shop.until_phase(Phase.WAITING)
    (mark,) = marks(shop)
    assert mark is not None
    assert mark.startswith("plan/flip, run 1 (")
    assert {app: len(ready(shop, app)) for app in COUNTS} == COUNTS
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert marks(shop) == {None}
    assert shop.objects() == before
    assert shop.leftovers() == []


@pytest.mark.local("kills, pauses or starts operators that are processes")
def test_nothing_is_written_once_it_is_done(shop: Shop, operator: Operator, cluster: Cluster) -> None:
    """A new process looks again, and finds all as it should be."""
    put(shop)
    shop.apply(
        f'steps:{FLIP_ALL}    gates: [{{name: never, prometheus: {{query: vector(1)}}, pass: {{max: "0"}}, failureThreshold: 1000}}]\n'
    )
    shop.until(lambda s: "gate never" in message(s))
    generations = {path: shop.api.get(path)["metadata"]["generation"] for path in _paths(shop)}
    mark = cluster.audit.mark()
    operator.kill()
    operator.start()
    until("it looks again", lambda: any(r.resource == "pods" for r in _of(cluster, mark, shop)))
    shop.until(lambda s: "gate never" in message(s))
    assert {path: shop.api.get(path)["metadata"]["generation"] for path in generations} == generations
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK


def _paths(shop: Shop) -> list[str]:
    return [f"{shop.apps}/{name}" for name in ("deployments/shop-v1", "statefulsets/store", "daemonsets/agent")]


def _of(cluster: Cluster, mark: int, shop: Shop) -> list[Any]:
    return cluster.audit.since(mark, namespace=shop.namespace)


def test_who_puts_the_value_back_is_named(shop: Shop) -> None:
    """As self-healing does it, while pods are restarting: some may have read the old value already."""
    put(shop)
    path = f"/api/v1/namespaces/{shop.namespace}/configmaps/flags"
    shop.api.patch(
        path,
        {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": f"site:/ConfigMap:{shop.namespace}/flags"}}},
    )
    slow = {"spec": {"template": {"metadata": {"annotations": {"harness.cutover.dev/behaviour": "slow"}}}}}
    shop.api.patch(f"{shop.deployments}/shop-v1", slow)
    until("the slow ones are ready", lambda: _complete(shop.api.get(f"{shop.deployments}/shop-v1")))
    before = shop.objects()
    shop.apply(f"steps:{FLIP_ALL}{ASK}")
    until("some pods were restarted", lambda: len(marks(shop)) > 1)
    shop.api.patch(path, {"data": {"USE_NEW_SCHEMA": "false"}})
    status = shop.until_ended(deadline=60)
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.reason == "ForeignWriter"
    assert (
        "Argo CD (application site) has reverted USE_NEW_SCHEMA of ConfigMap flags while pods restarted"
        in status.failure.message
    )
    # The other writer has taken the field, and keeps it.
    assert without_owners(shop.objects()) == without_owners(before)


def _complete(body: Any) -> bool:
    status, spec = body["status"], body["spec"]
    figures = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return bool(
        status.get("observedGeneration") == body["metadata"]["generation"] and figures == [spec["replicas"]] * 3
    )


def test_a_config_map_without_data_has_none_again(shop: Shop) -> None:
    put(shop)
    shop.api.patch(f"/api/v1/namespaces/{shop.namespace}/configmaps/flags", {"data": None})
    before = shop.objects()
    shop.apply(f"steps:{FLIP_ALL}{ASK}")
    shop.until_phase(Phase.WAITING)
    assert flags_of(shop) == {"USE_NEW_SCHEMA": "true", "DUAL_WRITE": "true"}
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before


def test_a_config_map_that_vanishes_fails_the_plan_and_the_rest_comes_back(shop: Shop) -> None:
    put(shop)
    shop.apply(f"steps:{FLIP_ALL}{ASK}")
    shop.until_phase(Phase.WAITING)
    shop.api.delete(f"/api/v1/namespaces/{shop.namespace}/configmaps/flags")
    status = shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.reason == "TargetGone"
    assert marks(shop) == {None}
    assert shop.leftovers() == []


def test_what_is_in_the_way_is_reported_before_anything_is_changed(shop: Shop) -> None:
    put(shop)
    for name, content in (
        ("fixed", {"immutable": True, "data": {"A": "1"}}),
        ("binary", {"binaryData": {"A": "YQ=="}}),
        ("large", {"data": {"B": "x" * 1_048_570}}),
    ):
        metadata = {"name": name, "namespace": shop.namespace}
        shop.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **content})
    shop.api.patch(f"{shop.deployments}/shop-v2", {"spec": {"paused": True}})
    store = f"{shop.apps}/statefulsets/store"
    shop.api.patch(store, {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}})
    shop.api.patch(
        f"{shop.apps}/daemonsets/agent", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}}
    )
    before = shop.objects()
    shop.apply(f"""
startDeadline: 1s
steps:
  - {{name: gone, flags: {{configMap: other, set: {{A: "2"}}}}}}
  - {{name: fixed, flags: {{configMap: fixed, set: {{A: "2"}}}}}}
  - {{name: binary, flags: {{configMap: binary, set: {{A: "2"}}}}}}
  - {{name: large, flags: {{configMap: large, set: {{A: "1234567"}}}}}}
  - {{name: paused, flags: {{configMap: flags, set: {{A: "2"}}, reload: [{{name: shop-v2}}], leave: {ALL.replace("{name: shop-v1}, ", "")}}}}}
  - {{name: stays, flags: {{configMap: flags, set: {{A: "2"}}, reload: {ALL}}}}}
  - {{name: left-out, flags: {{configMap: flags, set: {{A: "2"}}}}}}
""")
    shop.refuses(
        before,
        f"steps[gone].flags: there is no ConfigMap other in namespace {shop.namespace}; create it, or fix the name",
        "steps[fixed].flags.configMap: ConfigMap fixed is immutable, so none of its keys can be set; recreate it",
        "steps[binary].flags.set.A: key A is in binaryData of ConfigMap binary",
        "steps[large].flags.configMap: ConfigMap large would hold 1048577 bytes, and the maximum is 1048576",
        "steps[paused].flags.reload[shop-v2]: Deployment shop-v2 is paused (spec.paused: true)",
        "steps[stays].flags.reload[store]: StatefulSet store has partition 1, so its first 1 pods would keep the old values",
        "steps[stays].flags.reload[agent]: pods of DaemonSet agent change only when a user deletes them",
        "steps[left-out].flags.reload: StatefulSet store reads ConfigMap flags (files of volume flags); add it to reload",
        "steps[left-out].flags.reload: DaemonSet agent reads ConfigMap flags (envFrom of container agent); add it to reload",
    )
