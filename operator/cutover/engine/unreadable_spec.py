"""A turn of a plan whose spec cannot be read. Rare; called by the driver instead of its own rounds.

Such a plan is paused, or released, swept and freed of its finalizer once it is abandoned. Of the spec only the account is
read. No field of a target is written, because what it was and is to be is defined in the spec.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from cutover.engine.outcomes import outcome_of
from cutover.engine.plan_cache import PlanCache
from cutover.engine.saving import Saver
from cutover.errors import Broken, Denied, OutsideError, Rejected
from cutover.field_path import Json
from cutover.names import matching
from cutover.objects import jobs
from cutover.plan.parsing import account_of
from cutover.ports import JOBS, PLAN_LABEL, STREAMED, Cluster, Ports, Ref
from cutover.saga.turn import Command, Done, Inputs, Outcome, Turn, Verb
from cutover.status import requests
from cutover.status.status import Status
from cutover.targets import snapshots
from cutover.targets.claims import Owner
from cutover.targets.finalizer import deleted_at, has_finalizer, set_finalizer, terminating
from cutover.targets.targets import Targets


@dataclass(frozen=True, slots=True)
class PlanWithoutSpec:
    """A plan whose spec cannot be read, for one turn.

    Attributes:
        ports: the outside.
        saver: saves and publishes.
        ref: the plan.
        cache: what this process keeps of it.
        current_body: returns the plan after a command may have written it.
    """

    ports: Ports
    saver: Saver
    ref: Ref
    cache: PlanCache
    current_body: Callable[[], Json]

    async def turn(self, body: Json, judge: Callable[..., Turn], outcome: Outcome | None) -> timedelta | None:
        """Advance, save, act, as for every plan: the status is saved before the command that it announces.

        Args:
            body: the plan as it was read.
            judge: the function of the saga for such a plan.
            outcome: what is wrong with the spec, as the outcome of the examination of a plan that has not begun.

        Returns:
            When to take the next turn if nothing happens before.
        """
        last_command: Verb | None = None
        while True:
            inputs = await self._inputs(body, outcome, last_command)
            turn = judge(status=self.cache.status, inputs=inputs, now=self.ports.clock.now())
            self.cache.status = turn.status
            await self.saver.save(self.ref, self.cache, turn.status)
            self.saver.publish(body, turn)
            if turn.command is None:
                return turn.look_again
            body, last_command = self.ports.cluster.seen(self.ref) or body, turn.command.verb
            outcome = await _carry_out(self.ports.cluster, self.ref, body, self.cache.status, turn.command)
            body = self.current_body()

    async def _inputs(self, body: Json, outcome: Outcome | None, last_command: Verb | None) -> Inputs:
        deleted = deleted_at(body)
        return Inputs(
            outcome=outcome,
            last_command=last_command,
            requests=requests.read(body["metadata"].get("annotations") or {}),
            deleted_at=deleted,
            has_finalizer=has_finalizer(body),
            terminating=deleted is not None and await terminating(self.ports.cluster, self.ref.namespace),
        )


async def _carry_out(cluster: Cluster, ref: Ref, body: Json, status: Status, command: Command) -> Outcome:
    """One command; each is safe to repeat."""
    run = status.run
    if run is None:
        raise Broken("a command without a run")
    owner = Owner(ref, body["metadata"]["uid"], run.number, run.fence, account_of(body["spec"]))
    try:
        match command.verb:
            case Verb.RELEASE:
                await _release(cluster, owner)
            case Verb.SWEEP:
                await snapshots.drop_expired(cluster, ref, owner.uid, owner.run)
            case Verb.REMOVE_FINALIZER:
                await set_finalizer(cluster, ref, body, wanted=False)
            case _:
                raise Broken(f"a plan whose spec cannot be read does not {command.verb}")
    except OutsideError as error:
        return outcome_of(command, error)
    return Done()


async def _release(cluster: Cluster, owner: Owner) -> None:
    """The run was abandoned, so its claims are void: where one may not be removed, the others and the snapshots still are."""
    refused, targets = (Denied, Rejected), Targets(cluster, owner)
    if owner.account:
        with suppress(*refused):
            await jobs.release(cluster, owner, abandoned=True)
        for resource in STREAMED:
            if resource == JOBS:
                continue
            for body in await cluster.list(resource, owner.namespace, matching({PLAN_LABEL: owner.uid})):
                with suppress(*refused):
                    await targets.release(Ref(resource, owner.namespace, body["metadata"]["name"]), "", fenced=False)
    await snapshots.drop(cluster, owner.namespace, owner.uid, owner.run)
