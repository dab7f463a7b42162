"""`schema` in memory: what its Job is handed, what its result becomes, forward, backward, killed, deleted and done twice."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cutover.errors import PlanError
from cutover.objects.database_pods import RUNNER
from cutover.plan.parsing import parse
from cutover.ports import JOBS, PODS
from cutover.runner_messages.payload import Direction
from cutover.runner_messages.reasons import FINAL, RunnerReason
from cutover.runner_messages.result import Blocker, Result
from cutover.saga.turn import Again, Done, Failed
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, StepState
from cutover.testing import MemoryCluster, run_jobs
from support.fakes.database_jobs import GONE, DatabaseJobs
from support.fakes.job_step import Bench
from support.fakes.shop import parsed, plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import DATABASE

EXPAND = f"""
{DATABASE}
steps:
  - name: schema
    schema:
      up: {{inline: "ADD a; ADD b"}}
      down: {{inline: "DROP b; DROP a"}}
      validate: {{inline: "0 if 'ADD b' in applied else 7"}}
"""
LATER_FAILS = f"""
{EXPAND}
  - {{name: soak, check: {{for: 1m}}, gates: [{{name: errors, interval: 10s, prometheus: {{query: errors}}, pass: {{max: "0.5"}}}}]}}
"""


def spec(**change: Any) -> dict[str, Any]:
    """The plan with other fields of its step, or of its database."""
    document: dict[str, Any] = {"serviceAccountName": "migrator"} | parsed(EXPAND)
    document["databases"][0] |= change.pop("database", {})
    document["steps"][0]["schema"] |= change
    return document


class Step(Bench):
    """The step, and the database that its Jobs work in."""

    def __init__(self, **change: Any) -> None:
        cluster = MemoryCluster()
        shop(cluster)
        self.database = DatabaseJobs(cluster)
        super().__init__("", cluster, parse(spec(**change)).steps[0].kind)


# --- forward ----------------------------------------------------------------------------------------------------------


async def test_it_runs_once_whatever_is_asked_again() -> None:
    step = Step()
    assert await step.to_the_end("do") == Done()
    assert step.database.applied == ["ADD a", "ADD b"]
    before = step.writes()
    assert await step.to_the_end("do") == Done()
    assert (step.writes(), len(step.jobs())) == (before, 1)


async def test_what_its_job_is_handed() -> None:
    step = Step()
    await step.to_the_end("do")
    (payload,) = step.database.payloads
    assert (payload.plan.namespace, payload.plan.uid, payload.run, payload.step) == ("shop", "uid-a", 1, "schema")
    assert (payload.direction, payload.attempt, payload.kind) == (Direction.UP, 1, "schema")
    assert (payload.database.name, payload.database.engine, payload.database.schema_) == (
        "orders",
        "postgresql",
        "shop",
    )
    (container,) = step.job()["spec"]["template"]["spec"]["containers"]
    assert (container["name"], container["image"]) == (RUNNER, "cutover:test")
    assert container["env"][1:] == [
        {"name": "CUTOVER_DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "orders-db", "key": "uri"}}}
    ]


async def test_it_keeps_to_the_restricted_standard_and_has_no_token() -> None:
    step = Step()
    await step.do()
    spec = step.job()["spec"]
    pod = spec["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    ends, disrupted = spec["podFailurePolicy"]["rules"]
    assert ends == {
        "action": "FailJob",
        "onExitCodes": {"containerName": RUNNER, "operator": "In", "values": [10, 11, 12, 13, 30]},
    }
    assert sorted(map(int, FINAL)) == ends["onExitCodes"]["values"]
    assert disrupted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert (spec["podReplacementPolicy"], pod["restartPolicy"]) == ("Failed", "Never")


async def test_no_credential_is_in_the_job_and_files_come_from_the_kubelet() -> None:
    secret = {"secretKeyRef": {"name": "orders-db", "key": "password"}}
    token = {"serviceAccountToken": {"audience": "postgres", "expirationSeconds": 600}}
    tls = {
        "mode": "verify-full",
        "caFrom": {"configMapKeyRef": {"name": "ca", "key": "bundle.pem"}},
        "certFrom": {"secretKeyRef": {"name": "client", "key": "tls.crt"}},
        "keyFrom": {"secretKeyRef": {"name": "client", "key": "tls.key"}},
    }
    parts = {"urlFrom": None, "host": "db", "database": "orders", "userFrom": secret, "passwordFile": token, "tls": tls}
    change = spec(database=parts)
    del change["databases"][0]["urlFrom"]
    cluster = MemoryCluster()
    shop(cluster)
    database = DatabaseJobs(cluster)
    step = Bench("", cluster, parse(change).steps[0].kind)
    assert await step.to_the_end("do") == Done()
    (payload,) = database.payloads
    files = "/etc/cutover-database"
    assert payload.database.password_file == f"{files}/login/password"
    assert payload.database.tls is not None
    assert payload.database.tls.model_dump(by_alias=True) == {
        "mode": "verify-full",
        "caFile": f"{files}/tls/ca.crt",
        "certFile": f"{files}/tls/tls.crt",
        "keyFile": f"{files}/tls/tls.key",
    }
    pod = step.job()["spec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == 65532
    assert [(one["name"], one["projected"]["defaultMode"]) for one in pod["volumes"]] == [
        ("tls", 0o440),
        ("login", 0o444),
    ]
    assert pod["volumes"][1]["projected"]["sources"] == [
        {"serviceAccountToken": {"audience": "postgres", "expirationSeconds": 600, "path": "password"}}
    ]
    mounts = pod["containers"][0]["volumeMounts"]
    assert [(one["mountPath"], one["readOnly"]) for one in mounts] == [(f"{files}/tls", True), (f"{files}/login", True)]
    assert [one["name"] for one in pod["containers"][0]["env"]] == ["CUTOVER_PAYLOAD", "PGUSER"]


async def test_a_failed_validation_keeps_nothing_and_is_told_in_a_sentence() -> None:
    step = Step(validate={"inline": "7"})
    outcome = await step.to_the_end("do")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "ValidationFailed"
    assert outcome.message.startswith("database orders: schema.validate: ")
    assert outcome.message.endswith(f"kubectl logs -n shop job/{step.job()['metadata']['name']} --all-containers")
    assert step.database.applied == []
    assert step.job()["status"]["failed"] == 1  # no other pod would have come further


async def test_a_server_that_is_away_is_tried_for_by_other_pods() -> None:
    step = Step()
    step.database.fails = [GONE, GONE]
    assert await step.to_the_end("do") == Done()
    assert step.job()["status"]["failed"] == 2
    assert step.database.applied == ["ADD a", "ADD b"]
    step = Step()
    step.database.fails = [GONE] * 7
    outcome = await step.to_the_end("do")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "ConnectionRefused"
    assert "database orders: the server cannot be reached; " in outcome.message


async def test_only_known_words_of_a_termination_message_are_taken() -> None:
    step = Step()
    blocker = Blocker(7, "shop-v1", 12.0, "idle in transaction")
    step.database.fails = [
        Result(RunnerReason.STATEMENT_FAILED, "schema.up", 2, 3, "42P07", ("users",), blockers=(blocker,))
    ]
    outcome = await step.to_the_end("do")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "StatementFailed"
    assert "schema.up: was refused by the server in statement 2, line 3 (SQLSTATE 42P07) (users)" in outcome.message


@pytest.mark.parametrize(
    "message",
    [
        "Traceback: password=hunter2",
        '{"reason": "hunter2"}',
        '{"reason": "Done"}',
        '{"reason": "LockBudgetExhausted"}',
        "",
    ],
)
async def test_a_message_that_does_not_go_with_the_exit_code_is_not_believed(message: str) -> None:
    step = Step()
    step.cluster.exits, step.cluster.messages = lambda _: 11, lambda _: message
    outcome = await step.to_the_end("do")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "JobFailed"
    assert f"container {RUNNER} exited with code 11" in outcome.message
    assert "hunter2" not in outcome.message


# --- backward ---------------------------------------------------------------------------------------------------------


async def test_the_undo_takes_back_what_the_journal_says_was_done() -> None:
    step = Step()
    await step.to_the_end("do")
    assert await step.back() == Done()
    assert step.database.applied == ["ADD a", "ADD b", "DROP b", "DROP a"]
    up, down = step.database.payloads
    assert (up.direction, down.direction) == (Direction.UP, Direction.DOWN)
    assert down.fence > up.fence
    assert await step.back() == Done()
    assert len(step.database.applied) == 4


async def test_the_undo_of_what_was_never_done_changes_nothing() -> None:
    step = Step(validate={"inline": "7"})
    await step.to_the_end("do")
    outcome = await step.back()
    assert outcome == Done(message="the database's journal says that it was never done, so nothing is undone")
    assert step.database.applied == []


async def test_without_down_the_undo_makes_sure_that_nothing_was_done() -> None:
    steps = parsed(EXPAND)["steps"]
    del steps[0]["schema"]["down"]
    for done in (False, True):
        cluster = MemoryCluster()
        shop(cluster)
        database = DatabaseJobs(cluster)
        irreversible = {**spec(), "steps": [{**steps[0], "irreversible": True}]}
        step = Bench("", cluster, parse(irreversible).steps[0].kind)
        database.fails = [] if done else [Result(RunnerReason.STATEMENT_FAILED, "schema.up")]
        await step.to_the_end("do")
        outcome = await step.back()
        if done:  # only an attempt that is not known to be done is undone
            assert isinstance(outcome, Failed)
            assert outcome.reason == "DownMissing"
            assert "fix by hand what is left, then confirm" in outcome.message
        else:
            assert outcome == Done(message="the database's journal says that it was never done, so nothing is undone")


async def test_another_attempt_of_the_undo_fences_off_the_one_before() -> None:
    step = Step()
    await step.to_the_end("do")
    step.database.fails = [Result(RunnerReason.STATEMENT_FAILED, "schema.down")]
    outcome = await step.back()
    assert isinstance(outcome, Failed)
    assert outcome.reason == "StatementFailed"
    assert "retry runs the undo again with a new Job" in outcome.message
    assert await step.back_again() == Done()
    fences = [payload.fence for payload in step.database.payloads]
    assert fences == sorted(set(fences))


# --- what others do to its Jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [False, True], ids=["before it had begun", "after it was done"])
async def test_a_job_that_was_deleted_is_created_again_and_does_its_work_once(done: bool) -> None:  # noqa: FBT001 -- parameter of the test
    step = Step()
    step.database.hangs = not done
    await step.do()
    await step.do()
    for _ in range(2):
        run_jobs(step.cluster)
    first = step.job()["metadata"]["uid"]
    assert step.database.applied == (["ADD a", "ADD b"] if done else [])
    step.cluster.delete(step.ref())
    step.database.hangs = False
    run_jobs(step.cluster)
    assert await step.to_the_end("do") in (Done(), Done(message="the database's journal says that it was done already"))
    assert step.job()["metadata"]["uid"] != first
    assert step.database.applied == ["ADD a", "ADD b"]


async def test_an_undo_job_that_was_deleted_is_created_again() -> None:
    step = Step()
    await step.to_the_end("do")
    step.fence += 1
    step.database.hangs = True
    for _ in range(3):
        await step.undo()
        run_jobs(step.cluster)
    step.cluster.delete(step.ref(undo=True))
    step.database.hangs = False
    run_jobs(step.cluster)
    assert await step.to_the_end("undo") == Done()
    assert step.database.applied == ["ADD a", "ADD b", "DROP b", "DROP a"]


async def test_another_process_recognizes_the_job_that_this_one_has_created_just_before_it_died() -> None:
    """The fence of the run has risen by then; that of the payload is the attempt's own."""
    step = Step()
    assert isinstance(await step.do(), Again)
    step.made = ""
    step.fence += 5
    assert isinstance(await step.do(), Again)
    assert await step.to_the_end("do") == Done()


# --- whole plans ------------------------------------------------------------------------------------------------------


def simulated(text: str) -> tuple[Simulation, DatabaseJobs]:
    found = list[DatabaseJobs]()

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        found.append(DatabaseJobs(cluster))

    run = Simulation(plan(text), put=put)
    return run, found[0]


async def test_a_plan_rolls_the_schema_back() -> None:
    run, database = simulated(LATER_FAILS)
    run.metrics.answer = lambda _: type(run.metrics.answer(""))(0.9)
    assert await run.run() is Phase.ROLLED_BACK
    assert database.applied == ["ADD a", "ADD b", "DROP b", "DROP a"]
    assert [step.state for step in run.status.steps] == [StepState.UNDONE, StepState.UNDONE]
    assert run.leftovers() == []


async def test_an_abort_while_it_runs_waits_for_the_pod_and_leaves_nothing() -> None:
    run, database = simulated(EXPAND)
    await run.until(lambda: [step.state for step in run.status.steps] == [StepState.DOING])
    database.hangs = True
    await run.until(lambda: any(ref.resource == PODS and ref.name.startswith("schema-") for ref in run.cluster.objects))
    run.request(RequestVerb.ABORT)
    database.hangs = False
    assert await run.run() is Phase.ROLLED_BACK
    assert database.applied in ([], ["ADD a", "ADD b", "DROP b", "DROP a"])


async def test_without_an_image_the_plan_says_where_to_set_one() -> None:
    document = parsed(EXPAND)
    del document["databases"][0]["runner"]
    run, _ = simulated(yaml.safe_dump(document))
    await run.turn()
    assert run.phase is Phase.PENDING
    assert "databases[orders].runner.image: the operator's settings have no runnerImage" in run.status.message
    assert not [ref for ref in run.cluster.objects if ref.resource == JOBS]


# --- the look before the first step -----------------------------------------------------------------------------------


async def test_a_database_that_cannot_be_reached_keeps_the_plan_pending_until_it_can() -> None:
    run, database = simulated(EXPAND)
    database.fails = [GONE, GONE]
    await run.until(lambda: "cannot be reached" in run.status.message)
    assert run.phase is Phase.PENDING
    assert "steps[schema].schema: database orders: the server cannot be reached" in run.status.message
    assert database.server.state.steps == {}
    assert await run.run() is Phase.SUCCEEDED
    assert [payload.direction for payload in database.payloads] == [Direction.PREFLIGHT] * 3 + [Direction.UP]


async def test_all_that_the_look_finds_is_told_at_once_and_nothing_was_touched() -> None:
    more = "{name: more, schema: {up: {inline: ADD c}, down: {inline: DROP c}}}"
    run, database = simulated(f"{EXPAND}  - {more}\nstartDeadline: 20s\n")
    lacks = Result(RunnerReason.PRIVILEGE, names=("migrator",), needs="CREATE ON DATABASE")
    database.fails = [lacks, Result(RunnerReason.HAZARD, "schema.up", 1, 1)] * 50
    assert await run.run() is Phase.REFUSED
    assert (
        "steps[schema].schema: database orders: the role lacks a right (migrator); GRANT CREATE ON"
        in run.status.message
    )
    assert "steps[more].schema: database orders: schema.up: has hazards that are not allowed" in run.status.message
    assert {payload.direction for payload in database.payloads} == {Direction.PREFLIGHT}
    assert (database.applied, database.server.state.steps) == ([], {})
    assert run.cluster.objects[run.plan]["metadata"].get("finalizers") in (None, [])


async def test_the_job_of_a_look_is_of_the_plan_and_claimed_by_nobody() -> None:
    run, database = simulated(EXPAND)
    database.hangs = True
    await run.until(lambda: any("-look-" in ref.name and ref.resource == PODS for ref in run.cluster.objects))
    (job,) = (body for ref, body in run.cluster.objects.items() if ref.resource == JOBS)
    assert job["metadata"]["ownerReferences"][0]["uid"] == run.cluster.objects[run.plan]["metadata"]["uid"]
    assert {"cutover.dev/plan", "cutover.dev/fence"} & job["metadata"]["labels"].keys() == set()
    assert (job["spec"]["suspend"], job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (
        False,
        0,
        600,
    )
    assert (
        f"steps[schema].schema: Job {job['metadata']['name']} begins to look at database orders" in run.status.message
    )
    await run.turn()
    database.hangs = False
    assert await run.run() is Phase.SUCCEEDED


async def test_a_job_under_the_name_of_a_look_that_somebody_else_has_created_is_not_believed() -> None:
    run, database = simulated(EXPAND)
    database.hangs = True
    await run.until(lambda: any(ref.resource == JOBS for ref in run.cluster.objects))
    (ref,) = (ref for ref in run.cluster.objects if ref.resource == JOBS)
    foreign = {
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "spec": {"template": {"spec": {"containers": []}}},
    }
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    run.cluster.delete(ref)
    run.cluster.put(JOBS, foreign | {"status": done})
    await run.until(lambda: f"there is a Job {ref.name} that this plan has not created" in run.status.message)
    assert run.phase is Phase.PENDING


# --- bad plans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"down": None}, "steps[schema].schema: no down is defined; add down, or irreversible: true on the step"),
        ({"database": "users"}, "steps[schema].schema.database: the plan has no database users; use orders"),
        (
            {"up": {"configMapKeyRef": {"name": "sql", "key": "up"}}},
            "steps[schema].schema.up.configMapKeyRef: is not supported yet; write the script itself, below `inline: |`",
        ),
        (
            {name: {"inline": "\u20ac" * 16_000} for name in ("up", "down", "validate")},
            "steps[schema].schema: takes 144466 bytes, and the maximum is 120000; split it into several steps",
        ),
    ],
    ids=["no down", "no such database", "elsewhere", "too long"],
)
def test_one_sentence(change: dict[str, Any], message: str) -> None:
    document = {"serviceAccountName": "migrator"} | parsed(EXPAND)
    for key, value in change.items():
        document["steps"][0]["schema"][key] = value
    with pytest.raises(PlanError) as caught:
        parse(document)
    assert [str(problem) for problem in caught.value.problems] == [message]


def test_with_several_databases_a_step_names_its_own() -> None:
    document = spec()
    document["databases"].append(document["databases"][0] | {"name": "users"})
    with pytest.raises(PlanError) as caught:
        parse(document)
    message = "steps[schema].schema.database: the plan has several databases; name one of orders, users"
    assert [str(problem) for problem in caught.value.problems] == [message]
    document["steps"][0]["schema"]["database"] = "users"
    kind = parse(document).steps[0].kind
    assert kind.stages()[0].intent == "schema in database users"


def test_another_database_is_another_plan_to_approve() -> None:
    one = parse(spec()).steps_digest
    other = parse(spec(database={"urlFrom": {"secretKeyRef": {"name": "other", "key": "uri"}}})).steps_digest
    assert one == parse(spec()).steps_digest
    assert one != other
