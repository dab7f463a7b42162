"""Somebody writes whole objects again and again, our labels not in them: what the plan does at the worst moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cutover.field_path import Operation
from cutover.ports import PLAN_LABEL, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from cutover.testing.controllers import react
from engine.test_other_writers import edit, held_for, shifted, unmark
from support.fakes.shop import FLAGS, FRONT, V2, plan, shop
from support.fakes.simulation import Simulation

DEPLOY = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
"""


async def test_a_target_that_changes_while_it_is_claimed_again_is_read_again() -> None:
    """A test that fails is a race, and says nothing about the claim."""
    run = await shifted()
    patch, meddled = run.cluster.patch, list[Ref]()

    async def meddle(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if ref == V2 and not meddled:
            meddled.append(ref)
            edit(run, V2, lambda body: body["metadata"].setdefault("annotations", {}).update(touched="1"))
        return await patch(ref, operations, account)

    run.cluster.patch = meddle  # type: ignore[method-assign]
    edit(run, V2, unmark)
    await run.turn()
    assert meddled
    assert run.phase is Phase.RUNNING
    assert PLAN_LABEL in run.cluster.objects[V2]["metadata"]["labels"]
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK


async def test_a_rollout_that_is_reverted_again_and_again_pauses_and_names_the_writer() -> None:
    """As the self-heal of Argo CD does it: nobody wins, and each round makes and ends pods."""
    run = Simulation(plan(DEPLOY), put=shop)
    run.cluster.rollouts = False

    def heal(body: Any) -> None:
        body["spec"]["replicas"] = 0
        body["metadata"]["managedFields"] = [{"manager": "argocd-controller", "time": "2026-01-01T12:00:01Z"}]

    await run.until(lambda: run.cluster.objects[V2]["spec"]["replicas"] == 3)
    for tries in (5, 4):  # what the resume itself puts back counts too
        for _ in range(tries):
            edit(run, V2, heal)
            await run.turn()
            assert run.cluster.objects[V2]["spec"]["replicas"] == 3
        edit(run, V2, heal)
        await run.turn()
        assert held_for(run, "ForeignWriter")
        assert (
            "field manager argocd-controller has changed the fields of this step of Deployment shop-v2"
            in run.status.message
        )
        run.request(RequestVerb.RESUME)
        await run.until(lambda: run.cluster.objects[V2]["spec"]["replicas"] == 3)
    run.cluster.rollouts = True
    assert await run.run() is Phase.SUCCEEDED


def _values(body: Any, part: str) -> Any:
    return body["spec"]["selector"] if part == "selector" else body[part]


async def _fight(text: str, ref: Ref, ours: Any, theirs: Any, part: str) -> str:
    """Somebody sets a value back each time that it is ours; the message of the plan, which is paused soon."""

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        cluster.objects[V2]["spec"]["replicas"] = 3
        react(cluster)

    run = Simulation(plan(text), put=put)

    def heal(body: Any) -> None:
        _values(body, part).update(theirs)
        body["metadata"]["managedFields"] = [{"manager": "argocd-controller", "time": "2026-01-01T12:00:01Z"}]

    for fought in range(7):
        for _ in range(50):  # no controller works meanwhile: endpoints do not follow
            if run.phase is Phase.PAUSED or ours.items() <= _values(run.cluster.objects[ref], part).items():
                break
            run.clock.pass_time(min(await run.turn() or timedelta(), timedelta(seconds=1)))
        if run.phase is Phase.PAUSED:
            assert fought == 6, "it is put back five times, and paused the sixth"
            assert held_for(run, "ForeignWriter")
            message = run.status.message
            run.request(RequestVerb.ABORT)
            assert await run.run() is Phase.ROLLED_BACK
            return message
        edit(run, ref, heal)
    raise AssertionError("nobody was paused")


async def test_values_of_flags_are_not_fought_over_for_ever() -> None:
    message = await _fight(
        """
steps:
  - name: flip
    flags: {configMap: flags, set: {COLOUR: green}, leave: [{name: shop-v1}, {name: shop-v2}]}
    gates: [{name: errors, initialDelay: 10m, prometheus: {query: errors}, pass: {max: "0.5"}}]
""",
        FLAGS,
        {"COLOUR": "green"},
        {"COLOUR": "blue"},
        "data",
    )
    assert "field manager argocd-controller has changed the values of this step of ConfigMap flags" in message


async def test_a_selector_is_not_fought_over_for_ever_before_the_endpoints_have_followed() -> None:
    message = await _fight(
        "steps: [{name: move, switch: {service: front, selector: {app: shop-v2}}}]",
        FRONT,
        {"app": "shop-v2"},
        {"app": "shop-v1"},
        "selector",
    )
    assert "field manager argocd-controller has changed the selector of Service front" in message
