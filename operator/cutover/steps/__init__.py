"""The kinds of steps: one file each, a line each here. Nothing else in the program lists them."""

from __future__ import annotations

from typing import Final

from cutover.steps.approve import Approve
from cutover.steps.check import Check
from cutover.steps.deploy import Deploy
from cutover.steps.flags import Flags
from cutover.steps.job import Job
from cutover.steps.kind import Kind, StepContext, Target
from cutover.steps.notify import Notify
from cutover.steps.switch import Switch
from cutover.steps.traffic import Traffic
from cutover.steps.wait import Delay

__all__ = ["KINDS", "Kind", "StepContext", "Target"]

KINDS: Final[tuple[type[Kind], ...]] = (Deploy, Traffic, Switch, Flags, Job, Check, Delay, Approve, Notify)
