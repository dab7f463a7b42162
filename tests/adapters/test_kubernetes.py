"""What is taken for an answer of the API server, and what is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import web

from cutover.adapters.kubernetes import Kubernetes
from cutover.adapters.transport import Request, Response
from cutover.errors import Conflict, Denied, NotFound, NotInstalled, OutsideError, Rejected, Unavailable
from cutover.ports import CONFIG_MAPS, DEPLOYMENTS, PLAN_LABEL, PLANS, VIRTUAL_SERVICES, Ref
from support.fakes.http_api_server import Login, serving

Answers = dict[str, tuple[int, Any] | list[tuple[int, Any]]]
"""What is answered at a path: the same always, or one after the other."""
CONFIG, DEPLOYMENT, ROUTES = (Ref(resource, "shop", "it") for resource in (CONFIG_MAPS, DEPLOYMENTS, VIRTUAL_SERVICES))
APPS = {"kind": "APIResourceList", "resources": [{"name": "deployments"}]}
GROUPS = {"kind": "APIGroupList", "groups": [{"versions": [{"groupVersion": "apps/v1"}]}]}
OF_A_PROXY = {"type": "error", "status": "404", "code": "NotFound", "message": "no such cluster"}


@pytest.fixture
async def answers() -> AsyncIterator[tuple[Kubernetes, Answers]]:
    """A client, and what it gets at which path; elsewhere the page of somebody who knows nothing of it."""
    known: Answers = {}

    async def answer(request: web.Request) -> web.Response:
        found = known.get(request.path, (404, "404 page not found"))
        code, body = found.pop(0) if isinstance(found, list) else found
        return web.Response(status=code, text=body) if isinstance(body, str) else web.json_response(body, status=code)

    async with serving(answer) as transport:
        yield Kubernetes(transport), known


def path(ref: Ref) -> str:
    return f"{ref.resource.path(ref.namespace)}/{ref.name}"


def status(code: int) -> tuple[int, Any]:
    return code, {"kind": "Status", "code": code, "message": "the server says so"}


async def why(cluster: Kubernetes, ref: Ref) -> type[OutsideError]:
    with pytest.raises(OutsideError) as caught:
        await cluster.get(ref)
    return type(caught.value)


@pytest.mark.parametrize(
    ("code", "error"), [(403, Denied), (404, NotFound), (409, Conflict), (422, Rejected), (500, Unavailable)]
)
async def test_an_error_of_its_own_is_an_answer(
    answers: tuple[Kubernetes, Answers], code: int, error: type[OutsideError]
) -> None:
    cluster, known = answers
    known[path(DEPLOYMENT)] = status(code)
    assert await why(cluster, DEPLOYMENT) is error


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (413, "Request entity too large: limit is 3145728"),
        (500, "etcdserver: request is too large"),
        (500, "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2 vs. 1)"),
    ],
)
async def test_what_is_too_large_stays_too_large(answers: tuple[Kubernetes, Answers], code: int, message: str) -> None:
    """Nobody tries it again: it is an answer, though the API server calls the other two errors of its own."""
    cluster, known = answers
    answer, body = status(code)
    known[path(DEPLOYMENT)] = (answer, {**body, "message": message})
    assert await why(cluster, DEPLOYMENT) is Rejected


@pytest.mark.parametrize(("ready", "error"), [(200, Denied), (500, Unavailable), (404, Denied)])
async def test_a_server_that_starts_has_refused_nothing(
    answers: tuple[Kubernetes, Answers], ready: int, error: type[OutsideError]
) -> None:
    """Until it has read the roles it answers 403 to everything; who hides /readyz is believed."""
    cluster, known = answers
    known[path(DEPLOYMENT)] = status(403)
    known["/readyz"] = (ready, "ok")
    assert await why(cluster, DEPLOYMENT) is error


async def test_what_it_refused_just_before_it_was_ready_is_asked_again(answers: tuple[Kubernetes, Answers]) -> None:
    cluster, known = answers
    known["/readyz"] = (200, "ok")
    body = {"apiVersion": "apps/v1", "metadata": {"name": "shop-v2", "uid": "u", "resourceVersion": "1"}}
    known[path(DEPLOYMENT)] = [status(403), (200, body)]
    assert await cluster.get(DEPLOYMENT) == body


@pytest.mark.parametrize("code", [400, 403, 404, 409, 422])
@pytest.mark.parametrize("body", ["<html>no</html>", OF_A_PROXY, ["no"]])
async def test_one_of_a_proxy_is_not_an_answer(answers: tuple[Kubernetes, Answers], code: int, body: Any) -> None:
    """Also where it is JSON, as of Rancher and of gateways: an object that is not gone would be passed over in an undo."""
    cluster, known = answers
    known.update({path(DEPLOYMENT): (code, body), "/apis/apps/v1": (200, APPS), "/apis": (200, GROUPS)})
    assert await why(cluster, DEPLOYMENT) is Unavailable


@pytest.mark.parametrize("body", ["<html>yes</html>", {"status": "ok"}, ["yes"]])
async def test_a_success_answered_by_a_proxy_is_not_a_success(answers: tuple[Kubernetes, Answers], body: Any) -> None:
    """A list without items would say that there is no plan that owns a claim, and no endpoint that is ready."""
    cluster, known = answers
    known[PLANS.path("shop")] = (200, body)
    with pytest.raises(Unavailable):
        await cluster.list(PLANS, "shop")


async def test_a_stream_that_is_behind_takes_back_nothing_of_an_own_write(answers: tuple[Kubernetes, Answers]) -> None:
    """Else the values from before it would be taken for somebody else's."""
    cluster, known = answers

    def body(version: int) -> dict[str, Any]:
        labels = {PLAN_LABEL: "uid-a"}
        metadata = {"name": "it", "namespace": "shop", "uid": "u", "resourceVersion": str(version), "labels": labels}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}

    plan = {"metadata": {"name": "plan", "namespace": "shop", "uid": "uid-a", "resourceVersion": "6"}}
    assert cluster.note(Ref(PLANS, "shop", "plan"), plan | {"status": {"phase": "Running"}})
    assert cluster.note(DEPLOYMENT, body(7))
    known[path(DEPLOYMENT)] = (200, body(9))
    await cluster.patch(DEPLOYMENT, [], "migrator")
    assert cluster.seen(DEPLOYMENT) == body(9)
    for version in (7, 8, 9):
        assert not cluster.note(DEPLOYMENT, body(version))
        assert cluster.seen(DEPLOYMENT) == body(9)
    assert cluster.note(DEPLOYMENT, body(10))


@pytest.mark.parametrize("rotated", [1, 2])
async def test_after_a_401_it_logs_in_again_and_asks_once_more(rotated: int) -> None:
    """Tokens are rotated. A server that takes none of ours has not answered."""
    logins: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] in ("1", "2")[:rotated]:
            return web.json_response(status(401)[1], status=401)
        return web.json_response({"apiVersion": "v1", "items": [{"metadata": {"name": "it"}}]})

    class Rotating(Login):
        def __init__(self, server: str) -> None:
            super().__init__(server)
            logins.append(str(len(logins) + 1))
            self.token = logins[-1]

        def as_http_headers(self) -> Mapping[str, str]:
            return {"Authorization": self.token}

    async with serving(answer, Rotating) as transport:
        cluster = Kubernetes(transport)
        if rotated == 1:
            both = await asyncio.gather(*(cluster.list(PLANS, "shop") for _ in range(2)))
            assert [len(items) for items in both] == [1, 1]
            assert logins == ["1", "2"], "the second request that was refused finds the new login there"
        else:
            with pytest.raises(Unavailable, match="does not take our credentials"):
                await cluster.list(PLANS, "shop")


class Recording:
    """A transport that answers every request with one object, and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.asked: list[Request] = []
        self._answer = answer

    async def send(self, request: Request) -> Response:
        self.asked.append(request)
        return Response(200, {}, json.dumps(self._answer).encode())

    async def log_in_again(self, login: int) -> None:
        raise AssertionError(login)

    async def lines(self, request: Request) -> AsyncGenerator[bytes, None]:
        self.asked.append(request)
        for _ in ():
            yield b""

    async def close(self) -> None: ...


async def test_what_every_write_says_of_itself() -> None:
    """Who writes, so that others can tell; and a status the version at which it was worked out."""
    made = {"apiVersion": "v1", "metadata": {"name": "it", "namespace": "shop", "uid": "u", "resourceVersion": "8"}}
    transport = Recording(made)
    cluster = Kubernetes(transport)
    await cluster.patch(DEPLOYMENT, [], "migrator")
    await cluster.create(CONFIG_MAPS, "shop", made, "migrator")
    await cluster.replace(CONFIG, made)
    await cluster.save_status(Ref(PLANS, "shop", "it"), "7", {})
    assert [(one.method, one.params["fieldManager"]) for one in transport.asked] == [
        ("PATCH", "cutover"),
        ("POST", "cutover"),
        ("PUT", "cutover"),
        ("PUT", "cutover"),
    ]
    assert json.loads(transport.asked[-1].body or b"")["metadata"]["resourceVersion"] == "7"


async def test_who_is_impersonated_is_an_account_of_the_same_namespace_and_has_no_groups_of_ours() -> None:
    """The API server adds an account's groups itself; nothing else of the identity is ever named."""
    made = {"apiVersion": "v1", "metadata": {"name": "it", "namespace": "shop", "uid": "u", "resourceVersion": "8"}}
    transport = Recording(made)
    cluster = Kubernetes(transport)
    await cluster.patch(DEPLOYMENT, [], "migrator")
    await cluster.try_out(DEPLOYMENT, [], "migrator")
    await cluster.dry_run(DEPLOYMENT, {}, "migrator")
    await cluster.create(CONFIG_MAPS, "shop", made, "migrator")
    await cluster.remove(CONFIG, "u", "migrator")
    for asked in transport.asked:
        named = {name: value for name, value in asked.headers.items() if name.lower().startswith("impersonate")}
        assert named == {"Impersonate-User": "system:serviceaccount:shop:migrator"}


async def test_who_may_get_an_object_of_another_namespace_is_asked_of_the_account_of_its_own() -> None:
    answer = {"apiVersion": "authorization.k8s.io/v1", "status": {"allowed": True}}
    transport = Recording(answer)
    assert await Kubernetes(transport).may_get("migrator", "shop", Ref(VIRTUAL_SERVICES, "other", "rival"))
    assert json.loads(transport.asked[-1].body or b"")["spec"] == {
        "user": "system:serviceaccount:shop:migrator",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
        "resourceAttributes": {
            "namespace": "other",
            "verb": "get",
            "group": "networking.istio.io",
            "resource": "virtualservices",
            "name": "rival",
        },
    }


@pytest.mark.parametrize("account", ["migrator\r\nImpersonate-Group: system:masters", "migrator\nX: y"])
async def test_a_name_that_would_be_a_second_header_is_not_sent(account: str) -> None:
    """No plan can have such a name; if one could, no request would be sent."""
    seen: list[Mapping[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return web.json_response({})

    async with serving(answer) as transport:
        with pytest.raises(Denied, match="cannot be the name of a ServiceAccount"):
            await Kubernetes(transport).patch(DEPLOYMENT, [], account)
    assert seen == []


def test_an_end_that_is_reported_late_takes_nothing_from_the_successor() -> None:
    """Kopf has a worker for each object: the end of a plan may be told after the beginning of the one that replaced it."""
    cluster, plan = Kubernetes(Recording({})), Ref(PLANS, "shop", "plan")

    def body(uid: str, version: int) -> dict[str, Any]:
        return {"metadata": {"name": "plan", "namespace": "shop", "uid": uid, "resourceVersion": str(version)}}

    assert cluster.note(plan, body("old", 5))
    assert cluster.note(plan, body("new", 9))
    assert not cluster.note(plan, body("old", 8), deleted=True)
    assert cluster.seen(plan) == body("new", 9)
    assert cluster.note(plan, body("new", 9), deleted=True)


async def test_a_kind_that_is_not_installed(answers: tuple[Kubernetes, Answers]) -> None:
    cluster, known = answers
    known["/apis"] = (200, GROUPS)
    assert await why(cluster, ROUTES) is NotInstalled


@pytest.mark.parametrize("page", [OF_A_PROXY, ["no"], "<html>no</html>"])
async def test_who_knows_no_groups_does_not_say_what_is_installed(
    answers: tuple[Kubernetes, Answers], page: Any
) -> None:
    cluster, known = answers
    known.update({"/apis": (200, page), "/apis/networking.istio.io/v1": (200, page)})
    assert await why(cluster, ROUTES) is Unavailable


async def test_what_every_api_server_has_is_never_not_installed(answers: tuple[Kubernetes, Answers]) -> None:
    """A balancer one of whose backends has lost its way: this page, and the next one, and then the groups."""
    cluster, known = answers
    known["/apis"] = (200, GROUPS)
    assert await why(cluster, CONFIG) is Unavailable


async def test_a_kind_that_is_served_in_other_versions_only(answers: tuple[Kubernetes, Answers]) -> None:
    """Others of its group may be served in the version that is asked for."""
    cluster, known = answers
    group = "networking.istio.io"
    versions = [{"groupVersion": f"{group}/{one}", "version": one} for one in ("v1", "v1beta1", "v1alpha3")]
    known["/apis"] = (200, {"kind": "APIGroupList", "groups": [{"versions": versions}]})
    known[f"/apis/{group}"] = (200, {"kind": "APIGroup", "versions": versions})
    for version, plurals in (("v1", ["gateways"]), ("v1beta1", ["gateways", "virtualservices"]), ("v1alpha3", [])):
        resources = [{"name": one} for one in plurals]
        known[f"/apis/{group}/{version}"] = (200, {"kind": "APIResourceList", "resources": resources})
    with pytest.raises(NotInstalled) as missing:
        await cluster.get(ROUTES)
    assert missing.value.versions == ["v1beta1"]
