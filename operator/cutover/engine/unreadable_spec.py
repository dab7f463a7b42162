"""Carries out what a plan allows whose spec cannot be read: it lets go of what bears its marks, sweeps, unbinds. Used by the driver.

Nothing of the spec is asked but the account. No field of a target is written, because what it was and is to be stands in the spec.
"""

from __future__ import annotations

from contextlib import suppress

from cutover.engine.outcomes import outcome_of
from cutover.errors import Broken, Denied, OutsideError, Rejected
from cutover.field_path import Json
from cutover.objects import jobs
from cutover.plan.parsing import account_of
from cutover.ports import JOBS, PLAN_LABEL, STREAMED, Cluster, Ref
from cutover.saga.turn import Command, Done, Outcome, Verb
from cutover.status.status import Status
from cutover.targets import snapshots
from cutover.targets.claims import Owner
from cutover.targets.finalizer import set_finalizer
from cutover.targets.targets import Targets


async def carry_out(cluster: Cluster, ref: Ref, body: Json, status: Status, command: Command) -> Outcome:
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
                await snapshots.drop_kept(cluster, ref, owner.uid, owner.run)
            case Verb.REMOVE_FINALIZER:
                await set_finalizer(cluster, ref, body, wanted=False)
            case _:
                raise Broken(f"a plan whose spec cannot be read does not {command.verb}")
    except OutsideError as error:
        return outcome_of(command, error)
    return Done()


async def _release(cluster: Cluster, owner: Owner) -> None:
    """The run was abandoned, so its claims are void: where one may not be taken off, the others and the snapshots go all the same."""
    refused, targets = (Denied, Rejected), Targets(cluster, owner)
    if owner.account:
        with suppress(*refused):
            await jobs.release(cluster, owner, abandoned=True)
        for resource in STREAMED:
            if resource == JOBS:
                continue
            for body in await cluster.list(resource, owner.namespace, f"{PLAN_LABEL}={owner.uid}"):
                with suppress(*refused):
                    await targets.release(Ref(resource, owner.namespace, body["metadata"]["name"]), "", fenced=False)
    await snapshots.drop(cluster, owner.namespace, owner.uid, owner.run)
