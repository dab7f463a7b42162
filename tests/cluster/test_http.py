"""The gate `http` against a real server that asks for a token: forward, backward, with faults; and what it answers goes nowhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, Status, Verdict
from harness.api import Api
from harness.cluster import ROOT, Cluster
from support.cluster.shop import DEPLOY, Operator, Shop
from support.fakes.http_server import HttpServer, RequestHandler
from support.fakes.json_server import JsonServer

IMAGE_ENTRY = Path(sys.executable).with_name("cutover-operator")
"""What the image runs."""
pytestmark = [pytest.mark.cluster, pytest.mark.local("its server is on this machine")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonServer]:
    made = JsonServer(tmp_path_factory.mktemp("login") / "token")
    yield made
    made.close()


@pytest.fixture(scope="module")
def other(
    cluster: Cluster, operator: Operator, page: JsonServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """An operator with providers of its own. The session's operator sees all namespaces, so it is stopped first."""
    operator.stop()
    server = {"url": page.url, "bearerTokenFile": str(page.token), "timeout": 1, "maxBytes": 4096}
    providers = cluster.prometheus.providers | {
        "status": {"http": server},
        "stranger": {"http": {"url": page.url}},
        "late": {"http": server | {"bearerTokenFile": f"{page.token}-late"}},
    }
    made = Operator(cluster, tmp_path_factory.mktemp("other"), providers, name="other", program=(str(IMAGE_ENTRY),))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def store(api: Api, namespace: str, other: Operator, page: JsonServer) -> Shop:
    """A shop whose plans the operator with the token carries out."""
    assert other.alive
    page.document = {"errors": 0.0, "parts": [{"name": "db", "lag": 2}, {"name": "web", "lag": "none"}]}
    made = Shop(api, namespace)
    made.create()
    return made


GATE = '{name: errors, http: {provider: status, path: /status, jsonPath: $.errors}, pass: {max: "0.5"}}'
SHIFT = """
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [10, 50, 100]}
    gates:
      - name: errors
        interval: 1s
        successThreshold: 2
        http: {provider: status, path: /status, query: {app: shop-v2}, jsonPath: $.errors}
        pass: {max: "0.5"}
"""


def test_a_good_number_lets_it_through_and_a_rotated_token_works(store: Shop, page: JsonServer) -> None:
    first = "  - {name: first, check: {}, gates: [GATE]}\n".replace("GATE", GATE)
    store.apply(f"steps:\n{first}  - {{name: look, approve: {{message: go}}}}\n{DEPLOY.strip(chr(10))}{SHIFT}")
    status = store.until(lambda status: status.phase is Phase.WAITING)
    page.rotate("second")
    page.answers = {True: 0, False: 0}
    store.request(RequestVerb.APPROVE, status.steps[1].name)
    assert store.until_ended().phase is Phase.SUCCEEDED
    assert store.weights() == [0, 100]
    assert page.answers[True] >= 6, "two samples for each of three weights"
    assert page.answers[False] == 0
    assert store.leftovers() == []


def test_a_bad_number_rolls_everything_back_and_no_secret_is_shown(
    store: Shop, page: JsonServer, other: Operator
) -> None:
    before = store.objects()
    store.apply(f"steps:{DEPLOY}{SHIFT}".replace("successThreshold: 2", "successThreshold: 1000"))
    store.until(lambda status: "passing samples in a row" in _says(status, "errors")[1])
    assert store.weights() == [90, 10]
    page.document = {"errors": 0.75, "why": "s3cret"}
    status = store.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.message == "gate errors failed: 0.75, must be <= 0.5"
    assert store.objects() == before
    assert store.leftovers() == []
    _nothing_secret(store, other)


PROBLEMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "html": ("status", {"path": "/html"}, "the response of provider status is not JSON"),
    "large": ("status", {"path": "/large"}, "the response of provider status is too large; the maximum is 4096 bytes"),
    "slow": ("status", {"path": "/slow"}, "provider status gave no answer within 1s"),
    "moved": ("status", {"path": "/moved"}, "provider status answered with a redirect, which is not followed (HTTP 302)"),
    "broken": ("status", {"path": "/broken"}, "provider status rejected the query (HTTP 500)"),
    "stranger": ("stranger", {"path": "/status"}, "provider stranger rejected the operator's credentials (HTTP 401)"),
    "nothing": ("status", {"path": "/status", "jsonPath": "$.nothing"}, "the JSONPath finds nothing in the response"),
    "several": ("status", {"path": "/status", "jsonPath": "$.parts[*].lag"}, "the JSONPath finds several values in the response, not one"),
    "text": ("status", {"path": "/status", "jsonPath": "$.parts[?@.name == 'web'].lag"}, "the JSONPath finds a string, not a number"),
}  # fmt: skip


def _says(status: Status, name: str) -> tuple[Verdict, str]:
    gates = status.current.gates if status.current else ()
    return next(((gate.verdict, gate.message) for gate in gates if gate.name == name), (Verdict.PASS, ""))


def test_no_usable_number_is_never_a_pass(store: Shop, other: Operator) -> None:
    gates = [
        {
            "name": name,
            "interval": "1s",
            "http": {"provider": provider, "jsonPath": "$.errors", **fields},
            "pass": {"max": "100"},
        }
        for name, (provider, fields, _) in PROBLEMS.items()
    ]
    store.apply({"steps": [{"name": "soak", "check": {}, "gates": gates}]})
    wanted = {name: (Verdict.WAIT, note) for name, (_, _, note) in PROBLEMS.items()}
    status = store.until(lambda s: {name: _says(s, name) for name in PROBLEMS} == wanted, deadline=30)
    assert status.phase is Phase.RUNNING
    store.api.delete(f"{store.plans}/plan")
    _nothing_secret(store, other)


class Latencies(HttpServer):
    """Metrics of both versions, without load: each has a latency while it has weight, as it would with requests."""

    def __init__(self, store: Shop) -> None:
        class Handler(RequestHandler):
            def do_GET(self) -> None:
                lines = (
                    f'latency{{app="{app}"}} {ms}\n'
                    for (app, ms), weight in zip(_LATENCIES, store.weights(), strict=True)
                    if weight
                )
                self.reply("".join(lines).encode(), Content_Type="text/plain; version=0.0.4")

        super().__init__(Handler)


_LATENCIES = [("shop-v1", 300), ("shop-v2", 330)]


@pytest.fixture
def latencies(cluster: Cluster, store: Shop) -> Iterator[None]:
    made = Latencies(store)
    cluster.prometheus.scrape("latencies", f"127.0.0.1:{made.port}")
    cluster.prometheus.wait_up("latencies", 1)
    yield
    cluster.prometheus.scrape("latencies")
    made.close()


@pytest.mark.parametrize("failed", [0, 1], ids=["forward", "backward"])
@pytest.mark.usefixtures("latencies")
def test_the_example(store: Shop, page: JsonServer, failed: int) -> None:
    """With gauges for its quantiles. At its last weight the old version has none, as it would have without requests."""
    text = (ROOT / "examples/compared-canary.yaml").read_text().replace("checkout-migrator", "migrator")
    spec = yaml.safe_load(text.replace("checkout-v", "shop-v").replace("{name: checkout}", "{name: shop}"))["spec"]
    deploy, shift, finish = spec["steps"]
    deploy["gates"][0]["readiness"]["for"] = shift["traffic"]["dwell"] = finish["traffic"]["dwell"] = "0s"
    for gate in [*shift["gates"], *finish["gates"]]:
        gate["interval"] = "1s"
        if compared := gate.get("prometheus"):
            for field in ("query", "baseline"):
                compared[field] = f"latency{{{re.findall('app=[^}]*', compared[field])[0]}}}"
    before = store.objects()
    page.document = {"parts": [{"name": "cart", "failed": 7}, {"name": "payments", "failed": failed}]}
    store.apply(spec)
    status = store.until_ended()
    assert status.phase is (Phase.ROLLED_BACK if failed else Phase.SUCCEEDED)
    if failed:
        assert status.failure is not None
        assert status.failure.message == "gate payments failed: 1, must be <= 0"
        assert store.objects() == before
    else:
        assert store.weights() == [0, 100]
    assert store.leftovers() == []


def test_a_provider_of_the_wrong_kind_is_missing(store: Shop) -> None:
    gate = {"name": "errors", "prometheus": {"provider": "status", "query": "up"}, "pass": {"max": "1"}}
    store.apply({"startDeadline": "1s", "steps": [{"name": "soak", "check": {}, "gates": [gate]}]})
    status = store.until_ended()
    assert status.phase is Phase.REFUSED
    says = "steps[soak].gates[errors].prometheus.provider: there is no provider status of kind prometheus; the administrator has configured: default, down, hasty"
    assert status.message == says


def test_a_token_that_is_not_there_keeps_only_the_plan_that_needs_it_and_counts_once_it_is(
    store: Shop, page: JsonServer, other: Operator
) -> None:
    """The operator has started without it: the other plans of this file are proof."""
    late = Path(f"{page.token}-late")
    gate = GATE.replace("provider: status", "provider: late")
    store.apply(f"steps:\n  - {{name: soak, check: {{}}, gates: [{gate}]}}")
    status = store.until(lambda status: status.phase is Phase.PENDING and bool(status.message))
    says = "the operator cannot use its credentials for provider late; the operator's log names the file to fix"
    assert status.message == f"steps[soak].gates[errors].http.provider: {says}"
    assert f"providers.late.http.bearerTokenFile: {late} cannot be read" in other.log.read_text()
    late.write_text(page.token.read_text())
    assert store.until_ended().phase is Phase.SUCCEEDED


def _nothing_secret(store: Shop, other: Operator) -> None:
    """Neither the token nor anything that the server answered."""
    assert "s3cret" not in str(store.api.list(store.plans))
    assert "s3cret" not in str(store.api.list(f"/apis/events.k8s.io/v1/namespaces/{store.namespace}/events"))
    assert Path(other.log).stat().st_size > 0
    assert "s3cret" not in other.log.read_text()
