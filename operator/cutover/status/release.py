"""How the way out of a run has failed so far, in its status; see `status.py`, and `saga/end.py` for what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from cutover.status.spelling import AS_KUBERNETES_SPELLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreleased:
    """For the operator itself: how long the undo of a deleted plan made no progress, or the targets could not be released.

    Counted only while it was tried.

    Attributes:
        since: When the first try failed, later by each time in which nothing was tried.
        refused_since: The same of the refusals since the last try without an answer. Absent when that was the last one.
        tried_at: When the last try failed.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    since: datetime
    refused_since: datetime | None = None
    tried_at: datetime
