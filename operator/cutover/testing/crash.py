"""The crash switch of the in-memory ports: kills the caller at the n-th call, before or after its effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cutover.errors import Unavailable


class Crash(BaseException):
    """The process died here."""


@dataclass
class CrashSwitch:
    """Kills the caller at the n-th call, or loses its answer.

    Attributes:
        at: the call to die at, counted from 1; 0 for none.
        after: die after the effect instead of before it.
        calls: calls so far.
        lost: the answer is lost, and the caller lives.
    """

    at: int = 0
    after: bool = False
    calls: int = 0
    lost: bool = False

    def around(self, effect: Callable[[], Any]) -> Any:
        """Count one call, and die if it is the one."""
        self.calls += 1
        hit = self.calls == self.at
        if hit and not self.after:
            raise self._error()
        try:
            return effect()
        finally:
            if hit:
                raise self._error()

    def _error(self) -> BaseException:
        return Unavailable("no answer") if self.lost else Crash()
