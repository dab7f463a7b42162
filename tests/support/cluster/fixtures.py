"""One operator for all cluster tests of a session, a real Prometheus with a gauge that tests set, a shop per test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from harness.api import Api
from harness.cluster import Cluster
from harness.kind import AnyCluster, OnKind
from support.cluster.checkout import ROUTE_KINDS, Checkout, RouteKind
from support.cluster.shop import AnyOperator, Operator, Shop
from support.cluster.testbed import Baseline, Testbed, side_by_side
from support.fakes.http_server import HttpServer, RequestHandler
from support.plans.on_cluster import STORIES


class Gauges(HttpServer):
    """A server of metrics for Prometheus to scrape; tests set its lines."""

    def __init__(self) -> None:
        self.lines: dict[str, float] = {}
        gauges = self

        class Handler(RequestHandler):
            def do_GET(self) -> None:
                body = "".join(f"{name} {value}\n" for name, value in dict(gauges.lines).items()).encode()
                self.reply(body, Content_Type="text/plain; version=0.0.4")

        super().__init__(Handler)
        self.address = f"127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def gauges(cluster: AnyCluster) -> Iterator[Gauges]:
    made = Gauges()
    cluster.prometheus.scrape("gauges", made.address)
    cluster.prometheus.wait_up("gauges", 1)
    yield made
    made.close()


@pytest.fixture(scope="session")
def operator(cluster: AnyCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyOperator]:
    """Runs through the whole session; a test that kills it starts it again. On kind it is what the chart installed."""
    if isinstance(cluster, OnKind):
        yield cluster.operator
        return
    folder, providers = tmp_path_factory.mktemp("operator"), cluster.prometheus.providers
    made = Operator(cluster, folder, providers, lease={"namespace": "cutover-system"})
    made.start()
    yield made
    made.stop()


@pytest.fixture
def shop(api: Api, namespace: str, operator: AnyOperator) -> Shop:
    if not operator.alive:
        operator.start()
    made = Shop(api, namespace)
    made.create()
    return made


@pytest.fixture(params=ROUTE_KINDS, ids=lambda kind: kind.field)
def route_kind(request: pytest.FixtureRequest) -> RouteKind:
    """Each kind of object that splits requests; a test of one kind alone parametrizes this fixture indirectly."""
    kind: RouteKind = request.param
    return kind


@pytest.fixture
def checkout(shop: Shop, cluster: Cluster, route_kind: RouteKind) -> Iterator[Checkout]:
    """Two versions of a checkout behind the gateway."""
    made = Checkout(shop, cluster, route_kind)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def testbed(cluster: Cluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """Where shops with operators of their own are put up. The session's operator sees all namespaces, so it is stopped first."""
    operator.stop()
    made = Testbed(cluster, tmp_path_factory.mktemp("testbed"))
    yield made
    made.observer.stop()


@pytest.fixture(scope="module")
def baseline(testbed: Testbed) -> dict[str, Baseline]:
    """Every story as it goes when nothing happens to it."""
    found = side_by_side([partial(testbed.baseline, story) for story in STORIES])
    return {story.name: one for story, one in zip(STORIES, found, strict=True)}
