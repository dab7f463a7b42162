"""The order in which Istio tries routes: each row of the tables in docs/routing.md, asked of istiod and Envoy by requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.api import Api
from harness.cluster import ROOT, Cluster
from harness.envoy import LABELS, SYSTEM
from harness.process import free_ports
from support.cluster.istio_order import NAMESPACES, ROWS, Order, answer

pytestmark = [pytest.mark.cluster, pytest.mark.local("asks istiod and the Envoys of the local mesh")]

ON_ITS_OWN_LISTENER = ("rule-host-of-the-listener", "rule-gateways-namespace", "rule-ties-of-hosts")


TIES = ("vs-ties", "rule-ties", "rule-ties-of-hosts")


def _make_as_old(api: Api, bodies: list[dict[str, Any]]) -> None:
    """All of them are created in one second."""
    for _ in range(10):
        if len({api.get(api.path(body))["metadata"]["creationTimestamp"] for body in bodies}) == 1:
            return
        for body in bodies:
            api.delete(api.path(body))
        for body in bodies:
            api.apply(body)
    raise AssertionError("they could not be created in one second")


def _gateways(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Two with hostnames, on the ports of the gateways that serve all."""
    place = {"name": "order", "namespace": SYSTEM}
    port = {"number": cluster.mesh.gateway_port, "name": "http-order", "protocol": "HTTP"}
    server = {"port": port, "hosts": ["one.vs-host-of-the-gateway.order.example"], "bind": "127.0.0.1"}
    yield {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": place,
        "spec": {"selector": LABELS, "servers": [server]},
    }
    listeners = [
        {"name": name[:20], "port": 80, "protocol": "HTTP", "hostname": f"one.{name}.order.example", "allowedRoutes": {"namespaces": {"from": "All"}}}
        for name in ON_ITS_OWN_LISTENER
    ]  # fmt: skip
    address = {"type": "Hostname", "value": f"gateway.{SYSTEM}.svc.cluster.local"}
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": place,
        "spec": {"gatewayClassName": "istio", "addresses": [address], "listeners": listeners},
    }


@pytest.fixture(scope="module")
def order(cluster: Cluster, api: Api) -> Iterator[dict[str, Any]]:
    """All rows at once: what is to be older first. Then the address of each way through which requests are sent."""
    rows = {name: Order(name) for name in ROWS}
    for name, make in ROWS.items():
        make(rows[name])
    made = [
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES),
        *_gateways(cluster),
        *(body for row in rows.values() for body in row.made[0]),
    ]
    try:
        for body in made:
            api.apply(body)
        for name in TIES:
            _make_as_old(api, rows[name].made[0])
        (port,) = free_ports(1)
        api.apply(_sidecar(port))
        cluster.mesh.start_sidecar("side", NAMESPACES[0])
        time.sleep(1)  # an age is in whole seconds
        for body in (body for row in rows.values() for body in row.made[1]):
            made.append(body)
            api.apply(body)
        cluster.mesh.wait_synced()
        ways = {"virtual": cluster.mesh.gateway_url, "rules": cluster.mesh.routes_url, "mesh": f"http://127.0.0.1:{port}"}  # fmt: skip
        yield {"rows": rows, "ways": ways}
    finally:
        cluster.mesh.stop_one("side")
        for body in reversed(made):
            api.delete(api.path(body))


def _sidecar(port: int) -> dict[str, Any]:
    """The sidecar listens on a port of its own, since nothing redirects connections here."""
    egress = {
        "port": {"number": port, "protocol": "HTTP_PROXY", "name": "http"},
        "bind": "127.0.0.1",
        "captureMode": "NONE",
        "hosts": ["*/*"],
    }
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "side", "namespace": NAMESPACES[0]},
        "spec": {"workloadSelector": {"labels": {"app": "side"}}, "egress": [egress]},
    }


@pytest.mark.parametrize("name", ROWS)
def test_who_answers(order: dict[str, Any], name: str) -> None:
    row, ways = order["rows"][name], order["ways"]
    found = [(ask.host, ask.path, answer(ways[ask.through], ask)) for ask in row.asks]
    assert found == [(ask.host, ask.path, ask.answers) for ask in row.asks]
    assert found


def test_the_tables_have_these_rows_and_no_others() -> None:
    text = (ROOT / "docs" / "routing.md").read_text()
    told = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [name for name in told if name.partition("-")[0] in ("vs", "mesh", "rule")] == list(ROWS)
