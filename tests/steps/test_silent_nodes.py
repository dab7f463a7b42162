"""A DaemonSet while a node does not answer: what it waits for is told, and a rollback ends with what can run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cutover.objects.pods import silent_node
from cutover.ports import PODS, SNAPSHOTS
from cutover.saga.turn import Again, Done, Outcome, Wait
from cutover.testing import MemoryClock, MemoryCluster
from support.fakes import deploy_step
from support.fakes.deploy_step import AGENT_2
from support.fakes.shop import AGENT

NOW = MemoryClock().now()
OLD, NEW = "hash-1", "hash-2"
READY = {"startTime": "x", "conditions": [{"type": "Ready", "status": "True"}]}


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def pod(node: str, hash_: str, status: Any = None, **metadata: Any) -> Any:
    labels = {"app": "agent", "controller-revision-hash": hash_}
    return {
        "metadata": {"name": f"agent-{node}", "labels": labels, "creationTimestamp": at(-300), **metadata},
        "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "agent:1"}]},
        "status": READY if status is None else status,
    }


def containers(*, ready: bool, node_ready: str = "False") -> Any:
    return {
        "startTime": "x",
        "conditions": [{"type": "Ready", "status": node_ready}],
        "containerStatuses": [{"name": "agent", "ready": ready, "state": {"running": {}}}],
    }


@pytest.mark.parametrize(
    ("one", "silent"),
    [
        (pod("n", OLD), False),
        (pod("n", OLD, {}), True),  # nobody has taken it on
        (pod("n", OLD, {}, creationTimestamp=at(-29)), False),
        (pod("n", OLD, deletionTimestamp=at(-31)), True),  # nobody confirms that it has ended
        (pod("n", OLD, deletionTimestamp=at(10)), False),
        (pod("n", OLD, containers(ready=True)), True),  # as the node controller marks it
        (pod("n", OLD, containers(ready=False)), False),
        (pod("n", OLD, containers(ready=True, node_ready="True")), False),
        (pod("", OLD, {}), False),
    ],
)
def test_which_node_is_silent(one: Any, *, silent: bool) -> None:
    assert silent_node(one, NOW) == ("n" if silent else "")


def test_a_readiness_gate_is_no_silent_node() -> None:
    one = pod("n", OLD, containers(ready=True))
    one["spec"]["readinessGates"] = [{"conditionType": "example.com/ready"}]
    assert silent_node(one, NOW) == ""


async def rolled_out(*, before: int = 2) -> MemoryCluster:
    """Three nodes, one dead before the plan begins; the step has written, and its undo has restored the template."""
    cluster = deploy_step.claimed()
    figures(cluster, 3, before)
    await deploy_step.do(cluster, AGENT_2)
    for name, revision in ((OLD, 3), (NEW, 2)):  # the controller gives the old one the newest number again
        cluster.put(SNAPSHOTS, {"metadata": {"name": f"agent-{name}"}, "revision": revision})
    return cluster


def figures(cluster: MemoryCluster, updated: int, available: int, wanted: int = 3) -> None:
    numbers = {"desiredNumberScheduled": wanted, "currentNumberScheduled": wanted, "updatedNumberScheduled": updated}
    deploy_step.status(cluster, AGENT, **numbers, numberReady=available, numberAvailable=available)


def put(cluster: MemoryCluster, *pods: Any) -> None:
    """These pods of the DaemonSet, and no others."""
    for ref in [ref for ref in cluster.objects if ref.resource == PODS]:
        cluster.delete(ref)
    owner = {"kind": "DaemonSet", "name": "agent", "uid": cluster.objects[AGENT]["metadata"]["uid"], "controller": True}
    for one in pods:
        cluster.put(PODS, one | {"metadata": one["metadata"] | {"ownerReferences": [owner]}})


async def undone(cluster: MemoryCluster, updated: int, available: int, *pods: Any, elapsed: float = 61) -> Outcome:
    """The undo, with these pods of three nodes."""
    put(cluster, *pods)
    await deploy_step.undo(cluster, AGENT_2, elapsed)
    figures(cluster, updated, available, len(pods))
    return await deploy_step.undo(cluster, AGENT_2, elapsed)


DEAD = pod("dead", NEW, {}, deletionTimestamp=at(-60))


async def test_forward_it_says_which_node_it_waits_for() -> None:
    cluster = await rolled_out()
    put(cluster, pod("a", NEW), pod("b", NEW), pod("dead", OLD, {}))
    figures(cluster, 2, 2)
    outcome = await deploy_step.do(cluster, AGENT_2, 16)
    assert isinstance(outcome, Again)
    assert outcome.message.endswith(
        "; pod agent-dead waits for node dead, which seems not to answer; kubectl describe node dead"
    )


async def test_an_undo_does_not_wait_for_a_node_that_does_not_answer() -> None:
    outcome = await undone(await rolled_out(), 2, 2, pod("a", OLD), pod("b", OLD), DEAD)
    assert outcome == Done(
        message="node dead does not answer; its pods of DaemonSet agent are not waited for", ready="1/3"
    )


async def test_it_is_told_too_where_the_dead_node_never_got_a_pod_of_the_newer_template() -> None:
    """As on a node that was dead before: its old pod is terminating for ever, and counts as updated once the template is back."""
    dead = pod("dead", OLD, {}, deletionTimestamp=at(-60))
    outcome = await undone(await rolled_out(), 3, 2, pod("a", OLD), pod("b", OLD), dead)
    assert isinstance(outcome, Done)
    assert outcome.message == "node dead does not answer; its pods of DaemonSet agent are not waited for"


@pytest.mark.parametrize(
    ("updated", "available", "others"),
    [
        (1, 2, [pod("a", OLD), pod("b", NEW)]),  # one is still to be replaced
        (2, 1, [pod("a", OLD), pod("b", OLD, containers(ready=False))]),  # one is not ready
        (2, 1, [pod("a", OLD), pod("b", OLD, deletionTimestamp=at(5))]),
        (1, 1, [pod("a", NEW), pod("b", NEW)]),  # the dead one has the old template, and is the one that is updated
    ],
)
async def test_an_undo_waits_for_the_others(updated: int, available: int, others: list[Any]) -> None:
    outcome = await undone(await rolled_out(), updated, available, *others, DEAD)
    assert isinstance(outcome, Again)
    assert "node dead" in outcome.message


async def test_two_nodes_of_which_each_has_another_template() -> None:
    """The figures of both templates are the same; the revisions tell which one is the newest."""
    dead = pod("dead", NEW, {}, deletionTimestamp=at(-60))
    assert isinstance(await undone(await rolled_out(before=1), 1, 1, pod("a", OLD), dead), Done)
    dead["metadata"]["labels"]["controller-revision-hash"] = OLD
    assert isinstance(await undone(await rolled_out(before=1), 1, 1, pod("a", NEW), dead), Again)


async def test_before_a_minute_it_is_waited_for() -> None:
    assert isinstance(await undone(await rolled_out(), 2, 2, pod("a", OLD), pod("b", OLD), DEAD, elapsed=59), Again)


async def test_a_node_that_dies_while_it_is_undone_and_had_a_pod_is_told() -> None:
    """It is not waited for either: its pod comes back with it, of the template that stands."""
    outcome = await undone(await rolled_out(before=3), 2, 2, pod("a", OLD), pod("b", OLD), DEAD, elapsed=601)
    assert isinstance(outcome, Done | Wait)
    assert "node dead" in outcome.message
