"""Carries out what a plan allows whose spec cannot be read: it lets go of what bears its marks, sweeps, unbinds. Used by the driver.

Nothing of the spec is asked but the account. No field of a target is written, because what it was and is to be stands in the spec.
"""

from __future__ import annotations

from contextlib import suppress

from cutover.engine.outcomes import outcome_of
from cutover.errors import Broken, Denied, OutsideError, Rejected
from cutover.field_path import Json
from cutover.objects import jobs
from cutover.plan.plan import account_of
from cutover.ports import JOBS, PLAN_LABEL, STREAMED, Cluster, Ref
from cutover.saga.turn import Command, Done, Outcome, Verb
from cutover.status.status import Status
from cutover.targets import snapshots
from cutover.targets.finalizer import bind
from cutover.targets.targets import Holder, Targets


async def carry_out(cluster: Cluster, ref: Ref, body: Json, status: Status, command: Command) -> Outcome:
    """One command; each is safe to repeat."""
    run = status.run
    if run is None:
        raise Broken("a command without a run")
    holder = Holder(ref, body["metadata"]["uid"], run.number, run.fence, account_of(body["spec"]))
    try:
        match command.verb:
            case Verb.RELEASE:
                await _let_go(cluster, holder)
            case Verb.SWEEP:
                await snapshots.drop_kept(cluster, ref, holder.uid, holder.run)
            case Verb.UNBIND:
                await bind(cluster, ref, body, bound=False)
            case _:
                raise Broken(f"a plan whose spec cannot be read does not {command.verb}")
    except OutsideError as error:
        return outcome_of(command, error)
    return Done()


async def _let_go(cluster: Cluster, holder: Holder) -> None:
    """The run was abandoned, so its claims are void: where one may not be taken off, the others and the snapshots go all the same."""
    refused, targets = (Denied, Rejected), Targets(cluster, holder)
    if holder.account:
        with suppress(*refused):
            await jobs.let_go(cluster, holder, abandoned=True)
        for resource in STREAMED:
            if resource == JOBS:
                continue
            for body in await cluster.list(resource, holder.namespace, f"{PLAN_LABEL}={holder.uid}"):
                with suppress(*refused):
                    await targets.release(Ref(resource, holder.namespace, body["metadata"]["name"]), "", fenced=False)
    await snapshots.drop(cluster, holder.namespace, holder.uid, holder.run)
