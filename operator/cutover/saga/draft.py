"""A turn in the making: the status as it changes inside one call of `advance`, by legal transitions only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cutover.errors import Broken
from cutover.saga.tables import PLAN, STEP, PlanEvent, StepEvent
from cutover.saga.turn import (
    STUCK_EVERY,
    Again,
    Command,
    Done,
    Failed,
    Inputs,
    Notice,
    Outcome,
    Pause,
    Rules,
    Turn,
    Verb,
)
from cutover.status.reasons import Reason
from cutover.status.status import ENDED, Current, Phase, Run, RunTally, Status, StepState, StepStatus


@dataclass(slots=True)
class Draft:
    """A turn in the making. Lives only inside one call of `advance`.

    Attributes:
        phase_before: the phase in which the turn began.
        finalizer_outcome: what became of taking the finalizer off, when that was tried just now.
    """

    rules: Rules
    status: Status
    inputs: Inputs
    now: datetime
    notices: list[Notice] = field(default_factory=list)
    look: list[timedelta] = field(default_factory=list)
    phase_before: Phase | None = None
    finalizer_outcome: Outcome | None = None
    kept: Outcome | None = None

    def __post_init__(self) -> None:
        """What became of the finalizer, or of what done steps have left, answers no question about the step in hand."""
        self.phase_before, outcome = self.status.phase, self.inputs.outcome
        if self.inputs.answered is Verb.REMOVE_FINALIZER:
            self.finalizer_outcome, self.inputs = outcome, replace(self.inputs, outcome=None)
        elif self.inputs.answered is Verb.ENFORCE:
            self.kept, self.inputs = outcome, replace(self.inputs, outcome=None)
            match outcome:
                case Done():
                    self.set(steps=tuple(replace(step, reapply=False) for step in self.status.steps))
                case Again(after=float() as after):
                    self.look.append(timedelta(seconds=after))
                case Failed() | Pause():
                    self.inputs = replace(self.inputs, trouble=outcome)

    @property
    def run(self) -> Run:
        """The run; there is one as soon as a plan has been seen."""
        if self.status.run is None:
            raise Broken("a plan that has been seen has a run")
        return self.status.run

    @property
    def current(self) -> Current:
        """The step in hand."""
        if self.status.current is None:
            raise Broken("a plan that does a step says which")
        return self.status.current

    def set(self, **changes: object) -> None:
        """Change fields of the status."""
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]  # names are checked by the dataclass

    def set_run(self, **changes: object) -> None:
        """Change fields of the run."""
        self.set(run=replace(self.run, **changes))  # type: ignore[arg-type]

    def plan_event(self, event: PlanEvent, reason: Reason | str, message: str = "") -> None:
        """A transition of the plan; its clock runs only while it is Running. Raises Broken when the table has none."""
        to = PLAN.get((self.status.phase, event))
        if to is None:
            raise Broken(f"a plan that is {self.status.phase} cannot {event}")
        run = self.run
        if to is not Phase.RUNNING and run.since is not None:
            self.set_run(spent=run.spent + (self.now - run.since).total_seconds(), since=None)
        elif to is Phase.RUNNING and run.since is None:
            self.set_run(since=self.now)
        if to is Phase.PAUSED:
            self.count(paused=self.tally.paused + 1)
        if to in ENDED and event is not PlanEvent.DECLINE:
            self.set_run(finished_at=self.now)
        self.set(phase=to, reason=str(reason), message=message)

    def step_event(self, at: int, event: StepEvent, message: str = "") -> None:
        """A transition of one step. Raises Broken when the table has none."""
        step = self.status.steps[at]
        to = STEP.get((step.state, event))
        if to is None:
            raise Broken(f"step {step.name} is {step.state} and cannot {event}")
        step = replace(step, state=to, message=message[:256])
        if event in (StepEvent.START, StepEvent.AGAIN):
            step = replace(step, started_at=self.now, attempt=step.attempt + 1, made="", judged=False)
        if to in (StepState.DONE, StepState.FAILED, StepState.UNDONE):
            step = replace(step, finished_at=self.now)
        self._set_step(at, step)
        if to is StepState.DONE:
            done = sum(other.state is StepState.DONE for other in self.status.steps)
            self.count(done=max(done, self.tally.done))

    @property
    def tally(self) -> RunTally:
        """What the run has seen so far."""
        return self.status.tally or RunTally()

    def count(self, **changes: object) -> None:
        """Keep something of what was seen."""
        self.set(tally=replace(self.tally, **changes))  # type: ignore[arg-type]

    def written(self, at: int) -> None:
        """A step has come as far as its target."""
        self._set_step(at, replace(self.status.steps[at], written=True))

    def judged(self, at: int, *, passed: bool) -> None:
        """The gates of a step were asked at the end of a stage."""
        self._set_step(at, replace(self.status.steps[at], judged=passed))

    def note_made(self, at: int) -> None:
        """Keep what the command in hand has made. Losing it is harmless: what is not saved has not taken effect yet."""
        outcome = self.inputs.outcome
        if isinstance(outcome, Again) and outcome.made:
            self._set_step(at, replace(self.status.steps[at], made=outcome.made))

    def _set_step(self, at: int, step: StepStatus) -> None:
        self.set(steps=(*self.status.steps[:at], step, *self.status.steps[at + 1 :]))

    def raise_fence(self) -> None:
        """From here on, late writes of what came before fail."""
        self.set_run(fence=self.run.fence + 1)

    def notice(self, reason: Reason | str, message: str, *, warning: bool = False, on_namespace: bool = False) -> None:
        """Tell people."""
        self.notices.append(Notice(str(reason), message, warning, on_namespace))

    def remove_finalizer(self, *look: timedelta | None) -> Turn:
        """Close the turn; our finalizer comes off, if it is on and was not tried just now."""
        if not self.inputs.has_finalizer:
            return self.turn(None, *look)
        match self.finalizer_outcome:
            case None:
                return self.turn(Command(Verb.REMOVE_FINALIZER), *look)
            case Done():
                return self.turn(None, timedelta(seconds=1), *look)
            case Again(after=after):
                return self.turn(None, seconds(after), *look)
            case _:
                return self.turn(None, STUCK_EVERY, *look)

    def turn(self, command: Command | None = None, *look: timedelta | None) -> Turn:
        """Close the turn; it is looked at again at the soonest of all times named."""
        soon = [*self.look, *(after for after in look if after is not None)]
        return Turn(self.status, command, max(min(soon), timedelta()) if soon else None, tuple(self.notices))


def fence_if_new_process(draft: Draft) -> None:
    """Another process may still have a write under way; ours must be able to tell it apart."""
    if draft.inputs.new_process:
        draft.raise_fence()


def position(status: Status) -> int:
    """The step in hand as a position."""
    if status.current is None:
        return -1
    for at, step in enumerate(status.steps):
        if step.name == status.current.step:
            return at
    raise Broken(f"status.current names step {status.current.step}, which is not in status.steps")


def stage_of(status: Status) -> int:
    """The stage in hand as a position; ``2/4`` is 1; -1 when none is, as in an undo."""
    if status.current is None or not status.current.stage:
        return -1
    return int(status.current.stage.partition("/")[0]) - 1


def seconds(after: float | None) -> timedelta | None:
    """Seconds as a span."""
    return None if after is None else timedelta(seconds=after)


def duration(span: timedelta) -> str:
    """A span for people, in its largest whole unit."""
    seconds = int(span.total_seconds())
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def moment(when: datetime) -> str:
    """A moment for people, by the minute."""
    return when.strftime("%Y-%m-%d %H:%M UTC")


def clock(when: datetime) -> str:
    """A time of day for people."""
    return when.strftime("%H:%M:%S UTC")
