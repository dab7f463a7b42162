"""`traffic` with an HTTPRoute that a gateway refuses: what was refused before, what is refused since, and how it goes back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from cutover.field_path import Json
from cutover.ports import HTTP_ROUTES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from support.fakes.shop import RULES, http_route, plan, shop_with_an_http_route
from support.fakes.simulation import Simulation

CONTROLLER = "example.com/gateways"
ACCEPTED, REFUSED = ("Accepted", "True"), ("Accepted", "False")
UNRESOLVED, IN_PART = ("ResolvedRefs", "False"), ("PartiallyInvalid", "True")
SAYS = (
    "Gateway gateway (example.com/gateways) says Accepted=False of HTTPRoute shop: Unsupported: no such weight; "
    "so the traffic is not where this plan has it: fix that, then run the plan again"
)


def spec(dwell: str = "1m", after: str = "", weights: str = "[50, 100]") -> dict[str, Any]:
    return plan(f"""
startDeadline: 0s
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}
  - {{name: shift, traffic: {{httpRoute: {{name: shop}}, from: {{host: shop-v1}}, to: {{host: shop-v2}}, weights: {weights}, dwell: {dwell}}}}}{after}
""")


def parent(generation: int | None, *conditions: tuple[str, str], name: str = "gateway") -> Json:
    """What one controller says of one parent."""
    seen = {} if generation is None else {"observedGeneration": generation}
    said = [
        {"type": kind, "status": status, "reason": "Unsupported", "message": "no such weight"} | seen
        for kind, status in conditions
    ]
    return {"parentRef": {"name": name}, "controllerName": CONTROLLER, "conditions": said}


def put(*parents: Json) -> Callable[[MemoryCluster], None]:
    """The shop, with what was said of its HTTPRoute before the plan began."""

    def put(cluster: MemoryCluster) -> None:
        shop_with_an_http_route(cluster)
        cluster.put(HTTP_ROUTES, http_route() | {"status": {"parents": list(parents)}})

    return put


def say(run: Simulation, *parents: Json) -> None:
    run.cluster.report(RULES, {"parents": list(parents)})


def generation(run: Simulation) -> int:
    found: int = run.cluster.objects[RULES]["metadata"]["generation"]
    return found


def weights(run: Simulation) -> list[int]:
    return [entry["weight"] for entry in run.cluster.objects[RULES]["spec"]["rules"][-1]["backendRefs"]]


async def at_half(*before: Json, **more: str) -> Simulation:
    """The plan stays at its first weight, of which nobody has said anything yet."""
    run = Simulation(spec(**more), put=put(*(before or (parent(1, ACCEPTED),))))
    await run.until(lambda: weights(run) == [50, 50])
    await run.turn()
    return run


def failure(run: Simulation) -> tuple[str, str]:
    assert run.status.failure is not None, run.status
    return run.status.failure.reason, run.status.failure.message


@pytest.mark.parametrize("said", [REFUSED, UNRESOLVED, IN_PART])
@pytest.mark.parametrize("stamped", [True, False], ids=["with its generation", "without"])
async def test_what_a_gateway_refuses_is_taken_back(said: tuple[str, str], *, stamped: bool) -> None:
    run = await at_half()
    say(run, parent(generation(run) if stamped else None, ACCEPTED, said))
    assert await run.run() is Phase.ROLLED_BACK
    assert failure(run) == ("NotServed", SAYS.replace("Accepted=False", "=".join(said)))
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_a_condition_of_an_older_generation_does_not_count_and_is_not_waited_for() -> None:
    run = await at_half()
    say(run, parent(generation(run) - 1, REFUSED))
    assert await run.run() is Phase.SUCCEEDED, run.status


async def test_it_is_heard_before_the_next_weight_is_written() -> None:
    """Also by a process that took over, which has nothing but the snapshot."""
    run = await at_half()
    run._start_process()
    say(run, parent(generation(run), REFUSED))
    seen: list[list[int]] = []
    run.cluster.changed = lambda ref, *_: seen.append(weights(run)) if ref == RULES else None
    assert await run.run() is Phase.ROLLED_BACK
    assert [0, 100] not in seen
    assert failure(run)[0] == "NotServed"


async def test_it_is_heard_after_the_step_too_for_as_long_as_the_run_lasts() -> None:
    """A step without a dwell is over before any gateway could have looked; what comes after it rests on the traffic all the same."""
    run = Simulation(spec("0s", "\n  - {name: soak, wait: {for: 1h}}"), put=put(parent(1, ACCEPTED)))
    await run.until(lambda: run.status.current is not None and run.status.current.step == "soak")
    say(run, parent(generation(run), REFUSED))
    assert await run.run() is Phase.ROLLED_BACK
    assert failure(run) == ("NotServed", SAYS)
    assert run.specs() == run.specs_before()


@pytest.mark.parametrize(
    ("before", "since", "blamed"),
    [
        (parent(1, REFUSED), (REFUSED,), False),
        (parent(1, REFUSED), (REFUSED, UNRESOLVED), False),  # it has never carried this traffic
        (parent(0, REFUSED), (REFUSED,), False),  # it was only slow to say it again
        (parent(1, ACCEPTED, UNRESOLVED), (ACCEPTED, UNRESOLVED), False),  # of a rule that is no business of ours
        (parent(1, ACCEPTED, UNRESOLVED), (REFUSED, UNRESOLVED), True),
        (parent(1, REFUSED, name="other"), (REFUSED,), True),
    ],
)
async def test_who_refused_before_is_not_blamed_on_the_step(
    before: Json, since: tuple[Any, ...], *, blamed: bool
) -> None:
    run = await at_half(before)
    say(run, parent(generation(run), *since))
    assert await run.run() is (Phase.ROLLED_BACK if blamed else Phase.SUCCEEDED), run.status
    if blamed:
        assert failure(run) == ("NotServed", SAYS)


async def test_the_same_gateway_by_another_listener_or_controller_is_another_one() -> None:
    before = parent(1, REFUSED)
    before["parentRef"]["sectionName"] = "https"
    run = await at_half(before)
    refused = parent(generation(run), REFUSED)
    refused["parentRef"] |= {"namespace": "edge", "sectionName": "http", "port": 80}
    say(run, parent(1, REFUSED), refused)
    assert await run.run() is Phase.ROLLED_BACK
    assert "Gateway edge/gateway listener http port 80 (example.com/gateways) says" in failure(run)[1]


async def test_a_snapshot_of_an_older_release_knows_nobody_who_refused() -> None:
    run = await at_half()
    for ref, body in list(run.cluster.objects.items()):
        if "refused" in body.get("data", {}).get("facts", {}):
            kept = copy.deepcopy(body)
            del kept["data"]["facts"]["refused"]
            run.cluster.objects[ref] = kept
    run._start_process()
    say(run, parent(generation(run), REFUSED))
    assert await run.run() is Phase.SUCCEEDED, run.status


async def test_a_step_that_had_nothing_to_write_is_not_refused() -> None:
    """The new side has had the weight from the start: what stands there is the user's."""

    def theirs(cluster: MemoryCluster) -> None:
        put(parent(1, ACCEPTED))(cluster)
        cluster.put(HTTP_ROUTES, http_route(0, 100))

    run = Simulation(spec(weights="[50]", after="\n  - {name: soak, wait: {for: 1h}}"), put=theirs)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "soak")
    say(run, parent(generation(run), REFUSED))
    assert await run.run() is Phase.SUCCEEDED, run.status


async def test_the_rollback_says_what_is_refused_and_is_not_delayed_by_it() -> None:
    run = await at_half()
    told: list[str] = []

    def refuses_all(ref: Ref, *_: Any) -> None:
        if ref == RULES and weights(run) == [100, 0] and not told:
            told.append("back")
            say(run, parent(generation(run), REFUSED))

    run.cluster.changed = refuses_all
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()
    (undone,) = (
        one.message for one in run.recorder.notices if one.reason == "StepUndone" and "step shift" in one.message
    )
    assert "says Accepted=False of HTTPRoute shop: Unsupported: no such weight" in undone
