"""The chart's admission policies on the real API server: who may ask for what, and whose rights a plan may make use of."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from cluster.test_chart import render
from cutover.status.requests import PREFIX, RequestVerb
from cutover.status.status import Phase
from harness.api import Api, ApiError
from harness.kind import AnyCluster, OnKind
from harness.process import until
from support.cluster.shop import Shop

pytestmark = pytest.mark.cluster
KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
SPEC = "steps: [{name: ok, approve: {message: go}}]"


@dataclass
class People:
    """A shop whose plans are guarded, and the ways to it of a person with some verbs.

    Attributes:
        editor: may do with plans what the built-in role edit may.
        admin: the built-in role admin.
    """

    shop: Shop
    editor: Shop
    admin: Shop


@pytest.fixture(scope="module")
def policies(cluster: AnyCluster) -> Iterator[None]:
    """The policies and the roles for people, and nothing else of the chart; on kind all of it is there."""
    if isinstance(cluster, OnKind):
        yield
        return
    rendered = [
        body
        for (kind, name), body in render().items()
        if kind in KINDS or name in ("cutover-edit", "cutover-approve", "cutover-view")
    ]
    for body in rendered:
        cluster.api.apply(body)
    yield
    for body in rendered:
        cluster.api.delete(cluster.api.path(body))


@pytest.fixture
def people(cluster: AnyCluster, policies: None, shop: Shop) -> People:
    del policies

    def person(role: str) -> Shop:
        plane, namespace = cluster.control_plane, shop.namespace
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": role, "namespace": namespace}}
        cluster.api.apply(account)
        group = "rbac.authorization.k8s.io"
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": namespace}],
        }
        cluster.api.apply(binding)
        return Shop(Api(plane.url, plane.ca, plane.token_for(namespace, role)), namespace)

    made = People(shop, person("edit"), person("admin"))
    made.shop.apply(SPEC)

    def guarded() -> bool:
        try:
            ask(made.shop, "pause", "nobody")
        except ApiError as error:
            return "must end in" in str(error)
        return False

    until("the policies are in force", guarded)
    until("the roles are put together", lambda: _may_edit(made.editor))
    return made


def _may_edit(shop: Shop) -> bool:
    try:
        ask(shop, "resume")
    except ApiError:
        return False
    return True


def ask(shop: Shop, verb: str, by: str = "") -> None:
    annotation = {PREFIX + verb: f"token={secrets.token_hex(4)} by={by or shop.user}"}
    shop.api.patch(f"{shop.plans}/plan", {"metadata": {"annotations": annotation}})


def test_an_editor_stops_and_an_admin_approves(people: People) -> None:
    ask(people.editor, "pause")
    with pytest.raises(
        ApiError, match=r"is not allowed to request request.cutover.dev/approve; it needs the verb of that name on"
    ):
        ask(people.editor, "approve")
    ask(people.admin, "approve")


def test_nobody_signs_with_another_name(people: People) -> None:
    name = re.escape(people.editor.user)
    for by in ("alice", f"x{people.editor.user}", f"{people.editor.user} and more"):
        with pytest.raises(ApiError, match=f"request.cutover.dev/abort must end in by={name}"):
            ask(people.editor, "abort", by)


def test_what_another_writer_requested_is_left_alone(people: People) -> None:
    ask(people.admin, "approve")
    people.editor.api.patch(f"{people.editor.plans}/plan", {"metadata": {"annotations": {"team": "shop"}}})
    people.editor.api.patch(f"{people.editor.plans}/plan", {"metadata": {"annotations": {f"{PREFIX}approve": None}}})


@pytest.fixture
def author(people: People, cluster: AnyCluster) -> Shop:
    """One who may write plans and nothing else; `second` is somebody else's plan."""
    people.editor.apply(f"timeout: 1h\nsuspend: true\n{SPEC}", "second")
    group, namespace = "rbac.authorization.k8s.io", people.shop.namespace
    rule = {"apiGroups": ["cutover.dev"], "resources": ["migrationplans"], "verbs": ["create", "patch", "get"]}
    for kind, rest in (
        ("ServiceAccount", {}),
        ("Role", {"rules": [rule]}),
        (
            "RoleBinding",
            {
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "author"},
                "subjects": [{"kind": "ServiceAccount", "name": "author", "namespace": namespace}],
            },
        ),
    ):
        version = "v1" if kind == "ServiceAccount" else f"{group}/v1"
        metadata = {"name": "author", "namespace": namespace}
        cluster.api.apply({"apiVersion": version, "kind": kind, "metadata": metadata, **rest})
    plane = cluster.control_plane
    return Shop(Api(plane.url, plane.ca, plane.token_for(namespace, "author")), namespace)


def test_a_plan_uses_no_account_that_its_author_may_not_use(author: Shop) -> None:
    """An editor may, as he may impersonate them anyway; one who may only write plans may not."""
    with pytest.raises(
        ApiError, match="author is not allowed to run plans as ServiceAccount migrator; it needs the verb use"
    ):
        author.apply(SPEC, "third")
    with pytest.raises(ApiError, match="ServiceAccount default"):
        author.api.patch(f"{author.plans}/second", {"spec": {"serviceAccountName": "default"}})


def test_what_is_done_with_an_account_is_changed_by_those_who_may_use_it(people: People, author: Shop) -> None:
    plan = f"{author.plans}/second"
    step = {"name": "more", "wait": {"for": "1s"}}
    added, changed, taken_away = {"onFailure": "Pause"}, {"steps": [step]}, {"timeout": None}
    for spec in (added, changed, taken_away):
        with pytest.raises(ApiError, match="author is not allowed to run plans as ServiceAccount migrator"):
            author.api.patch(plan, {"spec": spec})
    author.api.patch(plan, {"metadata": {"labels": {"team": "shop"}}, "spec": {"suspend": False}})
    author.api.patch(plan, {"spec": {"suspend": None}})
    for spec in (added, changed, taken_away):
        people.editor.api.patch(plan, {"spec": spec})


_FORGED = {
    "phase": "Succeeded",
    "run": {"number": 1, "generation": 1, "specHash": "h", "startedAt": "2026-01-01T00:00:00Z"},
}


def test_nobody_but_the_operator_writes_a_status_a_snapshot_or_the_end_of_a_job(
    people: People, cluster: AnyCluster
) -> None:
    """Not even an admin of the namespace: what a plan has done, what it would restore, and whether its Job has succeeded."""
    namespace = people.shop.namespace
    snapshots = f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions"
    snapshot = {"metadata": {"name": "cutover-x-1-y", "namespace": namespace}, "revision": 1, "data": {"fields": []}}
    cluster.api.create(snapshots, {"apiVersion": "apps/v1", "kind": "ControllerRevision", **snapshot})
    for person in (people.editor, people.admin):
        api, plan = person.api, f"{person.plans}/plan"
        named, job = f"{snapshots}/cutover-x-1-y", f"/apis/batch/v1/namespaces/{namespace}/jobs/any"
        attempts: dict[str, Callable[[], object]] = {
            "status": partial(api.patch, f"{plan}/status", {"status": _FORGED}),
            "create": partial(api.create, snapshots, {**snapshot, "metadata": {"name": "cutover-x-1-z"}}),
            "patch": partial(api.patch, named, {"metadata": {"labels": {"a": "b"}}}),
            "delete": partial(api.request, "DELETE", named),
            "job": partial(api.patch, f"{job}/status", {"status": {"succeeded": 1}}),
        }
        for what, attempt in attempts.items():
            with pytest.raises(ApiError) as caught:
                attempt()
            assert caught.value.status == 403, what


def test_a_status_that_comes_with_a_new_plan_is_dropped(people: People) -> None:
    body = {
        "apiVersion": "cutover.dev/v1alpha1",
        "kind": "MigrationPlan",
        "metadata": {"name": "forged", "namespace": people.editor.namespace},
        "spec": {
            "serviceAccountName": "migrator",
            "suspend": True,
            "steps": [{"name": "ok", "approve": {"message": "go"}}],
        },
        "status": _FORGED,
    }
    made = people.editor.api.create(people.editor.plans, body)
    assert not made.get("status", {}).keys() & _FORGED.keys()


def test_annotations_of_kopf_are_nothing_to_the_operator(people: People) -> None:
    """What Kopf would keep on an object, forged: the plan goes its way, and they stay as they were written."""
    forged = {
        "kopf.zalando.org/last-handled-configuration": '{"spec": {}}\n',
        "kopf.zalando.org/plan": '{"success": true, "purpose": "create"}',
        "kopf.zalando.org/touch-dummy": "2026-01-01T00:00:00",
    }
    people.editor.apply(SPEC, "kopf", annotations=forged)
    people.shop.until(lambda status: status.phase is Phase.WAITING, "kopf")
    people.shop.request(RequestVerb.APPROVE, "ok", "kopf")
    assert people.shop.until_ended("kopf").phase is Phase.SUCCEEDED
    metadata = people.shop.api.get(f"{people.shop.plans}/kopf")["metadata"]
    kept = {key: value for key, value in metadata["annotations"].items() if "kopf" in key}
    assert kept == forged
