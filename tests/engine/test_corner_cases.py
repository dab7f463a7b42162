"""Corners of the engine that once went wrong: finalizers, marks, times and wishes at the edges of a run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from cutover.errors import Denied, PlanError, Problem, Rejected, Unavailable
from cutover.field_path import Operation
from cutover.ports import (
    APPLIED_LABEL,
    DEPLOYMENTS,
    FENCE_LABEL,
    PLAN_LABEL,
    PLANS,
    SERVICE_ACCOUNTS,
    SNAPSHOTS,
    Ref,
    Sample,
)
from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import Phase
from cutover.testing.controllers import react
from support.fakes.shop import CANARY, NAMESPACE, V1, V2, plan, shop
from support.fakes.simulation import Simulation

DEPLOY = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
"""
APPROVE = f"{DEPLOY}  - {{name: ok, approve: {{message: go}}}}\n"


def edit(run: Simulation, ref: Ref, change: Any) -> None:
    body = copy.deepcopy(run.cluster.objects[ref])
    change(body)
    run.cluster.put(ref.resource, body)


def finalizer_written(ref: Ref, run: Simulation, operations: Sequence[Operation]) -> Operation | None:
    found = [operation for operation in operations if operation["path"] == "/metadata/finalizers"]
    return found[0] if found and ref == run.plan else None


@pytest.mark.parametrize("error", [Denied("no"), Unavailable("away")])
async def test_a_finalizer_that_cannot_be_removed_is_retried_at_intervals(error: Exception) -> None:
    run, tries, patch = Simulation(plan(DEPLOY), put=shop), [], None
    patch = run.cluster.patch

    async def refuse(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        written = finalizer_written(ref, run, operations)
        if written and not written["value"]:
            tries.append(run.clock.now())
            raise error
        return await patch(ref, operations, account)

    run.cluster.patch = refuse  # type: ignore[method-assign]
    await run.until(lambda: run.phase is Phase.SUCCEEDED)
    tries.clear()
    after = await run.turn()
    assert len(tries) == 1
    assert after is not None
    assert after > timedelta()
    run.cluster.patch = patch  # type: ignore[method-assign]
    await run.until(lambda: not run.bound)


async def test_an_abandoned_plan_waits_until_its_snapshots_may_go() -> None:
    run = Simulation(plan(APPROVE), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    delete_all, refusals = run.cluster.delete_all, 3

    async def refuse(*where: Any) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise Denied("no")
        await delete_all(*where)

    run.cluster.delete_all = refuse  # type: ignore[assignment]
    run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is Phase.ABANDONED and not run.bound)
    assert refusals < 0
    assert run.leftovers() == []


async def test_a_plan_never_runs_without_its_finalizer() -> None:
    """Another plan takes the target between the look and the claim, and lets go of it at once."""
    run = Simulation(plan(DEPLOY), put=shop)
    other = run.cluster.put(PLANS, {"metadata": {"name": "other", "namespace": NAMESPACE}, "spec": {}})
    run.cluster.objects[other]["status"] = {"phase": "Running"}
    uid, patch = run.cluster.objects[other]["metadata"]["uid"], run.cluster.patch

    async def meddle(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        done = await patch(ref, operations, account)
        if written := finalizer_written(ref, run, operations):
            marks = {PLAN_LABEL: uid, FENCE_LABEL: "1"} if written["value"] else {}
            edit(run, V2, lambda body: body["metadata"].update(labels=marks))
        return done

    run.cluster.patch = meddle  # type: ignore[method-assign]
    await run.turn()
    run.cluster.patch = patch  # type: ignore[method-assign]
    while run.phase is not Phase.SUCCEEDED:
        await run.turn()
        assert run.bound or run.phase in (Phase.PENDING, Phase.SUCCEEDED)
        run.clock.pass_time(timedelta(seconds=30))
        react(run.cluster)


async def test_an_abandoned_run_takes_the_mark_of_an_earlier_one_away() -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    assert APPLIED_LABEL in run.cluster.objects[V2]["metadata"]["labels"]
    edit(
        run,
        run.plan,
        lambda body: body.update(plan(APPROVE.replace("replicas: 3", "replicas: 5")) | {"metadata": body["metadata"]}),
    )
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is Phase.ABANDONED and not run.bound)
    assert APPLIED_LABEL not in run.cluster.objects[V2]["metadata"]["labels"]
    assert run.cluster.objects[V2]["spec"]["replicas"] == 5


async def test_a_plan_whose_spec_is_readable_again_continues() -> None:
    """A CRD with a new default changes what is read of a plan, and not its generation, nor is there an event."""
    run = Simulation(plan(APPROVE), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    body = run.cluster.objects[run.plan]
    run.cluster.objects[run.plan] = body | {"spec": body["spec"] | {"unknown": 1}}
    run.restart()
    await run.turn()
    assert (run.phase, run.status.reason) == (Phase.PAUSED, "UnreadableSpec")
    held = run.cluster.objects[run.plan]
    run.cluster.objects[run.plan] = held | {"spec": body["spec"]}
    await run.until(lambda: run.phase is Phase.WAITING, turns=3)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED


@pytest.mark.parametrize("ending", ["abandon", "terminating", "in time"])
async def test_an_unreadable_spec_can_be_left(ending: str) -> None:
    run = Simulation(plan(APPROVE), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    edit(run, run.plan, lambda body: body["spec"]["steps"][0].update(unknown=1))
    await run.turn()
    assert (run.phase, run.status.reason) == (Phase.PAUSED, "UnreadableSpec")
    if ending == "abandon":
        run.request(RequestVerb.ABANDON)
    else:
        if ending == "terminating":
            run.cluster.terminate(NAMESPACE)
        run.cluster.delete(run.plan)
    for _ in range(12):  # it looks each minute whether the spec can be read again
        after = await run.turn()
        run.clock.pass_time(after or timedelta())
    assert not run.bound
    told = [notice.message for notice in run.recorder.notices if notice.reason == "Abandoned"]
    assert len(told) == 1
    assert "not undone: deploy" in told[0]
    assert run.leftovers() == []


@pytest.mark.parametrize("spec", ["unreadable", "another"])
async def test_one_abandoned_without_its_spec_is_released_though_the_process_dies(spec: str) -> None:
    """After the status that says so; the next process must not begin another run before."""
    run = Simulation(plan(APPROVE), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    change = {"unreadable": {"unknown": 1}, "another": {"deploy": {"workload": {"name": V1.name}, "replicas": 4}}}
    edit(run, run.plan, lambda body: body["spec"]["steps"][0].update(change[spec]))
    await run.turn()
    assert run.status.reason == "UnreadableSpec"

    def told(verb: str, _: Ref, content: Any) -> None:
        if verb == "status" and content["phase"] == "Abandoned" and run.switch.at == 0:
            run.switch.at = run.switch.calls + 1

    run.cluster.told = told
    run.request(RequestVerb.ABANDON)
    for _ in range(8):
        after = await run.turn()
        run.clock.pass_time(after or timedelta(seconds=1))
    assert run.crashes == 1
    assert PLAN_LABEL not in run.cluster.objects[V2]["metadata"]["labels"]
    assert run.status.run is not None
    assert run.status.run.number == 2
    assert not [ref for ref, body in run.cluster.objects.items() if ref.resource == SNAPSHOTS and _of_run(body) == "1"]


def _of_run(body: Any) -> str:
    return str(body["metadata"]["labels"]["cutover.dev/run"])


async def test_retry_after_a_timeout_gets_all_of_the_time_again() -> None:
    spec = "timeout: 2m" + DEPLOY.replace("replicas: 3}", "replicas: 3}, irreversible: true")
    spec += '  - {name: soak, check: {}, gates: [{name: errors, interval: 5s, prometheus: {query: e}, pass: {max: "0.5"}, failureThreshold: 100}]}\n'
    run = Simulation(plan(spec), put=shop)
    run.metrics.answer = lambda _: Sample(None, "nothing")
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "PastPointOfNoReturn"
    run.metrics.answer = lambda _: Sample(0.1)
    run.request(RequestVerb.RETRY)
    assert await run.run() is Phase.SUCCEEDED


async def test_while_a_success_is_rolled_back_nothing_owns_its_snapshots() -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    await run.run()
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLING_BACK and run.status.reason != "Reclaiming")
    kept = [body for ref, body in run.cluster.objects.items() if ref.resource == SNAPSHOTS]
    assert kept
    assert all(not body["metadata"].get("ownerReferences") for body in kept)


async def test_a_rejected_skip_does_not_undo_an_accepted_one() -> None:
    spec = (
        DEPLOY
        + '  - {name: soak, check: {for: 10m}, gates: [{name: errors, interval: 5s, prometheus: {query: e}, pass: {max: "0.5"}}]}\n'
    )
    run = Simulation(plan(spec), put=shop)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "soak")
    run.request(RequestVerb.SKIP, "soak")
    await run.turn()
    run.request(RequestVerb.SKIP, "soap")
    run.metrics.answer = lambda _: Sample(0.9)
    assert await run.run() is Phase.SUCCEEDED


async def test_resume_while_suspended_is_not_lost() -> None:
    gate = '{name: errors, interval: 5s, prometheus: {query: e}, pass: {max: "0.5"}}'
    spec = f"timeout: 2m\nonFailure: Pause\nsteps:\n  - {{name: soak, check: {{}}, gates: [{gate}]}}\n"
    run = Simulation(plan(spec), put=shop)
    run.metrics.answer = lambda _: Sample(None, "nothing")
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "TimedOut"
    run.metrics.answer = lambda _: Sample(0.1)
    edit(run, run.plan, lambda body: body["spec"].update(suspend=True))
    await run.turn()
    run.request(RequestVerb.RESUME)
    await run.turn()
    assert run.status.reason == "Suspended"
    edit(run, run.plan, lambda body: body["spec"].update(suspend=False))
    assert await run.run() is Phase.SUCCEEDED


async def test_a_server_that_asks_to_wait_is_not_asked_again_at_once() -> None:
    """A save that it did not answer may have taken effect; the next turn reads the plan first."""
    run = Simulation(plan(APPROVE), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.APPROVE, "ok")
    save = run.cluster.save_status

    async def busy(ref: Ref, resource_version: str, status: Any) -> Any:
        await save(ref, resource_version, status)
        raise Unavailable("HTTP 429", 30.0)

    run.cluster.save_status = busy  # type: ignore[method-assign]
    get, read = run.cluster.get, list[Ref]()

    async def counted(ref: Ref) -> Any:
        read.append(ref)
        return await get(ref)

    run.cluster.get = counted  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await run.driver.turn(run.plan)
    assert read == []
    run.cluster.save_status = save  # type: ignore[method-assign]
    await run.driver.turn(run.plan)
    assert read[0] == run.plan
    assert await run.run() is Phase.SUCCEEDED


async def test_the_account_is_asked_for_before_the_first_write_of_a_step() -> None:
    """It was released for migrations when the plan began, and the API server would still let the operator act as it."""
    late = "  - {name: late, deploy: {workload: {name: shop-v1}, replicas: 4}}\n"
    run = Simulation(plan(f"onFailure: Pause{APPROVE}{late}"), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    edit(run, Ref(SERVICE_ACCOUNTS, NAMESPACE, "migrator"), lambda body: body["metadata"].update(labels={}))
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "AccountUnusable"
    assert run.cluster.objects[V1]["spec"]["replicas"] == 3


async def test_claims_of_a_try_that_died_do_not_stay() -> None:
    """Both targets are claimed, the process dies, one of them is deleted."""
    spec = DEPLOY + "  - {name: old, deploy: {workload: {name: shop-v1}, replicas: 4}}\n"
    run = Simulation(plan(spec), put=shop)
    claimed = 0

    def told(verb: str, ref: Ref, _: Any) -> None:
        nonlocal claimed
        claimed += verb == "patch" and ref.resource == DEPLOYMENTS
        if claimed == 2 and run.switch.at == 0:
            run.switch.at = run.switch.calls + 1

    run.cluster.told = told
    await run.until(lambda: run.crashes == 1)
    run.cluster.delete(V1)
    await run.until(lambda: run.phase is Phase.REFUSED)
    assert PLAN_LABEL not in (run.cluster.objects[V2]["metadata"].get("labels") or {})


async def test_a_claim_with_a_fence_of_another_writer_is_released() -> None:
    """The process dies between its claim and the next save."""
    run = Simulation(plan(DEPLOY), put=shop)

    def told(verb: str, ref: Ref, _: Any) -> None:
        if verb == "patch" and ref == V2 and run.switch.at == 0:
            run.switch.at = run.switch.calls + 1

    run.cluster.told = told
    await run.until(lambda: run.crashes == 1)
    edit(run, V2, lambda body: body["metadata"]["labels"].update({FENCE_LABEL: "1000000000"}))
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.reason == "ClaimLost"
    assert run.leftovers() == []


async def test_a_claim_still_under_way_is_late_when_the_run_ends_while_it_claims() -> None:
    run, held = Simulation(plan(DEPLOY), put=shop), list[tuple[Ref, Sequence[Operation], str]]()
    patch = run.cluster.patch

    async def keep(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if ref == V2:
            held.append((ref, operations, account))
            raise Unavailable("no answer")
        return await patch(ref, operations, account)

    run.cluster.patch = keep  # type: ignore[method-assign]
    await run.until(lambda: bool(held))
    run.cluster.patch = patch  # type: ignore[method-assign]
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    with pytest.raises(Rejected):
        await patch(*held[0])
    assert run.leftovers() == []


async def test_one_that_is_deleted_while_it_claims_goes_though_it_may_not_release() -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    patch, delete_all, held = run.cluster.patch, run.cluster.delete_all, list[Ref]()

    async def lose(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if ref == V2:
            held.append(ref)
            raise Unavailable("no answer")
        return await patch(ref, operations, account)

    async def refuse(*where: Any) -> None:
        if run.plan in run.cluster.objects:
            raise Denied("no")
        await delete_all(*where)

    run.cluster.patch = lose  # type: ignore[method-assign]
    await run.until(lambda: bool(held))
    run.cluster.patch, run.cluster.delete_all = patch, refuse  # type: ignore[method-assign,assignment]
    run.cluster.delete(run.plan)
    await run.until(lambda: run.plan not in run.cluster.objects)
    told = [notice.message for notice in run.recorder.notices if notice.reason == "Abandoned"]
    assert [message.partition(":")[0] for message in told] == ["not everything could be released"]
    assert "snapshots: no; to delete them: kubectl delete controllerrevisions -n shop -l cutover.dev/plan=" in told[0]


async def at_weight_10(run: Simulation) -> None:
    await run.until(lambda: run.status.current is not None and run.status.current.weight == 10)


def without_finalizers(body: Any) -> None:
    """As `kubectl replace` leaves a plan, and Argo CD with Replace=true."""
    body["metadata"].pop("finalizers")


@pytest.mark.parametrize("readable", [True, False])
async def test_an_active_plan_that_was_replaced_gets_its_finalizer_again(readable: bool) -> None:  # noqa: FBT001
    """Before anything else is saved or done; then its deletion takes all back, as ever."""
    run = Simulation(plan(CANARY), put=shop)
    await at_weight_10(run)
    spec = run.cluster.objects[run.plan]["spec"]
    edit(run, run.plan, without_finalizers)
    if not readable:
        edit(run, run.plan, lambda body: body["spec"].update(unknown=1))
    run.cluster.writes.clear()
    await run.turn()
    assert run.bound
    assert run.cluster.writes[0] == ("patch", run.plan)
    edit(run, run.plan, lambda body: body.update(spec=spec))
    run.cluster.delete(run.plan)
    await run.until(lambda: run.over)
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_a_finalizer_that_is_lost_in_the_middle_of_a_turn_is_there_before_the_next_save() -> None:
    """Between the look that has set it, and the status that says Running."""
    run = Simulation(plan(CANARY), put=shop)
    patch, save = run.cluster.patch, run.cluster.save_status
    finalizer_outcome = list[Any]()

    async def drop(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        done = await patch(ref, operations, account)
        if finalizer_written(ref, run, operations):
            run.cluster.patch = patch  # type: ignore[method-assign]
            edit(run, run.plan, without_finalizers)
        return done

    async def look(ref: Ref, resource_version: str, status: Any) -> Any:
        if status["phase"] == "Running" and not run.bound:
            finalizer_outcome.append(status)
        return await save(ref, resource_version, status)

    run.cluster.patch, run.cluster.save_status = drop, look  # type: ignore[method-assign]
    await at_weight_10(run)
    assert run.bound
    assert finalizer_outcome == []


@pytest.mark.parametrize("deleted", [True, False])
async def test_one_that_was_replaced_can_be_left(deleted: bool) -> None:  # noqa: FBT001
    """One that is being deleted gets no finalizer any more; what keeps it there is somebody else's."""
    run = Simulation(plan(f"deletionPolicy: Orphan\n{CANARY}"), put=shop)
    await at_weight_10(run)
    if deleted:
        edit(run, run.plan, lambda body: body["metadata"].update(finalizers=["foregroundDeletion"]))
        run.cluster.delete(run.plan)
    else:
        edit(run, run.plan, without_finalizers)
        run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is Phase.ABANDONED and (deleted or not run.bound))
    await run.turn()
    assert run.leftovers() == ([f"finalizer of {run.plan}"] if deleted else [])


def answers(run: Simulation) -> list[tuple[str, str]]:
    return [(record.verb, str(record.answer)) for record in run.status.requests]


async def test_requests_to_a_plan_that_is_invalid_are_answered() -> None:
    run = Simulation(plan("steps: [{name: a, check: {}}, {name: a, check: {}}]"), put=shop)
    run.request(RequestVerb.ABORT)
    await run.turn()
    assert (run.phase, run.status.reason) == (Phase.REFUSED, "Invalid")
    assert answers(run) == [("abort", "Ignored")]
    run.request(RequestVerb.RETRY)
    run.request(RequestVerb.RESUME)
    await run.turn()
    assert (run.phase, run.status.reason) == (Phase.REFUSED, "Invalid")
    assert dict(answers(run)) == {"abort": "Ignored", "resume": "Rejected", "retry": "Accepted"}


@pytest.mark.parametrize("hash_stays", [True, False])
async def test_a_success_that_cannot_be_read_any_more(hash_stays: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """Its rollback is answered by a no, and its snapshots go when their time is over.

    A newer operator does not read what an older one did; a newer CRD puts another default in, which is another spec.
    """
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    if hash_stays:

        def parse(_: Any) -> Any:
            raise PlanError(Problem("steps", "no longer so"))

        monkeypatch.setattr("cutover.engine.plan_cache.parse", parse)
    else:
        edit(run, run.plan, lambda body: body["spec"].update(unknown=1))
    run.restart()
    assert await run.turn() is not None, "no event will come"
    run.request(RequestVerb.ROLLBACK)
    after = await run.turn()
    assert run.phase is (Phase.SUCCEEDED if hash_stays else Phase.REFUSED)
    (record,) = run.status.requests
    assert record.answer is Answer.REJECTED
    assert ("the spec cannot be read" in record.message) is hash_stays
    assert [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]
    assert after is not None
    run.clock.pass_time(after)
    assert await run.turn() is None
    assert not [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]
    assert run.status.run is not None
    assert run.status.run.keep_until is None
    assert run.leftovers() == []


async def test_snapshots_go_in_time_though_the_next_spec_is_refused() -> None:
    run = Simulation(plan(DEPLOY), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    edit(run, run.plan, lambda body: body["spec"]["steps"][0]["deploy"].update(workload={"name": "nobody"}))
    after: timedelta | None = timedelta()
    while after is not None:
        run.clock.pass_time(after)
        after = await run.turn()
    assert run.phase is Phase.REFUSED
    assert not [ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS]
