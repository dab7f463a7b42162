"""All tests may ask for the local cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["harness.plugin", "support.cluster.fixtures"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are rewritten on request."""
    parser.addoption("--rewrite", action="store_true", help="rewrite the traces; review the diff")
