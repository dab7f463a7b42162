"""The families of errors; everything that is raised across modules is one of them.

PlanError is for the author of the plan, OutsideError for what the API server or another server answered (mapped once, in
`adapters/`), Broken for an invariant of our own that does not hold. No module below `adapters/` sees a library's exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a plan, or one thing it needs that is missing.

    Attributes:
        where: the field as the author wrote it, such as ``steps[shift].traffic.weights``; empty for the whole plan.
        message: one sentence with the value and the way out.
        warning: it does not stop the plan, and is shown when the run begins.
    """

    where: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        """The sentence as people read it."""
        return f"{self.where}: {self.message}" if self.where else self.message


class PlanError(Exception):
    """The author of the plan can fix this. It carries every problem found, never only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class Broken(Exception):
    """An invariant of our own does not hold. The plan stops where it is, the process goes on."""


class OutsideError(Exception):
    """A server did not do what was asked. Nothing is known about the effect unless a subclass says so."""


class Unavailable(OutsideError):
    """No usable answer: connection lost, timeout, 5xx, 429. The request may or may not have taken effect.

    Attributes:
        retry_after: seconds the server asked us to wait; 0.0 when it did not say.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(OutsideError):
    """404: the object, or its whole kind, is not there. Nothing was done."""


class NotInstalled(NotFound):
    """404 because the server has no such kind.

    Attributes:
        versions: in which other versions it serves the kind, as far as it was asked.
    """

    def __init__(self, message: str, versions: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.versions = versions


class Conflict(OutsideError):
    """409: the object is not at the version named by the precondition, or exists already. Nothing was done."""


class Rejected(OutsideError):
    """422 or 400: a test of the patch failed, a path is missing, or the server refuses the object. Nothing was done.

    The code does not tell which (tried on kube-apiserver 1.36): read the object again and compare.
    """


class Denied(OutsideError):
    """401 or 403: the account may not do this, or admission refused it. Nothing was done."""


class Lost(Exception):
    """This process no longer holds the Lease. It ends; the new holder goes on."""


class Superseded(Exception):
    """A higher fence on the target: another process drives this plan. The turn is dropped and everything is read again."""
