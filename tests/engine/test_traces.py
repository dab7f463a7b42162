"""Whole plans as readable traces: every write in its order. ``pytest --rewrite`` writes them anew; the diff is reviewed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cutover.ports import Ref
from cutover.saga.turn import Notice
from support.fakes.shop import plan
from support.fakes.simulation import Simulation
from support.plans.simulated import STORIES, Story, play

FOLDER = Path(__file__).parent / "traces"


class Trace:
    """Lines of what was written and told, with the time since the start."""

    def __init__(self, run: Simulation) -> None:
        self._run, self._begin = run, run.clock.now()
        self.lines: list[str] = []
        run.cluster.told = self.write
        record = run.recorder.record

        def tell(plan: Any, notice: Notice) -> None:
            self._add(f"event   {notice.reason}: {notice.message}")
            record(plan, notice)

        run.recorder.record = tell  # type: ignore[method-assign]

    def _add(self, line: str) -> None:
        self.lines.append(f"{(self._run.clock.now() - self._begin).total_seconds():6.1f}  {line}")

    def write(self, verb: str, ref: Ref, content: Any) -> None:
        match verb:
            case "status":
                current = content.get("current", {})
                run = content.get("run", {})
                parts = [content["phase"], content["reason"], f"fence {run.get('fence', 0)}"]
                if current:
                    parts.append(f"{current['step']} {current.get('stage', '')} {current['intent']}".replace("  ", " "))
                states = " ".join(step["state"] for step in content.get("steps", ()))
                self._add(f"status  {', '.join(parts)} [{states}]")
            case "patch":
                changes = [f"{_short(op['path'])}={_value(op)}" for op in content if op["op"] != "test"]
                self._add(f"patch   {ref}: {', '.join(changes)}")
            case _:
                self._add(f"{verb:7} {ref.resource.kind}")


def _short(path: str) -> str:
    return (
        path.replace("~1", "/")
        .replace("/spec/template/spec/containers", "/containers")
        .replace("/metadata/labels/", "label ")
    )


def _value(operation: Any) -> str:
    value = str(operation.get("value", "(gone)"))
    if operation["path"].endswith("/ownerReferences"):
        return "(the plan)"
    return "(uid)" if value.startswith("uid-") else value


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_trace(story: Story, request: pytest.FixtureRequest) -> None:
    run = Simulation(plan(story.spec), put=story.put)
    trace = Trace(run)
    await play(story, run)
    text = "\n".join(trace.lines) + "\n"
    file = FOLDER / f"{story.name}.txt"
    if request.config.getoption("--rewrite"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()
