"""All tests may ask for the local cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["harness.plugin"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return Path(__file__).parents[1]
