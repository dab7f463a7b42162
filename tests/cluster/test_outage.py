"""The API server is away for a while, with a plan in each phase: right soon after it is back, by the same process, alive all the while."""

from __future__ import annotations

import threading
import time
import urllib.request
from contextlib import ExitStack
from typing import Self

import pytest
import yaml

from cutover.status.status import Phase
from harness.proxy import Proxy
from support.cluster.testbed import Testbed, side_by_side
from support.faults import phases
from support.faults.phases import (
    Dwelling,
    Paused,
    Pending,
    Reclaiming,
    Releasing,
    RolledBack,
    RollingBack,
    RollingOut,
    Stuck,
    SuccessRolledBack,
    Waiting,
)

pytestmark = [pytest.mark.cluster, pytest.mark.local("takes the API server away")]
SOON = 30.0
"""Seconds after the API server is back within which a plan has come to its end."""


class Claiming(phases.Claiming):
    """One that then comes to its end soon."""

    spec = Dwelling.spec


CASES = (
    SuccessRolledBack,
    RolledBack,
    Stuck,
    Pending,
    Waiting,
    Paused,
    RollingBack,
    Reclaiming,
    Releasing,
    Claiming,
    RollingOut,
    Dwelling,
)
"""In this order they are brought into their phases: the last must not be over before the outage begins."""


class _Probe:
    """A kubelet's liveness probe."""

    def __init__(self, port: int) -> None:
        self._url, self.failed, self.count = f"http://127.0.0.1:{port}/livez", list[str](), 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(0.5):
            self.count += 1
            try:
                with urllib.request.urlopen(self._url, timeout=5):
                    pass
            except OSError as error:
                self.failed.append(str(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()


def _is_carried_out(case: phases.Case) -> None:
    """What the steps ask for is there."""
    for step in yaml.safe_load(case.spec)["steps"]:
        if asked := step.get("deploy"):
            spec = case.shop.api.get(f"{case.shop.deployments}/{asked['workload']['name']}")["spec"]
            images = [container["image"] for container in spec["template"]["spec"]["containers"]]
            assert images == [one["image"] for one in asked["images"]], f"{case}: {step}"
            assert spec["replicas"] == asked["replicas"], f"{case}: {step}"
        if asked := step.get("traffic"):
            assert case.shop.weights()[1] == asked["weights"][-1], f"{case}: {step}"


def _outage(testbed: Testbed, seconds: float) -> None:
    plane = testbed.cluster.control_plane
    proxy = Proxy(plane.url, plane.ca)
    proxy.start()
    proxy.arm(Claiming.delays)
    with ExitStack() as stack:
        stack.callback(proxy.stop)
        process, port = stack.enter_context(testbed.operator("outage", proxy))
        probe, pid = stack.enter_context(_Probe(port)), process.pid
        sites = [stack.enter_context(testbed.site(kind.__name__.lower(), operators=0)) for kind in CASES]
        cases = [kind(site.shop) for kind, site in zip(CASES, sites, strict=True)]
        for case in cases:
            case.prepare()
            case.shop.apply(case.spec)
            case.enter()
        before = [case.shop.status().phase for case in cases]
        plane.stop_api(kill=True)
        try:
            time.sleep(seconds)  # how long it is away is the point of the test
        finally:
            plane.start_api()
        assert [case.shop.status().phase for case in cases] == before, "nothing went on without it"
        side_by_side([case.free for case in cases], len(cases))
        ends = side_by_side([lambda case=case: case.shop.until_ended(deadline=SOON) for case in cases], len(cases))  # type: ignore[misc]
        assert [status.phase for status in ends] == [case.end for case in cases]
        for site, case in zip(sites, cases, strict=True):
            end = site.end().without_owners() if case.edited else site.end()
            assert end.differs_from(end) == [], f"{case}"
            if case.end is Phase.SUCCEEDED:
                _is_carried_out(case)
        assert probe.failed == []
        assert probe.count >= seconds
        assert process.alive
        assert process.pid == pid


@pytest.mark.parametrize(
    "seconds", [5, pytest.param(60, marks=pytest.mark.long), pytest.param(300, marks=pytest.mark.long)]
)
@pytest.mark.timeout(900)
def test_away_in_each_phase(testbed: Testbed, seconds: float) -> None:
    _outage(testbed, seconds)
