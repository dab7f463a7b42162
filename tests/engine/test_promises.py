"""Sentences of the design about saving, acting and measuring: each with the case that would break it."""

from __future__ import annotations

import asyncio
import copy
import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from cutover.errors import Rejected
from cutover.ports import FINALIZER, JOBS, PLANS, SNAPSHOTS, Ref, Sample
from cutover.preflight.look import Look
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.steps import KINDS
from cutover.steps.kind import Kind
from engine.test_corner_cases import APPROVE, DEPLOY
from engine.test_other_writers import shifted, weights
from support.fakes.shop import CANARY, V2, plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import STORIES, Story, play

SOAK = """
steps:
  - name: soak
    check: {for: 1m}
    gates: [{name: errors, interval: 1s, successThreshold: 1, failureThreshold: 100, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_no_command_waits_for_what_it_has_begun(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sleeps, or waits with a deadline, asks the loop for a timer; and a plan is Waiting for nobody but a person."""
    run, timers, waited = Simulation(plan(story.spec), put=story.put), list[Any](), set[str]()

    def note(*asked: Any, **_: Any) -> Any:
        timers.append(asked)
        raise AssertionError("a turn waits")

    def told(verb: str, _: Ref, content: Any) -> None:
        if verb == "status" and content["phase"] == "Waiting":
            waited.add(content["reason"])

    run.cluster.told = told
    # A look has a deadline for requests that get no answer. It asks the loop for a timer too, but waits for nothing that was begun.
    monkeypatch.setattr(Look.__init__, "__defaults__", (None,))
    monkeypatch.setattr(asyncio.get_running_loop(), "call_at", note)
    assert await play(story, run) is story.end
    assert timers == []
    assert waited <= {"AwaitingApproval"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_each_kind_says_why_it_is_idempotent(kind: type[Kind]) -> None:
    assert "idempotent" in " ".join((kind.__doc__ or "").split()).lower()


async def test_a_turn_whose_save_conflicts_does_nothing() -> None:
    """Somebody writes the plan between the look at it and the save; the next turn begins with what stands there then."""
    run, done = await shifted(weight=10), list[tuple[int, int]]()
    save = run.cluster.save_status

    async def meanwhile(ref: Ref, resource_version: str, status: Any) -> Any:
        if status.get("current", {}).get("weight") == 50:
            run.cluster.save_status = save  # type: ignore[method-assign]
            run.request(RequestVerb.ABORT)
            done.append((len(run.cluster.writes), len(run.recorder.notices)))
        return await save(ref, resource_version, status)

    run.cluster.save_status = meanwhile  # type: ignore[method-assign]
    await run.until(lambda: bool(done))
    assert [(len(run.cluster.writes), len(run.recorder.notices))] == done
    assert weights(run) == [90, 10]
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "Aborted"


async def test_samples_live_in_memory_and_start_again_after_a_crash() -> None:
    """Three passes one after the other, of which two were seen by a process that is no more."""
    run, asked = (
        Simulation(plan(SOAK.replace("1m", "0s").replace("Threshold: 1,", "Threshold: 3,")), put=shop),
        list[str](),
    )

    def answer(query: str) -> Sample:
        asked.append(query)
        return Sample(0.1)

    run.metrics.answer = answer
    await run.until(lambda: len(asked) == 2)
    run.restart()
    assert await run.run() is Phase.SUCCEEDED
    assert len(asked) == 2 + 3


@pytest.mark.parametrize(
    ("values", "saves"), [([0.1, 0.2], range(2, 3)), ([0.1, 0.9], range(5, 8))], ids=["figures", "verdicts"]
)
async def test_a_stage_costs_one_event_and_a_save_when_a_verdict_changed_every_ten_seconds_at_most(
    values: list[float], saves: range
) -> None:
    run, saved = Simulation(plan(SOAK), put=shop), list[datetime]()
    answers = itertools.cycle(values)
    run.metrics.answer = lambda _: Sample(next(answers))

    def told(verb: str, _: Ref, content: Any) -> None:
        if verb == "status" and content.get("current"):
            saved.append(run.clock.now())

    run.cluster.told = told
    begun = run.clock.now()
    await run.until(lambda: run.over or (run.clock.now() - begun).total_seconds() >= 60)
    gaps = [(later - before).total_seconds() for before, later in itertools.pairwise(saved)]
    assert all(gap >= 10 for gap in gaps), gaps
    assert len(saved) in saves, gaps
    assert [notice.reason for notice in run.recorder.notices].count("StageStarted") == 1


async def test_guards_are_evaluated_while_an_approval_is_awaited() -> None:
    guard = 'guards: [{name: budget, interval: 5s, prometheus: {query: burn}, pass: {max: "0.5"}}]'
    run = Simulation(plan(f"{guard}{APPROVE}"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.metrics.answer = lambda _: Sample(0.9)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert (run.status.failure.step, run.status.failure.reason) == ("ok", "GuardFailed")


async def test_the_spec_of_a_run_is_frozen_from_the_moment_it_claims() -> None:
    """The CRD refuses it too; where another one lets it through, nothing goes on with it."""
    run = await shifted(weight=10)
    body = copy.deepcopy(run.cluster.objects[run.plan])
    body["spec"]["steps"][1]["traffic"]["weights"] = [10, 60, 100]
    run.cluster.put(PLANS, body)
    run.clock.pass_time(timedelta(minutes=20))
    for _ in range(3):
        await run.turn()
    assert (run.phase, run.status.reason, weights(run)) == (Phase.PAUSED, "UnreadableSpec", [90, 10])


async def test_what_an_active_plan_makes_has_no_owner() -> None:
    """A deletion in the foreground, as Argo CD deletes, would take away what the plan owns before the plan itself."""
    (story,) = [story for story in STORIES if story.name == "job"]
    run, made = Simulation(plan(story.spec), put=story.put), list[Ref]()

    def owned(ref: Ref, _: Any, body: Any) -> None:
        if ref.resource in (SNAPSHOTS, JOBS) and body is not None:
            made.append(ref)
            owner = body["metadata"].get("ownerReferences")
            assert not owner or run.status.reason == "Releasing", run.status

    run.cluster.changed = owned
    assert await play(story, run) is Phase.SUCCEEDED
    assert {ref.resource for ref in made} == {SNAPSHOTS, JOBS}
    assert all(body["metadata"]["ownerReferences"] for ref, body in run.cluster.objects.items() if ref in made)


async def test_claims_then_the_end_then_the_finalizer() -> None:
    """Whoever dies in between has let go of all that an ended plan may not hold, and comes back for the rest."""
    run, seen = Simulation(plan(CANARY), put=shop), list[str]()

    def told(verb: str, ref: Ref, content: Any) -> None:
        if verb == "status":
            seen.append(f"{content['phase']} {content['reason']}")
        elif ref.resource not in (SNAPSHOTS, PLANS):
            paths = [
                one["path"].rpartition("~1")[2] for one in content if one["op"] != "test" and "labels/" in one["path"]
            ]
            seen.append(f"{ref.resource.kind} {' '.join(paths)}")
        elif any(one["path"] == "/metadata/finalizers" for one in content if ref == run.plan):
            seen.append("bound" if FINALIZER in content[-1]["value"] else "free")

    run.cluster.told = told
    assert await run.run() is Phase.SUCCEEDED
    assert seen[1:5] == ["bound", "Running Claiming", "Deployment plan fence", "VirtualService plan fence"]
    assert seen[-4:] == [
        "Deployment plan fence applied",
        "VirtualService plan fence applied",
        "Succeeded Completed",
        "free",
    ]


async def test_a_step_that_was_refused_before_it_changed_anything_is_tried_again() -> None:
    run = Simulation(plan(DEPLOY.replace("{name: deploy", "{name: deploy, retries: 1")), put=shop)
    patch, refusals = run.cluster.patch, ["an admission webhook is not there"]

    async def refuse(ref: Ref, operations: Any, account: str = "") -> Any:
        if refusals and any(one["path"] == "/spec/replicas" for one in operations):
            raise Rejected(refusals.pop())
        return await patch(ref, operations, account)

    run.cluster.patch = refuse  # type: ignore[method-assign]
    assert await run.run() is Phase.SUCCEEDED
    assert run.status.steps[0].attempt == 2
    assert run.cluster.effects == [("spec", V2)]
