"""What a route of a VirtualService matches, and what it is called. Pure; used by `virtual_services.py`, its warnings and its order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from cutover.field_path import Json, Segment
from cutover.routing.branches import Match

_TEXTS: Final = ("uri", "scheme", "method", "authority")
_TEXTS_BY_NAME: Final = ("headers", "withoutHeaders", "queryParams")


def criteria(match: Match) -> dict[str, Json]:
    """The headers of a match, as a route writes them."""
    return {name: value.model_dump(exclude_none=True) for name, value in match.headers.items()}


def called(protocol: str, route: Json, names: Iterable[str | int]) -> str:
    """Its name in messages: ``primary``, ``(unnamed)``, ``tcp port 5432``, ``tls db.example``."""
    if protocol == "http":
        return route.get("name") or "(unnamed)"
    known = sorted(map(str, names))
    return f"{protocol}{' port' if known and protocol == 'tcp' else ''} {' '.join(known) or '(any)'}"


def names_of(protocol: str, route: Json) -> set[Json]:
    """The names by which a plan may refer to it."""
    if protocol == "http":
        return {route["name"]} if route.get("name") else set()
    return {one for entry in route.get("match") or () for one in _told_by(protocol, entry)}


def _told_by(protocol: Segment, entry: Json) -> list[Json]:
    """The names of one entry of a match: its port (tcp), or its SNI hosts (tls)."""
    if protocol == "tls":
        return list(entry.get("sniHosts") or ())
    return [entry["port"]] if "port" in entry else []


def delegated(outer: Sequence[Json], inner: Sequence[Json]) -> list[Json]:
    """The matches of a delegate's route in a route of its root. None where one of them fits none of the root: Istio leaves the route out."""
    if not outer or not inner:
        return [*(outer or inner or [{}])]
    found = list[Json]()
    for leaf in inner:
        fitting = [_joined(root, leaf) for root in outer if not _contradict(root, leaf)]
        if not fitting:
            return []
        found += fitting
    return found


def _joined(root: Json, leaf: Json) -> Json:
    by_name = {key: {**(root.get(key) or {}), **(leaf.get(key) or {})} for key in (*_TEXTS_BY_NAME, "sourceLabels")}
    return {**root, **leaf, **by_name}


def _contradict(root: Json, leaf: Json) -> bool:
    """As Istio sees it, which does not compare expressions (`hasConflict` in its `virtualservice.go`)."""
    texts = [(root.get(key), leaf.get(key)) for key in _TEXTS]
    named = (
        ((root.get(key) or {}).get(name), text)
        for key in _TEXTS_BY_NAME
        for name, text in (leaf.get(key) or {}).items()
    )
    labels = root.get("sourceLabels") or {}
    return (
        any(_texts_contradict(*pair) for pair in chain(texts, named))
        or bool(root.get("ignoreUriCase")) != bool(leaf.get("ignoreUriCase"))
        or bool(root.get("port") and leaf.get("port") and root["port"] != leaf["port"])
        or bool(root.get("sourceNamespace") and root["sourceNamespace"] != leaf.get("sourceNamespace"))
        or any(labels.get(name, label) != label for name, label in (leaf.get("sourceLabels") or {}).items())
        or bool(root.get("gateways") and not set(leaf.get("gateways") or ()) <= set(root["gateways"]))
    )


def _texts_contradict(root: Json, leaf: Json) -> bool:
    if not root or not leaf:
        return False
    ((how, what),), ((below, text),) = root.items(), leaf.items()
    if "regex" in (how, below):
        return True
    return bool((below, text) != (how, what) if how == "exact" else not text.startswith(what))
