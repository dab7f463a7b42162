"""Everything that a report shows of one plan, gathered once for the terminal, for programs and for the page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from cutover.errors import PlanError
from cutover.field_path import Json
from cutover.plan.parsing import hash_of, parse
from cutover.plan.status_document import read_status, write_status
from cutover.report.checklist import checklist
from cutover.report.evidence import Line
from cutover.status.report import SuccessCriterion
from cutover.status.status import ENDED, Status, StepStatus

TITLES: Final = {
    SuccessCriterion.DATA: "Zero data loss",
    SuccessCriterion.WINDOW: "Completed within the window",
    SuccessCriterion.VALIDATIONS: "All validations passed",
    SuccessCriterion.PERFORMANCE: "Performance kept or improved",
    SuccessCriterion.ROLLBACK: "Rollback rehearsed and ready",
    SuccessCriterion.DOWNTIME: "No unexpected downtime",
    SuccessCriterion.DEPENDENCIES: "All dependencies updated",
}


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the plan that the API server still has."""

    at: datetime
    reason: str
    note: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A step on the timeline: where it starts and how long it is, as shares of the whole."""

    step: StepStatus
    begin: float
    length: float
    duration: timedelta


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a report shows of one plan.

    Attributes:
        no_checklist: why there is no checklist; empty when there is one.
        events: those of this run, oldest first.
        now: where the timeline of an unfinished run ends.
    """

    name: str
    namespace: str
    status: Status
    checklist: tuple[Line, ...]
    no_checklist: str
    events: tuple[Event, ...]
    now: datetime

    @property
    def no_report(self) -> str:
        """Why there are no success criteria; empty when there are."""
        if self.status.report:
            return ""
        if self.status.phase in ENDED:
            if any(step.attempt for step in self.status.steps):
                return "the run was not evaluated: its spec could not be read when it ended"
            return "the run did nothing, so there is nothing to evaluate"
        return f"the plan is {self.status.phase or 'not seen yet'}; it is evaluated when its run ends"

    @property
    def span(self) -> tuple[datetime, datetime]:
        """From the first step to the end, or until now."""
        began = [step.started_at for step in self.status.steps if step.started_at]
        run = self.status.run
        end = (run.finished_at if run else None) or self.now
        begin = min(began, default=run.started_at if run else self.now)
        return begin, max(end, begin)

    @property
    def bars(self) -> tuple[Bar, ...]:
        """The steps that have started."""
        begin, end = self.span
        whole = max((end - begin).total_seconds(), 0.001)
        bars = []
        for step in self.status.steps:
            if step.started_at is None:
                continue
            duration = max((step.finished_at or end) - step.started_at, timedelta())
            at = (step.started_at - begin).total_seconds() / whole
            bars.append(Bar(step, min(at, 1.0), min(duration.total_seconds() / whole, 1.0 - min(at, 1.0)), duration))
        return tuple(bars)


def summarize(document: Json, events: Sequence[Json], now: datetime) -> PlanSummary:
    """Summarize a plan as the API server has it, and its events."""
    status, metadata = read_status(document.get("status")), document["metadata"]
    lines, no_checklist = tuple[Line, ...](), ""
    run = status.run
    try:
        plan = parse(document["spec"])
        if run is not None and run.spec_hash != hash_of(metadata["name"], document["spec"], plan):
            no_checklist = "the spec has changed since this run"
        else:
            lines = checklist(plan, status)
    except PlanError as error:
        no_checklist = f"the spec cannot be read: {error}"
    since = run.started_at if run else now
    recorded = sorted((event for event in map(_event, events) if event.at >= since), key=lambda event: event.at)
    return PlanSummary(metadata["name"], metadata["namespace"], status, lines, no_checklist, tuple(recorded), now)


def _event(body: Json) -> Event:
    at = body.get("eventTime") or body["metadata"]["creationTimestamp"]
    return Event(
        datetime.fromisoformat(at), body.get("reason", ""), body.get("note", ""), body.get("type") == "Warning"
    )


def to_document(summary: PlanSummary) -> Json:
    """The summary as JSON, for programs."""
    shown = write_status(summary.status)
    kept = ("phase", "reason", "message", "run", "failure", "report", "steps", "history", "requests")
    return {
        "plan": summary.name,
        "namespace": summary.namespace,
        **{key: shown[key] for key in kept if key in shown},
        "checklist": [asdict(line) | {"state": str(line.state)} for line in summary.checklist],
        "events": [asdict(event) | {"at": event.at.isoformat()} for event in summary.events],
        **({"noReport": summary.no_report} if summary.no_report else {}),
        **({"noChecklist": summary.no_checklist} if summary.no_checklist else {}),
    }


def human_duration(span: timedelta) -> str:
    """A duration as it is shown, in two units at most."""
    seconds = span.total_seconds()
    if seconds < 60:  # noqa: PLR2004 -- a minute
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for big, small, size in (("d", "h", 86_400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= size:
            part = whole % size // {"h": 3600, "m": 60, "s": 1}[small]
            return f"{whole // size}{big}{f' {part}{small}' if part else ''}"
    return f"{whole}s"
