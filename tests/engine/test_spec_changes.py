"""A spec, or a whole plan, that is changed while a turn is under way: no run begins with one that is no longer there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cutover.field_path import Operation
from cutover.ports import PLANS, Ref
from cutover.status.status import Phase
from engine.test_rollback import DEPLOY_AND_ASK
from support.fakes.shop import V2, plan, shop
from support.fakes.simulation import Simulation


async def test_a_spec_changed_before_the_answer_to_the_finalizer_is_the_one_that_runs() -> None:
    """The stream tells of the new spec before the answer to our write is there; once it is Running, the spec is frozen."""
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    patch = run.cluster.patch

    async def then_changed(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        done = await patch(ref, operations, account)
        if ref == run.plan:
            run.cluster.patch = patch  # type: ignore[method-assign]
            body = copy.deepcopy(run.cluster.objects[ref])
            run.cluster.put(PLANS, body | {"spec": plan(DEPLOY_AND_ASK.replace("replicas: 3", "replicas: 4"))["spec"]})
        return done

    run.cluster.patch = then_changed  # type: ignore[method-assign]
    await run.until(lambda: run.phase is Phase.WAITING)
    assert run.status.reason == "AwaitingApproval"
    assert run.cluster.objects[V2]["spec"]["replicas"] == 4


async def test_a_plan_recreated_in_the_middle_of_a_turn_is_not_missed() -> None:
    """No other process has it, though we have not saved what stands there."""
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    may, begun = run.cluster.may, run.clock.now()

    async def then_replaced(*asked: Any) -> bool:
        run.cluster.may = may  # type: ignore[method-assign]
        run.cluster.delete(run.plan)
        run.cluster.put(PLANS, plan(DEPLOY_AND_ASK) | {"status": {"observedGeneration": -1}})
        return await may(*asked)

    run.cluster.may = then_replaced  # type: ignore[assignment, method-assign]
    await run.until(lambda: run.phase is Phase.WAITING)
    assert run.clock.now() - begun < timedelta(seconds=5)
