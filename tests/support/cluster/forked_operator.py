"""The operator as a process that starts in a moment: forked from a server that has imported it already.

The same program as the image runs (`cutover-operator`), with the same arguments, environment and signals; only the two seconds
that Python takes to import it are saved: the tests start it some hundred times. Imports as little as it can, because each fork
imports it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["__main__", "cutover.app"])
_PR_SET_PDEATHSIG = 1


def _run(arguments: Sequence[str], env: Mapping[str, str], log: str) -> None:
    """Be the operator."""
    from cutover.app import main  # noqa: PLC0415 -- the server of forks has it already; whoever imports this file need not

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the server of forks ends with the test run ...
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]  # ... unless we keep its end open
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(env)
    sys.argv = ["cutover-operator", *arguments]
    main()


class ForkedOperator:
    """One operator, which may be started many times.

    Args:
        arguments: of the program.
        kubeconfig: whom it talks to, and as whom.
        log: file that gets its output.
        pod: the name of its pod, by which it takes the Lease.
    """

    name = "operator"

    def __init__(self, arguments: Sequence[str], kubeconfig: Path, log: Path, pod: str = "") -> None:
        env = {"KUBECONFIG": str(kubeconfig), **({"POD_NAME": pod} if pod else {})}
        self._arguments = (list(arguments), env, str(log))
        self.log = log
        self._process: ForkServerProcess | None = None

    def start(self) -> None:
        self._process = _CONTEXT.Process(target=_run, args=self._arguments, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode if self._process is not None else None

    def signal(self, number: int) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def restart(self) -> None:
        """SIGKILL, and a new process at once."""
        self.kill()
        self.start()

    def stop(self, grace: float = 5.0) -> None:
        """SIGTERM; after so many seconds SIGKILL."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(grace)
            self.kill()

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])
