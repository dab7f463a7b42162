"""An operator that is newer than its CRD, on the real API server: what it says, what it does not begin, and that it still stops at once.

Helm never upgrades a CRD, so this is what an upgrade by Helm alone leaves.
"""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness import tools
from harness.cluster import ROOT
from harness.control_plane import install
from harness.process import free_ports, until
from support.cluster.fixtures import Gauges
from support.cluster.forked_operator import ForkedOperator
from support.cluster.shop import DEPLOY, SHIFT, Shop
from support.cluster.testbed import Testbed
from support.fakes.older_crd import older

pytestmark = [pytest.mark.cluster, pytest.mark.local("replaces the CRD, and starts operators that are processes")]

ESSENTIAL, HARMLESS = "status.steps[].made", "status.tally"
LONG = f"""
guards: [{{name: budget, interval: 5s, prometheus: {{query: GAUGE}}, pass: {{max: "0.5"}}}}]
steps:{DEPLOY}{SHIFT}      dwell: 10m
"""
UPGRADE = "kubectl apply --server-side --force-conflicts -f crds/migrationplans.yaml"
FAR_FROM = 40
"""Times as long. Taken for somebody else's, a save made a plan stand still for 15 s, which was some 400 times as long."""


class _Operator:
    """An operator that may not be ready."""

    def __init__(self, process: ForkedOperator, port: int) -> None:
        self.process, self._port = process, port

    def readyz(self) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def until_says(self, code: int, *words: str) -> None:
        def says() -> bool:
            status, text = self.readyz()
            return status == code and all(word in text for word in words)

        until(f"/readyz says {code} and {words}", says, process=self.process)


@contextmanager
def _operator(testbed: Testbed, name: str) -> Iterator[_Operator]:
    (port,) = free_ports(1)
    kubeconfig = testbed.cluster.control_plane.kubeconfig_for(name, testbed.token)
    arguments = ["--settings", str(testbed.settings), "--port", str(port)]
    process = ForkedOperator(arguments, kubeconfig, testbed.folder / f"{name}.log")
    process.start()
    try:
        yield _Operator(process, port)
    finally:
        process.kill()


def _upgrade(testbed: Testbed) -> None:
    """By the very command that the messages name, over a CRD that another manager has applied."""
    _, *arguments = UPGRADE.split()
    env = {**os.environ, "KUBECONFIG": str(testbed.cluster.control_plane.kubeconfig)}
    subprocess.run([str(tools.locate("kubectl")), *arguments], cwd=ROOT, env=env, check=True, timeout=60)


@pytest.fixture
def newest(testbed: Testbed) -> Iterator[None]:
    """Afterwards the CRD is complete again."""
    yield
    install(testbed.api, older())


def _at_weight_10(shop: Shop, gauges: Gauges) -> None:
    gauge = f'budget{{ns="{shop.namespace}"}}'
    gauges.lines[gauge] = 0.1
    shop.apply(LONG.replace("GAUGE", f"'{gauge}'"))
    shop.until(lambda status: status.current is not None and status.current.weight == 10)
    until("it has 10 percent", lambda: shop.weights() == [90, 10])


def _aborted(shop: Shop) -> float:
    """Seconds until all traffic is back."""
    begun = time.monotonic()
    shop.request(RequestVerb.ABORT)
    until("all traffic is back", lambda: shop.weights() == [100, 0])
    taken = time.monotonic() - begun
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    return taken


@pytest.mark.usefixtures("newest")
def test_something_essential_is_dropped(testbed: Testbed, gauges: Gauges) -> None:
    """No run begins, one that is under way is paused and can be aborted at once; after the upgrade all continue by themselves."""
    with (
        testbed.site("full", operators=0) as full,
        testbed.site("aborted", operators=0) as aborted,
        testbed.site("continues", operators=0) as continues,
        testbed.site("waits", operators=0) as waits,
    ):
        with _operator(testbed, "former"):
            for site in (full, aborted, continues):
                _at_weight_10(site.shop, gauges)
            usual = _aborted(full.shop)
        install(testbed.api, older(ESSENTIAL))
        with _operator(testbed, "newer") as operator:
            operator.until_says(503, ESSENTIAL, UPGRADE)
            untouched = waits.shop.objects()
            waits.shop.apply(f"startDeadline: 1s\nsteps:{DEPLOY}")
            for site, phase in ((aborted, Phase.PAUSED), (continues, Phase.PAUSED), (waits, Phase.PENDING)):
                status = site.shop.until(lambda status: status.reason == "OutdatedCRD")
                assert status.phase is phase
                assert ESSENTIAL in status.message
                assert UPGRADE in status.message
                (shown,) = [one for one in status.conditions if one.type == "OutdatedCRD"]
                assert ESSENTIAL in shown.message
            assert ESSENTIAL in operator.process.tail(1000)
            assert _aborted(aborted.shop) < FAR_FROM * usual
            assert aborted.end().differs_from(aborted.end()) == []
            assert waits.shop.objects() == untouched
            _upgrade(testbed)
            continues.shop.until_phase(Phase.RUNNING)
            assert waits.shop.until_ended().phase is Phase.SUCCEEDED
            operator.until_says(200, "ok")
            assert "OutdatedCRD" not in str(waits.shop.status().conditions)
            continues.shop.request(RequestVerb.ABORT)
            assert continues.shop.until_ended().phase is Phase.ROLLED_BACK


@pytest.mark.usefixtures("newest")
def test_something_harmless_is_dropped(testbed: Testbed, gauges: Gauges) -> None:
    """Plans begin, and stop at once on request and on a guard: what was dropped was not written by somebody else."""
    with (
        testbed.site("full", operators=0) as full,
        testbed.site("aborted", operators=0) as aborted,
        testbed.site("guarded", operators=0) as guarded,
    ):
        with _operator(testbed, "first"):
            _at_weight_10(full.shop, gauges)
            usual = _aborted(full.shop)
        install(testbed.api, older(HARMLESS))
        with _operator(testbed, "newer") as operator:
            operator.until_says(200, "ok", HARMLESS, UPGRADE)
            for site in (aborted, guarded):
                _at_weight_10(site.shop, gauges)
            assert _aborted(aborted.shop) < FAR_FROM * usual
            gauges.lines[f'budget{{ns="{guarded.shop.namespace}"}}'] = 0.9
            status = guarded.shop.until_ended()
            assert status.failure is not None
            assert (status.phase, status.failure.reason) == (Phase.ROLLED_BACK, "GuardFailed")
            assert HARMLESS in operator.process.tail(1000)
