"""Every value that objects have had, as a watch tells it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from harness.api import Api
from harness.process import until


class ObjectHistory:
    """Every value that a watch has told of some objects; nothing is missed, because a new stream begins where the last ended."""

    def __init__(self, api: Api, path: str, value: Callable[[Any], Any]) -> None:
        self._api, self._path, self._value = api, path, value
        self._told: list[tuple[int, str, Any]] = []
        self._ending = threading.Event()
        self.values, self._version = self._now()
        threading.Thread(target=self._watch, args=(self._version,), daemon=True).start()

    def _now(self) -> tuple[dict[str, Any], int]:
        listed = self._api.get(self._path)
        values = {body["metadata"]["name"]: self._value(body) for body in listed["items"]}
        return values, int(listed["metadata"]["resourceVersion"])

    def _watch(self, version: int) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(OSError, HTTPException):  # a stream that broke off goes on where it was
                for _, body in self._api.watch(self._path, seconds=30, version=str(version)):
                    version = int(body["metadata"]["resourceVersion"])
                    self._told.append((version, body["metadata"]["name"], self._value(body)))

    def begin(self) -> None:
        """Forget what was before."""
        self.values, self._version = self._now()

    def all(self) -> dict[str, list[Any]]:
        """Of each object the value it had at the beginning and every other one after it."""
        last = {
            body["metadata"]["name"]: int(body["metadata"]["resourceVersion"]) for body in self._api.list(self._path)
        }

        def told() -> bool:
            latest = {name: version for version, name, _ in self._told}
            # Or a later one: what is listed may have changed again since.
            return all(latest.get(name, self._version) >= version for name, version in last.items())

        until("the watch has told of it", told)
        found = {name: [value] for name, value in self.values.items()}
        for version, name, value in list(self._told):
            if version > self._version and found[name][-1] != value:
                found[name].append(value)
        return found

    def end(self) -> None:
        self._ending.set()
