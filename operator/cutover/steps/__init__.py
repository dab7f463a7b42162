"""The kinds of steps: one file each, a line each here. Nothing else in the program lists them."""

from __future__ import annotations

from typing import Final

from cutover.steps.approve import Approve
from cutover.steps.base import Kind, Target, Work
from cutover.steps.check import Check
from cutover.steps.deploy import Deploy
from cutover.steps.flags import Flags
from cutover.steps.job import Job
from cutover.steps.notify import Notify
from cutover.steps.switch import Switch
from cutover.steps.traffic import Traffic
from cutover.steps.wait import Pause

__all__ = ["KINDS", "Kind", "Target", "Work"]

KINDS: Final[tuple[type[Kind], ...]] = (Deploy, Traffic, Switch, Flags, Job, Check, Pause, Approve, Notify)
