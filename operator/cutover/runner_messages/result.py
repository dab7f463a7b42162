"""What the runner leaves at its end: the termination message of its container, and the sentence that people read. Pure.

Both sides use this module: the runner encodes, the operator decodes and takes nothing that it does not know. A message may come
from an image that is not ours, so a text is taken only where an identifier is expected, and only with the characters of one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.locks import Effort, Lock
from cutover.runner_messages.reasons import RunnerReason

Word = TypeVar("Word", bound=StrEnum)
LONGEST: Final = 2048
"""Bytes of a termination message; Kubernetes keeps 4096 of a container, and 12 KiB of all in a pod."""
_NAME: Final = 128
_LARGEST: Final = 2**53
_CODE: Final = re.compile(r"[0-9A-Z]{5}")
_UNSHOWN: Final = re.compile(r"[^\w .,:/@+\[\]-]")


def identifier(value: object) -> str:
    """A name as it may be shown: letters, digits and a few signs, at most 128 of them. Of anything else: empty."""
    return _UNSHOWN.sub("?", value)[:_NAME] if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that has the lock that was waited for."""

    pid: int = 0
    application: str = ""
    age_seconds: float = 0.0
    state: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One hazard of a script: what, in which statement (from 1), at which line, of which table, and what that locks and does."""

    hazard: str = ""
    statement: int = 0
    line: int = 0
    table: str = ""
    lock: Lock = Lock.NONE
    effort: Effort = Effort.NONE


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query of a `validate` step came to. `before`: the failures of the step that it is compared with."""

    name: str = ""
    passed: bool = False
    failures: int = 0
    before: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Also:
    """One more thing that is wrong, found in the same look: see `Result`."""

    reason: str = ""
    field: str = ""
    statement: int = 0
    line: int = 0
    name: str = ""
    needs: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """How the run ended.

    Attributes:
        reason: why.
        field: of the payload, such as `schema.up`; empty where none is to blame.
        statement: of the script, from 1; 0 where none is to blame.
        line: in the script, from 1.
        sqlstate: the code of the server's error.
        names: tables, columns, constraints and roles that it is about.
        needs: what must be granted, such as `CREATE ON DATABASE`.
        number: how many rows failed, or which version was found.
        rows: that were changed.
        batches: transactions that changed them.
        seconds: the whole took.
        lock_waits: how many times a lock was not to be had in time.
        findings: hazards that the plan does not allow, for this reason or for one of `also`.
        blockers: who had the lock.
        answers: of the queries.
        also: what else is wrong.
        more: entries of the lists that were left out for want of room.
    """

    reason: RunnerReason
    field: str = ""
    statement: int = 0
    line: int = 0
    sqlstate: str = ""
    names: tuple[str, ...] = ()
    needs: str = ""
    number: int = 0
    rows: int = 0
    batches: int = 0
    seconds: float = 0.0
    lock_waits: int = 0
    findings: tuple[Finding, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    answers: tuple[Answer, ...] = ()
    also: tuple[Also, ...] = ()
    more: int = 0

    @classmethod
    def of_all(cls, results: Sequence[Result]) -> Result:
        """One result of several problems: the first, with the others beside it."""
        first, *others = results
        also = [
            Also(one.reason, one.field, one.statement, one.line, next(iter(one.names), ""), one.needs, one.number)
            for one in others
        ]
        hazards = next((one.findings for one in results if one.findings), ())
        return replace(first, findings=hazards, also=tuple(also))

    def encode(self) -> str:
        """The termination message, in at most `LONGEST` bytes. Lists are cut from their ends."""
        result = self
        while len(text := json.dumps(_plain(result), separators=(",", ":"), allow_nan=False).encode()) > LONGEST:
            longest = max(_LISTS, key=lambda name: len(getattr(result, name)))
            result = replace(result, more=result.more + 1, **{longest: getattr(result, longest)[:-1]})
        return text.decode()


_LISTS: Final = ("also", "findings", "blockers", "answers", "names")


def _plain(result: Result) -> dict[str, Any]:
    document = {name: value for name, value in asdict(result).items() if value or name == "reason"}
    return {name: _rounded(value) for name, value in document.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else 0.0
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items() if part not in ("", None)}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value


# --- the operator's side ----------------------------------------------------------------------------------------------


def decode(text: str) -> Result | None:
    """Read a termination message. What is not known is left out; None where it has no known reason."""
    try:
        document = json.loads(text)
        reason = RunnerReason(document["reason"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Result(reason, **_known(Result, document, skip={"reason"}))


def _number(value: object) -> float:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return max(0.0, min(float(value), _LARGEST)) if fine else 0.0  # type: ignore[arg-type]  # it is a number, as just seen


def _integer(value: object) -> int:
    return int(_number(value))


def _sqlstate(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _hazard(value: object) -> str:
    return value if isinstance(value, str) and value in list(Hazard) else ""


def _reason(value: object) -> str:
    return value if isinstance(value, str) and value in list(RunnerReason) else ""


def _word(of: type[Word], value: object) -> Word:
    """A word that is known; of anything else the first, which is empty."""
    return next((one for one in of if one.value == value), next(iter(of)))


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "sqlstate": _sqlstate,
    "hazard": _hazard,
    "reason": _reason,
    "lock": lambda value: _word(Lock, value),
    "effort": lambda value: _word(Effort, value),
    "names": lambda value: tuple(map(identifier, _list(value))),
    "passed": lambda value: value is True,
    "before": lambda value: None if value is None else _integer(value),
    "age_seconds": _number,
    "seconds": _number,
    **dict.fromkeys(
        ("statement", "line", "number", "rows", "batches", "lock_waits", "more", "pid", "failures"), _integer
    ),
    "findings": lambda value: _entries(Finding, value),
    "blockers": lambda value: _entries(Blocker, value),
    "answers": lambda value: _entries(Answer, value),
    "also": lambda value: _entries(Also, value),
}
"""How a field is read; those that are not listed are identifiers."""


def _known(of: type[Any], document: Any, skip: Sequence[str] | set[str] = ()) -> dict[str, Any]:
    names = [one.name for one in fields(of) if one.name in document and one.name not in skip]
    return {name: _READ.get(name, identifier)(document[name]) for name in names}


def _list(value: object) -> list[Any]:
    return value[:64] if isinstance(value, list) else []


def _entries(of: type[Any], value: object) -> tuple[Any, ...]:
    return tuple(of(**_known(of, entry)) for entry in _list(value) if isinstance(entry, dict))
