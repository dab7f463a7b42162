"""A look at a database before the first step: one Job that only reads, and what its result means for the plan.

Called by `database_kind.py`. It goes by what is there: a Job of the same name says how the look ended, in any process.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cutover.errors import Conflict, Problem
from cutover.field_path import Json
from cutover.objects import database_pods, jobs, pods
from cutover.objects.jobs import State, state_of
from cutover.objects.refused_pods import refused_by_events
from cutover.ports import FENCE_LABEL, JOBS, MADE_LABEL, PLAN_LABEL, Ref
from cutover.runner_messages.sentences import sentence
from cutover.steps.kind import StepContext
from cutover.steps.shared import job_runs

_MEMO: Final = "look "
_REST: Final = timedelta(seconds=10)
"""Until it is looked again: each look is a pod."""
_LONGEST: Final = 600
"""Seconds of one look."""
_LONG_FOR_A_POD: Final = timedelta(seconds=5)
"""Until events are read that tell why there is no pod."""
_GOOD_FOR: Final = timedelta(minutes=10)
"""A plan that was Refused may be tried again much later."""


@dataclass(frozen=True, slots=True)
class _Found:
    uid: str
    message: str
    at: datetime


def never_claimed(body: Json, context: StepContext) -> Json:
    """A Job as a look needs it: it runs at once, and goes with the plan, which has no finalizer yet."""
    metadata = body["metadata"]
    for label in (PLAN_LABEL, FENCE_LABEL):
        metadata["labels"].pop(label)
    metadata["ownerReferences"] = [jobs.owner_reference(context.targets.owner)]
    # One pod: it is looked again, as long as the plan may still begin. And an end, also of a pod that never starts.
    body["spec"] |= {"suspend": False, "backoffLimit": 0, "activeDeadlineSeconds": _LONGEST}
    return body


async def look(context: StepContext, manifest: Json, place: str, where: str) -> list[Problem]:
    """One call of a look: create the Job, see how it is getting on, or take its result.

    Args:
        context: of the command.
        manifest: the Job.
        place: where the step stands in the plan, for messages.
        where: what is looked at, such as ``database shop``.
    """
    ref = Ref(JOBS, context.namespace, manifest["metadata"]["name"])
    body = await job_runs.read(context, ref.name)
    if body is None:
        with suppress(Conflict):  # another process was faster; the next call reads it
            await job_runs.create(context, manifest)
        return [Problem(place, _last(context, ref) or f"Job {ref.name} begins to look at {where}")]
    state = state_of(body)
    if (body["metadata"].get("labels") or {}).get(MADE_LABEL) != context.targets.owner.uid:
        return [Problem(place, f"there is a Job {ref.name} that this plan has not created; delete it")]
    if state.complete and not _too_old(body, context.now):
        return []
    if state.finished:
        found = await _failed(context, state, where)
        if state.complete or context.now - found.at >= _REST:
            await context.cluster.remove(ref, state.uid, context.targets.owner.account)
        return [Problem(place, found.message)]
    if why := await _waits_for(context, ref, body):
        return [Problem(place, f"Job {ref.name} looks at {where}: {why}")]
    return [Problem(place, _last(context, ref) or f"Job {ref.name} looks at {where}")]


async def _waits_for(context: StepContext, ref: Ref, body: Json) -> str:
    seen = await pods.pods_of(context.cluster, context.namespace, ref.name)
    created = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
    if seen or context.now - created < _LONG_FOR_A_POD:
        return pods.waits_for(seen, context.namespace)
    return await refused_by_events(context.cluster, ref, body["metadata"]["uid"], created)


def _last(context: StepContext, ref: Ref) -> str:
    """What the look before this one has found: people should not have to catch it in the instant between two Jobs."""
    found = context.memo.get(_MEMO + ref.name)
    return found.message if found is not None else ""


async def _failed(context: StepContext, state: State, where: str) -> _Found:
    """What a look has found, and since when this process knows."""
    before = context.memo.get(_MEMO + state.name)
    if before is not None and before.uid == state.uid:
        return before  # type: ignore[no-any-return]  # nobody else uses these keys
    if state.complete:
        message = f"{where} was looked at long ago; it is looked at again"
    else:
        seen = await pods.pods_of(context.cluster, context.namespace, state.name)
        told = database_pods.told_by(seen, complete=False)
        message = f"{where}: {sentence(told)}" if told else f"Job {state.name} failed: {pods.exit_of(seen).message}"
    found = _Found(state.uid, message, context.now)
    context.memo[_MEMO + state.name] = found
    return found


def _too_old(body: Json, now: datetime) -> bool:
    ended = (body.get("status") or {}).get("completionTime", "")
    return bool(ended) and now - datetime.fromisoformat(ended) > _GOOD_FOR
