"""Probes of a container: http, tcp, exec, counted as the kubelet counts them."""

from __future__ import annotations

import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any


class Probe:
    """One probe, in a thread of its own until it is stopped.

    Args:
        spec: the probe as the pod has it.
        ports: the container's ports by name.
        address: of the pod.
        changed: called with the probe's result, when it differs from the one before.
        initially: the result before the first answer: a liveness probe starts good, a readiness probe bad.
    """

    def __init__(
        self, spec: Any, ports: dict[str, int], address: str, changed: Callable[[bool], None], *, initially: bool
    ) -> None:
        self._spec, self._ports, self._address, self._changed = spec, ports, address, changed
        self._good = initially
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        streak, last = 0, self._good
        pause = self._spec.get("initialDelaySeconds", 0) or 0.02
        while not self._stopped.wait(pause):
            answer = self._ask()
            streak = streak + 1 if answer is last else 1
            last = answer
            needed = self._spec.get("successThreshold", 1) if answer else self._spec.get("failureThreshold", 3)
            if answer is not self._good and streak >= needed and not self._stopped.is_set():
                self._good = answer
                self._changed(answer)
            # The kubelet would wait a whole period from the start; a process is up in milliseconds.
            pause = self._spec.get("periodSeconds", 10) if self._good or (not answer and streak > 20) else 0.05

    def _ask(self) -> bool:
        timeout = self._spec.get("timeoutSeconds", 1)
        try:
            if "httpGet" in self._spec:
                get = self._spec["httpGet"]
                url = f"http://{get.get('host', self._address)}:{self._port(get['port'])}{get.get('path', '/')}"
                with urllib.request.urlopen(url, timeout=timeout) as answer:
                    return bool(200 <= answer.status < 400)
            if "tcpSocket" in self._spec:
                with socket.create_connection((self._address, self._port(self._spec["tcpSocket"]["port"])), timeout):
                    return True
            command = self._spec["exec"]["command"]
            return subprocess.run(command, timeout=timeout, capture_output=True, check=False).returncode == 0
        except (OSError, urllib.error.URLError, subprocess.TimeoutExpired, ValueError):
            return False

    def _port(self, port: int | str) -> int:
        return self._ports[port] if isinstance(port, str) else port
