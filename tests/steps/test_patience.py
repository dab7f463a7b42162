"""Undos that wait for what does not come: after a while a person is told, and they go on by themselves when it does."""

from __future__ import annotations

from cutover.saga.turn import Again, Done, Wait
from support import deploying, flagging
from support.deploying import AGENT_2
from support.shop import AGENT, V1


async def test_a_daemon_set_of_which_one_pod_does_not_come_back() -> None:
    cluster = deploying.claimed()
    await deploying.do(cluster, AGENT_2)
    figures = {"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "updatedNumberScheduled": 2}
    await deploying.undo(cluster, AGENT_2)
    deploying.status(cluster, AGENT, **figures, numberReady=1, numberAvailable=1)
    assert isinstance(await deploying.undo(cluster, AGENT_2, 599), Again)
    late = await deploying.undo(cluster, AGENT_2, 600)
    assert late == Wait("NotBackYet", "1/2 pods of the old template are ready")
    deploying.status(cluster, AGENT, **figures, numberReady=2, numberAvailable=2)
    assert isinstance(await deploying.undo(cluster, AGENT_2, 601), Done)


async def test_a_restart_back_that_does_not_end() -> None:
    cluster = flagging.claimed()
    await flagging.do(cluster)
    assert isinstance(await flagging.undo(cluster, 599), Again)
    late = await flagging.undo(cluster, 600)
    assert isinstance(late, Wait)
    assert late.reason == "NotBackYet"
    assert "Deployment shop-v1 not done yet" in late.message


async def test_a_restart_back_asks_for_no_more_than_there_was() -> None:
    """A pod that did not run before the step either keeps no earlier undo waiting."""
    cluster = flagging.claimed()
    cluster.objects[V1]["status"] |= {"readyReplicas": 2, "availableReplicas": 2}
    was = dict(cluster.objects[V1]["status"])
    await flagging.do(cluster)
    flagging.settle(cluster)
    await flagging.undo(cluster)
    flagging.settle(cluster)
    cluster.objects[V1]["status"] = was | {"observedGeneration": cluster.objects[V1]["metadata"]["generation"]}
    assert isinstance(await flagging.undo(cluster, 59), Again)
    assert isinstance(await flagging.undo(cluster, 61), Done)
