"""One turn of one plan: read, advance, save, act, advance, save. This file alone orders saving and acting.

The status that announces an act is saved before the act, under the resourceVersion that was read. What a command wants to
know beforehand is read beside that save. What a crash may lose (samples, messages of waiting) is kept in memory and saved
along with the next thing that matters, or when a verdict people see has changed, at most every ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from cutover.engine import unreadable_spec
from cutover.engine.commands import CommandContext, RunCache
from cutover.engine.criteria import with_report
from cutover.engine.plan_cache import PlanCache, visible_part
from cutover.errors import Conflict, NotFound, PlanError, Superseded, Unavailable
from cutover.field_path import Json
from cutover.gates.watch import Spawn, Watch
from cutover.plan.spec import Plan
from cutover.plan.status_document import read_status, write_status
from cutover.ports import PLANS, Ports, Ref
from cutover.saga import advance
from cutover.saga.draft import position, stage_of
from cutover.saga.turn import Command, Done, Failed, Inputs, OnFailure, Outcome, Rules, Turn, Verb
from cutover.saga.unreadable_spec import unreadable
from cutover.status import requests
from cutover.status.conditions import present
from cutover.status.reasons import Reason
from cutover.status.status import ACTIVE, ENDED, Phase, Status, StepState, durable_part, needs_no_snapshots
from cutover.targets import snapshots
from cutover.targets.finalizer import deleted_at, has_finalizer, needs_finalizer, set_finalizer, terminating

log = logging.getLogger(__name__)

LAZY: Final = timedelta(seconds=10)
"""How often at most what may be lost is saved for its own sake."""
QUIET: Final = timedelta(seconds=15)
"""After another process has saved a plan we leave it alone for so long: as long as a Lease is valid."""
_ROUNDS: Final = 300
"""Commands in one turn, at most: a plan of 64 steps with all their stages to be skipped ends before."""
_FORWARD: Final = (Phase.RUNNING, Phase.WAITING, Phase.PAUSED)
_BACKWARD: Final = (Phase.ROLLING_BACK, Phase.STUCK)


class Driver:
    """Drives all plans of this process; one turn of one plan at a time, the queue sees to that.

    Args:
        spawn: runs a measurement beside the turns.
        wake: asks for another turn of a plan.
        others_wait: whether other plans wait for their turn.
    """

    def __init__(
        self, ports: Ports, spawn: Spawn, wake: Callable[[Ref], None], others_wait: Callable[[], bool] = lambda: False
    ) -> None:
        self._ports, self._spawn, self._wake, self._others_wait = ports, spawn, wake, others_wait
        self._cluster, self._clock = ports.cluster, ports.clock
        self._caches: dict[Ref, PlanCache] = {}
        self._quiet: dict[Ref, datetime] = {}
        self._deleted: dict[Ref, list[str]] = {}
        self._unsure: dict[Ref, PlanCache] = {}

    def deleted(self, ref: Ref, uid: str) -> None:
        """A stream says that a plan was deleted. An answer 404 says less: a server that starts may give it for a moment."""
        self._deleted.setdefault(ref, []).append(uid)

    async def turn(self, ref: Ref) -> timedelta | None:
        """One turn.

        Returns:
            When to look again if nothing happens before; None: only an event can bring news.

        Raises:
            Unavailable: the API server gave no answer; try again later.
        """
        while uids := self._deleted.get(ref):  # snapshots it did not own, or that were orphaned, are nobody's now
            await snapshots.drop_all(self._cluster, ref.namespace, uids[-1])
            uids.pop()
        if ref in self._unsure:
            await self._reread(ref, self._unsure[ref])
            del self._unsure[ref]
        body = self._cluster.seen(ref)
        if body is None:
            self._deleted.pop(ref, None)
            self._drop_cache(ref)
            self._quiet.pop(ref, None)
            return None
        cache = self._cache_of(ref, body)
        quiet = self._quiet.get(ref, self._clock.now()) - self._clock.now()
        if quiet > timedelta():
            return quiet
        try:
            return await self._turn(ref, body, cache)
        except (Conflict, Superseded):
            # Somebody else wrote the plan, or has it: what we know is old. Read it now, begin again.
            await self._reread(ref, cache)
            return timedelta(seconds=0.1)
        except NotFound:
            self._drop_cache(ref)
            return None
        except Unavailable:
            # A save without an answer may have taken effect: the next turn begins with a read, when the server may want one.
            self._unsure[ref] = cache
            raise

    async def _reread(self, ref: Ref, cache: PlanCache) -> None:
        self._drop_cache(ref)
        try:
            body = await self._cluster.get(ref)
        except NotFound:
            return
        # Made anew: nobody else has it, and the former needs nothing any more.
        if body["metadata"]["uid"] != cache.uid:
            await snapshots.drop_all(self._cluster, ref.namespace, cache.uid)
            return
        read = read_status(body.get("status"))
        self._mind_the_other(ref, read, cache)
        run = read.run
        if cache.run and run and (run.number != cache.run or needs_no_snapshots(read.phase, run.keep_until)):
            # We may have slept in the middle of a write, until another process had ended the run and tidied up.
            await snapshots.drop(self._cluster, ref.namespace, cache.uid, cache.run)

    def _mind_the_other(self, ref: Ref, read: Status, cache: PlanCache) -> None:
        """Another process has saved what we did not: it drives this plan, and we keep away for as long as it goes on.

        Harmless would be to go on as well, because every take-over raises the fence. But two that take over from each other
        with every turn get nowhere.
        """
        ours = present(cache.status, self._clock.now())  # as it would have been saved
        if durable_part(read) not in (durable_part(cache.saved), durable_part(ours)):
            self._quiet[ref] = self._clock.now() + QUIET

    # --- memory -------------------------------------------------------------------------------------------------------

    def _drop_cache(self, ref: Ref) -> None:
        cache = self._caches.pop(ref, None)
        if cache is not None:
            cache.stage.stop()
            cache.guards.stop()

    def _cache_of(self, ref: Ref, body: Json) -> PlanCache:
        """The memory of this very plan, brought up to what the API server has."""
        metadata = body["metadata"]
        cache = self._caches.get(ref)
        if cache is not None and cache.uid != metadata["uid"]:
            self._drop_cache(ref)
            cache = None
        if cache is None:
            watch = partial(Watch, self._spawn, lambda: self._wake(ref))
            cache = PlanCache(metadata["uid"], watch(), watch())
            self._caches[ref] = cache
        if cache.version != metadata["resourceVersion"]:
            read = read_status(body.get("status"))
            if durable_part(read) != durable_part(cache.saved):  # another process has been here, or we have just begun
                if cache.version:
                    self._mind_the_other(ref, read, cache)
                cache.status, cache.fenced_run = read, 0
            elif not cache.fenced_run and read != cache.saved:  # another process knows more
                cache.status = read
            cache.saved, cache.version = read, metadata["resourceVersion"]
        run = cache.status.run.number if cache.status.run else 0
        if run != cache.run:
            cache.run, cache.run_cache = run, RunCache()
        return cache

    # --- the turn -----------------------------------------------------------------------------------------------------

    async def _turn(self, ref: Ref, body: Json, cache: PlanCache) -> timedelta | None:
        body = await self._ensure_finalizer(ref, body, cache)
        if cache.spec_problem(
            ref.name, body["spec"], has_finalizer=has_finalizer(body)
        ):  # no event tells that a CRD was put back
            body = await self._cluster.get(ref)
            cache = self._cache_of(ref, body)
            if why := cache.spec_problem(ref.name, body["spec"], has_finalizer=has_finalizer(body)):
                return await self._without_spec(ref, body, cache, partial(unreadable, message=why))
        plan, spec_hash = cache.read_spec(ref.name, body["spec"])
        if isinstance(plan, PlanError):
            rules = Rules(
                steps=(), generation=body["metadata"]["generation"], spec_hash=spec_hash, start_deadline=timedelta()
            )
            return await self._without_spec(ref, body, cache, partial(advance, rules), Failed("Invalid", str(plan)))
        rules = plan.rules(body["metadata"]["generation"], spec_hash)
        turn = await self._advance(body, cache, plan, rules)
        for round_ in range(_ROUNDS):
            outcome = await self._save_and_act(ref, cache, plan, turn)
            if outcome is None:
                break
            body = self._news(ref, cache)  # the command may have written the plan itself
            if body["metadata"]["generation"] != rules.generation:  # else a run could begin and freeze another spec
                return timedelta()
            last, turn = turn.command, await self._advance(body, cache, plan, rules, (turn.command, outcome))
            if self._others_wait() and _goes_on(last, turn.command) and (round_ or (last and last.stage)):
                await self._save(ref, cache, turn.status)
                self._tell(body, turn)
                return timedelta()  # each plan one weight, before any has its next
        else:
            return timedelta()  # the last command is neither announced nor done yet
        return self._next(cache, turn, plan)

    async def _ensure_finalizer(self, ref: Ref, body: Json, cache: PlanCache) -> Json:
        """Set our finalizer again, before all else, on an active plan that was written without it, as `kubectl replace` does."""
        if not needs_finalizer(cache.status, body):
            return body
        if body["metadata"]["resourceVersion"] != cache.version:
            raise Conflict(f"{ref} has changed in the middle of a turn")
        await set_finalizer(self._cluster, ref, body, wanted=True)
        return self._news(ref, cache)

    def _news(self, ref: Ref, cache: PlanCache) -> Json:
        """The plan as it is after a write of ours to it; what it says of the run is what we know.

        Raises:
            NotFound: it is gone.
            Superseded: another process has saved it meanwhile, so what we were about is no longer in hand.
        """
        body, ours = self._cluster.seen(ref), cache.status
        if body is None:
            raise NotFound(f"{ref} is gone")
        if self._cache_of(ref, body) is not cache or cache.status is not ours:
            raise Superseded("another process has saved the plan meanwhile")
        return body

    async def _without_spec(
        self, ref: Ref, body: Json, cache: PlanCache, judge: Callable[..., Turn], outcome: Outcome | None = None
    ) -> timedelta | None:
        """A plan whose spec cannot be read: nothing is done to any target, but that one which was abandoned lets go of them."""
        answered: Verb | None = None
        while True:
            deleted = deleted_at(body)
            inputs = Inputs(
                outcome=outcome,
                last_command=answered,
                requests=requests.read(body["metadata"].get("annotations") or {}),
                deleted_at=deleted,
                has_finalizer=has_finalizer(body),
                terminating=deleted is not None and await terminating(self._cluster, ref.namespace),
            )
            turn = judge(status=cache.status, inputs=inputs, now=self._clock.now())
            cache.status = turn.status
            await self._save(ref, cache, turn.status)
            self._tell(body, turn)
            if turn.command is None:
                return turn.look_again
            body, answered = self._cluster.seen(ref) or body, turn.command.verb
            outcome = await unreadable_spec.carry_out(self._cluster, ref, body, cache.status, turn.command)
            body = self._news(ref, cache)

    async def _advance(
        self,
        body: Json,
        cache: PlanCache,
        plan: Plan,
        rules: Rules,
        answer: tuple[Command | None, Outcome] | None = None,
    ) -> Turn:
        command, outcome = answer or (None, None)
        now = self._clock.now()
        status = cache.status
        metadata = body["metadata"]
        active_run = status.run.number if status.run and status.phase in ACTIVE else 0
        context = self._context(Ref(PLANS, metadata["namespace"], metadata["name"]), body, cache, plan)
        deleted = deleted_at(body)
        inputs = Inputs(
            outcome=outcome,
            last_command=command.verb if command else None,
            snapshot_taken=status.current is not None and context.written(position(status)),
            target_problem=await context.trouble() if _between_claims(status) and outcome is None else None,
            gates=await self._gates(context, cache, rules, now if _takes_effect(outcome) else None),
            guards=await self._guards(context, cache),
            requests=requests.read(metadata.get("annotations") or {}),
            deleted_at=deleted,
            suspended=plan.suspend,
            new_process=active_run not in (0, cache.fenced_run),
            has_finalizer=has_finalizer(body),
            opening=plan.opening(now),
            terminating=bool(deleted)
            and status.phase in ACTIVE
            and await terminating(self._cluster, context.ref.namespace),
            ready_to_undo=await context.ready_to_undo() if status.phase in _BACKWARD else frozenset(),
        )
        turn = advance(rules, status, inputs, now)
        if status.phase not in ENDED:  # saved with the end itself, and never added to one that is there
            turn = replace(turn, status=with_report(plan, turn.status))
        cache.status = turn.status
        return turn

    async def _gates(
        self, context: CommandContext, cache: PlanCache, rules: Rules, effect: datetime | None
    ) -> tuple[Any, ...]:
        """The gates of the stage in hand, from the moment it is in effect: what was seen before, or `effect`."""
        status = cache.status
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
        return await cache.stage.look(context.gate_context(step, self._clock, f"{step.name}/{attempt}/{stage}"))

    async def _guards(self, context: CommandContext, cache: PlanCache) -> tuple[Any, ...]:
        status, plan = cache.status, context.plan
        watched = status.phase in (Phase.RUNNING, Phase.WAITING) or (
            status.phase is Phase.PAUSED and plan.on_failure is OnFailure.ROLLBACK
        )
        if not watched or status.run is None or status.current is None:
            cache.guards.stop()
            return ()
        cache.guards.turn_to((cache.run, "guards"), plan.guards, status.run.started_at, guard=True)
        return await cache.guards.look(context.gate_context(plan.step(status.current.step), self._clock, "/guards"))

    async def _save_and_act(self, ref: Ref, cache: PlanCache, plan: Plan, turn: Turn) -> Outcome | None:
        """Save what the turn says, then carry out its command. None when there is nothing more to do now."""
        body = self._cluster.seen(ref)
        if body is None:
            raise NotFound(f"{ref} is gone")
        body = await self._ensure_finalizer(ref, body, cache)
        command, looking = turn.command, None
        must = durable_part(present(turn.status, self._clock.now())) != durable_part(cache.saved)
        if must and command is not None and command.verb in (Verb.DO, Verb.UNDO):
            looking = asyncio.ensure_future(self._context(ref, body, cache, plan).look(command))
        try:
            if must:
                await self._save(ref, cache, turn.status)
            elif command is None:
                await self._save_lazily(ref, cache, plan)
        except BaseException:
            if looking is not None:
                looking.cancel()
            raise
        self._tell(body, turn)
        if command is None:
            return None
        looked = await looking if looking is not None else None
        body = self._cluster.seen(ref) or body
        return await self._context(ref, body, cache, plan).carry_out(command, looked)

    def _context(self, ref: Ref, body: Json, cache: PlanCache, plan: Plan) -> CommandContext:
        return CommandContext(
            cluster=self._cluster,
            metrics=self._ports.metrics,
            messenger=self._ports.messenger,
            ref=ref,
            body=body,
            plan=plan,
            status=cache.status,
            run_cache=cache.run_cache,
            now=self._clock.now(),
        )

    # --- saving -------------------------------------------------------------------------------------------------------

    async def _save(self, ref: Ref, cache: PlanCache, status: Status) -> None:
        now = self._clock.now()
        shown = present(status, now)
        if shown == cache.saved:
            return
        before = cache.saved.run.fence if cache.saved.run else 0
        saved = await self._cluster.save_status(ref, cache.version, write_status(shown))
        cache.version, cache.saved, cache.status = saved["metadata"]["resourceVersion"], shown, shown
        cache.saved_at = now
        if shown.run is not None and shown.run.fence > before:
            cache.fenced_run = shown.run.number
        if shown.run is not None and shown.run.number != cache.run:
            cache.run, cache.run_cache = shown.run.number, RunCache()

    async def _save_lazily(self, ref: Ref, cache: PlanCache, plan: Plan) -> None:
        """Save what people look at when it has changed, but not often."""
        if visible_part(cache.status, plan) == visible_part(cache.saved, plan):
            return
        if cache.saved_at is None or self._clock.now() - cache.saved_at >= LAZY:
            await self._save(ref, cache, cache.status)

    def _tell(self, body: Json, turn: Turn) -> None:
        for notice in turn.notices:
            self._ports.recorder.record(body, notice)

    def _next(self, cache: PlanCache, turn: Turn, plan: Plan) -> timedelta | None:
        now = self._clock.now()
        soon = [turn.look_again, cache.stage.next_look(now), cache.guards.next_look(now)]
        if cache.saved_at is not None and visible_part(cache.status, plan) != visible_part(cache.saved, plan):
            soon.append(max(cache.saved_at + LAZY - now, timedelta(seconds=1)))
        return min((after for after in soon if after is not None), default=None)


def _between_claims(status: Status) -> bool:
    """The targets are ours and are to stay so: a run on its way forward."""
    return status.phase in _FORWARD and status.reason not in (Reason.CLAIMING, Reason.RELEASING)


def _takes_effect(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Done) and not outcome.skip


def _goes_on(last: Command | None, command: Command | None) -> bool:
    """From one stage to the next."""
    return last is not None and command is not None and last.verb is command.verb is Verb.DO and last != command
