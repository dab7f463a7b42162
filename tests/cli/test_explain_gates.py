"""What `explain` says of gates and guards: what they ask, when, and what follows from the answers."""

from __future__ import annotations

import pytest

from cutover.cli.explain import explain
from cutover.plan.parsing import parse
from support.fakes.shop import plan

JOB = "'{spec: {template: {spec: {ACCOUNT containers: [{name: smoke, image: \"smoke:1\"}]}}}}'"
COUNTED = "interval: 5s, initialDelay: 30s, successThreshold: 4, failureThreshold: 2, noData: Fail"
FOUR, TWO = "passes after 4 passing samples in a row", "fails after 2 failing samples"
AS_FAILING = "a sample without a number counts as failing"
FIRST, ONE = "fails with the first failing sample", "passes with one passing sample"
UNCOUNTED = "a sample without a number does not count"


def told(gate: str, *, guard: bool = False, step: str = "") -> list[str]:
    """The lines of one gate or guard, without those around them."""
    step = step or ("wait: {for: 1s}" if guard else "check: {}")
    gates = "" if guard else f", gates: [{gate}]"
    text = f"{f'guards: [{gate}]' if guard else ''}\nsteps:\n  - {{name: soak, {step}{gates}}}\n"
    lines = [line.strip() for line in explain(parse(plan(text)["spec"]))]
    at = next(number for number, line in enumerate(lines) if line.startswith("guard" if guard else "gate"))
    return [line for line in lines[at : at + 5] if not line.startswith(("timeout", "1. ", "stage", "no timeout"))]


@pytest.mark.parametrize(
    ("gate", "lines"),
    [
        (
            '{name: errors, prometheus: {query: "up\n or x"}, pass: {max: "1"}}',
            [
                "gate errors: prometheus <= 1",
                "queries default: up or x",
                f"measures every 15s; {ONE}, {FIRST}, {UNCOUNTED}",
            ],
        ),
        (
            f"{{name: errors, {COUNTED}, http: {{provider: status, path: /s, jsonPath: $.a}}, pass: {{min: '0.5', max: '2'}}}}",
            [
                "gate errors: http >= 0.5 and <= 2",
                "queries status: GET /s, $.a",
                f"measures every 5s, the first 30s after the stage takes effect; {FOUR}, {TWO}, {AS_FAILING}",
            ],
        ),
        (
            '{name: slow, prometheus: {query: "x[$(window)]", baseline: y, window: 2m}, pass: {ratio: {max: "1.2"}}}',
            [
                "gate slow: prometheus <= 1.2 times the baseline",
                "queries default: x[$(window)]",
                "queries default: y (the baseline)",
                "$(window) is 2m",
            ],
        ),
        (
            "{name: pods, readiness: {for: 10s, workload: {name: shop-v2}}}",
            [
                "gate pods: readiness >= 100%, for 10s",
                "measures Deployment shop-v2",
                "measures all the time; waits until it passes",
            ],
        ),
        (
            f"{{name: smoke, interval: 5s, job: {{timeout: 2m, template: {JOB.replace('ACCOUNT', '')}}}}}",
            [
                "gate smoke: job exit code 0",
                "runs a Job of smoke:1 under the ServiceAccount of the plan, for 2m at most",
                f"starts a Job 5s after the one before has ended; {ONE}, {FIRST}, {UNCOUNTED}",
            ],
        ),
    ],
)
def test_a_gate(gate: str, lines: list[str]) -> None:
    said = [part for line in lines for part in line.split("; ")]
    assert told(gate)[: len(said)] == said


def test_the_account_of_a_job() -> None:
    (_, runs, *_) = told(f"{{name: smoke, job: {{template: {JOB.replace('ACCOUNT', 'serviceAccountName: smoker,')}}}}}")
    assert "under ServiceAccount smoker, " in runs


def test_a_guard() -> None:
    said = told(
        '{name: errors, failureThreshold: 3, noData: Pass, prometheus: {query: x}, pass: {max: "1"}}', guard=True
    )
    assert said[:4] == [
        "guard errors (whole run): prometheus <= 1",
        "queries default: x",
        "measures every 15s",
        "fails after 3 failing samples in a row, a sample without a number counts as passing",
    ]
    said = told("{name: pods, initialDelay: 1m, readiness: {workload: {name: shop-v1}}}", guard=True)
    assert said[2] == "measures all the time, the first 1m after the run begins"
    assert said[3].startswith(FIRST)


def test_what_a_step_settles_counts() -> None:
    shift = "traffic: {virtualService: {name: shop}, from: {host: a}, to: {host: b}, weights: [50, 100], settle: 10s}"
    said = told('{name: errors, initialDelay: 5s, prometheus: {query: x}, pass: {max: "1"}}', step=shift)
    assert said[2] == "measures every 15s, the first 15s after the stage takes effect"
