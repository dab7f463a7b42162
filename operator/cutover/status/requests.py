"""What people ask of a running plan: one annotation a verb, `request.cutover.dev/abort: "token=7f3a by=alice"`.

Pure: reads annotations and writes the text of one. Whether a request is legal now is the saga's business.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "request.cutover.dev/"


class RequestVerb(StrEnum):
    """What a person can ask for, the strongest first: of two that come together the first one counts."""

    ABORT = "abort"  # take everything back
    ROLLBACK = "rollback"  # the same, and also for a plan that has Succeeded
    ABANDON = "abandon"  # let go and leave everything as it is
    PAUSE = "pause"
    RETRY = "retry"  # a failed step of a Paused plan once more; a Refused plan is examined anew
    RESUME = "resume"
    SKIP = "skip"  # take the gates of a step as passed
    APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it stands on the plan.

    Attributes:
        token: any text that differs from the last one of this verb; a token is handled once.
        by: who asked; empty when the annotation does not say.
        step: the step meant, for `approve` and `skip`.
        digest: of what is approved, as the status showed it; empty when the annotation does not say.
    """

    verb: RequestVerb
    token: str
    by: str = ""
    step: str = ""
    digest: str = ""


def read(annotations: Mapping[str, str]) -> tuple[Request, ...]:
    """All requests on an object, the strongest first.

    A value without ``token=`` is taken whole as the token, so that ``kubectl annotate mplan x
    request.cutover.dev/pause=now`` works. Unknown verbs are left alone: admission tells who may write them.
    """
    found = []
    for verb in RequestVerb:
        text = annotations.get(PREFIX + verb)
        if text is None:
            continue
        parts = dict(part.split("=", 1) for part in text.split() if "=" in part)
        token = parts.get("token", text.strip())[:64]
        if not token:  # nothing by which it could be told from the next one
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
