"""Visitors who stay on the version that answered first: the cookie, its routes, when they come and when they go."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import jq  # type: ignore[import-not-found]  # a compiled module without types
import pytest

from cutover.errors import PlanError
from cutover.plan.parsing import parse
from cutover.ports import HTTP_ROUTES, VIRTUAL_SERVICES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.steps.traffic import Traffic
from cutover.testing import MemoryCluster
from support.fakes.shop import (
    ROUTES,
    RULES,
    SOAK,
    http_route,
    plan,
    shop,
    shop_of_many_routes,
    shop_with_an_http_route,
    virtual_service,
)
from support.fakes.simulation import Simulation

STAYS = ["cutover-shift-stays-to-primary", "cutover-shift-stays-from-primary"]


def spec(
    more: str = "dwell: 1m",
    weights: str = "[10, 50, 100]",
    where: str = "virtualService: {name: shop}",
    after: str = "",
) -> dict[str, Any]:
    return plan(f"""
startDeadline: 0s
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}
  - name: shift
    traffic:
      {where}
      from: {{host: shop-v1}}
      to: {{host: shop-v2}}
      weights: {weights}
      stickiness: {{cookie: visit, maxAge: 2h}}
      {more}{after}
""")


def put_with(change: Callable[[Any], object]) -> Callable[[MemoryCluster], None]:
    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = virtual_service()
        change(body["spec"]["http"][0])
        cluster.put(VIRTUAL_SERVICES, body)

    return put


def http(run: Simulation) -> list[Any]:
    found: list[Any] = run.cluster.objects[ROUTES]["spec"]["http"]
    return found


def names(run: Simulation) -> list[str]:
    return [route["name"] for route in http(run)]


def share(run: Simulation) -> int:
    return int(http(run)[-1]["route"][1]["weight"])


def cookies(entries: list[Any]) -> list[str]:
    """What the answers of each destination set."""
    return [entry.get("headers", {}).get("response", {}).get("add", {}).get("set-cookie", "") for entry in entries]


def goes(run: Simulation, cookie: str) -> str:
    """Where Istio would send a request with this header Cookie; empty for where the weights say."""
    for route in http(run)[:-1]:
        if any(re.fullmatch(match["headers"]["cookie"]["regex"], cookie) for match in route["match"]):
            return str(route["route"][0]["destination"]["host"])
    return ""


async def until_share(run: Simulation, weight: int) -> None:
    await run.until(lambda: share(run) == weight)


async def test_both_sides_keep_their_visitors_until_the_old_one_has_nothing_left() -> None:
    run = Simulation(spec(), put=shop)
    seen: list[tuple[list[str], int]] = []

    def changed(ref: Any, *_: Any) -> None:
        now = names(run)[:-1], share(run)
        if ref == ROUTES and (not seen or seen[-1] != now):
            seen.append(now)

    run.cluster.changed = changed
    assert await run.run() is Phase.SUCCEEDED
    assert seen == [([], 0), (STAYS, 10), (STAYS, 50), (STAYS[:1], 100), ([], 100)]
    assert cookies(http(run)[0]["route"]) == ["", ""]


async def test_the_cookie_says_the_side_and_has_no_meaning_in_another_run_or_step() -> None:
    run = Simulation(spec(), put=shop)
    await until_share(run, 10)
    old, new = cookies(http(run)[-1]["route"])
    uid = run.cluster.objects[run.plan]["metadata"]["uid"][:8]
    assert old == f"visit={uid}-1-shift-from; Path=/; Max-Age=7200; HttpOnly; SameSite=Lax"
    assert new == f"visit={uid}-1-shift-to; Path=/; Max-Age=7200; HttpOnly; SameSite=Lax"
    for brings, host in (
        (f"visit={uid}-1-shift-from", "shop-v1"),
        (f"a=b; visit={uid}-1-shift-to; c=d", "shop-v2"),
        (f"a=b;visit={uid}-1-shift-to", "shop-v2"),
        (f"visit={uid}-2-shift-to", ""),
        (f"visit={uid}-1-other-to", ""),
        (f"visit={uid}-1-shift-to-and-more", ""),
        (f"revisit={uid}-1-shift-to", ""),
        ("a=b", ""),
    ):
        assert goes(run, brings) == host, brings


async def test_an_abort_frees_everybody_in_one_write() -> None:
    run = Simulation(spec(), put=shop)
    await until_share(run, 50)
    states: list[tuple[int, int]] = []

    def changed(ref: Any, *_: Any) -> None:
        if ref == ROUTES and (not states or states[-1] != (len(http(run)), share(run))):
            states.append((len(http(run)), share(run)))

    run.cluster.changed = changed
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert states in ([(3, 50), (1, 0)], [(1, 0)])
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_other_header_operations_there_stay() -> None:
    theirs = {"request": {"set": {"version": "2"}}, "response": {"add": {"x-version": "2"}, "remove": ["server"]}}
    run = Simulation(
        spec(after=SOAK), put=put_with(lambda route: route["route"][1].update(headers=copy.deepcopy(theirs)))
    )
    await until_share(run, 10)
    found = copy.deepcopy(http(run)[-1]["route"][1]["headers"])
    assert found["response"]["add"].pop("set-cookie")
    assert found == theirs
    assert http(run)[0]["route"][0]["headers"] == theirs, "who is kept is not told again"
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


async def test_headers_go_before_cookies() -> None:
    run = Simulation(spec("dwell: 1m\n      match: [{headers: {canary: {exact: 'true'}}}]"), put=shop)
    await until_share(run, 10)
    assert names(run) == ["cutover-shift-primary", *STAYS, "primary"]
    assert await run.run() is Phase.SUCCEEDED
    assert names(run) == ["primary"]


async def test_several_routes_keep_a_visitor_on_the_same_side() -> None:
    where = "virtualService: {name: shop, routes: [primary, api]}"
    run = Simulation(spec(where=where), put=shop_of_many_routes)
    await run.until(lambda: len(http(run)) == 6)
    told = [cookies(route["route"])[-1] for route in http(run) if route["name"] in ("api", "primary")]
    assert len(set(told)) == 1
    assert await run.run() is Phase.SUCCEEDED


async def test_removing_its_route_is_a_request_to_stop_and_resume_puts_it_back() -> None:
    run = Simulation(spec(), put=shop)
    await until_share(run, 10)
    await run.turn()
    body = copy.deepcopy(run.cluster.objects[ROUTES])
    body["spec"]["http"].pop(0)
    run.cluster.put(VIRTUAL_SERVICES, body)
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "TakenAway"
    assert "another writer has removed spec.http[name=cutover-shift-stays-to-primary] from" in run.status.message
    run.request(RequestVerb.RESUME)
    await run.until(lambda: names(run)[0] == STAYS[0])
    assert await run.run() is Phase.SUCCEEDED
    assert names(run) == ["primary"]


async def test_a_cookie_that_another_writer_changed_is_left_and_the_rest_goes_back() -> None:
    run = Simulation(spec(), put=shop)
    await until_share(run, 10)
    body = copy.deepcopy(run.cluster.objects[ROUTES])
    body["spec"]["http"][-1]["route"][1]["headers"]["response"]["add"]["set-cookie"] = "theirs=1"
    run.cluster.put(VIRTUAL_SERVICES, body)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.reason == "ForeignChange"
    assert names(run) == ["primary"]
    assert share(run) == 0


# --- HTTPRoute --------------------------------------------------------------------------------------------------------

RULE = "httpRoute: {name: shop}"


def rules(run: Simulation) -> list[Any]:
    found: list[Any] = run.cluster.objects[RULES]["spec"]["rules"]
    return found


async def test_rules_of_an_http_route_do_the_same() -> None:
    run = Simulation(spec(where=RULE, after=SOAK), put=shop_with_an_http_route)

    def weights() -> list[int]:
        return [entry["weight"] for entry in rules(run)[-1]["backendRefs"]]

    await run.until(lambda: weights() == [50, 50])
    new, old = rules(run)[1:3]
    uid = run.cluster.objects[run.plan]["metadata"]["uid"][:8]
    for rule, side, host in ((new, "to", "shop-v2"), (old, "from", "shop-v1")):
        ((header,),) = (match["headers"] for match in rule["matches"])
        assert (header["type"], header["name"]) == ("RegularExpression", "cookie")
        assert re.fullmatch(header["value"], f"a=b; visit={uid}-1-shift-{side}; c=d")
        assert [(entry["name"], entry["weight"], entry.get("filters")) for entry in rule["backendRefs"]] == [
            (host, 1, None)
        ]
    sets = [entry["filters"][0]["responseHeaderModifier"]["add"][0] for entry in rules(run)[-1]["backendRefs"]]
    assert [one["name"] for one in sets] == ["Set-Cookie", "Set-Cookie"]
    assert sets[1]["value"].startswith(f"visit={uid}-1-shift-to; Path=/; Max-Age=7200")
    await run.until(lambda: weights() == [0, 100])
    assert len(rules(run)) == 3
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


async def test_a_filter_that_may_stand_there_only_once_gets_one_header_more() -> None:
    theirs = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x", "value": "1"}]}}

    def put(cluster: MemoryCluster) -> None:
        shop_with_an_http_route(cluster)
        body = http_route()
        body["spec"]["rules"][-1]["backendRefs"][1]["filters"] = [theirs]
        cluster.put(HTTP_ROUTES, body)

    run = Simulation(spec(where=RULE), put=put)
    await run.until(lambda: len(rules(run)) > 2)
    (found,) = rules(run)[-1]["backendRefs"][1]["filters"]
    assert [one["name"] for one in found["responseHeaderModifier"]["add"]] == ["x", "Set-Cookie"]
    assert await run.run() is Phase.SUCCEEDED
    assert rules(run)[-1]["backendRefs"][1]["filters"] == [theirs]


async def test_rules_that_lose_to_a_cookie_are_reported() -> None:
    def put(cluster: MemoryCluster) -> None:
        shop_with_an_http_route(cluster)
        body = http_route()
        tenant = {"headers": [{"name": "tenant", "value": "a"}], "queryParams": [{"name": "q", "value": "1"}]}
        other = {"backendRefs": [{"name": "help", "port": 80}]}
        body["spec"]["rules"][:0] = [{"matches": [tenant], **other}, {"matches": [{"method": "GET"}], **other}]
        body["spec"]["rules"].append({"matches": [{"queryParams": [{"name": "q", "value": "2"}]}], **other})
        cluster.put(HTTP_ROUTES, body)

    run = Simulation(spec("dwell: 0s", where=RULE), put=put)
    assert await run.run() is Phase.SUCCEEDED, run.status
    (started,) = (notice for notice in run.recorder.notices if notice.reason == "Started")
    assert [word for word in started.message.split() if word == "loses"] == ["loses"]
    assert "rule / loses requests with header cookie to rule /, because the most specific match wins" in started.message


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda route: route.update(match=[{"headers": {"cookie": {"exact": "a"}}}]),
            "traffic.stickiness: route primary matches header cookie itself, with {'exact': 'a'}; use another header",
        ),
        (
            lambda route: route["route"][0].update(headers={"response": {"set": {"Set-Cookie": "a=b"}}}),
            ("traffic.stickiness: responses of shop-v1 already get a header Set-Cookie there; "
            "let the application set that cookie itself"),
        ),
        (
            lambda route: route.update(headers={"response": {"remove": ["Set-Cookie"]}}),
            "traffic.stickiness: route primary sets or removes header Set-Cookie of all its responses",
        ),
        (
            lambda route: route.update(headers={"response": {"set": {"set-cookie": "a=b"}}}),
            "traffic.stickiness: route primary sets or removes header Set-Cookie of all its responses",
        ),
    ],
)  # fmt: skip
async def test_refused(change: Callable[[Any], None], says: str) -> None:
    run = Simulation(spec(), put=put_with(change))
    assert await run.run() is Phase.REFUSED, run.status
    assert says in run.status.message, run.status.message


@pytest.mark.parametrize("says", [{"remove": ["set-cookie"]}, {"set": [{"name": "Set-Cookie", "value": "a=b"}]}])
async def test_a_rule_that_takes_the_cookie_away_is_refused(says: Any) -> None:
    def put(cluster: MemoryCluster) -> None:
        shop_with_an_http_route(cluster)
        body = http_route()
        answers = {"type": "ResponseHeaderModifier", "responseHeaderModifier": says}
        body["spec"]["rules"][-1]["filters"] = [answers]
        cluster.put(HTTP_ROUTES, body)

    run = Simulation(spec(where=RULE), put=put)
    assert await run.run() is Phase.REFUSED, run.status
    assert "traffic.stickiness: rule / sets or removes header Set-Cookie of all its responses" in run.status.message


async def test_a_route_that_stands_there_already_is_refused() -> None:
    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = virtual_service()
        body["spec"]["http"].insert(0, {"name": STAYS[1], "route": [{"destination": {"host": "x"}}]})
        cluster.put(VIRTUAL_SERVICES, body)

    run = Simulation(spec(), put=put)
    assert await run.run() is Phase.REFUSED, run.status
    assert f"stickiness: VirtualService shop already has a route {STAYS[1]}" in run.status.message


def test_only_http_knows_cookies() -> None:
    with pytest.raises(PlanError, match="only http routes support headers and mirrors"):
        parse(spec(where="virtualService: {name: shop, tcp: [5432]}")["spec"])


@pytest.mark.parametrize(
    ("where", "put", "ref"),
    [("virtualService: {name: shop}", shop, ROUTES), (RULE, shop_with_an_http_route, RULES)],
    ids=["VirtualService", "HTTPRoute"],
)
async def test_argo_cd_is_told_all_that_differs_during_the_run(
    where: str, put: Callable[[MemoryCluster], None], ref: Ref
) -> None:
    """It deletes what these expressions name from what git says and from what is there, one by one, and compares the rest."""
    more = "dwell: 1m\n      mirror: {percent: 5, dwell: 1m}\n      match: [{headers: {canary: {exact: 'true'}, beta: {exact: 'on'}}}]"
    run = Simulation(spec(more, where=where), put=put)
    step = parse(run.cluster.objects[run.plan]["spec"]).steps[1].kind
    assert isinstance(step, Traffic)
    paths = step.fields(step.touches()[0], run.cluster.objects[ref])
    rest = jq.compile(" | ".join(f"del({path})" for path in paths) + " | .spec")
    git, seen = rest.input_value(run.cluster.objects[ref]).first(), 0

    def changed(other: Any, _: Any, after: Any) -> None:
        nonlocal seen
        if other == ref:
            seen += 1
            assert rest.input_value(after).first() == git

    run.cluster.changed = changed
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert seen > 6
