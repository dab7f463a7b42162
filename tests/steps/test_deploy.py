"""`deploy` in memory: which fields it finds, what it waits for, what it brings back, and what it leaves to people."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.errors import Rejected
from cutover.field_path import ABSENT, differences
from cutover.objects.spec_patch import joined
from cutover.ports import FENCE_LABEL, SNAPSHOTS, Ref
from cutover.saga.turn import Again, Done, Failed, Wait
from cutover.targets.fields import Foreign
from cutover.targets.patching import merge
from cutover.testing import MemoryCluster
from cutover.testing.controllers import roll_out
from support.fakes.deploy_step import AGENT_2, SCALE, STORE_2, V2_2, claimed, do, pod, status, step, undo, work
from support.fakes.shop import AGENT, STORE, V2


@pytest.fixture
def cluster() -> MemoryCluster:
    return claimed()


# --- which fields -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [(("a", "c"), 2, 3)]),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": None}}, [(("a", "c"), ABSENT, None)]),
        ({"a": {"b": 1}}, {}, [(("a",), {"b": 1}, ABSENT)]),
        (
            {"l": [{"name": "x", "v": 1}, {"name": "y", "v": 1}]},
            {"l": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]},
            [(("l", {"name": "y"}, "v"), 1, 2)],
        ),
        ({"l": [{"name": "x"}]}, {"l": [{"name": "y"}]}, [(("l",), [{"name": "x"}], [{"name": "y"}])]),
        ({"l": [{"name": "x"}]}, {"l": []}, [(("l",), [{"name": "x"}], [])]),
        (
            {"l": [{"name": "x"}, {"name": "x", "v": 1}]},
            {"l": [{"name": "x"}, {"name": "x", "v": 2}]},
            [(("l",), [{"name": "x"}, {"name": "x", "v": 1}], [{"name": "x"}, {"name": "x", "v": 2}])],
        ),
        (
            {"l": [{"name": "x"}, {"name": "y"}]},
            {"l": [{"name": "y"}, {"name": "x"}]},
            [(("l",), [{"name": "x"}, {"name": "y"}], [{"name": "y"}, {"name": "x"}])],
        ),
        ({"l": ["a"]}, {"l": ["a", "b"]}, [(("l",), ["a"], ["a", "b"])]),
    ],
)
def test_the_smallest_fields(before: Any, after: Any, found: Any) -> None:
    assert list(differences(before, after)) == found


LIVE = {"template": {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]}}}


def test_the_order_of_a_patch_moves_no_container() -> None:
    patch = {"template": {"spec": {"containers": [{"name": "new", "image": "n"}, {"name": "b", "args": ["x"]}]}}}
    moved = merge(LIVE, {"template": {"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}})
    assert [item["name"] for item in moved["template"]["spec"]["containers"]] == ["b", "a"], "so the server does it"
    wish = joined(patch, {"b": "b:2", "a": "a:2"}, None, LIVE)
    assert merge(LIVE, wish)["template"]["spec"]["containers"] == [
        {"name": "a", "image": "a:2"},
        {"name": "b", "image": "b:2", "args": ["x"]},
        {"name": "new", "image": "n"},
    ]


async def test_an_image_of_an_init_container(cluster: MemoryCluster) -> None:
    pod(cluster, V2)["initContainers"] = [{"name": "migrate", "image": "m:1"}]
    await do(cluster, "{workload: {name: shop-v2}, images: [{container: migrate, image: 'm:2'}]}")
    assert pod(cluster, V2)["initContainers"] == [{"name": "migrate", "image": "m:2"}]
    assert [item["name"] for item in pod(cluster, V2)["containers"]] == ["sidecar", "app"]


async def test_the_snapshot_keeps_both_values_of_what_changes_and_nothing_else(cluster: MemoryCluster) -> None:
    text = """
workload: {kind: StatefulSet, name: store}
replicas: 3
patch: '{template: {spec: {nodeSelector: null, containers: [{name: db, image: "db:1", env: [{name: MODE, value: new}]}]}}}'
"""
    await do(cluster, text)
    kept = next(body for ref, body in cluster.objects.items() if ref.resource == SNAPSHOTS)["data"]["fields"]
    at = ["spec", "template", "spec"]
    assert kept == [
        {
            "path": [*at, "containers", {"name": "db"}, "env", {"name": "MODE"}, "value"],
            "value": "old",
            "ours": {"value": "new"},
        },
        {"path": [*at, "nodeSelector"], "value": {"disk": "fast"}, "ours": {}},
    ]
    before = copy.deepcopy(cluster.objects[STORE]["spec"])
    count = len(cluster.writes)
    await do(cluster, text)
    assert (cluster.objects[STORE]["spec"], len(cluster.writes)) == (before, count), "twice is once"


async def test_a_change_between_the_look_and_the_dry_run_is_not_taken_for_ours(cluster: MemoryCluster) -> None:
    """Another writer comes between the read and the dry run: that is refused, and the new one compared with what is there."""
    old = copy.deepcopy(cluster.objects[STORE])
    pod(cluster, STORE)["containers"][0]["env"][1]["value"] = "2"
    cluster._store(STORE, cluster.objects[STORE])
    reads = [old]

    async def get(ref: Ref) -> Any:
        return reads.pop() if ref == STORE and reads else await MemoryCluster.get(cluster, ref)

    cluster.get = get  # type: ignore[method-assign]
    looked = await step(STORE_2).prefetch(work(cluster), 0)
    assert [path[-1] for path, _, _ in looked.fields] == ["image"]


async def test_an_object_that_never_rests_is_asked_again_later(cluster: MemoryCluster) -> None:
    async def get(ref: Ref) -> Any:
        body = await MemoryCluster.get(cluster, ref)
        cluster._store(STORE, copy.deepcopy(body))
        return body

    cluster.get = get  # type: ignore[method-assign]
    del cluster.objects[STORE]["metadata"]["labels"]
    with pytest.raises(Exception, match="StatefulSet store changed at each of 4 dry runs"):
        await do(cluster, STORE_2)


async def test_what_was_written_before_a_crash_is_not_tried_again(cluster: MemoryCluster) -> None:
    """The server refuses now what it took before; the snapshot says that it is ours."""
    await do(cluster, STORE_2)

    def refuse(ref: Ref, _: Any) -> None:
        raise Rejected(f"no more changes of {ref}")

    cluster.refuse = refuse
    assert isinstance(await do(cluster, STORE_2), Again)
    roll_out(cluster)
    assert isinstance(await do(cluster, STORE_2), Done)
    with pytest.raises(Rejected, match="no more changes of DaemonSet agent"):
        await do(cluster, AGENT_2)


# --- how far ----------------------------------------------------------------------------------------------------------

STATEFUL = {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}
DAEMONS = {
    "desiredNumberScheduled": 2,
    "currentNumberScheduled": 2,
    "updatedNumberScheduled": 2,
    "numberReady": 2,
    "numberAvailable": 2,
}


@pytest.mark.parametrize(
    ("ref", "text", "figures", "ready"),
    [
        (STORE, STORE_2, STATEFUL, "3/3"),
        (STORE, STORE_2, STATEFUL | {"updatedReplicas": 2}, None),
        (STORE, STORE_2, STATEFUL | {"availableReplicas": 2}, None),
        (STORE, STORE_2, STATEFUL | {"replicas": 4}, None),
        (STORE, STORE_2, STATEFUL | {"observedGeneration": 0}, None),
        (AGENT, AGENT_2, DAEMONS, "2/2"),
        (AGENT, AGENT_2, DAEMONS | {"updatedNumberScheduled": 1}, None),
        (AGENT, AGENT_2, DAEMONS | {"numberAvailable": 1}, None),
        (AGENT, AGENT_2, DAEMONS | {"observedGeneration": 0}, None),
    ],
)
async def test_done_when_all_pods_are_new_and_available(
    cluster: MemoryCluster, ref: Ref, text: str, figures: dict[str, int], ready: str | None
) -> None:
    await do(cluster, text)
    status(cluster, ref, **figures)
    outcome = await do(cluster, text)
    assert outcome == Done(ready=ready) if ready else isinstance(outcome, Again), outcome


@pytest.mark.parametrize(("partition", "updated", "done"), [(2, 1, True), (2, 0, False), (9, 0, True), (0, 2, False)])
async def test_a_partition_leaves_pods_as_they_are(
    cluster: MemoryCluster, partition: int, updated: int, *, done: bool
) -> None:
    cluster.objects[STORE]["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = partition
    await do(cluster, STORE_2)
    status(cluster, STORE, **STATEFUL | {"updatedReplicas": updated})
    outcome = await do(cluster, STORE_2)
    assert outcome == Done(ready="3/3") if done else isinstance(outcome, Again), outcome


async def test_a_partition_above_the_replicas_keeps_no_pod_that_goes(cluster: MemoryCluster) -> None:
    """Of five pods two go: they may be among the ready ones."""
    cluster.objects[STORE]["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 9
    await do(cluster, STORE_2)
    status(cluster, STORE, **STATEFUL | {"replicas": 5, "updatedReplicas": 0})
    outcome = await do(cluster, STORE_2)
    assert isinstance(outcome, Again)
    assert outcome.ready == "1/3"


@pytest.mark.parametrize(
    ("ref", "text", "stale"),
    [
        (STORE, STORE_2, STATEFUL | {"updatedReplicas": 1, "updateRevision": "store-old"}),
        (AGENT, AGENT_2, DAEMONS | {"updatedNumberScheduled": 1}),
    ],
)
async def test_on_delete(cluster: MemoryCluster, ref: Ref, text: str, stale: dict[str, Any]) -> None:
    cluster.objects[ref]["spec"]["updateStrategy"] = {"type": "OnDelete"}
    await do(cluster, text)
    status(cluster, ref, **stale)
    assert isinstance(await do(cluster, text), Done)
    await undo(cluster, text)
    status(cluster, ref, **stale)
    outcome = await undo(cluster, text)
    assert isinstance(outcome, Wait)
    assert outcome.reason == "PodsToDelete"
    named = "kubectl delete pods -n shop -l 'app=store,controller-revision-hash!=store-old'"
    assert (named if ref == STORE else "kubectl get pods -n shop -l 'app=agent'") in outcome.message
    roll_out(cluster)
    assert isinstance(await undo(cluster, text), Done)


async def test_a_stateful_set_that_does_not_come_back_says_so_after_a_while(cluster: MemoryCluster) -> None:
    await do(cluster, STORE_2)
    await undo(cluster, STORE_2)
    status(cluster, STORE, **STATEFUL | {"updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2})
    assert isinstance(await undo(cluster, STORE_2, elapsed=59), Again)
    outcome = await undo(cluster, STORE_2, elapsed=61)
    assert isinstance(outcome, Wait)
    assert outcome.message.startswith("1 pods of StatefulSet store are not back yet, and its controller does not")
    status(cluster, STORE, **STATEFUL | {"readyReplicas": 2, "availableReplicas": 2})
    assert isinstance(await undo(cluster, STORE_2, elapsed=61), Again), "it is only slow"


async def test_a_deployment_whose_rollout_stalls(cluster: MemoryCluster) -> None:
    await do(cluster, SCALE)
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    status(cluster, V2, replicas=3, updatedReplicas=3, conditions=[condition])
    outcome = await do(cluster, SCALE, elapsed=600)
    assert outcome == Failed(
        "RolloutStalled",
        "the rollout of Deployment shop-v2 does not progress (ProgressDeadlineExceeded); 0/3 pods are ready",
    )
    await undo(cluster, SCALE)
    status(cluster, V2, replicas=3, updatedReplicas=3, conditions=[condition])
    outcome = await undo(cluster, SCALE, elapsed=600)
    assert isinstance(outcome, Wait)
    assert outcome.reason == "RolloutStalled"


async def test_what_the_controller_said_of_a_former_rollout_is_nothing_of_this_one(cluster: MemoryCluster) -> None:
    """It leaves its word under the newest generation, until the new rollout gets on; its deadline must be over first."""
    cluster.objects[V2]["spec"] |= {"replicas": 3, "progressDeadlineSeconds": 120}
    for there_or_back in (do, undo):
        await there_or_back(cluster, V2_2)
        status(cluster, V2, replicas=3, conditions=GAVE_UP)
        assert isinstance(await there_or_back(cluster, V2_2, elapsed=119), Again)
        assert not isinstance(await there_or_back(cluster, V2_2, elapsed=120), Again)


GAVE_UP = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]


@pytest.mark.parametrize(
    ("ref", "text", "before", "worse", "elapsed"),
    [
        (AGENT, AGENT_2, DAEMONS | {"numberAvailable": 1}, {"numberAvailable": 0}, 61),
        (AGENT, AGENT_2, DAEMONS | {"numberAvailable": 1}, {"updatedNumberScheduled": 1}, 61),
        (STORE, STORE_2, {"replicas": 1, "updatedReplicas": 1}, {"updatedReplicas": 0}, 61),
        (STORE, STORE_2, {"replicas": 1, "updatedReplicas": 1}, {"replicas": 0, "updatedReplicas": 0}, 61),
        (V2, V2_2, {"replicas": 3, "updatedReplicas": 3, "conditions": GAVE_UP}, {"replicas": 4}, 61),
    ],
)
async def test_back_is_no_better_than_it_was_before(
    cluster: MemoryCluster, ref: Ref, text: str, before: dict[str, Any], worse: dict[str, Any], elapsed: float
) -> None:
    if ref == V2:
        cluster.objects[V2]["spec"]["replicas"] = 3
    status(cluster, ref, **before)
    await do(cluster, text)
    await undo(cluster, text)
    status(cluster, ref, **before | worse)
    assert not isinstance(await undo(cluster, text, elapsed), Done), "it was better than this"
    status(cluster, ref, **before)
    assert isinstance(await undo(cluster, text, 59), Again), "the rest may still come"
    assert isinstance(await undo(cluster, text, elapsed), Done)


# --- the rollback -----------------------------------------------------------------------------------------------------


async def test_an_undo_of_what_never_began_only_fences(cluster: MemoryCluster) -> None:
    before = copy.deepcopy(cluster.objects[STORE]["spec"])
    assert await undo(cluster, STORE_2) == Done()
    assert cluster.objects[STORE]["metadata"]["labels"][FENCE_LABEL] == "2"
    assert cluster.objects[STORE]["spec"] == before


async def test_an_undo_between_snapshot_and_write(cluster: MemoryCluster) -> None:
    before = copy.deepcopy(cluster.objects[STORE]["spec"])
    ours = step(STORE_2)
    await ours._snapshot(work(cluster))
    assert isinstance(await undo(cluster, STORE_2), Done)
    assert cluster.objects[STORE]["spec"] == before


async def test_an_undo_reads_back(cluster: MemoryCluster) -> None:
    """Something puts our value back at once: that is no Done."""
    await do(cluster, STORE_2)
    await undo(cluster, STORE_2)
    roll_out(cluster)
    seen = copy.deepcopy(cluster.objects[STORE])
    pod(cluster, STORE)["containers"][0]["image"] = "db:2"
    cluster.seen = lambda ref: seen  # type: ignore[method-assign]  # noqa: ARG005
    with pytest.raises(Rejected, match="StatefulSet store does not keep what was written to it"):
        await undo(cluster, STORE_2)
    pod(cluster, STORE)["containers"][0]["image"] = "db:hotfix"
    with pytest.raises(Foreign, match="is db:hotfix, was db:1 before, and this plan set db:2"):
        await undo(cluster, STORE_2)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ({"value": "x" * 500}, f"is {'x' * 157}..., was old before, and this plan set new; another writer changed it. To restore"),
        ({}, "is absent, was old before, and this plan set new"),
        (None, "no longer has spec.template.spec.containers[name=db].env[name=MODE].value; it was old before. To restore it: kubectl edit statefulset store -n shop"),
    ],
)  # fmt: skip
async def test_what_another_writer_did_is_reported(
    cluster: MemoryCluster, spoil: dict[str, str] | None, says: str
) -> None:
    text = "{workload: {kind: StatefulSet, name: store}, patch: '{template: {spec: {containers: [{name: db, env: [{name: MODE, value: new}]}]}}}'}"
    await do(cluster, text)
    env = pod(cluster, STORE)["containers"][0]["env"]
    env[0:1] = [] if spoil is None else [{"name": "MODE", **spoil}]
    with pytest.raises(Foreign) as foreign:
        await undo(cluster, text)
    assert foreign.value.reason == "ForeignChange"
    assert says in str(foreign.value)


async def test_a_long_value_is_put_back_by_hand(cluster: MemoryCluster) -> None:
    args = [f"--option-{number}=value" for number in range(20)]
    pod(cluster, STORE)["containers"][0]["args"] = args
    text = "{workload: {kind: StatefulSet, name: store}, patch: '{template: {spec: {containers: [{name: db, args: [none]}]}}}'}"
    await do(cluster, text)
    pod(cluster, STORE)["containers"][0]["args"] = ["other"]
    with pytest.raises(Foreign, match=r"To restore it: kubectl edit statefulset store -n shop$"):
        await undo(cluster, text)


async def test_a_field_that_was_not_there_is_removed_by_the_command(cluster: MemoryCluster) -> None:
    text = "{workload: {name: shop-v2}, patch: '{minReadySeconds: 5}'}"
    await do(cluster, text)
    cluster.objects[V2]["spec"]["minReadySeconds"] = 9
    with pytest.raises(
        Foreign, match=r"""is 9, was absent before.* -p '\[\{"op": "remove", "path": "/spec/minReadySeconds"\}\]'"""
    ):
        await undo(cluster, text)
