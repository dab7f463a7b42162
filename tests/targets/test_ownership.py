"""Owners of fields: what we took goes back to those who had it, and nothing else is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.errors import Rejected, Superseded
from cutover.field_path import Change
from cutover.ports import DEPLOYMENTS, FENCE_LABEL, SNAPSHOTS
from cutover.targets.ownership import fields_of, given_back, owners_of, tree_of
from cutover.targets.snapshots import read, written
from cutover.testing import MemoryCluster
from support.fakes.field_owners import applied_by, keep_owners
from support.fakes.shop import V2, shop
from targets.test_targets import IMAGE, REPLICAS, targets, uid

HELM = {"manager": "helm", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "time": "t"}
KUBECTL = HELM | {"manager": "kubectl-client-side-apply", "operation": "Update"}
OURS = HELM | {"manager": "cutover", "operation": "Update"}
CONTAINER = 'k:{"name":"app"}'
SPEC: dict[str, Any] = {"f:replicas": {}, "f:containers": {CONTAINER: {".": {}, "f:image": {}, "f:name": {}}}}
LABELS: dict[str, Any] = {"f:labels": {".": {}, "f:cutover.dev/plan": {}}}


def object_of(*entries: tuple[dict[str, str], Any]) -> Any:
    owned = [{**manager, "fieldsV1": copy.deepcopy(fields)} for manager, fields in entries]
    return {"metadata": {"managedFields": owned}}


def without_image(spec: Any) -> Any:
    left = copy.deepcopy(spec)
    del left["f:containers"][CONTAINER]["f:image"]
    return left


OUR_IMAGE: dict[str, Any] = {"f:containers": {CONTAINER: {"f:image": {}}}}


@pytest.mark.parametrize("tree", [SPEC, LABELS, {}, {"f:a": {"f:b": {"f:c": {}}, "f:d": {".": {}, "f:e": {}}}}])
def test_fields_and_trees_are_the_same(tree: Any) -> None:
    assert tree_of(fields_of({"fieldsV1": tree})) == tree


@pytest.mark.parametrize("manager", [HELM, KUBECTL], ids=lambda one: one["manager"])
def test_what_we_took_goes_back(manager: Any) -> None:
    before = object_of((manager, {"f:spec": SPEC}), (OURS, {"f:metadata": LABELS}))
    now = object_of((manager, {"f:spec": without_image(SPEC)}), (OURS, {"f:spec": OUR_IMAGE, "f:metadata": LABELS}))
    assert given_back(now, owners_of(before, [("spec", "x")])) == before["metadata"]["managedFields"]
    assert given_back(before, owners_of(before, [("spec", "x")])) is None, "twice is once"


def test_one_who_lost_everything_is_there_again() -> None:
    before = object_of((HELM, {"f:spec": OUR_IMAGE}), (KUBECTL, {"f:spec": OUR_IMAGE}))
    now = object_of((OURS, {"f:spec": OUR_IMAGE}))
    assert given_back(now, owners_of(before, [("spec",)])) == before["metadata"]["managedFields"]


def test_what_was_ours_before_stays_and_what_was_nobodys_is_nobodys_again() -> None:
    before = object_of((OURS, {"f:spec": {"f:replicas": {}}}))
    now = object_of((OURS, {"f:spec": {"f:replicas": {}, "f:paused": {}}}))
    assert given_back(now, owners_of(before, [("spec", "replicas")])) == before["metadata"]["managedFields"]


def test_what_another_writer_has_taken_since_is_left_to_it() -> None:
    before = object_of((HELM, {"f:spec": SPEC}))
    theirs: tuple[Any, Any] = (HELM | {"manager": "somebody"}, {"f:spec": {"f:replicas": {}}})
    gone = {"f:containers": without_image(SPEC)["f:containers"]}
    now = object_of((HELM, {"f:spec": gone}), theirs, (OURS, {"f:spec": OUR_IMAGE}))
    back = given_back(now, owners_of(before, [("spec",)]))
    assert back is not None
    assert {entry["manager"]: entry["fieldsV1"] for entry in back} == {
        "helm": {"f:spec": {"f:containers": SPEC["f:containers"]}},
        "somebody": {"f:spec": {"f:replicas": {}}},
    }


@pytest.mark.parametrize(
    "owners", [[], owners_of({"metadata": {}}, [("spec",)])], ids=["a former release", "no owners"]
)
def test_without_known_owners_nothing_is_given_back(owners: list[Any]) -> None:
    assert given_back(object_of((OURS, {"f:spec": OUR_IMAGE})), owners) is None


# --- on an object -----------------------------------------------------------------------------------------------------

CHANGES = [
    Change(IMAGE, to="shop:2", was="shop-v2:1", ours="shop:2"),
    Change(REPLICAS, to=3, was=0, ours=3),
]
BACK = [Change(change.path, to=change.was, was=change.was, ours=change.ours) for change in CHANGES]


@pytest.fixture
def cluster() -> MemoryCluster:
    made = MemoryCluster()
    shop(made)
    keep_owners(made)
    body = made.objects[V2]
    body["metadata"]["managedFields"] = [applied_by("helm", body)]
    return made


async def written_and_back(cluster: MemoryCluster) -> Any:
    """A step has written its fields and put them back; who owned them before."""
    mine, before = targets(cluster), copy.deepcopy(cluster.objects[V2]["metadata"]["managedFields"])
    await mine.claim(V2)
    await mine.snapshot(V2, cluster.objects[V2], [IMAGE, REPLICAS])
    await mine.change(V2, uid(cluster), CHANGES)
    await mine.change(V2, uid(cluster), BACK)
    assert cluster.objects[V2]["metadata"]["managedFields"] != before
    return before


async def test_an_undo_ends_with_the_fields_at_their_owners(cluster: MemoryCluster) -> None:
    before = await written_and_back(cluster)
    for _ in range(2):
        await targets(cluster).confirm(V2, uid(cluster), BACK)
        assert cluster.objects[V2]["metadata"]["managedFields"] == before
    patches = [ref for verb, ref in cluster.writes if (verb, ref) == ("patch", V2)]
    assert len(patches) == 4, "the claim, the change, the way back, and its owners once"


async def test_a_late_process_gives_nothing_back(cluster: MemoryCluster) -> None:
    await written_and_back(cluster)
    late, body = targets(cluster), copy.deepcopy(cluster.objects[V2])
    targets(cluster, 2)
    body["metadata"]["labels"][FENCE_LABEL] = "2"
    cluster.put(DEPLOYMENTS, body)
    with pytest.raises(Superseded):
        await late.confirm(V2, uid(cluster), BACK)
    assert cluster.objects[V2]["metadata"]["managedFields"] == body["metadata"]["managedFields"]


async def test_where_that_is_refused_the_undo_ends_all_the_same(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The values are back; a policy that lets nobody write owners must not hold up the undo of earlier steps."""
    await written_and_back(cluster)

    async def refused(*_: Any) -> Any:
        raise Rejected("admission webhook says no")

    monkeypatch.setattr(MemoryCluster, "patch", refused)
    body = await targets(cluster).confirm(V2, uid(cluster), BACK)
    assert body["spec"]["replicas"] == 0
    assert "not given back" in caplog.text


async def test_another_write_in_between_is_not_lost(cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is the whole list, so it is written at the version that was read."""
    before = await written_and_back(cluster)
    other = HELM | {"manager": "somebody", "fieldsV1": {"f:spec": {"f:paused": {}}}}
    patch, tries = MemoryCluster.patch, list[int]()

    async def raced(self: MemoryCluster, *args: Any) -> Any:
        if not tries:
            tries.append(1)
            body = copy.deepcopy(self.objects[V2])
            body["metadata"]["managedFields"].append(other)
            self.put(DEPLOYMENTS, body)
        return await patch(self, *args)

    monkeypatch.setattr(MemoryCluster, "patch", raced)
    await targets(cluster).confirm(V2, uid(cluster), BACK)
    assert cluster.objects[V2]["metadata"]["managedFields"] == [*before, other]


async def test_a_snapshot_keeps_the_owners_unless_there_is_no_room_for_them(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written_and_back(cluster)
    kept = next(body for ref, body in cluster.objects.items() if ref.resource == SNAPSHOTS)
    snapshot = read(kept)
    assert [entry["manager"] for entry in snapshot.owners] == ["helm"]
    monkeypatch.setattr("cutover.targets.snapshots.LARGEST", 200)
    assert "owners" not in written(snapshot, V2, "deploy"), "the values are what an undo cannot do without"
