"""`job` with the real Job controller and processes that really run: there and back, vanished, late, stopped, killed in between."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, Status
from harness.process import until
from harness.proxy import Exchange, Fault, Pause, reset_after
from support.cluster.shop import Operator, Shop
from support.cluster.testbed import Testbed
from support.fakes.migration_tool import MigrationTool

pytestmark = [pytest.mark.cluster, pytest.mark.local("its tool is a process of the process node")]
SEED = int(os.environ.get("SEED", "1"))
OK = {"name": "ok", "approve": {"message": "go"}}
ASLEEP = "echo up >> LEDGER; exec sleep 300"


@pytest.fixture
def tool(shop: Shop, tmp_path: Path) -> MigrationTool:
    return MigrationTool(shop, tmp_path)


def schema(job: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"name": "schema", "job": job, **rest}


def apply(tool: MigrationTool, *steps: dict[str, Any], name: str = "plan", **spec: Any) -> None:
    tool.shop.apply({"keepSnapshots": "1h", **spec, "steps": list(steps)}, name)


def message(status: Status) -> str:
    return status.current.message if status.current else ""


def until_runs(tool: MigrationTool, line: str = "up") -> None:
    until(f"the tool has written {line}", lambda: line in tool.done())


def test_there_and_back_on_request_and_nothing_left(tool: MigrationTool) -> None:
    apply(tool, schema(tool.job()))
    assert tool.shop.until_ended().phase is Phase.SUCCEEDED
    assert tool.done() == ["up"]
    assert tool.left() == []
    job = tool.of_step("schema")
    assert job["metadata"]["ownerReferences"][0]["kind"] == "MigrationPlan"
    tool.shop.request(RequestVerb.ROLLBACK)
    tool.shop.until(lambda status: status.phase is Phase.ROLLED_BACK)
    assert tool.shop.until_ended().phase is Phase.ROLLED_BACK
    assert tool.done() == ["up", "down"]
    assert tool.left() == []
    tool.api.delete(f"{tool.shop.plans}/plan")

    def gone() -> bool:
        return not tool.jobs() and not tool.api.list(tool.pods_path, "job-name")

    # The garbage collector looks for new kinds, such as MigrationPlan, each 30 s only.
    until("the Jobs go with their plan", gone, deadline=120)


def test_a_failure_is_undone_and_says_the_exit_code(tool: MigrationTool) -> None:
    up = "echo up >> LEDGER; echo password=s3cret > $TERMINATION_MESSAGE_PATH; exit 3"
    apply(tool, schema(tool.job(up)))
    status = tool.shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert tool.done() == ["up", "down"]
    assert status.failure is not None
    name = tool.of_step("schema")["metadata"]["name"]
    assert status.failure.message == (
        f"Job {name} failed (BackoffLimitExceeded): container tool exited with code 3 (Error); "
        f"kubectl logs -n {tool.shop.namespace} job/{name} --all-containers"
    )
    assert "s3cret" not in str(tool.api.get(f"{tool.shop.plans}/plan")["status"])
    events = tool.api.list(f"/apis/events.k8s.io/v1/namespaces/{tool.shop.namespace}/events")
    assert "s3cret" not in str([event["note"] for event in events if event["regarding"].get("kind") == "MigrationPlan"])
    assert tool.left() == []


def with_proxy(template: str, ends_with: str) -> str:
    """The template with a second container, as a mesh injects it, that ends once a file exists."""
    body = json.loads(template)
    body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    script = f"until test -e {ends_with}; do sleep 0.1; done"
    body["spec"]["template"]["spec"]["containers"].append(
        {"name": "proxy", "image": "proxy:1", "command": ["sh", "-c", script]}
    )
    return json.dumps(body)


def test_a_sidecar_that_keeps_a_job_from_ending_is_named_there_and_back(tool: MigrationTool, tmp_path: Path) -> None:
    job = tool.job()
    forward, back = tmp_path / "forward", tmp_path / "back"
    job["template"], job["undo"] = with_proxy(job["template"], str(forward)), with_proxy(job["undo"], str(back))
    apply(tool, schema(job, timeout="5s"))
    says = re.compile(r"container tool of pod \S+ has ended with code 0, but proxy still runs and keeps the pod")
    tool.shop.until(lambda status: bool(says.search(message(status))))
    status = tool.shop.until_phase(Phase.ROLLING_BACK)
    assert status.failure is not None
    assert status.failure.reason == "StageTimedOut"
    assert says.search(status.failure.message)
    tool.shop.until(lambda status: "-undo-" in message(status) and bool(says.search(message(status))))
    back.touch()
    assert tool.shop.until_ended().phase is Phase.ROLLED_BACK
    assert tool.done() == ["up", "down"]


def test_retries_and_replaced_pods(tool: MigrationTool) -> None:
    """The second attempt comes once the first is undone; within an attempt the Job controller replaces failed pods."""
    up = "echo up >> LEDGER; test $(grep -c up LEDGER) -ge 3"
    apply(tool, schema(tool.job(up, backoffLimit=0), retries=2))
    assert tool.shop.until_ended(deadline=60).phase is Phase.SUCCEEDED
    assert tool.done() == ["up", "down", "up", "down", "up"]


def test_one_that_vanished_is_not_made_again_and_its_undo_waits_for_its_pod(tool: MigrationTool) -> None:
    up = "trap 'sleep 1; echo ended >> LEDGER; exit 1' TERM; echo up >> LEDGER; while :; do sleep 0.05; done"
    apply(tool, schema(tool.job(up)))
    until_runs(tool)
    name = tool.of_step("schema")["metadata"]["name"]
    tool.api.delete(f"{tool.jobs_path}/{name}")
    status = tool.shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.reason == "JobVanished"
    assert tool.done() == ["up", "ended", "down"]
    assert tool.of_step("schema")["spec"]["suspend"] is True, "a tombstone has its name"
    assert tool.left() == []


def test_one_that_runs_at_an_abort_is_stopped_first(tool: MigrationTool) -> None:
    up = "trap 'sleep 1; echo ended >> LEDGER; exit 1' TERM; echo up >> LEDGER; while :; do sleep 0.05; done"
    apply(tool, schema(tool.job(up)))
    until_runs(tool)
    tool.shop.request(RequestVerb.ABORT)
    assert tool.shop.until_ended().phase is Phase.ROLLED_BACK
    assert tool.done() == ["up", "ended", "down"]
    assert tool.left() == []


def test_it_is_stopped_at_any_moment_of_its_beginning(tool: MigrationTool) -> None:
    """Aborted right after it was made, let run, seen: the undo never overtakes it, and is not run for what has not begun."""
    for number in range(6):
        tool.ledger.write_text("")
        name = f"plan-{number}"
        apply(
            tool,
            {"name": f"s{number}", "job": tool.job("echo up >> LEDGER; sleep 0.2; echo ended >> LEDGER")},
            name=name,
        )
        tool.shop.until(lambda s: s.phase is Phase.RUNNING and bool(s.steps[0].made), name)
        time.sleep(number * 0.03)  # the moment is the point of the test
        tool.shop.request(RequestVerb.ABORT, name=name)
        assert tool.shop.until_ended(name).phase is Phase.ROLLED_BACK
        begun = tool.of_step(f"s{number}", undo=True) is not None
        done = tool.done()
        assert done[-1:] == (["down"] if begun else []), (number, done)
        assert done.count("down") == int(begun), (number, done)
    assert tool.left() == []


def test_a_missing_secret_is_reported_and_waited_for(tool: MigrationTool) -> None:
    url = {"name": "URL", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}}
    job = {"template": tool.template("echo $URL >> LEDGER", env=[url]), "changesNothing": True}
    apply(tool, schema(job))
    tool.shop.until(lambda s: message(s).endswith("CreateContainerConfigError, there is no Secret db"))
    secrets = f"/api/v1/namespaces/{tool.shop.namespace}/secrets"
    tool.api.create(secrets, {"metadata": {"name": "db"}, "stringData": {"other": "x"}})
    tool.shop.until(lambda s: message(s).endswith("CreateContainerConfigError, Secret db has no key url"))
    tool.api.patch(f"{secrets}/db", {"stringData": {"url": "there"}})
    assert tool.shop.until_ended().phase is Phase.SUCCEEDED
    assert tool.done() == ["there"]


def test_an_undo_that_fails_waits_for_a_user(tool: MigrationTool) -> None:
    apply(tool, schema(tool.job("exit 1", "exit 4")))
    status = tool.shop.until_phase(Phase.STUCK)
    assert "exited with code 4" in status.message
    command = status.message.rpartition("then confirm: ")[2].split()
    assert command[:3] == ["kubectl", "label", "job"]
    key, value = command[-1].split("=")
    tool.api.patch(f"{tool.jobs_path}/{command[-2]}", {"metadata": {"labels": {key: value}}})
    assert tool.shop.until_ended().phase is Phase.ROLLED_BACK
    assert tool.left() == []


def test_a_failed_undo_is_run_again_on_request(tool: MigrationTool) -> None:
    """What it needs is missing at first: retry is all that a user needs once it is there."""
    apply(tool, schema(tool.job("echo up >> LEDGER; exit 1", "test -e LEDGER.there && echo down >> LEDGER")))
    status = tool.shop.until_phase(Phase.STUCK)
    assert "retry runs the undo again with a new Job" in status.message
    tool.ledger.with_name("ledger.there").touch()
    tool.shop.request(RequestVerb.RETRY)
    assert tool.shop.until_ended().phase is Phase.ROLLED_BACK
    assert tool.done() == ["up", "down"]
    assert len(tool.jobs()) == 3
    assert tool.left() == []


def test_every_error_is_reported_before_the_first_step(tool: MigrationTool) -> None:
    """Fields that the server does not know, its validation, the account of the pods, and the Role word for word."""
    tool.api.delete(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{tool.shop.namespace}/rolebindings/jobs")
    accounts = f"/api/v1/namespaces/{tool.shop.namespace}/serviceaccounts"
    tool.api.create(accounts, {"metadata": {"name": "tool", "labels": {"cutover.dev/migrator": "true"}}})
    good = tool.job()
    good["template"] = good["template"].replace('"containers"', '"serviceAccountName": "tool", "containers"')
    wrong = tool.job()
    wrong["template"] = wrong["template"].replace('{"spec": {', '{"spec": {"complesions": 2, ', 1)
    wrong["undo"] = wrong["undo"].replace('"name": "tool", ', "")
    apply(tool, schema(good), {"name": "wrong", "job": wrong}, startDeadline="1m")
    status = tool.shop.until(lambda s: "to grant it, apply:" in s.message)
    says = "ServiceAccount migrator is not allowed to create, patch or delete Jobs or to use ServiceAccount tool; to grant it, apply:"
    assert says in status.message
    for manifest in yaml.safe_load_all(status.message.partition("to grant it, apply:\n")[2]):
        tool.api.apply(manifest)
    wrong_field = 'steps[wrong].job.template: the server refuses the Job: unknown field "spec.complesions"'
    status = tool.shop.until(lambda s: wrong_field in s.message)  # the new rights are not there at once
    assert "steps[wrong].job.undo: the server refuses the Job: Job.batch" in status.message
    assert "spec.template.spec.containers[0].name" in status.message
    tool.shop.request(RequestVerb.ABORT)
    tool.shop.until_ended()
    apply(tool, schema(good), name="good")
    assert tool.shop.until_ended("good").phase is Phase.SUCCEEDED
    assert tool.of_step("schema")["spec"]["template"]["spec"]["serviceAccountName"] == "tool"


def test_a_suspended_cron_job_is_run_as_it_is_when_the_job_is_created(tool: MigrationTool) -> None:
    """Read as the plan's account, which has no permission at first; changed between preflight and the step."""
    path = f"/apis/batch/v1/namespaces/{tool.shop.namespace}/cronjobs"

    def template(script: str) -> Any:
        given = json.loads(tool.template(script))
        given["spec"]["template"]["spec"]["restartPolicy"] = "Never"
        return given

    spec = {"schedule": "0 3 * * *", "suspend": False, "jobTemplate": template("echo early >> LEDGER")}
    tool.api.create(path, {"metadata": {"name": "nightly"}, "spec": spec})
    steps = (OK, schema({"cronJob": "nightly", "undo": tool.template("echo down >> LEDGER")}))
    apply(tool, *steps, startDeadline="1m")
    says = "ServiceAccount migrator is not allowed to get CronJob nightly; to grant it, apply:"
    status = tool.shop.until(lambda s: says in s.message)
    for manifest in yaml.safe_load_all(status.message.partition("to grant it, apply:\n")[2]):
        tool.api.apply(manifest)
    status = tool.shop.until(lambda s: "CronJob nightly also runs by itself" in s.message)
    command = re.search(r"kubectl patch cronjob nightly -n \S+ -p ('.*')", status.message)
    assert command is not None
    tool.api.patch(f"{path}/nightly", json.loads(shlex.split(command[1])[0]))
    tool.shop.until_phase(Phase.WAITING)
    tool.api.patch(f"{path}/nightly", {"spec": {"jobTemplate": template("echo up >> LEDGER")}})
    tool.shop.request(RequestVerb.APPROVE, "ok")
    assert tool.shop.until_ended().phase is Phase.SUCCEEDED
    assert tool.done() == ["up"]
    tool.api.delete(f"{path}/nightly")
    tool.shop.request(RequestVerb.ROLLBACK)
    tool.shop.until(lambda status: status.phase is Phase.ROLLED_BACK)
    assert tool.shop.until_ended().phase is Phase.ROLLED_BACK
    assert tool.done() == ["up", "down"]
    assert tool.left() == []


def test_a_plan_that_is_deleted_in_the_foreground_is_undone_first(tool: MigrationTool) -> None:
    apply(tool, schema(tool.job(ASLEEP)))
    until_runs(tool)
    tool.api.delete(f"{tool.shop.plans}/plan", propagation="Foreground")
    until("the plan is gone", lambda: tool.api.find(f"{tool.shop.plans}/plan") is None, deadline=30)
    assert tool.done() == ["up", "down"]
    until("its Jobs went with it", lambda: not tool.jobs())


def test_a_gate_runs_its_job_again_and_again(tool: MigrationTool) -> None:
    """It passes when the check does, twice in a row; one Job is left, and the plan goes on while it waits."""
    check = "echo look >> LEDGER; test $(grep -c look LEDGER) -ge 1"
    gate = {"name": "smoke", "interval": "1s", "successThreshold": 2, "job": {"template": tool.template(check)}}
    apply(tool, {"name": "soak", "check": {}, "gates": [gate]})
    assert tool.shop.until_ended().phase is Phase.SUCCEEDED
    assert tool.done()[:2] == ["look", "look"]
    until("at most the last one is left", lambda: len(tool.jobs()) <= 1 and not tool.running())
    assert tool.left() == []


def test_a_gate_that_fails_rolls_the_plan_back(tool: MigrationTool) -> None:
    gate = {"name": "smoke", "interval": "1s", "job": {"template": tool.template("echo look >> LEDGER; exit 7")}}
    apply(tool, schema(tool.job()), {"name": "soak", "check": {}, "gates": [gate]})
    status = tool.shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.message.startswith("gate smoke failed: 7, must be <= 0; Job smoke-")
    assert tool.done() == ["up", "look", "down"]
    assert tool.left() == []


# --- the operator dies in between -------------------------------------------------------------------------------------


def _killed(tool: MigrationTool, operator: Operator, number: int, moment: float, *, back: bool) -> None:
    tool.ledger.write_text("")
    name, step = f"plan-{number}", f"step-{number}"
    up = "echo up >> LEDGER; sleep 0.3; echo ended >> LEDGER"
    down = "echo down >> LEDGER; sleep 0.3; echo back >> LEDGER"
    apply(tool, {"name": step, "job": tool.job(up, down)}, OK, name=name)
    if back:
        tool.shop.until_phase(Phase.WAITING, name)
        tool.shop.request(RequestVerb.ABORT, name=name)
    time.sleep(moment)  # the point of the test
    operator.kill()
    operator.start()
    if not back:
        tool.shop.until_phase(Phase.WAITING, name)
        assert tool.done() == ["up", "ended"], moment
        tool.shop.request(RequestVerb.APPROVE, "ok", name=name)
    status = tool.shop.until_ended(name)
    assert status.phase is (Phase.ROLLED_BACK if back else Phase.SUCCEEDED), status
    assert tool.done() == (["up", "ended", "down", "back"] if back else ["up", "ended"]), moment
    assert len([job for job in tool.jobs() if job["metadata"]["name"].startswith(f"{step}-")]) == 1 + back


def _moments(count: int, longest: float, salt: int) -> list[float]:
    chosen = random.Random(SEED + salt)  # noqa: S311 -- repeatable on purpose
    return [(number + chosen.random()) * longest / count for number in range(count)]


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_killed_at_some_moments(tool: MigrationTool, operator: Operator, back: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    for number, moment in enumerate(_moments(5, 1.0, salt=back)):
        _killed(tool, operator, number, moment, back=back)
    assert tool.left() == []


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_killed_at_many_moments(tool: MigrationTool, operator: Operator, back: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    for number, moment in enumerate(_moments(40, 1.2, salt=2 + back)):
        _killed(tool, operator, number, moment, back=back)
    assert tool.left() == []


def test_a_second_do_and_a_second_undo_change_nothing(tool: MigrationTool, operator: Operator) -> None:
    """A process that has just begun does the current command once more: no object is written again."""
    gate = {"name": "never", "interval": "1s", "readiness": {"workload": {"name": "shop-v2"}}}
    apply(tool, schema(tool.job(), gates=[gate]))
    tool.shop.until(lambda s: s.current is not None and bool(s.current.gates))
    versions = [job["metadata"]["resourceVersion"] for job in tool.jobs()]
    operator.kill()
    operator.start()
    tool.shop.until(lambda s: s.run is not None and s.run.fence == 3)  # raised by the one that took over
    tool.shop.until(lambda s: s.current is not None and bool(s.current.gates))
    assert [job["metadata"]["resourceVersion"] for job in tool.jobs()] == versions
    assert tool.done() == ["up"]
    tool.shop.request(RequestVerb.ABORT)
    assert tool.shop.until_ended().phase is Phase.ROLLED_BACK
    assert tool.done() == ["up", "down"]


# --- late -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_late_write_makes_nothing_that_runs(testbed: Testbed, tmp_path: Path, method: str) -> None:
    """The request that makes the Job, or lets it run, is kept on its way until the plan has been undone."""
    with testbed.site(f"late-{method.lower()}") as site:
        tool, pause = MigrationTool(site.shop, tmp_path), Pause()
        apply(tool, OK, schema(tool.job()))
        site.shop.until_phase(Phase.WAITING)

        def rule(exchange: Exchange) -> Fault | None:
            jobs = "/jobs" in exchange.path
            return pause if jobs and exchange.method == method and not pause.paused.is_set() else None

        site.runner.proxy.arm(rule)
        site.shop.request(RequestVerb.APPROVE, "ok")
        assert pause.paused.wait(20)
        site.runner.process.kill()  # nobody waits for the answer any more
        site.shop.request(RequestVerb.ABORT)
        site.runner.start()
        assert site.shop.until_ended(deadline=60).phase is Phase.ROLLED_BACK
        assert pause.release() == {"POST": 409, "PATCH": 422}[method]
        assert tool.done() == []
        (job,) = tool.jobs()
        assert job["spec"]["suspend"] is True
        assert tool.left() == []


# --- whose it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["ours", "other"])
def test_a_job_that_is_there_already_is_ours_or_is_not_taken_for_it(
    testbed: Testbed, tmp_path: Path, whose: str
) -> None:
    """The answer to the creation is lost, so the Job is found by its name; or another writer was there first, with all of our labels."""
    with testbed.site(f"found-{whose}") as site:
        tool = MigrationTool(site.shop, tmp_path)
        apply(tool, OK, schema(tool.job()))
        site.shop.until_phase(Phase.WAITING)
        asked: list[str] = []

        async def forge(exchange: Exchange) -> web.StreamResponse:
            body = json.loads(exchange.body)
            body["spec"]["template"]["spec"]["containers"][0]["command"] = ["true"]
            await asyncio.to_thread(site.shop.api.create, exchange.path, body)
            return exchange.reset()

        def rule(exchange: Exchange) -> Fault | None:
            if exchange.method != "POST" or not exchange.path.endswith("/jobs"):
                return None
            asked.append(json.loads(exchange.body)["metadata"]["name"])
            return None if len(asked) > 1 else reset_after if whose == "ours" else forge

        site.runner.proxy.arm(rule)
        site.shop.request(RequestVerb.APPROVE, "ok")
        status = site.shop.until_ended(deadline=60)
        assert asked[:2] == [asked[0], f"{asked[0]}-0"], "the server says what it makes of ours"
        assert len(tool.jobs()) == 1
        if whose == "ours":
            assert (status.phase, tool.done()) == (Phase.SUCCEEDED, ["up"])
            return
        assert status.phase is Phase.ROLLED_BACK
        assert status.failure is not None
        assert status.failure.reason == "NameTaken"
        assert tool.done() == []
