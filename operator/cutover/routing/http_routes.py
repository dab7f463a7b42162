"""The rules of an HTTPRoute of the Gateway API, and the temporary fields beside their weights. Pure.

Its CRD sets defaults (a weight of 1, the path ``/``, the kind Service), so everything that is written here is complete:
otherwise it would differ from what was written when it is read back. A rule's name is never written: older releases have none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import ClassVar, Final

from pydantic import Field

from cutover.errors import PlanError, Problem
from cutover.field_path import ABOVE, ABSENT, Json, Path
from cutover.ports import GATEWAYS, HTTP_ROUTES, Resource
from cutover.routing import http_route_order, http_route_warnings
from cutover.routing.branches import Match
from cutover.routing.http_route_matches import ANY_PATH, as_header, criterion, show_rule
from cutover.routing.order import Place, Surroundings
from cutover.routing.parents import behind, refusals, refused
from cutover.routing.routes import HeaderRoute, Leftover, Pair, Route, WeightedDestination
from cutover.routing.routing import Routing, cookie_set_already, cookies_removed, not_there
from cutover.schema.model import Name

_MAX_RULES, _MAX_MATCHES, _MAX_ALL_MATCHES, _MAX_HEADERS, _MAX_FILTERS = 16, 64, 128, 16, 16
"""Limits of the CRD: rules, matches of a rule, matches of all rules, headers of a match, filters of a rule."""
_SET_COOKIE: Final = "Set-Cookie"
_RESPONSE_FILTER, _RESPONSE_HEADERS = "ResponseHeaderModifier", "responseHeaderModifier"
_REFERENCE: Final = ("group", "kind", "name", "namespace", "port")


class HttpRoute(Routing):
    """An HTTPRoute of the plan's namespace, and the rules to shift; none named: the only one with both destinations."""

    resource: ClassVar[Resource] = HTTP_ROUTES
    field: ClassVar[str] = "httpRoute"
    word: ClassVar[str] = "rule"
    gateways: ClassVar[Resource] = GATEWAYS
    pruned_because: ClassVar[str] = (
        "the percent of a mirror needs Gateway API 1.3 or later: install that, or mirror 100 percent"
    )

    name: Name = Field(description="Name of the HTTPRoute.")
    rules: tuple[Name, ...] = Field(default=(), max_length=16, description="Names of its rules.")

    @classmethod
    def routes_of(cls, body: Json) -> Iterator[Route]:
        """All its rules, in their order; a request goes to the rule with the most specific match."""
        for rule in body["spec"].get("rules") or ():
            name = rule.get("name")
            at: Path = ("spec", "rules", {"name": name} if name else {"matches": rule.get("matches")})
            entries = rule.get("backendRefs") or ()
            destinations = tuple(_destination(at, entry, entries) for entry in entries)
            yield Route(at, rule, name or show_rule(rule), frozenset({name} if name else ()), destinations)

    def duplicate(self) -> str:
        """Which name is listed twice; empty when none is."""
        twice = (name for name in self.rules if self.rules.count(name) > 1)
        name = next(twice, "")
        return f"rule {name} is listed twice in httpRoute.rules; keep one" if name else ""

    def named(self, routes: list[Route], where: str) -> tuple[list[Route], list[Problem]] | None:
        """The named rules, and what is wrong with the names; None when the step names none."""
        if not self.rules:
            return None
        chosen, problems = [], []
        for name in self.rules:
            found = [route for route in routes if name in route.names]
            if len(found) == 1:
                chosen += found
                continue
            known = ", ".join(sorted(str(one) for route in routes for one in route.names)) or "none"
            count = f"{len(found)} rules" if found else "no rule"
            problems.append(
                Problem(f"{where}.rules", f"HTTPRoute {self.name} has {count} named {name}; it has {known}")
            )
        return chosen, problems

    def which(self, routes: Iterable[Route]) -> str:
        """How a plan can say which of these rules to shift; rules have names since Gateway API 1.4."""
        if all(route.names for route in routes):
            return "say which to shift"
        return "name the rules and say which to shift, or create one HTTPRoute per rule"

    def warnings(self, body: Json, chosen: Iterable[Pair], match: tuple[Match, ...]) -> Iterator[str]:
        """Gateways that do not serve it, rules that get no requests, and rules that a header rule takes requests from."""
        return http_route_warnings.warnings(body, list(self.routes_of(body)), chosen, match)

    def places(self, body: Json, around: Surroundings) -> Iterator[Place]:
        """The rules of all HTTPRoutes of a host at a listener, in the order of their gateway."""
        return http_route_order.places(body, self.routes_of, around)

    def refusals(self, body: Json) -> list[str]:
        """What each gateway reports against it, for any generation."""
        return [one.what for one in refusals(body)]

    def refused(self, body: Json, before: Container[str]) -> str:
        """A gateway that refuses it continues with what it had, or serves nothing."""
        return refused(body, before)

    def behind(self, body: Json) -> bool:
        """A gateway reports when it has taken up a generation."""
        return behind(body)

    def fields(self, body: Json, match: tuple[Match, ...], *, mirrors: bool, sticks: bool) -> list[str]:
        """The fields that are written, as jq paths; header rules are identified by the headers that they match."""
        del body
        found = [".spec.rules[].backendRefs[].weight"]
        found += [".spec.rules[].filters"] if mirrors else []
        found += [".spec.rules[].backendRefs[].filters"] if sticks else []
        for headers in [*(one.headers for one in match), *([("cookie",)] if sticks else [])]:
            names = " and ".join(f"index({json.dumps(name)})" for name in headers)
            found.append(f".spec.rules[] | select(any(.matches[]?; [.headers[]?.name] | {names}))")
        return found

    def header_route(self, body: Json, pair: Pair, wanted: HeaderRoute, place: str) -> tuple[Path, Json]:
        """It is identified by its matches, and takes its requests because they are more specific."""
        found, problems = list[Json](), list[Problem]()
        for own in pair.route.body.get("matches") or [{"path": ANY_PATH}]:
            for one in wanted.match:
                joined, clashes = _joined(own, one, pair.route)
                found.append(joined)
                problems += [Problem(place, message) for message in clashes]
        *list_of_rules, itself = pair.route.path
        path = (*list_of_rules, {"matches": found, ABOVE: itself})
        if not problems and not not_there(body, path):
            message = f"HTTPRoute {self.name} already has a rule that matches what rule {pair.route} matches and these headers"
            problems.append(Problem(place, f"{message}; remove it, or match another header"))
        if problems:
            raise PlanError(*dict.fromkeys(problems))
        rule = {key: value for key, value in pair.route.body.items() if key != "name"}
        return path, {**rule, "matches": found, "backendRefs": [{**wanted.destination.entry, "weight": 1}]}

    def cookie(self, route: Route, destination: WeightedDestination, sets: str, place: str) -> tuple[Path, Json]:
        """A filter of the reference, or one more header in the existing filter: only one of them is allowed."""
        if _removes_cookies(route):
            raise PlanError(Problem(place, cookies_removed(self.word, route)))
        filters = list(destination.entry.get("filters") or ())
        at = next((at for at, one in enumerate(filters) if one["type"] == _RESPONSE_FILTER), len(filters))
        existing = filters[at][_RESPONSE_HEADERS] if at < len(filters) else {}
        for way in ("add", "set"):
            if any(header["name"].lower() == _SET_COOKIE.lower() for header in existing.get(way) or ()):
                raise PlanError(Problem(place, cookie_set_already(destination.host)))
        added = [*(existing.get("add") or ()), {"name": _SET_COOKIE, "value": sets}]
        filters[at : at + 1] = [{"type": _RESPONSE_FILTER, _RESPONSE_HEADERS: {**existing, "add": added}}]
        return (*destination.weight_path[:-1], "filters"), filters

    def mirror(self, pair: Pair, percent: int) -> list[tuple[Path, Json]]:
        """One more filter beside the existing ones. Releases before 1.3 have no percent, so 100 percent is written as none."""
        reference = _reference(pair)
        share = {"percent": percent} if percent < 100 else {}  # noqa: PLR2004 -- all of them
        ours = {"type": "RequestMirror", "requestMirror": {"backendRef": reference, **share}}
        return [((*pair.route.path, "filters"), [*(pair.route.body.get("filters") or ()), ours])]

    def leftovers(self, body: Json, chosen: Iterable[Pair]) -> Iterator[Leftover]:
        """Mirrors to the new side; header rules have no names by which they could be recognized."""
        del body
        for pair in chosen:
            there = pair.route.body.get("filters") or []
            others = [one for one in there if (one.get("requestMirror") or {}).get("backendRef") != _reference(pair)]
            if others != there:
                message = f"rule {pair.route} of HTTPRoute {self.name} mirrors requests to {pair.new.host} already"
                fields = (((*pair.route.path, "filters"), others or ABSENT),)
                yield Leftover(f"{message}; an abandoned plan may have left that", fields, mirrors=True)

    def over_limit(self, body: Json, fields: Iterable[tuple[Path, Json]]) -> str:
        """Which limit the temporary fields would exceed; empty when they fit."""
        given = list(fields)
        added = [value for path, value in given if isinstance(path[-1], Mapping)]
        filters = [len(value) for path, value in given if path[-1] == "filters"]
        rules = [*(body["spec"].get("rules") or ()), *added]
        counts = [len(rule.get("matches") or [{}]) for rule in rules]
        headers = [len(match.get("headers") or ()) for rule in added for match in rule["matches"]]
        for what, count, most in (
            ("rules", len(rules), _MAX_RULES),
            ("matches in one rule", max(counts[len(counts) - len(added) :], default=0), _MAX_MATCHES),
            ("matches in all rules", sum(counts), _MAX_ALL_MATCHES),
            ("headers in one match", max(headers, default=0), _MAX_HEADERS),
            ("filters in one rule", max(filters, default=0), _MAX_FILTERS),
        ):
            if count > most:
                return f"HTTPRoute {self.name} would have {count} {what}, and the maximum is {most}; split it into two HTTPRoutes"
        return ""


def _joined(own: Json, match: Match, route: Route) -> tuple[Json, list[str]]:
    """A match of a rule with further headers; messages where it requires another value of the same header."""
    there = {header["name"].lower(): header for header in own.get("headers") or ()}
    asked = {name: as_header(name, value) for name, value in match.headers.items()}
    clashes = [
        f"rule {route} matches header {name} itself, with {there[name]['value']}; use another header"
        for name in sorted(asked.keys() & there.keys())
        if criterion(asked[name]) != criterion(there[name])
    ]
    added = [asked[name] for name in sorted(asked) if name not in there]
    return {**own, "headers": [*there.values(), *added]}, clashes


def _removes_cookies(route: Route) -> bool:
    """Whether a rule sets or removes the Set-Cookie header of all its responses."""
    for whole in (one[_RESPONSE_HEADERS] for one in route.body.get("filters") or () if one["type"] == _RESPONSE_FILTER):
        names = [*(header["name"] for header in whole.get("set") or ()), *(whole.get("remove") or ())]
        if _SET_COOKIE.lower() in {name.lower() for name in names}:
            return True
    return False


def _reference(pair: Pair) -> Json:
    """The new side, as a mirror refers to it."""
    return {key: pair.new.entry[key] for key in _REFERENCE if key in pair.new.entry}


def no_subset(subset: str) -> str:
    """The message for a subset."""
    return f"subset {subset}: Gateway API has no subsets; create one Service per version and use its name as host"


def no_prefix(matches: Iterable[Match]) -> str:
    """The message for a header that is matched by a prefix, which Gateway API cannot; empty when none is."""
    for match in matches:
        for name, value in match.headers.items():
            if value.prefix is not None:
                regex = re.escape(value.prefix).replace("\\-", "-")
                return f"Gateway API cannot match a prefix of header {name}; write regex: '{regex}.*'"
    return ""


def _destination(at: Path, entry: Json, entries: Iterable[Json]) -> WeightedDestination:
    """Its weight belongs to exactly this reference. The port may be absent for anything but a Service, the namespace always."""
    members = {key: entry[key] for key in _REFERENCE if key in entry}
    if sum(members.items() <= other.items() for other in entries) > 1:
        members = {"namespace": None, **members}
    host = ""
    if not entry.get("group") and entry.get("kind", "Service") == "Service":
        namespace = entry.get("namespace")
        host = f"{entry['name']}.{namespace}.svc.cluster.local" if namespace else entry["name"]
    rest = {key: entry[key] for key in entry if key != "weight"}
    return WeightedDestination(
        host, None, entry.get("port"), entry.get("weight", 1), (*at, "backendRefs", members, "weight"), rest
    )
