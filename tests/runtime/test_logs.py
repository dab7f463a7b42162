"""Logs are one JSON object a line, or one line of text; what comes from outside forges no line."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from cutover.runtime.logs import JsonLines, TextLines


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


FORGED = "no\n2026-01-01 00:00:00,000 INFO    cutover: all is well\r\x1b[2J\u202ex\u2028y"


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()])
def test_what_comes_from_outside_begins_no_line_and_controls_no_terminal(formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord({"name": FORGED, "levelname": "INFO", "msg": "said %s", "args": (FORGED,)})
    line = formatter.format(record)
    assert len(line.splitlines()) == 1
    assert not set(line) & set("\r\x1b\u202e\u2028")
    assert "all is well" in line


def test_the_trace_of_an_error_keeps_its_lines_and_controls_no_terminal() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        record = logging.makeLogRecord({"name": "x", "levelname": "ERROR", "msg": "failed", "exc_info": sys.exc_info()})
    text = TextLines().format(record)
    assert text.startswith("2")
    assert "Traceback" in text.splitlines()[1]
    assert not set(text) & set("\r\x1b\u202e\u2028")
