"""What a rule of an HTTPRoute matches, and which of two rules takes a request. Pure; used by `http_routes.py` and its warnings."""

from __future__ import annotations

from typing import Final

from cutover.field_path import Json
from cutover.routing.branches import HeaderValue, Match
from cutover.routing.routes import Route

ANY_PATH: Final = {"type": "PathPrefix", "value": "/"}


def as_header(name: str, value: HeaderValue) -> Json:
    """A header of a plan as a rule writes it."""
    if value.regex is not None:
        return {"type": "RegularExpression", "name": name, "value": value.regex}
    return {"type": "Exact", "name": name, "value": value.exact}


def criterion(header: Json) -> tuple[str, str]:
    """How a header or query parameter of a rule is compared, and with what."""
    return header.get("type", "Exact"), header["value"]


def criteria(match: Match) -> dict[str, tuple[str, str]]:
    """The headers of a match of a plan, in comparable form."""
    return {name: criterion(as_header(name, value)) for name, value in match.headers.items()}


def normalized(match: Json) -> dict[str, Json]:
    """A match in comparable form: two that require the same are equal."""
    return {
        "path": {**ANY_PATH, **(match.get("path") or {})},
        "method": match.get("method"),
        "headers": {header["name"].lower(): criterion(header) for header in match.get("headers") or ()},
        "query": {query["name"]: criterion(query) for query in match.get("queryParams") or ()},
    }


def matches_of(route: Route) -> list[dict[str, Json]]:
    """The matches of a rule in comparable form; a rule without any matches all requests."""
    return [normalized(match) for match in route.body.get("matches") or [{}]]


def loses(other: Route, route: Route, match: Match, *, above: bool) -> bool:
    """Whether a header rule made from one rule takes requests from another rule that wins against that rule."""
    added = criteria(match)
    return any(
        _meets(ours, theirs) and _outranks(theirs, plain, above=above) and not _outranks(theirs, ours, above=above)
        for plain in matches_of(route)
        for ours in ({**plain, "headers": {**plain["headers"], **added}},)
        for theirs in matches_of(other)
    )


def _meets(one: Json, other: Json) -> bool:
    """Whether a request can match both; they are only compared where their paths are equal."""
    return (
        one["path"] == other["path"]
        and one["method"] == other["method"]
        and all(
            _alike(one[part].get(name), asked) for part in ("headers", "query") for name, asked in other[part].items()
        )
    )


def _alike(one: tuple[str, str] | None, other: tuple[str, str]) -> bool:
    """Whether one value can match both; an expression may match any value."""
    return one is None or one == other or "RegularExpression" in (one[0], other[0])


def _outranks(one: Json, other: Json, *, above: bool) -> bool:
    """Whether a match wins against another with the same path and method: more headers, more parameters, then the order."""
    ranks = [(len(match["headers"]), len(match["query"])) for match in (one, other)]
    return ranks[0] > ranks[1] or (ranks[0] == ranks[1] and above)


def show_rule(rule: Json) -> str:
    """A rule without a name, as messages show it: by its matches."""
    return ", ".join(show_match(normalized(match)) for match in rule.get("matches") or [{}])


def show_match(match: Json) -> str:
    """A comparable match, as messages show it."""
    parts = [match["method"], match["path"]["value"], *(f"with {name}" for name in match["headers"])]
    return " ".join(part for part in parts if part)
