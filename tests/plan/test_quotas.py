"""What one pod counts for, as the API server's quota adds it up."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from cutover.field_path import Json
from cutover.objects.quantities import amounts, quantity, shown
from cutover.objects.quotas import Pods, Room


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


@pytest.mark.parametrize(
    ("name", "amount", "says"),
    [
        ("pods", "1024", "1024"),
        ("cpu", "2048", "2048"),
        ("requests.cpu", "1024", "1024"),
        ("limits.cpu", "1500m", "1500m"),
        ("memory", "1024", "1Ki"),
        ("limits.memory", "1536Mi", "1536Mi"),
        ("requests.ephemeral-storage", "2Gi", "2Gi"),
        ("hugepages-2Mi", "4Mi", "4Mi"),
        ("requests.nvidia.com/gpu", "1024", "1024"),
        ("memory", "0", "0"),
    ],
)
def test_only_bytes_have_binary_units(name: str, amount: str, says: str) -> None:
    assert shown(name, quantity(amount)) == says


def test_what_is_short_is_counted_as_users_count_it() -> None:
    hard = {"pods": "1024", "limits.memory": "2Ki"}
    quota = {"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": {"pods": "1024"}}}
    limits = {"containers": [{"name": "a", "resources": {"limits": {"memory": "3Ki"}}}]}
    room = Room(
        [quota], [{"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}}]}}]
    )
    limits["containers"][0]["resources"]["limits"]["cpu"] = "1"  # type: ignore[index]
    says = room.refuses(Pods({}, limits, 0, ((1, 0),), (1, 0), created=True))
    assert says == [
        "LimitRange r: container a has cpu 1, which must be at least 2; change one of them",
        "ResourceQuota q: needs 1 more pods, 1024 of 1024 used; raise the quota or request less",
        "ResourceQuota q: needs 3Ki more limits.memory, 0 of 2Ki used; raise the quota or request less",
    ]


def quota(hard: Json, used: Json, **spec: Any) -> Json:
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used}}


def pods(pod: Json, *passes: tuple[int, int]) -> Pods:
    return Pods({}, pod, 0, passes, passes[-1], created=True)


POD = {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}}}]}


@pytest.mark.parametrize(
    ("name", "hard", "short"),
    [
        ("cpu", "1", True),
        ("ephemeral-storage", "1Gi", True),
        ("ephemeral-storage", "2Gi", False),
        ("count/pods", "1", True),
        ("services", "0", False),  # too many already, and pods are none
    ],
)
def test_what_a_quota_counts_of_pods(name: str, hard: str, *, short: bool) -> None:
    room = Room([quota({name: hard}, {name: "3"} if name == "services" else {})])
    assert bool(room.refuses(pods(POD, (2, 0)))) == short


def test_what_the_server_goes_by_is_the_figure_in_the_status() -> None:
    """The spec may have been changed a moment ago."""
    given = quota({"pods": "2"}, {"pods": "1"})
    given["spec"]["hard"] = {"pods": "9"}
    assert Room([given]).refuses(pods(POD, (2, 0)))


def test_a_done_step_counts_the_pods_its_rollout_ends_with() -> None:
    room = Room([quota({"pods": "5"}, {})])
    room.take(pods(POD, (4, 0), (2, 0)))
    assert room.refuses(pods(POD, (3, 0))) == []


def test_a_step_takes_nothing_of_a_quota_that_does_not_count_its_pods() -> None:
    ending = POD | {"activeDeadlineSeconds": 60}
    room = Room([quota({"pods": "2"}, {}, scopes=["Terminating"])])
    room.take(pods(POD, (2, 0)))
    assert room.refuses(pods(ending, (2, 0))) == []
    assert room.refuses(pods(ending, (3, 0))) != []


@pytest.mark.parametrize(
    ("pod", "refused"),
    [
        ({"containers": POD["containers"]}, False),
        ({"containers": POD["containers"], "initContainers": [{"name": "b"}]}, True),
        ({"containers": [{"name": "a"}], "resources": {"requests": {"cpu": "1"}}}, False),  # said for the whole pod
    ],
)
def test_who_must_say_what_it_asks_for(pod: Json, *, refused: bool) -> None:
    assert bool(Room([quota({"requests.cpu": "9"}, {})]).refuses(pods(pod, (1, 0)))) == refused


@pytest.mark.parametrize(("bound", "cpu"), [({"max": {"cpu": "1"}}, "2"), ({"min": {"cpu": "2"}}, "1")])
def test_a_limit_range_applies_to_init_containers_too(bound: Json, cpu: str) -> None:
    limits = {"limits": {"cpu": cpu}}
    pod = {"containers": [{"name": "a", "resources": limits}], "initContainers": [{"name": "b", "resources": limits}]}
    ranges = [{"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", **bound}]}}]
    says = Room((), ranges).refuses(pods(pod, (1, 0)))
    assert [one.split()[3] for one in says] == ["b", "a"]
