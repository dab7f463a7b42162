"""Which plans are woken by an event of another plan."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.app import Operator
from cutover.settings.settings import Settings


def event(name: str, *, namespace: str = "shop", gone: bool = False, **status: str) -> Any:
    metadata = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1"}
    body = {"apiVersion": "cutover.dev/v1alpha1", "kind": "MigrationPlan", "metadata": metadata, "status": status}
    return {"type": "DELETED" if gone else "MODIFIED", "object": body}


@pytest.mark.parametrize(
    ("of_another", "woken"),
    [
        ({"phase": "Succeeded"}, True),
        ({"phase": "Running", "gone": True}, True),
        ({"phase": "Running"}, False),
        ({"phase": "Succeeded", "namespace": "till"}, False),
    ],
    ids=["ended", "gone", "goes on", "elsewhere"],
)
async def test_a_plan_that_waits_for_a_target_is_woken_when_another_plan_ends(
    of_another: dict[str, Any], *, woken: bool
) -> None:
    operator, added = Operator(Settings()), list[str]()
    operator._router.plan(event("waits", phase="Pending", reason="TargetBusy"))
    operator._router._wake = lambda key: added.append(key.name)
    operator._router.plan(event("other", **of_another))
    assert ("waits" in added) is woken
