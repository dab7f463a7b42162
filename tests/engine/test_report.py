"""The report that a run leaves: by the real driver, in memory, from the first step to the end."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.ports import PLANS, Ref, Sample
from cutover.status.report import Result, SuccessCriterion
from cutover.status.requests import RequestVerb
from cutover.status.status import ENDED, Phase
from cutover.testing import CrashSwitch
from support.fakes.shop import V2, plan, shop
from support.fakes.simulation import Simulation

QUICK = """
guards: [{name: budget, interval: 5s, prometheus: {query: burn}, pass: {max: "0.5"}}]
timeout: 1h
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}, gates: [{name: pods, readiness: {percent: 100}}]}
  - name: shift
    onFailure: Pause
    traffic: {virtualService: {name: shop, routes: [primary]}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]}
    gates:
      - name: latency
        interval: 5s
        prometheus: {query: new, baseline: old}
        pass: {ratio: {max: "1.1"}}
"""


def start(spec: str = QUICK, **numbers: float) -> Simulation:
    """A plan whose numbers are named by their queries."""
    run = Simulation(plan(spec), put=shop)
    known = {"burn": 0.1, "new": 0.3, "old": 0.4} | numbers
    run.metrics.answer = lambda query: Sample(known[query])
    return run


def lines(run: Simulation) -> dict[SuccessCriterion, tuple[Result, str]]:
    return {line.criterion: (line.result, line.evidence) for line in run.status.report}


async def test_it_is_saved_with_the_end_itself_and_stays() -> None:
    run = start()
    saved: list[tuple[str, Any]] = []

    def note(verb: str, ref: Ref, content: Any) -> None:
        del ref
        if verb == "status":
            saved.append((content["phase"], content.get("report")))

    run.cluster.told = note
    assert await run.run() is Phase.SUCCEEDED
    assert [phase for phase, report in saved if report] == [phase for phase, _ in saved if phase in ENDED]
    assert any(phase in ENDED for phase, _ in saved)
    first = run.status.report
    run.restart()
    run.request(RequestVerb.PAUSE)  # rejected, and saved
    await run.turn()
    assert run.status.requests
    assert run.status.report == first


async def test_an_end_that_is_there_is_not_judged_later() -> None:
    """An operator that begins to write reports leaves thousands of plans alone that ended before."""
    run = start()
    await run.run()
    del run.cluster.objects[run.plan]["status"]["report"]
    run.cluster.put(PLANS, run.cluster.objects[run.plan])
    run.restart()
    run.cluster.effects.clear()
    saved = run.cluster.objects[run.plan]["metadata"]["resourceVersion"]
    await run.turn()
    assert run.cluster.objects[run.plan]["metadata"]["resourceVersion"] == saved
    assert run.status.report == ()


async def test_what_was_seen_is_reported() -> None:
    run = start()
    await run.run()
    told = lines(run)
    assert list(told) == list(SuccessCriterion)
    assert told[SuccessCriterion.VALIDATIONS] == (
        Result.MET,
        "3 gates passed over all stages; the plan has 2",
    )
    ratio = "0.75 (0.3 against a baseline of 0.4) is <= 1.1"
    assert told[SuccessCriterion.PERFORMANCE] == (Result.MET, f"step shift gate latency: {ratio}")
    assert told[SuccessCriterion.DOWNTIME] == (
        Result.MET,
        "guard budget passed at the end of 3 stages and never failed in between",
    )
    assert told[SuccessCriterion.WINDOW][0] is Result.MET
    assert told[SuccessCriterion.ROLLBACK][0] is Result.NOT_MEASURED
    assert told[SuccessCriterion.DATA][0] is told[SuccessCriterion.DEPENDENCIES][0] is Result.NOT_MEASURED


async def test_a_failed_guard_is_downtime() -> None:
    run = start(burn=0.9)
    assert await run.run() is Phase.ROLLED_BACK
    assert lines(run)[SuccessCriterion.DOWNTIME] == (Result.NOT_MET, "guard budget failed: 0.9, must be <= 0.5")


async def test_a_comparison_that_failed_is_kept_when_it_is_skipped() -> None:
    run = start(new=0.8)
    await run.until(lambda: run.phase is Phase.PAUSED)
    run.request(RequestVerb.SKIP, "shift")
    assert await run.run() is Phase.SUCCEEDED
    told = lines(run)
    assert told[SuccessCriterion.VALIDATIONS][0] is Result.NOT_MET
    assert "2 gates skipped on request of alice" in told[SuccessCriterion.VALIDATIONS][1]
    assert told[SuccessCriterion.PERFORMANCE] == (
        Result.NOT_MET,
        "step shift gate latency: 2 (0.8 against a baseline of 0.4), must be <= 1.1",
    )
    assert told[SuccessCriterion.DOWNTIME][0] is Result.NOT_MEASURED
    assert "the plan was paused once" in told[SuccessCriterion.DOWNTIME][1]


async def test_a_step_that_was_done_again_has_passed_in_the_end() -> None:
    run = start(new=0.8)
    await run.until(lambda: run.phase is Phase.PAUSED)
    run.metrics.answer = lambda query: Sample({"burn": 0.1, "new": 0.4, "old": 0.4}[query])
    run.request(RequestVerb.RETRY)
    assert await run.run() is Phase.SUCCEEDED
    told = lines(run)
    assert told[SuccessCriterion.VALIDATIONS][0] is Result.MET
    assert told[SuccessCriterion.VALIDATIONS][1].endswith("; 1 gate failed before a step was retried")
    assert told[SuccessCriterion.PERFORMANCE] == (
        Result.MET,
        "step shift gate latency: 1 (0.4 against a baseline of 0.4) is <= 1.1",
    )


async def test_a_rollback_after_success_is_a_rehearsal_of_the_next_run() -> None:
    run = start()
    await run.run()
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.ROLLED_BACK and not run.bound)
    told = lines(run)
    says = "run 1 completed 2 of 2 steps and was fully rolled back"
    assert told[SuccessCriterion.ROLLBACK] == (Result.MET, says)
    assert told[SuccessCriterion.VALIDATIONS][0] is Result.MET
    assert told[SuccessCriterion.WINDOW][0] is Result.NOT_MET
    assert told[SuccessCriterion.DOWNTIME][0] is Result.NOT_MEASURED
    run.cluster.put(PLANS, plan(QUICK.replace("timeout: 1h", "timeout: 2h")))
    await run.until(lambda: run.phase is Phase.SUCCEEDED and not run.bound)
    assert lines(run)[SuccessCriterion.ROLLBACK][0] is Result.MET
    assert lines(run)[SuccessCriterion.ROLLBACK][1].startswith(f"{says}; it can be rolled back on request until ")
    run.cluster.put(PLANS, plan(QUICK.replace("replicas: 3", "replicas: 4")))
    await run.until(lambda: run.status.run is not None and run.status.run.number == 3)
    assert run.status.report == ()
    assert run.status.tally is None
    await run.until(lambda: run.phase is Phase.SUCCEEDED and not run.bound)
    assert lines(run)[SuccessCriterion.ROLLBACK][0] is Result.NOT_MEASURED, "other steps, so nothing was rehearsed"


async def test_a_run_that_went_some_of_the_way_rehearses_nothing() -> None:
    run = start()
    await run.until(lambda: run.status.current is not None and run.status.current.weight == 50)
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.ROLLED_BACK and not run.bound)
    result, evidence = lines(run)[SuccessCriterion.ROLLBACK]
    assert result is Result.NOT_MEASURED
    assert evidence.startswith("run 1 was rolled back after 1 of 2 steps")


async def test_a_rollback_that_is_declined_leaves_the_report_of_the_success() -> None:
    run = start()
    await run.run()
    before = run.status.report
    run.cluster.objects[V2]["spec"]["replicas"] = 9
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.phase is Phase.SUCCEEDED and bool(run.status.requests) and not run.bound)
    assert run.status.report == before


async def test_an_abandoned_run_says_how_far_it_came() -> None:
    run = start(new=0.8)
    await run.until(lambda: run.phase is Phase.PAUSED)
    run.request(RequestVerb.ABANDON)
    await run.until(lambda: run.phase is Phase.ABANDONED and not run.bound)
    told = lines(run)
    assert (
        told[SuccessCriterion.WINDOW][0]
        is told[SuccessCriterion.VALIDATIONS][0]
        is told[SuccessCriterion.PERFORMANCE][0]
        is Result.NOT_MET
    )
    assert told[SuccessCriterion.ROLLBACK][0] is Result.NOT_MEASURED


@pytest.mark.parametrize("verb", [RequestVerb.ABORT, None], ids=["refused", "made anew"])
async def test_a_run_that_did_nothing_has_none(verb: RequestVerb | None) -> None:
    if verb:
        run = start(QUICK.replace("name: shop-v2}, replicas", "name: absent}, replicas"))
        await run.turn()
        run.request(verb)
    else:
        run = start()
        await run.run()
        del run.cluster.objects[run.plan]
        await run.turn()
        run.cluster.put(PLANS, plan(QUICK))
        run.cluster.objects[run.plan]["status"] = {"observedGeneration": -1}
    assert await run.run() in (Phase.REFUSED, Phase.SUCCEEDED)
    assert run.status.report == ()


async def test_a_long_message_whose_save_has_no_answer_is_known_again() -> None:
    """What is saved is cut, and still ours: another process's would make this one keep away for a while."""
    spec = f"steps:\n  - {{name: ok, approve: {{message: '{'漢' * 400}'}}}}\n"

    async def waits(at: int = 0) -> Simulation:
        run = Simulation(plan(spec), switch=CrashSwitch(at, after=True, lost=True), put=shop)
        await run.until(lambda: run.phase is Phase.WAITING)
        await run.turn()
        return run

    calls = (await waits()).switch.calls
    lost = [await waits(at) for at in range(1, calls + 1)]
    assert sum(run.crashes for run in lost) > 3  # some of them are taken as they come
    assert not any(run.driver._caches._quiet for run in lost)
