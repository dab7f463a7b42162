"""What the real API server drops or puts in another's place of a `deploy` step, and what it answers to those who would create its pods."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, Status
from harness.process import until
from support.cluster.shop import Shop

pytestmark = pytest.mark.cluster

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: app
          image: "web:1"
          ports: [{name: monitoring, containerPort: 8080}, {name: api, containerPort: 8080}, {name: dns, containerPort: 5353}]
          env: [{name: MODE, value: a}, {name: MODE, value: b}]
"""
WORKLOADS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: NAMESPACE}
spec:
  replicas: 1
  serviceName: store
  selector: {matchLabels: {app: store}}
  template: {metadata: {labels: {app: store}}, spec: {containers: [{name: app, image: "store:1"}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: agent}}
  template: {metadata: {labels: {app: agent}}, spec: {containers: [{name: app, image: "agent:1"}]}}
"""
IMAGE = "  - {name: image, deploy: {workload: {name: web}, images: [{container: app, image: 'web:2'}]}}\n"
UDP = {"name": "dns-udp", "containerPort": 5353, "protocol": "UDP"}
OK = "  - {name: ok, approve: {message: go}}\n"


def put(shop: Shop, text: str) -> None:
    """Created, and not applied: the server takes no port or variable twice from an apply, but from a create."""
    for manifest in yaml.safe_load_all(text.replace("NAMESPACE", shop.namespace)):
        shop.api.create(f"{shop.apps}/{manifest['kind'].lower()}s", manifest)


def port(*items: Any) -> dict[str, Any]:
    patch = yaml.safe_dump({"template": {"spec": {"containers": [{"name": "app", "ports": list(items)}]}}})
    return {"name": "port", "deploy": {"workload": {"name": "web"}, "patch": patch}}


def container(shop: Shop) -> Any:
    return shop.api.get(f"{shop.deployments}/web")["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.local("its API server has the feature gate off, which newer ones may not")
def test_a_field_whose_gate_is_off_is_refused(shop: Shop) -> None:
    put(shop, WORKLOADS)
    before = shop.objects()
    shop.apply("""
startDeadline: 1s
steps: [{name: store, deploy: {workload: {kind: StatefulSet, name: store}, patch: '{updateStrategy: {rollingUpdate: {maxUnavailable: 2}}}'}}]
""")
    says = "steps[store].deploy: the server drops updateStrategy.rollingUpdate.maxUnavailable (2) without a word, and it would not be there"
    shop.refuses(before, says)


def test_an_image_loses_no_port_and_a_port_takes_the_place_of_no_other(shop: Shop) -> None:
    put(shop, WEB)
    before, ports = shop.objects(), container(shop)["ports"]
    steps: dict[str, Any] = yaml.safe_load(f"steps:\n{IMAGE}")
    shop.apply({"steps": [*steps["steps"], port(UDP)]})
    status = shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.step == "port"
    says = 'would replace {"name": "dns", "containerPort": 5353, "protocol": "TCP"}; write the whole list, with - $patch: replace'
    assert says in status.failure.message
    assert shop.objects() == before
    shop.apply({"steps": [*steps["steps"], port({"$patch": "replace"}, *ports, UDP), *yaml.safe_load(OK)]})
    shop.until_phase(Phase.WAITING)
    assert container(shop)["ports"] == [*ports, UDP]
    assert container(shop)["image"] == "web:2"
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before


def test_why_pods_are_refused_is_told_for_each_kind(shop: Shop) -> None:
    """Of a Deployment its status says so at once; of the others the events that the operator may list."""
    put(shop, WEB + "---" + WORKLOADS)
    until("the store is ready", lambda: shop.api.get(f"{shop.apps}/statefulsets/store")["status"].get("readyReplicas"))
    until(
        "the agents are ready", lambda: shop.api.get(f"{shop.apps}/daemonsets/agent")["status"].get("numberReady") == 2
    )
    namespace, label = f"/api/v1/namespaces/{shop.namespace}", "pod-security.kubernetes.io/enforce"
    shop.api.patch(namespace, {"metadata": {"labels": {label: "restricted"}}})
    steps = {
        "web": "{name: web}",
        "store": "{kind: StatefulSet, name: store}",
        "agent": "{kind: DaemonSet, name: agent}",
    }
    for name, workload in steps.items():
        image = f"images: [{{container: app, image: '{name}:2'}}]"
        shop.apply(f"steps: [{{name: roll, deploy: {{workload: {workload}, {image}}}}}]", name)

    def told(status: Status) -> bool:
        message = status.current.message if status.current else ""
        return "pods cannot be created (FailedCreate)" in message and "violates PodSecurity" in message

    for name in steps:
        shop.until(told, name)
    shop.api.patch(namespace, {"metadata": {"labels": {label: None}}})
    for name in steps:
        shop.request(RequestVerb.ABORT, name=name)
    for name in steps:
        assert shop.until_ended(name, deadline=90).phase is Phase.ROLLED_BACK
