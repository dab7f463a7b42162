"""Undos that wait for what does not come: after a while a person is told, and they go on by themselves when it does."""

from __future__ import annotations

from cutover.saga.turn import Again, Done, Wait
from support.fakes import deploy_step, flags_step
from support.fakes.deploy_step import AGENT_2
from support.fakes.shop import AGENT, V1


async def test_a_daemon_set_of_which_one_pod_does_not_come_back() -> None:
    cluster = deploy_step.claimed()
    await deploy_step.do(cluster, AGENT_2)
    figures = {"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 2}
    await deploy_step.undo(cluster, AGENT_2)
    deploy_step.status(cluster, AGENT, **figures, numberReady=1, numberAvailable=1)
    assert isinstance(await deploy_step.undo(cluster, AGENT_2, 599), Again)
    late = await deploy_step.undo(cluster, AGENT_2, 600)
    assert late == Wait("NotBackYet", "1/2 pods of the old template are ready")
    deploy_step.status(cluster, AGENT, **figures, numberReady=2, numberAvailable=2)
    assert isinstance(await deploy_step.undo(cluster, AGENT_2, 601), Done)


async def test_a_restart_back_that_does_not_end() -> None:
    cluster = flags_step.claimed()
    await flags_step.do(cluster)
    assert isinstance(await flags_step.undo(cluster, 599), Again)
    late = await flags_step.undo(cluster, 600)
    assert isinstance(late, Wait)
    assert late.reason == "NotBackYet"
    assert "Deployment shop-v1 not complete yet" in late.message


async def test_a_restart_back_asks_for_no_more_than_there_was() -> None:
    """A pod that did not run before the step either keeps no earlier undo waiting."""
    cluster = flags_step.claimed()
    cluster.objects[V1]["status"] |= {"readyReplicas": 2, "availableReplicas": 2}
    was = dict(cluster.objects[V1]["status"])
    await flags_step.do(cluster)
    flags_step.settle(cluster)
    await flags_step.undo(cluster)
    flags_step.settle(cluster)
    cluster.objects[V1]["status"] = was | {"observedGeneration": cluster.objects[V1]["metadata"]["generation"]}
    assert isinstance(await flags_step.undo(cluster, 59), Again)
    assert isinstance(await flags_step.undo(cluster, 61), Done)
