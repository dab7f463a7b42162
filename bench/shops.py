"""Many shops in as many namespaces, made, migrated and observed side by side."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from cutover.ports import DEPLOYMENTS, PLANS, VIRTUAL_SERVICES
from cutover.status.requests import RequestVerb
from cutover.status.status import ENDED, Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import SHIFT, Shop

T = TypeVar("T")
DEPLOY = """
steps:
  - name: deploy
    deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 1}
    gates: [{name: pods, readiness: {percent: 100}}]
"""
ASK = "  - {name: ok, approve: {message: go}}"


class Shops:
    """Some shops, each with a pod of the old version and a plan to come.

    Attributes:
        ready: when the first weight could have been written, by namespace, in seconds since the epoch: the new version of the shop
            was seen to be available, or its plan was approved.
        weights: (weight of the new version, when it was seen) in their order, by namespace.
    """

    def __init__(self, cluster: Cluster, name: str, size: int) -> None:
        self.cluster, self.names = cluster, [f"{name}-{number}" for number in range(size)]
        self.ready: dict[str, float] = {}
        self.weights: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._phases: dict[str, str] = {}
        self._shops = [Shop(cluster.api, namespace) for namespace in self.names]
        self._ending = threading.Event()

    def make(self) -> None:
        """Put the shops up."""

        def one(shop: Shop) -> None:
            self.cluster.control_plane.make_namespace(shop.namespace)
            for manifest in shop.manifests(pods=1):
                self.cluster.api.apply(manifest)

        side_by_side(one, self._shops)
        until("all shops have a ready pod", lambda: self._ready() >= len(self.names), deadline=300)

    def _ready(self) -> int:
        bodies = self.cluster.api.list("/apis/apps/v1/deployments")
        named = set(self.names)
        return sum(
            body["metadata"]["namespace"] in named
            and body["status"].get("availableReplicas", 0) == body["spec"]["replicas"] == 1
            for body in bodies
        )

    def migrate(self, deadline: float) -> None:
        """Apply all plans at once, and wait until all have succeeded."""
        self._look()
        side_by_side(lambda shop: shop.apply(f"{DEPLOY.rstrip()}{SHIFT}"), self._shops)
        self._until_over(deadline)

    def let_go(self, deadline: float) -> None:
        """Apply all plans, wait until all wait for a person, approve all at once, and wait until all have succeeded."""
        self._look()
        side_by_side(lambda shop: shop.apply(f"{DEPLOY}{ASK}{SHIFT}"), self._shops)
        until(
            "all plans wait",
            lambda: list(self._phases.values()).count(Phase.WAITING) == len(self.names),
            deadline=deadline,
        )
        self.ready.clear()

        def approve(shop: Shop) -> None:
            shop.request(RequestVerb.APPROVE, "ok")
            self.ready[shop.namespace] = time.time()

        side_by_side(approve, self._shops)
        self._until_over(deadline)

    def _look(self) -> None:
        """Begin to observe."""
        for path, note in (
            (DEPLOYMENTS, self._note_deployment),
            (VIRTUAL_SERVICES, self._note_routes),
            (PLANS, self._note_plan),
        ):
            url = f"/apis/{path.group}/{path.version}/{path.plural}"
            threading.Thread(target=self._watch, args=(url, note), daemon=True).start()
        until("the observer watches", lambda: len(self.weights) == len(self.names), deadline=60)

    def _until_over(self, deadline: float) -> None:
        until("all plans have ended", lambda: self._ended() == len(self.names), deadline=deadline)
        until("all weights are seen", lambda: all(seen[-1][0] == 100 for seen in self.weights.values()))  # noqa: PLR2004
        self._ending.set()

    def _ended(self) -> int:
        """How many of the plans have; all of them well."""
        over = [phase for phase in list(self._phases.values()) if phase in ENDED]
        assert set(over) <= {Phase.SUCCEEDED}, f"not all plans went well: {over}"
        return len(over)

    # --- what was seen ------------------------------------------------------------------------------------------------

    def _watch(self, path: str, note: Callable[[str, Any], None]) -> None:
        named = set(self.names)
        for _, body in self.cluster.api.watch(path, seconds=900):
            if self._ending.is_set():
                return
            if body["metadata"]["namespace"] in named:
                note(body["metadata"]["namespace"], body)

    def _note_deployment(self, namespace: str, body: Any) -> None:
        status, spec = body.get("status", {}), body["spec"]
        if body["metadata"]["name"] != "shop-v2" or spec["replicas"] != 1 or namespace in self.ready:
            return
        counts = {status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")}
        if status.get("observedGeneration") == body["metadata"]["generation"] and counts == {1}:
            self.ready[namespace] = time.time()

    def _note_plan(self, namespace: str, body: Any) -> None:
        self._phases[namespace] = body["status"].get("phase", "")

    def _note_routes(self, namespace: str, body: Any) -> None:
        weight, seen = body["spec"]["http"][0]["route"][1].get("weight", 0), self.weights[namespace]
        if not seen or seen[-1][0] != weight:
            seen.append((weight, time.time()))


def side_by_side(act: Callable[[T], object], them: Iterable[T]) -> None:
    """Act on each, in some threads."""
    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(act, one) for one in them]:
            done.result()
