"""Real servers of the query API, asked by the adapter itself: what each makes of the same questions."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator, Mapping

import pytest

from cutover.adapters.providers import Providers
from cutover.ports import Sample
from cutover.settings.settings import Provider
from harness import tools
from harness.process import Process, free_ports, until
from harness.prometheus import Prometheus

pytestmark = pytest.mark.cluster

SERIES = "the query returns no series: there is no data, or it is stale"
ASKED: Mapping[str, Mapping[str, Sample]] = {
    "prometheus": {
        "vector(0.25)": Sample(0.25),
        "1 / 4": Sample(0.25),
        "vector(0) / vector(0)": Sample(None, "the query returns NaN, which is not a finite number"),
        "vector(1) / vector(0)": Sample(None, "the query returns +Inf, which is not a finite number"),
        "no_such_series": Sample(None, SERIES),
        '"text"': Sample(None, "the query returns a string, not one number"),
        "sum(": Sample(None, "Prometheus rejected the query (HTTP 400)"),
    },
    "victoria-metrics": {
        "vector(0.25)": Sample(0.25),
        "1 / 4": Sample(0.25),
        "vector(0) / vector(0)": Sample(None, SERIES),
        "vector(1) / vector(0)": Sample(None, "the query returns +Inf, which is not a finite number"),
        "no_such_series": Sample(None, SERIES),
        '"text"': Sample(None, SERIES),
        "sum(": Sample(None, "Prometheus rejected the query (HTTP 422)"),
    },
}


def ask(url: str, *queries: str) -> list[Sample]:
    """As the operator asks; the time of the server is left out."""

    async def asking() -> list[Sample]:
        providers = Providers({"default": Provider.model_validate({"prometheus": {"url": url}})})
        try:
            seen = [await providers.query("default", query, 60) for query in queries]
        finally:
            await providers.close()
        return [Sample(sample.value, sample.note) for sample in seen]

    return asyncio.run(asking())


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, address = tmp_path_factory.mktemp("victoria-metrics"), f"127.0.0.1:{free_ports(1)[0]}"
    program = str(tools.locate("victoria-metrics"))
    options = [f"-storageDataPath={folder / 'data'}", f"-httpListenAddr={address}", "-retentionPeriod=1d"]
    server = Process("victoria-metrics", [program, *options], log=folder / "log", cwd=folder)
    server.start()

    def ready() -> bool:
        with urllib.request.urlopen(f"http://{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)

    until("VictoriaMetrics is ready", ready, process=server)
    yield f"http://{address}"
    server.stop()


def test_what_prometheus_answers(prometheus: str) -> None:
    expected = ASKED["prometheus"]
    assert dict(zip(expected, ask(prometheus, *expected), strict=True)) == expected


def test_what_victoria_metrics_answers(victoria_metrics: str) -> None:
    expected = ASKED["victoria-metrics"]
    assert dict(zip(expected, ask(victoria_metrics, *expected), strict=True)) == expected


def test_a_number_of_victoria_metrics_is_not_half_a_minute_old(victoria_metrics: str) -> None:
    """It would be, by default: the first samples of a stage would be of the stage before."""
    now = time.time()
    values = [1.0] * 5 + [2.0] * 4
    ages = (60, 50, 40, 30, 20, 15, 10, 5, 1)
    line = {"metric": {"__name__": "errors"}, "values": values, "timestamps": [int(1000 * (now - age)) for age in ages]}
    request = urllib.request.Request(f"{victoria_metrics}/api/v1/import", json.dumps(line).encode(), method="POST")
    urllib.request.urlopen(request, timeout=5).close()
    until("it has the series", lambda: ask(victoria_metrics, "count_over_time(errors[1h])") == [Sample(9.0)])
    assert ask(victoria_metrics, "errors") == [Sample(2.0)]
