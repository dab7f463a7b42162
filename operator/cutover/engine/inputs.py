"""Collects what comes into a turn of the saga: gates, guards, requests, deletion, problems of targets. Called by the driver.

Nothing is decided here and nothing is written, except that a target which lost its labels is claimed again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cutover.engine.command_context import CommandContext
from cutover.engine.drift import target_problem
from cutover.engine.plan_cache import PlanCache
from cutover.engine.postconditions import Standings, ask
from cutover.engine.undo_order import ready_to_undo
from cutover.errors import Unavailable
from cutover.ports import Clock
from cutover.saga.draft import position, seconds, stage_of
from cutover.saga.requests import unanswered
from cutover.saga.turn import Command, Done, Failed, Inputs, OnFailure, Outcome, Pause, Rules, Verb
from cutover.status import requests
from cutover.status.requests import RequestVerb
from cutover.status.state import State
from cutover.status.status import ACTIVE, GateStatus, Phase, StepState, Verdict
from cutover.targets.finalizer import deleted_at, has_finalizer, terminating

_FORWARD: Final = (Phase.RUNNING, Phase.WAITING, Phase.PAUSED)
_BACKWARD: Final = (Phase.ROLLING_BACK, Phase.STUCK)
_STOPS: Final = frozenset({RequestVerb.ABORT, RequestVerb.ROLLBACK, RequestVerb.ABANDON})


async def collect(
    context: CommandContext,
    cache: PlanCache,
    rules: Rules,
    clock: Clock,
    answer: tuple[Command | None, Outcome] | None,
) -> Inputs:
    """The inputs of one turn.

    Args:
        context: the plan as it is now.
        cache: what this process keeps of it.
        rules: the plan as the saga knows it.
        clock: the time.
        answer: the last command of this turn with its outcome; None when none was carried out yet.
    """
    command, outcome = answer or (None, None)
    status, body, now = context.status, context.body, context.now
    active_run = status.run.number if status.run and status.phase in ACTIVE else 0
    deleted, asked = deleted_at(body), requests.read(body["metadata"].get("annotations") or {})
    gates = await _gates(context, cache, rules, clock, now if _takes_effect(outcome) else None)
    guards = await _guards(context, cache, clock)
    lost, standings = None, Standings()
    try:
        lost, standings = await _standings(context, command, outcome)
    except Unavailable:
        # Whether all stands is no matter then, and what stops the plan must not wait for one kind of object.
        stopped = any(request.verb in _STOPS for request in unanswered(status, asked))
        if not (deleted or stopped or any(gate.verdict is Verdict.FAIL for gate in (*gates, *guards))):
            raise
    return Inputs(
        outcome=outcome,
        last_command=command.verb if command else None,
        snapshot_taken=status.current is not None and context.snapshots_taken(position(status)),
        target_problem=lost or standings.problem,
        problem_at=standings.problem_at,
        to_restore=standings.to_restore,
        ask_again=seconds(standings.after),
        gates=gates,
        guards=guards,
        requests=asked,
        deleted_at=deleted,
        suspended=context.plan.suspend,
        new_process=active_run not in (0, cache.fenced_run),
        has_finalizer=has_finalizer(body),
        opening=context.plan.opening(now),
        terminating=bool(deleted)
        and status.phase in ACTIVE
        and await terminating(context.cluster, context.ref.namespace),
        ready_to_undo=await ready_to_undo(context) if status.phase in _BACKWARD else frozenset(),
    )


async def _gates(
    context: CommandContext, cache: PlanCache, rules: Rules, clock: Clock, effect: datetime | None
) -> tuple[GateStatus, ...]:
    """The gates of the current stage, from the moment it is in effect: as saved before, or `effect`."""
    status = context.status
    current = status.current
    if status.phase not in (Phase.RUNNING, Phase.WAITING) or current is None or not current.stage:
        cache.stage.stop()
        return ()
    since = current.applied_at or effect
    if since is None:
        cache.stage.stop()
        return ()
    at, stage = position(status), stage_of(status)
    if status.steps[at].state not in (StepState.DOING, StepState.WAITING):
        return ()
    step, attempt = context.plan.steps[at], status.steps[at].attempt
    since += rules.steps[at].stages[stage].settle
    cache.stage.turn_to((cache.run, step.name, attempt, stage, since), step.gates, since)
    return await cache.stage.look(context.gate_context(step, clock, f"{step.name}/{attempt}/{stage}"))


async def _guards(context: CommandContext, cache: PlanCache, clock: Clock) -> tuple[GateStatus, ...]:
    status, plan = context.status, context.plan
    watched = status.phase in (Phase.RUNNING, Phase.WAITING) or (
        status.phase is Phase.PAUSED and plan.on_failure is OnFailure.ROLLBACK
    )
    if not watched or status.run is None or status.current is None:
        cache.guards.stop()
        return ()
    cache.guards.turn_to((cache.run, "guards"), plan.guards, status.run.started_at, guard=True)
    return await cache.guards.look(context.gate_context(plan.step(status.current.step), clock, "/guards"))


async def _standings(
    context: CommandContext, command: Command | None, outcome: Outcome | None
) -> tuple[Failed | Pause | None, Standings]:
    """Whether all targets are there and claimed, and all that the run has done still stands.

    Asked wherever a run may go on by what comes out: at the beginning of a turn, and after each command that is done or is not
    finished, for only the last answer of a turn says when it must be asked again.
    """
    verb, status = command.verb if command else None, context.status
    if status.phase not in _FORWARD or status.state is State.CLAIMING or verb is Verb.RELEASE:
        return None, Standings()
    if isinstance(outcome, Failed | Pause):
        return None, Standings()
    # While they are released the claims may be gone.
    if status.state is not State.RELEASING and (lost := await target_problem(context)):
        return lost, Standings()
    return None, await ask(context, current=outcome is None or verb is Verb.DO)


def _takes_effect(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Done) and not outcome.skip
