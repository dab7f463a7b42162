"""Sides of a shift that have pods in common: told when the run begins, with the label that keeps them apart, and minded on the way back."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.ports import DEPLOYMENTS, DESTINATION_RULES, SERVICES
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from cutover.testing.controllers import react
from steps.test_sides_without_pods import scale
from support.fakes.shop import V1 as OLD
from support.fakes.shop import deployment, plan, service, shop
from support.fakes.simulation import Simulation

SHIFT = """
steps:
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]}
"""


def apart(selector: dict[str, dict[str, str]], labels: dict[str, dict[str, str]]) -> Any:
    """The shop with other selectors of its Services and other labels of its pods."""

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        for name, chosen in selector.items():
            cluster.put(SERVICES, service(name, chosen))
        for name, of_pods in labels.items():
            body = deployment(name, f"{name}:1", 3)
            body["spec"]["template"]["metadata"]["labels"] = of_pods
            cluster.put(DEPLOYMENTS, body)
        react(cluster)

    return put


async def told(put: Any, spec: str = SHIFT) -> str:
    run = Simulation(plan(spec), put=put)
    await run.until(lambda: bool(run.status.run))
    (started,) = [notice for notice in run.recorder.notices if "started" in notice.message]
    return started.message


V1, V2 = {"app": "shop-v1", "team": "shop"}, {"app": "shop-v2", "team": "shop"}


async def test_the_old_service_selects_the_new_pods_too() -> None:
    message = await told(apart({"shop-v1": {"team": "shop"}}, {"shop-v1": V1, "shop-v2": V2}))
    assert message.partition("warnings: ")[2] == (
        "steps[shift].traffic.from: shop-v1 selects the pods of Deployment shop-v2, as shop-v2 does, so a rollback sends traffic to them; "
        "add to the selector of Service shop-v1 app: shop-v1, which only its own pods have"
    )


async def test_the_new_service_selects_the_old_pods_too() -> None:
    message = await told(apart({"shop-v2": {"team": "shop"}}, {"shop-v1": V1, "shop-v2": V2}))
    assert message.partition("warnings: ")[2] == (
        "steps[shift].traffic.to: shop-v2 selects the pods of Deployment shop-v1, as shop-v1 does, so the old version still answers at "
        "weight 100; add to the selector of Service shop-v2 app: shop-v2, which only its own pods have"
    )


async def test_both_services_select_the_same_pods() -> None:
    both = {"shop-v1": {"team": "shop"}, "shop-v2": {"team": "shop"}}
    message = await told(apart(both, {"shop-v1": V1, "shop-v2": V2}))
    for side, name in (("from", "shop-v1"), ("to", "shop-v2")):
        assert (
            f"steps[shift].traffic.{side}: {name} selects the pods of Deployment shop-v1, Deployment shop-v2" in message
        )
    assert message.count("a label that only its own pods have") == 2


@pytest.mark.parametrize("narrow", [True, False])
async def test_a_side_that_is_a_subset(*, narrow: bool) -> None:
    def put(cluster: MemoryCluster) -> None:
        apart({"shop-v1": {"team": "shop"}}, {"shop-v1": V1, "shop-v2": V2})(cluster)
        labels = {"app": "shop-v1"} if narrow else {"team": "shop"}
        rule = {"host": "shop-v1", "subsets": [{"name": "old", "labels": labels}]}
        cluster.put(DESTINATION_RULES, {"metadata": {"name": "shop"}, "spec": rule})
        body = next(body for ref, body in cluster.objects.items() if ref.resource.kind == "VirtualService")
        body["spec"]["http"][0]["route"][0]["destination"]["subset"] = "old"

    message = await told(put, SHIFT.replace("{host: shop-v1}", "{host: shop-v1, subset: old}"))
    says = "add to the labels of subset old app: shop-v1, which only its own pods have"
    assert (says in message) is not narrow
    assert ("warnings" in message) is not narrow


async def test_sides_of_their_own_are_not_told() -> None:
    assert "warnings" not in await told(apart({}, {"shop-v1": V1, "shop-v2": V2}))


GONE = SHIFT.replace("[50, 100]}", "[50, 100], drain: 0s}") + "  - {name: ok, approve: {message: go}}\n"


def weights(run: Simulation) -> list[int]:
    body = next(body for ref, body in run.cluster.objects.items() if ref.resource.kind == "VirtualService")
    return [entry["weight"] for entry in body["spec"]["http"][0]["route"]]


async def test_traffic_goes_back_when_pods_of_the_old_version_are_ready() -> None:
    """Those of the new one, which the old Service selects too, would only answer under another name."""
    run = Simulation(plan(GONE), put=apart({"shop-v1": {"team": "shop"}}, {"shop-v1": V1, "shop-v2": V2}))
    await run.until(lambda: run.phase is Phase.WAITING)
    scale(run.cluster, OLD, 0)
    run.request(RequestVerb.ABORT)
    says = (
        "traffic cannot be switched back yet: shop-v1 has no ready endpoint but those that shop-v2 selects too, "
        "so the new version would go on answering"
    )
    await run.until(lambda: says in run.status.message)
    assert weights(run) == [0, 100]
    scale(run.cluster, OLD, 3)
    assert await run.run() is Phase.ROLLED_BACK
    assert weights(run) == [100, 0]


@pytest.mark.parametrize(
    "selector", [{"shop-v1": {"team": "shop"}, "shop-v2": {"team": "shop"}}, {"shop-v2": {"team": "shop"}}, {}]
)
async def test_elsewhere_all_that_the_old_side_selects_counts(selector: dict[str, dict[str, str]]) -> None:
    run = Simulation(plan(GONE), put=apart(selector, {"shop-v1": V1, "shop-v2": V2}))
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert weights(run) == [100, 0]
