"""One container as a process: started, probed, restarted by policy, ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.api import Api, ApiError
from harness.node_env import ConfigError, environment, expand
from harness.node_probe import Probe
from harness.process import _die_with_parent

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 20.0
"""Seconds between restarts: shorter than the kubelet's 10 s to 5 min, because tests wait for them."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Container:
    """One container of a pod; `tick` is called again and again by the pod's thread."""

    def __init__(self, api: Api, pod: Any, spec: Any, address: str, folder: Path, changed: Callable[[], None]) -> None:
        self._api, self._pod, self.spec, self._address = api, pod, spec, address
        self._folder, self._changed = folder, changed
        self._process: subprocess.Popen[bytes] | None = None
        self._probes: list[Probe] = []
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._pause = _FIRST_PAUSE
        self.ready = False
        self.restarts = 0
        self.state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self.last: dict[str, Any] = {}

    @property
    def status(self) -> dict[str, Any]:
        """As it stands in the pod's status."""
        image = self.spec.get("image", "")
        body = {"name": self.spec["name"], "image": image, "imageID": f"process://{image}", "ready": self.ready}
        return body | {
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
            "started": "running" in self.state,
        }

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """Of a container that has ended and is not started again; None otherwise."""
        terminated = self.state.get("terminated")
        return terminated["exitCode"] if terminated else None

    def tick(self, policy: str) -> None:
        """Start, notice the end, start again."""
        if self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._ended(code, policy)
        elif self.exit_code is None and time.monotonic() >= self._not_before:
            self._start()

    def _start(self) -> None:
        command = [*(self.spec.get("command") or ()), *(self.spec.get("args") or ())]
        if not self.spec.get("command"):
            self._wait("CreateContainerError", "no command: an image means nothing on this node")
            return
        try:
            variables = environment(self._api, self._pod, self.spec, self._address)
        except ConfigError as error:
            self._wait("CreateContainerConfigError", str(error))
            return
        except (ApiError, OSError):
            self._not_before = time.monotonic() + 0.2
            return
        metadata = self._pod["metadata"]
        message = self._folder / f"{self.spec['name']}.termination"
        message.unlink(missing_ok=True)
        variables = {
            "POD_IP": self._address,
            "POD_NAME": metadata["name"],
            "POD_NAMESPACE": metadata["namespace"],
            "CONTAINER_IMAGE": self.spec.get("image", ""),
            "TERMINATION_MESSAGE_PATH": str(message),
            "PATH": os.environ["PATH"],
            **variables,
        }
        # A path of the container is one of this machine here, and so are the programs of its image.
        named = self.spec.get("terminationMessagePath")
        command = [str(message) if part == named else expand(part, variables) for part in command]
        where = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        program = sys.executable if command[0] == "python3" else shutil.which(command[0], path=where)
        if program is None:
            self._wait("RunContainerError", f'exec: "{command[0]}": executable file not found in $PATH')
            return
        with (self._folder / f"{self.spec['name']}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *command[1:]],
                cwd=self.spec.get("workingDir") or self._folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 -- one call of prctl, no locks
            )
        self.state = {"running": {"startedAt": now()}}
        self._start_probes()
        self._changed()

    def _start_probes(self) -> None:
        ports = {port["name"]: port["containerPort"] for port in self.spec.get("ports") or () if "name" in port}
        readiness, liveness = self.spec.get("readinessProbe"), self.spec.get("livenessProbe")
        self.ready = readiness is None
        if readiness is not None:
            self._probes.append(Probe(readiness, ports, self._address, self._set_ready, initially=False))
        if liveness is not None:
            self._probes.append(Probe(liveness, ports, self._address, self._unhealthy, initially=True))

    def _set_ready(self, ready: bool) -> None:  # noqa: FBT001 -- a callback
        self.ready = ready and self.running
        self._changed()

    def _unhealthy(self, good: bool) -> None:  # noqa: FBT001 -- a callback
        if not good and self._process is not None:
            self._process.kill()

    def _wait(self, reason: str, message: str) -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        self._not_before = time.monotonic() + 0.5
        if state != self.state:
            self.state = state
            self._changed()

    def _ended(self, code: int, policy: str) -> None:
        for probe in self._probes:
            probe.stop()
        self._probes, self._process, self.ready = [], None, False
        code = 128 - code if code < 0 else code
        message = self._folder / f"{self.spec['name']}.termination"
        started = self.state.get("running", {}).get("startedAt", now())
        terminated: dict[str, Any] = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": started,
            "finishedAt": now(),
        }
        if message.exists():
            terminated["message"] = message.read_text(errors="replace")[:4096]
        if policy == "Always" or (policy == "OnFailure" and code != 0):
            self.restarts += 1
            self.last = {"terminated": terminated}
            text = f"back-off {self._pause:.0f}s restarting failed container={self.spec['name']}"
            self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
            self._not_before = time.monotonic() + self._pause
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
        else:
            self.state = {"terminated": terminated}
        self._changed()

    def terminate(self) -> None:
        """SIGTERM to the whole group."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with self._lock:
            for probe in self._probes:
                probe.stop()
            self.ready = False
            if self._process is not None and self._process.poll() is None:
                os.killpg(self._process.pid, number)
