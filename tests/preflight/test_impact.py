"""What else a plan meets: who writes its targets back, whether its pods are let in, who watches over them."""

from __future__ import annotations

import copy
import json
from typing import Any

import jq  # type: ignore[import-not-found]  # a compiled module without types
import pytest
import yaml

from cutover.field_path import Json
from cutover.objects.gitops import drifts, manager_of
from cutover.plan.parsing import parse
from cutover.ports import (
    AUTOSCALERS,
    DISRUPTION_BUDGETS,
    LIMIT_RANGES,
    RESOURCE_QUOTAS,
    VIRTUAL_SERVICES,
    Ref,
    Resource,
)
from cutover.preflight.assessment import assess, fields
from cutover.preflight.impact import impact_of
from cutover.status.conditions import present
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from support.fakes.shop import FLAGS, FRONT, ROUTES, STORE, V1, V2, plan, shop
from support.fakes.simulation import Simulation

ARGO = {"annotations": {"argocd.argoproj.io/tracking-id": "site:apps/Deployment:shop/shop-v2"}}
ROLL = "{name: roll, deploy: {workload: {name: shop-v2}, images: [{container: app, image: 'app:2'}]}}"
SHIFT = (
    "{name: shift, traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100]}}"
)


@pytest.fixture
def cluster() -> MemoryCluster:
    made = MemoryCluster()
    shop(made)
    return made


def mark(cluster: MemoryCluster, ref: Ref, metadata: dict[str, Any]) -> None:
    for part, added in metadata.items():
        cluster.objects[ref]["metadata"].setdefault(part, {}).update(added)


async def look(cluster: MemoryCluster, *steps: str) -> tuple[list[str], dict[str, str]]:
    """The problems, and the risks by their type."""
    text = f"serviceAccountName: migrator\nsteps: [{', '.join(steps)}]"
    found = await assess(parse(yaml.safe_load(text)), cluster, "shop")
    return [str(problem) for problem in found.problems], {risk.type: risk.message for risk in found.risks}


# --- who else writes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "annotations", "owner", "writes"),
    [
        ({}, {}, "None", False),
        ({"app.kubernetes.io/managed-by": "Helm"}, {"meta.helm.sh/release-name": "site"}, "Helm (release site)", False),
        ({"app.kubernetes.io/managed-by": "somebody"}, {}, "None", False),
        ({"argocd.argoproj.io/instance": "site"}, {}, "Argo CD (application site)", True),
        ({}, {"argocd.argoproj.io/instance": "site"}, "Argo CD (application site)", True),
        ({}, {"argocd.argoproj.io/tracking-id": "site:apps/Deployment:shop/web"}, "Argo CD (application site)", True),
        ({}, {"argocd.argoproj.io/tracking-id": "site:apps/Deployment:shop/copied-from"}, "None", False),
        ({}, {"argocd.argoproj.io/tracking-id": "site:apps/StatefulSet:shop/web"}, "None", False),
        ({}, {"argocd.argoproj.io/tracking-id": "nonsense"}, "None", False),
        ({"kustomize.toolkit.fluxcd.io/name": "site", "kustomize.toolkit.fluxcd.io/namespace": "flux"}, {}, "Flux (Kustomization flux/site)", True),
        ({"kustomize.toolkit.fluxcd.io/name": "site"}, {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}, "Flux (Kustomization site)", False),
        ({"kustomize.toolkit.fluxcd.io/name": "site"}, {"kustomize.toolkit.fluxcd.io/ssa": "IfNotPresent"}, "Flux (Kustomization site)", False),
        ({"helm.toolkit.fluxcd.io/name": "site", "app.kubernetes.io/managed-by": "Helm"}, {}, "Flux (HelmRelease site)", True),
        ({"helm.toolkit.fluxcd.io/name": "site"}, {"helm.toolkit.fluxcd.io/driftDetection": "disabled"}, "Flux (HelmRelease site)", False),
    ],
)  # fmt: skip
def test_who_owns_it(labels: Json, annotations: Json, owner: str, *, writes: bool) -> None:
    metadata = {"name": "web", "namespace": "shop", "labels": labels, "annotations": annotations}
    body = {"kind": "Deployment", "metadata": metadata}
    assert str(manager_of(body)) == owner
    assert (drifts(body) is not None) == writes


@pytest.mark.parametrize(
    ("manager", "writes"),
    [("argocd-controller", True), ("argocd-application-controller", True), ("kubectl", False)],
)
def test_the_label_of_argo_cd_before_3_counts_where_it_has_written(manager: str, *, writes: bool) -> None:
    labels = {
        "app.kubernetes.io/instance": "site",
        "app.kubernetes.io/managed-by": "Helm",
    }  # of a chart that it renders
    metadata = {"name": "web", "namespace": "shop", "labels": labels, "managedFields": [{"manager": manager}]}
    body = {"kind": "Deployment", "metadata": metadata}
    assert str(manager_of(body)) == ("Argo CD (application site)" if writes else "Helm (release unknown)")
    assert (drifts(body) is not None) == writes


async def test_argo_cd_is_told_what_to_leave_word_for_word(cluster: MemoryCluster) -> None:
    mark(cluster, V2, ARGO)
    mark(cluster, ROUTES, {"labels": {"argocd.argoproj.io/instance": "site"}})
    _, risks = await look(cluster, ROLL, SHIFT)
    says, _, rest = risks["GitOpsDriftRisk"].partition("\n")
    assert says.startswith("Argo CD application site owns Deployment shop-v2, VirtualService shop and writes back")
    assert yaml.safe_load(rest) == {
        "spec": {
            "ignoreDifferences": [
                {
                    "group": "apps",
                    "kind": "Deployment",
                    "name": "shop-v2",
                    "namespace": "shop",
                    "jqPathExpressions": ['.spec.template.spec.containers[] | select(.name == "app") | .image'],
                },
                {
                    "group": "networking.istio.io",
                    "kind": "VirtualService",
                    "name": "shop",
                    "namespace": "shop",
                    "jqPathExpressions": [".spec.http[].route[].weight"],
                },
            ],
            "syncPolicy": {"syncOptions": ["RespectIgnoreDifferences=true"]},
        }
    }


def written(cluster: MemoryCluster, step: str) -> list[str]:
    """The jq paths of what a step writes of the VirtualService."""
    found = parse(yaml.safe_load(f"serviceAccountName: migrator\nsteps: [{step}]"))
    return fields(found, {ROUTES: cluster.objects[ROUTES]})[ROUTES]


@pytest.mark.parametrize(
    ("more", "paths"),
    [
        ("virtualService: {name: shop}", ["http"]),
        ("virtualService: {name: shop, tcp: [5432]}", ["tcp"]),
        ("virtualService: {name: shop, routes: [primary], tls: [a.example]}", ["http", "tls"]),
    ],
)
def test_weights_are_named_where_they_stand(cluster: MemoryCluster, more: str, paths: list[str]) -> None:
    shift = f"{{name: shift, traffic: {{{more}, from: {{host: shop-v1}}, to: {{host: shop-v2}}, weights: [10]}}}}"
    wanted = [f".spec.{one}[].route[].weight" for one in paths]
    assert written(cluster, shift) == wanted


def test_what_stands_beside_the_weights_is_named_too(cluster: MemoryCluster) -> None:
    more = "match: [{headers: {canary: {exact: 'true'}}}], mirror: {percent: 5}"
    paths = written(cluster, SHIFT.replace("weights:", f"{more}, weights:"))
    body = copy.deepcopy(cluster.objects[ROUTES])
    body["spec"]["http"][0]["mirror"] = {"host": "shop-v2"}
    body["spec"]["http"].insert(0, {"name": "cutover-shift-primary", "route": [{"destination": {"host": "shop-v2"}}]})
    program = " | ".join(f"del({path})" for path in paths)  # one by one, as Argo CD does
    left = jq.compile(f"{program} | .spec.http").input_value(body).first()
    assert [route.keys() for route in left] == [{"name", "retries", "route"}]
    assert paths == [
        ".spec.http[].route[].weight",
        ".spec.http[].mirror",
        ".spec.http[].mirrorPercentage",
        ".spec.http[].mirrors",
        '.spec.http[] | select((.name // "") | startswith("cutover-"))',
    ]


async def test_flux_is_told_by_its_own_annotation(cluster: MemoryCluster) -> None:
    mark(cluster, FLAGS, {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}})
    mark(cluster, V1, {"labels": {"helm.toolkit.fluxcd.io/name": "shop", "helm.toolkit.fluxcd.io/namespace": "flux"}})
    flags = "{name: flip, flags: {configMap: flags, set: {a: b}, reload: [{name: shop-v1}, {name: shop-v2}]}}"
    _, risks = await look(cluster, flags)
    message = risks["GitOpsDriftRisk"]
    assert "Flux Kustomization apps owns ConfigMap flags" in message
    assert "    kustomize.toolkit.fluxcd.io/reconcile: disabled\n" in message
    assert "Flux HelmRelease flux/shop owns Deployment shop-v1" in message
    assert "    helm.toolkit.fluxcd.io/driftDetection: disabled\n" in message


PATHS = """
workload: {kind: StatefulSet, name: store}
replicas: 4
images: [{container: db, image: "db:2"}]
patch: |
  template:
    metadata: {annotations: {example.org/config: "2"}}
    spec:
      nodeSelector: {$patch: delete}
      tolerations: [{key: dedicated}]
      containers: [{name: db, env: [{name: MODE, value: new}]}]
"""


async def test_each_field_that_is_written_is_named_and_no_other(cluster: MemoryCluster) -> None:
    """Argo CD takes the expressions for what to delete on both sides; jq itself does it here."""
    mark(cluster, STORE, {"labels": {"argocd.argoproj.io/instance": "site"}})
    step = f"{{name: store, deploy: {json.dumps(yaml.safe_load(PATHS))}}}"
    cluster.objects[STORE]["spec"]["template"]["spec"]["tolerations"] = []
    cluster.objects[STORE]["spec"]["template"]["metadata"]["annotations"] = {"example.org/config": "1", "other": "x"}
    _, risks = await look(cluster, step, "{name: front, switch: {service: front, selector: {app: x}}}")
    (ignored,) = yaml.safe_load(risks["GitOpsDriftRisk"].partition("\n")[2])["spec"]["ignoreDifferences"]
    program = " | ".join(f"del({path})" for path in ignored["jqPathExpressions"])
    spec = jq.compile(program).input_value(cluster.objects[STORE]).first()["spec"]
    pod = spec["template"]["spec"]
    assert "replicas" not in spec
    assert spec["template"]["metadata"]["annotations"] == {"other": "x"}
    assert set(pod) == {"containers"}
    assert pod["containers"] == [
        {
            "name": "db",
            "env": [{"name": "MODE"}, {"name": "LEVEL", "value": "1"}],
            "resources": {"limits": {"cpu": "1"}},
        }
    ]


async def test_nobody_writes_back(cluster: MemoryCluster) -> None:
    assert await look(cluster, ROLL, SHIFT) == ([], {})


async def test_the_condition_of_a_plan() -> None:
    """It is there from the first step on, for the spec it was found for, and goes with the next run that finds nothing."""
    run = Simulation(plan(f"steps: [{ROLL}]"), put=shop)
    mark(run.cluster, V2, ARGO)
    assert await run.run() is Phase.SUCCEEDED
    (condition,) = [found for found in run.status.conditions if found.type == "GitOpsDriftRisk"]
    assert (condition.status, condition.reason, condition.observed_generation) == ("True", "OwnedByArgoCD", 1)
    assert "application site owns Deployment shop-v2" in condition.message
    assert present(run.status, run.clock.now()).conditions == run.status.conditions
    del run.cluster.objects[V2]["metadata"]["annotations"]
    run.cluster.put(run.plan.resource, plan(f"steps: [{ROLL.replace('app:2', 'app:3')}]"))
    await run.until(lambda: run.status.run is not None and run.status.run.number == 2)
    assert await run.run() is Phase.SUCCEEDED
    assert [found.type for found in run.status.conditions] == ["Succeeded", "Ready", "Reconciling", "Stalled"]


async def test_what_was_found_for_one_spec_is_not_reported_of_the_next_that_is_refused() -> None:
    run = Simulation(plan(f"steps: [{ROLL}]"), put=shop)
    mark(run.cluster, V2, ARGO)
    assert await run.run() is Phase.SUCCEEDED
    del run.cluster.objects[V2]["metadata"]["annotations"]
    run.cluster.put(run.plan.resource, plan(f"startDeadline: 0s\nsteps: [{ROLL.replace('shop-v2', 'nowhere')}]"))
    await run.until(lambda: run.phase is Phase.REFUSED)
    assert [found.type for found in run.status.conditions] == ["Succeeded", "Ready", "Reconciling", "Stalled"]


async def test_it_costs_no_request() -> None:
    calls = []
    for marked in (False, True):
        run = Simulation(plan(f"steps: [{SCALE}, {SHIFT}]"), put=shop)
        if marked:
            mark(run.cluster, V2, ARGO)
        assert await run.run() is Phase.SUCCEEDED
        calls.append(run.switch.calls)
    assert calls[0] == calls[1]


# --- whether the pods are let in --------------------------------------------------------------------------------------


def quota(cluster: MemoryCluster, hard: Json, used: Json, **spec: Any) -> None:
    body = {"metadata": {"name": "compute"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used}}
    cluster.put(RESOURCE_QUOTAS, body)


def strategy(cluster: MemoryCluster, ref: Ref, surge: int | str, unavailable: int | str) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    cluster.objects[ref]["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}


def ask(cluster: MemoryCluster, ref: Ref, resources: Json) -> None:
    for container in cluster.objects[ref]["spec"]["template"]["spec"]["containers"]:
        container["resources"] = resources


SCALE = "{name: scale, deploy: {workload: {name: shop-v2}, replicas: 3}}"


async def test_replicas_that_a_quota_refuses(cluster: MemoryCluster) -> None:
    quota(cluster, {"pods": "4"}, {"pods": "2"})
    problems, _ = await look(cluster, SCALE)
    refused = "steps[scale].deploy: pods of Deployment shop-v2 would be refused"
    assert problems == [
        f"{refused}: ResourceQuota compute: needs 3 more pods, 2 of 4 used; raise the quota or request less"
    ]
    quota(cluster, {"pods": "5"}, {"pods": "2"})
    assert await look(cluster, SCALE) == ([], {})


async def test_what_pods_ask_for_is_counted_in_all_units(cluster: MemoryCluster) -> None:
    ask(cluster, V2, {"requests": {"cpu": "250m"}, "limits": {"memory": "512Mi"}})
    hard = {"requests.cpu": "2", "limits.memory": "3Gi", "memory": "3221225472", "requests.storage": "1Gi"}
    quota(cluster, hard, {"requests.cpu": "500m", "limits.memory": "1Gi", "memory": "1e9"})
    problems, _ = await look(cluster, SCALE)
    assert [problem.partition("ResourceQuota ")[2].partition(";")[0] for problem in problems] == [
        "compute: needs 3Gi more limits.memory, 1Gi of 3Gi used",
        "compute: needs 3Gi more memory, 1000000000 of 3Gi used",
    ]


@pytest.mark.parametrize(
    ("surge", "unavailable", "pods", "refused", "slower"),
    [
        (1, 0, 3, True, False),  # no pod may go before another one is there
        (1, 0, 4, False, False),
        (2, 0, 4, False, True),  # one by one is enough
        (2, 0, 5, False, False),
        (1, 1, 3, False, True),
        ("25%", "25%", 3, True, False),  # of 3: one more, none less
        (0, 1, 3, False, False),
    ],
)
async def test_pods_of_max_surge(
    cluster: MemoryCluster, surge: int | str, unavailable: int | str, pods: int, *, refused: bool, slower: bool
) -> None:
    strategy(cluster, V1, surge, unavailable)
    assert cluster.objects[V1]["spec"]["replicas"] == 3
    quota(cluster, {"pods": str(pods)}, {"pods": "3"})
    problems, risks = await look(cluster, ROLL.replace("shop-v2", "shop-v1"))
    assert bool(problems) == refused
    assert ("CapacityRisk" in risks) == slower
    if refused:
        assert "needs 1 more pods, 3 of 3 used" in problems[0]
    if slower:
        assert "not all surge pods of Deployment shop-v1 would be admitted" in risks["CapacityRisk"]


async def test_pods_that_ask_for_more_than_the_old_ones(cluster: MemoryCluster) -> None:
    """A StatefulSet replaces its pods one after the other; only the difference counts."""
    bigger = "{name: store, deploy: {workload: {kind: StatefulSet, name: store}, patch: '{template: {spec: {containers: [{name: db, resources: {limits: {cpu: ''2''}}}]}}}'}}"
    quota(cluster, {"limits.cpu": "5", "pods": "3"}, {"limits.cpu": "3", "pods": "3"})
    problems, _ = await look(cluster, bigger)
    assert [problem.partition("ResourceQuota ")[2] for problem in problems] == [
        "compute: needs 3 more limits.cpu, 3 of 5 used; raise the quota or request less"
    ]
    quota(cluster, {"limits.cpu": "6", "pods": "3"}, {"limits.cpu": "3", "pods": "3"})
    assert await look(cluster, bigger) == ([], {})


async def test_a_partition_changes_only_the_pods_above_it(cluster: MemoryCluster) -> None:
    bigger = "{name: store, deploy: {workload: {kind: StatefulSet, name: store}, patch: '{template: {spec: {containers: [{name: db, resources: {limits: {cpu: ''2''}}}]}}}'}}"
    cluster.objects[STORE]["spec"]["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    quota(cluster, {"limits.cpu": "4", "pods": "3"}, {"limits.cpu": "3", "pods": "3"})
    assert await look(cluster, bigger) == ([], {})
    quota(cluster, {"limits.cpu": "3", "pods": "3"}, {"limits.cpu": "3", "pods": "3"})
    problems, _ = await look(cluster, bigger)
    assert "needs 1 more limits.cpu, 3 of 3 used" in problems[0]


async def test_recreate_removes_all_old_pods_first(cluster: MemoryCluster) -> None:
    cluster.objects[V1]["spec"]["strategy"] = {"type": "Recreate"}
    quota(cluster, {"pods": "3"}, {"pods": "3"})
    assert await look(cluster, ROLL.replace("shop-v2", "shop-v1")) == ([], {})


async def test_what_is_no_longer_wanted_goes_first(cluster: MemoryCluster) -> None:
    fewer = "{name: roll, deploy: {workload: {name: shop-v1}, replicas: 1, images: [{container: app, image: 'app:2'}]}}"
    strategy(cluster, V1, 1, 0)
    quota(cluster, {"pods": "3"}, {"pods": "3"})
    assert await look(cluster, fewer) == ([], {})


async def test_steps_take_from_each_other(cluster: MemoryCluster) -> None:
    more = "{name: more, deploy: {workload: {kind: StatefulSet, name: store}, replicas: 5}}"
    quota(cluster, {"pods": "9"}, {"pods": "5"})
    problems, _ = await look(cluster, SCALE, more)
    (problem,) = problems
    assert problem.startswith("steps[more].deploy: pods of StatefulSet store would be refused: ResourceQuota compute: ")
    assert problem.endswith("needs 2 more pods, 5 of 9 used, earlier steps take 3; raise the quota or request less")
    less = "{name: less, deploy: {workload: {name: shop-v1}, replicas: 0}}"
    assert await look(cluster, less, SCALE, more) == ([], {})


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ({"scopes": ["NotTerminating"]}, True),
        ({"scopes": ["Terminating"]}, False),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}]}}, True),
        ({"scopes": ["BestEffort"]}, True),
        ({"scopes": ["NotBestEffort"]}, False),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}, False),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}}, True),
        ({"scopes": ["CrossNamespacePodAffinity"]}, False),
    ],
)  # fmt: skip
async def test_a_quota_of_other_pods(cluster: MemoryCluster, spec: Json, *, counts: bool) -> None:
    quota(cluster, {"pods": "1"}, {"pods": "1"}, **spec)
    problems, _ = await look(cluster, SCALE)
    assert bool(problems) == counts


async def test_a_quota_that_wants_each_container_to_say(cluster: MemoryCluster) -> None:
    quota(cluster, {"limits.cpu": "100"}, {})
    problems, _ = await look(cluster, SCALE)
    assert [problem.partition("refused: ")[2] for problem in problems] == [
        f"ResourceQuota compute counts limits.cpu, and container {name} does not set them; add resources"
        for name in ("sidecar", "app")
    ]
    ranges(cluster, {"type": "Container", "default": {"cpu": "1"}})
    assert await look(cluster, SCALE) == ([], {})


def ranges(cluster: MemoryCluster, *limits: Json) -> None:
    cluster.put(LIMIT_RANGES, {"metadata": {"name": "range"}, "spec": {"limits": list(limits)}})


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ({"type": "Container", "max": {"cpu": "500m"}}, "container app has cpu limit 1, which must be at most 500m"),
        ({"type": "Container", "max": {"memory": "1Gi"}}, "container app has memory limit none, which must be at most 1Gi"),
        ({"type": "Container", "max": {"memory": "1Gi"}, "default": {"memory": "1Gi"}}, ""),
        ({"type": "Container", "min": {"cpu": "2"}}, "container app has cpu 500m, which must be at least 2"),
        ({"type": "Container", "min": {"cpu": "500m"}}, ""),
        ({"type": "Container", "min": {"memory": "1Gi"}}, "container app has memory none, which must be at least 1Gi"),
        ({"type": "Container", "min": {"memory": "1Gi"}, "defaultRequest": {"cpu": "2", "memory": "1Gi"}}, ""),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "1"}}, "container app has cpu limit 1 and request 500m, and the limit must be at most 1 times the request"),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}, ""),
        ({"type": "Container", "maxLimitRequestRatio": {"memory": "2"}}, "container app has memory limit none and request none, and the limit must be at most 2 times the request"),
        ({"type": "Pod", "max": {"cpu": "1"}}, "its pod has cpu limit 2, which must be at most 1"),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "1"}}, ""),
    ],
)  # fmt: skip
async def test_a_limit_range(cluster: MemoryCluster, limit: Json, says: str) -> None:
    ask(cluster, V2, {"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})
    ranges(cluster, limit)
    problems, _ = await look(cluster, SCALE)
    assert [problem for problem in problems if "sidecar" not in problem] == (
        [
            f"steps[scale].deploy: pods of Deployment shop-v2 would be refused: LimitRange range: {says}; change one of them"
        ]
        if says
        else []
    )


async def test_fewer_pods_ask_nobody(cluster: MemoryCluster) -> None:
    quota(cluster, {"pods": "0"}, {"pods": "2"})
    ranges(cluster, {"type": "Container", "max": {"cpu": "1"}})
    assert await look(cluster, "{name: less, deploy: {workload: {name: shop-v1}, replicas: 1}}") == ([], {})


@pytest.mark.parametrize("resource", [RESOURCE_QUOTAS, LIMIT_RANGES, DISRUPTION_BUDGETS])
async def test_what_may_not_be_listed_is_not_reported(resource: Resource) -> None:
    run = Simulation(plan(f"steps: [{SCALE}]"), put=shop)
    quota(run.cluster, {"pods": "10"}, {"pods": "2"})
    run.cluster.denied = {("list", Ref(resource, "shop", ""))}
    assert await run.run() is Phase.SUCCEEDED


async def test_a_plan_is_refused_before_anything_is_changed_and_continues_when_there_is_room() -> None:
    run = Simulation(plan(f"startDeadline: 1m\nsteps: [{SCALE}]"), put=shop)
    quota(run.cluster, {"pods": "4"}, {"pods": "2"})
    await run.until(lambda: "needs 3 more pods, 2 of 4 used" in run.status.message)
    assert run.phase is Phase.PENDING
    assert run.cluster.effects == []
    quota(run.cluster, {"pods": "5"}, {"pods": "2"})
    assert await run.run() is Phase.SUCCEEDED


# --- who watches over the pods ----------------------------------------------------------------------------------------


def budget(cluster: MemoryCluster, selector: Json, **status: int) -> None:
    body = {"metadata": {"name": "keep"}, "spec": {"selector": selector}, "status": status}
    cluster.put(DISRUPTION_BUDGETS, body)


@pytest.mark.parametrize(
    ("selector", "counts"),
    [
        ({"matchLabels": {"app": "shop-v1"}}, True),
        ({"matchLabels": {"app": "shop-v2"}}, False),
        ({}, True),
        (None, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["shop-v1"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
async def test_a_disruption_budget_that_lets_no_pod_be_evicted(
    cluster: MemoryCluster, selector: Json, *, counts: bool
) -> None:
    budget(cluster, selector, desiredHealthy=2, currentHealthy=2, expectedPods=2, disruptionsAllowed=0)
    strategy(cluster, V1, 1, 0)
    problems, risks = await look(cluster, ROLL.replace("shop-v2", "shop-v1"))
    assert problems == []
    says = "PodDisruptionBudget keep allows no pod of Deployment shop-v1 to be evicted now (2 healthy, 2 wanted)"
    assert (says in risks.get("CapacityRisk", "")) == counts


async def test_a_rollout_that_goes_below_a_disruption_budget(cluster: MemoryCluster) -> None:
    budget(cluster, {}, desiredHealthy=3, currentHealthy=3, expectedPods=3)
    strategy(cluster, V1, 0, 1)
    _, risks = await look(cluster, ROLL.replace("shop-v2", "shop-v1"))
    assert "keep wants 3 healthy pods, and the rollout of Deployment shop-v1 may leave 2" in risks["CapacityRisk"]
    assert await look(cluster, "{name: more, deploy: {workload: {name: shop-v1}, replicas: 4}}") == ([], {})


async def test_an_autoscaler_that_may_ask_for_more_than_there_is_room_for(cluster: MemoryCluster) -> None:
    aim = {"kind": "Deployment", "name": "shop-v1"}
    cluster.put(AUTOSCALERS, {"metadata": {"name": "scaler"}, "spec": {"scaleTargetRef": aim, "maxReplicas": 10}})
    quota(cluster, {"pods": "8"}, {"pods": "3"})
    problems, risks = await look(cluster, ROLL.replace("shop-v2", "shop-v1"))
    assert problems == []
    assert "HorizontalPodAutoscaler scaler may request 10 pods of Deployment shop-v1" in risks["CapacityRisk"]
    assert "needs 7 more pods, 3 of 8 used" in risks["CapacityRisk"]


async def test_a_service_and_routes_have_no_pods(cluster: MemoryCluster) -> None:
    quota(cluster, {"pods": "0"}, {})
    mark(cluster, FRONT, {"labels": {"argocd.argoproj.io/instance": "site"}})
    _, risks = await look(cluster, SHIFT, "{name: front, switch: {service: front, selector: {app: x}}}")
    assert (
        "kind: Service\n    name: front\n    namespace: shop\n    jqPathExpressions:\n    - .spec.selector\n"
        in risks["GitOpsDriftRisk"]
    )
    assert cluster.objects[Ref(VIRTUAL_SERVICES, "shop", "shop")]


@pytest.mark.parametrize(
    "patch",
    [
        "{template: {spec: {containers: [{name: app, resources: {limits: {cpu: much}}}]}}}",
        "{template: {spec: {containers: [{name: app, resources: {limits: {cpu: 1.2.3}}}]}}}",
        "{template: {spec: {containers: [{name: app, resources: lots}]}}}",
        "{template: {metadata: null}}",
        "{strategy: {rollingUpdate: {maxSurge: many}}, template: {metadata: {annotations: {a: b}}}}",
        "{strategy: fast, template: {metadata: {annotations: {a: b}}}}",
    ],
)
async def test_what_is_not_a_pod_is_left_to_the_server_to_refuse(cluster: MemoryCluster, patch: str) -> None:
    quota(cluster, {"pods": "0", "requests.cpu": "0"}, {})
    ranges(cluster, {"type": "Container", "max": {"cpu": "1"}})
    problems, _ = await look(
        cluster, f"{{name: bad, deploy: {{workload: {{name: shop-v1}}, patch: '{patch}'}}}}", SCALE
    )
    assert all(problem.startswith("steps[scale]") for problem in problems)
    assert problems


@pytest.mark.parametrize(
    "patch",
    [
        "{template: {metadata: null}}",
        "{template: {metadata: {labels: null}}}",
        "{template: {metadata: {labels: {app: {a: b}}}}}",
        "{template: {spec: {volumes: [{name: {a: b}}]}}}",
        "{template: {spec: {initContainers: [{$patch: replace}, {name: first, image: x}]}}}",
        "{template: {spec: {containers: [{$patch: replace}, {name: app, image: x}]}}}",
        "{template: {spec: {containers: [{name: app, resources: {requests: {cpu: 1e40}, limits: {cpu: 9e999999}}}]}}}",
    ],
)
async def test_no_value_of_a_patch_stops_the_reckoning(cluster: MemoryCluster, patch: str) -> None:
    """A later step changes the template, and everything that is asked about pods is there."""
    rule = {"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}
    quota(cluster, {"pods": "0", "requests.cpu": "1"}, {}, scopeSelector={"matchExpressions": [rule]})
    limits = {"min": {"cpu": "1m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "1"}}
    ranges(cluster, {"type": "Container", **limits}, {"type": "Pod", **limits})
    budget(cluster, {"matchLabels": {"app": "shop-v1"}}, desiredHealthy=3, currentHealthy=3, expectedPods=3)
    aim = {"kind": "Deployment", "name": "shop-v1"}
    cluster.put(AUTOSCALERS, {"metadata": {"name": "scaler"}, "spec": {"scaleTargetRef": aim, "maxReplicas": 10}})
    odd = f"{{name: odd, deploy: {{workload: {{name: shop-v1}}, patch: '{patch}'}}}}"
    problems, _ = await look(cluster, odd, ROLL.replace("shop-v2", "shop-v1"))
    assert [problem for problem in problems if problem.startswith("steps[roll]")]


# --- what pods of later steps read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "container", "says"),
    [
        (SCALE, "envFrom: [{configMapRef: {name: new}}]", "envFrom of container app reads ConfigMap new, which does not exist"),
        (SCALE, "env: [{name: A, valueFrom: {configMapKeyRef: {name: flags, key: nope}}}]", "env A of container app reads key nope of ConfigMap flags, which it does not have"),
        (SCALE, "envFrom: [{configMapRef: {name: new, optional: true}}]", ""),
        (SCALE, "envFrom: [{configMapRef: {name: flags}}]", ""),
        (SCALE, "image: 'app:3'", ""),  # what its pods lack already is not this step's
        (SCALE, "{$patch: replace}", ""),
        (SCALE.replace("replicas: 3", "replicas: 0"), "envFrom: [{configMapRef: {name: new}}]", ""),
        (f"{SCALE}, {{name: set, flags: {{configMap: new, set: {{A: b}}}}}}", "envFrom: [{configMapRef: {name: new}}]", ""),
        ("{name: other, deploy: {workload: {name: shop-v1}, replicas: 6}}", "envFrom: [{configMapRef: {name: new}}]", ""),  # the first is tried out
    ],
)  # fmt: skip
async def test_a_config_map_that_only_a_later_step_reads_is_missed_before_the_first(
    cluster: MemoryCluster, before: str, container: str, says: str
) -> None:
    """The server cannot be asked of a step that begins with what another one leaves."""
    cluster.objects[V2]["spec"]["template"]["spec"]["initContainers"] = [
        {"name": "first", "image": "x", "envFrom": [{"configMapRef": {"name": "gone"}}]}
    ]
    item = container if container.startswith("{") else f"{{name: app, {container}}}"
    patch = f"{{template: {{spec: {{containers: [{item}]}}}}}}".replace("'", "''")
    problems, _ = await look(
        cluster, before, f"{{name: later, deploy: {{workload: {{name: shop-v2}}, patch: '{patch}'}}}}"
    )
    way_out = "so its pods would not start; create it first, or mark the reference optional"
    assert problems == ([f"steps[later].deploy: {says}, {way_out}"] if says else [])


async def test_hosts_that_are_no_services_of_the_namespace_are_not_among_the_services(cluster: MemoryCluster) -> None:
    elsewhere = {"name": "out", "route": [{"destination": {"host": "api.example.com"}}]}
    cluster.objects[ROUTES]["spec"]["http"].insert(0, elsewhere)
    spec = yaml.safe_load(f"serviceAccountName: migrator\nsteps: [{SHIFT}]")
    spec["steps"][0]["traffic"]["virtualService"]["routes"] = ["primary"]
    (around,) = (await impact_of(parse(spec), "plan", cluster, "shop")).targets
    assert around.services == ("shop-v1", "shop-v2")
