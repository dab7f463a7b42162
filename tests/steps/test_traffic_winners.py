"""`traffic` where another route is tried before its own: what is refused, what is only told, whom a message names, and what begins later.

Which route really wins is asked of istiod in `cluster/test_istio_order.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cutover.ports import DESTINATION_RULES, GATEWAYS, HTTP_ROUTES, ISTIO_GATEWAYS, VIRTUAL_SERVICES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from support.fakes.shop import ROUTES, http_route, plan, shop, shop_with_an_http_route, virtual_service
from support.fakes.simulation import Simulation

NOON = "2026-01-01T12:00:00Z"
EARLIER, LATER = "2026-01-01T11:00:00Z", "2026-01-01T13:00:00Z"
GATEWAY = "infra/edge"
SHIFT = """
startDeadline: 0s
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {FIELD: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100], dwell: 1m}
"""
Change = Callable[[Any], object]


def virtual(own: Change, *others: str, servers: str = "[{hosts: ['*']}]") -> Callable[[MemoryCluster], None]:
    """The shop at a gateway of another namespace, its VirtualService of noon, and others beside it."""

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = virtual_service()
        body["metadata"]["creationTimestamp"] = NOON
        body["spec"]["gateways"] = [GATEWAY]
        own(body["spec"])
        cluster.put(VIRTUAL_SERVICES, body)
        gateway = {"metadata": {"name": "edge", "namespace": "infra"}, "spec": {"servers": yaml.safe_load(servers)}}
        if servers != "unknown":
            cluster.put(ISTIO_GATEWAYS, gateway)
        for other in map(yaml.safe_load, others):
            cluster.put(ISTIO_GATEWAYS if other.pop("kind", "") == "Gateway" else VIRTUAL_SERVICES, other)

    return put


def rival(
    routes: str = "[{route: [{destination: {host: other}}]}]",
    more: str = "",
    created: str = EARLIER,
    where: str = "shop",
) -> str:
    return f"""
metadata: {{name: rival, namespace: {where}, creationTimestamp: "{created}"}}
spec: {{hosts: [shop.example], gateways: [{GATEWAY}], http: {routes}{more}}}
"""


def under(path: str, kind: str = "prefix") -> str:
    return f"[{{name: theirs, match: [{{uri: {{{kind}: '{path}'}}}}], route: [{{destination: {{host: other}}}}]}}]"


FOR_THIS_GATEWAY = f"[{{match: [{{gateways: [mesh, {GATEWAY}]}}], route: [{{destination: {{host: other}}}}]}}]"


def at(path: str) -> Change:
    def change(spec: Any) -> None:
        spec["http"][0]["match"] = [{"uri": {"prefix": path}}]

    return change


def in_any_case(path: str, kind: str) -> Change:
    return lambda spec: spec["http"][0].update(match=[{"uri": {kind: path}, "ignoreUriCase": True}])


def nothing(_: Any) -> None:
    pass


async def outcome(run: Simulation) -> tuple[str, str]:
    """How it begins: Refused with a message, or Started with what is told."""
    await run.until(lambda: run.phase is Phase.REFUSED or bool(run.status.run))
    if run.phase is Phase.REFUSED:
        return "refused", run.status.message
    (started,) = (notice for notice in run.recorder.notices if notice.reason == "Started")
    return ("told", started.message) if "is tried before it" in started.message else ("silent", started.message)


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        pytest.param(nothing, rival(), "refused", id="an older one for the same host"),
        pytest.param(nothing, rival(created=LATER), "silent", id="a newer one"),
        pytest.param(nothing, rival(created=NOON), "refused", id="of two as old the first by name"),
        pytest.param(nothing, rival(under(".*", "regex")), "refused", id="an expression that matches all"),
        pytest.param(
            nothing, rival(under("/.*", "regex"), created=LATER), "refused", id="one that is not moved to the end"
        ),
        *(
            pytest.param(nothing, rival(under(same, "regex"), created=LATER), "refused", id=f"the same as {same}")
            for same in (".+", "^.*$", "/.*$")
        ),
        pytest.param(nothing, rival(under("/.+", "regex"), created=LATER), "silent", id="an expression that leaves /"),
        pytest.param(nothing, rival(FOR_THIS_GATEWAY), "refused", id="that its match names the gateway"),
        pytest.param(nothing, rival(under("/help")), "silent", id="what is more specific takes what it is meant for"),
        pytest.param(at("/a/b"), rival(under("/a")), "refused", id="an older shorter path"),
        pytest.param(
            in_any_case("/a.*", "regex"), rival(under("/a.*", "regex")), "refused", id="expressions have their case"
        ),
        pytest.param(
            in_any_case("/a", "prefix"), rival(under("/a")), "silent", id="an older one that asks for the case"
        ),
        pytest.param(at("/a/b"), rival(under("/a"), created=LATER), "silent", id="a newer shorter path"),
        pytest.param(at("/a"), rival(under("/a/b")), "silent", id="an older longer path"),
        pytest.param(at("/a"), rival(), "silent", id="what matches all comes last"),
        pytest.param(nothing, rival(more=", exportTo: [infra]", created=LATER), "told", id="exported to some only"),
        pytest.param(nothing, rival(more=", exportTo: [infra, '*']"), "refused", id="exported to all by name"),
        pytest.param(
            lambda spec: spec.update(exportTo=["infra"]), rival(), "silent", id="its own is exported to some only"
        ),
        pytest.param(lambda spec: spec.update(gateways=["infra/other"]), rival(), "silent", id="another gateway"),
        pytest.param(lambda spec: spec.update(hosts=["a.example"]), rival(), "silent", id="another host"),
        pytest.param(lambda spec: spec.update(hosts=["SHOP.example"]), rival(), "refused", id="in any case"),
        pytest.param(
            lambda spec: spec.update(hosts=["shop.example", "a.example"]), rival(), "told", id="one of two hosts"
        ),
        pytest.param(lambda spec: spec.update(gateways=[GATEWAY, "mesh"]), rival(), "told", id="not in the mesh"),
    ],
)
async def test_virtual_services_of_one_host_at_a_gateway(own: Change, other: str, expected: str) -> None:
    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=virtual(own, other)))
    assert found == expected, message
    if found == "refused":
        assert "route primary gets no requests, so its weights have no effect: route" in message
        assert "of VirtualService rival is tried before it (" in message


@pytest.mark.parametrize(
    ("servers", "hosts", "expected"),
    [
        ("[{hosts: ['*']}]", "'*'", "silent"),  # the host of its own is its own list of routes
        ("[{hosts: [shop.example]}]", "'*'", "refused"),
        ("[{hosts: ['shop/shop.example']}]", "'*'", "refused"),
        ("[{hosts: [shop.example]}]", "SHOP.example", "silent"),  # these are compared to the letter
        ("[{hosts: ['*.example']}]", "'*'", "silent"),
        ("[{hosts: ['*']}, {hosts: [shop.example]}]", "'*'", "told"),  # at one of two servers
        ("unknown", "'*'", "silent"),
        ("unknown", "shop.example", "refused"),
    ],
)
async def test_the_hosts_of_a_gateway_leave_wider_ones_the_same_list(servers: str, hosts: str, expected: str) -> None:
    other = rival().replace("hosts: [shop.example]", f"hosts: [{hosts}]")
    put = virtual(nothing, other, servers=servers)
    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=put))
    assert found == expected, message


NOT_SERVED = (
    "no server of the gateways of VirtualService shop serves any of its hosts, so no request reaches its routes"
)
NO_GATEWAY = "there is no Gateway infra/edge, which VirtualService shop names, so no request comes by it"
NOT_EXPORTED = (
    "VirtualService shop is not exported to namespace infra (exportTo), so if the pods of Gateway infra/edge are there"
)


@pytest.mark.parametrize(
    ("servers", "own", "expected", "says"),
    [
        ("[{hosts: [a.example, '*.shop.example']}]", nothing, "refused", NOT_SERVED),
        ("[{hosts: ['web/shop.example', './*']}]", nothing, "refused", NOT_SERVED),
        ("[{hosts: [a.example]}, {hosts: ['shop/*']}]", nothing, "silent", ""),
        ("[{hosts: [a.example]}]", lambda spec: spec.update(gateways=[GATEWAY, "mesh"]), "silent", ""),
        ("unknown", nothing, "silent", NO_GATEWAY),
        ("unknown", lambda spec: spec.update(gateways=["mesh"]), "silent", ""),
        ("[{hosts: ['*']}]", lambda spec: spec.update(exportTo=["."]), "silent", NOT_EXPORTED),
        ("[{hosts: ['*']}]", lambda spec: spec.update(exportTo=[".", "infra"]), "silent", ""),
        ("[{hosts: ['*']}]", lambda spec: spec.update(exportTo=["*"]), "silent", ""),
    ],
)
async def test_requests_that_no_gateway_hands_on(servers: str, own: Change, expected: str, says: str) -> None:
    """Nobody reports it: a VirtualService has no status."""
    shift = plan(SHIFT.replace("FIELD", "virtualService"))
    found, message = await outcome(Simulation(shift, put=virtual(own, servers=servers)))
    assert found == expected, message
    assert any(text in message for text in ("o Gateway ", "no server ", "is not exported")) is bool(says)
    assert says in message


async def test_gateways_that_the_operator_does_not_see_may_serve_it() -> None:
    def put(cluster: MemoryCluster) -> None:
        virtual(nothing, servers="unknown")(cluster)
        cluster.everywhere = False

    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=put))
    assert found == "silent", message
    assert NO_GATEWAY not in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (nothing, "refused"),
        (lambda spec: spec.update(http=[{"match": [{"uri": {"prefix": "/a"}}], "route": []}]), "refused"),
        (lambda spec: spec.update(http=[{"match": [{"sourceLabels": {"a": "b"}}], "route": []}]), "silent"),
        (lambda spec: spec.update(hosts=["*.example"]), "silent"),
        (lambda spec: spec.update(gateways=[GATEWAY]), "silent"),
    ],
)
async def test_in_the_mesh_the_older_one_has_all_of_the_host(change: Change, expected: str) -> None:
    """Also what it does not match itself: nothing is merged there."""
    other = yaml.safe_load(rival())
    del other["spec"]["gateways"]
    change(other["spec"])
    put = virtual(lambda spec: spec.pop("gateways"), yaml.safe_dump(other))
    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=put))
    assert found == expected, message


ROOT = """
metadata: {name: root, namespace: infra, creationTimestamp: "2026-01-01T12:00:00Z"}
spec:
  hosts: [shop.example]
  gateways: [edge]
  http: [{match: [{uri: {prefix: /a}}], delegate: {name: shop, namespace: shop}}]
"""


INNER = """
kind: Gateway
metadata: {name: inner, namespace: infra}
spec: {servers: [{hosts: [inner.example]}]}
"""


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((ROOT,), ""),
        ((), "VirtualService shop has no hosts, and no VirtualService delegates to it"),
        ((ROOT.replace("http: [", "http: [{match: [{uri: {prefix: /}}], route: []}, "),), "no requests"),
        ((ROOT, rival(under("/a"), where="infra", created="2020-01-01T00:00:00Z")), "no requests"),
        ((ROOT, rival(under("/b"), where="infra", created="2020-01-01T00:00:00Z")), ""),
        (
            (ROOT.replace("[edge]", "[inner]"), INNER),
            "the VirtualServices that delegate to VirtualService shop serves any of its hosts",
        ),
    ],
)
async def test_a_delegate_gets_what_its_root_gets(others: tuple[str, ...], expected: str) -> None:
    def own(spec: Any) -> None:
        del spec["hosts"], spec["gateways"]

    put = virtual(own, *others)
    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=put))
    assert (found, expected in message) == ("refused" if expected else "silent", True), message


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        ([{"uri": {"prefix": "/"}}], "refused"),
        ([{"uri": {"regex": ".*"}}], "refused"),
        ([{"uri": {"prefix": "/x"}}, {"name": "all"}], "refused"),
        ([{"uri": {"prefix": "/"}, "headers": {"a": {"exact": "b"}}}], "silent"),
        ([{"uri": {"prefix": "/"}, "port": 8080}], "silent"),
        ([{"uri": {"prefix": "/"}, "gateways": ["infra/other"]}], "silent"),
    ],
)
async def test_a_route_above_that_takes_all(matches: list[Any], expected: str) -> None:
    def own(spec: Any) -> None:
        spec["http"].insert(0, {"name": "all", "match": matches, "route": [{"destination": {"host": "other"}}]})

    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=virtual(own)))
    assert found == expected, message
    assert ("route all is tried before it (" in message) == (expected == "refused")


AT_THE_GATEWAY = {"hosts": ["shop.example"], "gateways": [GATEWAY]}
NO_PATH: Any = {"match": [{"uri": {}}]}
NEARLY_EMPTY = {
    "a VirtualService without a spec": (VIRTUAL_SERVICES, {}),
    "a Gateway without a spec": (ISTIO_GATEWAYS, {}),
    "a DestinationRule without a spec": (DESTINATION_RULES, {}),
    "a delegate without a name": (
        VIRTUAL_SERVICES,
        {"spec": {**AT_THE_GATEWAY, "http": [{"delegate": {"namespace": "shop"}}]}},
    ),
    "paths of no kind": (
        VIRTUAL_SERVICES,
        {"spec": {**AT_THE_GATEWAY, "http": [{**NO_PATH, "delegate": {"name": "inner"}}]}},
        {"spec": {"http": [NO_PATH]}},
    ),
}
"""What the definitions of these kinds let pass."""


@pytest.mark.parametrize("where", ["shop", "other"])
@pytest.mark.parametrize("odd", NEARLY_EMPTY.values(), ids=NEARLY_EMPTY)
async def test_an_object_that_says_nearly_nothing_keeps_no_plan_from_moving(odd: Any, where: str) -> None:
    kind, *bodies = odd

    def put(cluster: MemoryCluster) -> None:
        virtual(nothing)(cluster)
        for name, body in zip(("odd", "inner"), bodies, strict=False):
            cluster.put(kind, {"metadata": {"name": name, "namespace": where, "creationTimestamp": LATER}, **body})

    run = Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=put)
    assert await run.run() is Phase.SUCCEEDED, run.status


# --- who may be named -------------------------------------------------------------------------------------------------


async def test_an_object_of_another_namespace_is_named_only_to_an_account_that_may_get_it() -> None:
    def put_for(*, readable: bool) -> Callable[[MemoryCluster], None]:
        def put(cluster: MemoryCluster) -> None:
            virtual(nothing, rival(where="secrets"))(cluster)
            if readable:
                cluster.readable.add(Ref(VIRTUAL_SERVICES, "secrets", "rival"))

        return put

    shift = plan(SHIFT.replace("FIELD", "virtualService"))
    found, message = await outcome(Simulation(shift, put=put_for(readable=False)))
    assert found == "refused"
    assert "a VirtualService of another namespace, which the plan's account may not get, is tried before it" in message
    assert "rival" not in message
    assert "secrets" not in message
    found, message = await outcome(Simulation(shift, put=put_for(readable=True)))
    assert found == "refused"
    assert "of VirtualService rival of namespace secrets is tried before it" in message


async def test_an_operator_of_some_namespaces_says_once_what_it_does_not_see() -> None:
    def put(cluster: MemoryCluster) -> None:
        virtual(nothing, rival(where="secrets"))(cluster)
        cluster.everywhere = False

    spec = plan(SHIFT.replace("FIELD", "virtualService"))
    spec["spec"]["steps"].append({**copy.deepcopy(spec["spec"]["steps"][1]), "name": "again"})
    found, message = await outcome(Simulation(spec, put=put))
    assert found == "silent"
    assert message.count("a route of another namespace that takes requests before this plan's is not seen") == 1


NOWHERE = "route primary gets no requests, so its weights have no effect: no proxy has any of its matches"
AT_A = [{"uri": {"prefix": "/a/b"}}]


@pytest.mark.parametrize(
    ("outer", "inner", "sent"),
    [
        ({"uri": {"prefix": "/a"}}, AT_A, True),
        ({"uri": {"prefix": "/a"}}, [*AT_A, {"uri": {"prefix": "/c"}}], False),
        ({"uri": {"prefix": "/a"}}, [{"uri": {"exact": "/a"}}, {"headers": {"x": {"exact": "1"}}}], True),
        ({"uri": {"prefix": "/a"}}, [{"uri": {"regex": "/a.*"}}], False),
        ({"uri": {"exact": "/a/b"}}, AT_A, False),
        ({"uri": {"prefix": "/a"}, "ignoreUriCase": True}, AT_A, False),
        ({"uri": {"prefix": "/a"}, "ignoreUriCase": True}, None, True),
        ({"headers": {"x": {"exact": "1"}}}, [{"headers": {"x": {"prefix": "1"}}}], False),
        ({"queryParams": {"x": {"exact": "1"}}}, [{"queryParams": {"y": {"exact": "1"}}}], True),
        ({"gateways": ["edge", "mesh"]}, [{"gateways": [GATEWAY]}], True),
        ({"gateways": ["edge"]}, [{"gateways": ["mesh"]}], False),
        ({"port": 80}, [{"port": 81}], False),
        ({"sourceNamespace": "a"}, AT_A, False),
        ({"sourceLabels": {"a": "b"}}, [{"sourceLabels": {"a": "c"}}], False),
    ],
)
async def test_a_route_of_a_delegate_that_does_not_fit_in_its_root_gets_nothing(
    outer: Any,
    inner: Any,
    sent: bool,  # noqa: FBT001 -- a parameter
) -> None:
    def own(spec: Any) -> None:
        del spec["hosts"], spec["gateways"]
        if inner:
            spec["http"][0]["match"] = inner
        spec["http"].append({"name": "other", "route": []})

    root = yaml.safe_load(ROOT)
    root["spec"]["http"][0]["match"] = [outer]
    put = virtual(own, yaml.safe_dump(root))
    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=put))
    assert (found, NOWHERE in message) == ("silent" if sent else "refused", not sent), message


@pytest.mark.parametrize("name", ["edge.infra", "edge.infra.svc.cluster.local", "infra/edge"])
async def test_a_gateway_may_be_named_as_in_former_times(name: str) -> None:
    put = virtual(lambda spec: spec.update(gateways=[name]), rival())
    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=put))
    assert found == "refused"
    assert "of VirtualService rival is tried before it" in message


async def test_a_match_for_gateways_that_its_object_is_not_at_gets_nothing() -> None:
    def own(spec: Any) -> None:
        spec["http"].append(copy.deepcopy(spec["http"][0]) | {"name": "rest"})
        spec["http"][0]["match"] = [{"gateways": ["mesh"]}]

    shift = SHIFT.replace("FIELD: {name: shop}", "virtualService: {name: shop, routes: [primary]}")
    found, message = await outcome(Simulation(plan(shift), put=virtual(own)))
    assert found == "refused"
    assert NOWHERE in message


# --- HTTPRoutes -------------------------------------------------------------------------------------------------------


def rules(own: Change, other: Change, listeners: str = "[{name: http, port: 80}]", controller: str = "istio.io/gateway-controller") -> Callable[[MemoryCluster], None]:  # fmt: skip
    """The shop at a Gateway, its HTTPRoute of noon, and an older one beside it that takes all."""

    def put(cluster: MemoryCluster) -> None:
        shop_with_an_http_route(cluster)
        mine, theirs = http_route(), http_route()
        mine["metadata"]["creationTimestamp"] = NOON
        theirs["metadata"] |= {"name": "rival", "creationTimestamp": EARLIER}
        theirs["spec"]["rules"] = [{"backendRefs": [{"name": "help", "port": 80}]}]
        for body in (mine, theirs):
            body["status"]["parents"][0]["controllerName"] = controller
        own(mine["spec"])
        other(theirs["spec"])
        cluster.put(HTTP_ROUTES, mine)
        cluster.put(HTTP_ROUTES, theirs)
        spec = {"listeners": yaml.safe_load(listeners)}
        cluster.put(GATEWAYS, {"metadata": {"name": "gateway", "namespace": "shop"}, "spec": spec})

    return put


NAMED = "[{name: http, port: 80, hostname: shop.example}]"


def rule_at(path: str, how: str = "PathPrefix") -> Change:
    return lambda spec: spec["rules"][-1].update(matches=[{"path": {"type": how, "value": path}}])


def without_hostnames(path: str = "/") -> Change:
    def change(spec: Any) -> None:
        del spec["hostnames"]
        rule_at(path)(spec)

    return change


def with_one_below_all(spec: Any) -> None:
    without_hostnames()(spec)
    spec["rules"].append({"matches": [{"path": {"type": "RegularExpression", "value": "/.*"}}]})


@pytest.mark.parametrize(
    ("put", "expected"),
    [
        pytest.param(rules(nothing, nothing), "refused", id="an older one with the same match"),
        pytest.param(rules(rule_at("/a/b"), rule_at("/a")), "silent", id="a longer path wins"),
        pytest.param(rules(rule_at("/a/.*", "RegularExpression"), nothing), "refused", id="a prefix before an expression"),
        pytest.param(rules(rule_at("/a/.*", "RegularExpression"), nothing, controller="example.com/gw"), "silent", id="only with Istio"),
        pytest.param(rules(rule_at("/a/.*", "RegularExpression"), rule_at("/a/.*", "RegularExpression"), controller="example.com/gw"), "refused", id="two of one expression"),
        pytest.param(rules(nothing, without_hostnames()), "silent", id="a hostname wins at a listener without one"),
        pytest.param(rules(nothing, without_hostnames(), NAMED), "refused", id="not at a listener that has it"),
        pytest.param(rules(rule_at("/a/b"), without_hostnames("/a"), NAMED), "refused", id="nor does a longer path"),
        pytest.param(rules(rule_at("/a"), without_hostnames("/a/b"), NAMED), "silent", id="what is more specific"),
        pytest.param(rules(rule_at("/a"), with_one_below_all, NAMED), "silent", id="nor what stands below one for all"),
        pytest.param(rules(nothing, without_hostnames(), NAMED, "example.com/gw"), "silent", id="only Istio does so"),
        pytest.param(rules(nothing, lambda spec: spec.update(parentRefs=[{"name": "inner"}])), "silent", id="elsewhere"),
        pytest.param(
            rules(nothing, lambda spec: spec["parentRefs"][0].update(sectionName="https"), "[{name: http, port: 80}, {name: https, port: 443}]"),
            "told",
            id="at one of two listeners",
        ),
    ],
)  # fmt: skip
async def test_http_routes_of_one_host(put: Callable[[MemoryCluster], None], expected: str) -> None:
    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "httpRoute")), put=put))
    assert found == expected, message


async def test_one_that_its_gateway_has_not_accepted_stops_nothing() -> None:
    def put(cluster: MemoryCluster) -> None:
        rules(nothing, nothing)(cluster)
        body = copy.deepcopy(cluster.objects[Ref(HTTP_ROUTES, "shop", "rival")])
        body["status"]["parents"][0]["conditions"][0]["status"] = "False"
        cluster.put(HTTP_ROUTES, body)

    found, message = await outcome(Simulation(plan(SHIFT.replace("FIELD", "httpRoute")), put=put))
    assert found == "told", message


# --- later ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [50, 100])
async def test_one_that_is_created_while_weights_move_brings_them_back(weight: int) -> None:
    """Before the next weight, and before the plan could say that it has succeeded."""
    run = Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=virtual(nothing))

    def new() -> int:
        return int(run.cluster.objects[ROUTES]["spec"]["http"][0]["route"][1].get("weight", 0))

    await run.until(lambda: new() == weight)
    run.cluster.put(VIRTUAL_SERVICES, yaml.safe_load(rival(under("/.*", "regex"), created=LATER)))
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "NotServed"
    assert "of VirtualService rival is tried before it" in run.status.failure.message
    assert new() == 0


@pytest.mark.parametrize("kind", ["virtualService", "httpRoute"])
async def test_header_routes_of_its_own_are_no_others(kind: str) -> None:
    """Where the route asks for the header itself they take all of its requests, which is told when the run begins."""

    def virtual_own(spec: Any) -> None:
        spec["http"][0]["match"] = [{"headers": {"tenant": {"exact": "a"}}}]

    def rule_own(spec: Any) -> None:
        spec["rules"][-1]["matches"] = [{"headers": [{"name": "tenant", "value": "a"}]}]

    match = "match: [{headers: {tenant: {exact: a}}}, {headers: {team: {exact: b}}}]"
    body = plan(SHIFT.replace("FIELD", kind).replace("dwell: 1m", match))
    put = virtual(virtual_own) if kind == "virtualService" else rules(rule_own, at_another_host)
    run = Simulation(body, put=put)
    assert await run.run() is Phase.SUCCEEDED, run.status.message
    (started,) = (notice for notice in run.recorder.notices if notice.reason == "Started")
    assert "matches header tenant itself, as match does, so all requests" in started.message


def at_another_host(spec: Any) -> None:
    spec["hostnames"] = ["other.example"]


async def test_a_gateway_that_serves_other_hosts_meanwhile_brings_the_weights_back() -> None:
    run = Simulation(plan(SHIFT.replace("FIELD", "virtualService")), put=virtual(nothing))
    await run.until(lambda: ("spec", ROUTES) in run.cluster.effects)
    gateway = {"metadata": {"name": "edge", "namespace": "infra"}, "spec": {"servers": [{"hosts": ["a.example"]}]}}
    run.cluster.put(ISTIO_GATEWAYS, gateway)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "NotServed"
    assert NOT_SERVED in run.status.failure.message


@pytest.mark.parametrize("weight", [50, 100])
async def test_a_new_process_knows_the_other_routes_before_it_moves_traffic_or_lets_the_plan_end(weight: int) -> None:
    body = plan(SHIFT.replace("FIELD", "virtualService") + "  - {name: ok, approve: {message: go}}\n")
    shift = body["spec"]["steps"][1]
    if weight == 50:
        body["spec"]["steps"] = [body["spec"]["steps"][0], body["spec"]["steps"][2], shift]
    run = Simulation(body, put=virtual(nothing))
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.put(VIRTUAL_SERVICES, yaml.safe_load(rival(under("/.*", "regex"), created=LATER)))
    run.request(RequestVerb.APPROVE, "ok")
    run.restart()
    mark = len(run.cluster.effects)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "NotServed"
    assert (("spec", ROUTES) in run.cluster.effects[mark:]) is (weight == 100), "only back"
