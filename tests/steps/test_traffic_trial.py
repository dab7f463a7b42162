"""The writes of a shift are tried out by the server before the first step: what it would refuse in the middle is refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cutover.errors import Denied, Rejected
from cutover.field_path import Json, Operation
from cutover.ports import Ref
from cutover.status.status import Phase
from support.fakes.shop import ROUTES, plan, shop
from support.fakes.simulation import Simulation


def spec(weights: str, more: str = "", before: str = "") -> dict[str, Any]:
    return plan(f"""
startDeadline: 0s
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}{before}
  - name: shift
    traffic: {{virtualService: {{name: shop}}, from: {{host: shop-v1}}, to: {{host: shop-v2}}, weights: {weights}{more}}}
""")


def weights(body: Json) -> list[int]:
    return [entry.get("weight", 0) for entry in body["spec"]["http"][-1]["route"]]


async def refused_by(run: Simulation, refuse: Any) -> str:
    run.cluster.refuse = lambda ref, body: refuse(body) if ref == ROUTES else None
    assert await run.run() is Phase.REFUSED, run.status
    assert run.specs() == run.specs_before()
    return run.status.message


async def test_an_expression_that_cannot_be_parsed_is_refused_before_anything_is_touched() -> None:
    def webhook(body: Json) -> None:
        if "a(" in str(body["spec"]["http"]):
            raise Rejected('admission webhook "validation.istio.io" denied the request: missing closing )')

    run = Simulation(spec("[10, 100]", ", match: [{headers: {tenant: {regex: 'a('}}}]"), put=shop)
    assert await refused_by(run, webhook) == (
        "steps[shift].traffic: the server refuses weight 10 of VirtualService shop: "
        'admission webhook "validation.istio.io" denied the request: missing closing )'
    )


async def test_that_of_a_later_step_is_tried_too() -> None:
    def webhook(body: Json) -> None:
        if "a(" in str(body["spec"]["http"]):
            raise Rejected("missing closing )")

    half = "\n  - {name: half, traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}}"
    run = Simulation(spec("[100]", ", match: [{headers: {tenant: {regex: 'a('}}}]", before=half), put=shop)
    assert await refused_by(run, webhook) == (
        "steps[shift].traffic: the server refuses weight 100 of VirtualService shop: missing closing )"
    )


async def test_an_object_that_no_write_can_change_any_more_is_refused_though_nothing_but_weights_is_written() -> None:
    def crd(body: Json) -> None:
        if weights(body) != [100, 0]:
            raise Rejected("spec.http: no longer valid")

    assert "the server refuses weight 100 of VirtualService shop" in await refused_by(
        Simulation(spec("[100]"), put=shop), crd
    )


async def test_the_last_weight_is_tried_too() -> None:
    def policy(body: Json) -> None:
        if weights(body) == [0, 100]:
            raise Denied("policy keeps-a-way-back says no")

    assert await refused_by(Simulation(spec("[10, 100]"), put=shop), policy) == (
        "steps[shift].traffic: the server refuses weight 100 of VirtualService shop: policy keeps-a-way-back says no"
    )


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (spec("[10, 20, 30, 50, 100]", ", mirror: {percent: 5}, match: [{headers: {a: {exact: b}}}]"), 2),
        (spec("[10, 20]"), 2),
        (spec("[100]"), 1),
    ],
    ids=["everything", "weights", "one-weight"],
)
async def test_a_step_costs_two_trials_at_most(body: dict[str, Any], count: int) -> None:
    run, tried = Simulation(body, put=shop), list[Sequence[Operation]]()
    real = run.cluster.try_out

    async def try_out(ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        tried.append(operations)
        return await real(ref, operations, account)

    run.cluster.try_out = try_out  # type: ignore[method-assign]
    await run.until(lambda: bool(run.recorder.notices))
    assert len(tried) == count


async def test_the_weights_of_a_route_that_an_earlier_step_changes_are_not_tried_as_they_are_now() -> None:
    """By then it is another: here the second step has nothing left to refuse."""

    def only_whole(body: Json) -> None:
        if weights(body) == [10, 90]:
            raise Rejected("from 100 to 90 is too much at once")

    first = "\n  - {name: half, traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}}"
    run = Simulation(spec("[90]", before=first), put=shop)
    run.cluster.refuse = lambda ref, body: only_whole(body) if ref == ROUTES else None
    assert await run.run() is Phase.SUCCEEDED, run.status
