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
from cutover.engine.commands import Hand, Recollection
from cutover.engine.criteria import with_report
from cutover.engine.plan_cache import Memory, looked_at
from cutover.errors import Conflict, NotFound, PlanError, Superseded, Unavailable
from cutover.field_path import Json
from cutover.gates.watch import Spawn, Watch
from cutover.plan.plan import Plan, read_status, write_status
from cutover.ports import PLANS, Ports, Ref
from cutover.saga import advance, unreadable
from cutover.saga.draft import position, stage_of
from cutover.saga.turn import Command, Done, Failed, Inputs, OnFailure, Outcome, Rules, Turn, Verb
from cutover.status import requests
from cutover.status.conditions import present
from cutover.status.reasons import Reason
from cutover.status.status import ACTIVE, ENDED, Phase, Status, StepState, settled, takes_nothing_back
from cutover.targets import snapshots
from cutover.targets.finalizer import bind, deleted_at, is_bound, must_be_bound, terminating

log = logging.getLogger(__name__)

LAZY: Final = timedelta(seconds=10)
"""How often at most what may be lost is saved for its own sake."""
QUIET: Final = timedelta(seconds=15)
"""After another process has saved a plan we leave it alone for so long: as long as a Lease is valid."""
_ROUNDS: Final = 300
"""Commands in one turn, at most: a plan of 64 steps with all their stages to be skipped ends before."""
_FORWARD: Final = (Phase.RUNNING, Phase.WAITING, Phase.HELD)
_BACKWARD: Final = (Phase.UNWINDING, Phase.STUCK)


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
        self._memories: dict[Ref, Memory] = {}
        self._quiet: dict[Ref, datetime] = {}
        self._deleted: dict[Ref, list[str]] = {}
        self._unsure: dict[Ref, Memory] = {}

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
            self._forget(ref)
            self._quiet.pop(ref, None)
            return None
        memory = self._recall(ref, body)
        quiet = self._quiet.get(ref, self._clock.now()) - self._clock.now()
        if quiet > timedelta():
            return quiet
        try:
            return await self._turn(ref, body, memory)
        except (Conflict, Superseded):
            # Somebody else wrote the plan, or has it: what we know is old. Read it now, begin again.
            await self._reread(ref, memory)
            return timedelta(seconds=0.1)
        except NotFound:
            self._forget(ref)
            return None
        except Unavailable:
            # A save without an answer may have taken effect: the next turn begins with a read, when the server may want one.
            self._unsure[ref] = memory
            raise

    async def _reread(self, ref: Ref, memory: Memory) -> None:
        self._forget(ref)
        try:
            body = await self._cluster.get(ref)
        except NotFound:
            return
        # Made anew: nobody else has it, and the former needs nothing any more.
        if body["metadata"]["uid"] != memory.uid:
            await snapshots.drop_all(self._cluster, ref.namespace, memory.uid)
            return
        read = read_status(body.get("status"))
        self._mind_the_other(ref, read, memory)
        run = read.run
        if memory.run and run and (run.number != memory.run or takes_nothing_back(read.phase, run.keep_until)):
            # We may have slept in the middle of a write, until another process had ended the run and tidied up.
            await snapshots.drop(self._cluster, ref.namespace, memory.uid, memory.run)

    def _mind_the_other(self, ref: Ref, read: Status, memory: Memory) -> None:
        """Another process has saved what we did not: it drives this plan, and we keep away for as long as it goes on.

        Harmless would be to go on as well, because every take-over raises the fence. But two that take over from each other
        with every turn get nowhere.
        """
        ours = present(memory.status, self._clock.now())  # as it would have been saved
        if settled(read) not in (settled(memory.saved), settled(ours)):
            self._quiet[ref] = self._clock.now() + QUIET

    # --- memory -------------------------------------------------------------------------------------------------------

    def _forget(self, ref: Ref) -> None:
        memory = self._memories.pop(ref, None)
        if memory is not None:
            memory.stage.stop()
            memory.guards.stop()

    def _recall(self, ref: Ref, body: Json) -> Memory:
        """The memory of this very plan, brought up to what the API server has."""
        metadata = body["metadata"]
        memory = self._memories.get(ref)
        if memory is not None and memory.uid != metadata["uid"]:
            self._forget(ref)
            memory = None
        if memory is None:
            watch = partial(Watch, self._spawn, lambda: self._wake(ref))
            memory = Memory(metadata["uid"], watch(), watch())
            self._memories[ref] = memory
        if memory.version != metadata["resourceVersion"]:
            read = read_status(body.get("status"))
            if settled(read) != settled(memory.saved):  # another process has been here, or we have just begun
                if memory.version:
                    self._mind_the_other(ref, read, memory)
                memory.status, memory.fenced_run = read, 0
            elif not memory.fenced_run and read != memory.saved:  # another process knows more
                memory.status = read
            memory.saved, memory.version = read, metadata["resourceVersion"]
        run = memory.status.run.number if memory.status.run else 0
        if run != memory.run:
            memory.run, memory.recollection = run, Recollection()
        return memory

    # --- the turn -----------------------------------------------------------------------------------------------------

    async def _turn(self, ref: Ref, body: Json, memory: Memory) -> timedelta | None:
        body = await self._keep_bound(ref, body, memory)
        if memory.strange(ref.name, body["spec"], bound=is_bound(body)):  # no event tells that a CRD was put back
            body = await self._cluster.get(ref)
            memory = self._recall(ref, body)
            if why := memory.strange(ref.name, body["spec"], bound=is_bound(body)):
                return await self._without_spec(ref, body, memory, partial(unreadable, message=why))
        plan, spec_hash = memory.read_spec(ref.name, body["spec"])
        if isinstance(plan, PlanError):
            rules = Rules(
                steps=(), generation=body["metadata"]["generation"], spec_hash=spec_hash, start_deadline=timedelta()
            )
            return await self._without_spec(ref, body, memory, partial(advance, rules), Failed("Invalid", str(plan)))
        rules = plan.rules(body["metadata"]["generation"], spec_hash)
        turn = await self._advance(body, memory, plan, rules)
        for round_ in range(_ROUNDS):
            outcome = await self._save_and_act(ref, memory, plan, turn)
            if outcome is None:
                break
            body = self._news(ref, memory)  # the command may have written the plan itself
            if body["metadata"]["generation"] != rules.generation:  # else a run could begin and freeze another spec
                return timedelta()
            last, turn = turn.command, await self._advance(body, memory, plan, rules, (turn.command, outcome))
            if self._others_wait() and _goes_on(last, turn.command) and (round_ or (last and last.stage)):
                await self._save(ref, memory, turn.status)
                self._tell(body, turn)
                return timedelta()  # each plan one weight, before any has its next
        else:
            return timedelta()  # the last command is neither announced nor done yet
        return self._next(memory, turn, plan)

    async def _keep_bound(self, ref: Ref, body: Json, memory: Memory) -> Json:
        """Set our finalizer again, before all else, on an active plan that was written without it, as `kubectl replace` does."""
        if not must_be_bound(memory.status, body):
            return body
        if body["metadata"]["resourceVersion"] != memory.version:
            raise Conflict(f"{ref} has changed in the middle of a turn")
        await bind(self._cluster, ref, body, bound=True)
        return self._news(ref, memory)

    def _news(self, ref: Ref, memory: Memory) -> Json:
        """The plan as it is after a write of ours to it; what it says of the run is what we know.

        Raises:
            NotFound: it is gone.
            Superseded: another process has saved it meanwhile, so what we were about is no longer in hand.
        """
        body, ours = self._cluster.seen(ref), memory.status
        if body is None:
            raise NotFound(f"{ref} is gone")
        if self._recall(ref, body) is not memory or memory.status is not ours:
            raise Superseded("another process has saved the plan meanwhile")
        return body

    async def _without_spec(
        self, ref: Ref, body: Json, memory: Memory, judge: Callable[..., Turn], outcome: Outcome | None = None
    ) -> timedelta | None:
        """A plan whose spec cannot be read: nothing is done to any target, but that one which was abandoned lets go of them."""
        answered: Verb | None = None
        while True:
            deleted = deleted_at(body)
            inputs = Inputs(
                outcome=outcome,
                answered=answered,
                requests=requests.read(body["metadata"].get("annotations") or {}),
                deleted_at=deleted,
                bound=is_bound(body),
                terminating=deleted is not None and await terminating(self._cluster, ref.namespace),
            )
            turn = judge(status=memory.status, inputs=inputs, now=self._clock.now())
            memory.status = turn.status
            await self._save(ref, memory, turn.status)
            self._tell(body, turn)
            if turn.command is None:
                return turn.look_again
            body, answered = self._cluster.seen(ref) or body, turn.command.verb
            outcome = await unreadable_spec.carry_out(self._cluster, ref, body, memory.status, turn.command)
            body = self._news(ref, memory)

    async def _advance(
        self, body: Json, memory: Memory, plan: Plan, rules: Rules, answer: tuple[Command | None, Outcome] | None = None
    ) -> Turn:
        command, outcome = answer or (None, None)
        now = self._clock.now()
        status = memory.status
        metadata = body["metadata"]
        active_run = status.run.number if status.run and status.phase in ACTIVE else 0
        hand = self._hand(Ref(PLANS, metadata["namespace"], metadata["name"]), body, memory, plan)
        deleted = deleted_at(body)
        inputs = Inputs(
            outcome=outcome,
            answered=command.verb if command else None,
            written=status.current is not None and hand.written(position(status)),
            trouble=await hand.trouble() if _between_claims(status) and outcome is None else None,
            gates=await self._gates(hand, memory, rules, now if _takes_effect(outcome) else None),
            guards=await self._guards(hand, memory),
            requests=requests.read(metadata.get("annotations") or {}),
            deleted_at=deleted,
            suspended=plan.suspend,
            taken_over=active_run not in (0, memory.fenced_run),
            bound=is_bound(body),
            opening=plan.opening(now),
            terminating=bool(deleted)
            and status.phase in ACTIVE
            and await terminating(self._cluster, hand.ref.namespace),
            ready_to_undo=await hand.ready_to_undo() if status.phase in _BACKWARD else frozenset(),
        )
        turn = advance(rules, status, inputs, now)
        if status.phase not in ENDED:  # saved with the end itself, and never added to one that is there
            turn = replace(turn, status=with_report(plan, turn.status))
        memory.status = turn.status
        return turn

    async def _gates(self, hand: Hand, memory: Memory, rules: Rules, effect: datetime | None) -> tuple[Any, ...]:
        """The gates of the stage in hand, from the moment it is in effect: what was seen before, or `effect`."""
        status = memory.status
        current = status.current
        if status.phase not in (Phase.RUNNING, Phase.WAITING) or current is None or not current.stage:
            memory.stage.stop()
            return ()
        since = current.applied_at or effect
        if since is None:
            memory.stage.stop()
            return ()
        at, stage = position(status), stage_of(status)
        if status.steps[at].state not in (StepState.DOING, StepState.WAITING):
            return ()
        step, attempt = hand.plan.steps[at], status.steps[at].attempt
        since += rules.steps[at].stages[stage].settle
        memory.stage.turn_to((memory.run, step.name, attempt, stage, since), step.gates, since)
        return await memory.stage.look(hand.surroundings(step, self._clock, f"{step.name}/{attempt}/{stage}"))

    async def _guards(self, hand: Hand, memory: Memory) -> tuple[Any, ...]:
        status, plan = memory.status, hand.plan
        watched = status.phase in (Phase.RUNNING, Phase.WAITING) or (
            status.phase is Phase.HELD and plan.on_failure is OnFailure.ROLLBACK
        )
        if not watched or status.run is None or status.current is None:
            memory.guards.stop()
            return ()
        memory.guards.turn_to((memory.run, "guards"), plan.guards, status.run.started_at, guard=True)
        return await memory.guards.look(hand.surroundings(plan.step(status.current.step), self._clock, "/guards"))

    async def _save_and_act(self, ref: Ref, memory: Memory, plan: Plan, turn: Turn) -> Outcome | None:
        """Save what the turn says, then carry out its command. None when there is nothing more to do now."""
        body = self._cluster.seen(ref)
        if body is None:
            raise NotFound(f"{ref} is gone")
        body = await self._keep_bound(ref, body, memory)
        command, looking = turn.command, None
        must = settled(present(turn.status, self._clock.now())) != settled(memory.saved)
        if must and command is not None and command.verb in (Verb.DO, Verb.UNDO):
            looking = asyncio.ensure_future(self._hand(ref, body, memory, plan).look(command))
        try:
            if must:
                await self._save(ref, memory, turn.status)
            elif command is None:
                await self._save_lazily(ref, memory, plan)
        except BaseException:
            if looking is not None:
                looking.cancel()
            raise
        self._tell(body, turn)
        if command is None:
            return None
        looked = await looking if looking is not None else None
        body = self._cluster.seen(ref) or body
        return await self._hand(ref, body, memory, plan).carry_out(command, looked)

    def _hand(self, ref: Ref, body: Json, memory: Memory, plan: Plan) -> Hand:
        return Hand(
            cluster=self._cluster,
            metrics=self._ports.metrics,
            messenger=self._ports.messenger,
            ref=ref,
            body=body,
            plan=plan,
            status=memory.status,
            recollection=memory.recollection,
            now=self._clock.now(),
        )

    # --- saving -------------------------------------------------------------------------------------------------------

    async def _save(self, ref: Ref, memory: Memory, status: Status) -> None:
        now = self._clock.now()
        shown = present(status, now)
        if shown == memory.saved:
            return
        before = memory.saved.run.fence if memory.saved.run else 0
        saved = await self._cluster.save_status(ref, memory.version, write_status(shown))
        memory.version, memory.saved, memory.status = saved["metadata"]["resourceVersion"], shown, shown
        memory.saved_at = now
        if shown.run is not None and shown.run.fence > before:
            memory.fenced_run = shown.run.number
        if shown.run is not None and shown.run.number != memory.run:
            memory.run, memory.recollection = shown.run.number, Recollection()

    async def _save_lazily(self, ref: Ref, memory: Memory, plan: Plan) -> None:
        """Save what people look at when it has changed, but not often."""
        if looked_at(memory.status, plan) == looked_at(memory.saved, plan):
            return
        if memory.saved_at is None or self._clock.now() - memory.saved_at >= LAZY:
            await self._save(ref, memory, memory.status)

    def _tell(self, body: Json, turn: Turn) -> None:
        for notice in turn.notices:
            self._ports.recorder.record(body, notice)

    def _next(self, memory: Memory, turn: Turn, plan: Plan) -> timedelta | None:
        now = self._clock.now()
        soon = [turn.look_again, memory.stage.next_look(now), memory.guards.next_look(now)]
        if memory.saved_at is not None and looked_at(memory.status, plan) != looked_at(memory.saved, plan):
            soon.append(max(memory.saved_at + LAZY - now, timedelta(seconds=1)))
        return min((after for after in soon if after is not None), default=None)


def _between_claims(status: Status) -> bool:
    """The targets are ours and are to stay so: a run on its way forward."""
    return status.phase in _FORWARD and status.reason not in (Reason.CLAIMING, Reason.RELEASING)


def _takes_effect(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Done) and not outcome.skip


def _goes_on(last: Command | None, command: Command | None) -> bool:
    """From one stage to the next."""
    return last is not None and command is not None and last.verb is command.verb is Verb.DO and last != command
