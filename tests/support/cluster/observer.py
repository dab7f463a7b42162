"""Sees every change of some kinds of the whole cluster, by one watch per kind: what values there were, and when what was seen."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from harness.api import Api, ApiError
from harness.process import PATIENCE, until

_KINDS = {
    "deployments": "/apis/apps/v1",
    "virtualservices": "/apis/networking.istio.io/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
}
_PLANS = {"migrationplans": "/apis/cutover.dev/v1alpha1"}


class _Watching:
    """One thread per kind, which lists and watches again whenever its stream ends."""

    def __init__(self, api: Api, kinds: dict[str, str]) -> None:
        self._api, self._kinds, self._ending = api, kinds, threading.Event()
        for kind in kinds:
            threading.Thread(target=self._watch, args=(kind,), daemon=True).start()

    def stop(self) -> None:
        self._ending.set()

    def _watch(self, kind: str) -> None:
        version = ""
        while not self._ending.is_set():
            try:
                for event, body in self._api.watch(f"{self._kinds[kind]}/{kind}", seconds=300, version=version):
                    if self._ending.is_set():
                        return
                    version = body["metadata"]["resourceVersion"]
                    self._note(kind, event, body)
            except ApiError:
                version = ""  # the version is too old: all that is there comes again
            except (OSError, HTTPException, ValueError):  # the API server went away, perhaps in the middle of a line
                self._ending.wait(0.2)

    def _note(self, kind: str, event: str, body: Any) -> None:
        raise NotImplementedError


def _weights(entries: Any) -> tuple[int, ...]:
    """Of one route; a destination that stands alone gets all requests, no matter its weight."""
    return (100,) if len(entries) == 1 else tuple(entry.get("weight", 0) for entry in entries)


def _value(kind: str, spec: Any) -> Any:
    if kind == "deployments":
        return spec["replicas"], tuple(part["image"] for part in spec["template"]["spec"]["containers"])
    routes, entries = {"virtualservices": ("http", "route"), "httproutes": ("rules", "backendRefs")}[kind]
    return tuple(_weights(route.get(entries, ())) for route in spec.get(routes, ()))


class Observer(_Watching):
    """The values that the fields had one after the other, each named once for as long as it stood.

    Attributes:
        values: by namespace and object. Of a Deployment (replicas, images), of a VirtualService or an HTTPRoute the weights of its routes.
    """

    def __init__(self, api: Api) -> None:
        self.values: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        self._versions: dict[tuple[str, str], int] = {}
        super().__init__(api, _KINDS)

    def _note(self, kind: str, event: str, body: Any) -> None:
        metadata, spec = body["metadata"], body["spec"]
        namespace, name = metadata["namespace"], f"{kind}/{metadata['name']}"
        if event != "DELETED":
            seen = self.values[namespace][name]
            value = _value(kind, spec)
            if not seen or seen[-1] != value:
                seen.append(value)
        self._versions[namespace, name] = int(metadata["resourceVersion"])

    def history(self, namespace: str) -> dict[str, list[Any]]:
        """All values so far, once everything that is there now has been seen."""
        for kind, root in _KINDS.items():
            for body in self._api.list(f"{root}/namespaces/{namespace}/{kind}"):
                key, version = (
                    (namespace, f"{kind}/{body['metadata']['name']}"),
                    int(body["metadata"]["resourceVersion"]),
                )
                until(f"{key} is seen at {version}", lambda key=key, v=version: self._versions.get(key, 0) >= v)  # type: ignore[misc]
        return {name: list(values) for name, values in self.values[namespace].items()}


Observed = Callable[[str, str, Any], bool]
"""Whether an event (kind, type, object) is the one that is waited for."""


class Witness(_Watching):
    """When which change of a target or a plan could be seen from outside, by the clock of `time.monotonic`."""

    def __init__(self, api: Api) -> None:
        self._events: dict[str, list[tuple[float, str, str, Any]]] = defaultdict(list)
        self._news = threading.Condition()
        super().__init__(api, _KINDS | _PLANS)

    def _note(self, kind: str, event: str, body: Any) -> None:
        with self._news:
            self._events[body["metadata"]["namespace"]].append((time.monotonic(), kind, event, body))
            self._news.notify_all()

    def when(self, namespace: str, what: str, seen: Observed, after: int, deadline: float = 30.0) -> float:
        """The time of the first such event whose object is newer than a resourceVersion. Raises AssertionError at the deadline."""
        found: list[float] = []

        def there() -> bool:
            found.extend(
                at
                for at, kind, event, body in self._events[namespace]
                if int(body["metadata"]["resourceVersion"]) > after and seen(kind, event, body)
            )
            return bool(found)

        with self._news:
            assert self._news.wait_for(there, deadline * PATIENCE), f"{what}: not seen within {deadline:g}s"
        return found[0]
