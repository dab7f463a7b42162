"""pytest's way to a cluster: ``--cluster``, what of the tests runs there, and fixtures that they ask for by name."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import tools
from harness.api import Api
from harness.cluster import Cluster
from harness.kind import AnyCluster, OnKind, build_image, require_docker
from harness.process import PATIENCE
from harness.state import InUse, attach, exclusively, read_state

_NOT_YET = "--cluster={} is not there yet; use local, kind, or current with a cluster that `make cluster` left running"
_UNMARKED = (
    "these ask for a Cluster or an Operator, which only the local cluster has; mark them local, or ask for any: {}"
)
_LOCAL = {"cluster": "Cluster", "operator": "Operator"}
"""Parameters of tests and fixtures, and how they are annotated where nothing but the local one will do."""
_STAYED_AWAY = pytest.StashKey[Counter[str]]()
_ONE_OPERATOR = "--cluster={} is one cluster with one operator, so its tests run one after the other: leave -n out"
_NOT_UP = "--cluster=current uses the cluster that `make cluster` left running, and none is up"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cutover")
    group.addoption(
        "--cluster",
        default="local",
        choices=["local", "current", "kind", "node"],
        help="where cluster tests run: local (started here), current (the one that `make cluster` left running), "
        "kind (in Docker, by pytest-kind, whose options are below), node (not yet)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is made."""
    way = config.option.cluster
    if way != "local" and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError(_ONE_OPERATOR.format(way))
    if config.option.cluster == "kind" and not config.option.collectonly:
        try:
            require_docker()
        except tools.ToolMissing as error:
            raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long campaigns run only when they are asked for by a mark expression of one's own; on kind runs what can."""
    if not config.option.markexpr and "-m" not in config.invocation_params.args:
        _deselect(config, items, [item for item in items if item.get_closest_marker("long")])
    for item in items if PATIENCE != 1 else ():
        limit = item.get_closest_marker("timeout")
        seconds = float(limit.args[0] if limit else config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * PATIENCE), append=False)
    if config.option.cluster == "kind":
        marked = [(item, mark) for item in items if (mark := item.get_closest_marker("local"))]
        config.stash[_STAYED_AWAY] = Counter(mark.args[0] for _, mark in marked)
        _deselect(config, items, [item for item, _ in marked])
        if unmarked := [item.nodeid for item in items if _asks_for_local(item)]:
            raise pytest.UsageError(_UNMARKED.format(", ".join(unmarked)))


def _deselect(config: pytest.Config, items: list[pytest.Item], away: list[pytest.Item]) -> None:
    if away:
        config.hook.pytest_deselected(items=away)
        items[:] = [item for item in items if item not in away]


def _asks_for_local(item: pytest.Item) -> bool:
    """Whether the test, or a fixture it uses, wants what kind has not."""
    assert isinstance(item, pytest.Function)
    functions = [item.function, *(found[-1].func for found in item._fixtureinfo.name2fixturedefs.values())]
    return any(
        function.__annotations__.get(name) == wanted for function in functions for name, wanted in _LOCAL.items()
    )


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Nothing stays away silently."""
    away = config.stash.get(_STAYED_AWAY, Counter[str]())
    lines = [f"  {count:3} {why}" for why, count in sorted(away.items())]
    return [f"{away.total()} tests stay away from kind:", *lines] if lines else []


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyCluster]:
    """All of the cluster, started once for the session (with xdist: once a worker)."""
    way = request.config.getoption("--cluster")
    if way == "current":
        state = read_state()
        if state is None:
            pytest.fail(_NOT_UP)
        try:
            with exclusively("running tests"):
                yield attach(state)
        except InUse as error:
            pytest.fail(str(error))
        return
    if way == "node":
        pytest.fail(_NOT_YET.format(way))
    folder = tmp_path_factory.mktemp("cluster")
    made = _on_kind(request, folder) if way == "kind" else Cluster(folder, report=_quiet)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _on_kind(request: pytest.FixtureRequest, folder: Path) -> OnKind:
    """One that pytest-kind creates, with the kind of our version unless its own option names another."""
    image = build_image()
    request.config.option.kind_bin = request.config.option.kind_bin or str(tools.locate("kind", _quiet))
    return OnKind(request.getfixturevalue("kind_cluster"), folder, image, _quiet)


@pytest.fixture(scope="session")
def api(cluster: AnyCluster) -> Api:
    """A client with all rights."""
    return cluster.api


def _quiet(_: str) -> None:
    """A test run reports nothing while it starts."""


@pytest.fixture
def namespace(api: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace, gone after the test."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "main")
    name = f"test-{worker}-{secrets.token_hex(3)}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    deadline = time.monotonic() + 10 * PATIENCE
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
        end = time.monotonic() + deadline * PATIENCE
        body: Any = None
        while (left := end - time.monotonic()) > 0:
            for kind, seen in api.watch(collection, seconds=left, fields=f"metadata.name={name}"):
                body = seen
                if kind != "DELETED" and reached(body):
                    return body
        raise AssertionError(f"{path} did not get there within {deadline:g}s; it is {body}")

    return wait
