"""Starting, watching and stopping one server process. Nothing here knows which server it is. Used by every part of the local cluster."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Protocol, TypeVar

T = TypeVar("T")

PATIENCE = float(os.environ.get("CUTOVER_PATIENCE", "1"))
"""Factor on every deadline of a wait: the long campaigns load the machine to the full, and a deadline is there to give up, not to measure."""
_PR_SET_PDEATHSIG = 1
_LOWEST_PORT = 12_000
_RESERVATIONS = 200
_reservations: deque[IO[str]] = deque()
"""Locks on the last ports that were given out, until this process ends: a server listens long before 200 more are asked for."""


class NotReady(RuntimeError):
    """A server did not become what was waited for; the text has the end of its log."""


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends, so that a killed test run leaves nothing."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Watched(Protocol):
    """A process that somebody waits for: if it ends first, the end of its log tells why."""

    name: str
    log: Path

    @property
    def alive(self) -> bool: ...

    @property
    def exit_code(self) -> int | None: ...

    def tail(self, lines: int = 30) -> str: ...


class Process:
    """One server.

    Args:
        name: for people.
        argv: command and arguments.
        log: file that gets its output.
        env: added to the environment.
        cwd: working folder.
        detached: outlives us, in a session of its own.
        user: who runs it, where it must not be root.
    """

    def __init__(
        self,
        name: str,
        argv: list[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        detached: bool = False,
        user: str | None = None,
    ) -> None:
        self.name, self.argv, self.log, self.detached = name, argv, log, detached
        self._env = {**os.environ, **(env or {})}
        self._cwd, self._user = cwd, user
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                user=self._user,
                preexec_fn=None if self.detached else _die_with_parent,  # noqa: PLW1509 -- one call of prctl, no locks
            )

    @property
    def pid(self) -> int:
        return self._running.pid if self._running else 0

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._running.poll() if self._running else None

    def signal(self, number: int) -> None:
        if self.alive and self._running is not None:
            self._running.send_signal(number)

    def stop(self, grace: float = 5.0) -> None:
        """Ask it to end, then make it."""
        if self._running is None:
            return
        self.signal(signal.SIGTERM)
        try:
            self._running.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                self._running.kill()
            self._running.wait()

    def tail(self, lines: int = 30) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def started_at(pid: int) -> int:
    """When a process began, in ticks since the machine did: with its number it is the only one. 0: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])  # the state is field 3 of the line, the time field 22


def stop_pid(pid: int, started: int, grace: float = 5.0) -> bool:
    """End a process that an earlier command left running, and wait until it is gone.

    Returns:
        False when it had ended. Whoever has its number now is left alone.
    """
    try:
        process = os.pidfd_open(pid)  # stands for this very process, even when another gets its number
    except ProcessLookupError:
        return False
    try:
        if started == 0 or started_at(pid) != started:
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], grace)[0]:
                break
    finally:
        os.close(process)
    return True


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, and that no other process of the harness is given for now.

    A server listens some time after it was told its port. Until then the port must not be taken: not by another cluster that
    starts (each port is reserved by a lock on a file), and not by a connection that goes out (the kernel takes their ports
    from a range of its own, which is left out).
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(_LOWEST_PORT, _first_outgoing_port())  # noqa: S311 -- nobody has to be kept from guessing it
        if (lock := _reserved(port)) is not None:
            _reservations.append(lock)
            if len(_reservations) > _RESERVATIONS:
                _reservations.popleft().close()
            found.append(port)
    return found


def _first_outgoing_port() -> int:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return first if first > 2 * _LOWEST_PORT else 2**16


def _reserved(port: int) -> IO[str] | None:
    """The lock on a port; None when another process has it, or listens there."""
    folder = Path(tempfile.gettempdir()) / f"cutover-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    lock = (folder / str(port)).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
    except OSError:
        lock.close()
        return None
    return lock


def until(what: str, probe: Callable[[], T | None], *, deadline: float = 30.0, process: Watched | None = None) -> T:
    """Ask again and again until there is an answer that is neither None nor False.

    Raises:
        NotReady: the deadline passed or the process ended; with what was waited for, how long, and the end of the log.
    """
    begun = time.monotonic()
    pause, problem = 0.01, ""
    while True:
        try:
            answer = probe()
        except OSError as error:
            answer, problem = None, f"; last error: {error}"
        if answer is not None and answer is not False:
            return answer
        waited = time.monotonic() - begun
        ended = process is not None and not process.alive
        if waited > deadline * PATIENCE or ended:
            why = (
                f"{process.name} ended with code {process.exit_code}"
                if process and ended
                else f"not within {waited:.1f}s"
            )
            log = f"\n--- {process.log}\n{process.tail()}" if process else ""
            raise NotReady(f"{what}: {why}{problem}{log}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
