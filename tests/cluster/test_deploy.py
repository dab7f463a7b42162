"""`deploy` of the three kinds of workloads on the real control plane: rollouts, patches, the rollback, what is refused before the first step."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import DEPLOY, AnyOperator, Shop, without_owners

pytestmark = pytest.mark.cluster

WORKLOADS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store, namespace: NAMESPACE}
spec:
  replicas: 3
  serviceName: store
  selector: {matchLabels: {app: store}}
  updateStrategy: STRATEGY
  template:
    metadata: {labels: {app: store}}
    spec:
      nodeSelector: {harness.cutover.dev/kwok: "true"}
      containers:
        - name: db
          image: db:1
          env: [{name: MODE, value: old}, {name: LEVEL, value: "1"}]
          resources: {limits: {cpu: "2"}, requests: {cpu: "1"}}
        - {name: exporter, image: "exporter:1"}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: agent}}
  updateStrategy: STRATEGY
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "agent:1"}]}
"""
ROLLING = "{type: RollingUpdate}"
ON_DELETE = "{type: OnDelete}"
ASK = "  - {name: ok, approve: {message: go}}\n"


def put(shop: Shop, strategy: str = ROLLING) -> None:
    text = WORKLOADS.replace("NAMESPACE", shop.namespace).replace("STRATEGY", strategy)
    for manifest in yaml.safe_load_all(text):
        shop.api.apply(manifest)
    until("the store is ready", lambda: len(images(shop, "store")) == 3)
    until("the agents are ready", lambda: len(images(shop, "agent")) == 2)


def pods(shop: Shop, app: str) -> list[Any]:
    """Ready pods, by name."""
    found = shop.api.list(f"/api/v1/namespaces/{shop.namespace}/pods", f"app={app}")
    ready = {"type": "Ready", "status": "True"}
    return sorted(
        (
            pod
            for pod in found
            if any(ready.items() <= condition.items() for condition in pod["status"].get("conditions") or ())
        ),
        key=lambda pod: str(pod["metadata"]["name"]),
    )


def images(shop: Shop, app: str) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in pods(shop, app)]


def container(shop: Shop, workload: str, at: int = 0) -> Any:
    return shop.api.get(f"{shop.apps}/{workload}")["spec"]["template"]["spec"]["containers"][at]


def step(status: Any) -> str:
    return status.current.step if status.current else ""


PATCHED = """
steps:
  - name: store
    deploy:
      workload: {kind: StatefulSet, name: store}
      images: [{container: db, image: "db:2"}]
      replicas: 4
      patch: |
        minReadySeconds: 1
        template:
          metadata: {annotations: {config: "2", owner: shop}}
          spec:
            nodeSelector: {$patch: delete}
            tolerations: [{key: dedicated, operator: Exists}]
            containers:
              - {name: exporter, args: [--all], env: [{name: ONLY, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}
              - name: db
                env: [{name: MODE, value: new}]
                resources: {limits: {cpu: 3000m, memory: 1Gi}, requests: {cpu: null}}
    gates: [{name: pods, readiness: {percent: 100}}]
"""


def test_a_stateful_set_gets_a_patch_and_loses_it(shop: Shop) -> None:
    put(shop)
    before = shop.objects()
    shop.apply(PATCHED + ASK)
    shop.until_phase(Phase.WAITING)
    body = shop.api.get(f"{shop.apps}/statefulsets/store")
    pod = body["spec"]["template"]["spec"]
    assert body["spec"]["replicas"] == 4
    assert body["spec"]["minReadySeconds"] == 1
    assert body["spec"]["template"]["metadata"]["annotations"] == {"config": "2", "owner": "shop"}
    assert "nodeSelector" not in pod
    db, exporter = pod["containers"]
    assert db["image"] == "db:2"
    assert db["env"] == [{"name": "MODE", "value": "new"}, {"name": "LEVEL", "value": "1"}]
    assert db["resources"] == {"limits": {"cpu": "3", "memory": "1Gi"}}
    assert (exporter["image"], exporter["args"]) == ("exporter:1", ["--all"])
    assert images(shop, "store") == ["db:2"] * 4
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before
    assert images(shop, "store") == ["db:1"] * 3
    assert shop.leftovers() == []


def test_a_patch_stays_after_success(shop: Shop) -> None:
    put(shop)
    shop.apply(PATCHED)
    assert shop.until_ended().phase is Phase.SUCCEEDED
    assert images(shop, "store") == ["db:2"] * 4
    assert shop.leftovers() == []


def test_a_partition_is_done_when_its_pods_are(shop: Shop) -> None:
    put(shop)
    before = shop.objects()
    shop.apply(f"""
steps:
  - name: last
    deploy:
      workload: {{kind: StatefulSet, name: store}}
      images: [{{container: db, image: "db:2"}}]
      patch: '{{updateStrategy: {{rollingUpdate: {{partition: 2}}}}}}'
    gates: [{{name: pods, readiness: {{percent: 100}}}}]
{ASK}
  - name: rest
    deploy: {{workload: {{kind: StatefulSet, name: store}}, patch: '{{updateStrategy: {{rollingUpdate: {{partition: 0}}}}}}'}}
  - {{name: end, approve: {{message: go}}}}
""")
    shop.until_phase(Phase.WAITING)
    assert images(shop, "store") == ["db:1", "db:1", "db:2"]
    shop.request(RequestVerb.APPROVE, "ok")
    shop.until(lambda s: step(s) == "end")
    assert images(shop, "store") == ["db:2"] * 3
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before
    assert images(shop, "store") == ["db:1"] * 3


def test_a_daemon_set_there_and_back(shop: Shop) -> None:
    put(shop)
    before = shop.objects()
    shop.apply(f"""
steps:
  - name: agent
    deploy:
      workload: {{kind: DaemonSet, name: agent}}
      images: [{{container: agent, image: "agent:2"}}]
      patch: '{{template: {{spec: {{containers: [{{name: agent, env: [{{name: LEVEL, value: "2"}}]}}]}}}}}}'
    gates: [{{name: pods, readiness: {{percent: 100}}}}]
{ASK}""")
    shop.until_phase(Phase.WAITING)
    assert images(shop, "agent") == ["agent:2"] * 2
    assert container(shop, "daemonsets/agent")["env"] == [{"name": "LEVEL", "value": "2"}]
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before
    assert images(shop, "agent") == ["agent:1"] * 2
    assert shop.leftovers() == []


@pytest.mark.parametrize(
    ("kind", "name", "container_name", "count"), [("StatefulSet", "store", "db", 3), ("DaemonSet", "agent", "agent", 2)]
)
def test_on_delete_leaves_the_pods_to_a_user(shop: Shop, kind: str, name: str, container_name: str, count: int) -> None:
    """Done when written; a readiness gate waits for the pods, and so does the rollback."""
    put(shop, ON_DELETE)
    before = shop.objects()
    new, old = f"{container_name}:2", f"{container_name}:1"
    shop.apply(f"""
steps:
  - {{name: write, deploy: {{workload: {{kind: {kind}, name: {name}}}, images: [{{container: {container_name}, image: "{new}"}}]}}}}
  - name: pods
    check: {{}}
    gates: [{{name: pods, interval: 1s, readiness: {{workload: {{kind: {kind}, name: {name}}}}}}}]
{ASK}""")
    status = shop.until(lambda s: step(s) == "pods" and "OnDelete" in s.current.message)  # type: ignore[union-attr]
    assert status.current is not None
    assert f"0 of {count} pods of {kind} {name} are ready" in status.current.message
    assert images(shop, name) == [old] * count
    delete(shop, f"app={name}")
    shop.until(lambda s: step(s) == "ok")
    assert images(shop, name) == [new] * count
    shop.request(RequestVerb.ABORT)
    status = shop.until_phase(Phase.STUCK)
    assert status.reason == "PodsToDelete"
    assert f"{count} pods of {kind} {name} are not back yet, and its updateStrategy is OnDelete" in status.message
    if kind == "StatefulSet":
        delete(shop, shlex.split(status.message)[-1])
    else:
        delete(shop, f"app={name}")
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert images(shop, name) == [old] * count
    assert shop.objects() == before


def delete(shop: Shop, labels: str) -> None:
    """What ``kubectl delete pods -l`` does."""
    for pod in shop.api.list(f"/api/v1/namespaces/{shop.namespace}/pods", labels):
        shop.api.delete(f"/api/v1/namespaces/{shop.namespace}/pods/{pod['metadata']['name']}")


@pytest.mark.long
def test_a_pod_that_never_gets_ready_blocks_a_stateful_set(shop: Shop) -> None:
    """Kubernetes waits for the broken pod even when the template is right again; the plan says whom to delete."""
    put(shop)
    before = shop.objects()
    shop.apply("""
steps:
  - name: store
    deploy:
      workload: {kind: StatefulSet, name: store}
      patch: '{template: {metadata: {annotations: {harness.cutover.dev/behaviour: never-ready}}}}'
    timeout: 2s
""")
    status = shop.until_phase(Phase.STUCK, deadline=120)
    assert status.reason == "PodsToDelete"
    assert "1 pods of StatefulSet store are not back yet" in status.message
    delete(shop, shlex.split(status.message)[-1])
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before


BAD = """
startDeadline: 1s
steps:
  - {name: field, deploy: {workload: {name: shop-v1}, patch: '{template: {spec: {containers: [{name: app, envs: []}]}}}'}}
  - {name: value, deploy: {workload: {name: shop-v2}, patch: '{template: {spec: {containers: [{name: app, ports: [{containerPort: 99999}]}]}}}'}}
  - {name: volume, deploy: {workload: {kind: StatefulSet, name: store}, patch: '{volumeClaimTemplates: [{metadata: {name: data}, spec: {}}]}'}}
  - {name: labels, deploy: {workload: {kind: DaemonSet, name: agent}, patch: '{template: {metadata: {labels: {app: other}}}}'}}
"""


def test_bad_patches_are_reported_before_anything_is_changed(shop: Shop) -> None:
    put(shop)
    before = shop.objects()
    shop.apply(BAD)
    status = shop.until_ended()
    assert status.phase is Phase.REFUSED
    for sentence in (
        'steps[field].deploy.patch: the server refuses it: unknown field "spec.template.spec.containers[0].envs"',
        "steps[value].deploy.patch: the server refuses it: Deployment.apps",
        "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 99999",
        "steps[volume].deploy.patch: the server refuses it: StatefulSet.apps",
        "updates to statefulset spec for fields other than",
        "steps[labels].deploy.patch: the server refuses it: DaemonSet.apps",
        "`selector` does not match template `labels`",
    ):
        assert sentence in status.message, status.message
    assert shop.objects() == before
    assert shop.leftovers() == []


def test_what_admission_refuses_is_reported_too(shop: Shop) -> None:
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": shop.namespace}}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shop.namespace}}}
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}
    says = "images come from registry.example"
    check = {
        "expression": "object.spec.template.spec.containers.all(c, c.image.startsWith('registry.example/') || c.image == 'shop:1')",
        "message": says,
    }
    policy = {"matchConstraints": {**here, "resourceRules": [rule]}, "validations": [check]}
    binding = {"policyName": shop.namespace, "validationActions": ["Deny"]}
    made = [
        shop.api.path(shop.api.apply(manifest))
        for manifest in (
            kind | {"kind": "ValidatingAdmissionPolicy", "spec": policy},
            kind | {"kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
        )
    ]
    try:
        before = shop.objects()
        until("the policy is in force", lambda: refused_by(shop, says))
        shop.apply(f"startDeadline: 1s\nsteps:{DEPLOY}")
        status = shop.until_ended()
        assert status.phase is Phase.REFUSED
        assert "steps[deploy].deploy: the server refuses it: deployments.apps" in status.message
        assert says in status.message
        assert shop.objects() == before
    finally:
        for path in made:
            shop.api.delete(path)


def refused_by(shop: Shop, says: str) -> bool:
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "bad:1"}]
    try:
        shop.api.patch(f"{shop.deployments}/shop-v1?dryRun=All", patch, kind="json")
    except RuntimeError as refused:
        return says in str(refused)
    return False


def test_a_patch_as_deep_as_may_be_can_be_read_back(shop: Shop, operator: AnyOperator) -> None:
    """The API server takes any text that is not too long; by whom it is read is nothing that one plan can end for others."""
    texts = {depth: '{"a":' * depth + "1" + "}" * depth for depth in (32, 33)}
    for depth, text in texts.items():
        steps = [{"name": "a", "deploy": {"workload": {"name": "shop-v2"}, "patch": text}}]
        shop.apply({"startDeadline": "1s", "steps": steps}, f"deep-{depth}")
    long = {"steps": [{"name": "a", "deploy": {"workload": {"name": "shop-v2"}, "patch": f"a: {'x' * 16_382}"}}]}
    with pytest.raises(RuntimeError, match=r"spec\.steps\[0\]\.deploy\.patch: Too long: may not be more than 16384"):
        shop.apply(long, "long")
    mapping = {"steps": [{"name": "a", "deploy": {"workload": {"name": "shop-v2"}, "patch": {"a": {"b": 1}}}}]}
    body = {"apiVersion": "cutover.dev/v1alpha1", "kind": "MigrationPlan", "metadata": {"name": "mapping"}}
    with pytest.raises(RuntimeError, match=r"spec\.steps\[0\]\.deploy\.patch: Invalid value: \"object\""):
        shop.api.create(
            f"{shop.plans}?fieldValidation=Ignore", body | {"spec": {"serviceAccountName": "migrator", **mapping}}
        )
    read = {plan["metadata"]["name"]: plan["spec"] for plan in shop.api.list(shop.plans)}
    for depth, text in texts.items():
        assert read[f"deep-{depth}"]["steps"][0]["deploy"]["patch"] == text
        assert shop.until_ended(f"deep-{depth}").phase is Phase.REFUSED
    assert 'the server refuses it: unknown field "spec.a"' in shop.status("deep-32").message
    where = "steps[a].deploy.patch: line 1, column 161 of the text: more than 32 levels deep"
    assert shop.status("deep-33").message.startswith(where)
    shop.apply("steps: [{name: rest, wait: {for: 100ms}}]", "other")
    assert shop.until_ended("other").phase is Phase.SUCCEEDED
    assert operator.alive


def test_what_another_writer_set_is_left_and_the_command_that_settles_it_works(shop: Shop) -> None:
    before = shop.objects()
    shop.apply(f"steps:{DEPLOY}{ASK}")
    shop.until_phase(Phase.WAITING)
    image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "shop:hotfix"}]
    shop.api.patch(f"{shop.deployments}/shop-v2", image, kind="json")
    shop.request(RequestVerb.ABORT)
    status = shop.until_phase(Phase.STUCK)
    assert status.reason == "ForeignChange"
    assert (
        "spec.template.spec.containers[name=app].image of Deployment shop-v2 is shop:hotfix, was shop:1 before, "
        "and this plan set shop:2; another writer changed it" in status.message
    )
    command = re.search(r"kubectl patch deployment shop-v2 -n (\S+) --type=json -p ('.*')$", status.message)
    assert command is not None
    assert command[1] == shop.namespace
    shop.api.patch(f"{shop.deployments}/shop-v2", json.loads(shlex.split(command[2])[0]), kind="json")
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    # Who ran the command has written the field, so it is theirs.
    assert without_owners(shop.objects()) == without_owners(before)


def test_another_change_in_the_middle_is_waited_for_and_kept(shop: Shop) -> None:
    """As ``kubectl rollout restart`` does it: the template changes in a place that is not ours."""
    path = f"{shop.deployments}/shop-v2"
    slow = {"harness.cutover.dev/behaviour": "slow"}
    shop.api.patch(path, {"spec": {"template": {"metadata": {"annotations": slow}}}})
    shop.apply(f"steps:{DEPLOY}{ASK}")
    until("the image is written", lambda: container(shop, "deployments/shop-v2")["image"] == "shop:2")
    shop.api.patch(path, {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}})
    shop.until(lambda s: step(s) == "ok")
    assert [pod["metadata"]["annotations"].get("restarted") for pod in pods(shop, "shop-v2")] == ["now"] * 3
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    body = shop.api.get(path)
    assert body["spec"]["replicas"] == 0
    assert body["spec"]["template"]["metadata"]["annotations"] == {**slow, "restarted": "now"}


def test_replicas_do_not_go_down_under_traffic(shop: Shop) -> None:
    """Somebody gave the new version weight by hand; the rollback waits until it is taken away."""
    before = shop.objects()
    shift = "  - {name: shift, traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100]}}\n"
    shop.apply(f"steps:{DEPLOY}{ASK}{shift}")
    shop.until_phase(Phase.WAITING)
    weigh(shop, 60, 40)
    shop.request(RequestVerb.ABORT)
    status = shop.until_phase(Phase.STUCK)
    assert status.reason == "StillCarriesTraffic"
    assert (
        "Deployment shop-v2 cannot go from 3 to 0 replicas while it has weight 40 from VirtualService shop "
        "(0 before this step)" in status.message
    )
    assert shop.api.get(f"{shop.deployments}/shop-v2")["spec"]["replicas"] == 3
    weigh(shop, 100, 0)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    # Who moved the weights by hand owns them.
    assert without_owners(shop.objects()) == without_owners(before)


def weigh(shop: Shop, *weights: int) -> None:
    changes = [
        {"op": "replace", "path": f"/spec/http/0/route/{at}/weight", "value": weight}
        for at, weight in enumerate(weights)
    ]
    shop.api.patch(shop.routes, changes, kind="json")


def test_more_replicas_of_what_has_traffic_anyway_go_back(shop: Shop) -> None:
    """What it carried before the step is no reason to wait."""
    before = shop.objects()
    shop.apply(f"steps:\n  - {{name: scale, deploy: {{workload: {{name: shop-v1}}, replicas: 5}}}}\n{ASK}")
    shop.until_phase(Phase.WAITING)
    until("the slices have all pods", lambda: shop.endpoints("shop-v1") == 5)
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before


@pytest.mark.local("counts requests in the audit log")
def test_a_step_costs_one_dry_run(shop: Shop, cluster: Cluster) -> None:
    mark = cluster.audit.mark()
    shop.apply(f"steps:{DEPLOY}")
    assert shop.until_ended().phase is Phase.SUCCEEDED
    user = "system:serviceaccount:cutover-system:cutover"
    counted = Counter(
        (request.verb, request.resource) for request in cluster.audit.since(mark, user=user, namespace=shop.namespace)
    )
    # Tried out by preflight, claimed, tried out by the step, written, released.
    assert counted["patch", "deployments"] == 5, counted
