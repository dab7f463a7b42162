"""What an account may do, on the real API server with the chart's rules: what is asked for is all it takes, and nothing is taken away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, Status
from harness.cluster import Cluster
from harness.control_plane import install
from harness.process import until
from support.cluster.shop import DEPLOY, SHIFT, Operator, Shop

pytestmark = pytest.mark.cluster
GRANT = "to grant it, apply:\n"
ASK = "  - {name: ok, approve: {message: go}}\n"


def grant(shop: Shop, status: Status) -> list[dict[str, Any]]:
    """Apply what a message says, word for word."""
    manifests = list(yaml.safe_load_all(status.message.partition(GRANT)[2]))
    for manifest in manifests:
        shop.api.apply(manifest)
    return manifests


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
def test_a_rollout_gives_its_pods_no_account_that_the_plan_may_not_use(shop: Shop, field: str) -> None:
    accounts = f"/api/v1/namespaces/{shop.namespace}/serviceaccounts"
    shop.api.create(accounts, {"metadata": {"name": "admin", "labels": {"cutover.dev/migrator": "true"}}})
    patch = f"'{{template: {{spec: {{{field}: admin}}}}}}'"
    shop.apply(f"startDeadline: 1m\nsteps: [{{name: one, deploy: {{workload: {{name: shop-v2}}, patch: {patch}}}}}]")
    status = shop.until(lambda s: s.phase is Phase.PENDING and GRANT in s.message)
    assert "ServiceAccount migrator is not allowed to use ServiceAccount admin" in status.message
    assert "serviceAccountName" not in shop.api.get(f"{shop.deployments}/shop-v2")["spec"]["template"]["spec"]
    grant(shop, status)
    assert shop.until_ended().phase is Phase.SUCCEEDED
    assert shop.api.get(f"{shop.deployments}/shop-v2")["spec"]["template"]["spec"]["serviceAccountName"] == "admin"


def test_the_role_of_one_plan_takes_nothing_from_another(shop: Shop) -> None:
    """Both have the same account, and each gets what it asks for in its turn, however often."""
    shop.take_rights()
    shop.apply(f"startDeadline: 1m\nsteps:{DEPLOY}{ASK}", "first")
    grant(shop, shop.until(lambda s: GRANT in s.message, "first"))
    shop.until_phase(Phase.WAITING, "first")
    shop.apply("startDeadline: 1m\nsteps: [{name: old, deploy: {workload: {name: shop-v1}, replicas: 4}}]", "second")
    role, _ = grant(shop, shop.until(lambda s: GRANT in s.message, "second"))
    assert role["metadata"]["name"] == "migrationplan-second"
    assert shop.until_ended("second").phase is Phase.SUCCEEDED
    shop.request(RequestVerb.ABORT, name="first")
    assert shop.until_ended("first").phase is Phase.ROLLED_BACK


def test_one_look_reports_account_label_and_permissions(shop: Shop) -> None:
    """Nobody need be there to be asked about: after the three are given once, the plan runs."""
    before = shop.take_rights()
    account = f"/api/v1/namespaces/{shop.namespace}/serviceaccounts"
    shop.api.delete(f"{account}/migrator")
    shop.apply(f"startDeadline: 1m\nsteps:{DEPLOY}{SHIFT}")
    status = shop.until(lambda s: s.phase is Phase.PENDING and bool(s.message))
    assert (
        f"kubectl create serviceaccount migrator -n {shop.namespace} && kubectl label serviceaccount migrator"
        in status.message
    )
    shop.api.create(account, {"metadata": {"name": "migrator", "labels": {"cutover.dev/migrator": "true"}}})
    grant(shop, status)
    assert shop.until_ended().phase is Phase.SUCCEEDED
    assert before["roleRef"]["name"] == "migrator"


def test_permissions_that_are_gone_while_it_runs_come_with_the_command_that_grants_them(shop: Shop) -> None:
    shop.apply(f"steps:{DEPLOY}{ASK}")
    shop.until_phase(Phase.WAITING)
    binding = shop.take_rights()
    shop.request(RequestVerb.ABORT)
    status = shop.until_phase(Phase.STUCK)
    command = f"kubectl cutover role plan -n {shop.namespace} | kubectl apply -f -"
    assert status.message.endswith(f"is not allowed to patch Deployment shop-v2; to grant it: {command}"), (
        status.message
    )
    shop.api.apply(binding)
    assert shop.until_ended(deadline=90).phase is Phase.ROLLED_BACK


# --- the end of a run where owner references take permissions ---------------------------------------------------------


@pytest.fixture
def no_deletion(cluster: Cluster, operator: Operator) -> Iterator[None]:
    """The operator may not delete snapshots one by one, so with OwnerReferencesPermissionEnforcement it may not give them an owner."""
    del operator  # it creates the role
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/cutover"
    role = cluster.api.get(path)
    kept = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "cutover"}}
    less = [
        rule | {"verbs": [verb for verb in rule["verbs"] if verb != "delete"]}
        if "controllerrevisions" in rule["resources"]
        else rule
        for rule in role["rules"]
    ]
    assert less != role["rules"]
    cluster.api.apply(kept | {"rules": less})
    yield
    cluster.api.apply(kept | {"rules": role["rules"]})


@pytest.mark.local("takes a permission from an operator that is a process")
def test_a_success_ends_though_its_snapshots_may_get_no_owner(no_deletion: None, shop: Shop) -> None:
    del no_deletion
    shop.apply(f"steps:{DEPLOY}")
    status = shop.until(lambda s: "not everything could be released" in s.message)
    assert "cannot set an ownerRef on a resource you can't delete" in status.message
    shop.request(RequestVerb.ABANDON)
    status = shop.until_ended()
    assert status.phase is Phase.SUCCEEDED
    assert "they are deleted after spec.keepSnapshots, or with the plan, all the same" in status.message
    until(
        "the warning is out", lambda: [e["type"] for e in shop.events() if e["reason"] == "NotReleased"] == ["Warning"]
    )
    assert "cutover.dev/plan" not in shop.api.get(f"{shop.deployments}/shop-v2")["metadata"]["labels"]
    revisions = f"{shop.apps}/controllerrevisions"
    assert shop.api.list(revisions, "cutover.dev/plan")
    shop.api.delete(f"{shop.plans}/plan")
    until("its snapshots are deleted with it", lambda: not shop.api.list(revisions, "cutover.dev/plan"))


# --- a kind that cannot be read ---------------------------------------------------------------------------------------


_CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualservices.networking.istio.io}
spec:
  group: networking.istio.io
  scope: Namespaced
  names: {plural: virtualservices, singular: virtualservice, kind: VirtualService, listKind: VirtualServiceList}
  versions:
    - {name: v1, served: true, storage: false, schema: &open {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
    - {name: v1beta1, served: true, storage: true, schema: *open}
  conversion:
    strategy: Webhook
    webhook: {conversionReviewVersions: [v1], clientConfig: {url: "https://127.0.0.1:1/convert"}}
"""


@pytest.fixture
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A control plane of its own, whose VirtualServices no one can read in the version that the operator asks for."""
    folder = tmp_path_factory.mktemp("broken")
    cluster = Cluster(folder / "cluster", report=lambda _: None)
    cluster.start(())
    shop = Shop(cluster.api, "broken")
    cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": shop.namespace}})
    cluster.api.apply(yaml.safe_load(_CRD))
    for manifest in shop.manifests(pods=1):
        if manifest["kind"] != "VirtualService":
            install(cluster.api, manifest)
            continue
        stored = manifest | {"apiVersion": "networking.istio.io/v1beta1"}
        path = f"/apis/networking.istio.io/v1beta1/namespaces/{shop.namespace}/virtualservices"
        until("the version that is stored is served", lambda path=path: cluster.api.find(path))  # type: ignore[misc]
        cluster.api.create(path, stored)
    operator = Operator(cluster, folder, {}, program=(sys.executable, "-m", "cutover.cli", "run"))
    operator.start()
    yield shop
    operator.stop()
    cluster.stop()


@pytest.mark.local("starts a control plane of its own, with a broken conversion webhook")
def test_a_kind_that_cannot_be_read_is_reported_and_the_deadline_counts(broken: Shop) -> None:
    broken.apply(f"startDeadline: 15s\nsteps:{DEPLOY}{SHIFT}")
    status = broken.until(lambda s: s.reason == "Unanswered", deadline=90)
    assert status.message.startswith("not everything that the plan needs could be read since ")
    assert "/virtualservices/shop: HTTP 500: conversion webhook for networking.istio.io" in status.message
    status = broken.until_ended(deadline=60)
    assert (status.phase, status.reason) == (Phase.REFUSED, "Unanswered")
    told = ["Unanswered", "Refused"]
    until("both events are out", lambda: [event["reason"] for event in broken.events()] == told)
