"""The process node: plays the kubelet of the node `local`, whose containers are processes of this machine.

Only "image" means something else here: the container's command is run as it is, and gets the image in CONTAINER_IMAGE. The
rest (Deployments, ReplicaSets, Jobs, scheduling, Secrets, routing) is done by the real parts.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from harness.api import Api, ApiError
from harness.node_pod import Pod

NAME: Final = "local"
LABEL: Final = "harness.cutover.dev/processes"


_NETWORKS: Final = range(77, 127)
_CLAIM: Final = 10299
"""A port that is taken on the last address of a network marks the network as in use."""


class Addresses:
    """Loopback addresses for pods, from a network that no other process node of this machine uses.

    Raises:
        OSError: every network is in use.
    """

    def __init__(self) -> None:
        self._claim, network = _claimed_network()
        within = (f"127.{network}.{high}.{low}" for high in range(250) for low in range(1, 251))
        self._all: Iterator[str] = itertools.cycle(within)

    def __next__(self) -> str:
        return next(self._all)

    def close(self) -> None:
        """The network is free for others."""
        self._claim.close()


def _claimed_network() -> tuple[socket.socket, int]:
    for network in _NETWORKS:
        claim = socket.socket()
        try:
            claim.bind((f"127.{network}.255.254", _CLAIM))
        except OSError:
            claim.close()
        else:
            claim.listen()
            return claim, network
    raise OSError(f"all networks 127.{_NETWORKS[0]} to 127.{_NETWORKS[-1]} are in use by process nodes")


def placement() -> dict[str, Any]:
    """What a pod template needs to be run here."""
    toleration = {"key": LABEL, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    return {"nodeSelector": {LABEL: "true"}, "tolerations": [toleration]}


def manifest() -> dict[str, Any]:
    """The Node object."""
    room = {"cpu": "200", "memory": "200Gi", "pods": "1000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NAME, "labels": {LABEL: "true", "kubernetes.io/hostname": NAME}},
        "spec": {"taints": [{"key": LABEL, "value": "true", "effect": "NoSchedule"}]},
        "status": {"capacity": room, "allocatable": room},
    }


class ProcessNode:
    """The kubelet of one node.

    Args:
        api: with all rights.
        folder: for logs and working folders of pods.
    """

    def __init__(self, api: Api, folder: Path) -> None:
        self._api, self._folder = api, folder
        self._pods: dict[str, Pod] = {}
        self._addresses = Addresses()
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="process node", daemon=True)

    def start(self) -> None:
        """Report the node ready, then run what is scheduled to it."""
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "processes can be started"}
        self._api.patch(f"/api/v1/nodes/{NAME}/status", {"status": {"conditions": [ready]}})
        self._watcher.start()

    def stop(self) -> None:
        """Kill everything; nothing is reported, as when a machine is switched off."""
        self._ending.set()
        for pod in list(self._pods.values()):
            pod.kill()
        self._addresses.close()

    def log(self, namespace: str, pod: str, container: str) -> str:
        """What a container wrote."""
        path = self._folder / f"{namespace}_{pod}" / f"{container}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _watch(self) -> None:
        """All pods of this node, until stopped: what is there first, then changes; and again from the start when the watch breaks."""
        while not self._ending.is_set():
            try:
                seen = set()
                listed = self._api.get(f"/api/v1/pods?fieldSelector=spec.nodeName={NAME}")
                for body in listed.get("items") or []:
                    seen.add(body["metadata"]["uid"])
                    self._take(body)
                for uid in [uid for uid in self._pods if uid not in seen]:
                    self._pods.pop(uid).kill()
                version = listed["metadata"]["resourceVersion"]
                for kind, body in self._api.watch(
                    "/api/v1/pods", seconds=60, version=version, fields=f"spec.nodeName={NAME}"
                ):
                    if self._ending.is_set():
                        return
                    if kind == "DELETED":
                        gone = self._pods.pop(body["metadata"]["uid"], None)
                        if gone is not None:
                            gone.kill()
                    else:
                        self._take(body)
            except (ApiError, OSError, HTTPException):
                self._ending.wait(0.2)

    def _take(self, body: Any) -> None:
        uid = body["metadata"]["uid"]
        pod = self._pods.get(uid)
        if pod is not None:
            pod.update(body)
            return
        if body.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        name = f"{body['metadata']['namespace']}_{body['metadata']['name']}"
        pod = Pod(self._api, body, next(self._addresses), self._folder / name)
        self._pods[uid] = pod
        pod.start()
