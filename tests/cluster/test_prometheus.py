"""A Prometheus that fails: never a pass, and the status says how."""

from __future__ import annotations

import signal

import pytest

from cutover.status.status import Phase, Status, Verdict
from harness.kind import AnyCluster
from support.cluster.shop import Shop

pytestmark = pytest.mark.cluster

PROBLEMS = {
    "down": ("down", "vector(0)", "cannot reach Prometheus"),
    "empty": ("default", "no_such_series", "the query returns no series: there is no data, or it is stale"),
    "nan": ("default", "vector(0) / vector(0)", "the query returns NaN, which is not a finite number"),
    "infinite": ("default", "vector(1) / vector(0)", "the query returns +Inf, which is not a finite number"),
    "several": (
        "default",
        "vector(1) or label_replace(vector(2), 'a', 'b', '', '')",
        "the query returns 2 series, not one; aggregate them, for example with sum()",
    ),
    "range": ("default", "up[1m]", "the query returns a matrix, not one number"),
    "refused": ("default", "sum(", "Prometheus rejected the query (HTTP 400)"),
}


def _gate(status: Status, name: str) -> tuple[Verdict, str]:
    gates = status.current.gates if status.current else ()
    return next(((gate.verdict, gate.message) for gate in gates if gate.name == name), (Verdict.PASS, ""))


def _plan(gates: dict[str, tuple[str, str, str]], **fields: object) -> dict[str, object]:
    return {
        "steps": [
            {
                "name": "soak",
                "check": {},
                "gates": [
                    {
                        "name": name,
                        "interval": "1s",
                        "prometheus": {"provider": provider, "query": query},
                        "pass": {"max": "100"},
                        **fields,
                    }
                    for name, (provider, query, _) in gates.items()
                ],
            }
        ]
    }


def test_no_usable_number_is_never_a_pass(shop: Shop, gauges: object) -> None:
    del gauges
    shop.apply(_plan(PROBLEMS))
    status = shop.until(
        lambda s: all(_gate(s, name) == (Verdict.WAIT, note) for name, (_, _, note) in PROBLEMS.items()), deadline=20
    )
    assert status.phase is Phase.RUNNING
    shop.api.delete(f"{shop.plans}/plan")


def test_no_usable_number_fails_when_no_data_means_fail(shop: Shop) -> None:
    for name, problem in PROBLEMS.items():
        shop.apply(_plan({name: problem}, noData="Fail"), name)
    for name, (_, _, note) in PROBLEMS.items():
        status = shop.until_ended(name)
        assert status.phase is Phase.ROLLED_BACK
        assert status.failure is not None
        assert status.failure.message == f"gate {name} failed: {note}"


def test_a_slow_one_is_reported(shop: Shop, cluster: AnyCluster) -> None:
    shop.apply(_plan({"slow": ("hasty", "vector(0)", "")}, successThreshold=1000))
    shop.until(lambda s: "passing samples in a row" in _gate(s, "slow")[1], deadline=20)  # it takes half a second
    cluster.prometheus.signal(signal.SIGSTOP)
    try:
        status = shop.until(lambda s: _gate(s, "slow")[1] == "Prometheus gave no answer within 0.5s", deadline=20)
        assert status.phase is Phase.RUNNING
    finally:
        cluster.prometheus.signal(signal.SIGCONT)
    shop.api.delete(f"{shop.plans}/plan")


def test_a_stale_series_is_not_a_number(shop: Shop, gauges: object) -> None:
    name = f'stale{{ns="{shop.namespace}"}}'
    gauges.lines[name] = 1.0  # type: ignore[attr-defined]
    query = f'stale{{ns="{shop.namespace}"}}'
    shop.apply(_plan({"stale": ("default", query, "")}, successThreshold=1000))
    shop.until(lambda s: "passing samples in a row" in _gate(s, "stale")[1], deadline=20)
    del gauges.lines[name]  # type: ignore[attr-defined]
    status = shop.until(lambda s: "no series: there is no data, or it is stale" in _gate(s, "stale")[1], deadline=30)
    assert status.phase is Phase.RUNNING
    shop.api.delete(f"{shop.plans}/plan")


def _compared(query: str, baseline: str, **fields: object) -> dict[str, object]:
    prometheus = {"query": query, "baseline": baseline}
    gate = {"name": "ratio", "interval": "1s", "prometheus": prometheus, "pass": {"ratio": {"max": "1.1"}}, **fields}
    return {"steps": [{"name": "soak", "check": {}, "gates": [gate]}]}


def test_a_ratio_shows_both_values_and_a_baseline_of_nothing_is_not_a_pass(shop: Shop) -> None:
    shop.apply(_compared("vector(360)", "vector(300)"), "over")
    shop.apply(_compared("vector(1)", "vector(0)", noData="Fail"), "zero")
    shop.apply(_compared("vector(1)", "no_such_series", noData="Fail"), "empty")
    for name, says in {
        "over": "1.2 (360 against a baseline of 300), must be <= 1.1",
        "zero": "the baseline is 0; a ratio needs one above 0",
        "empty": "the baseline: the query returns no series: there is no data, or it is stale",
    }.items():
        status = shop.until_ended(name)
        assert status.phase is Phase.ROLLED_BACK
        assert status.failure is not None
        assert status.failure.message == f"gate ratio failed: {says}"


def test_both_sides_of_a_ratio_are_of_one_instant(shop: Shop) -> None:
    """The time itself against the time: equal to the last digit, or it fails."""
    fraction = "1 + 1000 * (vector(time()) - floor(vector(time())))"
    shop.apply(_compared(fraction, fraction, **{"successThreshold": 10, "pass": {"ratio": {"min": "1", "max": "1"}}}))
    assert shop.until_ended().phase is Phase.SUCCEEDED
