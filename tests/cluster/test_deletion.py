"""A plan is deleted in each phase, in each way: the cluster is as before, or as it was then, and nothing of ours is left.

The table is run side by side under one operator. `make test` takes one way of propagation for each phase and policy (another
one by `SEED`), `make test-long` all of them.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import yaml

from cutover.ports import APPLIED_LABEL
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness import tools
from harness.process import NotReady, until
from harness.proxy import Proxy
from support.cluster.shop import DEPLOY, Shop
from support.cluster.testbed import Site, Testbed, side_by_side, unclaimed, without_labels
from support.faults.phases import (
    Abandoned,
    Case,
    Claiming,
    DwellingLong,
    OutsideWindow,
    Paused,
    PausedByFailure,
    PausedPastNoReturn,
    Pending,
    Reclaiming,
    Refused,
    Releasing,
    RolledBack,
    RollingBack,
    RollingOut,
    Stuck,
    Succeeded,
    Waiting,
)

pytestmark = [pytest.mark.cluster, pytest.mark.local("puts a proxy between the operator and the API server")]
SEED = int(os.environ.get("SEED", "1"))
PROPAGATIONS = ("Background", "Foreground", "Orphan")


# --- in each phase ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A plan in one phase that is deleted.

    Attributes:
        policy: its deletionPolicy.
        stays: everything is left as it was at that moment; else it is as it was before the plan.
        told: the reason of the last event that says what became of it; empty for none.
        says: what that event says of what was not undone.
        before: the reason of the one before it, where a run had ended already; else it is the only one.
        abandon: a person does not wait for the ten minutes in which it is tried.
    """

    kind: type[Case]
    policy: str = "Rollback"
    stays: bool = False
    told: str = "RolledBack"
    message: str = "all changes were undone"
    before: str = ""
    abandon: bool = False

    def __str__(self) -> str:
        return f"{self.kind.__name__}, {self.policy}"


def _stays(kind: type[Case], says: str, policy: str = "Orphan") -> Row:
    return Row(kind, policy, stays=True, told="Abandoned", message=says)


ROWS = (
    Row(Pending, told=""),
    Row(Refused, told=""),
    Row(Claiming),
    _stays(Claiming, "no changes to undo"),
    Row(RollingOut),
    _stays(RollingOut, "not undone: deploy"),
    Row(DwellingLong),
    _stays(DwellingLong, "not undone: deploy, shift"),
    Row(OutsideWindow, told=""),
    Row(Waiting),
    _stays(Waiting, "not undone: deploy"),
    Row(Paused),
    _stays(Paused, "not undone: deploy"),
    Row(PausedByFailure),
    _stays(PausedByFailure, "not undone: deploy"),
    _stays(PausedPastNoReturn, "not undone: deploy", "Rollback"),
    _stays(PausedPastNoReturn, "not undone: deploy"),
    Row(RollingBack),
    Row(RollingBack, "Orphan"),  # what has begun to be taken back is taken back
    replace(_stays(Stuck, "abandoned on request; not undone: old", "Rollback"), abandon=True),
    replace(_stays(Stuck, "abandoned on request; not undone: old"), abandon=True),
    Row(Releasing, stays=True, told="Succeeded", message="all 2 steps are done"),
    Row(Releasing, "Orphan", stays=True, told="Succeeded", message="all 2 steps are done"),
    Row(Reclaiming, before="Succeeded"),
    Row(Succeeded, stays=True, told="Succeeded", message="all 3 steps are done"),
    Row(RolledBack),
    _stays(Abandoned, "not undone: deploy", "Rollback"),
)


def _deleted(testbed: Testbed, row: Row, propagation: str) -> str:
    """What went wrong; empty when nothing did."""
    try:
        with testbed.site(row.kind.__name__.lower(), operators=0) as site:
            shop, case = site.shop, row.kind(site.shop)
            case.prepare()
            before = shop.objects()
            path = shop.apply(f"deletionPolicy: {row.policy}\n{case.spec}")
            case.enter()
            then = _unmarked(shop.objects())
            shop.api.delete(path, propagation)
            if row.abandon:
                shop.request(RequestVerb.ABANDON)
            if case.blocked:
                case.free()
            problems = _gone(site, path)
            now = shop.objects()
            problems += _as_expected(_unmarked(now), then) if row.stays else _as_expected(now, before)
            problems += _told(shop, row.told, row.message, row.before)
    except (AssertionError, NotReady) as error:
        problems = [str(error)]
    return f"{row}, {propagation}: {'; '.join(problems)}" if problems else ""


def _unmarked(objects: dict[str, Any]) -> dict[str, Any]:
    """Without our claims, and without the mark of a success, which comes when they go."""
    return without_labels(unclaimed(objects), (APPLIED_LABEL,))


def _gone(site: Site, path: str) -> list[str]:
    """The plan goes, and nothing of ours stays."""
    until("the plan is gone", lambda: site.shop.api.find(path) is None)
    return [f"left behind: {claim}" for claim in site.claims()] + _no_snapshots(site)


def _no_snapshots(site: Site) -> list[str]:
    try:
        until("the snapshots are gone", lambda: not site.snapshots(), deadline=10)
    except NotReady:
        return [f"left behind: {name}" for name in site.snapshots()]
    return []


def _as_expected(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    names = sorted(there.keys() | wanted.keys())
    return [
        f"{name} is {there.get(name)} instead of {wanted.get(name)}"
        for name in names
        if there.get(name) != wanted.get(name)
    ]


def _told(shop: Shop, reason: str, says: str, before: str = "") -> list[str]:
    """One event says how it ended, and no other does but that of the end before."""
    ends, wanted = {"Abandoned", "RolledBack", "Succeeded"}, [one for one in (before, reason) if one]

    def told() -> list[tuple[str, str]] | None:
        found = [(event["reason"], event["note"]) for event in shop.events() if event["reason"] in ends]
        return found if len(found) >= len(wanted) else None

    found = until(f"an event {reason} is there", told, deadline=10)
    fits = sorted(one for one, _ in found) == sorted(wanted) and all(
        says in note for one, note in found if one == reason
    )
    return [] if fits else [f"events {found} instead of {reason}: {says}"]


# --- with what it needs ---------------------------------------------------------------------------------------------------


@contextmanager
def _in_mid_traffic(testbed: Testbed, name: str) -> Iterator[tuple[Site, str]]:
    """A plan that stays at a weight, and where it is."""
    with testbed.site(name, operators=0) as site:
        case = DwellingLong(site.shop)
        path = site.shop.apply(case.spec)
        case.enter()
        yield site, path


def _with_its_namespace(testbed: Testbed) -> str:
    """How it ended is said where it stays: on the Namespace, in `default`. Its targets may go before the plan does."""
    with _in_mid_traffic(testbed, "namespace") as (site, _):
        shop = site.shop
        testbed.cluster.control_plane.drop_namespace(shop.namespace)

        def told() -> list[str] | None:
            events = testbed.api.list("/apis/events.k8s.io/v1/namespaces/default/events")
            about = {"kind": "Namespace", "name": shop.namespace}
            found = [event for event in events if about.items() <= event["regarding"].items()]
            return [event["note"] for event in found if event["reason"] in ("Abandoned", "RolledBack")] or None

        notes = until("an event about the Namespace is there", told, deadline=10)
        says = any(words in notes[0] for words in ("not undone: ", "rolled back: "))
        return "" if says and len(notes) == 1 else f"namespace: events {notes}"


def _with_kubectl(testbed: Testbed, *, plan_first: bool) -> str:
    """`kubectl delete -f` of a file with the plan, its account and its targets."""
    with _in_mid_traffic(testbed, "kubectl") as (site, path):
        shop = site.shop
        plan = {key: value for key, value in shop.api.get(path).items() if key in ("apiVersion", "kind")}
        place = {"name": "plan", "namespace": shop.namespace}
        manifests = [*shop.manifests(2), plan | {"metadata": place}]
        file = testbed.folder / f"{shop.namespace}.yaml"
        file.write_text(yaml.safe_dump_all(manifests[::-1] if plan_first else manifests))
        command = [str(tools.locate("kubectl")), "delete", "--timeout=60s", "-f", str(file)]
        env = {"KUBECONFIG": str(testbed.cluster.control_plane.kubeconfig), "HOME": str(testbed.folder)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        problems = [done.stderr] if done.returncode else []
        problems += _gone(site, path) + _as_expected(shop.objects(), {})
        return f"kubectl delete -f, plan first {plan_first}: {problems}" if problems else ""


def _with_its_account(testbed: Testbed) -> str:
    """The account is gone: the finalizer comes off, and one event says what was not undone."""
    with _in_mid_traffic(testbed, "account") as (site, path):
        shop, then = site.shop, unclaimed(site.shop.objects())
        shop.api.delete(f"/api/v1/namespaces/{shop.namespace}/serviceaccounts/migrator")
        shop.api.delete(path)
        problems = _gone(site, path) + _as_expected(shop.objects(), then)
        problems += _told(shop, "Abandoned", "(AccountUnusable: ")
        return f"account gone: {problems}" if problems else ""


def _with_its_rights(testbed: Testbed) -> str:
    """Nobody may take the claims off; they are void, so the next plan takes them over and leaves none."""
    with _in_mid_traffic(testbed, "rights") as (site, path):
        shop, then = site.shop, unclaimed(site.shop.objects())
        binding = shop.take_rights()
        shop.api.delete(path)
        shop.until(lambda status: status.reason == "Denied")
        shop.request(RequestVerb.ABANDON)
        until("the plan is gone", lambda: shop.api.find(path) is None)
        problems = _no_snapshots(site) + _as_expected(unclaimed(shop.objects()), then)
        problems += _told(shop, "Abandoned", "abandoned on request")
        shop.api.apply(binding)
        shop.apply(f"steps:{DEPLOY}\n  - {{name: shift, traffic: {{{_PAIR}, weights: [100]}}}}", "next")
        if shop.until_ended("next").phase is not Phase.SUCCEEDED:
            problems.append(f"the next plan: {shop.status('next')}")
        problems += [f"left behind: {claim}" for claim in site.claims()]
        return f"rights gone: {problems}" if problems else ""


def _behind_another(testbed: Testbed) -> str:
    """It waits for a target that another plan has claimed, which notices nothing."""
    with testbed.site("busy", operators=0) as site:
        shop, other = site.shop, DwellingLong(site.shop)
        shop.apply(other.spec, "other")
        other.enter()
        then = shop.objects()
        path = shop.apply(f"steps:{DEPLOY}")
        shop.until(lambda status: status.reason == "TargetBusy")
        shop.api.delete(path)
        until("the plan is gone", lambda: shop.api.find(path) is None)
        problems = _as_expected(shop.objects(), then) + _told(shop, "", "")
        shop.request(RequestVerb.ABORT, name="other")
        if shop.until_ended("other").phase is not Phase.ROLLED_BACK:
            problems.append(f"the other plan: {shop.status('other')}")
        problems += [f"left behind: {claim}" for claim in site.claims()] + _no_snapshots(site)
        return f"behind another plan: {problems}" if problems else ""


_PAIR = "virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}"
TOGETHER: tuple[Callable[[Testbed], str], ...] = (
    _with_its_namespace,
    partial(_with_kubectl, plan_first=True),
    partial(_with_kubectl, plan_first=False),
    _with_its_account,
    _with_its_rights,
    _behind_another,
)


# --- the table --------------------------------------------------------------------------------------------------------


def _all(testbed: Testbed, cases: Sequence[Callable[[Testbed], str]]) -> None:
    plane = testbed.cluster.control_plane
    proxy = Proxy(plane.url, plane.ca)
    proxy.start()
    try:
        proxy.arm(Claiming.delays)
        with testbed.operator("deletion", proxy):
            wrong = [told for told in side_by_side([partial(case, testbed) for case in cases]) if told]
    finally:
        proxy.stop()
    print(f"{len(cases)} deletions, {len(wrong)} went wrong")  # noqa: T201 -- the table
    assert wrong == [], f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong)


def test_deleted_in_each_phase(testbed: Testbed) -> None:
    chosen = random.Random(SEED)  # noqa: S311 -- repeatable on purpose
    rows = [partial(_deleted, row=row, propagation=chosen.choice(PROPAGATIONS)) for row in ROWS]
    _all(testbed, [*rows, *TOGETHER])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_deleted_in_each_phase_in_each_way(testbed: Testbed) -> None:
    every = itertools.product(ROWS, PROPAGATIONS)
    _all(testbed, [partial(_deleted, row=row, propagation=propagation) for row, propagation in every])
