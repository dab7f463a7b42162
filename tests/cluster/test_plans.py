"""Plans on the real control plane, with simulated pods: forward, backward, and what people do to them."""

from __future__ import annotations

import pytest

from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import Phase, StepState
from harness.api import ApiError
from harness.process import until
from support.cluster.shop import DEPLOY, SHIFT, AnyOperator, Operator, Shop

pytestmark = pytest.mark.cluster


def test_a_good_version_gets_all_the_traffic(shop: Shop) -> None:
    shop.apply(f"steps:{DEPLOY}{SHIFT}")
    status = shop.until_ended()
    assert status.phase is Phase.SUCCEEDED, status
    assert shop.weights() == [0, 100]
    assert [step.state for step in status.steps] == [StepState.DONE, StepState.DONE]
    assert shop.leftovers() == []


def test_a_failing_gate_brings_everything_back(shop: Shop, gauges: object) -> None:
    before = shop.objects()
    gauges.lines[f'errors{{ns="{shop.namespace}"}}'] = 0.9  # type: ignore[attr-defined]
    shop.apply(f"""
steps:{DEPLOY}{SHIFT}    gates: [{{name: errors, interval: 1s, prometheus: {{query: 'errors{{ns="$(namespace)"}}'}}, pass: {{max: "0.5"}}}}]
""")
    status = shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK, status
    assert status.failure is not None
    assert status.failure.reason == "GateFailed"
    assert status.failure.step == "shift"
    assert "0.9, must be <= 0.5" in status.failure.message
    assert shop.objects() == before
    assert shop.leftovers() == []


def test_a_version_that_never_gets_ready_times_out_and_goes(shop: Shop) -> None:
    before = shop.objects()
    deployment = f"{shop.deployments}/shop-v2"
    annotations = {"harness.cutover.dev/behaviour": "never-ready"}
    shop.api.patch(deployment, {"spec": {"template": {"metadata": {"annotations": annotations}}}})
    before = shop.objects()
    shop.apply(f"steps:{DEPLOY}    timeout: 2s\n{SHIFT}")
    status = shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.reason == "StageTimedOut"
    assert "0/3 pods" in status.failure.message
    assert shop.objects() == before


def test_users_pause_resume_approve_and_abort(shop: Shop) -> None:
    before = shop.objects()
    shop.apply(f"""
steps:{DEPLOY}
  - {{name: ok, approve: {{message: "really?"}}}}
{SHIFT}      dwell: 10m
""")
    status = shop.until_phase(Phase.WAITING)
    assert status.message.endswith('"really?"')
    shop.request(RequestVerb.PAUSE)
    assert shop.until_phase(Phase.PAUSED).reason == "PausedByPerson"
    shop.request(RequestVerb.RESUME)
    shop.until_phase(Phase.WAITING)
    shop.request(RequestVerb.APPROVE, "deploy")
    rejected = shop.until(lambda s: any(r.verb == "approve" for r in s.requests))
    assert next(r for r in rejected.requests if r.verb == "approve").answer is Answer.REJECTED
    shop.request(RequestVerb.APPROVE, "ok")
    shop.until(lambda s: s.current is not None and s.current.weight == 10)
    until("weight 10 is written", lambda: shop.weights() == [90, 10])
    shop.request(RequestVerb.ABORT)
    status = shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.message == f"aborted by {shop.user}"
    assert shop.objects() == before
    assert shop.leftovers() == []


def test_suspend_stops_and_continues(shop: Shop) -> None:
    path = shop.apply(f"suspend: true\nsteps:{DEPLOY}")
    status = shop.until(lambda s: s.phase is Phase.PENDING and s.reason == "Suspended")
    assert status.current is None
    shop.api.patch(path, {"spec": {"suspend": False}})
    assert shop.until_ended().phase is Phase.SUCCEEDED


def test_the_spec_is_frozen_while_active_and_a_new_one_is_a_new_run(shop: Shop) -> None:
    path = shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go}}}}\n")
    shop.until_phase(Phase.WAITING)
    with pytest.raises(ApiError, match=r"only spec\.suspend may change; let it end, or abort it"):
        shop.api.patch(path, {"spec": {"timeout": "5m"}})
    shop.request(RequestVerb.APPROVE, "ok")
    assert shop.until_ended().phase is Phase.SUCCEEDED
    version = shop.api.get(path)["metadata"]["resourceVersion"]
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go}}}}\n")
    assert shop.api.get(path)["metadata"]["resourceVersion"] == version, "applying the same again is nothing"
    shop.api.patch(path, {"spec": {"steps": [{"name": "rest", "wait": {"for": "100ms"}}]}})
    status = shop.until(lambda s: s.run is not None and s.run.number == 2 and s.phase is Phase.SUCCEEDED)
    assert [step.name for step in status.steps] == ["rest"]


def test_two_plans_over_one_target_go_one_after_the_other(shop: Shop) -> None:
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go}}}}\n", "first")
    shop.until_phase(Phase.WAITING, "first")
    shop.apply("steps:\n  - {name: scale, deploy: {workload: {name: shop-v2}, replicas: 1}}\n", "second")
    status = shop.until(lambda s: s.reason == "TargetBusy", "second")
    assert status.phase is Phase.PENDING
    assert "claimed by plan first" in status.message
    shop.request(RequestVerb.APPROVE, "ok", "first")
    assert shop.until_ended("first").phase is Phase.SUCCEEDED
    assert shop.until_ended("second", deadline=45).phase is Phase.SUCCEEDED


def test_a_plan_takes_no_pods_away_that_the_rollback_of_another_one_needs(shop: Shop) -> None:
    shop.apply(f"steps:{DEPLOY}{SHIFT}\n  - {{name: ok, approve: {{message: go}}}}\n", "canary")
    shop.until_phase(Phase.WAITING, "canary")
    assert shop.weights() == [0, 100]
    shop.apply("steps:\n  - {name: retire, deploy: {workload: {name: shop-v1}, replicas: 0}}\n", "retire")
    status = shop.until(lambda s: s.reason == "TargetBusy", "retire")
    assert status.phase is Phase.PENDING
    assert "Deployment shop-v1 cannot go from 3 to 0 replicas before plan canary ends, whose step" in status.message
    assert shop.endpoints("shop-v1") == 3
    shop.request(RequestVerb.APPROVE, "ok", "canary")
    assert shop.until_ended("canary").phase is Phase.SUCCEEDED
    assert shop.until_ended("retire", deadline=45).phase is Phase.SUCCEEDED
    until("the old pods are gone", lambda: shop.endpoints("shop-v1") == 0)


def test_the_plan_timeout_counts_and_rolls_back(shop: Shop) -> None:
    before = shop.objects()
    shop.apply(
        f"timeout: 2s\nsteps:{DEPLOY}{SHIFT}\n    gates: [{{name: never, prometheus: {{query: nothing_at_all}}, pass: {{max: '1'}}}}]\n"
    )
    status = shop.until_ended()
    assert status.failure is not None
    assert status.failure.reason == "TimedOut"
    assert shop.objects() == before


def test_a_guard_rolls_the_plan_back_in_another_step(shop: Shop, gauges: object) -> None:
    before = shop.objects()
    name = f'budget{{ns="{shop.namespace}"}}'
    gauges.lines[name] = 0.1  # type: ignore[attr-defined]
    shop.apply(f"""
guards: [{{name: budget, interval: 1s, prometheus: {{query: 'budget{{ns="$(namespace)"}}'}}, pass: {{max: "0.5"}}}}]
steps:{DEPLOY}{SHIFT}
  - {{name: rest, wait: {{for: 10m}}}}
""")
    shop.until(lambda s: s.current is not None and s.current.step == "rest")
    gauges.lines[name] = 0.7  # type: ignore[attr-defined]
    status = shop.until_ended()
    assert status.failure is not None
    assert status.failure.reason == "GuardFailed"
    assert shop.objects() == before


def test_events_tell_the_story(shop: Shop) -> None:
    shop.apply(f"steps:{DEPLOY}{SHIFT}")
    shop.until_ended()

    def told() -> list[str] | None:
        reasons = [event["reason"] for event in shop.events()]
        return reasons if "Succeeded" in reasons else None

    assert until("the last event is there", told) == ["Started", *["StageStarted"] * 5, "Succeeded"]


def test_subsets_of_one_service(shop: Shop) -> None:
    """Two Deployments behind one Service, told apart by a DestinationRule."""
    for version, name in (("v1", "shop-v1"), ("v2", "shop-v2")):
        labels = {"app": name, "all": "shop", "version": version}
        patch = {"spec": {"replicas": 2, "template": {"metadata": {"labels": labels}}}}
        shop.api.patch(f"{shop.deployments}/{name}", patch)
    service = {"selector": {"all": "shop"}, "ports": [{"name": "http", "port": 80}]}
    place = {"namespace": shop.namespace}
    shop.api.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "all", **place}, "spec": service})
    subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "all", **place}}
    shop.api.apply(rule | {"spec": {"host": "all", "subsets": subsets}})
    entries = [
        {"destination": {"host": "all", "subset": "v1"}, "weight": 100},
        {"destination": {"host": "all", "subset": "v2"}, "weight": 0},
    ]
    shop.api.patch(shop.routes, [{"op": "replace", "path": "/spec/http/0/route", "value": entries}], kind="json")
    until("all pods are ready", lambda: shop.endpoints("all") == 4)
    shop.apply("""
steps:
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: all, subset: v1}, to: {host: all, subset: v2}, weights: [30, 100]}
""")
    assert shop.until_ended().phase is Phase.SUCCEEDED
    assert shop.weights() == [0, 100]


def test_an_operator_that_is_replaced_in_the_middle(shop: Shop, operator: AnyOperator) -> None:
    shop.apply(f"steps:{DEPLOY}{SHIFT}      dwell: 10m\n")
    shop.until(lambda s: s.current is not None and s.current.weight == 10)
    operator.restart()
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended(deadline=60).phase is Phase.ROLLED_BACK
    assert shop.weights() == [100, 0]
    assert shop.leftovers() == []


@pytest.mark.local("reads the exit code of the operator's process")
def test_sigterm_ends_the_operator_in_good_order(shop: Shop, operator: Operator) -> None:
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go}}}}\n")
    shop.until_phase(Phase.WAITING)
    operator.stop()
    assert operator.process.exit_code == 0
    shop.request(RequestVerb.APPROVE, "ok")
    operator.start()
    assert shop.until_ended().phase is Phase.SUCCEEDED
