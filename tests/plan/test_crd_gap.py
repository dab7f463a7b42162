"""What a CRD in force lacks of the generated one, and which of it matters."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from cutover.plan.crd import definition
from cutover.plan.crd_gap import CrdGap, dropped, gap_of
from cutover.status.durable import durable_part
from cutover.status.release import Unreleased
from cutover.status.status import Current, Phase, Run, Status, StepStatus
from support.fakes.older_crd import older, optional_fields

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def changed(*path: str, **values: Any) -> dict[str, Any]:
    """The CRD with other values at one place of its schema."""
    manifest: dict[str, Any] = copy.deepcopy(definition())
    node = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path:
        node = node[part]
    node.update(values)
    return manifest


def test_the_crd_of_this_version_lacks_nothing() -> None:
    assert gap_of(definition()) == CrdGap()


def test_a_later_one_lacks_nothing_either() -> None:
    extra = {"pace": {"type": "string"}}
    for part in ("spec", "status"):
        fields = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]["properties"]
        assert gap_of(changed("properties", part, "properties", **fields, **extra)) == CrdGap()


@pytest.mark.parametrize("missing", optional_fields())
def test_every_field_of_the_status_that_is_missing_is_found(missing: str) -> None:
    gap = gap_of(older(missing))
    assert gap.paths == {missing}
    assert missing in gap.remark


def test_what_is_missing_of_the_spec_is_essential() -> None:
    manifest = copy.deepcopy(definition())
    spec = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["steps"]["items"]["properties"]["traffic"]["properties"]["dwell"]
    assert gap_of(manifest).essential == ("spec.steps[].traffic.dwell",)


def test_a_value_that_a_save_would_be_refused_for_is_essential() -> None:
    """Of a plan it is not: who applies it is told."""
    state = changed(
        "properties", "status", "properties", "steps", "items", "properties", "state", enum=["Pending", "Doing"]
    )
    assert "status.steps[].state=Undoing" in gap_of(state).essential
    policy = changed("properties", "spec", "properties", "onFailure", enum=["Rollback"])
    assert gap_of(policy) == CrdGap()


def test_a_version_that_is_not_there_lacks_all() -> None:
    manifest = copy.deepcopy(definition())
    manifest["spec"]["versions"][0]["name"] = "v1"
    assert gap_of(manifest).essential == ("spec", "status")


def test_a_field_that_keeps_what_it_does_not_know_lacks_nothing() -> None:
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    manifest = changed("properties", status=status)
    assert gap_of(manifest) == CrdGap()


def test_what_a_plan_does_depends_on_no_field_that_is_called_harmless() -> None:
    """Those that are shown, and the reports."""
    current = Current(
        step="shift", started_at=NOW, ready="1/3", applied_at=NOW, progressed_at=NOW, undo_progress=2, message="m"
    )
    step = StepStatus(name="shift", kind="traffic", snapshot_taken=True)
    run = Run(number=1, generation=1, spec_hash="h", started_at=NOW)
    failing = replace(run, unreleased=Unreleased(since=NOW, tried_at=NOW))
    status = Status(phase=Phase.RUNNING, message="m", progress="1/1", run=failing, current=current, steps=(step,))
    lost = replace(
        status,
        message="",
        progress="",
        run=run,
        current=Current(step="shift", started_at=NOW),
        steps=(replace(step, snapshot_taken=False),),
    )
    assert durable_part(status) == lost
    assert CrdGap.of(optional_fields()).harmless == tuple(sorted(
        path for path in optional_fields()
        if path.startswith(("status.run.unreleased", "status.tally", "status.history", "status.report", "status.conditions", "status.current.gates["))
        or path in {
            "status.progress", "status.current.gates", "status.current.ready", "status.current.message",
            "status.steps[].snapshotTaken",
        }
    ))  # fmt: skip


def test_what_an_answer_lacks_of_what_was_sent() -> None:
    sent = {
        "run": {"number": 1, "fence": 2},
        "steps": [{"name": "a"}, {"name": "b", "made": "uid"}],
        "phase": "Running",
    }
    kept = {"run": {"number": 1}, "steps": [{"name": "a"}, {"name": "b"}], "more": True}
    assert set(dropped(sent, kept)) == {"status.run.fence", "status.steps[].made", "status.phase"}
    assert list(dropped(sent, copy.deepcopy(sent))) == []


def test_many_are_not_all_named() -> None:
    gap = CrdGap.of(["status.run.fence", "status.run.b", "status.run.c", "status.run.d", "status.run.e"])
    assert "lacks status.run.b, status.run.c, status.run.d and 2 more, which" in gap.problem
