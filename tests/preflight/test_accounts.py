"""The account of a plan, those of its pods, and what it lacks: one rule for every kind, and one look that reports it all."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cutover.ports import MIGRATOR_LABEL, SERVICE_ACCOUNTS, VIRTUAL_SERVICES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from engine.test_other_writers import edit
from engine.test_rollback import DEPLOY_AND_ASK
from support.fakes.shop import NAMESPACE, V2, plan, shop
from support.fakes.simulation import Simulation

_POD = "{serviceAccountName: admin, containers: [{name: t, image: x}]}"
_TEMPLATE = f"'{{spec: {{template: {{spec: {_POD}}}}}}}'"
_OWN = "'{spec: {template: {spec: {containers: [{name: t, image: x}]}}}}'"
DEPLOY = "deploy: {{workload: {{name: shop-v2}}, patch: '{{template: {}}}'}}"
BRINGS = {
    "deploy": DEPLOY.format("{spec: {serviceAccountName: admin}}"),
    "deploy, by the old name of the field": DEPLOY.format("{spec: {serviceAccount: admin}}"),
    "job": f"job: {{changesNothing: true, template: {_TEMPLATE}}}",
    "undo job": f"job: {{undo: {_TEMPLATE}, template: {_OWN}}}",
    "gate job": f"check: {{}}, gates: [{{name: test, job: {{template: {_TEMPLATE}}}}}]",
}
DEFAULT = {
    "without its account": DEPLOY.format("{spec: {serviceAccountName: null}}"),
    "a pod spec of its own": DEPLOY.format("{spec: {$patch: replace, containers: [{name: app, image: x}]}}"),
    "a template of its own": DEPLOY.format("{$patch: replace, spec: {containers: [{name: app, image: x}]}}"),
    "keeps only": DEPLOY.format("{spec: {$retainKeys: [containers], containers: [{name: app, image: x}]}}"),
}
NEEDED = "ServiceAccount migrator is not allowed to use ServiceAccount {}; to grant it, apply:"


async def _pending(spec: str, account: str = "admin") -> str:
    """What a plan with one step reports where its account may not use another one, which is there and labelled."""
    run = Simulation(plan(f"steps: [{{name: one, {spec}}}]"), put=shop)
    run.cluster.put(SERVICE_ACCOUNTS, {"metadata": {"name": account, "labels": {MIGRATOR_LABEL: "true"}}})
    run.cluster.denied.add(("use", Ref(SERVICE_ACCOUNTS, NAMESPACE, account)))
    await run.until(lambda: run.phase is Phase.PENDING and bool(run.status.message))
    return run.status.message


@pytest.mark.parametrize("spec", BRINGS.values(), ids=BRINGS)
async def test_no_pods_get_an_account_that_the_plan_may_not_use(spec: str) -> None:
    assert NEEDED.format("admin") in await _pending(spec)


@pytest.mark.parametrize("spec", DEFAULT.values(), ids=DEFAULT)
async def test_pods_without_an_account_run_under_the_default_one(spec: str) -> None:
    assert NEEDED.format("default") in await _pending(spec, "default")


async def test_the_token_of_a_pod_is_of_its_own_account() -> None:
    """A projected volume names no account, so it needs nothing more."""
    token = "volumes: [{name: token, projected: {sources: [{serviceAccountToken: {path: t}}]}}]"  # noqa: S105 -- a volume
    run = Simulation(plan(f"steps: [{{name: one, {DEPLOY.format(f'{{spec: {{{token}}}}}')}}}]"), put=shop)
    run.cluster.denied.add(("use", Ref(SERVICE_ACCOUNTS, NAMESPACE, "default")))
    assert await run.run() is Phase.SUCCEEDED


async def test_an_undo_gives_back_the_account_that_was_there_and_needs_no_other() -> None:
    step = f"{{name: one, {BRINGS['deploy']}}}"
    run = Simulation(plan(f"steps: [{step}, {{name: ok, approve: {{message: go}}}}]"), put=shop)
    run.cluster.put(SERVICE_ACCOUNTS, {"metadata": {"name": "admin", "labels": {MIGRATOR_LABEL: "true"}}})
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.denied.add(("use", Ref(SERVICE_ACCOUNTS, NAMESPACE, "admin")))
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK


async def test_one_look_reports_account_label_and_permissions() -> None:
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    run.cluster.delete(Ref(SERVICE_ACCOUNTS, NAMESPACE, "migrator"))
    run.cluster.denied.add(("patch", V2))
    await run.until(lambda: run.phase is Phase.PENDING and bool(run.status.message))
    for part in (
        "kubectl create serviceaccount migrator -n shop",
        "kubectl label serviceaccount migrator -n shop cutover.dev/migrator=true",
        "ServiceAccount migrator is not allowed to patch Deployment shop-v2; to grant it, apply:\n",
    ):
        assert part in run.status.message


async def test_the_role_is_of_the_plan_and_holds_all_that_it_needs() -> None:
    """Named after the account and with what is missing alone, one plan would take away what another one was given."""
    spec = (
        DEPLOY_AND_ASK + "  - name: shift\n"
        "    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}\n"
    )
    run = Simulation(plan(spec), put=shop)
    run.cluster.denied.add(("patch", V2))
    await run.until(lambda: run.phase is Phase.PENDING and bool(run.status.message))
    role, binding = yaml.safe_load_all(run.status.message.partition("to grant it, apply:\n")[2])
    assert role["metadata"] == binding["metadata"] == {"name": "migrationplan-shop-v2", "namespace": "shop"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "migrator", "namespace": "shop"}]
    assert [rule["resources"] for rule in role["rules"]] == [["deployments"], [VIRTUAL_SERVICES.plural]]


COMMAND = "kubectl cutover role shop-v2 -n shop | kubectl apply -f -"


async def test_a_permission_that_is_gone_while_the_plan_runs_is_reported_with_the_way_back() -> None:
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.denied.add(("patch", V2))
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.message.endswith(
        f"ServiceAccount migrator is not allowed to patch Deployment shop-v2; to grant it: {COMMAND}"
    )
    run.cluster.denied.clear()
    assert await run.run() is Phase.ROLLED_BACK


async def test_what_a_policy_refuses_keeps_its_own_words() -> None:
    """The server answers 403 too, but no Role would help."""
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.denied.add(("patch", V2))

    async def may(*_: Any) -> bool:
        return True

    run.cluster.may = may  # type: ignore[method-assign,assignment]
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert COMMAND not in run.status.message
    assert run.status.reason == "Denied"


async def test_an_account_that_is_gone_while_the_plan_runs_is_reported_with_the_way_back() -> None:
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    edit(run, Ref(SERVICE_ACCOUNTS, NAMESPACE, "migrator"), lambda body: body["metadata"].update(labels={}))
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert "kubectl label serviceaccount migrator -n shop cutover.dev/migrator=true" in run.status.message
