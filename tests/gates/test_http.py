"""The gate `http`: one number or a note, and a failing one turns the plan back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cutover.cli.explain import explain
from cutover.gates.base import GateContext
from cutover.gates.http import Http
from cutover.plan.parsing import parse
from cutover.ports import Sample
from cutover.status.status import Phase
from cutover.testing import MemoryClock, MemoryCluster, MemoryMetrics
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation


def gate(json_path: str) -> Http:
    return Http.model_validate({"provider": "default", "path": "/status", "jsonPath": json_path})


PARTS = [{"name": "web", "errors": 3}, {"name": "db", "errors": 1.5}]


@pytest.mark.parametrize(
    ("json_path", "document", "value", "note"),
    [
        ("$.errors", {"errors": 7}, 7.0, ""),
        ("$.latency['p 99'][0]", {"latency": {"p 99": [-0.25]}}, -0.25, ""),
        ("$", 4, 4.0, ""),
        ("$[?@.name == 'db'].errors", PARTS, 1.5, ""),
        ("$[-1].errors", PARTS, 1.5, ""),
        ("$[1:].errors", PARTS, 1.5, ""),
        ("$.errors", {"error": 7}, None, "the JSONPath finds nothing in the response"),
        ("$.errors", "s3cret", None, "the JSONPath finds nothing in the response"),
        ("$.errors", '{"errors": 7}', None, "the JSONPath finds nothing in the response"),
        ("$[?@.name == 'cache'].errors", PARTS, None, "the JSONPath finds nothing in the response"),
        ("$[*].errors", PARTS, None, "the JSONPath finds several values in the response, not one"),
        ("$.errors", {"errors": "s3cret"}, None, "the JSONPath finds a string, not a number"),
        ("$", "7", None, "the JSONPath finds a string, not a number"),
        ("$.errors", {"errors": True}, None, "the JSONPath finds true or false, not a number"),
        ("$.errors", {"errors": None}, None, "the JSONPath finds null, not a number"),
        ("$.errors", {"errors": []}, None, "the JSONPath finds a list, not a number"),
        ("$.errors", {"errors": {"s3cret": 1}}, None, "the JSONPath finds an object, not a number"),
        ("$.errors", {"errors": float("inf")}, None, "the JSONPath finds a number that is too large"),
        ("$.errors", {"errors": 10**400}, None, "the JSONPath finds a number that is too large"),
    ],
)
def test_one_number_or_a_note(json_path: str, document: Any, value: float | None, note: str) -> None:
    sample = gate(json_path).pick(document)
    assert (sample.value, sample.note) == (value, note)


@pytest.mark.parametrize(
    "json_path",
    [
        "$..a", "$[0,1]", "$[?length(@.a) > 1]", "$[?match(@.a, '(a+)+')]", "$[?search(@.a, 'x')]", "$[?count(@.*) > 1]",
        "$[?@..a]", "$[?@.*]", "$[?@[?@.x]]", "$[?!(@.a && (@.b || @.*))]", "$" + ".a" * 33, "$.a | $.b", "$.a & $.b",
        "$.~a", "^.a", "$[?# == 'a']", "$[?_.a]", "$[?@.a =~ /x/]", "$[?@.a in [1]]", "a", "", " $.a", "$.a ", "$.", "$[",
        "$[" + "?(" * 200, "$[?" + "!" * 40 + "@.a]",
    ],
)  # fmt: skip
def test_what_is_not_a_json_path_or_costs_too_much_is_refused(json_path: str) -> None:
    with pytest.raises(ValueError, match=r"JSONPath|at least 1|at most 512"):
        gate(json_path)


@pytest.mark.parametrize("path", ["/..", "/a/./b", "/a?b=1", "a", "//a", "/a b"])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"which leaves the provider's address|write a path such as"):
        Http.model_validate({"provider": "default", "path": path, "jsonPath": "$"})


class Asked(MemoryMetrics):
    """Keeps who was asked for what."""

    async def fetch(self, provider: str, path: str, query: Mapping[str, str], pick: Callable[[Any], Sample]) -> Sample:
        self.asked = (provider, path, dict(query))
        return await super().fetch(provider, path, query, pick)


async def test_the_provider_is_asked_for_the_path_and_the_query() -> None:
    metrics = Asked()
    around = GateContext(MemoryCluster(), metrics, MemoryClock(), "shop", "step", None)
    asks = {"provider": "own", "path": "/status", "query": {"minutes": "5"}, "jsonPath": "$"}
    assert (await Http.model_validate(asks).measure(around)).value == 0
    assert metrics.asked == ("own", "/status", {"minutes": "5"})


SOAK = """
steps:
  - name: soak
    check: {for: 30s}
    gates:
      - name: errors
        interval: 10s
        http: {provider: default, path: /status, query: {minutes: "5"}, jsonPath: $.errors}
        pass: {max: "0.5"}
"""


async def test_it_passes_and_says_so() -> None:
    run = Simulation(plan(SOAK), put=shop)
    run.metrics.document = lambda _: {"errors": 0.25}

    def told() -> bool:
        current = run.status.current
        return current is not None and [gate.message for gate in current.gates] == ["0.25 is <= 0.5"]

    await run.until(told)
    assert await run.run() is Phase.SUCCEEDED


async def test_a_failing_number_rolls_the_plan_back() -> None:
    run = Simulation(plan(SOAK), put=shop)
    run.metrics.document = lambda _: {"errors": 0.75}
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.message == "gate errors failed: 0.75, must be <= 0.5"


async def test_no_number_is_waited_for() -> None:
    run = Simulation(plan(SOAK), put=shop)
    run.metrics.document = lambda _: {"errors": "none"}

    def told() -> bool:
        current = run.status.current
        says = "the JSONPath finds a string, not a number"
        return current is not None and [gate.message for gate in current.gates] == [says]

    await run.until(told)
    assert run.status.phase is Phase.RUNNING


async def test_an_unknown_provider_is_missing_before_the_first_step() -> None:
    run = Simulation(plan(SOAK.replace("provider: default", "provider: other")), put=shop)
    assert await run.run() is Phase.REFUSED
    says = "steps[soak].gates[errors].http.provider: there is no provider other of kind http; the administrator has configured: default"
    assert run.status.message == says


def test_the_description_has_the_query() -> None:
    lines = list(explain(parse(plan(SOAK)["spec"])))
    assert "       queries default: GET /status?minutes=5, $.errors" in lines


async def test_a_provider_that_cannot_be_asked_keeps_the_plan_pending_until_it_can() -> None:
    run = Simulation(plan(SOAK), put=shop)
    run.metrics.unusable.add("default")
    await run.until(lambda: bool(run.status.message))
    says = "the operator cannot use its credentials for provider default; the operator's log names the file to fix"
    assert (run.phase, run.status.reason) == (Phase.PENDING, "Preflight")
    assert run.status.message == f"steps[soak].gates[errors].http.provider: {says}"
    assert run.specs() == run.specs_before()
    run.metrics.unusable.clear()
    await run.until(lambda: run.phase is Phase.RUNNING)
