"""Istio's order of DestinationRules: each row of the table in docs/routing.md, asked of istiod by proxies of their own, and told by us."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cutover.objects.destination_rules import Client, DestinationRules
from harness.api import Api
from harness.cluster import Cluster
from support.plans.destination_rules import ROWS, Row

pytestmark = [pytest.mark.cluster, pytest.mark.local("asks the istiod of the local mesh")]

ADDRESSES = {"v1": "127.0.0.11", "v2": "127.0.0.12"}
RULES = "/apis/networking.istio.io/v1/destinationrules"


@pytest.fixture(scope="module")
def rows(cluster: Cluster) -> Iterator[dict[str, str]]:
    """The namespace of each row, with all that it has, known to istiod."""
    api, names = cluster.api, {row.what: f"rules-{row.what}" for row in ROWS}
    given = [(row, rule) for row in ROWS for rule in row.rules]
    for name in sorted({*names.values(), "elsewhere", *(r.place.replace("NS", names[row.what]) for row, r in given)}):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for name in names.values():
        spec = {"selector": {"app": "both"}, "ports": [{"name": "http", "port": 80}]}
        place = {"namespace": name}
        api.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "both", **place}, "spec": spec})
        for version, address in ADDRESSES.items():
            entry = {"address": address, "labels": {"app": "both", "version": version}, "ports": {"http": 80}}
            made = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "spec": entry}
            api.apply({**made, "metadata": {"name": version, **place}})
    for later in (False, True):
        for row, rule in given:
            if rule.later is later:
                api.apply(rule.manifest(names[row.what]))
        time.sleep(1.1)  # an age is told in whole seconds
    yield names
    for row, rule in given:
        made = rule.manifest(names[row.what])["metadata"]
        api.delete(f"/apis/networking.istio.io/v1/namespaces/{made['namespace']}/destinationrules/{made['name']}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_istio_and_we_tell_the_same(row: Row, rows: dict[str, str], cluster: Cluster, api: Api) -> None:
    namespace = rows[row.what]
    host = f"both.{namespace}.svc.cluster.local"
    ours = DestinationRules(api.get(RULES)["items"], host, namespace)
    for (place, labels), known in row.known:
        client = Client(place.replace("NS", namespace), labels)
        wanted = {subset: {ADDRESSES[version]} for subset, version in known.items()}

        def of_istio(client: Client = client) -> dict[str, set[str]]:
            there = cluster.mesh.known_to(client.namespace, client.labels)
            parts = {name.split("|")[2]: found for name, found in there.items() if name.endswith(f"|{host}")}
            assert parts.pop("") == {*ADDRESSES.values()}, "all endpoints, without a subset"
            return parts

        assert of_istio() == wanted, f"istiod, for {client}"
        rule = ours.counting(client)
        told = {subset: rule.labels(subset) for subset in rule.subsets} if rule else {}
        assert told == {subset: {"version": version} for subset, version in known.items()}, f"ours, for {client}"
