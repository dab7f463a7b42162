"""No plan takes the pods away that its own routes send traffic to."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.ports import VIRTUAL_SERVICES
from cutover.saga.turn import Again, Done
from cutover.status.status import Phase
from cutover.steps.kind import Target
from cutover.testing import MemoryCluster
from cutover.testing.controllers import react
from support.fakes import deploy_step
from support.fakes.shop import ROUTES, V1, V2, plan, shop, virtual_service
from support.fakes.simulation import Simulation

_SCALED = "{{workload: {{name: shop-v2}}, replicas: {replicas}}}"


def carrying(new: int, replicas: int = 4) -> MemoryCluster:
    """A shop whose new version has so much of the traffic, and so many pods."""
    cluster = deploy_step.claimed()
    cluster.objects[V2]["spec"]["replicas"] = replicas
    react(cluster)
    cluster.put(VIRTUAL_SERVICES, virtual_service(100 - new, new))
    return cluster


@pytest.mark.parametrize(
    ("new", "replicas", "least"), [(100, 0, 4), (100, 3, 4), (50, 1, 2), (1, 0, 1), (26, 1, 2), (50, 2, 0), (0, 0, 0)]
)
async def test_a_workload_keeps_the_share_of_its_pods_that_it_has_of_the_traffic(
    new: int, replicas: int, least: int
) -> None:
    cluster = carrying(new)
    outcome = await deploy_step.do(cluster, _SCALED.format(replicas=replicas))
    if not least:
        assert isinstance(outcome, Again | Done), outcome
        assert cluster.objects[V2]["spec"]["replicas"] == replicas
        return
    assert isinstance(outcome, Again)
    assert outcome.message == (
        f"Deployment shop-v2 cannot go from 4 to {replicas} replicas while VirtualService shop gives its pods {new}% of the "
        f"requests of a route, which takes {least}; shift the traffic away in an earlier step, or leave replicas out"
    )
    assert cluster.objects[V2]["spec"]["replicas"] == 4
    cluster.put(VIRTUAL_SERVICES, virtual_service(100, 0))
    await deploy_step.do(cluster, _SCALED.format(replicas=replicas))
    assert cluster.objects[V2]["spec"]["replicas"] == replicas


async def test_it_is_refused_before_the_first_step_unless_an_earlier_one_may_move_the_traffic() -> None:
    cluster = carrying(100)
    step, work = deploy_step.step(_SCALED.format(replicas=0)), deploy_step.work(cluster)
    (problem,) = await step.examine(work)
    assert not problem.warning
    assert problem.where == "steps[roll].deploy.replicas"
    assert "cannot go from 4 to 0 replicas" in problem.message
    later = deploy_step.work(cluster, earlier=frozenset({Target(ROUTES.resource, ROUTES.name)}))
    assert await step.examine(later) == []


async def test_the_old_version_goes_once_it_has_no_traffic() -> None:
    spec: dict[str, Any] = plan("""
steps:
  - {name: new, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - {name: shift, traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100]}}
  - {name: old, deploy: {workload: {name: shop-v1}, replicas: 0}}
""")
    run = Simulation(spec, put=shop)
    assert await run.run() is Phase.SUCCEEDED
    spec["spec"]["steps"][1]["traffic"]["weights"] = [50]
    spec["spec"]["steps"][2]["timeout"] = "1m"
    run = Simulation(spec, put=shop)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert "cannot go from 3 to 0 replicas while VirtualService shop gives its pods 50%" in run.status.failure.message


async def test_the_old_version_goes_once_the_service_that_a_route_names_is_switched() -> None:
    """The route stays as it is: what it leads to is what the Service selects."""

    def behind_a_front(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = virtual_service()
        body["spec"]["http"][0]["route"] = [{"destination": {"host": "front"}}]
        cluster.put(VIRTUAL_SERVICES, body)

    run = Simulation(
        plan("""
steps:
  - {name: new, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - {name: turn, switch: {service: front, selector: {app: shop-v2}}}
  - {name: old, deploy: {workload: {name: shop-v1}, replicas: 0}}
"""),
        put=behind_a_front,
    )
    assert await run.run() is Phase.SUCCEEDED
    assert run.cluster.objects[V1]["spec"]["replicas"] == 0
