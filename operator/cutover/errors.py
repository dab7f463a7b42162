"""The three families of errors; everything that is raised across modules is one of them.

PlanError is for the person who wrote the plan, OutsideError for what the cluster or a server answered (mapped once, in
`adapters/`), Broken for a rule of our own that did not hold. No module below `adapters/` sees a foreign exception.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a plan, or one thing it needs and does not find.

    Attributes:
        where: the place as the author wrote it, such as ``steps[shift].traffic.weights``; empty for the whole plan.
        message: one clear sentence with the value and the way out.
        warning: it stands in nobody's way, and is told when the run begins.
    """

    where: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        """The sentence as people read it."""
        return f"{self.where}: {self.message}" if self.where else self.message


class PlanError(Exception):
    """The author of the plan can mend this; it carries every problem found, never only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class Broken(Exception):
    """A rule of our own did not hold. The plan stops where it is, the process goes on."""


class OutsideError(Exception):
    """The outside did not do what was asked. Nothing is known about the effect unless a subclass says so."""


class Unavailable(OutsideError):
    """No usable answer: connection lost, time out, 5xx, 429. The request may or may not have taken effect.

    Attributes:
        retry_after: seconds the server asked us to wait; 0.0 when it did not say.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(OutsideError):
    """404: the object, or its whole kind, is not there. Nothing was done."""


class NotInstalled(NotFound):
    """404 of no object: the server knows no such kind."""


class Conflict(OutsideError):
    """409: the object is not at the version named by the precondition, or exists already. Nothing was done."""


class Rejected(OutsideError):
    """422 or 400: a test of the patch failed, a path is missing, or the server refuses the object. Nothing was done.

    These cannot be told apart by the code (tried on kube-apiserver 1.36): read the object again and compare.
    """


class Denied(OutsideError):
    """401 or 403: the account may not do this, or admission refused it. Nothing was done."""


class Lost(Exception):
    """The Lease is not ours any more. The process ends; whoever holds it goes on."""


class Superseded(Exception):
    """A higher fence stands on the target: another process has this plan. The turn is dropped and all is read again."""
