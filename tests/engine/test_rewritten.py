"""Somebody writes whole objects again and again, our labels not in them: what the plan does at the worst moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cutover.fields import Operation
from cutover.ports import PLAN_LABEL, Ref
from cutover.requests import RequestVerb
from cutover.status import Phase
from engine.test_others import edit, shifted, unmark
from support.shop import V2


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
