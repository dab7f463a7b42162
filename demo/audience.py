"""Follows a plan of the demo: records weights and statuses as watches report them, and shows them. Called by __main__.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from figures import Migration, Traffic
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from watching import Watching

from cutover.plan.status_document import read_status
from cutover.report.screen import screen, sentence
from cutover.status.status import ENDED, Status
from harness.process import NotReady, Process


class Audience:
    """Follows plans, with a live screen on a terminal and one line per change elsewhere.

    Args:
        watching: of plans and of VirtualServices.
        deadline: seconds a migration may take; alone on two cores it takes 30.
    """

    def __init__(self, console: Console, watching: Watching, traffic: Traffic, *, deadline: float = 240.0) -> None:
        self._console, self._watching, self._traffic, self._deadline = console, watching, traffic, deadline
        self.wrong_sums: list[int] = []

    def follow(self, plan: dict[str, Any], operator: Process) -> tuple[Migration, Status]:
        """Follow a plan to its end. Raises NotReady when the operator dies or the plan takes too long."""
        name, to = plan["metadata"]["name"], plan["spec"]["steps"][1]["traffic"]["to"]["host"]
        migration = Migration(version=name.rpartition("-")[2], started=time.time())
        status, shown = Status(), ""
        with self._live() as live:
            while status.phase not in ENDED:
                self._check_progress(name, status, operator, time.time() - migration.started)
                change = self._watching.next(timeout=0.2)
                if change is not None and "http" in change[1]["spec"]:
                    migration.saw_weight(self._weight(change[1], to), change[0])
                elif change is not None and change[1]["metadata"]["name"] == name:
                    status = read_status(change[1].get("status"))
                    migration.saw_status(status)
                if live is not None:
                    live.update(Group(screen(name, status), Text(), self._traffic.now()), refresh=True)
                elif status.phase is not None and (line := sentence(status)) != shown:
                    self._console.print(line, highlight=False, markup=False, soft_wrap=True)
                    shown = line
        migration.ended = time.time()
        return migration, status

    def _weight(self, routes: dict[str, Any], to: str) -> int:
        entries = routes["spec"]["http"][0]["route"]
        total = sum(entry.get("weight", 0) for entry in entries)
        if total != 100:
            self.wrong_sums.append(total)
        return next(int(entry.get("weight", 0)) for entry in entries if entry["destination"]["host"] == to)

    def _check_progress(self, name: str, status: Status, operator: Process, taken: float) -> None:
        if not operator.alive:
            why = f"the operator ended with code {operator.exit_code} while {name} was {status.phase or 'not yet seen'}"
        elif taken > self._deadline:
            why = f"{name} has not ended within {self._deadline:g}s; it is {sentence(status)}"
        else:
            return
        raise NotReady(f"{why}\n--- {operator.log}\n{operator.tail()}")

    @contextmanager
    def _live(self) -> Iterator[Live | None]:
        if not self._console.is_terminal:
            yield None
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield live
