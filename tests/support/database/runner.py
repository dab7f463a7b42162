"""Runs the runner on a real database, in this process or in one of its own that a test may kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutover.database.main import run
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result, decode

PLAN = {"namespace": "shop", "name": "checkout", "uid": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}


def script(text: str) -> dict[str, str]:
    return {"text": text}


@dataclass
class Runner:
    """What a Job would be, for one database.

    Attributes:
        url: of the database.
        folder: for payloads and results.
        settings: of the database, beside its name.
    """

    url: str
    folder: Path
    settings: dict[str, Any]
    fence: int = 1
    step: str = "expand"
    attempt: int = 1
    count: int = 0

    def payload(self, direction: str, **kind: Any) -> Path:
        """The file that a Job is handed."""
        document = {
            "plan": PLAN,
            "run": 1,
            "step": kind.pop("step", self.step),
            "attempt": kind.pop("attempt", self.attempt),
            "fence": kind.pop("fence", self.fence),
            "direction": direction,
            "database": {"name": "shop", **self.settings},
            **kind,
        }
        self.count += 1
        file = self.folder / f"payload-{self.count}.json"
        file.write_text(json.dumps(document))
        return file

    def run(self, direction: str, **kind: Any) -> Result:
        """In this process; the result as the operator would read it."""
        result = run(self.payload(direction, **kind), lambda: self.url)
        assert result.reason is not RunnerReason.UNEXPECTED, result
        read = decode(result.encode())
        assert read is not None
        return read

    def start(self, direction: str, **kind: Any) -> Process:
        """In a process of its own."""
        return Process(self.payload(direction, **kind), self.url, self.folder / f"result-{self.count}.json")


class Process:
    """The entry point, as the Job's container runs it."""

    def __init__(self, payload: Path, url: str, result: Path) -> None:
        self._result = result
        command = [
            str(Path(sys.executable).with_name("cutover-database")),
            "--payload",
            str(payload),
            "--result",
            str(result),
        ]
        self.popen = subprocess.Popen(
            command, env={**os.environ, "CUTOVER_DATABASE_URL": url}, stderr=subprocess.PIPE, text=True
        )

    def wait(self) -> tuple[int, Result | None, str]:
        """The exit code, the result, and what it logged."""
        _, log = self.popen.communicate(timeout=240)
        text = self._result.read_text() if self._result.exists() else ""
        return self.popen.returncode, decode(text), log

    def kill(self) -> None:
        """As a node that is lost does."""
        self.popen.kill()
        self.popen.communicate()
