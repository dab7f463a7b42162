"""Snapshots go when nobody can need them any more, whatever became of the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from cutover.engine.sweep import sweep, sweep_until_done
from cutover.errors import Denied, Unavailable
from cutover.field_path import ABSENT, Json, Operation, Path
from cutover.go_json import as_go_writes
from cutover.names import EVERYTHING, Selector
from cutover.ports import JOBS, PLAN_LABEL, PLANS, SNAPSHOTS, Ref, Resource
from cutover.status.requests import RequestVerb
from cutover.status.state import State
from cutover.status.status import Phase
from cutover.targets.snapshots import LARGEST, too_large
from cutover.testing.controllers import react
from support.fakes.shop import V2, plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import migrating

DEPLOY = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
"""


def snapshots(run: Simulation) -> list[str]:
    return [ref.name for ref in run.cluster.objects if ref.resource == SNAPSHOTS]


async def test_a_plan_that_may_not_release_its_targets_keeps_no_snapshot() -> None:
    run = Simulation(plan(f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    assert snapshots(run)
    run.cluster.denied.add(("patch", V2))
    run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is Phase.ABANDONED and not run.bound)
    assert snapshots(run) == []
    assert PLAN_LABEL in run.cluster.objects[V2]["metadata"]["labels"]


class Asking(Simulation):
    """A plan, and how often snapshots were listed for it."""

    def __init__(self, spec: str) -> None:
        super().__init__(plan(spec), put=shop)
        self.listed, ask = 0, self.cluster.list

        async def listing(
            resource: Resource, namespace: str, labels: Selector = EVERYTHING, *, fresh: bool = True
        ) -> Any:
            self.listed += resource == SNAPSHOTS
            return await ask(resource, namespace, labels, fresh=fresh)

        setattr(self.cluster, "list", listing)  # noqa: B010 -- of this one alone

    def owners(self) -> list[str]:
        """Who owns each snapshot; nothing where nobody does."""
        found = [self.cluster.objects[ref]["metadata"] for ref in self.cluster.objects if ref.resource == SNAPSHOTS]
        return [owner["name"] for one in found for owner in one.get("ownerReferences") or [{"name": ""}]]


@pytest.mark.parametrize("restarted", [False, True])
async def test_snapshots_that_a_process_knows_get_their_owner_without_a_list(restarted: bool) -> None:  # noqa: FBT001
    """It has taken each, or read it to see whether all still stands."""
    run = Asking(f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n")
    await run.until(lambda: run.phase is Phase.WAITING)
    if restarted:
        run.restart()
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert run.owners() == [run.plan.name]
    assert run.listed == 0


@pytest.mark.parametrize("what", ["is changed", "is gone"])
async def test_snapshots_of_which_one_has_changed_are_listed(what: str) -> None:
    run = Asking(f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n")
    await run.until(lambda: run.phase is Phase.WAITING)
    (one,) = (ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS)
    if what == "is changed":
        run.cluster.put(SNAPSHOTS, run.cluster.objects[one])
    else:
        run.cluster.delete(one)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert run.owners() == ([run.plan.name] if what == "is changed" else [])
    assert run.listed == 1


async def test_snapshots_that_were_orphaned_go_with_their_plan() -> None:
    """Deleted with orphan propagation, a success leaves them without an owner; the one made anew keeps its own."""
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    (old,) = snapshots(run)
    uid = run.cluster.objects[run.plan]["metadata"]["uid"]
    run.cluster.delete(run.plan)
    again = plan(DEPLOY.replace("replicas: 3", "replicas: 4"))
    again["metadata"]["uid"] = "another"
    run.cluster.put(PLANS, again)
    run.cluster.objects[run.plan]["status"] = {"observedGeneration": -1}
    assert await run.run() is Phase.SUCCEEDED
    assert old in snapshots(run), "nothing has said so far that the first plan is gone"
    run.driver.deleted(run.plan, uid)
    await run.turn()
    (left,) = snapshots(run)
    assert left != old


@pytest.mark.parametrize("told", ["by an event", "by a save without an answer"])
async def test_those_of_a_former_plan_do_not_keep_the_next_one_of_its_name(told: str) -> None:
    """The server answers 500 to each deletion of snapshots, for as long as it likes."""
    run = Simulation(plan(f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    uid = run.cluster.objects[run.plan]["metadata"]["uid"]
    cache = run.driver._caches.of(run.plan, run.cluster.objects[run.plan])
    delete_all, tries = run.cluster.delete_all, list[str]()

    async def away(resource: Resource, namespace: str, labels: Selector) -> None:
        if resource == SNAPSHOTS and uid in labels:
            tries.append(labels)
            raise Unavailable("an admission webhook is down")
        await delete_all(resource, namespace, labels)

    run.cluster.delete_all = away  # type: ignore[assignment, method-assign]
    old = snapshots(run)
    run.cluster.delete(run.plan)
    again = plan(DEPLOY.replace("replicas: 3", "replicas: 4"))
    again["metadata"]["uid"] = "another"
    run.cluster.put(PLANS, again)
    run.cluster.objects[run.plan]["status"] = {"observedGeneration": -1}
    if told == "by an event":
        run.driver.deleted(run.plan, uid)
    else:
        cache.unsure = True
    assert await run.run() is Phase.SUCCEEDED
    assert set(old) < set(snapshots(run))
    begun, before = run.clock.now(), len(tries)
    while run.clock.now() - begun < timedelta(minutes=10):
        after = await run.turn()
        assert after is not None
        run.clock.pass_time(after)
    assert 15 <= len(tries) - before <= 25, "it is tried again, and not all the time"
    run.cluster.delete_all = delete_all  # type: ignore[method-assign]
    run.clock.pass_time(timedelta(minutes=1))
    await run.turn()
    assert not set(old) & set(snapshots(run))
    assert len(snapshots(run)) == 1


def test_documents_are_written_as_go_writes_them() -> None:
    """Bytes as `json.Marshal` gives them; the data of a ControllerRevision may not change by a byte."""
    body = {"b": [1, None, True], "a": '<a & b> "é" \u2028\u2029\n'}
    assert as_go_writes(body) == r'{"a":"\u003ca \u0026 b\u003e \"é\" \u2028\u2029\n","b":[1,null,true]}'


@pytest.mark.parametrize("value", ["x", "<", "é", '"'])
def test_what_is_too_large_is_reported_by_the_bytes_that_are_written(value: str) -> None:
    each = len(as_go_writes(value).encode()) - 2
    count = LARGEST // each
    small: tuple[Path, Json, Json] = (("data", "small"), ABSENT, "")
    assert "(data.large alone" in too_large(
        V2, [small, (("data", "large"), value * (count // 2), value * (count // 2))]
    )
    assert not too_large(V2, [small, (("data", "large"), value * (count // 2), value * (count // 2 - 400))])


@pytest.mark.parametrize("verb", [RequestVerb.ABORT, RequestVerb.APPROVE])
async def test_a_new_process_takes_away_what_came_after_the_end(verb: RequestVerb) -> None:
    """Of a run that has ended and keeps nothing: a process that died with a snapshot under way."""
    run = Simulation(plan(f"keepSnapshots: 0s\n{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    (name,) = snapshots(run)
    late = run.cluster.objects[Ref(SNAPSHOTS, run.plan.namespace, name)]
    run.request(verb, "ok" if verb is RequestVerb.APPROVE else "")
    assert await run.run() in (Phase.ROLLED_BACK, Phase.SUCCEEDED)
    assert snapshots(run) == []
    run.cluster.put(SNAPSHOTS, late)
    assert await sweep(run.cluster, ()) == 1
    assert snapshots(run) == []


async def test_a_new_process_sweeps_as_soon_as_it_gets_an_answer() -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    run.cluster.delete(run.plan)
    assert snapshots(run)
    ask, refusals = run.cluster.list, [Unavailable("away"), Denied("not yet")]

    async def away(*where: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await ask(*where)

    run.cluster.list = away  # type: ignore[method-assign, assignment]
    await sweep_until_done(run.cluster, (), pause=0)
    assert refusals == []
    assert snapshots(run) == []


async def test_a_new_process_leaves_what_is_needed() -> None:
    run = Simulation(plan(f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    assert await sweep(run.cluster, ()) == 0
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert await sweep(run.cluster, ()) == 0
    assert len(snapshots(run)) == 1


SHIFT = f"{DEPLOY}  - {{name: shift, traffic: {{virtualService: {{name: shop}}, from: {{host: shop-v1}}, to: {{host: shop-v2}}, weights: [50], dwell: 10m}}}}\n"


@pytest.mark.parametrize("step", ["deploy", "shift"])
async def test_one_that_is_lost_in_mid_step_is_not_taken_again(step: str) -> None:
    """It would be of what the step has made, and the rollback would pretend. Put back, the plan goes on."""
    run = Simulation(plan(SHIFT), put=shop)
    run.cluster.rollouts = step != "deploy"
    at = ("deploy", "shift").index(step)
    await run.until(lambda: len(run.status.steps) > at and run.status.steps[at].snapshot_taken)
    (lost,) = [ref for ref, body in run.cluster.objects.items() if body.get("data", {}).get("step") == step]
    kept = run.cluster.objects[lost]
    changed = run.specs()
    run.cluster.delete(lost)
    run.restart()
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "SnapshotLost"
    assert f"ControllerRevision {lost.name}, the snapshot of " in run.status.message
    assert run.specs() == changed
    assert lost not in run.cluster.objects
    run.cluster.rollouts = True
    run.request(RequestVerb.RESUME)
    await run.until(lambda: run.phase is Phase.PAUSED)
    run.cluster.put(SNAPSHOTS, kept)
    run.request(RequestVerb.RESUME)
    await run.until(lambda: run.status.current is not None and run.status.current.weight == 50)
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


def apply_again(run: Simulation, spec: str) -> None:
    """Another spec, after the end."""
    body = plan(spec)
    run.cluster.put(PLANS, body | {"metadata": run.cluster.objects[run.plan]["metadata"] | body["metadata"]})


@pytest.mark.parametrize("what", [SNAPSHOTS, JOBS], ids=lambda what: what.plural)
async def test_a_late_deletion_takes_nothing_from_a_newer_run(what: Resource) -> None:
    """A process sleeps where it clears away what the runs before its own have made, until the run after that is on its way."""
    spec = migrating("tool:hangs")
    run, late = Simulation(plan(spec), put=shop), list[Any]()
    delete_all = run.cluster.delete_all

    async def sleep(resource: Resource, namespace: str, labels: str) -> None:
        if resource == what and not late:
            late.append((resource, namespace, labels))
            raise Unavailable("no answer")
        await delete_all(resource, namespace, labels)

    def made() -> list[Ref]:
        return [ref for ref in run.cluster.objects if ref.resource == what]

    async def until_it_migrates(number: int) -> None:
        def reached() -> bool:
            at, step = run.status.run, run.status.current
            return (
                at is not None
                and at.number == number
                and step is not None
                and step.step == "schema"
                and bool(run.status.steps[1].made)
            )

        await run.until(reached)

    await until_it_migrates(1)
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    run.cluster.delete_all = sleep  # type: ignore[method-assign]
    apply_again(run, spec.replace("replicas: 1", "replicas: 2"))
    await run.until(lambda: bool(late))
    run.cluster.delete_all = delete_all  # type: ignore[method-assign]
    run.restart()
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.ROLLED_BACK and not run.bound)
    apply_again(run, spec.replace("replicas: 1", "replicas: 3"))
    await until_it_migrates(3)
    before = made()
    assert before
    await delete_all(*late[0])
    assert made() == before
    run.restart()
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_what_earlier_runs_have_made_goes_with_the_claims_of_the_next() -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    (old,) = snapshots(run)
    apply_again(run, f"{DEPLOY.replace('replicas: 3', 'replicas: 4')}  - {{name: ok, approve: {{message: go}}}}\n")
    await run.until(lambda: run.phase is Phase.WAITING)
    (new,) = snapshots(run)
    assert new != old


@pytest.mark.parametrize("asleep_in", ["get", "list", "patch"])
async def test_who_slept_at_the_end_gives_nothing_to_a_plan_that_is_rolled_back(asleep_in: str) -> None:
    """The other process ends the run, and a rollback takes the owner off again: a foreground deletion would take them first."""
    run = Simulation(plan(f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    if asleep_in == "list":  # who has taken them, or read them, knows them until somebody changes one
        (one,) = (ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS)
        run.cluster.put(SNAPSHOTS, run.cluster.objects[one])
    run.request(RequestVerb.APPROVE, "ok")
    asleep, awake = asyncio.Event(), asyncio.Event()
    request = getattr(run.cluster, asleep_in)

    async def sleep(what: Any, *rest: Any, **more: Any) -> Any:
        asks_who_drives_it = asleep_in == "get" and what == run.plan and run.status.state is State.RELEASING
        if not asleep.is_set() and (asks_who_drives_it or SNAPSHOTS in (what, getattr(what, "resource", None))):
            asleep.set()
            await awake.wait()
        return await request(what, *rest, **more)

    setattr(run.cluster, asleep_in, sleep)

    first = run.driver

    async def turns() -> None:
        while not asleep.is_set():
            after = await first.turn(run.plan)
            react(run.cluster)
            run.clock.pass_time(after or timedelta())

    sleeper = asyncio.ensure_future(turns())
    await asyncio.wait_for(asleep.wait(), 10)
    run.restart()
    assert await run.run() is Phase.SUCCEEDED
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLING_BACK and run.status.reason != "Reclaiming")
    (kept,) = [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]
    saves = [write for write in run.cluster.writes if write[0] == "status"]
    awake.set()
    await sleeper
    assert not run.cluster.objects[kept]["metadata"].get("ownerReferences")
    assert saves == [write for write in run.cluster.writes if write[0] == "status"], "it has seen that it is late"
    assert await run.run() is Phase.ROLLED_BACK
    assert run.leftovers() == []


async def test_one_that_is_being_written_is_still_returned_at_once() -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    patch, tries = run.cluster.patch, list[timedelta]()
    begun = run.clock.now()

    async def meddle(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if ref.resource == SNAPSHOTS:
            tries.append(run.clock.now() - begun)
            if len(tries) == 1:
                run.cluster.put(SNAPSHOTS, run.cluster.objects[ref])
        return await patch(ref, operations, account)

    run.cluster.patch = meddle  # type: ignore[method-assign]
    assert await run.run() is Phase.SUCCEEDED
    first, second = tries
    assert second - first < timedelta(seconds=1)


async def test_a_foreground_deletion_finds_no_snapshots_while_targets_are_claimed_again() -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    assert _owners(run) == {True}
    patch = run.cluster.patch

    async def away(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if ref == V2:
            raise Unavailable("no")
        return await patch(ref, operations, account)

    run.cluster.patch = away  # type: ignore[method-assign]
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.status.reason == "Reclaiming" and run.bound)
    assert _owners(run) == {False}
    run.cluster.patch = patch  # type: ignore[method-assign]
    assert await run.run() is Phase.ROLLED_BACK


@pytest.mark.parametrize("denied", [False, True], ids=["changed", "denied"])
async def test_after_a_rollback_that_is_declined_the_plan_owns_its_snapshots_again(*, denied: bool) -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    if denied:
        run.cluster.denied.add(("patch", V2))
    else:
        run.cluster.objects[V2]["spec"]["replicas"] = 9
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.SUCCEEDED and bool(run.status.requests) and not run.bound)
    assert _owners(run) == {True}


def _owners(run: Simulation) -> set[bool]:
    """Whether the snapshots have an owner."""
    return {
        bool(body["metadata"].get("ownerReferences"))
        for ref, body in run.cluster.objects.items()
        if ref.resource == SNAPSHOTS
    }
