"""A StatefulSet that deletes the volumes of the pods it is scaled down by: no undo brings back what was in them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.ports import STATEFUL_SETS
from cutover.status.status import Phase
from engine.test_other_writers import edit
from support.fakes.shop import STORE, plan, shop
from support.fakes.simulation import Simulation

SCALE = """
startDeadline: 5s
steps:
  - {name: image, deploy: {workload: {kind: StatefulSet, name: store}, images: [{container: db, image: "db:2"}]}}
  - {name: scale, deploy: {workload: {kind: StatefulSet, name: store}, replicas: 1}}
"""


def with_volumes(policy: str) -> Any:
    def put(cluster: Any) -> None:
        shop(cluster)
        body = copy.deepcopy(cluster.objects[STORE])
        body["spec"] |= {
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": policy},
        }
        cluster.put(STATEFUL_SETS, body)

    return put


async def test_it_is_refused_before_anything_is_changed() -> None:
    run = Simulation(plan(SCALE), put=with_volumes("Delete"))
    assert await run.run() is Phase.REFUSED
    assert (
        "steps[scale].deploy.replicas: StatefulSet store goes from 3 to 1 replicas, and its "
        "spec.persistentVolumeClaimRetentionPolicy.whenScaled is Delete, so the volumes of 2 pods are deleted, and no undo "
        "brings back what was in them; set whenScaled to Retain on StatefulSet store, or irreversible: true on this step"
    ) in run.status.message
    assert run.specs() == run.specs_before()


async def test_an_irreversible_step_may_and_is_the_point_of_no_return() -> None:
    spec = SCALE.replace("name: scale,", "name: scale, irreversible: true,")
    run = Simulation(plan(f"{spec}  - {{name: ok, approve: {{message: go}}}}\n"), put=with_volumes("Delete"))
    await run.until(lambda: run.phase is Phase.WAITING)
    assert run.status.point_of_no_return == "scale"
    assert any("so the volumes of 2 pods are deleted" in notice.message for notice in run.recorder.notices)


@pytest.mark.parametrize(
    ("policy", "spec"),
    [("Retain", SCALE), ("Delete", SCALE.replace("replicas: 1", "replicas: 5"))],
    ids=["what stays", "more replicas"],
)
async def test_nothing_else_is_refused(policy: str, spec: str) -> None:
    run = Simulation(plan(spec), put=with_volumes(policy))
    assert await run.run() is Phase.SUCCEEDED


async def test_a_policy_that_changed_since_fails_the_step_before_it_writes() -> None:
    run = Simulation(plan(SCALE), put=with_volumes("Retain"))
    await run.until(lambda: run.status.current is not None and run.status.current.step == "image")
    policy = {"whenDeleted": "Retain", "whenScaled": "Delete"}
    edit(run, STORE, lambda body: body["spec"].update(persistentVolumeClaimRetentionPolicy=policy))
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert "the volumes of 2 pods are deleted" in run.status.failure.message
    assert run.cluster.objects[STORE]["spec"]["replicas"] == 3
