"""Before a step begins all that is done is asked once more: also where its snapshot is there already, and nothing else of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from cutover.errors import OutsideError, Rejected, Unavailable
from cutover.field_path import Operation
from cutover.ports import Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing.controllers import react
from steps.test_sides_without_pods import ready
from support.fakes.shop import V1, V2, plan, shop
from support.fakes.simulation import Simulation

SPEC = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100], drain: 0s}
  - {name: ok, approve: {message: go}}
  - {name: retire, MORE, deploy: {workload: {name: shop-v1}, replicas: 0}}
"""


async def its_first_write_fails(more: str, error: OutsideError) -> tuple[Simulation, list[Any]]:
    """The step that takes the old pods away has taken its snapshot, and its write is not done. What it has tried to write."""
    run = Simulation(plan(SPEC.replace("MORE", more)), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    patch, tried = run.cluster.patch, list[Any]()

    async def fails_once(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if ref == V1 and any(one["path"] == "/spec/replicas" for one in operations):
            tried.append(operations)
            if len(tried) == 1:
                ready(run, V2, 1)  # meanwhile the new side loses pods
                raise error
        return await patch(ref, operations, account)

    run.cluster.patch = fails_once  # type: ignore[method-assign]
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: bool(tried))
    return run, tried


@pytest.mark.parametrize(
    ("more", "error"),
    [("retries: 0", Unavailable("no answer")), ("retries: 1", Rejected("a policy says no"))],
    ids=["no answer", "another attempt"],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_the_old_pods_stay_while_the_new_side_lacks_some(
    more: str, error: OutsideError, *, restarted: bool
) -> None:
    run, tried = await its_first_write_fails(more, error)
    if restarted:
        run.restart()
    for _ in range(20):
        await run.turn()
        run.clock.pass_time(timedelta(seconds=2))
    assert run.status.steps[3].snapshot_taken
    assert len(tried) == 1
    assert run.cluster.objects[V1]["spec"]["replicas"] == 3
    run.cluster.rollouts = True
    react(run.cluster)
    assert await run.run() is Phase.SUCCEEDED
    assert run.cluster.objects[V1]["spec"]["replicas"] == 0
