"""pytest's way to the local cluster: ``--cluster``, and fixtures that tests ask for by name."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.api import Api
from harness.cluster import Cluster
from harness.state import attach, read_state

_NOT_YET = "--cluster={} is not there yet; use local, or current with a cluster that `make cluster` left running"
_NOT_UP = "--cluster=current uses the cluster that `make cluster` left running, and none is up"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cutover")
    group.addoption(
        "--cluster",
        default="local",
        choices=["local", "current", "kind", "node"],
        help="where cluster tests run: local (started here), current (the one that `make cluster` left running), kind and node (not yet)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long campaigns run only when they are asked for by a mark expression of one's own."""
    if config.option.markexpr or "-m" in config.invocation_params.args:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """All of the local cluster, started once for the session (with xdist: once a worker)."""
    way = request.config.getoption("--cluster")
    if way == "current":
        state = read_state()
        if state is None:
            pytest.fail(_NOT_UP)
        yield attach(state)
        return
    if way != "local":
        pytest.fail(_NOT_YET.format(way))
    made = Cluster(tmp_path_factory.mktemp("cluster"), report=_quiet)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Api:
    """A client with all rights."""
    return cluster.api


def _quiet(_: str) -> None:
    """A test run says nothing while it starts."""


@pytest.fixture
def namespace(api: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace, gone after the test."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "main")
    name = f"test-{worker}-{secrets.token_hex(3)}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    deadline = time.monotonic() + 10
    while api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default") is None:
        assert time.monotonic() < deadline, f"namespace {name} got no default account"
        time.sleep(0.01)
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def wait_for(api: Api) -> Callable[..., Any]:
    """Wait on the watch until one object is as it should be."""

    def wait(path: str, reached: Callable[[Any], bool], deadline: float = 30.0) -> Any:
        collection, _, name = path.rpartition("/")
        end = time.monotonic() + deadline
        body: Any = None
        while (left := end - time.monotonic()) > 0:
            for kind, seen in api.watch(collection, seconds=left, fields=f"metadata.name={name}"):
                body = seen
                if kind != "DELETED" and reached(body):
                    return body
        raise AssertionError(f"{path} did not get there within {deadline:g}s; it is {body}")

    return wait
