"""Logs are one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys

from cutover.runtime.logs import JsonLines


def test_a_line() -> None:
    record = logging.makeLogRecord(
        {"name": "cutover", "levelno": 30, "levelname": "WARNING", "msg": "hello %s", "args": ("you",), "plan": "p"}
    )
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["message"], line["plan"]) == ("warning", "hello you", "p")


def test_an_error_has_its_trace() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.makeLogRecord({"msg": "x", "exc_info": sys.exc_info()})
    assert "ValueError: broken" in json.loads(JsonLines().format(record))["error"]
