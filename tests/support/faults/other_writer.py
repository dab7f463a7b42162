"""Another writer on the shop's objects: a person with kubectl, or a controller such as Argo CD. For the tests of foreign changes."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cutover.ports import FENCE_LABEL, PLAN_LABEL
from cutover.status.requests import RequestVerb
from harness.api import ApiError
from support.cluster.shop import Shop

NAME = "somebody"
ARGO = "argocd-controller"


class OtherWriter:
    """ObjectHistory things under its own name as a field manager, and remembers when.

    Attributes:
        at: when the last change was begun, by `time.monotonic`.
        version: the last resourceVersion before the change.
        what: kind and name of the object that was changed.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop, self.api = shop, shop.api
        self.at, self.version, self.what = 0.0, 0, ("", "")

    # --- one change -----------------------------------------------------------------------------------------------------

    def _do(self, path: str, act: Callable[[], Any]) -> None:
        _, kind, name = path.rsplit("/", 2)
        self.what, self.at = (kind, name), time.monotonic()
        answer = act()
        if answer is not None:
            self.version = int(answer["metadata"]["resourceVersion"]) - 1

    def _patch(self, path: str, patch: Any, kind: str) -> None:
        self._do(path, lambda: self.api.patch(path, patch, kind, NAME))

    def routes(self, change: Callable[[list[Any]], Any]) -> None:
        """Change the http routes of the VirtualService."""
        http = self.api.get(self.shop.routes)["spec"]["http"]
        self._patch(self.shop.routes, [{"op": "replace", "path": "/spec/http", "value": change(http) or http}], "json")

    def weights(self, old: int, new: int) -> None:
        """Set the weights of both versions, wherever they stand."""

        def change(http: list[Any]) -> None:
            for route in http:
                for entry in route.get("route", ()):
                    if route.get("name") == "primary":
                        entry["weight"] = new if entry["destination"]["host"] == "shop-v2" else old

        self.routes(change)

    def image(self, image: str, name: str = "shop-v2") -> None:
        """`kubectl set image`."""
        template = {"spec": {"containers": [{"name": "app", "image": image}]}}
        self._patch(f"{self.shop.deployments}/{name}", {"spec": {"template": template}}, "strategic")

    def scale(self, replicas: int, name: str = "shop-v2") -> None:
        """`kubectl scale`."""
        self._patch(f"{self.shop.deployments}/{name}", {"spec": {"replicas": replicas}}, "merge")

    def take_labels(self, path: str, **spec: Any) -> None:
        """Take our labels off, and change fields of the spec in the same write."""
        labels = dict.fromkeys((PLAN_LABEL, FENCE_LABEL))
        self._patch(path, {"metadata": {"labels": labels}} | ({"spec": spec} if spec else {}), "merge")

    def delete(self, path: str) -> None:
        """`kubectl delete`."""
        self.version = int(self.api.get(path)["metadata"]["resourceVersion"])
        self._do(path, lambda: self.api.delete(path))

    def ask(self, verb: RequestVerb) -> None:
        """No other writer, but a person with a request; what follows is measured from here."""
        path = f"{self.shop.plans}/plan"
        self.version = int(self.api.get(path)["metadata"]["resourceVersion"])
        self._do(path, lambda: self.shop.request(verb))

    # --- again and again ------------------------------------------------------------------------------------------------

    def manifest(self, kind: str, name: str) -> dict[str, Any]:
        """One object of the shop as it is in git."""
        return next(
            copy.deepcopy(body)
            for body in self.shop.manifests(2)
            if (body["kind"], body["metadata"]["name"]) == (kind, name)
        )

    def apply(self, kind: str, name: str) -> None:
        """`kubectl apply --server-side --force-conflicts`, as Argo CD does it."""
        body = self.manifest(kind, name)
        self._do(self.api.path(body), lambda: self.api.apply(body, ARGO))

    def replace(self, kind: str, name: str) -> None:
        """`kubectl replace`: our labels are not in it."""
        body = self.manifest(kind, name)
        path = self.api.path(body)

        def act() -> Any:
            while True:
                body["metadata"]["resourceVersion"] = self.api.get(path)["metadata"]["resourceVersion"]
                try:
                    return self.api.request("PUT", f"{path}?fieldManager={ARGO}", body)
                except ApiError as error:
                    if error.status != 409:
                        raise

        self._do(path, act)

    @contextmanager
    def healing(self, how: str, *what: tuple[str, str]) -> Iterator[None]:
        """Write these objects as git has them, by `apply` or `replace`, now and then every second until the end of the block."""
        healer, ending, failed = OtherWriter(self.shop), threading.Event(), list[ApiError]()

        def heal(who: OtherWriter) -> None:
            for kind, name in what:
                getattr(who, how)(kind, name)

        def work() -> None:
            try:
                while not ending.wait(1):
                    heal(healer)
            except ApiError as error:
                failed.append(error)

        heal(self)
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()
        assert failed == []
