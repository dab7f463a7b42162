"""A spec that is changed while a turn is under way: no run begins with one that is no longer there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from cutover.fields import Operation
from cutover.ports import PLANS, Ref
from cutover.status import Phase
from engine.test_way_back import DEPLOY_AND_ASK
from support.shop import V2, plan, shop
from support.simulation import Simulation


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
