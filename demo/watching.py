"""Watches collections of the API server in threads of its own, and hands on each change with the moment it was told."""

from __future__ import annotations

import threading
import time
from http.client import HTTPException
from queue import Empty, SimpleQueue
from typing import Any

from harness.api import Api, ApiError

LONGEST = 600.0


class Watching:
    """What happens to some collections, in the order in which it is told.

    Args:
        paths: of the collections.
    """

    def __init__(self, api: Api, *paths: str) -> None:
        self._api = api
        self._told: SimpleQueue[tuple[float, Any]] = SimpleQueue()
        for path in paths:
            threading.Thread(target=self._watch, args=(path,), daemon=True).start()

    def _watch(self, path: str) -> None:
        version = ""
        while True:
            try:
                for kind, body in self._api.watch(path, seconds=LONGEST, version=version):
                    version = body["metadata"]["resourceVersion"]
                    if kind != "DELETED":
                        self._told.put((time.time(), body))
            except ApiError:  # too old, for example: all that is there is told anew
                version = ""
                time.sleep(0.2)
            except (OSError, HTTPException):
                time.sleep(0.2)

    def next(self, timeout: float) -> tuple[float, Any] | None:
        """When it was told (seconds since 1970) and the object as it is then; None when nothing happens in time."""
        try:
            return self._told.get(timeout=timeout)
        except Empty:
            return None
