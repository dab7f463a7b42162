"""`switch` on the real control plane: a Service and the EndpointSlices that follow it, forward, backward, and killed in the middle."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import Operator, Shop, without_owners

pytestmark = pytest.mark.cluster

SEED = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-deployment
spec:
  replicas: 3
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    spec:
      containers:
      - name: app
        image: myapp:v2.0.0
        readinessProbe:
          httpGet:
            path: /health/ready
            port: 8080
          initialDelaySeconds: 10
          periodSeconds: 5
        livenessProbe:
          httpGet:
            path: /health/live
            port: 8080
          initialDelaySeconds: 30
          periodSeconds: 10
"""
"""Blue-green as people find it in a runbook: the green side of a release. It lacks the selector that a Deployment needs."""

FRONT = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: NAMESPACE, labels: {team: shop}}
spec: {selector: {app: shop-v1}, ports: [{name: http, port: 80}]}
"""
GREEN = "  - {name: green, deploy: {workload: {name: shop-v2}, replicas: 3}}\n"
TURN = "  - {name: turn, switch: {service: front, selector: {app: shop-v2}}}\n"
ASK = "  - {name: ok, approve: {message: go}}\n"


def put(shop: Shop, text: str = FRONT) -> None:
    for manifest in yaml.safe_load_all(text.replace("NAMESPACE", shop.namespace)):
        shop.api.apply(manifest)
    until("the front is routed to the old side", lambda: behind(shop) == {"shop-v1"} and shop.endpoints("front") == 3)


def service(shop: Shop) -> Any:
    return shop.api.get(f"/api/v1/namespaces/{shop.namespace}/services/front")


def selector(shop: Shop) -> Any:
    return service(shop)["spec"]["selector"]


def behind(shop: Shop, name: str = "front") -> set[str]:
    """What the Service's ready endpoints are, by the label `app` of their pods."""
    apps = {
        pod["metadata"]["uid"]: pod["metadata"]["labels"]["app"]
        for pod in shop.api.list(f"/api/v1/namespaces/{shop.namespace}/pods")
    }
    slices = shop.api.list(
        f"/apis/discovery.k8s.io/v1/namespaces/{shop.namespace}/endpointslices", f"kubernetes.io/service-name={name}"
    )
    ends = [end for part in slices for end in part.get("endpoints") or () if end["conditions"].get("ready")]
    return {apps.get(end["targetRef"]["uid"], "gone") for end in ends}


def test_there(shop: Shop) -> None:
    put(shop)
    shop.apply(f"steps:\n{GREEN}{TURN}{ASK}")
    shop.until_phase(Phase.WAITING)
    assert behind(shop) == {"shop-v2"}, "the step ends when the endpoints have followed"
    shop.request(RequestVerb.APPROVE, "ok")
    assert shop.until_ended().phase is Phase.SUCCEEDED
    assert selector(shop) == {"app": "shop-v2"}
    assert shop.leftovers() == []


def test_and_back(shop: Shop) -> None:
    put(shop)
    before = shop.objects()
    shop.apply(f"steps:\n{GREEN}{TURN}{ASK}")
    shop.until_phase(Phase.WAITING)
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert behind(shop) == {"shop-v1"}
    assert shop.objects() == before
    assert shop.leftovers() == []


def test_the_blue_green_deployment_of_a_runbook_runs_as_it_stands(shop: Shop) -> None:
    """Its spec is the patch of a deploy step, and a switch moves the Service to its pods."""
    put(shop)
    base = yaml.safe_load(SEED)
    base["metadata"]["namespace"] = shop.namespace
    base["spec"] = {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "green"}},
        "template": {
            "metadata": {"labels": {"app": "green"}},
            "spec": {"containers": [{"name": "app", "image": "myapp:v1.0.0"}]},
        },
    }
    shop.api.apply(base)
    before = shop.objects()
    spec = yaml.safe_load(SEED)["spec"]
    deploy = {"workload": {"name": "app-deployment"}, "replicas": spec.pop("replicas"), "patch": json.dumps(spec)}
    steps = [
        {"name": "green", "deploy": deploy, "gates": [{"name": "pods", "readiness": {"percent": 100}}]},
        {"name": "turn", "switch": {"service": "front", "selector": {"app": "green"}}},
        {"name": "ok", "approve": {"message": "go"}},
    ]
    shop.apply({"steps": steps})
    shop.until_phase(Phase.WAITING)
    live = shop.api.get(f"{shop.deployments}/app-deployment")["spec"]
    assert live["replicas"] == 3
    assert live["strategy"] == spec["strategy"]
    (app,) = live["template"]["spec"]["containers"]
    assert app["image"] == "myapp:v2.0.0"
    for probe in ("readinessProbe", "livenessProbe"):
        wanted = spec["template"]["spec"]["containers"][0][probe]
        assert {key: app[probe][key] for key in wanted if key != "httpGet"} == {
            key: value for key, value in wanted.items() if key != "httpGet"
        }
        assert wanted["httpGet"].items() <= app[probe]["httpGet"].items()
    assert behind(shop) == {"green"}
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert behind(shop) == {"shop-v1"}
    assert shop.objects() == before


@pytest.mark.local("kills, pauses or starts operators that are processes")
def test_it_waits_for_the_new_side_through_a_kill(shop: Shop, operator: Operator, cluster: Cluster) -> None:
    """The operator dies before, and after the switch; the selector is written once."""
    put(shop)
    mark = cluster.audit.mark()
    shop.apply(f"steps:\n{TURN}{ASK}")
    says = "the switch waits: 0 pods with app=shop-v2 are ready, and 3 are needed"
    shop.until(lambda s: s.current is not None and says in s.current.message)
    operator.kill()
    assert selector(shop) == {"app": "shop-v1"}
    shop.api.patch(f"{shop.deployments}/shop-v2", {"spec": {"replicas": 3}})
    until("the new side is ready", lambda: shop.endpoints("shop-v2") == 3)
    operator.start()
    shop.until_phase(Phase.WAITING)
    assert behind(shop) == {"shop-v2"}
    operator.kill()
    operator.start()
    shop.request(RequestVerb.APPROVE, "ok")
    assert shop.until_ended().phase is Phase.SUCCEEDED
    writes = [
        request
        for request in cluster.audit.since(mark, namespace=shop.namespace)
        if request.resource == "services" and request.verb == "patch"
    ]
    assert {request.impersonated for request in writes} == {f"system:serviceaccount:{shop.namespace}:migrator"}
    assert [request.code for request in writes] == [200] * 4, "tried out by a dry run, claimed, switched, released"


@pytest.mark.local("kills, pauses or starts operators that are processes")
def test_it_goes_back_through_a_kill_once_the_old_side_is_ready(shop: Shop, operator: Operator) -> None:
    put(shop)
    before = shop.objects()
    shop.apply(f"steps:\n{GREEN}{TURN}{ASK}")
    shop.until_phase(Phase.WAITING)
    path = f"{shop.deployments}/shop-v1"
    shop.api.patch(path, _behaviour("never-ready"))
    until("no pod of the old side is ready", lambda: shop.endpoints("shop-v1") == 0)
    shop.request(RequestVerb.ABORT)
    says = "Service front cannot be switched back yet: 0 pods with app=shop-v1 are ready, and 2 are needed"
    shop.until(lambda s: s.current is not None and says in s.current.message)
    operator.kill()
    assert behind(shop) == {"shop-v2"}
    shop.api.patch(path, _behaviour(None))
    operator.start()
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert behind(shop) == {"shop-v1"}
    # Whose patches made the pods unready and ready again owns what they wrote.
    assert without_owners(shop.objects()) == without_owners(before)


def _behaviour(word: str | None) -> Any:
    """What the simulated pods of a Deployment do. Recreated all at once, so that none of before is left."""
    annotations = {"harness.cutover.dev/behaviour": word}
    strategy = {"type": "Recreate", "rollingUpdate": None} if word else {"type": "RollingUpdate"}
    return {"spec": {"strategy": strategy, "template": {"metadata": {"annotations": annotations}}}}


def test_what_another_writer_does_to_the_service(shop: Shop) -> None:
    """Another selector is left and told, with the command that settles it; a new label or port is kept."""
    put(shop)
    before = shop.objects()
    shop.apply(f"steps:\n{GREEN}{TURN}{ASK}")
    shop.until_phase(Phase.WAITING)
    path = f"/api/v1/namespaces/{shop.namespace}/services/front"
    shop.api.patch(path, {"spec": {"selector": {"app": "shop-v3"}}, "metadata": {"labels": {"owner": "other"}}})
    shop.request(RequestVerb.ABORT)
    status = shop.until_phase(Phase.STUCK)
    assert status.reason == "ForeignChange"
    assert 'spec.selector of Service front is {"app": "shop-v3"}, was {"app": "shop-v1"} before' in status.message
    command = re.search(r"kubectl patch service front -n (\S+) --type=json -p ('.*')$", status.message)
    assert command is not None
    shop.api.patch(path, json.loads(shlex.split(command[2])[0]), kind="json")
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert service(shop)["metadata"]["labels"] == {"team": "shop", "owner": "other"}
    shop.api.patch(path, {"metadata": {"labels": {"owner": None}}})
    # Who ran the command has written the selector, so it is theirs.
    assert without_owners(shop.objects()) == without_owners(before)


def test_what_is_in_the_way_is_reported_before_anything_is_changed(shop: Shop) -> None:
    put(
        shop,
        FRONT
        + "---\n"
        + FRONT.replace("name: front", "name: by-hand").replace("selector: {app: shop-v1}, ", "")
        + "---\n{apiVersion: v1, kind: Service, metadata: {name: outside, namespace: NAMESPACE}, "
        "spec: {type: ExternalName, externalName: shop.example}}\n",
    )
    before = shop.objects()
    shop.apply("""
startDeadline: 1s
steps:
  - {name: gone, switch: {service: back, selector: {app: shop-v2}}}
  - {name: hand, switch: {service: by-hand, selector: {app: shop-v2}}}
  - {name: outside, switch: {service: outside, selector: {app: shop-v2}}}
  - {name: nobody, switch: {service: front, selector: {colour: green}}}
""")
    shop.refuses(
        before,
        f"steps[gone].switch: there is no Service back in namespace {shop.namespace}; create it, or fix the name",
        "steps[hand].switch.service: Service by-hand has no selector, so its endpoints are set by hand; add one first",
        "steps[outside].switch.service: Service outside is of type ExternalName, so it has no pods; name another Service",
        f"steps[nobody].switch.selector: no workload in namespace {shop.namespace} creates pods with app=shop-v1, colour=green",
    )
