"""Before what cannot be undone, the last pod of the version before must be gone: no controller counts one that is terminating."""

from __future__ import annotations

import pytest

from cutover.ports import JOBS, PODS, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing.controllers import owner, pod, react
from engine.test_other_writers import edit
from support.fakes.shop import AGENT, V1, plan, shop
from support.fakes.simulation import Simulation

JOB = "job: {template: '{spec: {template: {spec: {containers: [{name: tool, image: \"tool:1\"}]}}}}'}"
CONTRACT = f"""
steps:
  - {{name: v2, deploy: {{workload: {{name: shop-v1}}, images: [{{container: app, image: "shop:2"}}]}}}}
  - {{name: contract, irreversible: true, {JOB}}}
"""
REVERSIBLE = CONTRACT.replace("irreversible: true, job: {", "job: {changesNothing: true, ")


def leave_one(run: Simulation, phase: str = "Running") -> Ref:
    """A pod of the old template that takes long to end."""
    body = run.before[V1]
    left = pod("shop-v1-old", body["spec"]["template"], "old", owner(V1, body, "old"))
    left["metadata"] |= {"deletionTimestamp": "2026-01-01T12:00:00Z", "finalizers": ["test.example/busy"]}
    left["status"]["phase"] = phase
    return run.cluster.put(PODS, left)


def jobs(run: Simulation) -> list[Ref]:
    return [ref for ref in run.cluster.objects if ref.resource == JOBS]


async def waiting(run: Simulation) -> str:
    """What the irreversible step says while it waits."""
    await run.until(lambda: run.status.current is not None and "irreversible" in run.status.current.message)
    assert run.status.current is not None
    assert run.status.current.step == "contract"
    assert not jobs(run)
    return run.status.current.message


async def test_an_irreversible_job_waits_for_the_last_old_pod() -> None:
    run = Simulation(plan(CONTRACT), put=shop)
    left = leave_one(run)
    assert await waiting(run) == (
        "1 pods of Deployment shop-v1 are still terminating, such as shop-v1-old; "
        "step contract is irreversible and begins when the last of them is gone"
    )
    for _ in range(5):
        run.restart()
        await run.turn()
        assert not jobs(run)
    run.cluster._remove(left)
    assert await run.run() is Phase.SUCCEEDED


async def test_its_own_waiting_can_be_aborted() -> None:
    run = Simulation(plan(CONTRACT), put=shop)
    leave_one(run)
    await waiting(run)
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert list(run.jobs().values()) == ["unfinished, started never"], "it only holds the name"


@pytest.mark.parametrize(("spec", "phase"), [(REVERSIBLE, "Running"), (CONTRACT, "Succeeded")])
async def test_nothing_else_gets_slower(spec: str, phase: str) -> None:
    run = Simulation(plan(spec), put=shop)
    leave_one(run, phase)
    assert await run.run() is Phase.SUCCEEDED


async def test_pods_that_only_a_person_replaces_are_named() -> None:
    spec = CONTRACT.replace("{name: shop-v1}", "{kind: DaemonSet, name: agent}").replace(
        "container: app", "container: agent"
    )
    run = Simulation(plan(spec), put=shop)
    edit(run, AGENT, lambda body: body["spec"]["updateStrategy"].update(type="OnDelete"))
    react(run.cluster)
    run.cluster.rollouts = False
    await run.until(lambda: "shop:2" in str(run.cluster.objects[AGENT]["spec"]))
    full = dict.fromkeys(("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberAvailable"), 2)
    seen = run.cluster.objects[AGENT]["metadata"]["generation"]
    run.cluster.report(AGENT, full | {"updatedNumberScheduled": 1, "observedGeneration": seen})
    says = "1 pods of DaemonSet agent run an older template, and its updateStrategy is OnDelete, so delete them: kubectl get pods"
    assert says in await waiting(run)
    run.cluster.rollouts = True
    assert await run.run() is Phase.SUCCEEDED
