"""What the `traffic` kind puts beside the weights for a while: header routes to the new version, and mirrors to it. Pure.

Both are fields of a VirtualService with the value that they get, so that `targets.py` writes, compares and restores them as
any other field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from cutover.errors import PlanError, Problem
from cutover.fields import ABOVE, ABSENT, Json, Path, find
from cutover.foreign import command
from cutover.model import Duration, Model, validations
from cutover.ports import Ref
from cutover.routes import Pair, routes_of

OWN: Final = "cutover-"
"""How the names of header routes begin."""
HEADER_ROUTES: Final = f'.spec.http[] | select((.name // "") | startswith("{OWN}"))'
"""All header routes, as a jq path."""
MIRROR_FIELDS: Final = (".spec.http[].mirror", ".spec.http[].mirrorPercentage", ".spec.http[].mirrors")
"""All that a mirror may be written to, as jq paths."""
_HEADER: Final = re.compile(r"[a-z0-9]([-a-z0-9_.]{0,126}[a-z0-9])?")
_WAYS: Final = ("exact", "prefix", "regex")
HeaderText = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class HeaderValue(Model):
    """What a header must say: exactly one of the three, as in Istio's StringMatch."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                f"[{', '.join(f'has(self.{way})' for way in _WAYS)}].filter(x, x).size() == 1",
                f"a header is matched by exactly one of {', '.join(_WAYS)}",
            )
        )
    )

    exact: HeaderText | None = Field(default=None, description="The whole value.")
    prefix: HeaderText | None = Field(default=None, description="How the value begins.")
    regex: HeaderText | None = Field(default=None, description="An RE2 expression that the whole value fulfils.")

    @model_validator(mode="after")
    def _one(self) -> HeaderValue:
        given = [way for way in _WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            found = f"it has {' and '.join(given)}; keep one" if given else "it has none; add one"
            raise ValueError(f"a header is matched by exactly one of {', '.join(_WAYS)}, and {found}")
        return self


class Match(Model):
    """Requests that go to the new version before any weight does: those in which all these headers are right."""

    headers: dict[str, HeaderValue] = Field(
        min_length=1, max_length=8, description="Headers by their names, in lower case, and what each must say."
    )

    @field_validator("headers", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if str(name) != str(name).lower():
                raise ValueError(f"Istio knows headers in lower case only; write {str(name).lower()} instead of {name}")
            if not _HEADER.fullmatch(str(name)):
                raise ValueError(f"{name!r} is no name of a header; use lower case letters, digits, -, _ and .")
        return given


class Mirror(Model):
    """A copy of requests goes to the new version as well, and what it answers is thrown away."""

    percent: int = Field(default=100, ge=1, le=100, description="Percent of the requests. Default 100.")
    dwell: Duration = Field(default=timedelta(), description="How long, before the first weight.")


def header_route(pair: Pair, name: str, matches: tuple[Match, ...], place: str) -> tuple[Path, Json]:
    """A route right above the one of a pair that takes the requests with the headers out of what that one takes.

    In all else it is a copy, so retries, timeouts and rewrites hold for these requests too, and what routes further up take
    they still take.

    Raises:
        PlanError: the route asks for something else in one of the headers, or for requests without it, so that nothing
            could be both.
    """
    found, problems = list[Json](), list[Problem]()
    whole: list[Json] = [{}]
    for own in pair.route.body.get("match") or whole:
        for match in matches:
            wanted = {key: value.model_dump(exclude_none=True) for key, value in match.headers.items()}
            there = own.get("headers") or {}
            for key in sorted(wanted.keys() & there.keys()):
                if wanted[key] != there[key]:
                    says = f"route {pair.route} matches header {key} itself, by {there[key]}; name another header"
                    problems.append(Problem(f"{place}.match", says))
            without = own.get("withoutHeaders") or {}
            for key in sorted(wanted.keys() & without.keys()):
                says = (
                    f"route {pair.route} takes requests without header {key} only (withoutHeaders: {without[key]}), "
                    "so none that has it would come to the new version; name another header, or take it out of withoutHeaders"
                )
                problems.append(Problem(f"{place}.match", says))
            found.append({**own, "headers": {**there, **wanted}})
    if problems:
        raise PlanError(*dict.fromkeys(problems))
    *list_of_routes, itself = pair.route.at
    route = {**pair.route.body, "name": name, "match": found, "route": [dict(pair.entry)]}
    return (*list_of_routes, {"name": name, ABOVE: itself}), route


def left_behind(ref: Ref, body: Json, pairs: Iterable[Pair]) -> Iterator[tuple[str, bool]]:
    """What an abandoned plan must have left: header routes, told by their names, and mirrors to the new side.

    Yields:
        A sentence with the command that takes it away, and whether it is a mirror. A step that mirrors itself would take
        that for the user's and bring it back.
    """
    for route in routes_of(body):
        if route.http and str(route).startswith(OWN) and (found := find(body, route.at)):
            says = f"route {route} of {ref} looks like a header route that an abandoned plan has left"
            yield f"{says}; take it away: {command(ref, (found, ABSENT))}", False
    for pair in pairs:
        if ours := [(found, rest) for path, rest in _mirrors_of(pair) if (found := find(body, path))]:
            says = f"route {pair.route} of {ref} mirrors requests to {pair.entry['destination']['host']} already"
            yield f"{says}, as an abandoned plan may have left it; take it away: {command(ref, *ours)}", True


def _mirrors_of(pair: Pair) -> Iterator[tuple[Path, Json]]:
    """The fields of a route that mirror to the new side, and what they are without that."""
    aim, body = pair.entry["destination"], pair.route.body
    if body.get("mirror") == aim:
        yield from (((*pair.route.at, key), ABSENT) for key in ("mirror", "mirrorPercentage") if key in body)
    there = body.get("mirrors") or []
    others = [one for one in there if one.get("destination") != aim]
    if others != there:
        yield (*pair.route.at, "mirrors"), others or ABSENT


def mirror(pair: Pair, percent: int) -> list[tuple[Path, Json]]:
    """The fields of a route that mirror its requests to the new side; mirrors that a list names already stay beside it."""
    aim, share = pair.entry["destination"], {"value": percent}
    if others := pair.route.body.get("mirrors"):
        return [((*pair.route.at, "mirrors"), [*others, {"destination": aim, "percentage": share}])]
    return [((*pair.route.at, "mirror"), aim), ((*pair.route.at, "mirrorPercentage"), share)]
