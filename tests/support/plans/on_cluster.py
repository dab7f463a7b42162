"""Plans for the fault tests on the real cluster, and what people do in them. They end the same way however often anybody dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.node import placement
from harness.process import until
from support.cluster.shop import Shop
from support.fakes.migration_tool import ROLE


def _nobody(_: Shop) -> None:
    """Nobody does anything."""


@dataclass(frozen=True)
class Story:
    """A plan over the shop.

    Attributes:
        spec: of the plan. LEDGER in it is a file of its own, in which its Jobs write what they do.
        people: what people do while it runs; they wait on the watch for the moment.
        more: manifests of what it needs beside the shop.
    """

    name: str
    spec: str
    end: Phase
    people: Callable[[Shop], None] = _nobody
    more: str = ""


_DEPLOY = """
  - name: deploy
    deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 2}
    gates: [{name: pods, readiness: {percent: 100}}]
"""
_PAIR = "virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}"
_CANARY = f"""
steps:{_DEPLOY}
  - name: shift
    traffic: {{{_PAIR}, weights: [10, 25, 50, 100]}}
    gates: [{{name: errors, interval: 1s, prometheus: {{query: vector(0)}}, pass: {{max: "0.5"}}}}]
"""
_FAILING = f"""
steps:{_DEPLOY}
  - {{name: shift, traffic: {{{_PAIR}, weights: [10, 50]}}}}
  - name: rest
    traffic: {{{_PAIR}, weights: [80, 100]}}
    gates: [{{name: errors, interval: 1s, prometheus: {{query: vector(0.9)}}, pass: {{max: "0.5"}}}}]
"""
_PEOPLE = f"""
steps:{_DEPLOY}
  - {{name: ok, approve: {{message: "numbers look right?"}}}}
  - {{name: shift, traffic: {{{_PAIR}, weights: [10, 100], dwell: 10m}}}}
"""
_BACK_AND_FORTH = f"""
steps:{_DEPLOY}
  - {{name: old, deploy: {{workload: {{name: shop-v1}}, images: [{{container: app, image: "shop:1b"}}]}}}}
  - {{name: soak, check: {{for: 200ms}}, gates: [{{name: pods, readiness: {{workload: {{name: shop-v2}}}}}}]}}
  - {{name: there, traffic: {{{_PAIR}, weights: [50, 100]}}}}
  - {{name: back, traffic: {{virtualService: {{name: shop}}, from: {{host: shop-v2}}, to: {{host: shop-v1}}, weights: [100]}}}}
"""


def _job(script: str) -> str:
    container = {"name": "tool", "image": "tool:1", "command": ["sh", "-c", script]}
    return json.dumps({"spec": {"template": {"spec": {**placement(), "containers": [container]}}}})


_JOB = json.dumps({"template": _job("echo up >> LEDGER"), "undo": _job("echo down >> LEDGER")})
_EVERY_KIND = f"""
steps:
  - {{name: flip, flags: {{configMap: flags, set: {{USE_NEW_SCHEMA: "true"}}, reload: [{{name: reader}}]}}}}
  - name: schema
    job: {_JOB}{_DEPLOY}
  - {{name: front, switch: {{service: front, selector: {{app: shop-v2}}}}}}
  - name: shift
    traffic:
      {{{_PAIR}, weights: [50, 100], mirror: {{percent: 50}}, match: [{{headers: {{x-canary: {{exact: always}}}}}}]}}
  - name: soak
    check: {{for: 200ms}}
    gates: [{{name: errors, interval: 1s, prometheus: {{query: vector(ERRORS)}}, pass: {{max: "0.5"}}}}]
"""
_HTTP_ROUTE = f"""
steps:{_DEPLOY}
  - name: shift
    traffic:
      httpRoute: {{name: shop}}
      from: {{host: shop-v1}}
      to: {{host: shop-v2}}
      weights: [50, 100]
      mirror: {{percent: 50}}
      match: [{{headers: {{x-canary: {{exact: always}}}}}}]
      stickiness: {{cookie: shop-version}}
  - name: soak
    check: {{for: 200ms}}
    gates: [{{name: errors, interval: 1s, prometheus: {{query: vector(0.9)}}, pass: {{max: "0.5"}}}}]
"""
_THE_HTTP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: NAMESPACE}
spec:
  hostnames: [routes.NAMESPACE.example]
  parentRefs: [{name: gateway, namespace: istio-system}]
  rules:
    - matches: [{path: {value: /help}}]
      backendRefs: [{name: shop-v1, port: 80}]
    - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-via, value: gateway}]}}]
      backendRefs:
        - {name: shop-v1, port: 80, weight: 100}
        - {name: shop-v2, port: 80, weight: 0}
"""
_MORE = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: flags, namespace: NAMESPACE}}
data: {{USE_NEW_SCHEMA: "false"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: reader, namespace: NAMESPACE}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: reader}}}}
  template:
    metadata: {{labels: {{app: reader}}}}
    spec: {{containers: [{{name: app, image: "reader:1", envFrom: [{{configMapRef: {{name: flags}}}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: front, namespace: NAMESPACE}}
spec: {{selector: {{app: shop-v1}}, ports: [{{name: http, port: 80}}]}}
---{ROLE}"""


def _hold_approve_abort(shop: Shop) -> None:
    shop.until_phase(Phase.WAITING)
    shop.request(RequestVerb.PAUSE)
    shop.until_phase(Phase.PAUSED)
    shop.request(RequestVerb.RESUME)
    shop.until_phase(Phase.WAITING)
    shop.request(RequestVerb.APPROVE, "ok")
    until("weight 10 is written", lambda: shop.weights() == [90, 10])
    shop.request(RequestVerb.ABORT)


CANARY = Story("canary", _CANARY, Phase.SUCCEEDED)
FAILING = Story("canary-fails", _FAILING, Phase.ROLLED_BACK)
PEOPLE = Story("people", _PEOPLE, Phase.ROLLED_BACK, _hold_approve_abort)
BACK_AND_FORTH = Story("there-and-back", _BACK_AND_FORTH, Phase.SUCCEEDED)
EVERY_KIND = Story("every-kind", _EVERY_KIND.replace("ERRORS", "0"), Phase.SUCCEEDED, more=_MORE)
EVERY_KIND_FAILING = Story("every-kind-fails", _EVERY_KIND.replace("ERRORS", "0.9"), Phase.ROLLED_BACK, more=_MORE)
HTTP_ROUTE = Story("http-route-fails", _HTTP_ROUTE, Phase.ROLLED_BACK, more=_THE_HTTP_ROUTE)
STORIES = (CANARY, FAILING, PEOPLE, BACK_AND_FORTH, EVERY_KIND, EVERY_KIND_FAILING, HTTP_ROUTE)
