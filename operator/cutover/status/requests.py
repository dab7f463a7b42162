"""Requests of users to a plan: one annotation per verb, `request.cutover.dev/abort: "token=7f3a by=alice"`.

Pure: reads annotations, writes the text of one, and what the status records of it. The saga decides what is accepted.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from cutover.status.spelling import AS_KUBERNETES_SPELLS

PREFIX = "request.cutover.dev/"


class RequestVerb(StrEnum):
    """What a user can request, the strongest first: of two that come together the first one counts."""

    ABORT = "abort"  # roll everything back
    ROLLBACK = "rollback"  # the same, and also for a plan that has Succeeded
    ABANDON = "abandon"  # release the targets and leave everything as it is
    PAUSE = "pause"
    RETRY = (
        "retry"  # a failed step of a Paused plan again, a failed undo of a Stuck one; a Refused plan is examined again
    )
    RESUME = "resume"
    SKIP = "skip"  # treat the gates of the current step as passed
    APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class Request:
    """One request on the plan.

    Attributes:
        token: any text that differs from the last one of this verb; a token is handled once.
        by: who requested it; empty when the annotation does not say.
        step: the step meant, for `approve` and `skip`.
        digest: digest of what is approved, from the status; empty when the annotation does not say.
    """

    verb: RequestVerb
    token: str
    by: str = ""
    step: str = ""
    digest: str = ""


class Answer(StrEnum):
    """The answer to a request."""

    ACCEPTED = "Accepted"
    REJECTED = "Rejected"
    IGNORED = "Ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """The last request of one verb, so that no request is handled twice.

    Attributes:
        verb: What was requested, such as approve or abort.
        token: Token of the request. A request with the same token is not handled again.
        answer: Accepted: it was carried out. Rejected: it was not possible, and the message says why. Ignored: it was there
            before this spec was first seen.
        at: When it was answered.
        run: Number of the run in which it was answered.
        by: Who requested it, as the request says.
        step: Step that the request names.
        message: Why it was rejected or ignored.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    verb: str
    token: str
    answer: Answer
    at: datetime
    run: int
    by: str = ""
    step: str = ""
    message: str = ""


def read(annotations: Mapping[str, str]) -> tuple[Request, ...]:
    """All requests on an object, the strongest first.

    A value without ``token=`` is the token itself, so that ``kubectl annotate mplan x request.cutover.dev/pause=now``
    works. Unknown verbs are ignored; admission decides who may write which.
    """
    found = []
    for verb in RequestVerb:
        text = annotations.get(PREFIX + verb)
        if text is None:
            continue
        parts = dict(part.split("=", 1) for part in text.split() if "=" in part)
        token = parts.get("token", text.strip())[:64]
        if not token:  # it could not be told from the next request
            continue
        by, step, digest = parts.get("by", "")[:253], parts.get("step", "")[:63], parts.get("digest", "")[:80]
        found.append(Request(verb, token, by, step, digest))
    return tuple(found)


def write(verb: RequestVerb, by: str, step: str = "", digest: str = "") -> tuple[str, str]:
    """The annotation's key and value for a new request."""
    parts = [f"token={secrets.token_hex(4)}"]
    if step:
        parts.append(f"step={step}")
    if digest:
        parts.append(f"digest={digest}")
    parts.append(f"by={by}")
    return PREFIX + verb, " ".join(parts)
