"""Sees every change of every Deployment and VirtualService of the cluster, by one watch a kind, and keeps what matters of it."""

from __future__ import annotations

import threading
from collections import defaultdict
from http.client import HTTPException
from typing import Any

from harness.api import Api, ApiError
from harness.process import until

_KINDS = {"deployments": "/apis/apps/v1", "virtualservices": "/apis/networking.istio.io/v1"}


class Observer:
    """The values that the fields had one after the other, each named once for as long as it stood.

    Attributes:
        values: by namespace and object. Of a Deployment (replicas, images), of a VirtualService the weights of its routes.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self.values: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        self._versions: dict[tuple[str, str], int] = {}
        self._ending = threading.Event()
        for kind in _KINDS:
            threading.Thread(target=self._watch, args=(kind,), daemon=True).start()

    def stop(self) -> None:
        self._ending.set()

    def _watch(self, kind: str) -> None:
        version = ""
        while not self._ending.is_set():
            try:
                for event, body in self._api.watch(f"{_KINDS[kind]}/{kind}", seconds=300, version=version):
                    if self._ending.is_set():
                        return
                    version = body["metadata"]["resourceVersion"]
                    self._note(kind, event, body)
            except ApiError:
                version = ""  # the version is too old: all that is there comes again
            except (OSError, HTTPException, ValueError):  # the API server went away, perhaps in the middle of a line
                self._ending.wait(0.2)

    def _note(self, kind: str, event: str, body: Any) -> None:
        metadata, spec = body["metadata"], body["spec"]
        namespace, name = metadata["namespace"], f"{kind}/{metadata['name']}"
        if event != "DELETED":
            seen = self.values[namespace][name]
            value: Any
            if kind == "deployments":
                value = (spec["replicas"], tuple(part["image"] for part in spec["template"]["spec"]["containers"]))
            else:
                value = tuple(tuple(entry.get("weight", 0) for entry in route["route"]) for route in spec["http"])
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
