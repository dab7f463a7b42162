"""`traffic` with an HTTPRoute of the Gateway API, on a cluster that knows no Istio: weights, header rules, mirrors, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from cutover.errors import Denied
from cutover.ports import DEPLOYMENTS, HTTP_ROUTES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import Crash, MemoryCluster
from support.fakes.shop import RULES, http_route, plan, shop_with_an_http_route
from support.fakes.simulation import Simulation

HEADER = "{headers: {canary: {exact: 'true'}}}"


def spec(
    more: str = "dwell: 0s",
    weights: str = "[10, 50, 100]",
    route: str = "{name: shop}",
    sides: str = "from: {host: shop-v1}, to: {host: shop-v2}",
    after: str = "",
) -> dict[str, Any]:
    return plan(f"""
startDeadline: 0s
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}
  - {{name: shift, traffic: {{httpRoute: {route}, {sides}, weights: {weights}, {more}}}}}{after}
""")


def put_with(change: Callable[[Any], object]) -> Callable[[MemoryCluster], None]:
    """The shop, with an HTTPRoute that was changed."""

    def put(cluster: MemoryCluster) -> None:
        shop_with_an_http_route(cluster)
        body = http_route()
        change(body)
        cluster.put(HTTP_ROUTES, body)

    return put


def rules(run: Simulation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.cluster.objects[RULES]["spec"]["rules"]
    return found


def weights(run: Simulation) -> list[int]:
    return [entry["weight"] for entry in rules(run)[-1]["backendRefs"]]


def edit(run: Simulation, change: Callable[[Any], object]) -> None:
    """What a person does to the HTTPRoute."""
    body = copy.deepcopy(run.cluster.objects[RULES])
    change(body["spec"])
    run.cluster.put(HTTP_ROUTES, body)


def written(run: Simulation) -> list[list[int]]:
    """Every state of the weights, as it comes about."""
    seen = [weights(run)]

    def changed(ref: Any, *_: Any) -> None:
        if ref == RULES and weights(run) != seen[-1]:
            seen.append(weights(run))

    run.cluster.changed = changed
    return seen


async def told(run: Simulation) -> list[str]:
    """What is minded when the run begins."""
    assert await run.run() is Phase.SUCCEEDED, run.status
    (started,) = (notice for notice in run.recorder.notices if notice.reason == "Started")
    return started.message.partition("warnings: ")[2].split("; steps[shift].traffic: ")


# --- weights ----------------------------------------------------------------------------------------------------------


async def test_weights_are_shares_of_what_the_pair_has_and_a_weight_that_is_left_out_is_one() -> None:
    def change(body: Any) -> None:
        first, second = body["spec"]["rules"][-1]["backendRefs"]
        first["weight"], second["weight"] = 750, 250
        body["spec"]["rules"][-1]["backendRefs"] = [{"name": "other", "port": 80}, first, second]

    run = Simulation(spec(weights="[30, 100]"), put=put_with(change))
    seen = written(run)
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert seen == [[1, 750, 250], [1, 700, 300], [1, 0, 1000]]


async def test_what_is_not_a_service_of_the_namespace_is_left_alone() -> None:
    theirs = [
        {"name": "shop-v1", "namespace": "other", "port": 80, "weight": 7},
        {"name": "shop-v2", "group": "inference.networking.k8s.io", "kind": "InferencePool", "weight": 9},
    ]
    run = Simulation(spec(), put=put_with(lambda body: body["spec"]["rules"][-1]["backendRefs"].extend(theirs)))
    seen = written(run)
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert seen[-1] == [0, 100, 7, 9]


async def test_a_rule_is_known_by_what_it_matches_wherever_it_is_moved() -> None:
    run = Simulation(spec("dwell: 1m"), put=shop_with_an_http_route)
    await run.until(lambda: weights(run) == [90, 10])
    edit(run, lambda body: body["rules"].reverse())
    await run.until(lambda: rules(run)[0]["backendRefs"][1]["weight"] == 50)
    edit(run, lambda body: body["rules"].reverse())
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert weights(run) == [0, 100]


async def test_a_rule_with_a_name_is_known_by_it() -> None:
    def change(body: Any) -> None:
        body["spec"]["rules"][-1]["name"] = "primary"
        twin = {"name": "twin", "matches": [{"path": {"value": "/twin"}}]}
        body["spec"]["rules"].insert(0, {**copy.deepcopy(body["spec"]["rules"][-1]), **twin})

    run = Simulation(spec("dwell: 1m", route="{name: shop, rules: [primary]}"), put=put_with(change))
    await run.until(lambda: weights(run) == [90, 10])
    edit(run, lambda body: body["rules"][-1].update(matches=[{"path": {"type": "Exact", "value": "/new"}}]))
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert weights(run) == [0, 100]
    assert [entry["weight"] for entry in rules(run)[0]["backendRefs"]] == [100, 0]


async def test_a_rule_that_matches_something_else_by_now_is_a_foreign_change() -> None:
    run = Simulation(spec("dwell: 1m"), put=shop_with_an_http_route)
    await run.until(lambda: weights(run) == [90, 10])
    edit(run, lambda body: body["rules"][-1].update(matches=[{"path": {"type": "Exact", "value": "/new"}}]))
    await run.until(lambda: run.status.failure is not None)
    assert run.status.failure is not None
    assert run.status.failure.reason == "ForeignChange"
    assert "HTTPRoute shop no longer has spec.rules[matches=" in run.status.failure.message


async def test_replicas_wait_for_the_weight_that_an_http_route_gives() -> None:
    body = spec(weights="[40]")
    body["spec"]["steps"].append({"name": "ok", "approve": {"message": "go"}})
    run = Simulation(body, put=shop_with_an_http_route)
    await run.until(lambda: run.phase is Phase.WAITING)

    def more(cluster: MemoryCluster) -> None:
        theirs = http_route(60, 40)
        theirs["metadata"]["name"] = "more"
        cluster.put(HTTP_ROUTES, theirs)

    more(run.cluster)
    run.request(RequestVerb.ABORT)
    await run.until(lambda: weights(run) == [100, 0])
    for _ in range(5):
        await run.turn()
    current = run.driver._caches._caches[run.plan].status.current
    assert current is not None
    assert "while it has weight 40 from HTTPRoute more (0 before this step)" in current.message
    assert run.cluster.objects[Ref(DEPLOYMENTS, "shop", "shop-v2")]["spec"]["replicas"] == 3


# --- header rules and mirrors -----------------------------------------------------------------------------------------


async def test_the_header_rule_is_a_copy_that_asks_for_both_and_never_has_a_name() -> None:
    def change(body: Any) -> None:
        rule = body["spec"]["rules"][-1]
        rule |= {"name": "primary", "timeouts": {"request": "3s"}}
        tenant = {"name": "X-Tenant", "value": "a"}
        rule["matches"] = [{"path": {"value": "/a"}, "method": "GET", "headers": [tenant]}, {"path": {"value": "/b"}}]

    run = Simulation(spec(f"match: [{HEADER}], dwell: 1m"), put=put_with(change))
    seen = written(run)
    await run.until(lambda: len(rules(run)) > 2)
    header, own = rules(run)[1:]
    exact = {"type": "Exact", "name": "canary", "value": "true"}
    assert header["matches"] == [
        {**own["matches"][0], "headers": [{"type": "Exact", "name": "X-Tenant", "value": "a"}, exact]},
        {**own["matches"][1], "headers": [exact]},
    ]
    assert header["backendRefs"] == [{"group": "", "kind": "Service", "name": "shop-v2", "port": 80, "weight": 1}]
    assert {**header, "matches": 0, "backendRefs": 0, "name": "primary"} == {**own, "matches": 0, "backendRefs": 0}
    assert "name" not in header
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert len(rules(run)) == 2
    assert seen[-1] == [0, 100]


async def test_a_mirror_is_one_more_filter_and_all_of_it_says_no_percent() -> None:
    run = Simulation(spec("mirror: {dwell: 1m}, dwell: 1m"), put=shop_with_an_http_route)
    before = copy.deepcopy(rules(run)[-1]["filters"])
    await run.until(lambda: len(rules(run)[-1]["filters"]) > 1)
    reference = {"group": "", "kind": "Service", "name": "shop-v2", "port": 80}
    assert rules(run)[-1]["filters"] == [
        *before,
        {"type": "RequestMirror", "requestMirror": {"backendRef": reference}},
    ]
    assert weights(run) == [100, 0]
    await run.until(lambda: weights(run) == [90, 10])
    assert rules(run)[-1]["filters"] == before


async def test_a_crash_right_after_the_last_filter_that_there_is_room_for() -> None:
    """The process that takes over finds it there, and must not ask for room for another one."""

    def change(body: Any) -> None:
        more = ({"type": "ExtensionRef", "extensionRef": {"name": str(at)}} for at in range(15))
        body["spec"]["rules"][-1]["filters"] = list(more)

    run = Simulation(spec("mirror: {dwell: 1m}"), put=put_with(change))

    def crash(ref: Ref, *_: Any) -> None:
        if ref == RULES and len(rules(run)[-1]["filters"]) == 16 and not run.crashes:
            raise Crash

    run.cluster.changed = crash
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert run.crashes == 1
    assert len(rules(run)[-1]["filters"]) == 15


# --- what is told, and what is refused --------------------------------------------------------------------------------


async def test_what_the_gateways_say_against_it_is_reported() -> None:
    def change(body: Any) -> None:
        body["status"]["parents"].append({
            "parentRef": {"name": "inner"},
            "conditions": [
                {"type": "Accepted", "status": "True"},
                {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no help"},
            ],
        })  # fmt: skip

    assert await told(Simulation(spec(), put=put_with(change))) == [
        "steps[shift].traffic: Gateway inner says ResolvedRefs=False of HTTPRoute shop: BackendNotFound: no help"
    ]
    (alone,) = await told(Simulation(spec(), put=put_with(lambda body: body["status"].clear())))
    assert "no gateway serves HTTPRoute shop (status.parents is empty)" in alone


async def test_a_gateway_that_serves_a_part_of_it_is_reported_and_what_was_said_of_an_older_spec_is_not() -> None:
    """Who serves a part may go on with what it had, and then no weight that is written moves anything."""

    def change(body: Any) -> None:
        parent = body["status"]["parents"][0]
        part = {"type": "PartiallyInvalid", "status": "True", "reason": "UnsupportedValue", "message": "Dropped Rule 1"}
        parent["conditions"].append({**part, "observedGeneration": 1})
        older = {**part, "type": "Accepted", "status": "False", "observedGeneration": 0}
        body["status"]["parents"].append({"parentRef": {"name": "slow"}, "conditions": [older]})

    assert await told(Simulation(spec(), put=put_with(change))) == [
        "steps[shift].traffic: Gateway gateway says PartiallyInvalid=True of HTTPRoute shop: UnsupportedValue: Dropped Rule 1"
    ]


async def test_sessions_that_stay_where_they_are_are_reported() -> None:
    run = Simulation(spec(), put=put_with(lambda body: body["spec"]["rules"][-1].update(sessionPersistence={})))
    assert await told(run) == [
        (
            "steps[shift].traffic: rule / keeps sessions where they are (sessionPersistence), so its weights apply to new sessions only; "
            "let sessions end before the old version is removed, or remove sessionPersistence"
        )
    ]


def put_beside(change: Callable[[Any], object], **metadata: str) -> Callable[[MemoryCluster], None]:
    """The shop, and another HTTPRoute beside its own, which is of noon."""

    def put(cluster: MemoryCluster) -> None:
        shop_with_an_http_route(cluster)
        own, other = http_route(), http_route()
        own["metadata"]["creationTimestamp"] = "2026-01-01T12:00:00Z"
        other["metadata"] |= {"name": "rival", "creationTimestamp": "2026-01-01T12:00:00Z", **metadata}
        other["spec"]["rules"] = [{"backendRefs": [{"name": "help", "port": 80}]}]
        own["spec"]["parentRefs"][0] |= {"port": 443}
        change(other["spec"])
        cluster.put(HTTP_ROUTES, own)
        cluster.put(HTTP_ROUTES, other)

    return put


TAKES = (
    "steps[shift].traffic: rule / gets no requests, so its weights have no effect: rule / of HTTPRoute rival is tried before it "
    "(the most specific match wins, and of two equal ones that of the older HTTPRoute); "
    "remove it there, or shift the weights of that one"
)


@pytest.mark.parametrize(
    ("change", "metadata", "takes"),
    [
        (lambda _: None, {}, True),  # of two that are as old the alphabet decides
        (lambda _: None, {"name": "zz"}, False),
        (lambda _: None, {"creationTimestamp": "2026-01-01T12:00:01Z"}, False),
        (lambda spec: spec.update(hostnames=["other.example"]), {}, False),
        (lambda spec: spec.update(hostnames=["other.example", "shop.example"]), {}, True),
        (lambda spec: spec.pop("hostnames"), {}, False),  # at a listener without a hostname; with one: test_traffic_winners.py
        (lambda spec: spec.update(parentRefs=[{"name": "inner"}]), {}, False),
        (lambda spec: spec.update(parentRefs=[{"name": "gateway", "namespace": "infra"}]), {}, False),
        (lambda spec: spec.update(parentRefs=[{"name": "gateway", "namespace": "shop", "sectionName": "https"}]), {}, True),
        (lambda spec: spec["parentRefs"][0].update(port=80), {}, False),  # one redirects there, as is usual
        (lambda spec: spec["rules"][0].update(matches=[{"path": {"value": "/else"}}]), {}, False),
    ],
)  # fmt: skip
async def test_an_older_http_route_that_takes_all_of_it_is_refused(
    change: Callable[[Any], object],
    metadata: dict[str, str],
    takes: bool,  # noqa: FBT001 -- a parameter
) -> None:
    run = Simulation(spec(), put=put_beside(change, **metadata))
    if not takes:
        assert await told(run) == [""]
        return
    assert await run.run() is Phase.REFUSED
    assert run.status.message == TAKES


async def test_rules_that_take_from_another_are_reported() -> None:
    def change(body: Any) -> None:
        two = [{"name": "tenant", "value": "a"}, {"name": "canary", "value": "true"}]
        other = {"backendRefs": [{"name": "help", "port": 80}]}
        body["spec"]["rules"][-1]["matches"] = [{}, {"path": {"value": "/x"}}]
        body["spec"]["rules"][:0] = [
            {"matches": [{"path": {"value": "/x"}}], **other},
            {"matches": [{"headers": [two[0]]}], **other},
            {"matches": [{"headers": [{"name": "canary", "value": "no"}], "queryParams": [{"name": "q", "value": "1"}]}], **other},
            {"matches": [{"headers": two}], **other},
        ]  # fmt: skip
        body["spec"]["rules"].append({"matches": [{}], **other})

    run = Simulation(spec("match: [{headers: {canary: {exact: 'true'}, beta: {exact: 'on'}}}]"), put=put_with(change))
    assert await told(run) == [
        (
            "steps[shift].traffic: rule /x loses requests with header canary and beta to rule /, /x, because the most specific match wins; "
            "let rule /x match one more header if it should keep them"
        ),
        (
            "rule / with tenant loses requests with header canary and beta to rule /, /x, because the most specific match wins; "
            "let rule / with tenant match one more header if it should keep them"
        ),
        (
            "rule /, /x gets none for /x of host shop.example: rule /x is tried before it "
            "(the most specific match wins, and of two equal ones the first); move it below, or let it match less than rule /, /x"
        ),
    ]


@pytest.mark.parametrize(
    ("match", "tells"), [("{canary: {exact: 'true'}}", True), ("{canary: {exact: 'true'}, beta: {exact: 'on'}}", False)]
)
async def test_a_header_that_the_rule_asks_for_itself_is_told(match: str, tells: bool) -> None:  # noqa: FBT001 -- a parameter
    theirs = [{"name": "Canary", "value": "true"}, {"name": "tenant", "value": "a"}]
    matches = [{"path": {"value": "/x"}}, {"path": {"value": "/y"}, "headers": theirs}]
    run = Simulation(
        spec(f"match: [{{headers: {match}}}]"),
        put=put_with(lambda body: body["spec"]["rules"][-1].update(matches=matches)),
    )
    sentence = (
        "steps[shift].traffic: rule /x, /y with canary with tenant matches header canary itself, as match does, "
        "so all requests that it takes for that header go to the new version before the first weight; "
        "use another header to let the weights decide"
    )
    assert await told(run) == ([sentence] if tells else [""])


def many(body: Any, count: int, matches: int = 1) -> None:
    for at in range(count):
        found = [{"path": {"value": f"/{at}-{number}"}} for number in range(matches)]
        body["spec"]["rules"].insert(0, {"matches": found, "backendRefs": [{"name": "help", "port": 80}]})


@pytest.mark.parametrize(
    ("change", "more", "route", "says"),
    [
        (
            lambda body: body["spec"]["rules"][-1].update(
                backendRefs=[{"name": "shop-v1", "port": 80}, {"name": "shop-v2", "port": 80, "weight": 0}]
            ),
            "dwell: 0s",
            "{name: shop}",
            ("traffic.weights: shop-v1 and shop-v2 have 1 in total in rule / of HTTPRoute shop, and weight 10 of that would be 0, "
            "which is nothing; give them weights that add up to 100"),
        ),
        (
            lambda body: [entry.update(weight=2) for entry in body["spec"]["rules"][-1]["backendRefs"]],
            "weights: [25, 30]",
            "{name: shop}",
            "have 4 in total in rule / of HTTPRoute shop, and weight 30 of that would be 1, which is as much as weight 25",
        ),
        (
            lambda body: [entry.update(weight=1) for entry in body["spec"]["rules"][-1]["backendRefs"]],
            "weights: [50, 80]",
            "{name: shop}",
            "and weight 80 of that would be 2, which is all of it; give them weights that add up to 100",
        ),
        (
            lambda body: body["spec"]["rules"].append({**copy.deepcopy(body["spec"]["rules"][-1]), "name": "twin"}),
            "dwell: 0s",
            "{name: shop, rules: [shop]}",
            "traffic.httpRoute.rules: HTTPRoute shop has no rule named shop; it has twin",
        ),
        (
            lambda body: body["spec"]["rules"].append(copy.deepcopy(body["spec"]["rules"][-1])),
            "dwell: 0s",
            "{name: shop}",
            ("traffic.httpRoute.rules: HTTPRoute shop has 3 rules (/help, /, /), 2 with both; "
            "name the rules and say which to shift, or create one HTTPRoute per rule"),
        ),
        (
            lambda body: body["spec"]["rules"].append({"backendRefs": [{"name": "help", "port": 80}]}),
            "dwell: 0s",
            "{name: shop}",
            "HTTPRoute shop has another rule that cannot be distinguished from rule /: it has the same name, or no name and the same match; give each a name of its own",
        ),
        (
            lambda body: body["spec"]["rules"][-1]["backendRefs"][1].update(namespace="other"),
            "dwell: 0s",
            "{name: shop, rules: []}",
            "HTTPRoute shop has 2 rules (/help, /), 0 with both",
        ),
        (
            lambda body: body["spec"]["rules"][-1]["backendRefs"].append({"name": "shop-v2", "port": 81}),
            "dwell: 0s",
            "{name: shop}",
            "traffic.to: rule / of HTTPRoute shop has 2 destinations shop-v2; add it with weight 0, or name one that exists",
        ),
        (
            lambda body: body["spec"]["rules"].append(
                {"matches": [{"headers": [{"name": "canary", "value": "true"}]}], "backendRefs": []}
            ),
            f"match: [{HEADER}]",
            "{name: shop}",
            "traffic.match: HTTPRoute shop already has a rule that matches what rule / matches and these headers; remove it",
        ),
        (
            lambda body: body["spec"]["rules"][-1].update(matches=[{"headers": [{"name": "Canary", "value": "no"}]}]),
            f"match: [{HEADER}]",
            "{name: shop}",
            "traffic.match: rule / with canary matches header canary itself, with no; use another header",
        ),
        (lambda body: many(body, 14), f"match: [{HEADER}]", "{name: shop}", "would have 17 rules, and the maximum is 16"),
        (
            lambda body: body["spec"]["rules"][-1].update(matches=[{"path": {"value": f"/{at}"}} for at in range(33)]),
            f"match: [{HEADER}, {{headers: {{beta: {{exact: x}}}}}}]",
            "{name: shop}",
            "would have 66 matches in one rule, and the maximum is 64; split it into two HTTPRoutes",
        ),
        (
            lambda body: many(body, 2, 63),
            f"match: [{HEADER}]",
            "{name: shop}",
            "would have 129 matches in all rules, and the maximum is 128",
        ),
        (
            lambda body: body["spec"]["rules"][-1].update(
                filters=[{"type": "ExtensionRef", "extensionRef": {"name": str(at)}} for at in range(16)]
            ),
            "mirror: {dwell: 1s}",
            "{name: shop}",
            "would have 17 filters in one rule, and the maximum is 16",
        ),
    ],
)  # fmt: skip
async def test_refused(change: Callable[[Any], None], more: str, route: str, says: str) -> None:
    body = spec(more, route=route) if not more.startswith("weights") else spec(route=route)
    if more.startswith("weights"):
        body["spec"]["steps"][1]["traffic"]["weights"] = [int(one) for one in more[10:-1].split(", ")]
    run = Simulation(body, put=put_with(change))
    assert await run.run() is Phase.REFUSED, run.status
    assert says in run.status.message, run.status.message
    assert run.specs() == run.specs_before()


async def test_a_definition_that_drops_the_percent_is_seen_before() -> None:
    """Nobody meant to mirror all of it. The server says so itself, with what it would keep."""
    run = Simulation(spec("mirror: {percent: 5}"), put=shop_with_an_http_route)
    run.cluster.refuse = lambda _, body: [
        one["requestMirror"].pop("percent", None)
        for rule in body["spec"].get("rules", ())
        for one in rule.get("filters", ())
    ]  # type: ignore[assignment]
    assert await run.run() is Phase.REFUSED
    assert run.status.message == (
        "steps[shift].traffic: HTTPRoute shop would not keep all fields that are written to it; "
        "the percent of a mirror needs Gateway API 1.3 or later: install that, or mirror 100 percent"
    )


async def test_what_the_server_says_against_it_is_reported_before() -> None:
    def refuse(ref: Ref, body: Any) -> None:
        if ref == RULES and len(body["spec"]["rules"]) > 2:
            raise Denied("policy no-more-rules says no")

    run = Simulation(spec(f"match: [{HEADER}]"), put=shop_with_an_http_route)
    run.cluster.refuse = refuse
    assert await run.run() is Phase.REFUSED
    says = "steps[shift].traffic: the server refuses weight 10 of HTTPRoute shop: policy no-more-rules says no"
    assert run.status.message == says
    run = Simulation(spec(f"match: [{HEADER}]"), put=shop_with_an_http_route)
    run.cluster.denied.add(("patch", RULES))
    assert await run.run() is Phase.REFUSED
    assert (
        "serviceAccountName: ServiceAccount migrator is not allowed to patch HTTPRoute shop; to grant it, apply:"
        in run.status.message
    )
    assert "steps[shift]" not in run.status.message


async def test_a_cluster_without_the_gateway_api_says_so() -> None:
    run = Simulation(spec(), put=shop_with_an_http_route)
    run.cluster.delete(RULES)
    run.cluster.unknown.add(HTTP_ROUTES)
    assert await run.run() is Phase.REFUSED
    assert run.status.message == (
        "steps[shift].traffic: the cluster has no kind HTTPRoute (gateway.networking.k8s.io/v1); install its CRD"
    )
