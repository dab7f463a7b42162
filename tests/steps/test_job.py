"""`job` in memory: made suspended and let run once, what it waits for, what stops it, what undoes it, and what is left to people."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cutover.engine.sweep import sweep
from cutover.errors import Conflict, Denied, Rejected, Superseded
from cutover.objects import jobs
from cutover.objects.jobs import STARTED_LABEL
from cutover.objects.pod_accounts import accounts_of
from cutover.ports import (
    EVENTS,
    FENCE_LABEL,
    JOBS,
    MIGRATOR_LABEL,
    NAMESPACES,
    PLAN_LABEL,
    PLANS,
    PODS,
    SERVICE_ACCOUNTS,
    Ref,
)
from cutover.saga.turn import Again, Done, Failed, Wait
from cutover.status.report import Result, SuccessCriterion
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, StepState
from cutover.steps.shared.job_kind import SETTLED_LABEL
from cutover.testing import CrashSwitch, MemoryCluster, run_jobs
from support.fakes.job_step import Bench
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import migrating, template

UP_AND_DOWN = f"{{template: {template('tool:up')}, undo: {template('tool:down')}}}"
HANGS = f"{{template: {template('tool:hangs')}, undo: {template('tool:down')}}}"
FAILS = f"{{template: {template('tool:exit-3')}, undo: {template('tool:exit-4')}}}"
LOOKS = f"{{template: {template('tool:up')}, changesNothing: true}}"
ONE_WAY = f"{{template: {template('tool:exit-3')}}}"


def label(body: Any, name: str) -> str | None:
    found: str | None = body["metadata"]["labels"].get(name)
    return found


# --- forward ----------------------------------------------------------------------------------------------------------


async def test_it_runs_only_after_its_uid_is_saved() -> None:
    bench = Bench(UP_AND_DOWN)
    first = await bench.do()
    made = bench.job()
    assert first == Again(0.0, f"Job {made['metadata']['name']} is created", made=made["metadata"]["uid"][-12:])
    assert made["spec"]["suspend"] is True
    bench.made = ""  # the save did not come to pass
    assert await bench.do() == first
    assert bench.job()["spec"]["suspend"] is True
    assert isinstance(await bench.do(), Again)
    assert bench.job()["spec"]["suspend"] is False
    assert await bench.to_the_end("do") == Done(ready="1/1")


async def test_a_second_do_changes_nothing() -> None:
    bench = Bench(UP_AND_DOWN)
    await bench.to_the_end("do")
    before = bench.writes()
    assert await bench.do() == Done(ready="1/1")
    assert bench.writes() == before


async def test_what_it_is_made_of() -> None:
    bench = Bench("{changesNothing: true, backoffLimit: 2, template: '{metadata: {labels: {team: db}}, spec: "
                  "{parallelism: 2, template: {spec: {containers: [{name: t, image: x}]}}}}'}")  # fmt: skip
    await bench.do()
    body = bench.job()
    pod = body["spec"]["template"]["spec"]
    assert body["spec"]["backoffLimit"] == 2
    assert body["spec"]["parallelism"] == 2
    assert pod["restartPolicy"] == "Never"
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("migrator", False)
    assert body["metadata"]["labels"]["team"] == "db"
    assert (label(body, PLAN_LABEL), label(body, FENCE_LABEL)) == ("uid-a", "1")
    assert "ownerReferences" not in body["metadata"]


async def test_what_the_template_says_itself_stays() -> None:
    bench = Bench("{changesNothing: true, template: '{spec: {template: {spec: {restartPolicy: OnFailure, "
                  "automountServiceAccountToken: true, containers: [{name: t, image: x}]}}}}'}")  # fmt: skip
    await bench.do()
    pod = bench.job()["spec"]["template"]["spec"]
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("OnFailure", True)


async def test_an_account_that_is_named_keeps_its_token() -> None:
    bench = Bench("{changesNothing: true, template: '{spec: {template: {spec: {serviceAccountName: tool, "
                  "containers: [{name: t, image: x}]}}}}'}")  # fmt: skip
    await bench.do()
    pod = bench.job()["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "tool"
    assert "automountServiceAccountToken" not in pod
    assert [accounts_of(pod) for pod in bench.kind.pod_specs()] == [{"tool"}]


async def test_names_fit_and_differ() -> None:
    names = {
        jobs.name_of("n" * 63, "uid", 1, step, attempt, verb) for step in "ab" for attempt in (1, 2) for verb in "du"
    }
    assert len(names) == 8
    assert all(len(f"{name}-999999") <= 63 for name in names), "the host name of the last of a million completions"


async def test_a_failure_says_the_exit_code_and_no_word_of_the_pod() -> None:
    bench = Bench(FAILS)

    def tell(pods: MemoryCluster) -> None:
        for body in pods.objects.values():
            for status in (body.get("status") or {}).get("containerStatuses", []):
                if "terminated" in status["state"]:
                    status["state"]["terminated"]["message"] = "password=s3cret"

    await bench.do()
    for _ in range(3):
        outcome = await bench.do()
        run_jobs(bench.cluster)
        tell(bench.cluster)
    outcome = await bench.do()
    name = bench.job()["metadata"]["name"]
    assert outcome == Failed(
        "JobFailed",
        f"Job {name} failed (BackoffLimitExceeded): container tool exited with code 3 (Error); "
        f"kubectl logs -n shop job/{name} --all-containers",
    )


async def test_a_reason_that_is_not_a_word_is_not_shown() -> None:
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    failed = {"type": "Failed", "status": "True", "reason": "see http://evil.example/?password=s3cret"}
    bench.job()["status"]["conditions"] = [failed]
    outcome = await bench.do()
    assert isinstance(outcome, Failed)
    assert "(Unknown)" in outcome.message
    assert "evil" not in outcome.message


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made anew"])
async def test_one_that_vanished_is_never_made_again(again: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    ref, body = bench.ref(), copy.deepcopy(bench.job())
    bench.cluster.delete(ref)
    if again:
        body["metadata"].pop("uid")
        bench.cluster.put(JOBS, body)
    before = bench.writes()
    outcome = await bench.do()
    says = f"Job {ref.name} was deleted, and how it ended is unknown; if the plan pauses, retry runs the step again with a new Job"
    assert outcome == Failed("JobVanished", says)
    assert bench.writes() == before


async def test_one_that_was_seen_to_succeed_may_go() -> None:
    """Somebody tidies up while the gates of the step are judged."""
    bench = Bench(UP_AND_DOWN)
    await bench.to_the_end("do")
    bench.cluster.delete(bench.ref())
    assert await bench.do(applied=True) == Done()
    assert isinstance(await bench.do(), Failed)


def test_a_job_counts_as_seen_to_run_only_when_its_controller_says_so_last() -> None:
    """ "Suspended" of the time before may still stand there, and a pod be on its way."""
    suspended = {"type": "Suspended", "status": "True"}
    body = {"metadata": {"name": "a", "uid": "u"}, "spec": {"suspend": False}, "status": {"startTime": "x"}}
    assert jobs.state_of(body).acknowledged
    body["status"] = {"startTime": "x", "conditions": [suspended]}
    assert not jobs.state_of(body).acknowledged


def _succeeded(job: Any) -> None:
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}


def _of_another_image(job: Any) -> None:
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"


def _unlabelled(job: Any) -> None:
    job["metadata"]["labels"] = {}


def _running(job: Any) -> None:
    job["spec"]["suspend"] = False


@pytest.mark.parametrize("forge", [_succeeded, _of_another_image, _unlabelled, _running])
@pytest.mark.parametrize("verb", ["do", "undo"])
async def test_a_job_that_another_writer_put_there_first_is_not_taken_for_ours(
    verb: str, forge: Callable[[Any], None]
) -> None:
    """Its name can be derived by whoever reads the plan; its success is not that of the step, and it is neither claimed nor started."""
    bench = Bench(UP_AND_DOWN)
    if verb == "undo":
        await bench.to_the_end("do")
        bench.fence += 1
        assert isinstance(await bench.undo(), Again)
    else:
        await bench.do()
    bench.made = bench.made.partition(" ")[0] + " " if verb == "undo" else ""  # the save did not come to pass
    job = bench.job(undo=verb == "undo")
    forge(job)
    before, as_it_was = bench.writes(), copy.deepcopy(job)
    outcome = await (bench.undo() if verb == "undo" else bench.do())
    assert isinstance(outcome, Failed)
    assert outcome.reason == "NameTaken"
    assert f"there is a Job {job['metadata']['name']} that this plan has not created" in outcome.message
    assert bench.writes() == before
    assert bench.job(undo=verb == "undo") == as_it_was


async def test_one_that_ended_before_it_was_let_run_is_not_let_run() -> None:
    bench = Bench(UP_AND_DOWN)
    await bench.do()
    bench.job()["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}
    before = bench.writes()
    outcome = await bench.do()
    assert isinstance(outcome, Failed)
    assert "failed (DeadlineExceeded)" in outcome.message
    assert bench.writes() == before


async def test_it_is_not_let_run_a_second_time() -> None:
    """Somebody suspends it: a wish to stop, which is not fought."""
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    body = copy.deepcopy(bench.job())
    body["spec"]["suspend"] = True
    bench.cluster.put(JOBS, body)
    run_jobs(bench.cluster)
    before = bench.writes()
    outcome = await bench.do()
    assert isinstance(outcome, Again)
    assert "was suspended by another writer; to continue: kubectl patch job -n shop" in outcome.message
    assert 'labels":{"cutover.dev/started":"true"}},"spec":{"suspend":false}}' in outcome.message
    assert bench.writes() == before
    del bench.job()["metadata"]["labels"][STARTED_LABEL]
    outcome = await bench.do()
    assert isinstance(outcome, Again)
    assert "is suspended and has lost its label cutover.dev/started; to continue: kubectl patch" in outcome.message
    assert bench.writes() == before


def _pod_status(bench: Bench, status: dict[str, Any], conditions: list[Any] | None = None) -> None:
    ref = next(ref for ref in bench.cluster.objects if ref.resource == PODS and ref.name.startswith("schema-"))
    found = {"phase": "Pending", "containerStatuses": [{"name": "tool", **status}], "conditions": conditions or []}
    bench.cluster.objects[ref] = bench.cluster.objects[ref] | {"status": found}
    bench.job()["status"]["ready"] = 0


@pytest.mark.parametrize(
    ("reason", "message", "says"),
    [
        ("ImagePullBackOff", "registry says: token abc", "does not start: ImagePullBackOff, image tool:hangs"),
        ("CreateContainerConfigError", 'secret "db" not found', "CreateContainerConfigError, there is no Secret db"),
        ("CreateContainerConfigError", 'configmap "db" not found', "there is no ConfigMap db"),
        (
            "CreateContainerConfigError",
            "couldn't find key url in Secret shop/db",
            "CreateContainerConfigError, Secret db has no key url",
        ),
        ("CreateContainerConfigError", "token abc", "does not start: CreateContainerConfigError"),
        ("ContainerCreating", "", "is starting; if that takes long, kubectl describe pod -n shop"),
    ],
)
async def test_why_a_pod_does_not_start(reason: str, message: str, says: str) -> None:
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    _pod_status(bench, {"state": {"waiting": {"reason": reason, "message": message}}})
    outcome = await bench.do()
    assert isinstance(outcome, Again)
    assert outcome.message.endswith(says) or (says in outcome.message and "describe" in says)
    assert "abc" not in outcome.message


async def test_a_pod_that_finds_no_node() -> None:
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    _pod_status(bench, {"state": {}}, [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}])
    outcome = await bench.do()
    assert isinstance(outcome, Again)
    assert "cannot be scheduled (Unschedulable)" in outcome.message


async def test_a_job_without_pods_says_where_to_look() -> None:
    bench = Bench(HANGS)
    await bench.do()
    await bench.do()
    outcome = await bench.do(elapsed=60.0)
    assert isinstance(outcome, Again)
    assert "no pod has been created yet; kubectl describe job -n shop" in outcome.message
    assert outcome.after == 15.0


async def test_a_job_whose_pods_are_refused_says_why() -> None:
    bench = Bench(HANGS)
    await bench.do()
    await bench.do()
    forbidden = {"reason": "FailedCreate", "note": 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'}
    about = {"regarding": {"uid": bench.job()["metadata"]["uid"]}, "eventTime": bench.cluster.clock.now().isoformat()}
    bench.cluster.put(EVENTS, {"metadata": {"name": "e"}, **forbidden, **about})
    outcome = await bench.do(elapsed=6.0)
    assert isinstance(outcome, Again)
    assert outcome.message.endswith(f": pods cannot be created (FailedCreate): {forbidden['note']}")


def _outlive(bench: Bench, code: int = 0) -> None:
    """The tool has ended, and what a mesh has injected runs on."""
    for ref in [ref for ref in bench.cluster.objects if ref.resource == PODS]:
        ended = {"name": "tool", "state": {"terminated": {"exitCode": code}}}
        bench.cluster.report(
            ref, {"phase": "Running", "containerStatuses": [ended, {"name": "proxy", "state": {"running": {}}}]}
        )
    for ref in [
        ref
        for ref in bench.cluster.objects
        if ref.resource == JOBS and not bench.cluster.objects[ref]["spec"]["suspend"]
    ]:
        bench.cluster.report(ref, {**bench.cluster.objects[ref]["status"], "ready": 0})


async def test_a_sidecar_that_keeps_a_job_from_ending_is_named() -> None:
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    _outlive(bench)
    outcome = await bench.do(elapsed=20.0)
    assert isinstance(outcome, Again)
    name = bench.job()["metadata"]["name"]
    assert outcome.message == (
        f"Job {name}: container tool of pod {name}-0 has ended with code 0, but proxy still runs and keeps the pod; "
        "end that container, and keep it out of this Job or make it a native sidecar"
    )


async def test_an_undo_that_a_sidecar_keeps_from_ending_is_stuck_after_a_minute_and_goes_on_by_itself() -> None:
    bench = Bench(f"{{template: {template('tool:up')}, undo: {template('tool:hangs')}}}")
    await bench.to_the_end("do")
    bench.cluster.exits = lambda _: None
    assert isinstance(await bench.back(), Again)
    _outlive(bench)
    soon = await bench.undo(elapsed=60.0)
    assert isinstance(soon, Again)
    assert "has ended with code 0, but proxy still runs" in soon.message
    late = await bench.undo(elapsed=61.0)
    assert late == Wait("SidecarRuns", soon.message)
    bench.cluster.exits = lambda _: 0
    assert isinstance(await bench.to_the_end("undo"), Done)


@pytest.mark.parametrize("asks", ["namespace", "template"])
async def test_a_sidecar_that_a_mesh_would_put_in_is_told_in_advance(asks: str) -> None:
    bench = Bench(UP_AND_DOWN)
    labels = {"istio-injection": "enabled"} if asks == "namespace" else {}
    bench.cluster.put(NAMESPACES, {"metadata": {"name": "shop", "namespace": "", "labels": labels}})
    for each in (bench.kind.template, bench.kind.undo_) if asks == "template" else ():
        assert each is not None
        each["spec"]["template"]["metadata"] = {"labels": {"sidecar.istio.io/inject": "true"}}
    problems = await bench.kind.examine(bench.work())
    assert [problem.warning for problem in problems] == [True, True]
    assert [problem.where for problem in problems] == ["steps[schema].job.template", "steps[schema].job.undo"]
    assert all("asks for a sidecar of Istio" in problem.message for problem in problems)


async def test_a_field_of_a_template_that_the_server_drops_is_a_mistake() -> None:
    bench = Bench(UP_AND_DOWN)

    for each in (bench.kind.template, bench.kind.undo_):
        assert each is not None
        each["spec"]["podReplacementPolicy"] = "Failed"
    bench.cluster.refuse = lambda _, body: body["spec"].pop("podReplacementPolicy")
    problems = await bench.kind.examine(bench.work())
    assert [(problem.warning, problem.where) for problem in problems] == [
        (False, "steps[schema].job.template"),
        (False, "steps[schema].job.undo"),
    ]
    assert 'the server drops spec.podReplacementPolicy ("Failed") without a word' in problems[0].message


# --- backward ---------------------------------------------------------------------------------------------------------


async def test_what_was_done_is_undone_once() -> None:
    bench = Bench(UP_AND_DOWN)
    await bench.to_the_end("do")
    assert await bench.back() == Done(ready="1/1")
    before = bench.writes()
    assert await bench.undo() == Done(ready="1/1")
    assert bench.writes() == before
    assert len(bench.jobs()) == 2


async def test_an_undo_that_finds_no_job_takes_its_name() -> None:
    """So that a process that slept in the middle of making it gets a no."""
    bench = Bench(UP_AND_DOWN)
    assert await bench.back() == Done()
    tombstone = bench.job()
    assert (tombstone["spec"]["suspend"], label(tombstone, STARTED_LABEL)) == (True, "never")
    assert len(bench.jobs()) == 1, "nothing has begun, so nothing is undone"
    with pytest.raises(Conflict):
        await bench.cluster.create(JOBS, "shop", bench.job(), "migrator")
    with pytest.raises(Superseded):
        await bench.do(fence=1)


async def test_a_late_start_changes_nothing() -> None:
    """A process slept in the middle of letting the Job run; another has undone the step meanwhile."""
    bench = Bench(UP_AND_DOWN)
    await bench.do()
    work, patch = bench.work(), bench.cluster.patch

    async def late(ref: Ref, operations: Any, account: str = "") -> Any:
        bench.cluster.patch = patch  # type: ignore[method-assign]
        assert await bench.back() == Done()
        return await patch(ref, operations, account)

    bench.cluster.patch = late  # type: ignore[method-assign]
    with pytest.raises(Superseded):
        await bench.kind.do(work, 0)
    assert (bench.job()["spec"]["suspend"], label(bench.job(), STARTED_LABEL)) == (True, "never")
    assert len(bench.jobs()) == 1


async def test_a_job_that_runs_is_stopped_before_its_undo_begins() -> None:
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    bench.fence += 1
    outcome = await bench.undo()
    assert isinstance(outcome, Again)
    assert outcome.message.endswith("is stopped")
    assert bench.job()["spec"]["suspend"] is True
    assert len(bench.jobs()) == 1
    run_jobs(bench.cluster)
    ref = Ref(PODS, "shop", "lingers")
    labels = {"batch.kubernetes.io/job-name": bench.ref().name}
    bench.cluster.put(PODS, {"metadata": {"name": ref.name, "labels": labels}, "status": {"phase": "Running"}})
    outcome = await bench.undo()
    assert outcome == Again(2.0, f"the undo waits until pod lingers of Job {bench.ref().name} is gone")
    late = await bench.undo(elapsed=600.0)
    assert late == Wait("NotBackYet", outcome.message), "its node may be lost"
    assert len(bench.jobs()) == 1
    bench.cluster.delete(ref)
    assert await bench.to_the_end("undo") == Done(ready="1/1")


async def test_it_is_not_stopped_before_its_controller_has_seen_it() -> None:
    """Else the controller's word that it is suspended could be of the time before, and a pod on its way."""
    bench = Bench(HANGS)
    await bench.do()
    run_jobs(bench.cluster)  # it is seen suspended
    await bench.do()  # and let run
    bench.fence += 1
    outcome = await bench.undo()
    assert isinstance(outcome, Again)
    assert "until the Job controller has seen" in outcome.message
    assert bench.job()["spec"]["suspend"] is False


@pytest.mark.parametrize("condition", ["FailureTarget", "SuccessCriteriaMet"])
async def test_one_that_is_ending_is_waited_for(condition: str) -> None:
    """How it ends is settled, and its last pods go: there is nothing to suspend any more."""
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    bench.job()["status"]["conditions"].append({"type": condition, "status": "True"})
    bench.fence += 1
    before = bench.writes()
    outcome = await bench.undo()
    assert outcome == Again(2.0, f"the undo waits until Job {bench.ref().name} has ended")
    bench.job()["spec"]["suspend"] = True
    del bench.job()["metadata"]["labels"][STARTED_LABEL]
    assert await bench.undo() == outcome, "somebody suspended it, and took its label: it has begun all the same"
    assert bench.writes() == before


async def test_one_that_a_user_resumed_counts_as_begun() -> None:
    bench = Bench(HANGS)
    await bench.do()
    body = copy.deepcopy(bench.job())
    body["spec"]["suspend"] = False
    bench.cluster.put(JOBS, body)
    run_jobs(bench.cluster)
    assert await bench.back() == Done(ready="1/1")
    assert len(bench.jobs()) == 2


async def test_one_that_vanished_is_undone_all_the_same() -> None:
    """It may have done anything. Its pods are waited for, though nobody owns them."""
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    name = bench.ref().name
    bench.cluster.delete(bench.ref())
    bench.fence += 1
    outcome = await bench.undo()
    assert outcome == Again(2.0, f"the undo waits until pod {name}-0 of Job {name} is gone")
    bench.cluster.delete(Ref(PODS, "shop", f"{name}-0"))
    assert await bench.to_the_end("undo") == Done(ready="1/1")
    assert label(bench.job(), STARTED_LABEL) == "never"


async def test_a_job_that_changes_nothing_is_only_stopped() -> None:
    bench = Bench(LOOKS)
    await bench.to_the_end("do")
    assert await bench.back() == Done()
    assert len(bench.jobs()) == 1


async def test_an_undo_that_fails_is_left_to_a_user() -> None:
    bench = Bench(FAILS)
    await bench.to_the_end("do")
    outcome = await bench.back()
    assert isinstance(outcome, Failed)
    assert outcome.reason == "JobFailed"
    assert "exited with code 4" in outcome.message
    command = f"kubectl label job -n shop {bench.ref().name} {SETTLED_LABEL}=true"
    way_out = "retry runs the undo again with a new Job; or fix by hand what is left, then confirm"
    assert outcome.message.endswith(f"{way_out}: {command}")
    bench.job()["metadata"]["labels"][SETTLED_LABEL] = "true"
    assert await bench.undo() == Done(message="undone by hand")


async def test_an_undo_that_vanished_is_left_to_a_user() -> None:
    bench = Bench(f"{{template: {template('tool:up')}, undo: {template('tool:hangs')}}}")
    await bench.to_the_end("do")
    assert isinstance(await bench.back(), Again)
    bench.cluster.delete(bench.ref(undo=True))
    outcome = await bench.undo()
    assert isinstance(outcome, Failed)
    assert outcome.reason == "JobVanished"
    assert "retry runs the undo again with a new Job" in outcome.message
    assert len(bench.jobs()) == 1
    assert await bench.undo(applied=True) == outcome, "that its step was in effect says nothing of how its undo ended"


# --- another attempt of the undo --------------------------------------------------------------------------------------


async def failed_undo() -> Bench:
    """The undo Job has failed, and from now on every Job succeeds."""
    bench = Bench(FAILS)
    await bench.to_the_end("do")
    assert isinstance(await bench.back(), Failed)
    bench.cluster.exits = lambda _: 0
    return bench


async def test_another_attempt_of_the_undo_has_a_job_of_its_own() -> None:
    bench = await failed_undo()
    (failed,) = bench.undo_jobs()
    assert isinstance(await bench.undo(), Failed), "who only looks again creates nothing"
    assert await bench.back_again() == Done(ready="1/1")
    first, second = bench.undo_jobs()
    assert first == failed
    assert second["metadata"]["name"] != first["metadata"]["name"]
    assert label(second, FENCE_LABEL) == str(bench.fence)
    uids = [body["metadata"]["uid"][-12:] for body in (bench.job(), second)]
    assert bench.made == f"{uids[0]} {uids[1]} 2"
    assert await bench.undo() == Done(ready="1/1")
    assert len(bench.undo_jobs()) == 2


async def test_an_attempt_of_the_undo_that_fails_too_is_followed_by_a_third() -> None:
    bench = await failed_undo()
    bench.cluster.exits = lambda _: 5
    outcome = await bench.back_again()
    assert isinstance(outcome, Failed)
    assert bench.undo_jobs()[1]["metadata"]["name"] in outcome.message
    bench.cluster.exits = lambda _: 0
    assert await bench.back_again() == Done(ready="1/1")
    assert len({job["metadata"]["name"] for job in bench.undo_jobs()}) == 3


async def test_a_lost_save_of_its_uid_makes_no_third_undo_job() -> None:
    bench = await failed_undo()
    saved = bench.made
    bench.undo_attempt, bench.fence = 2, bench.fence + 1
    assert isinstance(first := await bench.undo(), Again)
    bench.made = saved
    assert await bench.undo() == first
    assert len(bench.undo_jobs()) == 2
    assert all(job["spec"]["suspend"] for job in bench.undo_jobs()[1:])


async def test_a_status_that_lost_the_count_keeps_to_the_attempt_whose_job_it_knows() -> None:
    """A CRD that is older than the operator drops the count."""
    bench = await failed_undo()
    assert await bench.back_again() == Done(ready="1/1")
    bench.undo_attempt = 1
    assert await bench.undo() == Done(ready="1/1")
    assert len(bench.undo_jobs()) == 2


async def test_another_attempt_waits_for_the_pods_of_a_vanished_undo_job() -> None:
    bench = Bench(f"{{template: {template('tool:up')}, undo: {template('tool:hangs')}}}")
    await bench.to_the_end("do")
    assert isinstance(await bench.back(), Again)
    ref = bench.ref(undo=True)
    bench.cluster.delete(ref)
    assert isinstance(await bench.undo(), Failed)
    bench.undo_attempt, bench.fence = 2, bench.fence + 1
    outcome = await bench.undo()
    assert outcome == Again(2.0, f"the undo waits until pod {ref.name}-0 of Job {ref.name} is gone")
    assert bench.undo_jobs() == []
    bench.cluster.exits = lambda _: 0
    assert await bench.to_the_end("undo") == Done(ready="1/1")


async def test_what_a_user_has_undone_by_hand_is_not_undone_by_a_job_again() -> None:
    bench = await failed_undo()
    bench.job()["metadata"]["labels"][SETTLED_LABEL] = "true"
    assert await bench.back_again() == Done(message="undone by hand")
    assert len(bench.undo_jobs()) == 1


async def test_another_attempt_leaves_a_job_alone_that_another_writer_put_under_the_name() -> None:
    bench = Bench(UP_AND_DOWN)
    await bench.to_the_end("do")
    bench.fence += 1
    assert isinstance(await bench.undo(), Again)
    taken, bench.made = copy.deepcopy(bench.job(undo=True)), ""
    taken["spec"]["template"]["spec"]["containers"][0]["image"] = "tool:other"
    bench.cluster.put(JOBS, taken)
    outcome = await bench.undo()
    assert isinstance(outcome, Failed)
    assert outcome.reason == "NameTaken"
    assert await bench.back_again() == Done(ready="1/1")
    other, _ = bench.undo_jobs()
    assert other["spec"]["suspend"] is True


@pytest.mark.parametrize("retries", [0, 1], ids=["stuck", "paused before a retry of the step"])
async def test_retry_runs_an_undo_again_that_has_failed(retries: int) -> None:
    run = Simulation(plan(f"steps: [{{name: schema, retries: {retries}, job: {FAILS}}}]"), put=shop)
    await run.until(lambda: run.phase is (Phase.PAUSED if retries else Phase.STUCK))
    fence = run.status.run.fence if run.status.run else 0
    run.request(RequestVerb.RETRY)
    await run.turn()
    assert run.status.run is not None
    assert run.status.run.undo_attempt == 2
    assert run.status.run.fence > fence
    run.cluster.exits = lambda spec: 3 if spec["containers"][0]["image"] == "tool:exit-3" else 0
    assert await run.run() is Phase.ROLLED_BACK
    assert list(run.jobs().values()).count("BackoffLimitExceeded, started true") == 2 + retries
    assert run.leftovers() == []


async def test_retry_looks_at_an_undo_that_has_not_failed_and_runs_no_second_one_beside_it() -> None:
    """It is stuck because the account may not be used; its Job runs all the while."""
    run = Simulation(plan(f"steps: [{{name: schema, job: {HANGS.replace('tool:down', 'tool:hangs')}}}]"), put=shop)

    def runs(lead: str) -> bool:
        of_jobs = [body for ref, body in run.cluster.objects.items() if ref.resource == JOBS and lead in ref.name]
        return any((body.get("status") or {}).get("active") for body in of_jobs)

    await run.until(lambda: runs("schema-"))
    run.request(RequestVerb.ABORT)
    await run.until(lambda: runs("-undo-"))
    account = Ref(SERVICE_ACCOUNTS, "shop", "migrator")
    body = run.cluster.objects[account]
    run.cluster.delete(account)
    run._start_process()
    await run.until(lambda: run.phase is Phase.STUCK)
    run.cluster.put(SERVICE_ACCOUNTS, body)
    run.request(RequestVerb.RETRY)
    await run.turn()
    assert run.phase is Phase.ROLLING_BACK
    run.cluster.exits = lambda _: 0
    assert await run.run() is Phase.ROLLED_BACK
    assert len([name for name in run.jobs() if "-undo-" in name]) == 1


async def test_without_undo_what_has_begun_is_left_to_a_user() -> None:
    bench = Bench(ONE_WAY)
    await bench.to_the_end("do")
    outcome = await bench.back()
    assert isinstance(outcome, Wait)
    assert outcome.reason == "NoUndo"
    bench.job()["metadata"]["labels"][SETTLED_LABEL] = "true"
    assert await bench.undo() == Done(message="undone by hand")


async def test_without_undo_what_has_not_begun_is_nothing() -> None:
    bench = Bench(ONE_WAY)
    await bench.do()
    assert await bench.back() == Done()


@pytest.mark.parametrize("what", ["gone", "replaced"])
async def test_what_goes_away_in_the_middle_is_not_passed_over(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine takes a target that is gone for undone; a Job that is gone has done what it did."""
    bench = Bench(HANGS)
    await bench.to_the_end("do")
    bench.fence += 1
    read = jobs.read

    async def late(cluster: Any, ref: Ref) -> Any:
        body = await read(cluster, ref)
        bench.cluster.delete(ref)
        if what == "replaced":
            other: Any = copy.deepcopy(body)
            other["metadata"].pop("uid")
            bench.cluster.put(JOBS, other)
        return body

    monkeypatch.setattr(jobs, "read", late)
    outcome = await bench.undo()
    assert isinstance(outcome, Again)
    assert "just now" in outcome.message


# --- beforehand -------------------------------------------------------------------------------------------------------


async def test_the_server_is_asked_for_both_jobs() -> None:
    bench = Bench(UP_AND_DOWN)
    assert await bench.kind.examine(bench.work()) == []

    def no(ref: Ref, _: Any) -> None:
        raise Rejected(f'strict decoding error: unknown field "spec.{ref.name[:6]}"')

    bench.cluster.refuse = no
    problems = await bench.kind.examine(bench.work())
    assert [problem.where for problem in problems] == ["steps[schema].job.template", "steps[schema].job.undo"]
    assert problems[0].message == 'the server refuses the Job: unknown field "spec.schema"'
    assert bench.jobs() == []


async def test_a_policy_that_admits_no_such_job_is_reported_and_a_missing_permission_is_not_reported_twice() -> None:
    def no(_: Ref, __: Any) -> None:
        raise Denied("admission webhook says no")

    bench = Bench(LOOKS)
    bench.cluster.refuse = no
    (problem,) = await bench.kind.examine(bench.work())
    assert problem.message == "the server refuses the Job: admission webhook says no"
    bench.cluster.denied.add(("create", Ref(JOBS, "shop", "")))
    assert await bench.kind.examine(bench.work()) == []


async def test_what_the_cluster_would_take_away_too_soon_is_refused() -> None:
    """A policy of the cluster may add it behind our back."""
    bench = Bench(LOOKS)

    def add(_: Ref, body: Any) -> None:
        body["spec"]["ttlSecondsAfterFinished"] = 60

    bench.cluster.refuse = add
    (problem,) = await bench.kind.examine(bench.work())
    assert "something in the cluster adds ttlSecondsAfterFinished" in problem.message


async def _pending(spec: str, change: Any = None) -> str:
    run = Simulation(plan(spec), put=shop)
    if change:
        change(run.cluster)
    await run.until(lambda: run.phase is Phase.PENDING and bool(run.status.message))
    return run.status.message


def _named(account: str) -> str:
    pod = f"serviceAccountName: {account}, containers: [{{name: t, image: x}}]"
    job = f"{{changesNothing: true, template: '{{spec: {{template: {{spec: {{{pod}}}}}}}}}'}}"
    return f"steps: [{{name: look, job: {job}}}]"


async def test_the_permissions_it_needs_word_for_word() -> None:
    def deny(cluster: MemoryCluster) -> None:
        cluster.denied |= {(verb, Ref(JOBS, "shop", "")) for verb in ("create", "delete")}

    says = await _pending(migrating("tool:up"), deny)
    assert "ServiceAccount migrator is not allowed to create or delete Jobs; to grant it, apply:" in says
    role = next(yaml.safe_load_all(says.partition("to grant it, apply:\n")[2]))
    assert role["rules"] == [
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["shop-v2"], "verbs": ["patch"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "patch", "delete"]},
    ], "all that the plan needs, so that nothing is lost that an earlier Role has given"


async def test_which_accounts_a_template_may_name() -> None:
    """Whoever may make pods could use any account of the namespace; a plan may use those that its own account may."""
    assert "there is no ServiceAccount admin in namespace shop" in await _pending(_named("admin"))

    def there(cluster: MemoryCluster) -> None:
        cluster.put(SERVICE_ACCOUNTS, {"metadata": {"name": "admin", "labels": {MIGRATOR_LABEL: "false"}}})

    assert "ServiceAccount admin is not allowed to run migrations" in await _pending(_named("admin"), there)

    def released(cluster: MemoryCluster) -> None:
        cluster.put(SERVICE_ACCOUNTS, {"metadata": {"name": "admin", "labels": {MIGRATOR_LABEL: "true"}}})
        cluster.denied.add(("use", Ref(SERVICE_ACCOUNTS, "shop", "admin")))

    says = await _pending(_named("admin"), released)
    assert "ServiceAccount migrator is not allowed to use ServiceAccount admin; to grant it, apply:" in says
    role = next(yaml.safe_load_all(says.partition("to grant it, apply:\n")[2]))
    rule = {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["admin"], "verbs": ["use"]}
    assert role["rules"][-1] == rule


async def test_an_account_that_is_taken_back_in_between_is_not_used() -> None:
    run = Simulation(plan(_named("tool").replace("steps: [", "steps: [{name: ok, approve: {message: go}}, ")), put=shop)
    run.cluster.put(SERVICE_ACCOUNTS, {"metadata": {"name": "tool", "labels": {MIGRATOR_LABEL: "true"}}})
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.denied.add(("use", Ref(SERVICE_ACCOUNTS, "shop", "tool")))
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.failure is not None
    assert (
        run.status.failure.message == "ServiceAccount migrator is not allowed to use ServiceAccount tool; to grant it: "
        "kubectl cutover role shop-v2 -n shop | kubectl apply -f -"
    )
    assert run.jobs() == {}
    run.cluster.denied.clear()
    assert await run.run() is Phase.ROLLED_BACK
    assert list(run.jobs().values()) == ["unfinished, started never"]


# --- whole plans ------------------------------------------------------------------------------------------------------


async def test_a_job_that_takes_too_long_is_stopped_and_undone() -> None:
    spec = migrating("tool:hangs").replace("{name: schema, ", "{name: schema, timeout: 5m, ")
    run = Simulation(plan(spec), put=shop)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "StageTimedOut"
    assert sorted(run.jobs().values()) == ["complete, started true", "unfinished, started true"]
    assert run.leftovers() == []


async def test_an_irreversible_job_stops_the_rollback() -> None:
    spec = f"""
steps:
  - {{name: schema, irreversible: true, job: {{template: {template("tool:up")}}}}}
  - {{name: next, job: {HANGS}}}
"""
    run = Simulation(plan(spec), put=shop)
    await run.until(
        lambda: run.status.current is not None and run.status.current.step == "next" and len(run.jobs()) > 1
    )
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "PastPointOfNoReturn"
    assert [step.state for step in run.status.steps] == [StepState.DONE, StepState.UNDONE]


async def test_stuck_continues_when_a_user_has_settled_it() -> None:
    run = Simulation(plan(f"steps: [{{name: schema, job: {FAILS}}}]"), put=shop)
    await run.until(lambda: run.phase is Phase.STUCK)
    ref = next(ref for ref in run.cluster.objects if ref.resource == JOBS and "-undo-" not in ref.name)
    body = copy.deepcopy(run.cluster.objects[ref])
    body["metadata"]["labels"][SETTLED_LABEL] = "true"
    run.cluster.put(JOBS, body)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.steps[0].message == "undone by hand"


async def test_a_success_is_rolled_back_by_the_undo_job() -> None:
    run = Simulation(plan(migrating("tool:up")), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    owned = [body["metadata"]["ownerReferences"] for ref, body in run.cluster.objects.items() if ref.resource == JOBS]
    assert [[owner["kind"] for owner in owners] for owners in owned] == [["MigrationPlan"]]
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLING_BACK and run.status.reason == "RollbackRequested")
    assert not any(
        body["metadata"].get("ownerReferences") for ref, body in run.cluster.objects.items() if ref.resource == JOBS
    ), "while the plan is active a deletion in the foreground must not take them"
    assert await run.run() is Phase.ROLLED_BACK
    assert sorted(run.jobs().values()) == ["complete, started true"] * 2
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_a_job_that_runs_when_its_plan_is_abandoned_is_nobodys() -> None:
    run = Simulation(plan(migrating("tool:hangs")), put=shop)
    await run.until(lambda: any((body.get("status") or {}).get("active") for body in run.cluster.objects.values()))
    run.request(RequestVerb.ABANDON)
    assert await run.run() is Phase.ABANDONED
    (job,) = (body for ref, body in run.cluster.objects.items() if ref.resource == JOBS)
    assert job["spec"]["suspend"] is False
    assert not job["metadata"].get("ownerReferences")
    assert PLAN_LABEL not in job["metadata"]["labels"]


async def test_a_new_run_takes_the_jobs_of_the_last_one_away() -> None:
    run = Simulation(plan(migrating("tool:exit-3")), put=shop)
    assert await run.run() is Phase.ROLLED_BACK
    first = set(run.jobs())
    body = copy.deepcopy(run.cluster.objects[run.plan])
    body["spec"] = plan(migrating("tool:up"))["spec"]
    run.cluster.put(PLANS, body)
    await run.until(lambda: run.phase is Phase.RUNNING)
    assert await run.run() is Phase.SUCCEEDED
    assert list(run.jobs().values()) == ["complete, started true"]
    assert not first & set(run.jobs())


async def test_jobs_of_a_plan_that_is_gone_are_swept() -> None:
    """Somebody took our finalizer off."""
    run = Simulation(plan(migrating("tool:hangs")), put=shop)
    await run.until(lambda: bool(run.jobs()))
    assert await sweep(run.cluster, ()) == 0
    assert run.jobs()
    del run.cluster.objects[run.plan]
    assert await sweep(run.cluster, ()) == 1
    assert run.jobs() == {}


async def test_a_plan_without_jobs_asks_for_none() -> None:
    """What a kind needs costs only the plans that have it."""
    asked: list[Any] = []
    run = Simulation(plan("steps: [{name: a, deploy: {workload: {name: shop-v2}, replicas: 1}}]"), put=shop)
    listed = run.cluster.list

    async def listing(resource: Any, *rest: Any, **options: Any) -> Any:
        asked.append(resource)
        return await listed(resource, *rest, **options)

    run.cluster.list = listing  # type: ignore[method-assign]
    assert await run.run() is Phase.SUCCEEDED
    assert JOBS not in asked


async def test_a_lost_save_of_the_uid_lets_nothing_run_twice() -> None:
    """Every call dies, in turn, and somebody deletes the Job just then: it has run once at most."""
    whole = Simulation(plan(migrating("tool:up")), put=shop)
    await whole.run()
    for at in range(1, whole.switch.calls + 1):
        run = Simulation(plan(migrating("tool:up")), switch=CrashSwitch(at, after=True), put=shop)
        await run.until(lambda run=run: run.crashes > 0)  # type: ignore[misc]
        for ref in [ref for ref in run.cluster.objects if ref.resource == JOBS and "-undo-" not in ref.name]:
            run.cluster.delete(ref)
        await run.run()
        starts = [ref for verb, ref in run.cluster.effects if ref.resource == JOBS and "-undo-" not in ref.name]
        assert len(starts) <= 1, (at, starts)


async def test_a_success_of_tests_alone_that_is_rolled_back_says_that_they_passed() -> None:
    """The evidence of a criterion is never empty: a status without it could not be read again."""
    run = Simulation(plan(f"keepSnapshots: 1h\nsteps: [{{name: smoke, job: {LOOKS}}}]"), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLED_BACK)
    (line,) = (line for line in run.status.report if line.criterion is SuccessCriterion.VALIDATIONS)
    assert (line.result, line.evidence) == (Result.MET, "step smoke passed")
