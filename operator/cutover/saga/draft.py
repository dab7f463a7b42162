"""The draft of a turn: the status as it changes inside one call of `advance`, by legal transitions only.

Nothing here decides; the modules beside it do, and every change of theirs goes through it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

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
    Wait,
)
from cutover.status.phases import PHASES
from cutover.status.reasons import Reason
from cutover.status.report import RunTally
from cutover.status.state import State
from cutover.status.status import ENDED, Current, Phase, Run, Status, StepState, StepStatus

_FINALIZER_STAYS: Final = "the operator may not remove its finalizer, so a deletion of the plan waits until it may"


@dataclass(slots=True)
class Draft:
    """The draft of a turn. It lives only inside one call of `advance`.

    Attributes:
        look_again: times after which the next turn is due; the soonest counts.
        phase_before: the phase in which the turn began.
        finalizer_outcome: the outcome of removing the finalizer, when that was the last command.
        enforce_outcome: the outcome of enforcing what done steps have set, when that was the last command.
    """

    rules: Rules
    status: Status
    inputs: Inputs
    now: datetime
    notices: list[Notice] = field(default_factory=list)
    look_again: list[timedelta] = field(default_factory=list)
    phase_before: Phase | None = None
    finalizer_outcome: Outcome | None = None
    enforce_outcome: Outcome | None = None

    def __post_init__(self) -> None:
        """Set the outcomes of commands aside that are not about the current step: its code must not take them for its own."""
        self.phase_before, outcome = self.status.phase, self.inputs.outcome
        if self.inputs.ask_again is not None:
            self.look_again.append(self.inputs.ask_again)
        if self.inputs.last_command is Verb.REMOVE_FINALIZER:
            self.finalizer_outcome, self.inputs = outcome, replace(self.inputs, outcome=None)
        elif self.inputs.last_command is Verb.ENFORCE:
            self.enforce_outcome, self.inputs = outcome, replace(self.inputs, outcome=None)
            match outcome:
                case Done():  # everything stands, so what was to be applied again has been
                    self.set(steps=tuple(replace(step, reapply=False) for step in self.status.steps))
                case Again(after=float() as after):
                    self.look_again.append(timedelta(seconds=after))
                case Failed() | Pause():
                    self.inputs = replace(self.inputs, target_problem=outcome)

    @property
    def state(self) -> State:
        """The state; there is one as soon as a plan has been seen."""
        if self.status.state is None:
            raise Broken("a plan that has been seen has a state")
        return self.status.state

    @property
    def run(self) -> Run:
        """The run; there is one as soon as a plan has been seen."""
        if self.status.run is None:
            raise Broken("a plan that has been seen has a run")
        return self.status.run

    @property
    def current(self) -> Current:
        """The current step."""
        if self.status.current is None:
            raise Broken("a plan that does a step names it")
        return self.status.current

    def set(self, **changes: object) -> None:
        """Change fields of the status."""
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]  # names are checked by the dataclass

    def set_run(self, **changes: object) -> None:
        """Change fields of the run."""
        self.set(run=replace(self.run, **changes))  # type: ignore[arg-type]

    def plan_event(self, event: PlanEvent, reason: Reason | str, message: str = "") -> None:
        """A transition of the plan; its clock runs only while it is Running. Raises Broken when the table has none."""
        state = PLAN.get((self.status.state, event))
        if state is None:
            raise Broken(f"a plan in state {self.status.state} cannot {event}")
        run, before, to = self.run, self.status.phase, PHASES[state]
        if to is not Phase.RUNNING and run.running_since is not None:
            self.set_run(
                running_seconds=run.running_seconds + (self.now - run.running_since).total_seconds(), running_since=None
            )
        elif to is Phase.RUNNING and run.running_since is None:
            self.set_run(running_since=self.now)
        if to is Phase.PAUSED and before is not to:
            self.update_tally(pauses=self.tally.pauses + 1)
        if to in ENDED and event is not PlanEvent.KEEP_SUCCESS:  # that run ended long before
            self.set_run(finished_at=self.now)
        self.set(state=state, phase=to, reason=str(reason), message=message)

    @property
    def time_left(self) -> timedelta | None:
        """How long the plan may still be Running by `spec.timeout`; None when it has none."""
        if self.rules.timeout is None:
            return None
        running = self.now - self.run.running_since if self.run.running_since else timedelta()
        return self.rules.timeout - timedelta(seconds=self.run.running_seconds) - running

    def renew_time(self) -> None:
        """What was stopped because its time was up gets its full time again."""
        if self.time_left is not None and self.time_left <= timedelta():
            self.set_run(running_seconds=0.0)

    def step_event(self, at: int, event: StepEvent, message: str = "") -> None:
        """A transition of one step. Raises Broken when the table has none."""
        step = self.status.steps[at]
        to = STEP.get((step.state, event))
        if to is None:
            raise Broken(f"step {step.name} is {step.state} and cannot {event}")
        step = replace(step, state=to, message=message[:256])
        if event in (StepEvent.START, StepEvent.RETRY):
            step = replace(step, started_at=self.now, attempt=step.attempt + 1, made="", gates_passed=False)
        if to in (StepState.DONE, StepState.FAILED, StepState.UNDONE):
            step = replace(step, finished_at=self.now)
        self._set_step(at, step)
        if to is StepState.DONE:
            done = sum(other.state is StepState.DONE for other in self.status.steps)
            self.update_tally(steps_done=max(done, self.tally.steps_done))

    @property
    def tally(self) -> RunTally:
        """What the run has seen so far."""
        return self.status.tally or RunTally()

    def update_tally(self, **changes: object) -> None:
        """Change counts of the run."""
        self.set(tally=replace(self.tally, **changes))  # type: ignore[arg-type]

    def mark_snapshot_taken(self, at: int) -> None:
        """The snapshots of a step exist."""
        self._set_step(at, replace(self.status.steps[at], snapshot_taken=True))

    def mark_gates_passed(self, at: int, *, passed: bool) -> None:
        """Whether the gates of a step passed at the end of a stage."""
        self._set_step(at, replace(self.status.steps[at], gates_passed=passed))

    def record_made(self, at: int) -> None:
        """Save what the current command has created. Losing it is harmless: what is not saved has not taken effect yet."""
        outcome = self.inputs.outcome
        if isinstance(outcome, Again) and outcome.made:
            self._set_step(at, replace(self.status.steps[at], made=outcome.made))

    def _set_step(self, at: int, step: StepStatus) -> None:
        self.set(steps=(*self.status.steps[:at], step, *self.status.steps[at + 1 :]))

    def raise_fence(self) -> None:
        """From here on, late writes of earlier attempts and processes fail."""
        self.set_run(fence=self.run.fence + 1)

    def count_undo_attempt(self) -> None:
        """On request the current undo is attempted once more, if its last attempt is over. One that goes on is only looked at."""
        if self.status.current is not None and self.current.undo_failed:
            self.set_run(undo_attempt=self.run.undo_attempt + 1)

    def notice(self, reason: Reason | str, message: str, *, warning: bool = False, on_namespace: bool = False) -> None:
        """Publish an event of the plan."""
        self.notices.append(Notice(str(reason), message, warning, on_namespace))

    def remove_finalizer(self, *look_again: timedelta | None) -> Turn:
        """Close the turn; our finalizer is removed, if it is present and that was not the last command."""
        if not self.inputs.has_finalizer:
            self.set(message=self.status.message.partition(f"; {_FINALIZER_STAYS}")[0])
            return self.turn(None, *look_again)
        match self.finalizer_outcome:
            case None:
                return self.turn(Command(Verb.REMOVE_FINALIZER), *look_again)
            case Done():
                return self.turn(None, timedelta(seconds=1), *look_again)
            case Again(after=after):
                return self.turn(None, seconds(after), *look_again)
            case Wait(message=message) | Failed(message=message) | Pause(message=message):
                if (why := f"{_FINALIZER_STAYS}: {message}") not in self.status.message:
                    self.set(message=f"{self.status.message}; {why}")
                    self.notice("NotReleased", why, warning=True)
                return self.turn(None, STUCK_EVERY, *look_again)

    def turn(self, command: Command | None = None, *look_again: timedelta | None) -> Turn:
        """Close the turn; the next turn is due after the shortest of all times named."""
        soon = [*self.look_again, *(after for after in look_again if after is not None)]
        return Turn(self.status, command, max(min(soon), timedelta()) if soon else None, tuple(self.notices))


def fence_if_new_process(draft: Draft) -> None:
    """A write of the former process may still be in flight; with a higher fence it fails."""
    if draft.inputs.new_process:
        draft.raise_fence()


def position(status: Status) -> int:
    """The position of the current step; -1 when there is none."""
    if status.current is None:
        return -1
    for at, step in enumerate(status.steps):
        if step.name == status.current.step:
            return at
    raise Broken(f"status.current names step {status.current.step}, which is not in status.steps")


def stage_of(status: Status) -> int:
    """The position of the current stage; ``2/4`` is 1; -1 when there is none, as in an undo."""
    if status.current is None or not status.current.stage:
        return -1
    return int(status.current.stage.partition("/")[0]) - 1


def seconds(after: float | None) -> timedelta | None:
    """Seconds as a timedelta."""
    return None if after is None else timedelta(seconds=after)


def duration(span: timedelta) -> str:
    """A duration as it is shown, in its largest whole unit."""
    seconds = int(span.total_seconds())
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def moment(when: datetime) -> str:
    """A moment as it is shown, by the minute."""
    return when.strftime("%Y-%m-%d %H:%M UTC")


def clock(when: datetime) -> str:
    """A time of day as it is shown."""
    return when.strftime("%H:%M:%S UTC")
