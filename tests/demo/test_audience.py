"""The demo follows a plan to its end, and stops when there will be none."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audience import Audience
from figures import Traffic
from rich.console import Console
from watching import Watching

from cutover.status.status import Phase
from harness.api import Api
from harness.process import NotReady, Process, until

PLAN = {
    "metadata": {"name": "shop-2"},
    "spec": {"steps": [{"name": "deploy"}, {"name": "shift", "traffic": {"to": {"host": "green"}}}]},
}


class Changes(Watching):
    """Tells what it is given instead of what an API server says."""

    def __init__(self, *changes: Any) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # without a path it asks nobody
        for at, body in enumerate(changes):
            self._changes.put((float(at), body))


def routes(weight: int, rest: int | None = None) -> dict[str, Any]:
    hosts = (("blue", 100 - weight if rest is None else rest), ("green", weight))
    route = [{"destination": {"host": host}, "weight": weight} for host, weight in hosts]
    return {"metadata": {"name": "shop"}, "spec": {"http": [{"route": route}]}}


def plan(phase: str, name: str = "shop-2") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"steps": []}, "status": {"phase": phase}}


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Process]:
    process = Process("operator", ["sh", "-c", "echo last words; exec sleep 600"], log=tmp_path / "operator.log")
    process.start()
    until("it has spoken", lambda: process.tail() or None)
    yield process
    process.kill()


def audience(folder: Path, watching: Watching, deadline: float = 60.0) -> Audience:
    (folder / "requests.txt").touch()
    return Audience(Console(file=io.StringIO()), watching, Traffic(folder / "requests.txt"), deadline=deadline)


def test_it_notes_what_it_is_changes(tmp_path: Path, operator: Process) -> None:
    changes = Changes(
        routes(0), plan("Running"), routes(10), plan("Succeeded", "other"), routes(10), routes(100), plan("Succeeded")
    )
    migration, status = audience(tmp_path, changes).follow(PLAN, operator)
    assert status.phase is Phase.SUCCEEDED
    assert migration.weights == [(0, 0.0), (10, 2.0), (100, 5.0)]
    assert migration.version == "2"


def test_weights_that_do_not_add_up(tmp_path: Path, operator: Process) -> None:
    made = audience(tmp_path, Changes(routes(60, 60), plan("Succeeded")))
    made.follow(PLAN, operator)
    assert made.wrong_sums == [120]


def test_it_stops_when_the_operator_dies(tmp_path: Path, operator: Process) -> None:
    operator.kill()
    with pytest.raises(
        NotReady, match=r"(?s)the operator ended with code -9 while shop-2 was not yet seen.*last words"
    ):
        audience(tmp_path, Changes()).follow(PLAN, operator)


def test_it_stops_at_its_deadline(tmp_path: Path, operator: Process) -> None:
    with pytest.raises(NotReady, match=r"(?s)shop-2 has not ended within 0.1s; it is Running.*last words"):
        audience(tmp_path, Changes(plan("Running")), deadline=0.1).follow(PLAN, operator)


@pytest.mark.cluster
@pytest.mark.local("belongs to the demo, which runs on the local cluster")
def test_watching_tells_of_each_change(api: Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    watching = Watching(api, path)
    api.create(path, {"metadata": {"name": "seen"}, "data": {"number": "0"}})
    for number in ("1", "2"):
        api.patch(f"{path}/seen", {"data": {"number": number}})
    numbers: list[str] = []
    while numbers[-1:] != ["2"]:
        changes = watching.next(timeout=30)
        assert changes is not None
        numbers += [changes[1]["data"]["number"]] if changes[1]["metadata"]["name"] == "seen" else []
    assert numbers in (
        ["0", "1", "2"],
        ["1", "2"],
        ["2"],
    )  # a watch may begin after the first changes, never miss one after
