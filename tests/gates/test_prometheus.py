"""Answers of the query API: one finite number, or a note."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.adapters.prometheus import Providers, read
from cutover.settings import Provider


def vector(*values: str) -> dict[str, Any]:
    return {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, v]} for v in values]},
    }


@pytest.mark.parametrize(
    ("answer", "value", "note"),
    [
        (vector("0.25"), 0.25, ""),
        ({"status": "success", "data": {"resultType": "scalar", "result": [0, "7"]}}, 7.0, ""),
        (vector(), None, "no series"),
        (vector("1", "2"), None, "2 series"),
        (vector("NaN"), None, "NaN"),
        (vector("+Inf"), None, "+Inf"),
        (vector("-Inf"), None, "-Inf"),
        (vector("1") | {"warnings": ["partial"]}, None, "warnings"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, None, "matrix"),
        (
            {"status": "success", "data": {"resultType": "vector", "result": [{"histogram": [0, {}]}]}},
            None,
            "histogram",
        ),
        ({"status": "error"}, None, "cannot be read"),
        ([], None, "cannot be read"),
    ],
)
def test_read(answer: Any, value: float | None, note: str) -> None:
    sample = read(answer)
    assert sample.value == value
    assert note in sample.note


async def test_nothing_of_an_answer_gets_into_a_note() -> None:
    """A plan's author must not read a foreign server through the operator."""
    sample = read({"status": "success", "data": {"resultType": "vector", "result": []}, "secret": "s3cret"})
    assert "s3cret" not in sample.note


async def test_nobody_there() -> None:
    providers = Providers({"default": Provider.model_validate({"prometheus": {"url": "http://127.0.0.1:9"}})})
    assert providers.names() == ["default"]
    assert (await providers.query("default", "up", 60)).note == "Prometheus cannot be reached"
    assert "no provider" in (await providers.query("other", "up", 60)).note
    await providers.close()
