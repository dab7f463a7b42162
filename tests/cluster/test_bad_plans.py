"""Bad plans on the real API server: refused at apply time where it can tell, else Refused by the operator; nothing is touched."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cutover.status.status import Phase
from harness.api import ApiError
from plan.test_bad_plans import CASES, spec_of
from support.cluster.shop import DEPLOY, SHIFT, Shop

pytestmark = pytest.mark.cluster
AT_APPLY = [case for case in CASES if "apply" in case]
LATER = [case for case in CASES if "apply" not in case and "unknown field" not in case["lint"]]


def _spec(case: dict[str, Any]) -> dict[str, Any]:
    return spec_of(case)


def test_the_api_server_refuses_them(shop: Shop) -> None:
    before = shop.objects()
    assert len(AT_APPLY) >= 30
    for case in AT_APPLY:
        body = {
            "apiVersion": "cutover.dev/v1alpha1",
            "kind": "MigrationPlan",
            "metadata": {"name": "bad"},
            "spec": _spec(case),
        }
        with pytest.raises(ApiError) as refused:
            shop.api.create(f"{shop.plans}?fieldValidation=Strict", body)
        assert case["apply"] in refused.value.message, (case["name"], refused.value.message)
    assert shop.api.list(shop.plans) == []
    assert shop.objects() == before


def test_unknown_fields_are_refused_by_name(shop: Shop) -> None:
    unknown = [case for case in CASES if "unknown field" in case["lint"]]
    assert unknown
    for case in unknown:
        body = {
            "apiVersion": "cutover.dev/v1alpha1",
            "kind": "MigrationPlan",
            "metadata": {"name": "bad"},
            "spec": _spec(case),
        }
        with pytest.raises(ApiError, match="unknown field"):
            shop.api.create(f"{shop.plans}?fieldValidation=Strict", body)


def test_the_operator_refuses_the_rest(shop: Shop) -> None:
    before = shop.objects()
    for number, case in enumerate(LATER):
        name = f"bad-{number}"
        shop.apply(_spec(case), name)
        status = shop.until_ended(name)
        assert status.phase is Phase.REFUSED, case["name"]
        assert status.reason == "Invalid"
        assert status.message == case["lint"]
    assert shop.objects() == before
    assert shop.leftovers() == []


MISSING = """
serviceAccountName: nobody
startDeadline: 1s
guards: [{name: budget, prometheus: {provider: other, query: x}, pass: {max: "1"}}]
steps:
  - {name: gone, deploy: {workload: {name: shop-v9}, replicas: 1}}
  - {name: image, deploy: {workload: {name: shop-v2}, images: [{container: web, image: x}]}}
  - name: host
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v7}, weights: [50]}
  - name: route
    traffic: {virtualService: {name: shop, routes: [second]}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}
  - name: mesh
    traffic: {virtualService: {name: other}, from: {host: shop-v1}, to: {host: shop-v2, subset: green}, weights: [50]}
  - name: pods
    check: {}
    gates: [{name: ready, readiness: {workload: {name: shop-v8}}}]
"""


def test_all_that_is_missing_is_reported_at_once(shop: Shop) -> None:
    before = shop.objects()
    shop.apply(MISSING)
    shop.refuses(
        before,
        "serviceAccountName: there is no ServiceAccount nobody in namespace",
        "steps[gone].deploy: there is no Deployment shop-v9 in namespace",
        "steps[image].deploy.images[web]: Deployment shop-v2 has no container web; it has app",
        "steps[host].traffic.to: route primary of VirtualService shop has no destination shop-v7",
        "steps[host].traffic.to: host shop-v7: there is no Service shop-v7; create it",
        "steps[route].traffic.virtualService.routes: VirtualService shop has no http route named second; it has primary",
        "steps[mesh].traffic: there is no VirtualService other in namespace",
        "steps[mesh].traffic.to: subset green of host shop-v2 is in no DestinationRule of namespace",
        "steps[pods].gates[ready].readiness.workload: there is no Deployment shop-v8",
        "guards[budget].prometheus.provider: there is no provider other of kind prometheus; the administrator has configured: default, down, hasty",
        "ServiceAccount nobody is not allowed to patch Deployment shop-v9, Deployment shop-v2, VirtualService shop or VirtualService other; to grant it, apply:",
    )


def test_the_role_that_is_asked_for_is_all_that_was_missing(shop: Shop) -> None:
    """Word for word: what the message says is applied, and the plan goes on by itself."""
    binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{shop.namespace}/rolebindings/migrator"
    shop.api.delete(binding)
    shop.apply(f"startDeadline: 1m\nsteps:{DEPLOY}{SHIFT}")
    status = shop.until(lambda s: s.phase is Phase.PENDING and "to grant it, apply:" in s.message)
    for manifest in yaml.safe_load_all(status.message.partition("to grant it, apply:\n")[2]):
        shop.api.apply(manifest)
    assert shop.until_ended().phase is Phase.SUCCEEDED


def test_what_is_missing_may_still_come(shop: Shop) -> None:
    account = f"/api/v1/namespaces/{shop.namespace}/serviceaccounts/migrator"
    shop.api.patch(account, {"metadata": {"labels": {"cutover.dev/migrator": None}}})
    shop.apply("startDeadline: 1m\nsteps: [{name: scale, deploy: {workload: {name: shop-v2}, replicas: 1}}]")
    status = shop.until(lambda s: s.phase is Phase.PENDING and "is not allowed to run migrations" in s.message)
    assert f"kubectl label serviceaccount migrator -n {shop.namespace} cutover.dev/migrator=true" in status.message
    shop.api.patch(account, {"metadata": {"labels": {"cutover.dev/migrator": "true"}}})
    assert shop.until_ended().phase is Phase.SUCCEEDED
