"""What one pod counts for, as the API server's quota adds it up."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cutover.fields import Json
from cutover.objects.quotas import amounts


def asks(cpu: str, **more: Any) -> Json:
    return {"name": "one", "resources": {"requests": {"cpu": cpu}}, **more}


ALWAYS = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("pod", "cpu"),
    [
        ({"containers": [asks("1"), asks("2")]}, "3"),
        ({"containers": [asks("1")], "initContainers": [asks("5"), asks("4")]}, "5"),  # one after the other, and before
        ({"containers": [asks("3")], "initContainers": [asks("2")]}, "3"),
        ({"containers": [asks("1")], "initContainers": [asks("2", **ALWAYS)]}, "3"),  # a sidecar runs beside
        (
            {"containers": [asks("1")], "initContainers": [asks("2", **ALWAYS), asks("4")]},
            "6",
        ),  # beside what comes after it
        ({"containers": [asks("1")], "initContainers": [asks("4"), asks("2", **ALWAYS)]}, "4"),
        ({"containers": [asks("1")], "initContainers": [asks("2", **ALWAYS), asks("3", **ALWAYS)]}, "6"),
        ({"containers": [asks("1")], "resources": {"requests": {"cpu": "7"}}}, "7"),  # of the whole pod
    ],
)
def test_what_a_pod_asks_for(pod: Json, cpu: str) -> None:
    found = amounts(pod, ())
    assert (found["pods"], found["requests.cpu"]) == (Decimal(1), Decimal(cpu))
