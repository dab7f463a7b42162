"""All tests may ask for the local cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["harness.plugin", "support.cluster.fixtures", "support.database.fixtures"]


_LONGEST_FIRST = (
    "test_kill", "test_job", "test_two_operators", "test_examples", "test_notify", "test_traffic", "test_drain", "test_sticky", "test_lease",
    "test_api_faults", "test_every_call", "test_outage", "test_deletion", "test_flags", "test_budget", "test_prometheus",
    "test_http_route", "test_side_by_side", "test_kind", "test_deploy",
)  # fmt: skip
"""Files of cluster tests, each some minute or half of one; side by side, none of them is to begin when the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first; the rest as they stand. Within a file nothing changes."""
    places = {name: place for place, name in enumerate(_LONGEST_FIRST)}
    items.sort(
        key=lambda item: places.get(item.path.stem, len(places)) if item.path.parent.name == "cluster" else len(places)
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are rewritten on request."""
    parser.addoption("--rewrite", action="store_true", help="rewrite the traces; review the diff")
