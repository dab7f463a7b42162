"""Answers of the query API: one finite number, or a note; and ratios to a baseline."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cutover.adapters.prometheus import read
from cutover.cli.explain import explain
from cutover.gates.base import GateContext
from cutover.gates.prometheus import Prometheus, compare
from cutover.gates.verdict import Measurement
from cutover.plan.parsing import parse
from cutover.ports import Sample
from cutover.status.status import Phase
from cutover.testing import MemoryClock, MemoryCluster, MemoryMetrics
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation


def vector(*values: str) -> dict[str, Any]:
    return {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, v]} for v in values]},
    }


@pytest.mark.parametrize(
    ("answer", "value", "note"),
    [
        (vector("0.25"), 0.25, ""),
        ({"status": "success", "data": {"resultType": "scalar", "result": [0, "7"]}}, 7.0, ""),
        (vector(), None, "no series"),
        (vector("1", "2"), None, "2 series"),
        (vector("NaN"), None, "NaN"),
        (vector("+Inf"), None, "+Inf"),
        (vector("-Inf"), None, "-Inf"),
        (vector("1") | {"warnings": ["partial"]}, None, "warnings"),
        (vector("1") | {"isPartial": True}, None, "partial"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, None, "matrix"),
        (
            {"status": "success", "data": {"resultType": "vector", "result": [{"histogram": [0, {}]}]}},
            None,
            "histogram",
        ),
        ({"status": "success", "data": {"resultType": "s3cret", "result": []}}, None, "cannot be read"),
        ({"status": "success", "data": None}, None, "cannot be read"),
        (vector("s3cret"), None, "cannot be read"),
        ({"status": "error"}, None, "cannot be read"),
        ([], None, "cannot be read"),
    ],
)
def test_read(answer: Any, value: float | None, note: str) -> None:
    sample = read(answer)
    assert sample.value == value
    assert note in sample.note


def documented() -> list[Any]:
    """The table of what servers say of an answer, from the docs."""
    page = Path(__file__).parents[2].joinpath("docs/gates/prometheus.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| `(\{.*\})` \| (yes|no)\b", page, re.MULTILINE)
    return [pytest.param(said, counts == "yes", id=f"{server}: {said[:60]}") for server, said, counts in rows]


def test_the_docs_tell_of_each_server_when_an_answer_counts_and_when_not() -> None:
    told = {(str(row.id).split()[0].rstrip(",:"), row.values[1]) for row in documented()}
    servers = ("Prometheus", "Thanos", "Mimir", "VictoriaMetrics")
    assert told == {(server, counts) for server in servers for counts in (True, False)}


@pytest.mark.parametrize(("said", "counts"), documented())
def test_an_answer_counts_as_the_docs_say_of_its_server(said: str, counts: bool) -> None:  # noqa: FBT001
    sample = read(vector("0.2") | json.loads(said))
    assert sample.value == (0.2 if counts else None)
    assert bool(sample.note) is not counts


@pytest.mark.parametrize(
    "warnings",
    [
        ["PromQL info: harmless", "PromQL warning: not harmless"],
        ["PromQL information: of another kind"],
        ["query: PromQL info: not at its beginning"],
        ["PromQL info: harmless, and something else"],
        "PromQL info: no list",
        [{"text": "PromQL info: no text"}],
        {"PromQL info: no list": 1, "other": 2},
    ],
)
def test_anything_but_infos_may_hide_that_data_is_missing(warnings: Any) -> None:
    assert read(vector("0.2") | {"warnings": warnings}).value is None


def test_the_time_of_the_server_comes_along() -> None:
    answer = vector("1")
    answer["data"]["result"][0]["value"][0] = 1700000000.25
    assert read(answer).at == 1700000000.25


async def test_nothing_of_an_answer_gets_into_a_note() -> None:
    """A plan's author must not read a foreign server through the operator."""
    sample = read({"status": "success", "data": {"resultType": "vector", "result": []}, "secret": "s3cret"})
    assert "s3cret" not in sample.note


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "base", "ratio", "says"),
    [
        (360, Sample(300), 1.2, "360 against a baseline of 300"),
        (0, Sample(300), 0.0, "0 against a baseline of 300"),
        (-1, Sample(2), -0.5, "-1 against a baseline of 2"),
        (360, Sample(0), None, "the baseline is 0; a ratio needs one above 0"),
        (0, Sample(0), None, "the baseline is 0; a ratio needs one above 0"),
        (360, Sample(-0.5), None, "the baseline is -0.5; a ratio needs one above 0"),
        (360, Sample(None, "the query returns no series"), None, "the baseline: the query returns no series"),
        (1e300, Sample(1e-300), None, "1e+300 against a baseline of 1e-300 gives no usable ratio"),
    ],
)
def test_compared_with_a_baseline(value: float, base: Sample, ratio: float | None, says: str) -> None:
    seen = compare(value, base, NOW)
    assert seen.value == ratio
    assert (seen.note or seen.of) == says


class Recording(MemoryMetrics):
    """Keeps what was asked, and of which time."""

    def __init__(self, answers: dict[str, Sample]) -> None:
        super().__init__(answers.__getitem__)
        self.asked: list[tuple[str, float | None]] = []
        self.lookbacks: list[float] = []
        self.providers: list[str] = []

    async def query(self, provider: str, query: str, lookback: float, at: float | None = None) -> Sample:
        self.asked.append((query, at))
        self.lookbacks.append(lookback)
        self.providers.append(provider)
        return await super().query(provider, query, lookback, at)


async def measured(answers: dict[str, Sample]) -> tuple[Measurement, list[tuple[str, float | None]]]:
    metrics = Recording(answers)
    gate = Prometheus.model_validate({"query": "new[$(window)]", "baseline": "old[$(window)]", "window": "2m"})
    assert gate.settle() == timedelta(minutes=2)
    around = GateContext(MemoryCluster(), metrics, MemoryClock(), "shop", "step", None)
    return await gate.measure(around), metrics.asked


@pytest.mark.parametrize(("interval", "lookback"), [(15, 60.0), (30, 60.0), (45, 90.0)])
async def test_how_old_a_sample_may_be(interval: int, lookback: float) -> None:
    """Twice the interval, a minute at least."""
    metrics = Recording({"up": Sample(1)})
    around = GateContext(
        MemoryCluster(), metrics, MemoryClock(), "shop", "step", None, interval=timedelta(seconds=interval)
    )
    await Prometheus.model_validate({"query": "up"}).measure(around)
    assert metrics.lookbacks == [lookback]


async def test_both_are_of_the_instant_that_the_server_took_for_the_first() -> None:
    seen, asked = await measured({"new[2m]": Sample(360, at=17.5), "old[2m]": Sample(300, at=17.5)})
    assert seen.value == 1.2
    assert asked == [("new[2m]", None), ("old[2m]", 17.5)]


@pytest.mark.parametrize(
    ("query", "baseline", "settle"), [("a[$(window)]", "b", 120), ("a", "b[$(window)]", 120), ("a[2m]", "b", 0)]
)
def test_the_first_sample_waits_until_the_window_is_of_this_stage(query: str, baseline: str, settle: int) -> None:
    gate = Prometheus.model_validate({"query": query, "baseline": baseline, "window": "2m"})
    assert gate.settle() == timedelta(seconds=settle)


@pytest.mark.parametrize("field", ["query", "baseline"])
def test_an_unknown_placeholder_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=r"\$\(windw\) is not a placeholder"):
        Prometheus.model_validate({"query": "up", field: "rate(x[$(windw)])"})


async def test_what_is_filled_in_and_who_is_asked() -> None:
    metrics = Recording({'up{ns="shop",step="roll"}': Sample(1)})
    around = GateContext(MemoryCluster(), metrics, MemoryClock(), "shop", "roll", None)
    gate = Prometheus.model_validate({"provider": "own", "query": 'up{ns="$(namespace)",step="$(step)"}'})
    assert (await gate.measure(around)).value == 1
    assert metrics.providers == ["own"]


async def test_without_the_number_itself_the_baseline_is_not_asked_for() -> None:
    seen, asked = await measured({"new[2m]": Sample(None, "nothing")})
    assert (seen.value, seen.note) == (None, "nothing")
    assert asked == [("new[2m]", None)]


SOAK = """
steps:
  - name: soak
    check: {for: 30s}
    gates:
      - name: latency
        interval: 10s
        prometheus: {query: new, baseline: old}
        pass: {ratio: {max: "1.1"}}
"""


def answering(new: float, old: float) -> Simulation:
    run = Simulation(plan(SOAK), put=shop)
    run.metrics.answer = lambda query: Sample({"new": new, "old": old}[query])
    return run


def gates(run: Simulation) -> list[tuple[str, str, str]]:
    current = run.status.current
    return [(gate.value, gate.bound, gate.message) for gate in current.gates] if current else []


async def test_a_ratio_passes_and_shows_both_values_and_the_bound() -> None:
    run = answering(300, 320)
    says = "0.9375 (300 against a baseline of 320) is <= 1.1"
    await run.until(lambda: gates(run) == [("0.9375", "<= 1.1", says)])
    assert await run.run() is Phase.SUCCEEDED


async def test_a_ratio_fails_and_shows_both_values_and_the_bound() -> None:
    run = answering(360, 300)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.message == "gate latency failed: 1.2 (360 against a baseline of 300), must be <= 1.1"


async def test_a_baseline_of_nothing_is_never_a_pass() -> None:
    run = answering(0, 0)
    await run.until(lambda: gates(run) == [("", "<= 1.1", "the baseline is 0; a ratio needs one above 0")])
    assert run.status.phase is Phase.RUNNING


def test_the_description_has_both_queries() -> None:
    lines = list(explain(parse(plan(SOAK)["spec"])))
    assert [line.strip() for line in lines if "queries" in line] == [
        "queries default: new",
        "queries default: old (the baseline)",
    ]
