"""`deploy` in memory, where another writer changes a map that the step has filled: each key is a field of its own."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.errors import Rejected
from cutover.field_path import ABSENT, Change
from cutover.ports import FENCE_LABEL, SNAPSHOTS, Ref
from cutover.saga.turn import Again, Done
from cutover.targets.fields import Foreign
from cutover.testing import MemoryCluster
from cutover.testing.controllers import roll_out
from support.fakes.deploy_step import claimed, do, pod, undo
from support.fakes.shop import V2

NOTE = """
workload: {name: shop-v2}
images: [{container: app, image: "shop:2"}]
patch: '{template: {metadata: {annotations: {config-version: "42", note: ours}}}}'
"""
PROBE = """
workload: {name: shop-v2}
images: [{container: app, image: "shop:2"}]
patch: '{template: {spec: {securityContext: {runAsUser: 7, seccompProfile: {type: RuntimeDefault}}}}}'
"""
RESTARTED = "kubectl.kubernetes.io/restartedAt"


@pytest.fixture
def cluster() -> MemoryCluster:
    return claimed()


def notes(cluster: MemoryCluster) -> Any:
    return cluster.objects[V2]["spec"]["template"]["metadata"].setdefault("annotations", {})


def image(cluster: MemoryCluster) -> Any:
    return pod(cluster, V2)["containers"][1]["image"]


def stored(cluster: MemoryCluster) -> None:
    """Another writer's change is seen under a version of its own."""
    cluster._store(V2, copy.deepcopy(cluster.objects[V2]))


async def test_a_restart_by_hand_keeps_nothing_from_going_back(cluster: MemoryCluster) -> None:
    before = copy.deepcopy(cluster.objects[V2]["spec"])
    await do(cluster, NOTE)
    notes(cluster)[RESTARTED] = "now"
    stored(cluster)
    assert isinstance(await do(cluster, NOTE), Again), "forward their key is none of ours either"
    await undo(cluster, NOTE)
    roll_out(cluster)
    assert isinstance(await undo(cluster, NOTE), Done)
    assert notes(cluster) == {RESTARTED: "now"}
    del cluster.objects[V2]["spec"]["template"]["metadata"]["annotations"]
    assert cluster.objects[V2]["spec"] == before


async def test_what_nobody_disputes_goes_back_even_where_one_field_is_disputed(cluster: MemoryCluster) -> None:
    await do(cluster, NOTE)
    notes(cluster).update({"note": "theirs", RESTARTED: "now"})
    stored(cluster)
    says = (
        r"spec.template.metadata.annotations.note of Deployment shop-v2 is theirs, was absent before, and this plan set ours"
        r""".* '\[\{"op": "remove", "path": "/spec/template/metadata/annotations/note"\}\]'"""
    )
    for _ in range(2):
        with pytest.raises(Foreign, match=says):
            await undo(cluster, NOTE)
        assert (image(cluster), notes(cluster)) == ("shop-v2:1", {"note": "theirs", RESTARTED: "now"})
        assert cluster.objects[V2]["metadata"]["labels"][FENCE_LABEL] == "2", (
            "an earlier attempt writes nothing any more"
        )
    writes = len(cluster.writes)
    with pytest.raises(Foreign):
        await undo(cluster, NOTE)
    assert len(cluster.writes) == writes, "what is back is written once"
    notes(cluster)["note"] = "ours"  # settled by hand
    stored(cluster)
    await undo(cluster, NOTE)
    roll_out(cluster)
    assert isinstance(await undo(cluster, NOTE), Done)
    assert notes(cluster) == {RESTARTED: "now"}


async def test_a_map_without_anything_of_others_goes_as_a_whole(cluster: MemoryCluster) -> None:
    """What is left of it would be an empty map: other than none for the server, and another pod template."""
    before = copy.deepcopy(cluster.objects[V2]["spec"])
    await do(cluster, PROBE)
    del pod(cluster, V2)["securityContext"]["seccompProfile"]["type"]
    stored(cluster)
    await undo(cluster, PROBE)
    assert cluster.objects[V2]["spec"] == before


async def test_the_keys_of_a_map_within_a_map_are_fields_too(cluster: MemoryCluster) -> None:
    await do(cluster, PROBE)
    pod(cluster, V2)["securityContext"]["seccompProfile"]["localhostProfile"] = "theirs"
    stored(cluster)
    await undo(cluster, PROBE)
    assert pod(cluster, V2)["securityContext"] == {"seccompProfile": {"localhostProfile": "theirs"}}
    assert image(cluster) == "shop-v2:1"


async def test_a_rest_that_the_server_refuses_stays_whole(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a map may be nothing that the server accepts; the other fields go back all the same."""
    await do(cluster, PROBE)
    theirs = pod(cluster, V2)["securityContext"]
    theirs["runAsUser"] = 9
    stored(cluster)
    patch = MemoryCluster.patch

    async def strict(self: MemoryCluster, ref: Ref, operations: Any, account: str = "") -> Any:
        if any(
            operation["path"].endswith("/seccompProfile") for operation in operations if operation["op"] == "remove"
        ):
            raise Rejected("seccompProfile is required with runAsUser")
        return await patch(self, ref, operations, account)

    monkeypatch.setattr(MemoryCluster, "patch", strict)
    with pytest.raises(Foreign, match=r"securityContext\.runAsUser of Deployment shop-v2 is 9, was absent before"):
        await undo(cluster, PROBE)
    assert (image(cluster), pod(cluster, V2)["securityContext"]) == ("shop-v2:1", theirs)


async def test_a_map_that_the_step_removed_comes_back_beside_what_others_set_there(cluster: MemoryCluster) -> None:
    pod(cluster, V2)["nodeSelector"] = {"disk": "fast"}
    text = "{workload: {name: shop-v2}, patch: '{template: {spec: {nodeSelector: null}}}'}"
    await do(cluster, text)
    pod(cluster, V2)["nodeSelector"] = {"zone": "a"}
    stored(cluster)
    await undo(cluster, text)
    assert pod(cluster, V2)["nodeSelector"] == {"zone": "a", "disk": "fast"}


async def test_the_snapshot_of_a_map_is_the_same_as_in_former_releases(cluster: MemoryCluster) -> None:
    """So those that a former release has taken are restored key by key as well."""
    await do(cluster, NOTE)
    kept = next(body for ref, body in cluster.objects.items() if ref.resource == SNAPSHOTS)["data"]["fields"]
    assert kept[0] == {
        "path": ["spec", "template", "metadata", "annotations"],
        "ours": {"value": {"config-version": "42", "note": "ours"}},
    }


def test_a_map_that_is_not_written_by_key_is_one_value() -> None:
    """The item of a route, for example: one member of another writer makes it another item."""
    whole = Change(("spec", "mirror"), to=ABSENT, was=ABSENT, ours={"host": "a", "port": 80})
    assert whole.keys() == {}
    assert not whole.knows({"host": "a"})
    assert not whole.knows({})
    assert not whole.stands_in({"host": "b"})
