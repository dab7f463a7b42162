"""What pods say of their end, and why they do not start."""

from __future__ import annotations

from typing import Any

from cutover.objects.pods import exit_of, unfinished, waits_for


def pod(
    *statuses: dict[str, Any], init: tuple[dict[str, Any], ...] = (), sidecar: str = "", **status: Any
) -> dict[str, Any]:
    """A pod with these statuses of its containers and init containers."""
    before = [{"name": sidecar, "restartPolicy": "Always"}] if sidecar else []
    said = status | {"initContainerStatuses": list(init), "containerStatuses": list(statuses)}
    return {"metadata": {"name": "migrate-x"}, "spec": {"initContainers": before}, "status": said}


def ended(name: str, code: int, at: str, *, state: str = "state", reason: str = "Error") -> dict[str, Any]:
    """A container that has ended, now or before it was started again."""
    return {"name": name, state: {"terminated": {"exitCode": code, "finishedAt": at, "reason": reason}}}


def test_the_container_that_failed_last_tells_the_code() -> None:
    first = pod(ended("app", 3, "2026-01-01T00:00:01Z"))
    last = pod(ended("app", 4, "2026-01-01T00:00:02Z"), ended("log", 0, "2026-01-01T00:00:03Z", reason="Completed"))
    assert exit_of([last, first]) == exit_of([first, last])
    assert (exit_of([first, last]).code, exit_of([first, last]).message) == (
        4,
        "container app exited with code 4 (Error)",
    )


def test_one_that_was_started_again_tells_how_it_ended_before() -> None:
    assert exit_of([pod(ended("app", 9, "2026-01-01T00:00:01Z", state="lastState"))]).code == 9


def test_an_init_container_tells_the_code_and_a_sidecar_does_not() -> None:
    init = ended("schema", 7, "2026-01-01T00:00:01Z")
    proxy = ended("proxy", 143, "2026-01-01T00:00:09Z")
    assert exit_of([pod(init=(init, proxy), sidecar="proxy")]).code == 7


def test_a_pod_that_ended_without_a_code_tells_its_reason() -> None:
    gone = exit_of([pod(reason="Evicted", phase="Failed"), pod(reason="Evicted", phase="Failed")])
    assert (gone.code, gone.message) == (None, "its pods ended with Evicted")
    assert exit_of([pod(ended("app", 0, "2026-01-01T00:00:01Z"))]).message == "no container reports an exit code"
    assert exit_of([pod(reason="\x1b[31m as the registry says")]).message == "its pods ended with Unknown"


def test_a_pod_that_has_not_begun_may_still_do_something() -> None:
    phases = ("Pending", "Running", "Unknown", "Succeeded", "Failed")
    assert [bool(unfinished([pod(phase=phase)])) for phase in phases] == [True, True, True, False, False]
    assert unfinished([{"metadata": {"name": "just-made"}, "spec": {}}]) == ["just-made"]


def test_an_init_container_says_why_a_pod_does_not_start() -> None:
    waits = {"name": "schema", "state": {"waiting": {"reason": "ErrImagePull", "message": "401 from a registry"}}}
    stuck = pod(init=(waits,))
    stuck["spec"]["initContainers"] = [{"name": "schema", "image": "schema:2"}]
    assert waits_for([pod(), stuck], "shop") == (
        "container schema of pod migrate-x does not start: ErrImagePull, image schema:2"
    )
