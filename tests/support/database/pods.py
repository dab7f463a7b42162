"""Pods of database Jobs as processes: what stands in the container is run, with what the kubelet would hand it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cutover.testing import MemoryCluster

_MESSAGE = "/dev/termination-log"


class RealPods:
    """The kubelet of a cluster in memory, which runs the containers of its Jobs on this machine.

    Args:
        cluster: the cluster.
        secrets: values by (name, key).
        folder: for termination messages.

    Attributes:
        logs: what the pods have logged.
        messages: their termination messages.
    """

    def __init__(self, cluster: MemoryCluster, secrets: Mapping[tuple[str, str], str], folder: Path) -> None:
        self._secrets, self._file = secrets, folder / "termination"
        self.logs: list[str] = []
        self.messages: list[str] = []
        cluster.exits, cluster.messages = self.run, lambda _: self.messages[-1]

    def run(self, pod: Any) -> int:
        """Run the only container to its end."""
        (container,) = pod["containers"]
        program = Path(sys.executable).with_name(container["command"][0])
        arguments = [str(self._file) if one == _MESSAGE else one for one in container["args"]]
        variables = {one["name"]: self._value(one) for one in container["env"]}
        self._file.unlink(missing_ok=True)
        done = subprocess.run(
            [program, *arguments],
            env={"PATH": os.environ["PATH"], **variables},
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        self.logs.append(done.stderr)
        self.messages.append(self._file.read_text() if self._file.exists() else "")
        return done.returncode

    def _value(self, variable: Any) -> str:
        if "value" in variable:
            return str(variable["value"])
        ref = variable["valueFrom"]["secretKeyRef"]
        return self._secrets[ref["name"], ref["key"]]
