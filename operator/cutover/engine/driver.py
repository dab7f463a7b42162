"""One turn of one plan: read, advance, save, act, advance, save. This file alone orders saving and acting.

The status that announces an act is saved before the act, under the resourceVersion that was read. What a command needs to
know is read beside that save. `PlanCaches` keeps what is known between turns, `Saver` saves, `inputs.py` collects what comes
into a turn, `commands.py` acts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

from cutover.engine import commands, inputs
from cutover.engine.command_context import CommandContext, Rests
from cutover.engine.criteria import with_report
from cutover.engine.ended_plan import idle_turn
from cutover.engine.former_plans import FormerPlans
from cutover.engine.plan_cache import PlanCache, PlanCaches
from cutover.engine.saving import Saver
from cutover.engine.unreadable_spec import PlanWithoutSpec
from cutover.errors import Conflict, NotFound, PlanError, Superseded
from cutover.field_path import Json
from cutover.gates.watch import Spawn
from cutover.plan.crd_gap import CrdGap
from cutover.plan.spec import Plan
from cutover.plan.status_document import read_status
from cutover.ports import Ports, Ref
from cutover.saga import advance
from cutover.saga.turn import Command, Failed, Outcome, Rules, Turn, Verb
from cutover.saga.unreadable_spec import unreadable
from cutover.status.durable import needs_no_snapshots
from cutover.status.limits import with_crd_remark
from cutover.status.status import ENDED
from cutover.targets import snapshots
from cutover.targets.finalizer import has_finalizer, needs_finalizer, set_finalizer

_ROUNDS: Final = 300
"""Commands in one turn, at most: a plan of 64 steps with all their stages to be skipped needs fewer."""


class Driver:
    """Drives all plans of this process; the queue sees to it that each plan has one turn at a time.

    Args:
        ports: the outside.
        spawn: runs a measurement beside the turns.
        wake: requests another turn of a plan.
        others_wait: whether other plans wait for the place that the turn of a plan has.
        report_dropped: called with what the API server has dropped of a save, because its CRD is older than this process.
    """

    def __init__(
        self,
        ports: Ports,
        spawn: Spawn,
        wake: Callable[[Ref], None],
        others_wait: Callable[[Ref], bool] = lambda _: False,
        report_dropped: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self._ports, self._others_wait = ports, others_wait
        self._cluster, self._clock = ports.cluster, ports.clock
        self._caches, self._saver = PlanCaches(spawn, wake, ports.clock), Saver(ports, report_dropped)
        self._crd, self._rests = CrdGap(), Rests()
        self._former = FormerPlans(ports.cluster, ports.clock)

    def deleted(self, ref: Ref, uid: str) -> None:
        """An event says that a plan was deleted. A 404 proves less: a starting API server may answer it for a moment."""
        self._former.add(ref, uid)

    def failed(self, ref: Ref) -> bool:
        """Whether a gate or guard of a plan has failed since its last turn."""
        return self._caches.failed(ref)

    def crd_read(self, gap: CrdGap) -> None:
        """What the CRD lacks, from now on; what was dropped is saved again, which also tells whether it still is."""
        if self._crd.paths:
            self._caches.save_again()
        self._crd, self._caches.drops = gap, gap.unread or bool(gap.paths)

    async def turn(self, ref: Ref) -> timedelta | None:
        """One turn.

        Returns:
            When to take the next turn if nothing happens before; None: only an event can bring news.

        Raises:
            Unavailable: the API server gave no answer; try again later.
        """
        if (unsure := self._caches.unsure(ref)) is not None:
            await self._reread(ref, unsure)
        body = self._cluster.seen(ref)
        if body is None:
            await self._former.drop(ref)
            self._caches.forget(ref)
            return None
        cache = self._caches.of(ref, body)
        quiet = self._caches.quiet_for(ref)
        if quiet > timedelta():
            return quiet
        try:
            after = await self._turn(ref, body, cache)
        except (Conflict, Superseded):
            # Somebody else wrote the plan, or drives it: what we know is old. Read it now and begin again.
            cache.unsure = True
            await self._reread(ref, cache)
            return timedelta(seconds=0.1)
        except NotFound:
            self._caches.drop(ref)
            return None
        self._caches.drop_ended(ref)
        due = await self._former.try_to_drop(ref)
        return min((each for each in (after, due) if each is not None), default=None)

    async def _turn(self, ref: Ref, body: Json, cache: PlanCache) -> timedelta | None:
        idle = idle_turn(body, cache, self._clock.now())
        if idle is not None and not self._saver.must_save(cache, idle.status):
            return idle.look_again
        # Before all else: an active plan without our finalizer could be deleted under our hands.
        body = await self._ensure_finalizer(ref, body, cache)
        if _spec_problem(ref, body, cache):  # no event tells that a CRD was restored, so it is read again
            body = await self._cluster.get(ref)
            cache = self._caches.of(ref, body)
            if problem := _spec_problem(ref, body, cache):
                return await self._without_spec(ref, body, cache, partial(unreadable, message=problem))
        plan, spec_hash = cache.read_spec(ref.name, body["spec"])
        generation = body["metadata"]["generation"]
        if isinstance(plan, PlanError):
            rules = Rules(steps=(), generation=generation, spec_hash=spec_hash, start_deadline=timedelta())
            return await self._without_spec(ref, body, cache, partial(advance, rules), Failed("Invalid", str(plan)))
        return await self._rounds(ref, body, cache, plan, plan.rules(generation, spec_hash))

    async def _rounds(self, ref: Ref, body: Json, cache: PlanCache, plan: Plan, rules: Rules) -> timedelta | None:
        """Advance, save, act; again for as long as the outcome of one command leads to the next."""
        turn = await self._advance(self._context(ref, body, cache, plan), cache, rules)
        for round_ in range(_ROUNDS):
            outcome = await self._save_and_act(ref, cache, plan, turn)
            if outcome is None:
                return self._next_look(cache, turn, plan)
            body = self._current_body(ref, cache)  # the command may have written the plan itself
            # Otherwise a run could begin and freeze another spec than the one these rules are of.
            if body["metadata"]["generation"] != rules.generation:
                return timedelta()
            last, context = turn.command, self._context(ref, body, cache, plan)
            turn = await self._advance(context, cache, rules, (last, outcome))
            if self._others_wait(ref) and _goes_on(last, turn.command) and (round_ or (last and last.stage)):
                await self._saver.save(ref, cache, turn.status)
                self._saver.publish(body, turn)
                return timedelta()  # each plan gets one weight before any gets its next
        return timedelta()  # the last command is neither announced nor done yet

    async def _advance(
        self,
        context: CommandContext,
        cache: PlanCache,
        rules: Rules,
        answer: tuple[Command | None, Outcome] | None = None,
    ) -> Turn:
        came_in = await inputs.collect(context, cache, rules, self._clock, answer)
        came_in = replace(came_in, outdated_crd=self._crd.problem)
        turn = advance(rules, context.status, came_in, context.now)
        if context.status.phase not in ENDED:  # the report is saved with the end itself, and never added later
            status = with_crd_remark(turn.status, self._crd.remark, context.now)
            turn = replace(turn, status=with_report(context.plan, status))
        cache.status = turn.status
        return turn

    async def _save_and_act(self, ref: Ref, cache: PlanCache, plan: Plan, turn: Turn) -> Outcome | None:
        """Save the status of the turn, then carry out its command. None when there is nothing more to do now."""
        body = self._cluster.seen(ref)
        if body is None:
            raise NotFound(f"{ref} is gone")
        body = await self._ensure_finalizer(ref, body, cache)
        command, prefetching = turn.command, None
        must_save = self._saver.must_save(cache, turn.status)
        if must_save and command is not None and command.verb in (Verb.DO, Verb.UNDO):
            # Reads only, so it may run beside the save: the hot path then takes two rounds of requests, not three.
            prefetching = asyncio.ensure_future(commands.prefetch(self._context(ref, body, cache, plan), command))
        try:
            if must_save:
                await self._saver.save(ref, cache, turn.status)
            elif command is None:
                await self._saver.save_lazily(ref, cache, plan)
        except BaseException:
            if prefetching is not None:
                prefetching.cancel()
            raise
        self._saver.publish(body, turn)
        if command is None:
            return None
        prefetched = await prefetching if prefetching is not None else None
        body = self._cluster.seen(ref) or body
        return await commands.carry_out(self._context(ref, body, cache, plan), command, prefetched)

    def _next_look(self, cache: PlanCache, turn: Turn, plan: Plan) -> timedelta | None:
        now = self._clock.now()
        soon = (
            turn.look_again,
            cache.stage.next_look(now),
            cache.guards.next_look(now),
            self._saver.next_lazy_save(cache, plan, now),
        )
        return min((after for after in soon if after is not None), default=None)

    # --- the plan as the API server has it ----------------------------------------------------------------------------

    async def _ensure_finalizer(self, ref: Ref, body: Json, cache: PlanCache) -> Json:
        """Add our finalizer to an active plan that was written without it, as `kubectl replace` does."""
        if not needs_finalizer(cache.status, body):
            return body
        if body["metadata"]["resourceVersion"] != cache.version:
            raise Conflict(f"{ref} has changed in the middle of a turn")
        cache.unsure = True
        await set_finalizer(self._cluster, ref, body, wanted=True)
        cache.unsure = False
        return self._current_body(ref, cache)

    def _current_body(self, ref: Ref, cache: PlanCache) -> Json:
        """The plan after a write of ours to it, with the status that we know.

        Raises:
            NotFound: it is gone.
            Superseded: another process has saved it in between, so what this turn was about is no longer current.
        """
        body, ours = self._cluster.seen(ref), cache.status
        if body is None:
            raise NotFound(f"{ref} is gone")
        if self._caches.of(ref, body) is not cache or cache.status is not ours:
            raise Superseded("another process has saved the plan in between")
        return body

    async def _reread(self, ref: Ref, cache: PlanCache) -> None:
        """Read a plan whose cache is not to be trusted, and delete what this process has written too late."""
        try:
            body = await self._cluster.get(ref)
        except NotFound:
            self._caches.drop(ref)
            return
        if body["metadata"]["uid"] != cache.uid:  # created again: the former plan needs nothing any more
            self._caches.drop(ref)
            self._former.add(ref, cache.uid)
            return
        read = read_status(body.get("status"))
        run = read.run
        if cache.run and run and (run.number != cache.run or needs_no_snapshots(read.phase, run.keep_until)):
            # This process may have been suspended in the middle of a write until another one had ended the run.
            await snapshots.drop(self._cluster, ref.namespace, cache.uid, cache.run)
        self._caches.read_again(ref, read, cache)

    async def _without_spec(
        self, ref: Ref, body: Json, cache: PlanCache, judge: Callable[..., Turn], outcome: Outcome | None = None
    ) -> timedelta | None:
        current_body = partial(self._current_body, ref, cache)
        return await PlanWithoutSpec(self._ports, self._saver, ref, cache, current_body).turn(body, judge, outcome)

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
            rests=self._rests,
            remembered=self._caches.remembered,
            clock=self._clock,
            now=self._clock.now(),
            runner_image=self._ports.runner_image,
        )


def _spec_problem(ref: Ref, body: Json, cache: PlanCache) -> str:
    return cache.spec_problem(ref.name, body["spec"], has_finalizer=has_finalizer(body))


def _goes_on(last: Command | None, command: Command | None) -> bool:
    """From one stage to the next."""
    return last is not None and command is not None and last.verb is command.verb is Verb.DO and last != command
