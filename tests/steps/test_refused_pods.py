"""Pods that are not even created: what the API server answered to the controller is told, for each kind that brings pods."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cutover.ports import EVENTS, PODS, Ref
from cutover.saga.turn import Again, Failed
from cutover.testing import MemoryClock, MemoryCluster
from support.fakes.deploy_step import AGENT_2, STORE_2, V2_2, claimed, do, status, step, undo, work
from support.fakes.shop import AGENT, STORE, V2

NOW = MemoryClock().now()
FORBIDDEN = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
FAILURE = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": FORBIDDEN}
SAYS = f"; pods cannot be created (FailedCreate): {FORBIDDEN}"


@pytest.fixture
def cluster() -> MemoryCluster:
    return claimed()


def event(cluster: MemoryCluster, ref: Ref, note: str = FORBIDDEN, ago: float = 5, **fields: Any) -> None:
    body = {
        "metadata": {"name": f"{ref.name}-{len(cluster.objects)}", "namespace": "shop"},
        "regarding": {"uid": cluster.objects[ref]["metadata"]["uid"]},
        "reason": "FailedCreate",
        "note": note,
        "deprecatedLastTimestamp": (NOW - timedelta(seconds=ago)).isoformat(),
    }
    cluster.put(EVENTS, body | fields)


async def test_a_deployment_says_so_at_once_and_when_its_rollout_stalls(cluster: MemoryCluster) -> None:
    await do(cluster, V2_2)
    cluster.objects[V2]["spec"]["replicas"] = 2
    status(cluster, V2, conditions=[FAILURE])
    soon = await do(cluster, V2_2, 1.0)
    assert isinstance(soon, Again)
    assert soon.message.endswith(SAYS)
    gave_up = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    status(cluster, V2, conditions=[FAILURE, gave_up])
    late = await do(cluster, V2_2, 600.0)
    assert isinstance(late, Failed)
    assert late.message.endswith(SAYS)


async def test_an_undo_says_so_too(cluster: MemoryCluster) -> None:
    await do(cluster, V2_2)
    cluster.objects[V2]["spec"]["replicas"] = 2
    await undo(cluster, V2_2)
    cluster.objects[V2]["spec"]["replicas"] = 2
    status(cluster, V2, conditions=[FAILURE])
    outcome = await undo(cluster, V2_2, 1.0)
    assert isinstance(outcome, Again)
    assert outcome.message.endswith(SAYS)


@pytest.mark.parametrize(("ref", "text"), [(STORE, STORE_2), (AGENT, AGENT_2)])
async def test_of_the_others_only_events_tell(cluster: MemoryCluster, ref: Ref, text: str) -> None:
    await missing(cluster, ref, text)
    event(cluster, ref, "an older answer", ago=20)
    event(cluster, ref)
    outcome = await do(cluster, text, 15.0)
    assert isinstance(outcome, Again)
    assert outcome.message.endswith(SAYS)


@pytest.mark.parametrize(("ref", "text"), [(STORE, STORE_2), (AGENT, AGENT_2)])
async def test_who_may_not_read_the_pods_is_told_less_and_waits_all_the_same(
    cluster: MemoryCluster, ref: Ref, text: str
) -> None:
    await missing(cluster, ref, text)
    cluster.denied.add(("list", Ref(PODS, ref.namespace, "")))
    outcome = await do(cluster, text, 15.0)
    assert isinstance(outcome, Again)


async def test_an_undo_of_a_stateful_set_asks_nobody_to_delete_pods_that_are_not_there(cluster: MemoryCluster) -> None:
    await missing(cluster, STORE, STORE_2)
    await undo(cluster, STORE_2)
    status(cluster, STORE)
    event(cluster, STORE)
    outcome = await undo(cluster, STORE_2, 61.0)
    assert isinstance(outcome, Again)
    assert outcome.message.endswith(SAYS)


async def missing(cluster: MemoryCluster, ref: Ref, text: str) -> None:
    """The step has written, and no pod has come."""
    await do(cluster, text)
    for one in [one for one in cluster.objects if one.resource == PODS]:
        cluster.delete(one)
    cluster.objects[ref]["spec"]["replicas"] = 2
    status(cluster, ref, desiredNumberScheduled=2)


async def test_what_was_told_before_the_step_is_nothing_of_it(cluster: MemoryCluster) -> None:
    await missing(cluster, STORE, STORE_2)
    event(cluster, STORE, ago=100)
    event(cluster, STORE, ago=1, reason="SuccessfulCreate")
    event(cluster, AGENT, ago=1)
    outcome = await do(cluster, STORE_2, 15.0)
    assert isinstance(outcome, Again)
    assert "cannot be created" not in outcome.message


async def test_an_event_that_is_repeated_counts_from_its_last_time(cluster: MemoryCluster) -> None:
    await missing(cluster, STORE, STORE_2)
    again = {"lastObservedTime": NOW.isoformat()}
    event(cluster, STORE, ago=3000, series=again, eventTime=(NOW - timedelta(hours=1)).isoformat())
    outcome = await do(cluster, STORE_2, 15.0)
    assert isinstance(outcome, Again)
    assert outcome.message.endswith(SAYS)


async def test_without_the_permission_nothing_else_changes(cluster: MemoryCluster) -> None:
    await missing(cluster, STORE, STORE_2)
    event(cluster, STORE)
    cluster.denied = {("list", Ref(EVENTS, "shop", ""))}
    outcome = await do(cluster, STORE_2, 15.0)
    assert isinstance(outcome, Again)
    assert outcome.message == "0/2 pods of the new template are ready"


async def test_a_text_is_one_line_and_not_too_long(cluster: MemoryCluster) -> None:
    await missing(cluster, STORE, STORE_2)
    event(cluster, STORE, "a\n\x1b[31mb " + "x" * 5000, reason="FailedCreate")
    outcome = await do(cluster, STORE_2, 15.0)
    assert isinstance(outcome, Again)
    assert "; pods cannot be created (FailedCreate): a [31mb xxx" in outcome.message
    assert len(outcome.message) < 500


@pytest.mark.parametrize(("elapsed", "look"), [(0.0, 15.0), (10.0, 5.0), (15.0, 30.0), (60.0, 30.0)])
async def test_it_is_looked_at_again_when_it_has_taken_long(
    cluster: MemoryCluster, elapsed: float, look: float
) -> None:
    """That no pod comes is no event of the workload."""
    await missing(cluster, STORE, STORE_2)
    outcome = await step(STORE_2).do(work(cluster, elapsed), 0)
    assert isinstance(outcome, Again)
    assert outcome.after == look
