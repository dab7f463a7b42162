"""The API server is away for a while, with a plan in each phase: right soon after it is back, by the same process, alive all the while."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import pytest

from cutover.requests import RequestVerb
from cutover.status import Phase
from harness.kwok import BEHAVIOUR
from harness.process import free_ports, until
from support.forked import ForkedOperator
from support.real import DEPLOY, Shop
from support.site import Yard, side_by_side

pytestmark = [pytest.mark.cluster, pytest.mark.local("takes the API server away")]
SOON = 30.0
"""Seconds after the API server is back within which a plan has come to its end."""


_OK = "\n  - {name: ok, approve: {message: go}}\n"
_PAIR = "virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}"
_OLD = '\n  - {name: old, deploy: {workload: {name: shop-v1}, images: [{container: app, image: "shop:1b"}]}}'


class Case:
    """A plan that is in one phase when the API server goes away: how it gets there, and what sets it free afterwards."""

    spec: ClassVar[str]
    end: ClassVar[Phase] = Phase.SUCCEEDED

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def prepare(self) -> None:
        """What the shop is like before the plan is applied."""

    def enter(self) -> None:
        """Bring the plan into its phase."""

    def free(self) -> None:
        """Let it go on, once the API server is back."""

    def behave(self, name: str, behaviour: str | None) -> None:
        template = {"metadata": {"annotations": {BEHAVIOUR: behaviour}}}
        self.shop.api.patch(f"{self.shop.deployments}/{name}", {"spec": {"template": template}})


class Pending(Case):
    """The account is not released for migrations."""

    spec = f"startDeadline: 1h\nsteps:{DEPLOY}"

    def _label(self, value: str | None) -> None:
        account = f"/api/v1/namespaces/{self.shop.namespace}/serviceaccounts/migrator"
        self.shop.api.patch(account, {"metadata": {"labels": {"cutover.dev/migrator": value}}})

    def prepare(self) -> None:
        self._label(None)

    def enter(self) -> None:
        self.shop.until(lambda status: status.phase is Phase.PENDING and "not released" in status.message)

    def free(self) -> None:
        self._label("true")


class Waiting(Case):
    """For a person."""

    spec = f"steps:{DEPLOY}{_OK}"

    def enter(self) -> None:
        self.shop.until_phase(Phase.WAITING)

    def free(self) -> None:
        self.shop.request(RequestVerb.APPROVE, "ok")


class Held(Waiting):
    """By a person."""

    def enter(self) -> None:
        super().enter()
        self.shop.request(RequestVerb.HOLD)
        self.shop.until_phase(Phase.HELD)

    def free(self) -> None:
        self.shop.request(RequestVerb.RESUME)
        self.shop.until_phase(Phase.WAITING)
        super().free()


class Unwinding(Waiting):
    """The undo waits for pods of the old image that never get ready."""

    spec = f"steps:{_OLD}{_OK}"
    end = Phase.ROLLED_BACK

    def enter(self) -> None:
        super().enter()
        self.behave("shop-v1", "never-ready")
        self.shop.request(RequestVerb.ABORT)
        self.shop.until_phase(Phase.UNWINDING)

    def free(self) -> None:
        self.behave("shop-v1", None)


class RollingOut(Case):
    """Running, in a deploy whose pods do not get ready."""

    spec = f"steps:{DEPLOY}"

    def prepare(self) -> None:
        self.behave("shop-v2", "never-ready")

    def enter(self) -> None:
        self.shop.until(lambda status: status.current is not None and status.current.ready == "0/3")

    def free(self) -> None:
        self.behave("shop-v2", None)


class Dwelling(Case):
    """Running, at a weight; by itself it goes on."""

    spec = f"steps:{DEPLOY}\n  - {{name: shift, traffic: {{{_PAIR}, weights: [10, 100], dwell: 8s}}}}"

    def enter(self) -> None:
        until("weight 10 is written", lambda: self.shop.weights() == [90, 10])


CASES = (Pending, Waiting, Held, Unwinding, RollingOut, Dwelling)
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

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()


@contextmanager
def _operator(yard: Yard) -> Iterator[tuple[ForkedOperator, _Probe]]:
    """One operator for all namespaces, straight at the API server, and its probe."""
    port = free_ports(1)[0]
    kubeconfig = yard.cluster.control_plane.kubeconfig_for("outage", yard.token)
    arguments = ["--settings", str(yard.settings), "--port", str(port)]
    process = ForkedOperator(arguments, kubeconfig, yard.folder / "outage.log")
    process.start()

    def ready() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)

    until("the operator is ready", ready)
    probe = _Probe(port)
    try:
        yield process, probe
    finally:
        probe.stop()
        process.kill()


def _outage(yard: Yard, seconds: float) -> None:
    plane = yard.cluster.control_plane
    with ExitStack() as stack:
        process, probe = stack.enter_context(_operator(yard))
        pid = process.pid
        sites = [stack.enter_context(yard.site(kind.__name__.lower(), operators=0)) for kind in CASES]
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
        for site in sites:
            assert site.end().differs_from(site.end()) == []
        assert probe.failed == []
        assert probe.count >= seconds
        assert process.alive
        assert process.pid == pid


@pytest.mark.parametrize(
    "seconds", [5, pytest.param(60, marks=pytest.mark.long), pytest.param(300, marks=pytest.mark.long)]
)
@pytest.mark.timeout(900)
def test_away_in_each_phase(yard: Yard, seconds: float) -> None:
    _outage(yard, seconds)
