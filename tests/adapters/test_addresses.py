"""What names become in a URL, as it goes over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from cutover import names
from cutover.adapters.kubernetes import Kubernetes
from cutover.adapters.transport import HttpTransport, Request
from cutover.errors import Denied, NotFound, OutsideError, Rejected, Unavailable
from cutover.ports import CONFIG_MAPS, DEPLOYMENTS, SERVICE_ACCOUNTS, SERVICES, Ref
from support.fakes.http_api_server import serving
from support.hostile_names import NO_SEGMENTS, ODD_SEGMENTS

CONFIG = {"apiVersion": "v1", "metadata": {"name": "flags", "uid": "u", "resourceVersion": "1"}}


class Wire:
    """A server that finds everything, and notes the first line of each request to the letter."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.moved_to = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.raw_path}")
        if self.moved_to:
            raise web.HTTPFound(self.moved_to)
        return web.json_response(CONFIG)


@pytest.fixture
async def wire() -> AsyncIterator[tuple[Wire, HttpTransport]]:
    made = Wire()
    async with serving(made.answer) as transport:
        yield made, transport


@pytest.mark.parametrize("name", NO_SEGMENTS)
async def test_what_can_be_no_segment_is_not_asked_for(wire: tuple[Wire, HttpTransport], name: str) -> None:
    """A read gets the answer that the server would give; a write must not take it for an object that is gone."""
    seen, transport = wire[0].seen, wire[1]
    cluster, ref = Kubernetes(transport), Ref(CONFIG_MAPS, "shop", name)
    with pytest.raises(NotFound, match="cannot be the name of an object"):
        await cluster.get(ref)
    for write in (cluster.patch(ref, []), cluster.replace(ref, {}), cluster.save_status(ref, "1", {})):
        with pytest.raises(Rejected, match="cannot be the name of an object"):
            await write
    await cluster.remove(ref, "uid", "migrator")
    with pytest.raises(NotFound):
        [_ async for _ in cluster.watch(ref, "1")]
    with pytest.raises(NotFound):
        await cluster.get(Ref(CONFIG_MAPS, name or "..", "flags"))
    assert seen == []


@pytest.mark.parametrize(("name", "quoted"), ODD_SEGMENTS.items())
async def test_a_name_is_one_segment_whatever_is_in_it(
    wire: tuple[Wire, HttpTransport], name: str, quoted: str
) -> None:
    cluster = Kubernetes(wire[1])
    await cluster.get(Ref(CONFIG_MAPS, "shop", name))
    await cluster.patch(Ref(DEPLOYMENTS, "shop", name), [], "migrator")
    assert wire[0].seen == [
        f"GET /api/v1/namespaces/shop/configmaps/{quoted}",
        f"PATCH /apis/apps/v1/namespaces/shop/deployments/{quoted}?fieldManager=cutover",
    ]


@pytest.mark.parametrize("path", ["/api/v1/%2e%2e/secrets", "/api/v1/../secrets", "/api/v1//secrets"])
async def test_a_path_goes_over_the_wire_to_the_letter(wire: tuple[Wire, HttpTransport], path: str) -> None:
    """Of a text the HTTP client would make another path, so that what was checked is not what is asked."""
    await wire[1].send(Request("GET", names.ApiPath(path), params={"labelSelector": "a=b,c in (d)"}))
    assert [line.partition("?")[0] for line in wire[0].seen] == [f"GET {path}"]


async def test_nobody_else_chooses_the_path(wire: tuple[Wire, HttpTransport]) -> None:
    wire[0].moved_to = "/api/v1/namespaces/other/secrets"
    with pytest.raises(Unavailable):
        await Kubernetes(wire[1]).get(Ref(CONFIG_MAPS, "shop", "flags"))
    assert {line for line in wire[0].seen if "secrets" in line} == set()


@pytest.mark.parametrize("account", ["", "a b", "a:b", "a\r\nImpersonate-Group: system:masters", "..", "A"])
async def test_only_an_account_is_impersonated(wire: tuple[Wire, HttpTransport], account: str) -> None:
    cluster, ref = Kubernetes(wire[1]), Ref(CONFIG_MAPS, "shop", "flags")
    with pytest.raises(Denied, match="cannot be the name of a ServiceAccount"):
        await cluster.try_out(ref, [], account)
    assert wire[0].seen == []


@pytest.mark.parametrize("value", ["a,b", "a b", "a=b", "a)", "a,!app", "é", "-a", "a\n", "x" * 64])
def test_a_label_is_one_requirement(value: str) -> None:
    """With a comma it would be another one, and select other objects."""
    for of in ({"app": value}, {"app": "shop", "tier": value}):
        with pytest.raises(Rejected, match="cannot be the value of label"):
            names.matching(of)
    with pytest.raises(Rejected, match="cannot be the value of label"):
        names.matching({}, ("app", "In", ["shop", value]))
    for others in ([], [(value, "Exists", ())]):
        with pytest.raises(Rejected, match="cannot be the key of a label"):
            names.matching({} if others else {value: "shop"}, *others)


def test_selectors_are_written_as_the_server_reads_them() -> None:
    others = [("tier", "In", ["a", "b"]), ("old", "DoesNotExist", ()), ("env", "NotIn", ["x"]), ("run", "Lt", ["3"])]
    assert names.matching({"z": "1", "cutover.dev/plan": "u", "empty": ""}, *others, ("made", "Exists", ())) == (
        "cutover.dev/plan=u,empty=,z=1,tier in (a,b),!old,env notin (x),run<3,made"
    )
    assert names.matching({}) == names.EVERYTHING


def test_objects_of_the_cluster_and_subresources_have_paths_too() -> None:
    assert Ref(SERVICES, "shop", "web").path("proxy") == "/api/v1/namespaces/shop/services/web/proxy"
    assert SERVICE_ACCOUNTS.path("") == "/api/v1/serviceaccounts"


def test_an_answer_of_ours_is_an_error_of_the_outside() -> None:
    """So that whoever asks handles it as the answer of the server."""
    assert issubclass(NotFound, OutsideError)
