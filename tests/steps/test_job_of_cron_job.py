"""A Job whose template is in a suspended CronJob: who may read it, what is refused, and which state of it counts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cutover.ports import CRON_JOBS, JOBS, MIGRATOR_LABEL, SERVICE_ACCOUNTS, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, StepState
from cutover.testing import MemoryCluster
from support.fakes.shop import plan
from support.fakes.simulation import Simulation
from support.plans.simulated import NIGHTLY, cron_job, shop_with_a_cron_job, template

LOOK = "{name: look, job: {cronJob: nightly, changesNothing: true}}"
SEED = f"{{name: seed, job: {{cronJob: nightly, undo: {template('tool:down')}}}}}"
OK = "{name: ok, approve: {message: go}}"


def a_run(*steps: str, put: Any = shop_with_a_cron_job) -> Simulation:
    return Simulation(plan(f"steps: [{', '.join(steps)}]"), put=put)


def images(run: Simulation) -> list[str]:
    bodies = [body for ref, body in run.cluster.objects.items() if ref.resource == JOBS]
    return [body["spec"]["template"]["spec"]["containers"][0]["image"] for body in bodies]


async def message(run: Simulation) -> str:
    await run.until(lambda: run.phase is Phase.PENDING and bool(run.status.message))
    return run.status.message


def with_pod(cluster: MemoryCluster, **pod: Any) -> None:
    body = cron_job("tool:up")
    body["spec"]["jobTemplate"]["spec"]["template"]["spec"] |= pod
    cluster.put(CRON_JOBS, body)


async def test_it_runs_what_is_in_the_cron_job() -> None:
    run = a_run(LOOK)
    assert await run.run() is Phase.SUCCEEDED
    (body,) = (body for ref, body in run.cluster.objects.items() if ref.resource == JOBS)
    assert images(run) == ["tool:up"]
    pod = body["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("migrator", False)
    assert "schedule" not in body["spec"]
    assert NIGHTLY not in [ref for _, ref in run.cluster.writes], "a CronJob is read and never written"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"suspend": False}, "CronJob nightly also runs by itself; suspend it: kubectl patch cronjob nightly -n shop -p '{\"spec\":{\"suspend\":true}}'"),
        ({"jobTemplate": {"spec": {"managedBy": "x", "template": {"spec": {"containers": [{"name": "t"}]}}}}}, "CronJob nightly, spec.jobTemplate.spec.managedBy: the plan relies on the Job controller"),
        ({"jobTemplate": {"spec": {"template": {"spec": {"serviceAccountName": "tool", "containers": [{"name": "t"}]}}}}}, "the pods of CronJob nightly run under ServiceAccount tool, and the plan says migrator; write serviceAccountName: tool beside cronJob"),
    ],
)  # fmt: skip
async def test_what_keeps_a_plan_from_beginning(change: dict[str, Any], says: str) -> None:
    run = a_run(LOOK)
    run.cluster.put(CRON_JOBS, cron_job("tool:up", **change))
    assert f"steps[look].job.cronJob: {says}" in await message(run)
    run.cluster.put(CRON_JOBS, cron_job("tool:up"))
    assert await run.run() is Phase.SUCCEEDED


async def test_one_that_is_not_there_is_waited_for() -> None:
    run = a_run(LOOK)
    del run.cluster.objects[NIGHTLY]
    says = "steps[look].job.cronJob: there is no CronJob nightly in namespace shop; create it, or fix the name"
    assert says in await message(run)
    run.cluster.put(CRON_JOBS, cron_job("tool:up"))
    assert await run.run() is Phase.SUCCEEDED


async def test_one_that_the_account_of_the_plan_may_not_read_is_not_read_for_it() -> None:
    run = a_run(LOOK)
    run.cluster.denied.add(("get", NIGHTLY))
    says = await message(run)
    assert "ServiceAccount migrator is not allowed to get CronJob nightly; to grant it, apply:" in says
    role = next(yaml.safe_load_all(says.partition("to grant it, apply:\n")[2]))
    assert {"apiGroups": ["batch"], "resources": ["cronjobs"], "resourceNames": ["nightly"], "verbs": ["get"]} in role[
        "rules"
    ]


async def test_the_account_that_it_names_is_written_in_the_plan_and_checked() -> None:
    def put(cluster: MemoryCluster) -> None:
        shop_with_a_cron_job(cluster)
        with_pod(cluster, serviceAccountName="tool", serviceAccount="tool")

    run = a_run(LOOK.replace("nightly", "nightly, serviceAccountName: tool"), put=put)
    assert "there is no ServiceAccount tool in namespace shop" in await message(run)
    run.cluster.denied.add(("use", Ref(SERVICE_ACCOUNTS, "shop", "tool")))
    run.cluster.put(SERVICE_ACCOUNTS, {"metadata": {"name": "tool", "labels": {MIGRATOR_LABEL: "true"}}})
    await run.until(lambda: "not allowed to use ServiceAccount tool" in run.status.message)
    run.cluster.denied.clear()
    assert await run.run() is Phase.SUCCEEDED


async def test_what_is_in_it_when_the_job_is_created_is_what_runs() -> None:
    run = a_run(OK, SEED)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.put(CRON_JOBS, cron_job("tool:later"))
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: bool(run.jobs()))
    run.cluster.put(CRON_JOBS, cron_job("tool:too-late"))
    assert await run.run() is Phase.SUCCEEDED
    assert images(run) == ["tool:later"]


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        ({"serviceAccountName": "admin"}, "the pods of CronJob nightly run under ServiceAccount admin"),
        ({"restartPolicy": "Always"}, "CronJob nightly, spec.jobTemplate.spec.template.spec.restartPolicy"),
    ],
)
async def test_one_that_has_changed_into_what_would_have_been_refused_runs_nothing(
    pod: dict[str, Any], says: str
) -> None:
    run = a_run(OK, SEED)
    await run.until(lambda: run.phase is Phase.WAITING)
    with_pod(run.cluster, **pod)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "CronJobUnusable"
    assert says in run.status.failure.message
    assert list(run.jobs().values()) == ["unfinished, started never"]


@pytest.mark.parametrize("step", [LOOK, SEED])
async def test_one_that_is_gone_ends_the_step_and_not_its_undo(step: str) -> None:
    run = a_run(OK, step)
    await run.until(lambda: run.phase is Phase.WAITING)
    del run.cluster.objects[NIGHTLY]
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert "there is no CronJob nightly in namespace shop" in run.status.failure.message
    assert list(run.jobs().values()) == ["unfinished, started never"]
    assert run.leftovers() == []


async def test_another_attempt_reads_it_again() -> None:
    run = a_run(SEED.replace("name: seed,", "name: seed, retries: 1,"))
    run.cluster.put(CRON_JOBS, cron_job("tool:exit-3"))
    await run.until(lambda: bool(run.status.steps) and run.status.steps[0].state is StepState.UNDOING)
    run.cluster.put(CRON_JOBS, cron_job("tool:up"))
    assert await run.run() is Phase.SUCCEEDED
    assert sorted(images(run)) == ["tool:down", "tool:exit-3", "tool:up"]


@pytest.mark.parametrize("step", [LOOK, SEED])
async def test_a_right_to_read_it_that_is_lost_does_not_keep_the_undo(step: str) -> None:
    run = a_run(OK, step)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.denied.add(("get", NIGHTLY))
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.ROLLED_BACK
    assert run.leftovers() == []


@pytest.mark.parametrize(("given", "limit"), [("", 4), (", backoffLimit: 0", 0)])
async def test_its_backoff_limit_is_taken_over_and_its_time_to_live_is_not(given: str, limit: int) -> None:
    run = a_run(LOOK.replace("changesNothing: true", f"changesNothing: true{given}"))
    body = cron_job("tool:up")
    body["spec"]["jobTemplate"]["spec"] |= {"backoffLimit": 4, "ttlSecondsAfterFinished": 60}
    run.cluster.put(CRON_JOBS, body)
    assert await run.run() is Phase.SUCCEEDED
    (job,) = (body for ref, body in run.cluster.objects.items() if ref.resource == JOBS)
    assert job["spec"]["backoffLimit"] == limit
    assert "ttlSecondsAfterFinished" not in job["spec"]
