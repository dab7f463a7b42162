"""A cluster that knows no Istio, and at first no Gateway API either: the message, and that an HTTPRoute is all that a plan needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.control_plane import install
from harness.mesh import crds, gateway_crds
from harness.process import until
from support.cluster.shop import DEPLOY, SHIFT, Operator, Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("starts a control plane of its own, without a mesh")]

RULES = SHIFT.replace("virtualService", "httpRoute").replace("[10, 25", "[25")
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: NAMESPACE}
spec:
  rules:
    - backendRefs:
        - {name: shop-v1, port: 80, weight: 100}
        - {name: shop-v2, port: 80, weight: 0}
"""


@dataclass
class Bare:
    cluster: Cluster
    operator: Operator
    shop: Shop


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    folder = tmp_path_factory.mktemp("bare")
    cluster = Cluster(folder / "cluster", report=lambda _: None)
    cluster.start(())
    operator = Operator(cluster, folder, {}, program=(sys.executable, "-m", "cutover.cli", "run"))
    operator.start()
    shop = Shop(cluster.api, "bare")
    cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": shop.namespace}})
    for manifest in shop.manifests(pods=2):
        if manifest["kind"] != "VirtualService":
            cluster.api.apply(manifest)
    until("the shop's first pods are ready", lambda: shop.endpoints("shop-v1") == 2, deadline=60)
    yield Bare(cluster, operator, shop)
    operator.stop()
    cluster.stop()


def test_a_kind_that_is_not_installed_is_reported_by_name(bare: Bare) -> None:
    for name, step, says in (
        ("mesh", SHIFT, "VirtualService (networking.istio.io/v1)"),
        ("rules", RULES, "HTTPRoute (gateway.networking.k8s.io/v1)"),
    ):
        bare.shop.apply(f"startDeadline: 1s\nsteps:{DEPLOY}{step}", name)
        status = bare.shop.until_ended(name)
        assert status.phase is Phase.REFUSED
        assert status.message == f"steps[shift].traffic: the cluster has no kind {says}; install its CRD"


def test_an_http_route_is_all_that_is_needed(bare: Bare) -> None:
    """Its definition comes while the plan waits for it. No gateway serves it here, which is told and stops nothing."""
    shop = bare.shop
    shop.apply(f"startDeadline: 5m\nsteps:{DEPLOY}{RULES}", "later")
    shop.until(lambda s: s.phase is Phase.PENDING and "the cluster has no kind HTTPRoute" in s.message, "later")
    install(shop.api, *gateway_crds())
    shop.api.apply(yaml.safe_load(ROUTE.replace("NAMESPACE", shop.namespace)))
    assert shop.until_ended("later", deadline=90).phase is Phase.SUCCEEDED
    (rule,) = shop.api.get(f"{shop.http_routes}/shop")["spec"]["rules"]
    assert [entry["weight"] for entry in rule["backendRefs"]] == [0, 100]
    started = next(event["note"] for event in shop.events("later") if event["reason"] == "Started")
    assert "no gateway serves HTTPRoute shop (status.parents is empty)" in started


def test_an_older_istio_is_told_which_version_is_needed(bare: Bare) -> None:
    """Its other kinds are served in the new version, as where one definition was left behind by an upgrade."""
    for body in crds():
        group = body["spec"]["group"]
        if group == "networking.istio.io":
            if body["spec"]["names"]["kind"] == "VirtualService":
                versions = [one for one in body["spec"]["versions"] if one["name"] == "v1beta1"]
                body["spec"]["versions"] = [one | {"storage": True} for one in versions]
            install(bare.cluster.api, body)
    bare.shop.apply(f"startDeadline: 1s\nsteps:{DEPLOY}{SHIFT}", "older")
    status = bare.shop.until_ended("older")
    assert status.phase is Phase.REFUSED
    assert status.message == (
        "steps[shift].traffic: the cluster serves VirtualService of networking.istio.io as v1beta1 only, and Cutover needs v1, "
        "as Istio 1.22 and later have it; upgrade that"
    )
