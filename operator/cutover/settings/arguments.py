"""The command line of the image, `cutover-operator`: the settings file, and what overrides it. Called by app.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from cutover.errors import PlanError
from cutover.settings.settings import Settings, load


def from_arguments() -> Settings:
    """The settings that the arguments of this process ask for. Ends it with a sentence for each error in them."""
    parser = argparse.ArgumentParser(prog="cutover-operator", description="Run the Cutover operator.")
    parser.add_argument("--settings", type=Path, help="settings file (YAML)")
    parser.add_argument("--namespace", action="append", help="namespace to watch; repeatable, default all")
    parser.add_argument("--port", type=int, help="port of /livez, /readyz and /metrics; 0 picks a free one")
    parser.add_argument("--log-format", choices=["json", "text"], help="format of the log")
    given = parser.parse_args()
    try:
        return load(
            given.settings,
            namespaces=tuple(given.namespace) if given.namespace else None,
            port=given.port,
            log_format=given.log_format,
        )
    except (PlanError, OSError) as error:
        parser.error(f"invalid settings: {error}")
