"""`notify`, and the notifications of a plan: what is told, when, how often, and what a crash makes of it."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest

from cutover.messaging import Delivery, Message, Tone
from cutover.ports import Ref
from cutover.saga.turn import Again, Done
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, StepState
from cutover.steps.kind import StepContext
from cutover.steps.notify import Notify
from cutover.targets.claims import Owner
from cutover.targets.targets import Targets
from cutover.testing import CrashSwitch, MemoryCluster, MemoryMessenger
from support.fakes.shop import PLAN, plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import NOTIFIED, STORIES, Story, play

TELL = Notify(provider="chat", message="v2 is there")


class Desk:
    """One process that does the step. What kinds remember of a run is lost from one command to the next."""

    def __init__(self) -> None:
        self.messenger = MemoryMessenger()

    def work(self, *, applied: bool = False, attempt: int = 1) -> StepContext:
        cluster = MemoryCluster()
        targets = Targets(cluster, Owner(PLAN, "uid-a", 1, 1, "migrator"), "tell")
        return StepContext(
            cluster,
            targets,
            "shop",
            "steps[tell]",
            cluster.clock.now(),
            applied=applied,
            attempt=attempt,
            messenger=self.messenger,
        )


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_it_waits_until_the_message_is_there_and_posts_it_once(desk: Desk) -> None:
    desk.messenger.slow = True
    for _ in range(3):
        outcome = await TELL.do(desk.work(), 0)
        assert isinstance(outcome, Again)
        assert outcome.message == "the message is on its way to chat"
    desk.messenger.deliveries[0].over = True
    assert await TELL.do(desk.work(), 0) == Done()
    assert await TELL.do(desk.work(applied=True), 0) == Done()
    title = "MigrationPlan shop/shop-v2: step tell"
    assert desk.messenger.posted == [("chat", Message(title, "v2 is there"))]


async def test_one_that_no_receiver_accepted_is_reported_and_the_plan_continues(desk: Desk) -> None:
    desk.messenger.failure = "no answer within 10s"
    for applied in (False, True):
        outcome = await TELL.do(desk.work(applied=applied), 0)
        assert outcome == Done(message="not delivered to chat: no answer within 10s")
    assert len(desk.messenger.posted) == 1


async def test_an_undo_waits_for_nobody(desk: Desk) -> None:
    desk.messenger.slow = True
    for _ in range(2):
        assert await TELL.undo(desk.work()) == Done()
    assert [(message.text, message.tone) for _, message in desk.messenger.posted] == [
        ("undone: v2 is there", Tone.WARNING)
    ]
    assert await Notify(provider="chat", message="a", undo_="b").undo(desk.work(attempt=2)) == Done()
    assert desk.messenger.posted[-1][1].text == "b"


async def test_another_process_does_not_tell_again_what_has_been_in_effect(desk: Desk) -> None:
    assert await TELL.do(desk.work(applied=True), 0) == Done()
    assert desk.messenger.posted == []


async def test_another_attempt_tells_again(desk: Desk) -> None:
    await TELL.do(desk.work(), 0)
    await TELL.do(desk.work(attempt=2), 0)
    assert len(desk.messenger.posted) == 2


# --- whole plans ------------------------------------------------------------------------------------------------------


def story(name: str) -> Story:
    return next(story for story in STORIES if story.name == name)


def told(run: Simulation) -> list[str]:
    """What was posted: phases, and texts of steps."""
    return [
        message.title.partition(": ")[2] + (f" {message.text}" if ": step" in message.title else "")
        for _, message in run.messenger.posted
    ]


FORWARD = ["Running", "step before v2 is coming", "step after v2 is there", "Succeeded"]
BACKWARD = [
    *FORWARD[:3],
    "RollingBack",
    "step after v2 is gone",
    "step before undone: v2 is coming",
    "RolledBack",
]


@pytest.mark.parametrize(("name", "expected"), [("notified", FORWARD), ("notified-fails", BACKWARD)])
async def test_what_is_reported_in_order(name: str, expected: list[str]) -> None:
    run = Simulation(plan(NOTIFIED), put=shop)
    await play(story(name), run)
    assert told(run) == expected
    last = run.messenger.posted[-1][1]
    assert last.title == f"MigrationPlan shop/shop-v2: {run.phase}"
    if run.phase is Phase.ROLLED_BACK:
        assert "gate errors failed: 0.9, must be <= 0.5" in last.text
        assert last.tone is Tone.FAILURE
    else:
        assert last.tone is Tone.SUCCESS


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("name", "expected"), [("notified", FORWARD), ("notified-fails", BACKWARD)])
async def test_dies_at_every_call(name: str, expected: list[str], after: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """A step's message comes once or twice; that of a phase once, or is lost; never two of one, and the order stays."""
    whole = Simulation(plan(NOTIFIED), put=shop)
    await play(story(name), whole)
    lost, doubled = 0, 0
    for at in range(1, whole.switch.calls + 1):
        run = Simulation(plan(NOTIFIED), switch=CrashSwitch(at, after), put=shop)
        assert await play(story(name), run) is whole.phase, at
        assert run.crashes == 1, at
        counts = Counter(told(run))
        phases = [one for one in expected if not one.startswith("step ")]
        steps = [one for one in expected if one.startswith("step ")]
        assert set(counts) <= set(expected), at
        assert all(counts[one] <= 1 for one in phases), (at, counts)
        assert all(1 <= counts[one] <= 2 for one in steps), (at, counts)
        assert [one for one in dict.fromkeys(told(run)) if one in expected] == [
            one for one in expected if one in counts
        ]
        lost += len(expected) - len(counts)
        doubled += sum(counts.values()) - len(counts)
        assert len(expected) - len(counts) <= 1, (at, counts)
    if after:
        assert lost, "a process that dies right after a save has told nobody"
        assert doubled, "a step that has posted and was not saved as done posts again"


def changed_before_save(run: Simulation, at: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Somebody changes the plan right before the n-th save of its status; the list that is returned gets an item a save."""
    save, saves = run.cluster.save_status, list[int]()

    async def meddled(ref: Ref, version: str, status: Any) -> Any:
        saves.append(len(saves) + 1)
        if len(saves) == at:
            body = copy.deepcopy(run.cluster.objects[ref])
            body["metadata"]["annotations"] = {"somebody": "was here"}
            run.cluster.put(ref.resource, body)
        return await save(ref, version, status)

    monkeypatch.setattr(run.cluster, "save_status", meddled)
    return saves


@pytest.mark.parametrize(("name", "expected"), [("notified", FORWARD), ("notified-fails", BACKWARD)])
async def test_changed_at_the_moment_of_any_save_it_tells_once(
    name: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save fails, and the process has to read the plan anew: what it has posted it does not post again."""
    at, saves = 0, [0]
    while at < len(saves):
        at += 1
        run = Simulation(plan(NOTIFIED), put=shop)
        saves = changed_before_save(run, at, monkeypatch)
        await play(story(name), run)
        assert told(run) == expected, at
    assert at > len(expected)


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize(("name", "expected"), [("notified", FORWARD), ("notified-fails", BACKWARD)])
async def test_no_answer_to_any_call_tells_no_step_twice(name: str, expected: list[str], after: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    whole = Simulation(plan(NOTIFIED), put=shop)
    await play(story(name), whole)
    for at in range(1, whole.switch.calls + 1):
        run = Simulation(plan(NOTIFIED), switch=CrashSwitch(at, after, lost=True), put=shop)
        assert await play(story(name), run) is whole.phase, at
        assert [one for one in told(run) if one.startswith("step ")] == [
            one for one in expected if one.startswith("step ")
        ], at


async def test_no_receiver_accepts_anything_and_the_plan_ends_as_usual() -> None:
    run = Simulation(plan(NOTIFIED), put=shop)
    run.messenger.failure = "no answer within 10s"
    assert await run.run() is Phase.SUCCEEDED
    lines = {step.name: (step.state, step.message) for step in run.status.steps}
    assert lines["after"] == (StepState.DONE, "not delivered to chat: no answer within 10s")


async def test_an_approval_is_awaited_and_phases_that_are_not_named_are_not_sent() -> None:
    text = """
notifications: [{provider: chat, phases: [Waiting, Paused, Abandoned]}]
steps: [{name: ok, approve: {message: "go on?"}}]
"""
    run = Simulation(plan(text), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    for _ in range(3):
        await run.turn()
    run.request(RequestVerb.PAUSE)
    await run.until(lambda: run.phase is Phase.PAUSED)
    run.request(RequestVerb.ABANDON)
    assert await run.run() is Phase.ABANDONED
    assert told(run) == ["Waiting", "Paused", "Abandoned"]
    assert "go on?" in run.messenger.posted[0][1].text


async def test_an_unknown_provider_is_one_sentence_before_the_first_step() -> None:
    text = """
notifications: [{provider: pager, phases: [Refused]}, {provider: chat, phases: [Refused]}]
steps: [{name: tell, notify: {provider: mail, message: hello}}]
"""
    run = Simulation(plan(text), put=shop)
    assert await run.run() is Phase.REFUSED
    known = "for messages; the administrator has configured: chat"
    assert f"steps[tell].notify.provider: there is no provider mail {known}" in run.status.message
    assert f"notifications[pager].provider: there is no provider pager {known}" in run.status.message
    assert [(provider, message.text[:200]) for provider, message in run.messenger.posted] == [
        ("chat", run.status.message[:200])
    ]


async def test_a_plan_that_cannot_be_read_still_sends_the_notifications_that_can() -> None:
    body = plan("steps: [{name: a, wait: {for: 0s}}]\nnotifications: [{provider: chat, phases: [Refused]}]")
    run = Simulation(body, put=shop)
    assert await run.run() is Phase.REFUSED
    assert told(run) == ["Refused"]
    body["spec"]["notifications"][0]["phases"] = ["Nowhere"]
    run = Simulation(body, put=shop)
    assert await run.run() is Phase.REFUSED
    assert told(run) == []


def test_a_delivery_begins_open() -> None:
    assert Delivery() == Delivery(over=False, error="")
