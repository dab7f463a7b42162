"""The gate `job` in memory: one Job at a time, its exit code, what is left, and what is never counted."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
import yaml

from cutover.errors import Rejected
from cutover.gates.base import GateContext, Pending
from cutover.gates.job import Job
from cutover.gates.verdict import Measurement
from cutover.objects.jobs import GATE_LABEL
from cutover.ports import JOBS, PLANS, PODS, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.targets.claims import Owner
from cutover.testing import CrashSwitch, MemoryCluster, MemoryMetrics, run_jobs
from support.fakes.shop import PLAN, exits, plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import template


def source(image: str = "smoke:1", more: str = "") -> Job:
    return Job.model_validate(yaml.safe_load(f"{{template: {template(image)}{more}}}"))


class Asking:
    """A gate that is asked again and again, as a watch does it."""

    def __init__(self, gate: Job, name: str = "smoke", cluster: MemoryCluster | None = None) -> None:
        self.gate, self.cluster, self.moment, self.name = gate, cluster or MemoryCluster(), "step/1/0", name
        self.cluster.exits = exits
        self.pending: Pending | None = None

    async def ask(self) -> Measurement | Pending:
        clock = self.cluster.clock
        around = GateContext(
            self.cluster, MemoryMetrics(), clock, "shop", "step", None, timedelta(seconds=15),
            Owner(PLAN, "uid-a", 1, 1, "migrator"), self.moment, self.name, self.pending,
        )  # fmt: skip
        seen = await self.gate.measure(around)
        self.pending = seen if isinstance(seen, Pending) else None
        return seen

    async def sample(self) -> Measurement:
        for _ in range(10):
            seen = await self.ask()
            if isinstance(seen, Measurement):
                return seen
            run_jobs(self.cluster)
        raise AssertionError(seen)

    def jobs(self) -> list[str]:
        return [ref.name for ref in self.cluster.objects if ref.resource == JOBS]


async def test_the_exit_code_is_the_number() -> None:
    assert (await Asking(source()).sample()).value == 0.0
    bad = Asking(source("smoke:exit-3"))
    seen = await bad.sample()
    assert seen.value == 3.0
    assert seen.note == (
        f"Job {bad.jobs()[0]} failed (BackoffLimitExceeded): container tool exited with code 3 (Error); "
        f"kubectl logs -n shop job/{bad.jobs()[0]} --all-containers"
    )


async def test_each_sample_is_a_new_job_and_one_is_left() -> None:
    asking = Asking(source())
    seen = set()
    for _ in range(3):
        assert (await asking.sample()).value == 0.0
        assert len(asking.jobs()) == 1
        seen.update(asking.jobs())
    assert len(seen) == 3


async def test_one_at_a_time() -> None:
    asking = Asking(source("smoke:hangs"))
    for _ in range(5):
        assert isinstance(await asking.ask(), Pending)
        run_jobs(asking.cluster)
    assert len(asking.jobs()) == 1


async def test_a_new_process_continues_with_the_job_that_runs() -> None:
    asking = Asking(source("smoke:hangs"))
    first = await asking.ask()
    asking.pending = None
    assert await asking.ask() == first
    assert len(asking.jobs()) == 1


async def test_a_job_with_its_labels_that_runs_something_else_is_not_its_sample() -> None:
    """Who may create Jobs could otherwise pass the gate with one that does nothing."""
    asking = Asking(source("smoke:hangs"))
    first = await asking.ask()
    (ref,) = (ref for ref in asking.cluster.objects if ref.resource == JOBS)
    asking.cluster.objects[ref]["spec"]["template"]["spec"]["containers"][0]["image"] = "smoke:1"
    asking.pending = None
    seen = await asking.ask()
    assert isinstance(seen, Pending)
    assert isinstance(first, Pending)
    assert seen.token != first.token
    assert asking.jobs() == [seen.token]


async def test_gates_beside_each_other_leave_each_others_jobs() -> None:
    one = Asking(source("smoke:hangs"))
    other = Asking(source("smoke:hangs"), "load", one.cluster)
    await one.ask()
    await other.ask()
    assert len(one.jobs()) == 2
    assert isinstance(await one.ask(), Pending)


async def test_one_that_is_being_deleted_is_not_waited_for() -> None:
    asking = Asking(source("smoke:hangs"))
    await asking.ask()
    (ref,) = (ref for ref in asking.cluster.objects if ref.resource == JOBS)
    asking.cluster.objects[ref]["metadata"] |= {"deletionTimestamp": "2026-01-01T12:00:00Z", "finalizers": ["a/b"]}
    asking.pending = None
    seen = await asking.ask()
    assert isinstance(seen, Pending)
    assert seen.token != ref.name


async def test_another_process_that_is_faster_gives_no_sample() -> None:
    asking = Asking(source("smoke:hangs"))
    await asking.ask()
    (ref,) = (ref for ref in asking.cluster.objects if ref.resource == JOBS)
    asking.cluster.objects[ref]["metadata"]["labels"] = {}  # made after the list was read
    asking.pending = None
    seen = await asking.ask()
    assert isinstance(seen, Pending)
    assert seen.note == "another process creates the Job"


async def test_a_failure_without_an_exit_code_gives_no_number() -> None:
    """Its pod was evicted, say: that tells nothing about what was to be checked."""
    asking = Asking(source("smoke:hangs"))
    await asking.ask()
    run_jobs(asking.cluster)
    run_jobs(asking.cluster)
    (job,) = (body for ref, body in asking.cluster.objects.items() if ref.resource == JOBS)
    (pod,) = (body for ref, body in asking.cluster.objects.items() if ref.resource == PODS)
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    pod["status"] = {"phase": "Failed", "reason": "Evicted"}
    seen = await asking.ask()
    assert isinstance(seen, Measurement)
    assert seen.value is None
    assert "failed (BackoffLimitExceeded): its pods ended with Evicted; kubectl logs" in seen.note


async def test_what_ended_before_is_not_counted() -> None:
    """Counts begin anew after a crash: a result that nobody waited for may have been counted already."""
    asking = Asking(source())
    await asking.ask()
    run_jobs(asking.cluster)
    run_jobs(asking.cluster)
    before, asking.pending = asking.jobs(), None
    assert isinstance(await asking.ask(), Pending)
    assert asking.jobs() != before


async def test_a_job_of_an_earlier_stage_is_not_counted() -> None:
    asking = Asking(source("smoke:hangs"))
    await asking.ask()
    before, asking.pending, asking.moment = asking.jobs(), None, "step/1/1"
    await asking.ask()
    assert asking.jobs() != before
    assert len(asking.jobs()) == 1


async def test_one_that_takes_too_long_gives_no_number() -> None:
    asking = Asking(source("smoke:hangs", ", timeout: 1m"))
    await asking.ask()
    name = asking.jobs()[0]
    asking.cluster.clock.pass_time(timedelta(seconds=61))
    seen = await asking.ask()
    assert isinstance(seen, Measurement)
    assert (seen.value, seen.note) == (None, f"Job {name} did not end within 1m")
    assert asking.jobs() == []


async def test_one_that_vanished_gives_no_number() -> None:
    asking = Asking(source("smoke:hangs"))
    await asking.ask()
    (name,) = asking.jobs()
    asking.cluster.delete(Ref(JOBS, "shop", name))
    seen = await asking.ask()
    assert isinstance(seen, Measurement)
    assert (seen.value, seen.note) == (None, f"Job {name} is gone, and how it ended is unknown")


async def test_without_the_permission_there_is_no_number() -> None:
    asking = Asking(source())
    asking.cluster.denied.add(("create", Ref(JOBS, "shop", "")))
    seen = await asking.ask()
    assert isinstance(seen, Measurement)
    assert (seen.value, seen.note) == (None, "ServiceAccount migrator is not allowed to create or delete this Job")


async def test_what_the_server_refuses_gives_no_number() -> None:
    asking = Asking(source())

    def no(ref: Ref, body: Any) -> None:
        raise Rejected(f"no {ref} {body}")

    asking.cluster.refuse = no
    seen = await asking.ask()
    assert isinstance(seen, Measurement)
    assert (seen.value, seen.note) == (None, "the server refuses the Job")


async def test_the_plan_owns_it_from_the_beginning() -> None:
    asking = Asking(source(more=", backoffLimit: 2"))
    await asking.ask()
    (body,) = (body for ref, body in asking.cluster.objects.items() if ref.resource == JOBS)
    assert body["metadata"]["ownerReferences"][0]["uid"] == "uid-a"
    assert "suspend" not in body["spec"]
    assert body["spec"]["backoffLimit"] == 2


def test_one_whose_pod_would_be_restarted_is_refused() -> None:
    given = yaml.safe_load(template("smoke:1")).replace("containers", "restartPolicy: OnFailure, containers")
    with pytest.raises(ValueError, match="with OnFailure Kubernetes deletes the pod of a failed Job"):
        Job.model_validate({"template": given})


SOAK = """
steps:
  - name: soak
    check: {{for: 1m}}
    gates: [{{name: smoke, interval: 10s, job: {{template: {template}}}}}]
"""


def _of_gates(run: Simulation) -> list[Any]:
    return [body for ref, body in run.cluster.objects.items() if ref.resource == JOBS]


async def test_a_failing_check_rolls_the_plan_back() -> None:
    run = Simulation(plan(SOAK.format(template=template("smoke:exit-3"))), put=shop)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.message.startswith("gate smoke failed: 3, must be <= 0; Job smoke-")
    assert len(_of_gates(run)) == 1, "its logs are kept"
    assert run.leftovers() == []


async def test_what_runs_when_the_stage_is_over_is_taken_away() -> None:
    run = Simulation(plan(SOAK.format(template=template("smoke:hangs"))), put=shop)
    await run.until(lambda: bool(_of_gates(run)))
    assert run.status.current is not None
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert _of_gates(run) == []


@pytest.mark.parametrize("read", [True, False], ids=["known", "not read by this process"])
async def test_what_runs_when_its_gate_is_skipped_is_taken_away(monkeypatch: pytest.MonkeyPatch, *, read: bool) -> None:
    spec = SOAK.format(template=template("smoke:hangs")) + "  - {name: rest, wait: {for: 1h}}\n"
    run = Simulation(plan(spec), put=shop)
    await run.until(lambda: bool(_of_gates(run)))
    seen = run.cluster.seen
    monkeypatch.setattr(run.cluster, "seen", lambda ref: seen(ref) if read or ref.resource == PLANS else None)
    run.request(RequestVerb.SKIP, "soak")
    await run.until(lambda: run.status.current is not None and run.status.current.step == "rest")
    await run.turn()
    assert _of_gates(run) == []
    assert run.phase is Phase.RUNNING


async def test_an_account_that_its_template_names_must_be_there() -> None:
    given = template("smoke:1").replace("containers", "serviceAccountName: tester, containers")
    run = Simulation(plan(SOAK.format(template=given)), put=shop)
    assert await run.run() is Phase.REFUSED
    assert "there is no ServiceAccount tester in namespace shop; create it" in run.status.message


async def test_a_template_that_the_server_refuses_is_reported_before_the_first_step() -> None:
    run = Simulation(plan(SOAK.format(template=template("smoke:1"))), put=shop)

    def no(ref: Ref, _: Any) -> None:
        if ref.resource == JOBS:
            raise Rejected("it is not possible")

    run.cluster.refuse = no
    assert await run.run() is Phase.REFUSED
    says = "steps[soak].gates[smoke].job.template: the server refuses the Job: it is not possible"
    assert says in run.status.message


async def test_the_status_shows_what_the_gate_waits_for() -> None:
    run = Simulation(plan(SOAK.format(template=template("smoke:hangs"))), put=shop)

    def told() -> bool:
        current = run.status.current
        return current is not None and any(gate.message.endswith(" runs") for gate in current.gates)

    await run.until(told)
    (job,) = _of_gates(run)
    assert run.status.current is not None
    assert run.status.current.gates[0].message == f"Job {job['metadata']['name']} runs"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_crash_at_every_call_leaves_nothing_that_runs(after: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    spec = SOAK.format(template=template("smoke:exit-3"))
    whole = Simulation(plan(spec), put=shop)
    await whole.run()
    for at in range(1, whole.switch.calls + 1):
        run = Simulation(plan(spec), switch=CrashSwitch(at, after), put=shop)
        assert await run.run() is Phase.ROLLED_BACK, at
        assert run.leftovers() == [], at
        assert len(_of_gates(run)) <= 1, at


async def test_a_guard() -> None:
    spec = f"""
guards: [{{name: alive, interval: 10s, job: {{template: {template("smoke:1")}}}}}]
steps: [{{name: rest, wait: {{for: 1m}}}}]
"""
    run = Simulation(plan(spec), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    (job,) = _of_gates(run)
    assert GATE_LABEL in job["metadata"]["labels"]
    body = copy.deepcopy(run.cluster.objects[run.plan])
    assert body["metadata"]["name"] == Ref(PLANS, "shop", PLAN.name).name
