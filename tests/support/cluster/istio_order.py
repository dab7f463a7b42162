"""Rows of the tables in docs/routing.md, as objects whose routes answer with a name of their own, and who is to answer.

Each row has hosts of its own. Objects are created in two portions, because an age is in whole seconds.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from harness.envoy import SYSTEM

OLDER, NEWER = 0, 1
NAMESPACES: Final = ("order-a", "order-b")
GATEWAY: Final = f"{SYSTEM}/gateway"
"""Serves all hosts; `NAMED` serves those below the name of its row, ``one`` of them by name."""
NAMED: Final = f"{SYSTEM}/order"
ALL: Final[Any] = {}


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        through: ``virtual`` for the gateway of Istio's own API, ``rules`` for that of the Gateway API, ``mesh`` for a sidecar.
        answers: the route that answers.
    """

    through: str
    host: str
    path: str
    answers: str
    headers: dict[str, str] = field(default_factory=dict)


class Order:
    """What a row creates and asks."""

    def __init__(self, row: str) -> None:
        self.domain = f"{row}.order.example"
        self.row, self.asks = row, list[Ask]()
        self.made: tuple[list[Any], list[Any]] = [], []

    def virtual_service(self, age: int, name: str, *routes: Any, hosts: list[str] | None = None, **more: Any) -> None:
        """A VirtualService in a namespace, as ``order-b/name``; its routes answer with its name, or ``name.1`` of several."""
        body = self._body("networking.istio.io/v1", "VirtualService", name)
        spec = {"hosts": [self.domain] if hosts is None else hosts, "gateways": [GATEWAY], **more}
        spec["http"] = [
            {"directResponse": {"status": 200, "body": {"string": _named(name, at, len(routes))}}, **route}
            if "delegate" not in route
            else route
            for at, route in enumerate(routes)
        ]
        self.made[age].append({**body, "spec": {key: value for key, value in spec.items() if value != []}})

    def http_route(self, age: int, name: str, *matches: Any, hosts: list[str] | None = None, to: Any = None) -> None:
        """An HTTPRoute, whose rules answer with a redirect to its name."""
        body = self._body("gateway.networking.k8s.io/v1", "HTTPRoute", name)
        rules = [
            {
                "filters": [
                    {"type": "RequestRedirect", "requestRedirect": {"hostname": _named(name, at, len(matches))}}
                ],
                **({"matches": [match]} if match else {}),
            }
            for at, match in enumerate(matches)
        ]
        parent = {"name": "gateway", "namespace": SYSTEM} if to is None else to
        spec = {"hostnames": [self.domain] if hosts is None else hosts, "parentRefs": [parent], "rules": rules}
        self.made[age].append({**body, "spec": {key: value for key, value in spec.items() if value != []}})

    def service(self, name: str) -> str:
        """A Service without pods; its host."""
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACES[0]}}
        self.made[OLDER].append({**body, "spec": {"ports": [{"name": "http", "port": 80}]}})
        return f"{name}.{NAMESPACES[0]}.svc.cluster.local"

    def ask(self, answers: str, path: str = "/", through: str = "virtual", host: str = "", **headers: str) -> None:
        self.asks.append(Ask(through, host or self.domain, path, answers, headers))

    def _body(self, version: str, kind: str, name: str) -> dict[str, Any]:
        namespace, _, own = name.rpartition("/")
        metadata = {"name": f"{self.row}-{own}", "namespace": namespace or NAMESPACES[0]}
        return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _named(name: str, at: int, of: int) -> str:
    own = name.rpartition("/")[2]
    return own if of == 1 else f"{own}.{at}"


ROWS: Final[dict[str, Callable[[Order], None]]] = {}
"""By the name that the row has in the docs."""


def row(make: Callable[[Order], None]) -> Callable[[Order], None]:
    ROWS[make.__name__.replace("_", "-")] = make
    return make


def prefix(path: str, **more: Any) -> Any:
    return {"match": [{"uri": {"prefix": path}, **more}]}


def regex(expression: str) -> Any:
    return {"match": [{"uri": {"regex": expression}}]}


def rule(path: str, how: str = "PathPrefix", **more: Any) -> Any:
    return {"path": {"type": how, "value": path}, **more}


# --- VirtualServices at a gateway -------------------------------------------------------------------------------------


@row
def vs_in_order(order: Order) -> None:
    """A regular expression that matches all is the end of one VirtualService."""
    order.virtual_service(OLDER, "one", regex(".*"), prefix("/a"))
    order.ask("one.0", "/a")


@row
def vs_older_first(order: Order) -> None:
    order.virtual_service(OLDER, "z", prefix("/a"))
    order.virtual_service(NEWER, "a", prefix("/a/b"))
    order.ask("z", "/a/b")


@row
def vs_all_last(order: Order) -> None:
    """What matches every request is moved to the end; of several of those the older one wins."""
    order.virtual_service(OLDER, "z", ALL)
    order.virtual_service(NEWER, "a", prefix("/a"), ALL)
    order.ask("a.0", "/a/b")
    order.ask("z", "/")


@row
def vs_regex_last(order: Order) -> None:
    order.virtual_service(OLDER, "z", regex(".*"))
    order.virtual_service(NEWER, "a", prefix("/a"), ALL)
    order.ask("a.0", "/a")
    order.ask("z", "/")


@row
def vs_other_regex_stays(order: Order) -> None:
    order.virtual_service(OLDER, "z", ALL)
    order.virtual_service(NEWER, "a", regex("/.*"))
    order.ask("a", "/")


@row
def vs_ties(order: Order) -> None:
    """Of two as old the name decides, then the namespace."""
    order.virtual_service(OLDER, "order-a/b", ALL)
    order.virtual_service(OLDER, "order-b/a", ALL)
    order.ask("a")


@row
def vs_other_namespace(order: Order) -> None:
    order.virtual_service(OLDER, "order-b/z", ALL)
    order.virtual_service(NEWER, "order-a/a", ALL)
    order.ask("z")


@row
def vs_gateways_namespace(order: Order) -> None:
    """That of the gateway has no precedence."""
    order.virtual_service(OLDER, "z", ALL)
    order.virtual_service(NEWER, f"{SYSTEM}/a", ALL)
    order.ask("z")


@row
def vs_exported_to_some(order: Order) -> None:
    """What is exported to the namespace of the proxy by name comes before what is exported to all."""
    order.virtual_service(OLDER, "z", ALL)
    order.virtual_service(NEWER, "a", ALL, exportTo=[SYSTEM])
    order.ask("a")


@row
def vs_exported_to_others(order: Order) -> None:
    order.virtual_service(OLDER, "z", ALL, exportTo=["."])
    order.virtual_service(NEWER, "a", ALL)
    order.ask("a")


@row
def vs_specific_host(order: Order) -> None:
    """At a gateway of all hosts the more specific host has a list of its own."""
    order.virtual_service(OLDER, "z", prefix("/a"), hosts=[f"*.{order.domain}"])
    order.virtual_service(NEWER, "a", ALL, hosts=[f"x.{order.domain}"])
    order.ask("a", "/a", host=f"x.{order.domain}")
    order.ask("z", "/a", host=f"y.{order.domain}")


@row
def vs_host_of_the_gateway(order: Order) -> None:
    """A gateway of one host leaves both the same list."""
    order.virtual_service(OLDER, "z", prefix("/a"), hosts=[f"*.{order.domain}"], gateways=[NAMED])
    order.virtual_service(NEWER, "a", prefix("/a/b"), hosts=[f"one.{order.domain}"], gateways=[NAMED])
    order.ask("z", "/a/b", host=f"one.{order.domain}")
    order.virtual_service(OLDER, "y", ALL, hosts=[f"ONE.{order.domain}"], gateways=[NAMED])
    order.ask("404", "/", host=f"one.{order.domain}")  # such hosts are compared to the letter


@row
def vs_case(order: Order) -> None:
    order.virtual_service(OLDER, "z", ALL, hosts=[order.domain.upper()])
    order.virtual_service(NEWER, "a", ALL)
    order.ask("z")


@row
def vs_spelling(order: Order) -> None:
    """A gateway without a namespace is one of its own; a host without a dot is a Service of its own namespace."""
    order.virtual_service(OLDER, f"{SYSTEM}/z", ALL, gateways=["gateway"])
    order.virtual_service(NEWER, "a", ALL)
    order.ask("z")
    order.virtual_service(OLDER, "y", ALL, hosts=["spelling"])
    order.virtual_service(NEWER, "b", ALL, hosts=["spelling.order-a.svc.cluster.local"])
    order.ask("y", host="spelling.order-a.svc.cluster.local")


@row
def vs_not_sent(order: Order) -> None:
    """A match for another port or gateway is not sent."""
    order.virtual_service(OLDER, "z", prefix("/a", port=1), prefix("/a", gateways=["mesh"]))
    order.virtual_service(NEWER, "a", prefix("/a"))
    order.ask("a", "/a")


@row
def vs_delegate(order: Order) -> None:
    """A delegate has the place and the age of its root, and both matches must fit."""
    below = f"{order.row}-d"
    order.virtual_service(NEWER, "d", prefix("/a/b"), prefix("/c"), ALL, hosts=[], gateways=[])
    order.virtual_service(OLDER, "z", {**prefix("/a"), "delegate": {"name": below}})
    order.virtual_service(NEWER, "a", prefix("/a"), prefix("/c"))
    order.ask("d.0", "/a/b")
    order.ask("d.2", "/a")
    order.ask("a.1", "/c")


@row
def vs_delegate_left_out(order: Order) -> None:
    """A route of a delegate is left out where one of its matches fits none of the root, and no expression fits beside a path."""
    below = f"{order.row}-d"
    both = {"match": [{"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/c"}}]}
    order.virtual_service(NEWER, "d", both, regex("/a.*"), prefix("/a/d"), hosts=[], gateways=[])
    order.virtual_service(OLDER, "z", {**prefix("/a"), "delegate": {"name": below}})
    order.virtual_service(NEWER, "a", prefix("/a"))
    order.ask("a", "/a/b")
    order.ask("d.2", "/a/d")


# --- VirtualServices in the mesh --------------------------------------------------------------------------------------


@row
def mesh_first_has_all(order: Order) -> None:
    """Nothing is merged: what the older one does not match is answered by nobody."""
    host = order.service("mesh-first")
    order.virtual_service(OLDER, "z", prefix("/a"), hosts=["mesh-first"], gateways=["mesh"])
    order.virtual_service(NEWER, "a", ALL, hosts=[host], gateways=["mesh"])
    order.ask("z", "/a/b", "mesh", host)
    order.ask("404", "/", "mesh", host)


@row
def mesh_other_namespace(order: Order) -> None:
    host = order.service("mesh-other")
    order.virtual_service(OLDER, "order-b/z", ALL, hosts=[host], gateways=["mesh"])
    order.virtual_service(NEWER, "a", ALL, hosts=[host], gateways=["mesh"])
    order.ask("z", "/", "mesh", host)


@row
def mesh_exported_to_itself(order: Order) -> None:
    host = order.service("mesh-export")
    order.virtual_service(OLDER, "z", ALL, hosts=[host], gateways=["mesh"])
    order.virtual_service(NEWER, "a", ALL, hosts=[host], gateways=["mesh"], exportTo=["."])
    order.ask("a", "/", "mesh", host)


@row
def mesh_specific_host(order: Order) -> None:
    host = order.service("mesh-specific")
    order.virtual_service(OLDER, "z", ALL, hosts=["*specific.order-a.svc.cluster.local"], gateways=["mesh"])
    order.virtual_service(NEWER, "a", ALL, hosts=[host], gateways=["mesh"])
    order.ask("a", "/", "mesh", host)


# --- HTTPRoutes -------------------------------------------------------------------------------------------------------


@row
def rule_specific_first(order: Order) -> None:
    """Exact paths, then the longest prefix, then expressions; then methods, headers, query parameters."""
    order.http_route(OLDER, "z", rule("/a"), rule("/r.*", "RegularExpression"))
    order.http_route(
        NEWER, "a", rule("/a", "Exact"), rule("/a/b"), rule("/a", method="POST"),
        rule("/a", headers=[{"name": "x", "value": "1"}]), rule("/a", queryParams=[{"name": "q", "value": "1"}]), rule("/"),
    )  # fmt: skip
    order.ask("a.0", "/a", "rules")
    order.ask("a.1", "/a/b/c", "rules")
    order.ask("a.3", "/a/c", "rules", x="1")
    order.ask("a.4", "/a/c?q=1", "rules")
    order.ask("z.0", "/a/c", "rules")
    order.ask("a.5", "/red", "rules")


@row
def rule_older_of_equals(order: Order) -> None:
    order.http_route(OLDER, "z", rule("/a"))
    order.http_route(NEWER, "a", rule("/a"))
    order.ask("z", "/a", "rules")


@row
def rule_ties(order: Order) -> None:
    """Of two as old the namespace decides, then the name."""
    order.http_route(OLDER, "order-a/b", ALL)
    order.http_route(OLDER, "order-b/a", ALL)
    order.ask("b", "/", "rules")


@row
def rule_specific_host(order: Order) -> None:
    """At a listener without a hostname the more specific one has a list of its own."""
    order.http_route(OLDER, "z", rule("/a"), hosts=[f"*.{order.domain}"])
    order.http_route(NEWER, "a", ALL, hosts=[f"x.{order.domain}"])
    order.ask("a", "/a", "rules", f"x.{order.domain}")
    order.ask("z", "/a", "rules", f"y.{order.domain}")


@row
def rule_host_of_the_listener(order: Order) -> None:
    """At one with a hostname, HTTPRoutes of other hostnames that meet there are not sorted together: the older one is tried first."""
    to = {"name": "order", "namespace": SYSTEM, "sectionName": order.row[:20]}
    host = f"one.{order.domain}"
    order.http_route(OLDER, "z", rule("/a"), rule("/"), rule("/c.*", "RegularExpression"), hosts=[], to=to)
    order.http_route(NEWER, "a", rule("/a/b"), rule("/c"), rule("/"), hosts=[host], to=to)
    order.ask("z.0", "/a/b", "rules", host)
    order.ask("a.1", "/c", "rules", host)
    order.ask("z.1", "/", "rules", host)
    order.ask("z.1", "/cd", "rules", host)  # in its own list the expression is below what matches every request


@row
def rule_gateways_namespace(order: Order) -> None:
    """There those of the gateway's own namespace come before all others."""
    to = {"name": "order", "namespace": SYSTEM, "sectionName": order.row[:20]}
    host = f"one.{order.domain}"
    order.http_route(OLDER, "z", rule("/a"), hosts=[host], to=to)
    order.http_route(NEWER, f"{SYSTEM}/a", rule("/a"), hosts=[], to=to)
    order.ask("a", "/a", "rules", host)


@row
def rule_ties_of_hosts(order: Order) -> None:
    """There the name decides between two as old, then the namespace."""
    to = {"name": "order", "namespace": SYSTEM, "sectionName": order.row[:20]}
    host = f"one.{order.domain}"
    order.http_route(OLDER, "order-a/b", rule("/a"), hosts=[host], to=to)
    order.http_route(OLDER, "order-b/a", rule("/a"), hosts=[], to=to)
    order.ask("a", "/a", "rules", host)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirect)


def answer(url: str, ask: Ask) -> str:
    """Which route answers; a code where none does."""
    request = urllib.request.Request(f"{url}{ask.path}", headers={"host": ask.host, **ask.headers})
    try:
        with _OPENER.open(request, timeout=5) as got:
            text: str = got.read().decode()
            return text
    except urllib.error.HTTPError as error:
        there = error.headers.get("location", "")
        return there.removeprefix("http://").partition("/")[0].partition(":")[0] or str(error.code)
