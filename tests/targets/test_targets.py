"""Claims, fences, snapshots and changes of one object: what a late, repeated or foreign write does."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.errors import NotFound, Rejected, Superseded
from cutover.field_path import ABSENT, Change
from cutover.ports import APPLIED_LABEL, DEPLOYMENTS, FENCE_LABEL, PLAN_LABEL, PLANS, SNAPSHOTS, VIRTUAL_SERVICES, Ref
from cutover.status.state import State
from cutover.targets.claims import Busy, Owner
from cutover.targets.fields import Foreign
from cutover.targets.snapshots import drop
from cutover.targets.targets import Targets
from cutover.testing import MemoryCluster
from support.fakes.shop import PLAN, ROUTES, V2, plan, shop

IMAGE = ("spec", "template", "spec", "containers", {"name": "app"}, "image")
REPLICAS = ("spec", "replicas")


@pytest.fixture
def cluster() -> MemoryCluster:
    made = MemoryCluster()
    shop(made)
    return made


def targets(cluster: MemoryCluster, fence: int = 1, uid: str = "uid-a", run: int = 1) -> Targets:
    """As a process sees them that has this run; the last one that was made has it by right."""
    own = Ref(PLANS, "shop", uid)
    status = {"phase": "Running", "state": "Progressing", "run": {"number": run, "fence": fence}}
    cluster.put(PLANS, {"metadata": {"name": uid, "uid": uid}, "spec": {}, "status": status})
    assert own in cluster.objects
    return Targets(
        cluster, Owner(Ref(PLANS, "shop", uid), uid, run, fence, "migrator", state=State.PROGRESSING), "deploy"
    )


def labels(cluster: MemoryCluster) -> dict[str, str]:
    found: dict[str, str] = cluster.objects[V2]["metadata"]["labels"]
    return found


def change(to: Any, *others: Any) -> Change:
    return Change(REPLICAS, to, was=0, ours=to, previous=others)


def uid(cluster: MemoryCluster) -> str:
    return str(cluster.objects[V2]["metadata"]["uid"])


async def test_a_claim_is_two_labels_and_goes_without_a_trace(cluster: MemoryCluster) -> None:
    before = copy.deepcopy(cluster.objects[V2])
    mine = targets(cluster, 3)
    await mine.claim(V2)
    await mine.claim(V2)
    assert labels(cluster) == {"team": "shop", PLAN_LABEL: "uid-a", FENCE_LABEL: "3"}
    claimed = cluster.objects[V2]["metadata"]
    assert "annotations" not in claimed
    assert claimed["generation"] == before["metadata"]["generation"]
    await mine.release(V2)
    await mine.release(V2)
    assert cluster.objects[V2]["metadata"]["labels"] == before["metadata"]["labels"]
    assert cluster.objects[V2]["spec"] == before["spec"]


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_process_whose_stream_is_from_before_the_claim_releases_it(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, *, claimed: bool
) -> None:
    """It slept while another one claimed the object and did all the rest, and hears of the plan first."""
    before = copy.deepcopy(cluster.objects[V2])
    if claimed:
        await targets(cluster, 1).claim(V2)
    mine = targets(cluster, 2)
    monkeypatch.setattr(cluster, "seen", lambda ref: before if ref == V2 else None)
    await mine.release(V2, "done" if claimed else None)
    now = cluster.objects[V2]["metadata"]["labels"]
    assert now == ({"team": "shop", APPLIED_LABEL: "done"} if claimed else {"team": "shop"})


@pytest.mark.parametrize(
    ("phase", "void"), [("Running", False), ("Stuck", False), ("Succeeded", True), ("RolledBack", True), (None, True)]
)
async def test_a_claim_of_another_plan(cluster: MemoryCluster, phase: str | None, void: bool) -> None:  # noqa: FBT001
    other = plan("steps: []")
    other["metadata"]["uid"] = "uid-b"
    cluster.put(PLANS, other)
    cluster.objects[PLAN]["status"] = {"phase": phase} if phase else {}
    await targets(cluster, uid="uid-b").claim(V2)
    if void:
        await targets(cluster).claim(V2)
        assert labels(cluster)[PLAN_LABEL] == "uid-a"
    else:
        assert await targets(cluster).claimed_by(V2) == PLAN.name
        with pytest.raises(Busy, match=PLAN.name):
            await targets(cluster).claim(V2)


async def test_a_claim_of_a_plan_that_is_gone_is_void(cluster: MemoryCluster) -> None:
    await targets(cluster, uid="uid-gone").claim(V2)
    del cluster.objects[Ref(PLANS, "shop", "uid-gone")]
    await targets(cluster).claim(V2)
    assert labels(cluster)[PLAN_LABEL] == "uid-a"


async def test_whether_a_claim_is_void_is_asked_live() -> None:
    """What is known of plans may be behind: the one that holds the target has just begun."""

    class Behind(MemoryCluster):
        async def list(self, *of: Any, fresh: bool = True) -> Any:
            return await super().list(*of) if fresh else []

    behind = Behind()
    shop(behind)
    await targets(behind, uid="uid-b").claim(V2)
    with pytest.raises(Busy):
        await targets(behind).claim(V2)


@pytest.mark.parametrize(
    "now", [{"phase": "RolledBack"}, {"run": {"number": 1, "fence": 2}}, {"state": "Releasing"}, None]
)
async def test_a_process_that_slept_claims_nothing(cluster: MemoryCluster, now: dict[str, Any] | None) -> None:
    """Nor one that hears of the plan later than of its targets: another one may have released them, under the same fence."""
    late, own = targets(cluster), Ref(PLANS, "shop", "uid-a")
    before = copy.deepcopy(cluster.objects[V2])
    if now is None:
        del cluster.objects[own]
    else:
        cluster.objects[own]["status"] |= now
    for act in (late.claim(V2), late.change(V2, uid(cluster), [change(3)]), late.claim_again(V2, [])):
        with pytest.raises(Superseded):
            await act
    assert cluster.objects[V2] == before


async def test_what_preflight_has_read_is_claimed_without_another_read(cluster: MemoryCluster) -> None:
    """The server is still asked who drives the run, and the patch tests the version."""
    cluster.switch.calls = 0
    await targets(cluster).claim(V2, cluster.objects[V2])
    assert cluster.switch.calls == 2
    assert labels(cluster)[PLAN_LABEL] == "uid-a"


@pytest.mark.parametrize("now", ["changed", "claimed by another plan", "of another process"])
async def test_what_has_changed_since_preflight_is_read_again(cluster: MemoryCluster, now: str) -> None:
    mine, examined = targets(cluster), cluster.objects[V2]
    cluster.put(DEPLOYMENTS, copy.deepcopy(examined) | {"spec": {**examined["spec"], "replicas": 7}})
    match now:
        case "changed":
            await mine.claim(V2, examined)
        case "claimed by another plan":
            await targets(cluster, uid="uid-b").claim(V2)
            with pytest.raises(Busy):
                await mine.claim(V2, examined)
        case _:
            cluster.objects[Ref(PLANS, "shop", "uid-a")]["status"]["run"]["fence"] = 2
            with pytest.raises(Superseded):
                await mine.claim(V2, examined)
    assert (labels(cluster).get(PLAN_LABEL) == "uid-a") is (now == "changed")
    assert cluster.objects[V2]["spec"]["replicas"] == 7


async def test_a_process_that_slept_after_its_save_claims_nothing_though_nothing_has_changed(
    cluster: MemoryCluster,
) -> None:
    """Who took the run over may have ended it without a write to the object, as of a plan that was deleted: its version stands."""
    mine, saved = targets(cluster), cluster.objects[V2]["metadata"]["resourceVersion"]
    assert await mine.claim(ROUTES) is not None
    cluster.objects[Ref(PLANS, "shop", "uid-a")]["status"]["run"]["fence"] = 2
    for examined in (None, cluster.objects[V2]):
        with pytest.raises(Superseded):
            await mine.claim(V2, examined)
    assert cluster.objects[V2]["metadata"]["resourceVersion"] == saved


async def test_a_change_carries_the_fence_and_is_idempotent(cluster: MemoryCluster) -> None:
    await targets(cluster).claim(V2)
    now = targets(cluster, 2)
    await now.change(V2, uid(cluster), [change(3)])
    count = len(cluster.writes)
    await now.change(V2, uid(cluster), [change(3)])
    assert len(cluster.writes) == count
    assert labels(cluster)[FENCE_LABEL] == "2"
    assert cluster.objects[V2]["spec"]["replicas"] == 3


async def test_the_write_of_a_process_that_was_overtaken_has_no_effect(cluster: MemoryCluster) -> None:
    await targets(cluster).claim(V2)
    late, newer = targets(cluster, 2), targets(cluster, 3)
    await newer.fence(V2)
    with pytest.raises(Superseded):
        await late.change(V2, uid(cluster), [change(3)])
    assert cluster.objects[V2]["spec"]["replicas"] == 0


async def test_a_fence_of_another_writer_is_a_lost_claim_and_not_another_process(cluster: MemoryCluster) -> None:
    """The plan is still in our hands, so reading it again would bring the same, for ever."""
    mine = targets(cluster, 2)
    await mine.claim(V2)
    labels(cluster)[FENCE_LABEL] = "1000000000"
    for act in (mine.change(V2, uid(cluster), [change(3)]), mine.confirm(V2, uid(cluster), []), mine.claim(V2)):
        with pytest.raises(Foreign, match=r"--overwrite cutover\.dev/fence=2") as foreign:
            await act
        assert foreign.value.reason == "ClaimLost"
    assert cluster.objects[V2]["spec"]["replicas"] == 0
    await mine.release(V2)
    assert PLAN_LABEL not in labels(cluster)


async def test_a_patch_already_on_its_way_fails_on_the_count(cluster: MemoryCluster) -> None:
    """The paused process computed its patch before; the server refuses it after."""
    await targets(cluster).claim(V2)
    late = targets(cluster, 1)
    operations = await late._operations(V2, uid(cluster), cluster.objects[V2], [change(3)])
    await targets(cluster, 2).fence(V2)
    with pytest.raises(Rejected):
        await cluster.patch(V2, operations, "migrator")


async def test_a_late_write_of_the_same_attempt_fails_on_the_value(cluster: MemoryCluster) -> None:
    """No answer came, a later stage has been written since, and only now the patch arrives: the fence is the same."""
    mine = targets(cluster)
    await mine.claim(V2)
    operations = await mine._operations(V2, uid(cluster), cluster.objects[V2], [change(3)])
    await mine.change(V2, uid(cluster), [change(5, 3)])
    with pytest.raises(Rejected):
        await cluster.patch(V2, operations, "migrator")
    assert cluster.objects[V2]["spec"]["replicas"] == 5


async def test_a_foreign_value_is_left_and_reported(cluster: MemoryCluster) -> None:
    await targets(cluster).claim(V2)
    cluster.objects[V2]["spec"]["replicas"] = 7
    with pytest.raises(Foreign) as foreign:
        await targets(cluster).change(V2, uid(cluster), [change(3)])
    assert foreign.value.reason == "ForeignChange"
    assert str(foreign.value) == (
        "spec.replicas of Deployment shop-v2 is 7, was 0 before, and this plan set 3; another writer changed it. "
        "To restore it: kubectl patch deployment shop-v2 -n shop --type=json "
        """-p '[{"op": "add", "path": "/spec/replicas", "value": 0}]'"""
    )


async def test_a_lost_claim_is_taken_again_when_nothing_else_was_changed(cluster: MemoryCluster) -> None:
    await targets(cluster).change(V2, uid(cluster), [change(3)])
    assert cluster.objects[V2]["spec"]["replicas"] == 3
    assert cluster.objects[V2]["metadata"]["labels"][PLAN_LABEL] == "uid-a"


@pytest.mark.parametrize("marks", [{PLAN_LABEL: "uid-a"}, {PLAN_LABEL: "uid-a", FENCE_LABEL: "x"}])
async def test_a_lost_fence_is_set_again(cluster: MemoryCluster, marks: dict[str, str]) -> None:
    body = copy.deepcopy(cluster.objects[V2])
    body["metadata"]["labels"] = marks
    cluster.put(DEPLOYMENTS, body)
    await targets(cluster).change(V2, uid(cluster), [change(3)])
    assert cluster.objects[V2]["metadata"]["labels"][FENCE_LABEL] == "1"


async def test_a_process_that_slept_writes_nothing_where_the_fence_was_removed(cluster: MemoryCluster) -> None:
    """The number would have told that it is late; without it the plan is asked."""
    late = targets(cluster, 2)
    await late.claim(V2)
    await targets(cluster, 3).fence(V2)
    del labels(cluster)[FENCE_LABEL]
    with pytest.raises(Superseded):
        await late.change(V2, uid(cluster), [change(3)])
    assert cluster.objects[V2]["spec"]["replicas"] == 0


async def test_a_lost_claim_beside_another_change_is_reported(cluster: MemoryCluster) -> None:
    body = copy.deepcopy(cluster.objects[V2])
    body["spec"]["replicas"] = 7
    cluster.put(DEPLOYMENTS, body)
    with pytest.raises(
        Foreign, match=r"the label .* was removed from Deployment shop-v2, and spec\.replicas .* is 7"
    ) as foreign:
        await targets(cluster).change(V2, uid(cluster), [change(3)])
    assert foreign.value.reason == "ClaimLost"
    assert PLAN_LABEL not in cluster.objects[V2]["metadata"]["labels"]


async def test_another_object_of_the_same_name_is_not_ours(cluster: MemoryCluster) -> None:
    await targets(cluster).claim(V2)
    with pytest.raises(Foreign) as foreign:
        await targets(cluster).change(V2, "another-uid", [change(3)])
    assert foreign.value.reason == "TargetReplaced"


async def test_a_refused_object_is_distinguished_from_a_lost_race() -> None:
    class Strict(MemoryCluster):
        async def patch(self, ref: Ref, operations: Any, account: str = "") -> Any:
            if any(op.get("value") == -1 for op in operations):
                raise Rejected("spec.replicas: must be >= 0")
            return await super().patch(ref, operations, account)

    strict = Strict()
    shop(strict)
    await targets(strict).claim(V2)
    with pytest.raises(Rejected, match="the server refuses Deployment shop-v2: spec"):
        await targets(strict).change(V2, str(strict.objects[V2]["metadata"]["uid"]), [change(-1)])


async def test_an_inserted_container_moves_nothing(cluster: MemoryCluster) -> None:
    """Items are found by name at the moment of writing, not by the place they had."""
    await targets(cluster).claim(V2)
    pod = cluster.objects[V2]["spec"]["template"]["spec"]
    pod["containers"].insert(0, {"name": "new", "image": "new:1"})
    await targets(cluster).change(V2, uid(cluster), [Change(IMAGE, to="shop:2", was="shop-v2:1", ours="shop:2")])
    assert [item["image"] for item in cluster.objects[V2]["spec"]["template"]["spec"]["containers"]] == [
        "new:1",
        "proxy:1",
        "shop:2",
    ]


async def test_an_item_put_where_ours_was_gets_nothing(cluster: MemoryCluster) -> None:
    """It comes between the read and the write, has the same value, and only its name tells it from ours."""
    await targets(cluster).claim(V2)
    real, meddled = cluster.patch, list[Ref]()

    async def patch(ref: Ref, operations: Any, account: str = "") -> Any:
        if not meddled:
            body = copy.deepcopy(cluster.objects[V2])
            pod = body["spec"]["template"]["spec"]
            pod["containers"].insert(1, {"name": "copy", "image": "shop-v2:1"})
            meddled.append(cluster.put(DEPLOYMENTS, body))
        return await real(ref, operations, account)

    cluster.patch = patch  # type: ignore[method-assign]
    await targets(cluster).change(V2, uid(cluster), [Change(IMAGE, to="shop:2", was="shop-v2:1", ours="shop:2")])
    assert [item["image"] for item in cluster.objects[V2]["spec"]["template"]["spec"]["containers"]] == [
        "proxy:1",
        "shop-v2:1",
        "shop:2",
    ]


async def test_weights_stay_with_their_destinations_and_their_route(cluster: MemoryCluster) -> None:
    """Between the read and the write the destinations change places, and a route comes above theirs; all have the same weights."""

    def weighed(body: Any) -> list[tuple[str, int]]:
        return [(entry["destination"]["host"], entry["weight"]) for entry in body["spec"]["http"][-1]["route"]]

    body = copy.deepcopy(cluster.objects[ROUTES])
    for entry in body["spec"]["http"][0]["route"]:
        entry["weight"] = 50
    cluster.put(VIRTUAL_SERVICES, body)
    await targets(cluster).claim(ROUTES)
    real, meddling = cluster.patch, ["reversed", "inserted"]

    async def patch(ref: Ref, operations: Any, account: str = "") -> Any:
        if meddling:
            body = copy.deepcopy(cluster.objects[ROUTES])
            if meddling.pop(0) == "reversed":
                body["spec"]["http"][0]["route"].reverse()
            else:
                body["spec"]["http"].insert(0, copy.deepcopy(body["spec"]["http"][0]) | {"name": "above"})
            cluster.put(VIRTUAL_SERVICES, body)
        return await real(ref, operations, account)

    cluster.patch = patch  # type: ignore[method-assign]
    at = ("spec", "http", {"name": "primary"}, "route")
    changes = [
        Change((*at, {"destination": {"host": host}}, "weight"), to, was=50, ours=to)
        for host, to in (("shop-v1", 0), ("shop-v2", 100))
    ]
    await targets(cluster).change(ROUTES, str(cluster.objects[ROUTES]["metadata"]["uid"]), changes)
    now = cluster.objects[ROUTES]
    assert meddling == []
    assert weighed(now) == [("shop-v2", 100), ("shop-v1", 0)]
    assert [entry["weight"] for entry in now["spec"]["http"][0]["route"]] == [50, 50]


async def test_a_snapshot_is_taken_once(cluster: MemoryCluster) -> None:
    body = copy.deepcopy(cluster.objects[V2])
    first = await targets(cluster).snapshot(V2, body, [REPLICAS, ("spec", "paused")], {"ready": 3})
    body["spec"]["replicas"] = 9
    again = await targets(cluster).snapshot(V2, body, [REPLICAS, ("spec", "paused")])
    assert again == first
    assert again.value(REPLICAS) == 0
    assert again.value(("spec", "paused")) is ABSENT
    assert again.facts == {"ready": 3}
    assert await targets(cluster, run=2).saved(V2) is None
    await drop(cluster, "shop", "uid-a", 1)
    assert not [ref for ref in cluster.objects if ref.resource == SNAPSHOTS]


async def test_what_is_gone(cluster: MemoryCluster) -> None:
    gone = Ref(DEPLOYMENTS, "shop", "gone")
    with pytest.raises(NotFound):
        await targets(cluster).claim(gone)
    await targets(cluster).release(gone)
    await targets(cluster).fence(gone)
