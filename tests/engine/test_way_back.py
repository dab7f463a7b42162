"""The way back of a real driver: the calls it costs while it waits, and how long a deletion waits for it."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from cutover.ports import DEPLOYMENTS, Sample
from cutover.requests import RequestVerb
from cutover.status import Phase
from support.shop import NAMESPACE, V1, plan, shop
from support.simulation import Simulation

BEHIND_A_WALL = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}
  - {name: wall, deploy: {workload: {name: other}, replicas: 2}, irreversible: true}
  - {name: after, deploy: {workload: {name: other}, images: [{container: app, image: "other:2"}]}}
  - {name: ok, approve: {message: go}}
"""


def with_another(cluster: Any) -> None:
    """The shop, and a Deployment that no traffic rests on."""
    shop(cluster)
    other = copy.deepcopy(cluster.objects[V1])
    other["metadata"] = {"name": "other", "namespace": NAMESPACE}
    other["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    cluster.put(DEPLOYMENTS, other)


async def test_an_undo_that_waits_behind_a_wall_costs_a_look_now_and_then() -> None:
    run = Simulation(plan(BEHIND_A_WALL), put=with_another)
    run.metrics.answer = lambda _: Sample(0.1)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.rollouts = False
    run.request(RequestVerb.ABORT)
    before = run.switch.calls
    after = await run.turn()
    assert run.phase is Phase.UNWINDING
    assert run.status.current is not None
    assert run.status.current.step == "after"
    assert after is not None
    assert after > timedelta(seconds=1)
    assert run.switch.calls - before < 30
