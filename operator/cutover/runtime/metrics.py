"""The operator's own Prometheus metrics, in a registry of their own. Fed at the edges by app.py; no turn knows of them.

Labels are phases, reasons, verbs, kinds, codes and the administrator's providers: never a plan's name, so their number does not grow with the plans.
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
    """All of them.

    Args:
        phases: the phase of each plan that is known; empty for one that has none yet.
        depth: plans that wait for a turn.
        held: whether this process works, and does not stand by.
        usable: whether the credentials for each provider of numbers can be used, by its name.
    """

    def __init__(
        self,
        phases: Callable[[], Iterable[str]],
        depth: Callable[[], int],
        held: Callable[[], bool],
        usable: Callable[[], Mapping[str, bool]],
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that says when it began
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Plans(phases))
        registry.register(_Providers(usable))
        gauge = Gauge("cutover_queue_depth", "Plans that wait for a turn.", registry=registry)
        gauge.set_function(depth)
        gauge = Gauge("cutover_lease_held", "1 in the process that works, 0 in one that stands by.", registry=registry)
        gauge.set_function(held)
        self._turns = Histogram(
            "cutover_turn_duration_seconds", "Time of one turn of one plan.", buckets=_SECONDS, registry=registry
        )
        self._failures = Counter(
            "cutover_turn_failures_total", "Turns that failed and are tried again.", ["error"], registry=registry
        )
        self._requests = Counter(
            "cutover_api_requests_total",
            "Requests to the API server, Kopf's included; code 0: no answer.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "cutover_api_request_duration_seconds",
            "Time until the API server's answer began.",
            ["verb", "resource"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._writes = Counter(
            "cutover_target_writes_total",
            "Writes to targets, made as the account of a plan; code 0: no answer.",
            ["resource", "code"],
            registry=registry,
        )
        self._transitions = Counter(
            "cutover_transitions_total",
            "What happened to plans, as their events say it.",
            ["reason"],
            registry=registry,
        )
        self._messages = Counter(
            "cutover_messages_total",
            "Messages to people, by what became of them.",
            ["provider", "result"],
            registry=registry,
        )
        self._dropped = Counter("cutover_events_dropped_total", "Events that were not published.", registry=registry)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around one turn."""
        begun = time.perf_counter()
        try:
            yield
        except Exception as error:
            self._failures.labels(type(error).__name__).inc()
            raise
        finally:
            self._turns.observe(time.perf_counter() - begun)

    def request_ended(self, request: TracedRequest) -> None:
        """A request to the API server is over."""
        self._requests.labels(request.verb, request.resource, request.code).inc()
        if request.code:
            self._seconds.labels(request.verb, request.resource).observe(request.seconds)
        if request.impersonated:
            self._writes.labels(request.resource, request.code).inc()

    def transition(self, notice: Notice) -> None:
        """A plan made a transition."""
        self._transitions.labels(notice.reason).inc()

    def event_dropped(self) -> None:
        """An event was not published."""
        self._dropped.inc()

    def message_ended(self, provider: str, delivered: bool) -> None:  # noqa: FBT001 -- what the caller has is a truth value
        """A message was delivered, or given up."""
        self._messages.labels(provider, "delivered" if delivered else "dropped").inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """All of them as a scraper that accepts this reads them, and their content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Plans(Collector):
    """Counts plans only when somebody asks."""

    def __init__(self, phases: Callable[[], Iterable[str]]) -> None:
        self._phases = phases

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge a phase; those without a plan are 0."""
        tally = Tally(phase or Phase.PENDING for phase in self._phases())
        family = GaugeMetricFamily(
            "cutover_plans", "Plans by phase; none in a process that stands by.", labels=["phase"]
        )
        for phase in Phase:
            family.add_metric([phase], tally[phase])
        yield family


class _Providers(Collector):
    """Reads the files of credentials only when somebody asks; in between they may have been mended."""

    def __init__(self, usable: Callable[[], Mapping[str, bool]]) -> None:
        self._usable = usable

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge a provider."""
        family = GaugeMetricFamily(
            "cutover_provider_usable",
            "1 when the credentials for a provider of numbers can be used, 0 when the log says why not.",
            labels=["provider"],
        )
        for name, usable in self._usable().items():
            family.add_metric([name], usable)
        yield family
