"""Plans for the fault tests on the real cluster, and what people do in them. They end the same way however often anybody dies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cutover.requests import RequestVerb
from cutover.status import Phase
from harness.process import until
from support.real import Shop


def _nobody(_: Shop) -> None:
    """Nobody does anything."""


@dataclass(frozen=True)
class Story:
    """A plan over the shop.

    Attributes:
        people: what people do while it runs; they wait on the watch for the moment.
    """

    name: str
    spec: str
    end: Phase
    people: Callable[[Shop], None] = _nobody


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


def _hold_approve_abort(shop: Shop) -> None:
    shop.until_phase(Phase.WAITING)
    shop.request(RequestVerb.HOLD)
    shop.until_phase(Phase.HELD)
    shop.request(RequestVerb.RESUME)
    shop.until_phase(Phase.WAITING)
    shop.request(RequestVerb.APPROVE, "ok")
    until("weight 10 is written", lambda: shop.weights() == [90, 10])
    shop.request(RequestVerb.ABORT)


CANARY = Story("canary", _CANARY, Phase.SUCCEEDED)
FAILING = Story("canary-fails", _FAILING, Phase.ROLLED_BACK)
PEOPLE = Story("people", _PEOPLE, Phase.ROLLED_BACK, _hold_approve_abort)
BACK_AND_FORTH = Story("there-and-back", _BACK_AND_FORTH, Phase.SUCCEEDED)
STORIES = (CANARY, FAILING, PEOPLE, BACK_AND_FORTH)
