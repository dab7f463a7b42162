"""Watches collections of the API server in threads of its own, and passes on each change with the time it arrived."""

from __future__ import annotations

import threading
import time
from http.client import HTTPException
from queue import Empty, SimpleQueue
from typing import Any

from harness.api import Api, ApiError

LONGEST = 600.0


class Watching:
    """Changes of some collections, in the order in which they arrive.

    Args:
        paths: of the collections.
    """

    def __init__(self, api: Api, *paths: str) -> None:
        self._api = api
        self._changes: SimpleQueue[tuple[float, Any]] = SimpleQueue()
        for path in paths:
            threading.Thread(target=self._watch, args=(path,), daemon=True).start()

    def _watch(self, path: str) -> None:
        version = ""
        while True:
            try:
                for kind, body in self._api.watch(path, seconds=LONGEST, version=version):
                    version = body["metadata"]["resourceVersion"]
                    if kind != "DELETED":
                        self._changes.put((time.time(), body))
            except ApiError:  # the version is too old, for example: the watch starts again with everything that exists
                version = ""
                time.sleep(0.2)
            except (OSError, HTTPException):
                time.sleep(0.2)

    def next(self, timeout: float) -> tuple[float, Any] | None:
        """The time of a change (Unix time) and the object then; None when nothing changes in time."""
        try:
            return self._changes.get(timeout=timeout)
        except Empty:
            return None
