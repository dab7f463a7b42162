"""Simulated pods that really answer, and really go: beside each runs a process, which ends with the pod."""

from __future__ import annotations

import contextlib
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

from harness.api import Api, ApiError
from harness.node import Addresses
from harness.process import Process, until

PORT = 8080


class Pods:
    """Plays the kubelet of the pods of a namespace that have the label `app` and the behaviour never-ready.

    A pod is ready when its process answers and a WorkloadEntry, with the labels of the pod, leads to it. The process is
    killed, with all of its connections, as soon as the pod is to be deleted. KWOK's own address of the pod leads nowhere.

    Args:
        api: with all rights.
        folder: for logs.
    """

    def __init__(self, api: Api, namespace: str, folder: Path) -> None:
        self._api, self._folder = api, folder
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._entries = f"/apis/networking.istio.io/v1/namespaces/{namespace}/workloadentries"
        self._namespace = namespace
        self._addresses = Addresses()
        self._running: dict[str, Process] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        for process in list(self._running.values()):
            process.kill()
        self._addresses.close()

    def _watch(self) -> None:
        """For at most ten minutes, longer than any test."""
        for kind, body in self._api.watch(self._pods, seconds=600):
            if self._over.is_set():
                return
            metadata = body["metadata"]
            going = kind == "DELETED" or "deletionTimestamp" in metadata
            if going and (process := self._running.pop(metadata["name"], None)):
                process.kill()
                self._api.delete(f"{self._entries}/{metadata['name']}")
            elif not going and self._to_be_started(body):
                self._start(metadata["name"], metadata["labels"]["app"])

    def _to_be_started(self, body: Any) -> bool:
        """KWOK has reported it, and will not again."""
        name, labels = body["metadata"]["name"], body["metadata"].get("labels") or {}
        return "app" in labels and "podIP" in body["status"] and _unready(body) and name not in self._running

    def _start(self, name: str, app: str) -> None:
        address = next(self._addresses)
        command = [sys.executable, "-S", str(Path(__file__).with_name("small_server.py")), address, str(PORT), app]
        process = Process(name, command, log=self._folder / f"{name}.log")
        self._running[name] = process
        process.start()
        until(f"{name} answers", lambda: _answers(f"http://{address}:{PORT}"), deadline=90, process=process)
        self._api.apply({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": name, "namespace": self._namespace},
            "spec": {"address": address, "labels": {"app": app}, "ports": {"http": PORT}},
        })  # fmt: skip
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
        with contextlib.suppress(ApiError):  # it may be gone already
            self._api.patch(f"{self._pods}/{name}/status", {"status": {"conditions": ready}}, "strategic")


def _unready(body: Any) -> bool:
    conditions = body["status"].get("conditions") or ()
    return any(entry["type"] == "Ready" and entry["status"] == "False" for entry in conditions)


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
