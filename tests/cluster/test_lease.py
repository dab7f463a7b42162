"""Two operator processes and one Lease on the real API server: which of them works, and what becomes of a plan when that changes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.api import Api
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import DEPLOY, SHIFT, Operator, Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("kills, pauses or starts operators that are processes")]

DURATION = 4.0
TERMS = {"duration": "4s", "renewDeadline": "3s", "renewEvery": "1s", "retryEvery": "500ms"}
PATH = "/apis/coordination.k8s.io/v1/namespaces/cutover-system/leases/cutover"
SLOW = f"{SHIFT}      dwell: 1s\n"


class Pair:
    """Two processes that share a Lease."""

    def __init__(self, api: Api, both: list[Operator]) -> None:
        self.api, self.both = api, both

    @property
    def holder(self) -> str:
        found: dict[str, Any] = self.api.find(PATH) or {"spec": {}}
        return str(found["spec"].get("holderIdentity", ""))

    def roles(self) -> tuple[Operator, Operator]:
        """The one that works and the one that stands by."""
        works = until("one of them holds the Lease", self._working)
        return works, next(each for each in self.both if each is not works)

    def _working(self) -> Operator | None:
        return next((each for each in self.both if each.alive and each.name == self.holder), None)

    def until_held_by(self, one: Operator) -> None:
        until(f"{one.name} holds the Lease", lambda: self.holder == one.name, process=one.process)

    def handed_over(self, number: signal.Signals) -> list[str]:
        """Send a signal to the one that works; who held the Lease from then on, until the other does. "" is nobody."""
        works, waits = self.roles()
        version = self.api.get(PATH)["metadata"]["resourceVersion"]
        works.process.signal(number)
        held = [works.name]
        collection = PATH.rpartition("/")[0]
        for _, body in self.api.watch(collection, seconds=30, version=version, fields="metadata.name=cutover"):
            holder = body["spec"]["holderIdentity"]
            held += [holder] if holder != held[-1] else []
            if holder == waits.name:
                return held
        raise AssertionError(f"{waits.name} did not take the Lease over; it was held by {held}")


@pytest.fixture
def pair(cluster: Cluster, operator: Operator, tmp_path: Path) -> Iterator[Pair]:
    """In the place of the session's operator."""
    operator.stop()
    lease = {"namespace": "cutover-system", **TERMS}
    both = [Operator(cluster, tmp_path, {}, lease, name) for name in ("one", "two")]
    for each in both:
        each.start()
    try:
        for each in both:
            until(f"{each.name} is ready", each.ready, process=each.process)
        yield Pair(cluster.api, both)
    finally:
        for each in both:
            each.process.signal(signal.SIGCONT)
            each.stop()
        operator.start()


@pytest.fixture
def shop(api: Api, namespace: str, pair: Pair) -> Shop:
    assert pair.both
    made = Shop(api, namespace)
    made.create()
    return made


def samples(one: Operator) -> dict[str, float]:
    """What its /metrics says: values by name and labels, watches left out."""
    families = text_string_to_metric_families(one.ask("/metrics"))
    found = {f"{s.name}{sorted(s.labels.items())}": s.value for family in families for s in family.samples}
    return {name: value for name, value in found.items() if name.startswith("cutover") and "'watch'" not in name}


def middle(shop: Shop) -> None:
    """A plan in the middle of its shift."""
    shop.apply(f"steps:{DEPLOY}{SLOW}")
    shop.until(lambda status: status.current is not None and status.current.weight == 25)


def test_one_works_and_the_other_stands_by_ready(pair: Pair, shop: Shop) -> None:
    works, waits = pair.roles()
    before = samples(waits)
    shop.apply(f"steps:{DEPLOY}{SHIFT}")
    shop.until_phase(Phase.SUCCEEDED)
    assert waits.ready()
    assert samples(waits) == before, "a standby asks for nothing"
    assert before["cutover_lease_held[]"] == 0
    assert before["cutover_turn_duration_seconds_count[]"] == 0
    told = "cutover_transitions_total[('reason', 'Succeeded')]"
    until("it has told of the end, which it does after it has saved it", lambda: samples(works).get(told))
    seen = samples(works)
    assert seen["cutover_lease_held[]"] == 1
    assert seen["cutover_turn_duration_seconds_count[]"] > 0
    assert seen["cutover_plans[('phase', 'Succeeded')]"] >= 1
    assert seen[told] == 1
    routes = "virtualservices.networking.istio.io"
    writes = seen[f"cutover_target_writes_total[('code', '200'), ('resource', '{routes}')]"]
    assert (
        writes == seen[f"cutover_api_requests_total[('code', '200'), ('resource', '{routes}'), ('verb', 'patch')]"] >= 4
    )
    assert not any(shop.namespace in name for name in seen)


def test_killed_in_the_middle(pair: Pair, shop: Shop) -> None:
    works, waits = pair.roles()
    middle(shop)
    assert pair.handed_over(signal.SIGKILL) == [works.name, waits.name], "it had to expire"
    works.kill()  # it is dead already; this takes note of it
    shop.until_ended()
    assert shop.status().phase is Phase.SUCCEEDED
    assert shop.weights() == [0, 100]
    works.start()
    until("it is back", works.ready, process=works.process)
    until("it stands by", lambda: "standing by" in works.process.tail(1), process=works.process)
    assert pair.holder == waits.name


def test_told_to_end_in_the_middle(pair: Pair, shop: Shop) -> None:
    """It gives the Lease up, and nobody has to wait until it has expired."""
    works, waits = pair.roles()
    middle(shop)
    begun = time.monotonic()
    assert pair.handed_over(signal.SIGTERM) == [works.name, "", waits.name]
    assert time.monotonic() - begun < DURATION
    until("it has ended", lambda: not works.alive)
    assert works.process.exit_code == 0
    shop.until_ended()
    assert shop.status().phase is Phase.SUCCEEDED
    assert shop.weights() == [0, 100]


def test_paused_in_the_middle_and_woken_too_late(pair: Pair, shop: Shop) -> None:
    """What it still wants to write when it wakes takes no effect, and it ends by itself."""
    works, waits = pair.roles()
    before = shop.objects()
    middle(shop)
    works.process.signal(signal.SIGSTOP)
    pair.until_held_by(waits)
    shop.request(RequestVerb.ABORT)
    shop.until_ended()
    assert shop.status().phase is Phase.ROLLED_BACK
    assert shop.objects() == before
    works.process.signal(signal.SIGCONT)
    until("it has ended", lambda: not works.alive)
    assert works.process.exit_code == 1
    assert f"lost Lease cutover: it belongs to {waits.name} now" in works.process.tail()
    assert shop.objects() == before
    assert shop.status().phase is Phase.ROLLED_BACK
    assert shop.leftovers() == []
    assert pair.holder == waits.name


@pytest.fixture
def outage(cluster: Cluster, namespace: str) -> Iterator[Callable[[], None]]:
    """Ends the API server; the test starts it again. Leaves nothing that still waits before its next try."""
    yield cluster.control_plane.stop_api
    if not cluster.control_plane.processes["kube-apiserver"].alive:
        cluster.control_plane.start_api()
    path = f"/api/v1/namespaces/{namespace}-after"
    cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{namespace}-after"}})
    until("the controllers are back", lambda: cluster.api.find(f"{path}/serviceaccounts/default"), deadline=120)
    cluster.api.delete(path)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "away",
    # The first is over before the Lease is, the last is longer than the liveness probe's patience.
    [
        pytest.param(0.5, id="shorter", marks=pytest.mark.long),
        pytest.param(2.0, id="longer"),
        pytest.param(40.0, id="long", marks=pytest.mark.long),
    ],
)
def test_the_api_server_is_away(
    cluster: Cluster, pair: Pair, shop: Shop, outage: Callable[[], None], away: float
) -> None:
    """Nobody can take it in that time: the holder goes on, and none is restarted."""
    works, waits = pair.roles()
    pids = [each.process.pid for each in pair.both]
    middle(shop)
    outage()
    if away >= 1:
        until("it is not sure of its Lease", lambda: samples(works)["cutover_lease_held[]"] == 0)
    turns = samples(works)["cutover_turn_duration_seconds_count[]"]
    time.sleep(away * DURATION)  # how long it is away is the point of the test
    alive = [each.ask("/livez") for each in pair.both]
    later = samples(works)["cutover_turn_duration_seconds_count[]"]
    cluster.control_plane.start_api()
    assert alive == ["ok\n", "ok\n"]
    assert away < 1 or later == turns, "no turn begins while the Lease is not surely its own"
    shop.until_ended()
    assert shop.status().phase is Phase.SUCCEEDED
    assert pair.holder == works.name
    assert waits.ready()
    assert [each.process.pid for each in pair.both if each.alive] == pids
