"""What an abandoned plan leaves beside the weights: it is said, with the command that takes it away, then and to the next plan."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable

import pytest

from cutover.errors import Rejected
from cutover.ports import FENCE_LABEL, PLAN_LABEL, PLANS, VIRTUAL_SERVICES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.targets.patching import apply, tidy
from cutover.testing import MemoryCluster
from steps import test_traffic_http_route as http_route
from steps.test_traffic_headers_and_mirrors import HEADER, OURS, change_plan, edit, names, primary, put_with, spec
from support.fakes.shop import ROUTES, RULES, plan, shop, shop_with_an_http_route
from support.fakes.simulation import Simulation

THEIRS = {"destination": {"host": "recorder"}, "percentage": {"value": 0.5}}
MATCH, MIRROR = f"match: [{HEADER}], dwell: 1m", "mirror: {percent: 30, dwell: 1m}, dwell: 1m"


def with_mirrors(cluster: MemoryCluster) -> None:
    put_with(lambda body: body["http"][0].update(mirrors=[THEIRS]))(cluster)


async def abandoned(more: str, put: Callable[[MemoryCluster], None] = shop) -> Simulation:
    """In the first stage of its shift, while what stands beside the weights is there."""
    run = Simulation(spec(more), put=put)
    await run.until(
        lambda: run.status.current is not None and run.status.current.applied_at is not None and beside(run)
    )
    run.request(RequestVerb.ABANDON)
    assert await run.run() is Phase.ABANDONED
    assert beside(run)
    assert run.leftovers() == []
    return run


def beside(run: Simulation) -> bool:
    return bool(run.cluster.objects[ROUTES]["spec"] != run.before[ROUTES]["spec"])


def do_as_it_says(run: Simulation, text: str, ref: Ref = ROUTES) -> None:
    """What a person does who copies the command out of a message."""
    command = shlex.split(text[text.index("kubectl ") :])
    assert command[:6] == ["kubectl", "patch", ref.resource.kind.lower(), "shop", "-n", "shop"]
    assert command[6:8] == ["--type=json", "-p"]
    body = copy.deepcopy(run.cluster.objects[ref])
    for operation in json.JSONDecoder().raw_decode(command[8])[0]:
        apply(body, operation)
    tidy(body)
    run.cluster.put(ref.resource, body)


def of_started(run: Simulation) -> str:
    return [notice.message for notice in run.recorder.notices if notice.reason == "Started"][-1]


@pytest.mark.parametrize(
    ("more", "put", "what"),
    [
        (MATCH, shop, f"spec.http[name={OURS}]"),
        (MIRROR, shop, "spec.http[name=primary].mirror, spec.http[name=primary].mirrorPercentage"),
        (MIRROR, with_mirrors, "spec.http[name=primary].mirrors"),
    ],
    ids=["header route", "mirror", "mirrors"],
)
async def test_who_abandons_is_told_what_stays_and_how_to_take_it_away(
    more: str, put: Callable[[MemoryCluster], None], what: str
) -> None:
    run = await abandoned(more, put)
    (told,) = [notice for notice in run.recorder.notices if notice.reason == "Left"]
    assert told.warning
    assert told.message.startswith(f"left on VirtualService shop, set only for a while: {what}; ")
    assert run.status.message == f"abandoned on request; not undone: deploy, shift; {told.message}"
    do_as_it_says(run, run.status.message)
    assert run.cluster.objects[ROUTES]["spec"] == run.before[ROUTES]["spec"]


async def test_the_command_takes_no_other_route_away() -> None:
    """It was read, and run later: meanwhile somebody has put another route above."""
    run = await abandoned(MATCH)
    edit(run, lambda body: body["http"].insert(0, {"name": "other", "route": [{"destination": {"host": "other"}}]}))
    with pytest.raises(Rejected, match="the test of /spec/http/0/name failed"):
        do_as_it_says(run, run.status.message)


@pytest.mark.parametrize("more", [MATCH, MIRROR])
async def test_a_process_that_dies_during_the_release_still_reports_it(more: str) -> None:
    run = Simulation(spec(more), put=shop)
    await run.until(
        lambda: run.status.current is not None and run.status.current.applied_at is not None and beside(run)
    )
    run.request(RequestVerb.ABANDON)
    run.cluster.told = lambda verb, ref, _: (
        setattr(run.switch, "at", run.switch.calls + 1) if (verb, ref) == ("patch", ROUTES) else None
    )
    assert await run.run() is Phase.ABANDONED
    assert run.crashes == 1
    assert "set only for a while" in run.status.message


async def test_nothing_is_reported_where_only_weights_stay() -> None:
    run = await abandoned("dwell: 1m")
    assert run.status.message == "abandoned on request; not undone: deploy, shift"
    assert [notice for notice in run.recorder.notices if notice.reason == "Left"] == []


async def test_what_another_writer_has_put_in_its_place_is_not_ours_to_remove() -> None:
    run = Simulation(spec(MIRROR), put=shop)
    await run.until(lambda: "mirror" in primary(run))
    edit(run, lambda body: body["http"][0].update(mirror={"host": "theirs"}))
    await run.until(lambda: run.phase is Phase.STUCK)
    run.request(RequestVerb.ABANDON)
    assert await run.run() is Phase.ABANDONED
    assert primary(run)["mirror"] == {"host": "theirs"}
    assert run.status.message == "abandoned on request; not undone: deploy, shift"


# --- the next plan ----------------------------------------------------------------------------------------------------


async def next_plan(run: Simulation, more: str, step: str = "shift") -> None:
    """Another spec of the plan, which is a new run."""
    steps = spec(more)["spec"]["steps"]
    steps[1]["name"] = step
    change_plan(run, steps=steps)
    await run.turn()


async def test_the_next_plan_is_told_of_a_header_route_that_is_not_its_own() -> None:
    run = await abandoned(MATCH)
    await next_plan(run, MATCH, step="again")
    await run.until(lambda: len(names(run)) > 2)
    says = f"steps[again].traffic: route {OURS} of VirtualService shop looks like one that an abandoned plan has left"
    assert says in of_started(run)
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert names(run) == [OURS, "primary"]
    do_as_it_says(run, of_started(run))
    assert names(run) == ["primary"]


@pytest.mark.parametrize("put", [shop, with_mirrors])
async def test_a_mirror_that_was_left_is_not_taken_for_the_users(put: Callable[[MemoryCluster], None]) -> None:
    run = await abandoned(MIRROR, put)
    await next_plan(run, "mirror: {percent: 5, dwell: 1m}")
    assert await run.run() is Phase.REFUSED
    assert "traffic: route primary of VirtualService shop mirrors requests to shop-v2 already" in run.status.message
    do_as_it_says(run, run.status.message)
    assert run.cluster.objects[ROUTES]["spec"] == run.before[ROUTES]["spec"]
    run.request(RequestVerb.RETRY)
    await run.turn()
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert "mirror" not in primary(run)


async def test_a_plan_that_mirrors_nothing_itself_is_told_and_continues() -> None:
    run = await abandoned(MIRROR)
    await next_plan(run, "dwell: 1m")
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert "route primary of VirtualService shop mirrors requests to shop-v2 already" in of_started(run)
    assert "mirror" in primary(run)


async def test_a_mirror_to_another_destination_is_the_users() -> None:
    put = put_with(lambda body: body["http"][0].update(mirror={"host": "recorder"}, mirrors=[THEIRS]))
    run = Simulation(spec(MIRROR), put=put)
    assert await run.run() is Phase.SUCCEEDED
    assert of_started(run) == "run 1 started; all prerequisites are met"


@pytest.mark.parametrize("more", [MATCH, MIRROR])
async def test_what_an_active_plan_has_put_there_is_not_called_residue(more: str) -> None:
    """The next one waits for it, and has no deadline meanwhile."""
    run = await abandoned(more)
    other = run.cluster.put(PLANS, {"metadata": {"name": "other"}, "spec": plan("steps: []")["spec"]})
    run.cluster.report(other, {"phase": "Running"})
    body = copy.deepcopy(run.cluster.objects[ROUTES])
    uid = run.cluster.objects[other]["metadata"]["uid"]
    body["metadata"]["labels"] = {PLAN_LABEL: uid, FENCE_LABEL: "1"}
    run.cluster.put(VIRTUAL_SERVICES, body)
    await next_plan(run, f"{more}, settle: 0s")
    await run.until(lambda: run.status.reason == "TargetBusy")
    assert "is claimed by plan other" in run.status.message


async def test_a_mirror_of_an_http_route_is_not_taken_for_the_users_either() -> None:
    body = http_route.spec("mirror: {dwell: 1m}, dwell: 1m")
    run = Simulation(body, put=shop_with_an_http_route)
    await run.until(lambda: run.cluster.objects[RULES]["spec"] != run.before[RULES]["spec"])
    run.request(RequestVerb.ABANDON)
    assert await run.run() is Phase.ABANDONED
    left = run.status.message
    steps = copy.deepcopy(body["spec"]["steps"])
    steps[0]["description"] = "once more"
    change_plan(run, steps=steps)
    await run.turn()
    assert await run.run() is Phase.REFUSED
    assert (
        "of HTTPRoute shop mirrors requests to shop-v2 already; an abandoned plan may have left that"
        in run.status.message
    )
    refused = run.status.message
    for says in (left, refused):
        there = copy.deepcopy(run.cluster.objects[RULES])
        do_as_it_says(run, says, RULES)
        assert run.cluster.objects[RULES]["spec"] == run.before[RULES]["spec"]
        run.cluster.put(RULES.resource, there)
