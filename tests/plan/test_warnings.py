"""What a plan may do and its author has probably not meant."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cutover.plan.parsing import parse
from cutover.plan.warnings import warnings
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation

SHIFT = """
steps:
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100], MORE}
    gates:
      - {name: errors, GATE, prometheus: {query: "QUERY"}, pass: {max: "1"}}
"""
RATE = "sum(rate(errors[5m]))"
SAYS = (
    "steps[shift].gates[errors].prometheus.query: it looks back 5m, and a stage is judged for {}, so samples from before the stage "
    "may decide; write $(window) as the range, with window: 5m, or set initialDelay to 5m"
)


def warned(more: str = "dwell: 0s", gate: str = "interval: 15s", query: str = RATE, spec: str = SHIFT) -> list[str]:
    text = spec.replace("MORE", more).replace("GATE", gate).replace("QUERY", query)
    found = list(warnings(parse(plan(text)["spec"])))
    assert all(problem.warning for problem in found)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("more", "gate", "judged"),
    [
        ("dwell: 0s", "interval: 15s", "no time at all"),
        ("dwell: 2m", "interval: 15s", "2m only"),
        ("dwell: 4m59s", "initialDelay: 4m", "4m59s only"),
        ("dwell: 2m, settle: 10s", "initialDelay: 2m, successThreshold: 3", "2m40s only"),
        ("dwell: 5m, mirror: {dwell: 1m}", "interval: 15s", "1m only"),
        ("dwell: 5m", "interval: 15s", ""),
        ("settle: 1m", "initialDelay: 4m", ""),
        ("dwell: 1m", "interval: 1m, successThreshold: 6", ""),
        ("dwell: 6m, match: [{headers: {x-new: {exact: a}}}]", "interval: 15s", ""),
    ],
)
def test_a_range_that_is_longer_than_the_stage_is_judged(more: str, gate: str, judged: str) -> None:
    assert warned(more, gate) == ([SAYS.format(judged)] if judged else [])


@pytest.mark.parametrize(
    ("query", "window", "many"),
    [
        ("rate(x[$(window)])", "5m", 0),
        ("rate(x[$(window)])", "1m", 0),
        ("rate(x[$(window)]) + rate(y[5m])", "4m", 1),
        ("rate(x[$(window)]) + rate(y[5m])", "5m", 0),
        ("max_over_time(rate(x[$(window)])[10m:])", "1m", 1),
    ],
)
def test_a_window_is_waited_for(query: str, window: str, many: int) -> None:
    spec = SHIFT.replace('query: "QUERY"', f'query: "QUERY", window: {window}')
    assert len(warned(query=query, spec=spec)) == many


def test_what_is_meant_to_be_of_the_past() -> None:
    """A baseline, a comparison inside the query, a guard, and a gate that waits for people."""
    assert warned(query="rate(x[5m] offset 1d) > rate(x[1m])", more="dwell: 1m") == []
    compared = SHIFT.replace('"QUERY"', '"x", baseline: "rate(x[1d])"').replace('max: "1"', 'ratio: {max: "1"}')
    assert warned(spec=compared) == []
    guard = "{name: g, prometheus: {query: 'rate(x[1d])'}, pass: {max: '1'}}"
    assert warned(query="x", spec=f"guards: [{guard}]\n{SHIFT}") == []
    assert warned(spec=f"steps: [{{name: ok, approve: {{message: go}}, gates: [{guard}]}}]") == []


@pytest.mark.parametrize("step", ["check: {}", "deploy: {workload: {name: shop-v2}, replicas: 3}"])
def test_a_step_of_one_stage(step: str) -> None:
    (said,) = warned(
        spec=SHIFT.replace(
            "traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100], MORE}",
            step,
        )
    )
    assert "it looks back 5m, and a stage is judged for no time at all" in said


async def test_it_is_told_when_the_run_begins() -> None:
    run = Simulation(
        plan(SHIFT.replace("MORE", "dwell: 1m").replace("GATE", "interval: 15s").replace("QUERY", RATE)), put=shop
    )
    await run.until(lambda: bool(run.status.run))
    (started,) = [notice for notice in run.recorder.notices if "started" in notice.message]
    assert SAYS.format("1m only") in started.message


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")), ids=lambda file: file.stem
)
def test_no_example_is_warned_of(file: Path) -> None:
    spec: Any = yaml.safe_load(file.read_text())["spec"]
    assert list(warnings(parse(spec))) == []


def test_a_plan_of_many_long_queries_is_read_in_part() -> None:
    """All other plans wait while it is read, and it is looked at again and again while something is missing."""
    gate: dict[str, Any] = {"prometheus": {"query": "(" * 2000 + "x[5m]"}, "pass": {"max": "1"}}
    gates = [gate | {"name": f"g{at}"} for at in range(16)]
    steps = [{"name": f"s{at}", "check": {}, "gates": gates} for at in range(20)]
    parsed = parse({"serviceAccountName": "migrator", "steps": steps})
    begun = time.process_time()
    assert 1 <= len(list(warnings(parsed))) < 16
    assert time.process_time() - begun < 1
