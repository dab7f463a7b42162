"""The operator's own Prometheus metrics, in a registry of their own. Fed by app.py; turns know nothing of them.

Labels are phases, reasons, verbs, resources, codes and configured providers, never plan names: cardinality does not grow with the plans.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cutover.adapters.http_trace import TracedRequest
from cutover.saga.turn import Notice
from cutover.status.status import Phase

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics of the process.

    Args:
        phases: the phase of each known plan; empty for one that has none yet.
        depth: number of plans waiting for a turn.
        held: whether this process holds the Lease.
        usable: whether the credentials of each metrics provider can be used, by its name.
    """

    def __init__(
        self,
        phases: Callable[[], Iterable[str]],
        depth: Callable[[], int],
        held: Callable[[], bool],
        usable: Callable[[], Mapping[str, bool]],
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Plans(phases))
        registry.register(_Providers(usable))
        gauge = Gauge("cutover_queue_depth", "Plans waiting for a turn.", registry=registry)
        gauge.set_function(depth)
        gauge = Gauge("cutover_lease_held", "1 in the process that holds the Lease, 0 in a standby.", registry=registry)
        gauge.set_function(held)
        self._turns = Histogram(
            "cutover_turn_duration_seconds", "Duration of one turn of a plan.", buckets=_SECONDS, registry=registry
        )
        self._failures = Counter(
            "cutover_turn_failures_total", "Turns that failed and will be retried.", ["error"], registry=registry
        )
        self._requests = Counter(
            "cutover_api_requests_total",
            "Requests to the API server, including Kopf's; code 0 means no answer.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "cutover_api_request_duration_seconds",
            "Time until the API server began to answer.",
            ["verb", "resource"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._writes = Counter(
            "cutover_target_writes_total",
            "Writes to targets as a plan's service account; code 0 means no answer.",
            ["resource", "code"],
            registry=registry,
        )
        self._transitions = Counter(
            "cutover_transitions_total",
            "Transitions of plans, by the reason in their events.",
            ["reason"],
            registry=registry,
        )
        self._messages = Counter(
            "cutover_messages_total",
            "Messages, by result: delivered or dropped.",
            ["provider", "result"],
            registry=registry,
        )
        self._dropped = Counter(
            "cutover_events_dropped_total", "Events that could not be published.", registry=registry
        )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Measure one turn."""
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            self._failures.labels(type(error).__name__).inc()
            raise
        finally:
            self._turns.observe(time.perf_counter() - started)

    def request_ended(self, request: TracedRequest) -> None:
        """A request to the API server has ended."""
        self._requests.labels(request.verb, request.resource, request.code).inc()
        if request.code:
            self._seconds.labels(request.verb, request.resource).observe(request.seconds)
        if request.impersonated:
            self._writes.labels(request.resource, request.code).inc()

    def transition(self, notice: Notice) -> None:
        """A plan made a transition."""
        self._transitions.labels(notice.reason).inc()

    def event_dropped(self) -> None:
        """An event could not be published."""
        self._dropped.inc()

    def message_ended(self, provider: str, delivered: bool) -> None:  # noqa: FBT001 -- the caller has a truth value
        """A message was delivered or dropped."""
        self._messages.labels(provider, "delivered" if delivered else "dropped").inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the best format for this Accept header, and their content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Plans(Collector):
    """Counts plans only when scraped."""

    def __init__(self, phases: Callable[[], Iterable[str]]) -> None:
        self._phases = phases

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge per phase; 0 for phases without a plan."""
        tally = Tally(phase or Phase.PENDING for phase in self._phases())
        family = GaugeMetricFamily("cutover_plans", "Plans by phase; all 0 in a standby.", labels=["phase"])
        for phase in Phase:
            family.add_metric([phase], tally[phase])
        yield family


class _Providers(Collector):
    """Reads the credential files only when scraped, so that a fixed file shows without a restart."""

    def __init__(self, usable: Callable[[], Mapping[str, bool]]) -> None:
        self._usable = usable

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge per provider."""
        family = GaugeMetricFamily(
            "cutover_provider_usable",
            "1 when the credentials of a metrics provider can be used, 0 when not (the log says why).",
            labels=["provider"],
        )
        for name, usable in self._usable().items():
            family.add_metric([name], usable)
        yield family
