"""`flags` in memory: what is written in which order, which pods count, what is refused beforehand, the rollback."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.errors import Rejected, Unavailable
from cutover.field_path import ABSENT, Json
from cutover.objects.config_maps import reads, value_problems
from cutover.ports import CONFIG_MAPS, DEPLOYMENTS, PODS, SNAPSHOTS, Ref, Resource
from cutover.saga.turn import Again, Done, Failed, Wait
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.steps.flags import Flags
from cutover.targets.fields import Foreign
from cutover.testing import MemoryCluster
from support.fakes.flags_step import (
    AFTER,
    BEFORE,
    FLIP,
    MARK,
    SECOND,
    claimed,
    data,
    do,
    edit,
    mark,
    pods,
    replace_pod,
    rolled_out,
    settle,
    undo,
)
from support.fakes.shop import FLAGS, NAMESPACE, STORE, V1, V2, plan, shop
from support.fakes.simulation import Simulation


@pytest.fixture
def cluster() -> MemoryCluster:
    return claimed()


def writes(cluster: MemoryCluster) -> list[Ref]:
    return [ref for verb, ref in cluster.writes if verb == "patch"]


# --- forward ----------------------------------------------------------------------------------------------------------


async def test_the_values_first_then_the_restart(cluster: MemoryCluster) -> None:
    outcome = await do(cluster)
    assert writes(cluster) == [FLAGS, V1]
    assert data(cluster) == AFTER
    assert mark(cluster) == MARK
    assert isinstance(outcome, Again)
    assert "Deployment shop-v1 not complete yet" in outcome.message


async def test_done_when_every_pod_carries_the_mark_and_no_other_is_left(cluster: MemoryCluster) -> None:
    await do(cluster)
    rolled_out(cluster)
    for left in (3, 2, 1):
        outcome = await do(cluster)
        assert isinstance(outcome, Again)
        assert f"{left} pods of Deployment shop-v1 still run with other values, such as d-shop-v1-" in outcome.message
        replace_pod(cluster, pods(cluster)[left - 1])
    assert await do(cluster) == Done(ready="3/3")


async def test_a_pod_on_its_way_out_still_runs(cluster: MemoryCluster) -> None:
    await do(cluster)
    old = copy.deepcopy(cluster.objects[pods(cluster)[0]])
    settle(cluster)
    old["metadata"] |= {"name": "old", "deletionTimestamp": "2026-01-01T12:00:00Z"}
    left = cluster.put(PODS, old)
    outcome = await do(cluster)
    assert isinstance(outcome, Again)
    assert "1 pods of Deployment shop-v1 still run with other values, such as old" in outcome.message
    del cluster.objects[left]
    assert isinstance(await do(cluster), Done)


async def test_a_pod_that_has_ended_does_not(cluster: MemoryCluster) -> None:
    await do(cluster)
    evicted = copy.deepcopy(cluster.objects[pods(cluster)[0]])
    settle(cluster)
    evicted["metadata"]["name"], evicted["status"]["phase"] = "evicted", "Failed"
    cluster.put(PODS, evicted)
    assert isinstance(await do(cluster), Done)


async def test_a_second_do_and_a_second_undo_write_nothing(cluster: MemoryCluster) -> None:
    await do(cluster)
    settle(cluster)
    before = list(cluster.writes)
    assert isinstance(await do(cluster), Done)
    assert cluster.writes == before
    await undo(cluster)
    settle(cluster)
    before = list(cluster.writes)
    assert await undo(cluster) == Done(ready="3/3")
    assert cluster.writes == before


async def test_all_snapshots_are_taken_before_the_first_write(cluster: MemoryCluster) -> None:
    await do(cluster)
    kinds = [ref.resource for verb, ref in cluster.writes if verb in ("create", "patch")]
    assert kinds == [SNAPSHOTS, SNAPSHOTS, CONFIG_MAPS, DEPLOYMENTS]


async def test_a_restart_that_does_not_progress_fails(cluster: MemoryCluster) -> None:
    await do(cluster)
    rolled_out(cluster)
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    cluster.objects[V1]["status"] |= {"conditions": [condition], "updatedReplicas": 1}
    assert isinstance(await do(cluster, elapsed=599), Again), "said of a former rollout"
    outcome = await do(cluster, elapsed=600)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "RolloutStalled"
    assert "Deployment shop-v1 does not progress (ProgressDeadlineExceeded)" in outcome.message


@pytest.mark.parametrize(
    ("marks", "who"),
    [
        ({}, "another writer"),
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "site:/ConfigMap:shop/flags"}},
            "Argo CD (application site)",
        ),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}, "Flux (Kustomization apps)"),
    ],
)
async def test_values_that_are_put_back_under_restarting_pods_fail_the_step(
    cluster: MemoryCluster, marks: Any, who: str
) -> None:
    for part, values in marks.items():
        cluster.objects[FLAGS]["metadata"].setdefault(part, {}).update(values)
    waiting = await do(cluster)
    assert isinstance(waiting, Again)
    assert (f"{who} manages ConfigMap flags and may revert it" in waiting.message) is bool(marks)
    edit(cluster, FLAGS, data=BEFORE)
    outcome = await do(cluster)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "ForeignWriter"
    assert outcome.message.startswith(
        f"{who} has reverted USE_NEW_SCHEMA, DUAL_WRITE of ConfigMap flags while pods restarted"
    )
    assert data(cluster) == BEFORE


async def test_a_third_value_is_left(cluster: MemoryCluster) -> None:
    await do(cluster)
    edit(cluster, FLAGS, data=AFTER | {"DUAL_WRITE": "perhaps"})
    with pytest.raises(Foreign, match=r"data\.DUAL_WRITE of ConfigMap flags is perhaps, was absent before"):
        await do(cluster)


async def test_a_restart_by_hand_during_the_step_blocks_nothing(cluster: MemoryCluster) -> None:
    await do(cluster)
    body = copy.deepcopy(cluster.objects[V1])
    body["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    cluster.put(DEPLOYMENTS, body)
    settle(cluster)
    assert isinstance(await do(cluster), Done)
    await undo(cluster)
    annotations = cluster.objects[V1]["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"kubectl.kubernetes.io/restartedAt": "now"}


async def test_a_config_map_without_data_gets_it_and_loses_it(cluster: MemoryCluster) -> None:
    body = copy.deepcopy(cluster.objects[FLAGS])
    del body["data"]
    cluster.put(CONFIG_MAPS, body)
    await do(cluster)
    assert data(cluster) == {"USE_NEW_SCHEMA": "true", "DUAL_WRITE": "true"}
    await undo(cluster)
    assert "data" not in cluster.objects[FLAGS]


async def test_nothing_to_restart(cluster: MemoryCluster) -> None:
    alone = Flags.model_validate(
        {"configMap": "flags", "set": {"DUAL_WRITE": "true"}, "leave": [{"name": "shop-v1"}, {"name": "shop-v2"}]}
    )
    assert await do(cluster, alone) == Done()
    assert writes(cluster) == [FLAGS]
    assert await undo(cluster, step=alone) == Done()
    assert data(cluster) == BEFORE


# --- back -------------------------------------------------------------------------------------------------------------


async def test_the_old_values_then_the_mark_comes_off(cluster: MemoryCluster) -> None:
    spec = copy.deepcopy(cluster.objects[V1]["spec"])
    await do(cluster)
    settle(cluster)
    begun = len(writes(cluster))
    outcome = await undo(cluster)
    assert writes(cluster)[begun:] == [FLAGS, V1]
    assert data(cluster) == BEFORE, "a key that was not there is gone"
    assert cluster.objects[V1]["spec"] == spec
    assert isinstance(outcome, Again)
    rolled_out(cluster)
    outcome = await undo(cluster)
    assert isinstance(outcome, Again)
    assert "3 pods of Deployment shop-v1 still run with other values" in outcome.message
    settle(cluster)
    assert await undo(cluster) == Done(ready="3/3")


async def test_pods_that_never_restarted_are_left_alone(cluster: MemoryCluster) -> None:
    """In the middle of a restart: what ran before with the old values goes on running."""
    await do(cluster)
    replace_pod(cluster, pods(cluster)[0])
    await undo(cluster)
    assert mark(cluster) is ABSENT


def _new(cluster: MemoryCluster, template: Json) -> None:
    replace_pod(cluster, pods(cluster)[1], template)


def _restarted(cluster: MemoryCluster, template: Json) -> None:
    del template
    cluster.objects[pods(cluster)[1]]["status"]["containerStatuses"][0]["restartCount"] = 1


def _not_running(cluster: MemoryCluster, template: Json) -> None:
    del template
    cluster.objects[pods(cluster)[1]]["status"]["containerStatuses"][0]["state"] = {"waiting": {}}


@pytest.mark.parametrize("happens", [_new, _restarted, _not_running])
async def test_a_pod_of_the_old_template_that_started_with_our_values_is_replaced(
    cluster: MemoryCluster, happens: Any
) -> None:
    """It would pass for one of before. So the template gets a second mark, and loses it when every pod carries that."""
    template = copy.deepcopy(cluster.objects[V1]["spec"]["template"])
    await do(cluster)
    replace_pod(cluster, pods(cluster)[0])
    happens(cluster, template)
    assert isinstance(await undo(cluster), Again)
    assert data(cluster) == BEFORE
    assert mark(cluster) == SECOND
    rolled_out(cluster)
    assert isinstance(await undo(cluster), Again)
    assert mark(cluster) == SECOND, "pods without it are left"
    settle(cluster)
    cluster.objects[V1]["status"]["updatedReplicas"] = 2
    assert isinstance(await undo(cluster), Again)
    assert mark(cluster) == SECOND, "one pod is still to come"
    settle(cluster)
    assert isinstance(await undo(cluster), Again)
    assert mark(cluster) is ABSENT
    settle(cluster)
    assert await undo(cluster) == Done(ready="3/3")


async def test_one_that_terminates_anyway_is_not_a_reason(cluster: MemoryCluster) -> None:
    await do(cluster)
    cluster.objects[pods(cluster)[1]]["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    cluster.objects[pods(cluster)[1]]["status"]["containerStatuses"][0]["restartCount"] = 1
    await undo(cluster)
    assert mark(cluster) is ABSENT


async def test_such_a_pod_is_not_missed_when_the_restart_never_began(cluster: MemoryCluster) -> None:
    """The process died between the values and the restart, and a pod started in between."""
    template = copy.deepcopy(cluster.objects[V1]["spec"]["template"])
    await do(cluster)
    edit(cluster, V1, spec=cluster.objects[V1]["spec"] | {"template": template})
    replace_pod(cluster, pods(cluster)[1])
    await undo(cluster)
    assert mark(cluster) == SECOND


async def test_an_undo_of_nothing_writes_no_value(cluster: MemoryCluster) -> None:
    assert await undo(cluster) == Done()
    assert data(cluster) == BEFORE
    assert mark(cluster) is ABSENT


@pytest.mark.parametrize("gone", [FLAGS, V1])
async def test_what_is_gone_blocks_nothing_else(cluster: MemoryCluster, gone: Ref) -> None:
    await do(cluster)
    settle(cluster)
    cluster.delete(gone)
    outcome = await undo(cluster)
    if gone == FLAGS:
        assert mark(cluster) is ABSENT
        settle(cluster)
        outcome = await undo(cluster)
    else:
        assert data(cluster) == BEFORE
    assert isinstance(outcome, Done)
    assert f"skipped: {gone} not found" in outcome.message


async def test_a_recreated_workload_is_skipped(cluster: MemoryCluster) -> None:
    await do(cluster)
    settle(cluster)
    body = copy.deepcopy(cluster.objects[V1])
    body["metadata"]["uid"] = "another"
    cluster.objects[V1] = body
    outcome = await undo(cluster)
    assert isinstance(outcome, Done)
    assert outcome.message == "skipped: Deployment shop-v1 was deleted and created again"
    assert data(cluster) == BEFORE


async def test_a_stateful_set_that_hangs_is_left_to_a_user() -> None:
    cluster = claimed()
    cluster.objects[STORE]["metadata"]["labels"] = dict(cluster.objects[V1]["metadata"]["labels"])
    step = Flags.model_validate(
        {
            "configMap": "flags",
            "set": {"A": "b"},
            "reload": [{"kind": "StatefulSet", "name": "store"}],
            "leave": [{"name": "shop-v1"}, {"name": "shop-v2"}],
        }
    )
    await do(cluster, step)
    await undo(cluster, step=step)
    figures = {"replicas": 3, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2, "updateRevision": "r"}
    cluster.objects[STORE]["status"] = {
        "observedGeneration": cluster.objects[STORE]["metadata"]["generation"],
        **figures,
    }
    assert isinstance(await undo(cluster, step=step), Again)
    outcome = await undo(cluster, elapsed=61.0, step=step)
    assert isinstance(outcome, Wait)
    assert outcome.reason == "PodsToDelete"
    assert "kubectl delete pods -n shop -l 'app=store,controller-revision-hash!=r'" in outcome.message


# --- beforehand -------------------------------------------------------------------------------------------------------

SPEC = "steps: [{name: flip, flags: {configMap: flags, set: {COLOUR: red}, reload: RELOAD}}]"
ALL = "[{name: shop-v1}, {name: shop-v2}]"


async def refused(reload: str = ALL, **changed: dict[str, Any]) -> str:
    """What the plan is Refused with; `changed` are fields of the ConfigMap or of a workload."""

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        for name, fields in changed.items():
            ref = {"flags": FLAGS, "v1": V1, "store": STORE}[name]
            body = copy.deepcopy(cluster.objects[ref])
            (body if ref == FLAGS else body["spec"]).update(fields)
            cluster.put(ref.resource, body)

    run = Simulation(plan(f"startDeadline: 1s\n{SPEC.replace('RELOAD', reload)}"), put=put)
    assert await run.run() is Phase.REFUSED, run.status
    assert run.specs() == run.specs_before()
    return run.status.message


@pytest.mark.parametrize(
    ("reload", "changed", "says"),
    [
        (
            ALL,
            {"flags": {"immutable": True}},
            "flags.configMap: ConfigMap flags is immutable, so none of its keys can be set; recreate it",
        ),
        (
            ALL,
            {"flags": {"binaryData": {"COLOUR": "YQ=="}}},
            "flags.set.COLOUR: key COLOUR is in binaryData of ConfigMap flags",
        ),
        (
            ALL,
            {"flags": {"data": {"big": "x" * 1_048_576}}},
            "flags.configMap: ConfigMap flags would hold 1048579 bytes, and the maximum is 1048576",
        ),
        (
            ALL,
            {"flags": {"data": {"COLOUR": "<" * 250_000}}},
            "flags.set: the old and new values of ConfigMap flags take 1500148 bytes in the snapshot for the rollback (data.COLOUR alone 150",
        ),
        (ALL, {"v1": {"paused": True}}, "Deployment shop-v1 is paused (spec.paused: true), so nothing would restart"),
        (
            "[{name: shop-v1}, {name: shop-v2}, {kind: StatefulSet, name: store}]",
            {"store": {"updateStrategy": {"type": "OnDelete"}}},
            "pods of StatefulSet store change only when a user deletes them",
        ),
        (
            "[{name: shop-v1}, {name: shop-v2}, {kind: StatefulSet, name: store}]",
            {"store": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}},
            "StatefulSet store has partition 2, so its first 2 pods would keep the old values",
        ),
        (
            "[{name: shop-v1}]",
            {},
            "Deployment shop-v2 reads ConfigMap flags (envFrom of container app); add it to reload, or to leave",
        ),
        ("[{name: shop-v1}, {name: shop-v2}, {name: shop-v9}]", {}, "there is no Deployment shop-v9 in namespace shop"),
    ],
)
async def test_what_is_in_the_way_is_reported_before_the_first_step(reload: str, changed: Any, says: str) -> None:
    assert says in await refused(reload, **changed)


async def test_a_config_map_that_is_not_there() -> None:
    run = Simulation(plan("startDeadline: 1s\nsteps: [{name: flip, flags: {configMap: other, set: {A: b}}}]"), put=shop)
    assert await run.run() is Phase.REFUSED
    assert "steps[flip].flags: there is no ConfigMap other in namespace shop; create it" in run.status.message


async def test_what_the_server_refuses_is_reported_in_its_words() -> None:
    def refuse(ref: Ref, body: Json) -> None:
        del body
        if ref in (FLAGS, V2):
            raise Rejected(f"policy: {ref.name} is closed")

    run = Simulation(plan(f"startDeadline: 1s\n{SPEC.replace('RELOAD', ALL)}"), put=shop)
    run.cluster.refuse = refuse
    assert await run.run() is Phase.REFUSED
    assert "steps[flip].flags.set: the server refuses it: policy: flags is closed" in run.status.message
    assert "steps[flip].flags.reload[shop-v2]: the server refuses it: policy: shop-v2 is closed" in run.status.message


async def test_a_reader_that_comes_later_fails_the_step_before_its_first_write() -> None:
    run = Simulation(
        plan(f"steps: [{{name: ok, approve: {{message: go}}}}, {SPEC.replace('RELOAD', ALL).removeprefix('steps: [')}"),
        put=shop,
    )
    await run.until(lambda: run.phase is Phase.WAITING)
    body = copy.deepcopy(run.cluster.objects[V1])
    body["metadata"] = {"name": "late", "namespace": NAMESPACE}
    run.cluster.put(DEPLOYMENTS, body)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert "Deployment late reads ConfigMap flags" in run.status.failure.message
    assert run.cluster.objects[FLAGS]["data"] == BEFORE


# --- who reads --------------------------------------------------------------------------------------------------------


def workload(**pod: Any) -> Json:
    return {"spec": {"template": {"spec": {"containers": [{"name": "app"}]} | pod}}}


def key_ref(key: str, name: str = "flags") -> Json:
    return [
        {
            "name": "app",
            "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": name, "key": key, "optional": True}}}],
        }
    ]


@pytest.mark.parametrize(
    ("body", "how"),
    [
        (workload(), ""),
        (workload(containers=key_ref("DUAL_WRITE")), "env X of container app"),
        (workload(containers=key_ref("OTHER")), ""),
        (workload(containers=key_ref("DUAL_WRITE", "others")), ""),
        (workload(initContainers=key_ref("DUAL_WRITE")), "env X of container app"),
        (workload(containers=[{"name": "app", "env": [{"name": "DUAL_WRITE", "value": "x"}]}]), ""),
        (
            workload(
                containers=[
                    {"name": "app", "envFrom": [{"secretRef": {"name": "flags"}}, {"configMapRef": {"name": "flags"}}]}
                ]
            ),
            "envFrom of container app",
        ),
        (workload(volumes=[{"name": "v", "configMap": {"name": "flags"}}]), "files of volume v"),
        (
            workload(volumes=[{"name": "v", "configMap": {"name": "flags", "items": [{"key": "OTHER", "path": "o"}]}}]),
            "",
        ),
        (
            workload(
                volumes=[{"name": "v", "configMap": {"name": "flags", "items": [{"key": "DUAL_WRITE", "path": "d"}]}}]
            ),
            "files of volume v",
        ),
        (
            workload(
                volumes=[
                    {
                        "name": "v",
                        "projected": {"sources": [{"secret": {"name": "flags"}}, {"configMap": {"name": "flags"}}]},
                    }
                ]
            ),
            "files of volume v",
        ),
        (workload(volumes=[{"name": "v", "emptyDir": {}}]), ""),
    ],
)
def test_who_reads_a_key(body: Json, how: str) -> None:
    assert reads(body, "flags", {"DUAL_WRITE": "true"}) == how


def test_bytes_are_counted_as_the_server_counts_them() -> None:
    body = {"metadata": {"name": "flags"}, "data": {"a": "x" * 1_048_570, "b": "old"}, "binaryData": {"c": "YWJj"}}
    assert value_problems(body, {"b": "new"}) == {}
    assert "would hold 1048578 bytes" in value_problems(body, {"b": "newer"})[""]  # 5 instead of 3, and 3 of c
    assert "would hold 1048579 bytes" in value_problems(body, {"b": "äöü"})[""]


def test_one_workload_is_what_readiness_measures() -> None:
    assert FLIP.rolls_out() is not None
    assert FLIP.rolls_out() == FLIP.touches()[1]
    both = Flags.model_validate({"configMap": "f", "set": {"a": "b"}, "reload": [{"name": "x"}, {"name": "y"}]})
    assert both.rolls_out() is None


def test_values_that_are_long_or_unprintable_are_not_shown() -> None:
    step = Flags.model_validate({"configMap": "f", "set": {"a": "b", "c": "line\nline", "d": "x" * 41}})
    assert step.stages()[0].intent == "set a=b, c=(9 characters), d=(41 characters) in ConfigMap f"


async def test_a_snapshot_that_was_not_taken_blocks_no_undo() -> None:
    """The process could take the ConfigMap's, not the Deployment's: nothing was written, so nothing is missing."""
    run = Simulation(plan(SPEC.replace("RELOAD", ALL)), put=shop)
    create = run.cluster.create

    async def refuse(
        resource: Resource, namespace: str, body: Json, account: str = "", *, dry_run: bool = False
    ) -> Json:
        if resource == SNAPSHOTS and body["data"]["object"]["kind"] == "Deployment":
            raise Unavailable("no answer")
        return await create(resource, namespace, body, account, dry_run=dry_run)

    run.cluster.create = refuse  # type: ignore[method-assign]
    await run.until(lambda: any(ref.resource == SNAPSHOTS for ref in run.cluster.objects))
    await run.turn()
    run.request(RequestVerb.ABORT)
    phases = set()

    def told(verb: str, ref: Ref, content: Any) -> None:
        if verb == "status":
            phases.add(content["phase"])
        del ref

    run.cluster.told = told
    assert await run.run() is Phase.ROLLED_BACK
    assert "Stuck" not in phases
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_the_other_keys_go_back_where_one_is_left(cluster: MemoryCluster) -> None:
    await do(cluster)
    edit(cluster, FLAGS, data=AFTER | {"DUAL_WRITE": "perhaps"})
    with pytest.raises(Foreign, match=r"data\.DUAL_WRITE of ConfigMap flags is perhaps, was absent before"):
        await undo(cluster)
    assert data(cluster) == BEFORE | {"DUAL_WRITE": "perhaps"}
