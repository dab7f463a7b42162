"""Somebody else writes what a running plan has claimed: the right phase and reason each, soon, and then the right end with nothing left.

How soon is seen from outside, by a watch: from the moment the other's request is sent until what follows from it is seen.
That is to take two seconds at most. What the machine itself needs is not the plan's: so the bound is two seconds, and beyond
them ten times what the same watch needed for the change itself, because an answer takes some requests one after the other
(an abort that gets Stuck has traffic to take back first). All spans are printed as a table.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from cutover.plan.status_document import read_status
from cutover.ports import PLAN_LABEL
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.process import NotReady, until
from support.cluster.observer import Observed, Witness
from support.cluster.shop import Shop, without_owners
from support.cluster.testbed import Testbed, side_by_side
from support.faults.other_writer import OtherWriter
from support.faults.other_writer_actions import (
    Objects,
    adorn,
    after,
    back_to_git,
    empty,
    fix_then_resume,
    left_http,
    lower_again,
    lowered_stays,
    misroute,
    raise_again_and_again,
    raise_while_suspended,
    recreate,
    recreate_old,
    reorder,
    reorder_and_raise,
    resume_then_abort,
    set_again_and_again,
    then_abort,
    without,
)
from support.faults.phases import Case, RollingOut

pytestmark = [pytest.mark.cluster, pytest.mark.local("kills, pauses or starts operators that are processes")]
SEED = int(os.environ.get("SEED", "1"))
SOON, SLOWNESS = 2.0, 10
"""Seconds in which the plan is to answer, and how many times the change's own delay it gets beyond them."""
_V1, _V2, _ROUTES = "deployments/shop-v1", "deployments/shop-v2", "virtualservices/shop"
_PLAN = """
steps:
  - name: deploy
    deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 2}
  - name: shift
    traffic: {virtualService: {name: shop, routes: [primary]}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100], dwell: 10m}
"""


class Split(Case):
    """Half of the traffic goes to the new version, and will for a while."""

    spec = _PLAN

    def enter(self) -> None:
        until("weight 50 is written", lambda: self.shop.weights() == [50, 50])


# --- what follows -------------------------------------------------------------------------------------------------------


def plan_is(phase: Phase, reason: str = "", *says: str, failure: str = "") -> Observed:
    """The plan is seen in a phase, for a reason, with words in its message; or with a failure for a reason."""

    def seen(kind: str, _: str, body: Any) -> bool:
        if kind != "migrationplans":
            return False
        status = read_status(body.get("status"))
        fits = status.phase is phase and reason in ("", status.reason) and all(part in status.message for part in says)
        return fits and (not failure or (status.failure is not None and status.failure.reason == failure))

    return seen


def put_back(kind: str, _: str, body: Any) -> bool:
    """Both versions have half of the traffic, wherever their weights stand."""
    if kind != "virtualservices":
        return False
    primary = next(route for route in body["spec"]["http"] if route.get("name") == "primary")
    return [entry.get("weight", 0) for entry in primary["route"]] == [50, 50]


def claimed(kind: str, _: str, body: Any) -> bool:
    """An object of the shop carries our claim."""
    return kind != "migrationplans" and PLAN_LABEL in (body["metadata"].get("labels") or {})


# --- the rows --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What somebody does, what follows, what ends it, and what is there in the end.

    Attributes:
        act: the change, or the last of several, whose consequence is measured.
        follows: the consequence; None: none at all.
        then: leads to the end; without it the plan gets there by itself.
        left: what the objects are in the end, of what they were before.
        throughout: goes on from the change to the end.
    """

    name: str
    act: Callable[[OtherWriter], None]
    follows: Observed | None
    then: Callable[[OtherWriter], None] = lambda who: who.shop.request(RequestVerb.ABORT)
    left: Callable[[Objects], None] = lambda _: None
    begin: type[Case] = Split
    throughout: Callable[[OtherWriter], AbstractContextManager[None]] = field(default=lambda _: nullcontext())


_ALL = (("Deployment", "shop-v1"), ("Deployment", "shop-v2"), ("VirtualService", "shop"))


def _healed(how: str, *what: tuple[str, str]) -> Callable[[OtherWriter], AbstractContextManager[None]]:
    return lambda who: who.healing(how, *what)


def _nothing(_: OtherWriter) -> None:
    """All that is done is done throughout, or leads to the end by itself."""


_LOWERED = plan_is(Phase.PAUSED, "LoweredByHand", "another writer has lowered shop-v2 to weight ")
_STUCK = partial(plan_is, Phase.STUCK, "ForeignChange")
WEIGHTS = (
    Row("lowered, resumed", lambda who: who.weights(90, 10), _LOWERED, lowered_stays),
    Row("lowered again after a resume", lower_again, _LOWERED),
    Row("lowered to nothing", lambda who: who.weights(100, 0), _LOWERED),
    Row("lowered while paused", after(RequestVerb.PAUSE, Phase.PAUSED, lambda who: who.weights(70, 30)), _LOWERED),
    Row("raised", lambda who: who.weights(20, 80), put_back),
    Row("raised while suspended", raise_while_suspended, put_back),
    Row(
        "raised again and again",
        raise_again_and_again,
        plan_is(Phase.PAUSED, "ForeignWriter", "field manager somebody has changed the weights"),
        resume_then_abort,
    ),
    Row("more than all", lambda who: who.weights(60, 60), put_back),
    Row(
        "VirtualService deleted",
        lambda who: who.delete(who.shop.routes),
        plan_is(Phase.ROLLING_BACK, failure="TargetGone"),
        _nothing,
        without(_ROUTES),
    ),
    Row("VirtualService recreated", recreate, plan_is(Phase.ROLLING_BACK), _nothing),
    Row("VirtualService emptied", empty, _STUCK("To restore it: kubectl edit virtualservice"), back_to_git),
    Row("destination renamed", misroute, _STUCK("To restore it: kubectl edit virtualservice"), back_to_git),
    Row("re-ordered and raised", reorder_and_raise, put_back, left=left_http(reorder)),
    Row("routes, retries, timeouts", then_abort(lambda who: who.routes(adorn)), plan_is(Phase.ROLLING_BACK), _nothing, left_http(adorn)),
)  # fmt: skip
WORKLOADS = (
    Row(
        "Deployment deleted",
        lambda who: who.delete(f"{who.shop.deployments}/shop-v2"),
        plan_is(Phase.ROLLING_BACK, failure="TargetGone"),
        _nothing,
        without(_V2),
    ),
    Row("old Deployment deleted", lambda who: who.delete(f"{who.shop.deployments}/shop-v1"), None, recreate_old),
    Row(
        "image changed",
        then_abort(lambda who: who.image("shop:by-hand")),
        _STUCK("is shop:by-hand, was shop:1 before, and this plan set shop:2"),
        lambda who: who.image("shop:1"),
    ),
    Row(
        "image set back",
        lambda who: who.image("shop:1"),
        plan_is(Phase.PAUSED, "ForeignChange", "is shop:1, and this plan has set shop:2; field manager somebody"),
    ),
    Row(
        "scaled",
        then_abort(lambda who: who.scale(5)),
        _STUCK("is 5, was 0 before, and this plan set 2"),
        lambda who: who.scale(2),
    ),
    Row(
        "image changed in a rollout",
        lambda who: who.image("shop:by-hand"),
        _STUCK("is shop:by-hand, was shop:1 before, and this plan set shop:2"),
        lambda who: who.image("shop:2"),
        begin=RollingOut,
    ),
    Row("labels off the Deployment", lambda who: who.take_labels(f"{who.shop.deployments}/shop-v2"), claimed),
    Row("labels off the VirtualService", lambda who: who.take_labels(who.shop.routes), claimed),
    Row(
        "labels off, and scaled",
        lambda who: who.take_labels(f"{who.shop.deployments}/shop-v2", replicas=5),
        plan_is(Phase.PAUSED, "ClaimLost", "is 5, was 0 before, and this plan set 2"),
        fix_then_resume,
    ),
)
HEALED = (
    Row("applied every second", _nothing, plan_is(Phase.PAUSED), throughout=_healed("apply", *_ALL)),
    Row("replaced every second", _nothing, plan_is(Phase.PAUSED), throughout=_healed("replace", *_ALL)),
    Row(
        "set back again and again in a rollout",
        set_again_and_again,
        plan_is(Phase.PAUSED, "ForeignWriter", "field manager somebody has changed the fields of this step"),
        begin=RollingOut,
    ),
    Row(
        "Deployment applied every second",
        then_abort(_nothing),
        plan_is(Phase.ROLLING_BACK),
        _nothing,
        throughout=_healed("apply", ("Deployment", "shop-v2")),
    ),
)


# --- the table ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """How one row went: seconds until the change was seen, and until what followed from it was; and what was wrong."""

    name: str
    bare: float
    span: float
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name:34} {1000 * self.bare:6.0f} {1000 * self.span:6.0f} ms  {'; '.join(self.problems)}"


def _play(testbed: Testbed, witness: Witness, row: Row) -> Told:
    bare = span = 0.0
    try:
        with testbed.site("others", operators=0) as site:
            shop, who, case = site.shop, OtherWriter(site.shop), row.begin(site.shop)
            case.prepare()
            wanted = json.loads(json.dumps(without_owners(shop.objects())))
            shop.apply(case.spec)
            case.enter()
            with row.throughout(who):
                row.act(who)
                bare, span = _spans(shop, witness, who, row)
                row.then(who)
                status = shop.until_ended(deadline=60)
            row.left(wanted)
            problems = [] if status.phase is Phase.ROLLED_BACK else [f"it ended {status.phase}: {status.message}"]
            problems += _other(shop, wanted) + site.claims() + site.snapshots()
            if span > SOON + SLOWNESS * bare:
                problems.append(f"{span:.1f}s until it was seen, {bare:.1f}s of it until the change itself was")
    except (AssertionError, NotReady) as error:
        problems = [str(error)]
    return Told(row.name, bare, span, tuple(problems))


def _spans(shop: Shop, witness: Witness, who: OtherWriter, row: Row) -> tuple[float, float]:
    """Seconds from the change until a watch saw it, and until it saw what followed."""
    kind, name = who.what

    def change(seen: str, _: str, body: Any) -> bool:
        return seen == kind and body["metadata"]["name"] == name

    bare = witness.when(shop.namespace, f"the change of {kind}/{name}", change, who.version) - who.at
    if row.follows is None:
        return bare, 0.0
    return bare, witness.when(shop.namespace, f"what follows; {shop.status()}", row.follows, who.version) - who.at


def _other(shop: Shop, wanted: Objects) -> list[str]:
    """What is not as it should be. Owners are not compared: the other writer owns what he wrote, to the end."""
    there = json.loads(json.dumps(without_owners(shop.objects())))
    return [
        f"{name} is {there.get(name)} instead of {wanted.get(name)}"
        for name in sorted(there.keys() | wanted.keys())
        if there.get(name) != wanted.get(name)
    ]


def _all(testbed: Testbed, rows: Sequence[Row]) -> None:
    witness = Witness(testbed.api)
    try:
        with testbed.operator("others"):
            told = side_by_side([partial(_play, testbed, witness, row) for row in rows])
    finally:
        witness.stop()
    print(f"\n{'':34} change follows\n" + "\n".join(map(str, told)))  # noqa: T201 -- the table
    wrong = [str(one) for one in told if one.problems]
    assert wrong == [], f"{len(wrong)} of {len(told)}:\n" + "\n".join(wrong)


def test_an_image_set_back_after_its_step_gets_no_traffic(testbed: Testbed) -> None:
    """Nothing builds on it, its writer is named, and a resume sets it again before the traffic goes on."""
    with testbed.site("set-back") as site:
        shop, who = site.shop, OtherWriter(site.shop)
        shop.apply(_PLAN.replace("10m", "5s"))
        until("weight 50 is written", lambda: shop.weights() == [50, 50])
        who.image("shop:1")
        status = shop.until_phase(Phase.PAUSED)
        assert status.reason == "ForeignChange", status
        assert "is shop:1, and this plan has set shop:2; field manager somebody has changed it" in status.message
        assert shop.weights() == [50, 50]
        shop.request(RequestVerb.RESUME)
        status = shop.until_ended(deadline=60)
        assert status.phase is Phase.SUCCEEDED, status
        assert shop.weights() == [0, 100]
        assert "shop:2" in str(shop.api.get(f"{shop.deployments}/shop-v2")["spec"])
        assert site.claims() == []


ROWS = (*WEIGHTS, *WORKLOADS, *HEALED)


def test_some_of_what_others_do(testbed: Testbed) -> None:
    _all(testbed, random.Random(SEED).sample(ROWS, len(ROWS) // 3))  # noqa: S311 -- repeatable on purpose


@pytest.mark.long
def test_all_that_others_do(testbed: Testbed) -> None:
    _all(testbed, ROWS)
