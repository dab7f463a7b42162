"""One pod of the process node: its containers, its status, and the WorkloadEntry that makes a ready pod routable."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

from harness.api import Api, ApiError
from harness.node_container import Container, now

_DRAIN = 0.3
"""Seconds between being taken out of routing and SIGTERM, so that no request is on its way to a process that ends."""


class Pod:
    """One pod, in a thread of its own.

    Args:
        api: with all rights.
        body: the pod as scheduled.
        address: its loopback address.
        folder: for logs and as working folder.
    """

    def __init__(self, api: Api, body: Any, address: str, folder: Path) -> None:
        self._api, self._body, self._address, self._folder = api, body, address, folder
        self._wake, self._killed = threading.Event(), threading.Event()
        metadata = body["metadata"]
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._entries = f"/apis/networking.istio.io/v1/namespaces/{metadata['namespace']}/workloadentries"
        self._routed = False
        self._reported: dict[str, Any] = {}
        self._started = now()
        self._thread = threading.Thread(target=self._run, name=f"pod {metadata['name']}", daemon=True)

    def start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        spec = self._body["spec"]

        def make(container: Any) -> Container:
            return Container(self._api, self._body, container, self._address, self._folder, self._wake.set)

        self._init = [make(container) for container in spec.get("initContainers") or ()]
        self._containers = [make(container) for container in spec["containers"]]
        self._thread.start()

    def update(self, body: Any) -> None:
        """A newer body: labels may have changed, or it is to be deleted."""
        self._body = body
        self._wake.set()

    def kill(self) -> None:
        """End at once and report nothing: the object is gone, or the machine."""
        self._killed.set()
        self._wake.set()
        for container in (*self._init, *self._containers):
            container.kill()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        policy = self._body["spec"].get("restartPolicy", "Always")
        try:
            for container in self._init:
                if not self._bring_to_end(container, "OnFailure" if policy == "Always" else policy):
                    return
            while not self._killed.is_set() and not self._deleting():
                for container in self._containers:
                    container.tick(policy)
                self._report()
                if all(container.exit_code is not None for container in self._containers):
                    self._await_deletion()
                    break
                self._wake.wait(0.02)
                self._wake.clear()
        finally:
            if not self._killed.is_set():
                self._end()
            self._route(ready=False)

    def _bring_to_end(self, container: Container, policy: str) -> bool:
        """Run one init container to its end; whether the next may start."""
        while not self._killed.is_set() and not self._deleting():
            container.tick(policy)
            self._report()
            if container.exit_code is not None:
                return container.exit_code == 0
            self._wake.wait(0.02)
            self._wake.clear()
        return False

    def _deleting(self) -> bool:
        return "deletionTimestamp" in self._body["metadata"]

    def _await_deletion(self) -> None:
        while not self._killed.is_set() and not self._deleting():
            self._wake.wait()
            self._wake.clear()

    def _end(self) -> None:
        """Out of routing, then SIGTERM, then SIGKILL, then the object goes."""
        if not self._deleting():
            self._await_deletion()
        if self._killed.is_set():
            return
        was_routed = self._routed
        self._route(ready=False)
        if was_routed:
            time.sleep(_DRAIN)
        for container in self._containers:
            container.terminate()
        grace = self._body["metadata"].get("deletionGracePeriodSeconds", 30)
        end = time.monotonic() + grace
        while any(container.running for container in self._containers):
            if time.monotonic() > end:
                for container in self._containers:
                    container.kill()
            for container in self._containers:
                container.tick("Never")
            time.sleep(0.01)
        self._report()
        uid = {"uid": self._body["metadata"]["uid"]}
        with contextlib.suppress(ApiError, OSError, HTTPException):
            self._api.delete(self._path, gracePeriodSeconds=0, preconditions=uid)

    # --- reporting ----------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        ready = all(container.ready for container in self._containers) and not self._deleting()
        if not ready:
            self._route(ready=False)
        status = self._status(ready=ready)
        if status != self._reported:
            try:
                self._api.patch(f"{self._path}/status", {"status": self._dated(status)}, kind="strategic")
                self._reported = status
            except (ApiError, OSError, HTTPException):
                self._wake.set()
        if ready:
            self._route(ready=True)

    def _status(self, *, ready: bool) -> dict[str, Any]:
        codes = [container.exit_code for container in self._containers]
        started = all(container.exit_code == 0 for container in self._init)
        if any(container.exit_code not in (None, 0) for container in self._init):
            phase = "Failed"
        elif all(code is not None for code in codes):
            phase = "Succeeded" if not any(codes) else "Failed"
        else:
            phase = (
                "Running"
                if any("running" in c.state or c.restarts or c.exit_code is not None for c in self._containers)
                else "Pending"
            )
        conditions = {"Initialized": started, "ContainersReady": ready, "Ready": ready}
        return {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [container.status for container in self._containers],
            "initContainerStatuses": [container.status for container in self._init],
        }

    def _dated(self, status: dict[str, Any]) -> dict[str, Any]:
        """With times: a condition keeps its time while it stays as it is."""
        before = self._reported.get("conditions", {})
        conditions = []
        for kind, value in status["conditions"].items():
            entry = {"type": kind, "status": "True" if value else "False"}
            if before.get(kind) is not value:
                entry["lastTransitionTime"] = now()
            conditions.append(entry)
        return {**status, "conditions": conditions, "startTime": self._started, "hostIP": "127.0.0.1"}

    def _route(self, *, ready: bool) -> None:
        """A ready pod can be routed to; taken out before anything else when it is not."""
        if ready == self._routed:
            return
        metadata = self._body["metadata"]
        try:
            if ready:
                self._api.apply(self._entry())
            else:
                self._api.delete(f"{self._entries}/{metadata['name']}")
            self._routed = ready
        except (ApiError, OSError, HTTPException, LookupError):
            if ready:
                self._wake.set()  # Istio's CRDs may come later

    def _entry(self) -> dict[str, Any]:
        metadata = self._body["metadata"]
        ports = {
            port["name"]: port["containerPort"]
            for container in self._body["spec"]["containers"]
            for port in container.get("ports") or ()
            if "name" in port
        }
        owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "ownerReferences": [owner]},
            "spec": {"address": self._address, "labels": metadata.get("labels") or {}, "ports": ports},
        }
