"""Many shops in one namespace, each with two Services, two Deployments and a VirtualService, and what is seen of them from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from cutover.ports import PLANS
from harness.api import Api
from harness.cluster import Cluster
from harness.process import until
from support.cluster.neighbours import side_by_side
from support.cluster.shop import Shop

WHOLE = 100
"""Percent."""
NEW_IMAGE = "shop:2"
"""Of the pods of a new version."""
STEPS = """
serviceAccountName: migrator
steps:
  - name: deploy
    deploy: {workload: {name: NAME-v2}, images: [{container: app, image: "shop:2"}], replicas: 1}
    gates: [{name: pods, readiness: {percent: 100}}]
  - name: shift
    traffic:
      virtualService: {name: NAME}
      from: {host: NAME-v1}
      to: {host: NAME-v2}
      weights: WEIGHTS
"""


class Crowd:
    """Shops of one namespace.

    Args:
        pods: of each old version.
    """

    def __init__(self, cluster: Cluster, namespace: str, size: int, *, pods: int = 1, prefix: str = "shop") -> None:
        self.cluster, self.namespace, self.pods = cluster, namespace, pods
        self.names = [f"{prefix}-{number}" for number in range(size)]

    @property
    def api(self) -> Api:
        return self.cluster.api

    def make(self, *, without: Iterable[str] = ()) -> None:
        """Put them up and wait for their pods.

        Args:
            without: kinds that are left out.
        """
        left_out = {*without}

        def one(name: str) -> None:
            for manifest in self.manifests(name):
                if manifest["kind"] not in left_out:
                    self.api.apply(manifest)

        side_by_side(one, self.names)

    def manifests(self, name: str) -> list[dict[str, Any]]:
        """Of one shop."""
        own = [one for one in Shop(self.api, self.namespace).manifests(self.pods) if one["kind"] in _OF_A_SHOP]
        text: str = yaml.safe_dump_all(own)
        found = [*yaml.safe_load_all(text.replace("shop-v", f"{name}-v"))]
        for manifest in found:
            if manifest["kind"] == "VirtualService":
                manifest["metadata"]["name"] = name
                manifest["spec"]["hosts"] = [f"{name}.example"]
        return found

    def make_account(self) -> None:
        """The account of all plans, with its rights."""
        for manifest in Shop(self.api, self.namespace).manifests(self.pods):
            if manifest["kind"] not in _OF_A_SHOP:
                self.api.apply(manifest)

    def apply(self, weights: Iterable[int]) -> None:
        """A plan for each shop, all at once."""
        text = STEPS.replace("WEIGHTS", str([*weights]))

        def one(name: str) -> None:
            metadata = {"name": name, "namespace": self.namespace}
            spec = yaml.safe_load(text.replace("NAME", name))
            self.api.apply({"apiVersion": PLANS.api_version, "kind": PLANS.kind, "metadata": metadata, "spec": spec})

        side_by_side(one, self.names)


_OF_A_SHOP = ("Service", "Deployment", "VirtualService")


class Watcher:
    """Sees when the new version of each shop is available, and each weight that it gets.

    Attributes:
        available: when the last pod of a new version was seen to be ready, in seconds.
        weights: of each shop the weights of the new version, and when each was seen.
    """

    def __init__(self, crowd: Crowd) -> None:
        self._api, self._namespace = crowd.api, crowd.namespace
        self._ready: dict[str, float] = {}
        self.weights: dict[str, list[tuple[int, float]]] = {name: [] for name in crowd.names}
        self._ending = threading.Event()
        pods, routes = f"/api/v1/namespaces/{crowd.namespace}/pods", _routes(crowd.namespace)
        for path, note in ((pods, self._note_pod), (routes, self._note_routes)):
            threading.Thread(target=self._watch, args=(path, note), daemon=True).start()
        until("the watcher sees all shops", lambda: all(self.weights.values()), deadline=60)

    def _watch(self, path: str, note: Callable[[Any], None]) -> None:
        for kind, body in self._api.watch(path, seconds=1800):
            if self._ending.is_set():
                return
            if kind != "DELETED":
                note(body)

    def _note_pod(self, body: Any) -> None:
        conditions = body.get("status", {}).get("conditions") or ()
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        if ready and body["spec"]["containers"][0]["image"] == NEW_IMAGE:
            self._ready.setdefault(body["metadata"]["name"], time.time())

    def _note_routes(self, body: Any) -> None:
        seen = self.weights.get(body["metadata"]["name"])
        if seen is None:
            return
        weight = body["spec"]["http"][0]["route"][1].get("weight", 0)
        if not seen or seen[-1][0] != weight:
            seen.append((weight, time.time()))

    @property
    def available(self) -> float:
        return max(self._ready.values())

    def until_over(self, deadline: float) -> None:
        """Until the new version of each has had all the traffic."""

        def over() -> bool:
            return all(any(weight == WHOLE for weight, _ in seen) for seen in self.weights.values())

        until("all the traffic has moved", over, deadline=deadline)
        self._ending.set()

    def written(self) -> list[float]:
        """When each weight was seen, in order, of each shop up to all the traffic. The first one is how it was before."""
        found = []
        for seen in self.weights.values():
            last = next(at for at, (weight, _) in enumerate(seen) if weight == WHOLE)
            found += [at for _, at in seen[1 : last + 1]]
        return sorted(found)


def _routes(namespace: str) -> str:
    return f"/apis/networking.istio.io/v1/namespaces/{namespace}/virtualservices"
