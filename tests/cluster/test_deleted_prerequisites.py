"""What a running plan rests on vanishes in mid-traffic: its account, its rights, its spec. It stops, says so, and goes on by itself.

What is not streamed is read again each minute, and on every event of a target: such an event is made here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.cluster import ROOT
from harness.control_plane import install, load
from harness.process import until
from support.cluster.shop import Shop
from support.cluster.testbed import Site, Testbed, side_by_side
from support.faults.phases import DwellingLong, Paused, RollingBack

pytestmark = [pytest.mark.cluster, pytest.mark.local("kills, pauses or starts operators that are processes")]
CRD = ROOT / "crds" / "migrationplans.yaml"


def _nudge(shop: Shop) -> None:
    """An event of a target that changes nothing in the end."""
    for value in ("1", None):
        shop.api.patch(f"{shop.deployments}/shop-v2", {"metadata": {"annotations": {"nudge": value}}})


def _stuck_then_healed(testbed: Testbed, take: Callable[[Shop], dict[str, Any]], reason: str, says: str) -> str:
    """What is missing is found missing by the undo; when it is back everything is taken back."""
    with testbed.site("vanished", operators=0) as site:
        shop, case = site.shop, DwellingLong(site.shop)
        shop.apply(case.spec)
        case.enter()
        kept = take(shop)
        shop.request(RequestVerb.ABORT)
        status = shop.until_phase(Phase.STUCK)
        assert (status.reason, says in status.message) == (reason, True), status
        assert shop.weights() == [90, 10]
        shop.api.apply(kept)
        _nudge(shop)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        return "; ".join(site.end().differs_from(site.end()))


def _account(shop: Shop) -> dict[str, Any]:
    shop.api.delete(f"/api/v1/namespaces/{shop.namespace}/serviceaccounts/migrator")
    return next(body for body in shop.manifests(2) if body["kind"] == "ServiceAccount")


def _rights_on_the_way(testbed: Testbed) -> str:
    """The next write is refused: that fails the step, and the rollback is Stuck until the rights are there again."""
    with testbed.site("revoked", operators=0) as site:
        shop, case = site.shop, Paused(site.shop)
        shop.apply(case.spec.replace("{name: ok, approve: {message: go}}", _APPROVE_AND_SCALE))
        case.enter()
        binding = shop.take_rights()
        case.free()
        status = shop.until_phase(Phase.STUCK)
        assert status.failure is not None
        assert (status.failure.reason, status.reason) == ("Denied", "Denied"), status
        shop.api.apply(binding)
        _nudge(shop)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        return "; ".join(site.end().differs_from(site.end()))


_APPROVE_AND_SCALE = """{name: ok, approve: {message: go}}
  - {name: scale, deploy: {workload: {name: shop-v2}, replicas: 1}}"""


def test_account_and_permissions(testbed: Testbed) -> None:
    cases: list[Callable[[], str]] = [
        partial(_stuck_then_healed, testbed, _account, "AccountUnusable", "there is no ServiceAccount migrator"),
        partial(_stuck_then_healed, testbed, Shop.take_rights, "Denied", "is not allowed to patch"),
        partial(_rights_on_the_way, testbed),
    ]
    with testbed.operator("vanishes"):
        assert side_by_side(cases) == ["", "", ""]


def _upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """The CRD of a later version: a field that this operator does not know, with a default."""
    changed = copy.deepcopy(manifest)
    for version in changed["spec"]["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["properties"]["pace"] = {"type": "string", "default": "gentle", "maxLength": 32}
    return changed


def test_the_crd_is_upgraded_first(testbed: Testbed) -> None:
    """Forward it is Paused, backward Stuck, and nothing is undone; with the CRD as it was both go on by themselves.

    One that is deleted in that time is not gone before that, as its undo needs the spec; then it is rolled back.
    """
    (manifest,) = load(CRD)
    with (
        testbed.site("forward", operators=0) as going,
        testbed.site("backward", operators=0) as coming,
        testbed.site("deleted", operators=0) as leaving,
    ):
        there, back, deleted = DwellingLong(going.shop), RollingBack(coming.shop), DwellingLong(leaving.shop)
        before = leaving.shop.objects()
        with testbed.operator("before"):
            for case in (there, back, deleted):
                case.shop.apply(case.spec)
                case.enter()
        try:
            install(testbed.api, _upgraded(manifest))
            until("the field is there", lambda: _pace(going) and _pace(coming) and _pace(leaving))
            with testbed.operator("upgraded"):
                there.shop.until_phase(Phase.PAUSED)
                back.shop.until_phase(Phase.STUCK)
                for case in (there, back):
                    status = case.shop.status()
                    assert status.reason == "UnreadableSpec", status
                    assert "pace" in status.message
                assert there.shop.weights() == [90, 10]
                deleted.shop.until_phase(Phase.PAUSED)
                path = f"{deleted.shop.plans}/plan"
                deleted.shop.api.delete(path)
                deleted.shop.until(lambda status: status.reason == "UnreadableSpec")
                back.free()
                install(testbed.api, manifest)
                until("the field is gone", lambda: not _pace(going) and not _pace(coming))
                assert deleted.shop.weights() == [90, 10], "nothing was undone"
                _nudge(there.shop)
                _nudge(deleted.shop)
                until("the deleted plan is gone", lambda: deleted.shop.api.find(path) is None)
                assert deleted.shop.objects() == before
                assert [*leaving.claims(), *leaving.snapshots()] == []
                there.shop.until_phase(Phase.RUNNING)
                there.shop.request(RequestVerb.ABORT)
                for site in (going, coming):
                    assert site.shop.until_ended().phase is Phase.ROLLED_BACK
                    assert site.end().differs_from(site.end()) == []
        finally:
            install(testbed.api, manifest)


def _pace(site: Site) -> bool:
    return "pace" in site.shop.api.get(f"{site.shop.plans}/plan")["spec"]
