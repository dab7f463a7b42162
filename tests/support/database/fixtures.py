"""Databases of real servers, as fixtures: a server lives for the session, a database for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.postgresql import DEFAULT, Database, Server
from support.database.runner import Runner

Servers = Callable[[int], Server]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """A server of a major version, started when it is first asked for."""
    started: dict[int, Server] = {}

    def get(version: int) -> Server:
        if version not in started:
            started[version] = Server(version).start()
        return started[version]

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture
def new_database(servers: Servers) -> Iterator[Callable[[int], Database]]:
    """Makes databases, gone after the test."""
    with ExitStack() as stack:

        def make(version: int) -> Database:
            return stack.enter_context(servers(version).database())

        yield make


@pytest.fixture
def database(request: pytest.FixtureRequest, new_database: Callable[[int], Database]) -> Database:
    """One of the default version, or of the version that the test is parametrized with."""
    return new_database(getattr(request, "param", DEFAULT))


@pytest.fixture
def runner(database: Database, tmp_path: Path) -> Runner:
    """The runner for it; it waits little for locks."""
    retries = {"maxAttempts": 5, "backoff": "50ms", "maxBackoff": "100ms"}
    return Runner(database.url, tmp_path, {"lockTimeout": "100ms", "lockRetries": retries})
