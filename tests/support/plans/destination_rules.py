"""Istio's order of DestinationRules as a table: the rows of docs/routing.md, asked of istiod and of our own code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ROOT = "istio-system"


@dataclass(frozen=True)
class Given:
    """A DestinationRule. NS in a host or a namespace is the namespace of the row, in which its Service `both` is.

    Attributes:
        subsets: by name, with the value of the label `version`; none: it has a traffic policy only.
        later: it is younger than those that are not.
    """

    name: str
    subsets: dict[str, str] = field(default_factory=dict)
    host: str = "both"
    place: str = "NS"
    to: tuple[str, ...] = ()
    selector: dict[str, str] | None = None
    later: bool = False

    def manifest(self, namespace: str) -> dict[str, Any]:
        host, place = self.host.replace("NS", namespace), self.place.replace("NS", namespace)
        spec: dict[str, Any] = {"host": host}
        if self.subsets:
            spec["subsets"] = [{"name": name, "labels": {"version": value}} for name, value in self.subsets.items()]
        else:
            spec["trafficPolicy"] = {"connectionPool": {"tcp": {"maxConnections": 77}}}
        if self.to:
            spec["exportTo"] = [one.replace("NS", namespace) for one in self.to]
        if self.selector is not None:
            spec["workloadSelector"] = {"matchLabels": self.selector}
        name = self.name if place == namespace else f"{self.name}-{namespace}"
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": name, "namespace": place},
            "spec": spec,
        }


Where = tuple[str, dict[str, str]]
"""The namespace of a proxy, and its labels."""
HOME: Where = ("NS", {})
ELSEWHERE: Where = ("elsewhere", {})
AT_ROOT: Where = (ROOT, {})
ALL_HOSTS, FULL = "*.NS.svc.cluster.local", "both.NS.svc.cluster.local"


@dataclass(frozen=True)
class Row:
    """Rules, and the subsets of `both` that each client knows, with the value of the label `version`."""

    what: str
    rules: tuple[Given, ...]
    known: tuple[tuple[Where, dict[str, str]], ...]


ROWS = (
    Row(
        "dr-wildcard", (Given("all", {"old": "v1"}, host=ALL_HOSTS),), ((HOME, {"old": "v1"}), (AT_ROOT, {"old": "v1"}))
    ),
    Row(
        "dr-longest-wildcard",
        (Given("a", {"old": "v1"}, host="*.svc.cluster.local"), Given("b", {"new": "v2"}, host=ALL_HOSTS)),
        ((HOME, {"new": "v2"}),),
    ),
    Row(
        "dr-host-before-wildcard",
        (Given("all", {"old": "v1"}, host=ALL_HOSTS), Given("policy")),
        ((HOME, {}), (ELSEWHERE, {})),
    ),
    Row(
        "dr-oldest",
        (Given("z", {"old": "v1"}), Given("a", {"old": "v2", "new": "v2"}, later=True)),
        ((HOME, {"old": "v1", "new": "v2"}),),
    ),
    Row(
        "dr-merged-by-full-host",
        (Given("short", {"old": "v1"}), Given("full", {"new": "v2"}, host=FULL)),
        ((HOME, {"old": "v1", "new": "v2"}),),
    ),
    Row(
        "dr-other-exports-are-not-merged",
        (Given("z", {"old": "v1"}, to=(".",)), Given("a", {"new": "v2"}, later=True)),
        ((HOME, {"new": "v2"}), (ELSEWHERE, {"new": "v2"})),
    ),
    Row(
        "dr-more-exports-are-merged",
        (Given("z", {"old": "v1"}, to=(".",)), Given("a", {"new": "v2"}, to=(".", "elsewhere"), later=True)),
        ((HOME, {"old": "v1", "new": "v2"}), (ELSEWHERE, {"new": "v2"})),
    ),
    Row(
        "dr-selector",
        (Given("all", {"old": "v1"}), Given("some", {"new": "v2"}, selector={"app": "web"})),
        (
            (HOME, {"old": "v1"}),
            (("NS", {"app": "web"}), {"new": "v2"}),
            (("elsewhere", {"app": "web"}), {"old": "v1"}),
        ),
    ),
    Row(
        "dr-selector-and-private",
        (Given("all", {"old": "v1"}, to=(".",)), Given("some", {"new": "v2"}, selector={"app": "web"})),
        ((HOME, {}), (("NS", {"app": "web"}), {"old": "v1", "new": "v2"})),
    ),
    Row(
        "dr-private", (Given("own", {"old": "v1"}, to=(".",)),), ((HOME, {"old": "v1"}), (ELSEWHERE, {}), (AT_ROOT, {}))
    ),
    Row(
        "dr-exported-to-some",
        (Given("some", {"old": "v1"}, to=("elsewhere",)),),
        ((HOME, {}), (ELSEWHERE, {"old": "v1"}), (AT_ROOT, {})),
    ),
    Row(
        "dr-client-before-service",
        (Given("own", {"old": "v1"}), Given("policy", host=FULL, place="NS-client")),
        ((HOME, {"old": "v1"}), (("NS-client", {}), {}), (ELSEWHERE, {"old": "v1"})),
    ),
    Row(
        "dr-wildcard-of-the-client",
        (Given("own", {"old": "v1"}), Given("policy", host="*.local", place="NS-client")),
        ((HOME, {"old": "v1"}), (("NS-client", {}), {})),
    ),
    Row(
        "dr-root",
        (Given("root", {"old": "v1"}, host=ALL_HOSTS, place=ROOT),),
        ((HOME, {"old": "v1"}), (ELSEWHERE, {"old": "v1"}), (AT_ROOT, {"old": "v1"})),
    ),
    Row(
        "dr-service-before-root",
        (Given("root", {"old": "v1"}, host=FULL, place=ROOT), Given("own", {"new": "v2"}, host=ALL_HOSTS)),
        ((HOME, {"new": "v2"}), (ELSEWHERE, {"new": "v2"}), (AT_ROOT, {"new": "v2"})),
    ),
    Row(
        "dr-private-of-root",
        (Given("root", {"old": "v1"}, host=FULL, place=ROOT, to=(".",)), Given("own", {"new": "v2"})),
        ((HOME, {"new": "v2"}), (AT_ROOT, {"old": "v1"})),
    ),
    Row(
        "dr-a-third-namespace",
        (Given("third", {"old": "v1"}, host=FULL, place="NS-client"),),
        ((HOME, {}), (ELSEWHERE, {}), (("NS-client", {}), {"old": "v1"})),
    ),
)
