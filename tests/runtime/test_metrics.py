"""The operator's own metrics: what is counted, under which names, and that no plan's name is among the labels."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from cutover.adapters.http_trace import TracedRequest, classify
from cutover.errors import Unavailable
from cutover.runtime.metrics import Metrics
from cutover.saga.turn import Notice
from harness.cluster import ROOT


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    text, content_type = metrics.text("text/plain")
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(text.decode())
    return {
        (
            found.name,
            *(
                found.labels[key]
                for key in ("error", "phase", "reason", "verb", "resource", "code", "provider")
                if key in found.labels
            ),
        ): found.value
        for family in families
        for found in family.samples
    }


def test_what_is_counted() -> None:
    metrics = Metrics(
        lambda: ["Running", "Running", ""], lambda: 4, lambda: True, lambda: {"default": True, "status": False}
    )
    with metrics.turn():
        pass
    with pytest.raises(Unavailable), metrics.turn():
        raise Unavailable("away")
    metrics.request_ended(TracedRequest("patch", "virtualservices.networking.istio.io", 200, 0.004, impersonated=True))
    metrics.request_ended(TracedRequest("get", "leases.coordination.k8s.io", 0, 5.0, impersonated=False))
    metrics.transition(Notice("GateFailed", "gate errors failed", warning=True))
    metrics.event_dropped()
    seen = samples(metrics)
    assert seen["cutover_plans", "Running"] == 2
    assert seen["cutover_plans", "Pending"] == 1
    assert seen["cutover_plans", "Stuck"] == 0
    assert seen["cutover_queue_depth",] == 4
    assert seen["cutover_lease_held",] == 1
    assert seen["cutover_turn_duration_seconds_count",] == 2
    assert seen["cutover_turn_failures_total", "Unavailable"] == 1
    assert seen["cutover_api_requests_total", "patch", "virtualservices.networking.istio.io", "200"] == 1
    assert seen["cutover_api_requests_total", "get", "leases.coordination.k8s.io", "0"] == 1
    assert ("cutover_api_request_duration_seconds_count", "get", "leases.coordination.k8s.io") not in seen
    assert seen["cutover_target_writes_total", "virtualservices.networking.istio.io", "200"] == 1
    assert seen["cutover_transitions_total", "GateFailed"] == 1
    assert seen["cutover_events_dropped_total",] == 1
    assert seen["cutover_provider_usable", "default"] == 1
    assert seen["cutover_provider_usable", "status"] == 0


def test_every_metric_stands_in_the_table_of_the_documents() -> None:
    text, _ = Metrics(list, lambda: 0, lambda: False, dict).text("text/plain")
    names = {line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE cutover_")}
    table = (ROOT / "docs" / "operating.md").read_text()
    assert len(names) == 12
    assert {name for name in names if f"| `{name}` |" not in table} == set()


@pytest.mark.parametrize(
    ("method", "path", "verb", "resource"),
    [
        ("GET", "/apis/apps/v1/namespaces/shop/deployments/till", "get", "deployments.apps"),
        ("GET", "/apis/apps/v1/namespaces/shop/deployments", "list", "deployments.apps"),
        ("GET", "/apis/cutover.dev/v1alpha1/migrationplans?watch=true", "watch", "migrationplans.cutover.dev"),
        ("PUT", "/apis/cutover.dev/v1alpha1/namespaces/shop/migrationplans/p/status", "update", "migrationplans.cutover.dev/status"),
        ("DELETE", "/apis/apps/v1/namespaces/shop/controllerrevisions", "deletecollection", "controllerrevisions.apps"),
        ("GET", "/api/v1/namespaces", "list", "namespaces"),
        ("GET", "/api/v1/namespaces/shop/pods", "list", "pods"),
        ("POST", "/k8s/clusters/c-1/apis/events.k8s.io/v1/namespaces/shop/events", "create", "events.events.k8s.io"),
        ("GET", "/apis", "get", ""),
        ("GET", "/apis/apps/v1", "get", ""),
    ],
)  # fmt: skip
def test_requests_by_verb_and_resource(method: str, path: str, verb: str, resource: str) -> None:
    assert classify(method, URL(f"https://api:6443{path}")) == (verb, resource)
