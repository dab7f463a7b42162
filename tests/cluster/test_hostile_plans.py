"""Whatever an author writes at any place of a plan: what the operator asks the real API server for, by its audit log."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

import pytest
import yaml

from cutover.plan.status_document import read_status
from cutover.status.status import Phase
from harness.api import ApiError
from harness.audit import Request
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import Shop
from support.fakes.migration_tool import ROLE
from support.plans.every_leaf import HOSTILE, MARKER, Leaf, carriers, leaves

pytestmark = [pytest.mark.cluster, pytest.mark.local("reads the audit log")]
OPERATOR = "system:serviceaccount:cutover-system:cutover"
_OF_A_TEST = re.compile(r"-[0-9a-f]{6}$")
"""The end of the names of namespaces that tests create."""
_NEVER: dict[str, Any] = {"name": "never", "deploy": {"workload": {"name": "not-there"}, "replicas": 1}}
"""A last step that cannot begin: so all is read that is read before the first step, and nothing is changed."""
_MISSING = "steps[never].deploy: there is no Deployment not-there in namespace"
_MORE = (
    ROLE
    + """---
apiVersion: v1
kind: ConfigMap
metadata: {name: flags, namespace: NAMESPACE}
data: {COLOUR: blue}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: NAMESPACE}
spec: {selector: {app: shop-v1}, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: NAMESPACE}
spec:
  parentRefs: [{name: gateway}]
  rules: [{backendRefs: [{name: shop-v1, port: 80, weight: 100}, {name: shop-v2, port: 80, weight: 0}]}]
"""
)


@pytest.fixture
def full_shop(shop: Shop) -> Shop:
    """The shop with all that the plans are about, and permission to run Jobs."""
    for manifest in yaml.safe_load_all(_MORE.replace("NAMESPACE", shop.namespace)):
        shop.api.apply(manifest)
    return shop


def put(shop: Shop, name: str, spec: dict[str, Any]) -> bool:
    """Create a plan that will not begin; whether the API server takes it."""
    steps = spec["steps"]
    changed = {"startDeadline": "1s", **spec, "steps": [*steps, _NEVER] if isinstance(steps, list) else steps}
    metadata = {"name": name, "namespace": shop.namespace}
    try:
        body = {"apiVersion": "cutover.dev/v1alpha1", "kind": "MigrationPlan", "metadata": metadata, "spec": changed}
        shop.api.create(shop.plans, body)
    except ApiError as refused:
        if refused.status not in (400, 422):
            raise
        return False
    return True


def all_refused(shop: Shop) -> dict[str, str]:
    """Once all plans have ended Refused: what each says."""

    def ended() -> list[Any] | None:
        plans = shop.api.list(shop.plans)
        return plans if all((plan.get("status") or {}).get("phase") == Phase.REFUSED for plan in plans) else None

    plans = until("all plans are refused", ended, deadline=240)
    return {plan["metadata"]["name"]: read_status(plan["status"]).message for plan in plans}


def chosen() -> list[tuple[Leaf, Any]]:
    """At each field of the schema a third of the values that a plan may have; of others, and in templates, one here and there."""
    fields = [(leaf, value) for leaf in leaves() if not leaf.below for value in leaf.values(HOSTILE)]
    allowed = [one for one in fields if one[0].allows(one[1])]
    below = [(leaf, HOSTILE[at % len(HOSTILE)]) for at, leaf in enumerate(leaves()) if leaf.below]
    names = [
        (leaf, HOSTILE[at % 6])
        for at, leaf in enumerate(leaves())
        if leaf.below and leaf.path[-1].lower().endswith("name")
    ]
    return [*allowed[::3], *fields[::29], *below[::6], *names[::2]]


def outside(shop: Shop, made: Iterable[Request]) -> list[str]:
    """Requests that lead out of the namespace, or that have what an author wrote anywhere but in one segment or value."""
    inside = re.compile(rf"/apis?/[a-z0-9./]+/namespaces/{shop.namespace}/[a-z]+(/[^/]+(/status)?)?")

    def leads_out(request: Request) -> bool:
        path, _, query = request.uri.lower().partition("?")
        # What another test has left is cleaned up, and told in `default` where its namespace is gone. No value names either.
        of_another = _OF_A_TEST.search(request.namespace) and request.namespace != shop.namespace
        if of_another or (request.namespace, request.resource) == ("default", "events"):
            return MARKER in path + query
        if request.namespace not in ("", "cutover-system", shop.namespace):
            return True
        if MARKER not in path + query:
            return False
        return not inside.fullmatch(path) or (MARKER in query and not _one_value(query))

    return [f"{request.verb} {request.uri}" for request in made if leads_out(request)]


def _one_value(query: str) -> bool:
    """Whether the marker is in a label selector, and there in a value that is a name."""
    values = urllib.parse.parse_qs(query)
    found = [key for key, value in values.items() if MARKER in value[0]]
    return found == ["labelselector"] and re.fullmatch(r"[\w./=, ()<!-]+", values["labelselector"][0]) is not None


def test_these_plans_lack_nothing_but_the_last_step(full_shop: Shop) -> None:
    """So what is put into them is read, and what the API server thinks of a template is not the end of it."""
    for at, spec in enumerate(carriers()):
        assert put(full_shop, f"plan-{at}", spec), spec
    said = all_refused(full_shop)
    for at, spec in enumerate(carriers()):
        assert _MISSING in said[f"plan-{at}"], (spec, said[f"plan-{at}"])
        assert "the server refuses" not in said[f"plan-{at}"], (spec, said[f"plan-{at}"])


def test_no_value_at_any_place_leads_out_of_the_namespace(full_shop: Shop, cluster: Cluster) -> None:
    before, mark = full_shop.objects(), cluster.audit.mark()
    taken = [
        put(full_shop, f"plan-{at}", leaf.put(value)) for at, (leaf, value) in enumerate(chosen()) if value is not None
    ]
    assert sum(taken) > 200
    assert not all(taken)
    said = all_refused(full_shop)
    assert len(said) == sum(taken)
    made = cluster.audit.since(mark, user=OPERATOR)
    assert len([request for request in made if request.namespace == full_shop.namespace]) > 2000
    assert [request for request in made if MARKER in request.uri], "some of these values are names, and are asked for"
    assert outside(full_shop, made) == []
    assert full_shop.objects() == before
    assert full_shop.leftovers() == []
