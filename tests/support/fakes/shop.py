"""A small shop in memory: two Deployments, their Services and endpoints, one VirtualService, an account, and plans over them."""

from __future__ import annotations

import copy
import functools
from typing import Any

import yaml

from cutover.ports import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    DESTINATION_RULES,
    HTTP_ROUTES,
    NAMESPACES,
    PLANS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    VIRTUAL_SERVICES,
    WORKLOAD_ENTRIES,
    Ref,
)
from cutover.testing import MemoryCluster
from cutover.testing.controllers import react

NAMESPACE = "shop"
PLAN = Ref(PLANS, NAMESPACE, "shop-v2")
V1 = Ref(DEPLOYMENTS, NAMESPACE, "shop-v1")
V2 = Ref(DEPLOYMENTS, NAMESPACE, "shop-v2")
STORE = Ref(STATEFUL_SETS, NAMESPACE, "store")
AGENT = Ref(DAEMON_SETS, NAMESPACE, "agent")
ROUTES = Ref(VIRTUAL_SERVICES, NAMESPACE, "shop")
RULES = Ref(HTTP_ROUTES, NAMESPACE, "shop")
FRONT = Ref(SERVICES, NAMESPACE, "front")
FLAGS = Ref(CONFIG_MAPS, NAMESPACE, "flags")


def parsed(text: str) -> Any:
    """The document of a YAML text, as a copy; each text is parsed once, because thousands of runs begin with the same ones."""
    return copy.deepcopy(_parsed(text))


_parsed = functools.cache(yaml.safe_load)


def deployment(name: str, image: str, replicas: int) -> dict[str, Any]:
    manifest: dict[str, Any] = parsed(f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{team: shop}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - {{name: sidecar, image: proxy:1}}
        - {{name: app, image: {image}, envFrom: [{{configMapRef: {{name: flags}}}}]}}
""")
    return manifest


def service(name: str, selector: dict[str, str], *ports: dict[str, Any]) -> dict[str, Any]:
    """A Service with these ports; without any with port 80."""
    return {
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": list(ports) or [{"name": "http", "port": 80}]},
    }


def virtual_service(old: int = 100, new: int = 0) -> dict[str, Any]:
    manifest: dict[str, Any] = parsed(f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: shop, namespace: {NAMESPACE}}}
spec:
  hosts: [shop.example]
  http:
    - name: primary
      retries: {{attempts: 0}}
      route:
        - {{destination: {{host: shop-v1, port: {{number: 80}}}}, weight: {old}}}
        - {{destination: {{host: shop-v2, port: {{number: 80}}}}, weight: {new}}}
""")
    return manifest


def http_route(old: int = 100, new: int = 0) -> dict[str, Any]:
    """Without names, as the first releases have it, and with a status of its gateway."""
    manifest: dict[str, Any] = parsed(f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shop, namespace: {NAMESPACE}}}
spec:
  hostnames: [shop.example]
  parentRefs: [{{name: gateway}}]
  rules:
    - matches: [{{path: {{value: /help}}}}]
      backendRefs: [{{name: help, port: 80}}]
    - filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: recorder, port: 80}}, percent: 12}}}}]
      backendRefs:
        - {{name: shop-v1, port: 80, weight: {old}}}
        - {{name: shop-v2, port: 80, weight: {new}}}
status:
  parents:
    - parentRef: {{name: gateway}}
      conditions: [{{type: Accepted, status: "True"}}, {{type: ResolvedRefs, status: "True"}}]
""")
    return manifest


_STORE = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: store}}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 0}}
  template:
    metadata: {labels: {app: store}}
    spec:
      nodeSelector: {disk: fast}
      containers:
        - name: db
          image: db:1
          env: [{name: MODE, value: old}, {name: LEVEL, value: "1"}]
          resources: {limits: {cpu: "1"}}
"""
_AGENT = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: shop}
spec:
  selector: {matchLabels: {app: agent}}
  updateStrategy: {type: RollingUpdate}
  template:
    metadata: {labels: {app: agent}, annotations: {team: shop}}
    spec: {containers: [{name: agent, image: "agent:1"}]}
"""


def shop(cluster: MemoryCluster) -> None:
    """Put all of it into a cluster: v1 with three pods and all the traffic, v2 with none, two that get no traffic, and flags."""
    cluster.put(NAMESPACES, {"metadata": {"name": NAMESPACE, "namespace": ""}})
    cluster.put(SERVICE_ACCOUNTS, {"metadata": {"name": "migrator", "labels": {"cutover.dev/migrator": "true"}}})
    for name, replicas in (("shop-v1", 3), ("shop-v2", 0)):
        cluster.put(DEPLOYMENTS, deployment(name, f"{name}:1", replicas))
        cluster.put(SERVICES, service(name, {"app": name}))
    cluster.put(SERVICES, service(FRONT.name, {"app": "shop-v1"}))
    cluster.put(CONFIG_MAPS, {"metadata": {"name": FLAGS.name}, "data": {"USE_NEW_SCHEMA": "false", "COLOUR": "blue"}})
    cluster.put(STATEFUL_SETS, parsed(_STORE))
    cluster.put(DAEMON_SETS, parsed(_AGENT))
    cluster.put(VIRTUAL_SERVICES, virtual_service())
    cluster.exits = exits
    react(cluster)


def shop_with_a_mirror(cluster: MemoryCluster) -> None:
    """The shop, where somebody mirrors a part of the requests elsewhere, and another route stands above."""
    shop(cluster)
    body = virtual_service()
    (primary,) = body["spec"]["http"]
    primary |= {"mirror": {"host": "recorder", "port": {"number": 80}}, "mirrorPercentage": {"value": 12.5}}
    body["spec"]["http"].insert(
        0, {"match": [{"uri": {"prefix": "/help"}}], "route": [{"destination": {"host": "help"}}]}
    )
    cluster.put(VIRTUAL_SERVICES, body)


def shop_with_an_http_route(cluster: MemoryCluster) -> None:
    """The shop without Istio, where somebody mirrors a part of the requests elsewhere."""
    shop(cluster)
    cluster.delete(ROUTES)
    cluster.unknown |= {VIRTUAL_SERVICES, DESTINATION_RULES, WORKLOAD_ENTRIES}
    cluster.put(HTTP_ROUTES, http_route())


def shop_without_a_mesh(cluster: MemoryCluster) -> None:
    """Only the Service sends requests to the old pods."""
    shop(cluster)
    cluster.delete(ROUTES)


def shop_of_many_routes(cluster: MemoryCluster) -> None:
    """The shop, whose VirtualService has four routes over the pair, and other destinations beside it."""
    shop(cluster)
    body = virtual_service()
    pair = body["spec"]["http"][0]["route"]
    three = [
        {"destination": {"host": "other"}, "weight": 40},
        *({**entry, "weight": 60 - 60 * at} for at, entry in enumerate(pair)),
    ]
    body["spec"]["http"].insert(0, {"name": "api", "match": [{"uri": {"prefix": "/api"}}], "route": three})
    body["spec"]["tcp"] = [
        {"match": [{"port": 27017}], "route": [{"destination": {"host": "store"}}]},
        {"match": [{"port": 5432}, {"port": 5433}], "route": copy.deepcopy(pair)},
    ]
    body["spec"]["tls"] = [
        {"match": [{"sniHosts": ["shop.example", "www.shop.example"]}], "route": copy.deepcopy(pair)}
    ]
    cluster.put(VIRTUAL_SERVICES, body)


def exits(pod: dict[str, Any]) -> int | None:
    """The exit code with which a pod ends, as its image asks: ``tool:exit-3``, ``tool:hangs``; else 0."""
    tag = pod["containers"][0]["image"].partition(":")[2]
    return None if tag == "hangs" else int(tag.removeprefix("exit-")) if tag.startswith("exit-") else 0


def plan(spec: str) -> dict[str, Any]:
    """A MigrationPlan with this spec (YAML) and the shop's account."""
    document = {"serviceAccountName": "migrator"} | parsed(spec)
    return {"metadata": {"name": PLAN.name, "namespace": NAMESPACE}, "spec": document}


CANARY = """
steps:
  - name: deploy
    deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}
    gates: [{name: pods, readiness: {percent: 100}}]
  - name: shift
    traffic:
      virtualService: {name: shop}
      from: {host: shop-v1}
      to: {host: shop-v2}
      weights: [10, 50, 100]
      dwell: 1m
    gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""


RUNBOOK = """
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: app-migration
spec:
  http:
  - match:
    - headers:
        canary:
          exact: "true"
    route:
    - destination:
        host: app-v2
      weight: 100
  - route:
    - destination:
        host: app-v1
      weight: 90
    - destination:
        host: app-v2
      weight: 10  # Start with 10% traffic
"""
"""A canary with a header as people find it in a runbook. It lacks the hosts that a VirtualService needs."""

SOAK = '\n  - {name: soak, check: {for: 1m}, gates: [{name: g, prometheus: {query: x}, pass: {min: "5"}}]}'
"""A last step whose gate fails, so that all before it goes back."""
