"""The kinds of steps: one file or folder per kind, one line per kind in `KINDS`. Nothing else in the program lists them.

To add a kind: subclass `Kind` (`kind.py`), or those of its optional parts that apply (`parts.py`), in a file of its own, and add it to
`KINDS`; then a test file and a page in `docs/kinds/`; run `make crd`. A kind that runs a Job is a `JobKind` (`shared/job_kind.py`). A kind
that outgrows a file becomes a folder: `spec.py` (its fields), `preconditions.py` (before the first step), `kind.py` (do and undo).

What kinds share is in `shared/`.
"""

from __future__ import annotations

from typing import Final

from cutover.steps.approve import Approve
from cutover.steps.backfill import Backfill
from cutover.steps.check import Check
from cutover.steps.deploy import Deploy
from cutover.steps.flags import Flags
from cutover.steps.job import Job
from cutover.steps.kind import Kind
from cutover.steps.notify import Notify
from cutover.steps.schema import Schema
from cutover.steps.switch import Switch
from cutover.steps.traffic import Traffic
from cutover.steps.validate import Validate
from cutover.steps.wait import Delay

__all__ = ["KINDS"]

KINDS: Final[tuple[type[Kind], ...]] = (
    Deploy,
    Traffic,
    Switch,
    Flags,
    Job,
    Schema,
    Backfill,
    Validate,
    Check,
    Delay,
    Approve,
    Notify,
)
