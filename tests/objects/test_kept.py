"""What a server has not kept of a wish, and items of lists that it takes for others: told by the answer of its dry run."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.field_path import ABSENT
from cutover.objects.kept import Lost, mistaken, unkept
from cutover.targets.patching import merge


def lost(wish: Any, before: Any, after: Any) -> list[tuple[str, Lost]]:
    return [(one.message, one.kind) for one in unkept(wish, before, after)]


def containers(**fields: Any) -> Any:
    return {"containers": [{"name": "app", **fields}]}


GONE = (
    "the server drops strategy.maxUnavailable (2) without a word, and it would not be there: "
    "a feature gate may be off, or another field decides it; leave it out"
)


def test_a_field_that_is_not_there_was_dropped() -> None:
    assert lost({"strategy": {"maxUnavailable": 2}}, {"strategy": {}}, {"strategy": {"partition": 0}}) == [
        (GONE, Lost.DROPPED)
    ]
    assert lost({"strategy": {"maxUnavailable": 2}}, ABSENT, {}) == [(GONE, Lost.DROPPED)]


def test_a_value_that_stays_was_dropped_and_another_one_was_set_by_admission() -> None:
    ((told, kind),) = lost({"serviceAccount": "b"}, {"serviceAccount": "a"}, {"serviceAccount": "a"})
    assert kind is Lost.IGNORED
    assert 'drops serviceAccount ("b") without a word, and it would stay "a"' in told
    assert lost(containers(image="app:2"), containers(image="app:1"), containers(image="mirror/app:2")) == [
        ('the server would make containers[name=app].image "mirror/app:2", not "app:2"', Lost.CHANGED)
    ]
    same = containers(image="mirror/app:2")
    ((_, kind),) = lost(containers(image="app:2"), same, same)
    assert kind is Lost.CHANGED


@pytest.mark.parametrize(
    ("wish", "after"),
    [
        (containers(resources={"limits": {"cpu": "3000m", "memory": "1024Mi"}}), containers(resources={"limits": {"cpu": "3", "memory": "1Gi"}})),
        (containers(resources={"limits": {"cpu": 0.5}}), containers(resources={"limits": {"cpu": "500m"}})),
        ({"hostNetwork": False, "minReadySeconds": 0, "hostname": ""}, {}),  # the server omits what is zero
        ({"securityContext": {}, "tolerations": []}, {}),
        ({"nodeSelector": {"$patch": "delete"}, "priority": None}, {}),
        (containers(env=[{"name": "B", "value": "1"}]), containers(env=[{"name": "A"}, {"name": "B", "value": "1"}])),
        (containers(env=[{"name": "A", "$patch": "delete"}]), containers()),
        (containers(ports=[{"containerPort": 80}]), containers(ports=[{"containerPort": 80, "protocol": "TCP"}])),
        (containers(args=["a", "b"]), containers(args=["a", "b"])),
        ({"terminationGracePeriodSeconds": None}, {"terminationGracePeriodSeconds": 30}),
    ],
)  # fmt: skip
def test_what_the_server_writes_its_own_way_is_kept(wish: Any, after: Any) -> None:
    assert lost(wish, {"terminationGracePeriodSeconds": 60}, after) == []


def test_what_should_go_and_stays_is_told() -> None:
    stays = {"terminationGracePeriodSeconds": 30}
    ((told, kind),) = lost({"terminationGracePeriodSeconds": None}, stays, stays)
    assert kind is Lost.STAYS
    assert told == "the patch removes terminationGracePeriodSeconds, and the server leaves it as it is, 30"


def test_an_empty_list_empties_none_that_the_server_merges() -> None:
    live = {"imagePullSecrets": [{"name": "a"}]}
    ((told, kind),) = lost({"imagePullSecrets": []}, live, merge(live, {"imagePullSecrets": []}))
    assert kind is Lost.STAYS
    assert told == 'the patch removes imagePullSecrets, and the server leaves it as it is, [{"name": "a"}]'
    assert lost({"tolerations": []}, {"tolerations": [{"key": "a"}]}, {"tolerations": []}) == []


def test_an_item_that_no_item_of_the_list_has_was_dropped() -> None:
    ((told, kind),) = lost({"tolerations": [{"key": "a"}]}, {"tolerations": []}, {"tolerations": []})
    assert kind is Lost.IGNORED
    assert 'drops tolerations ({"key": "a"})' in told


DNS, DNS_UDP = {"name": "dns", "containerPort": 53}, {"name": "dns-udp", "containerPort": 53, "protocol": "UDP"}
TWICE = [{"name": "monitoring", "containerPort": 80}, {"name": "api", "containerPort": 80}]
REPLACE = {"$patch": "replace"}


@pytest.mark.parametrize(
    ("ports", "before", "says"),
    [
        ([DNS_UDP], [*TWICE, DNS], 'would replace {"name": "dns", "containerPort": 53}'),
        ([{"name": "admin", "containerPort": 80}], TWICE, 'would replace {"name": "monitoring", "containerPort": 80}'),
        ([{"name": "api", "$patch": "delete", "containerPort": 80}], TWICE, 'would replace {"name": "monitoring"'),
        ([REPLACE, DNS_UDP], [DNS], ""),
        ([REPLACE, DNS, DNS_UDP], [DNS], ""),
        ([{"containerPort": 53, "$patch": "delete"}], [DNS], ""),
        ([{"name": "new", "containerPort": 99}], [*TWICE, DNS], ""),
        ([{"containerPort": 53, "hostPort": 5353}], [DNS], ""),
        ([{"name": "web", "containerPort": 80, "protocol": "TCP"}], [{"name": "web", "containerPort": 80}], ""),
        ([DNS], [], ""),
    ],
)  # fmt: skip
def test_a_port_takes_the_place_of_no_other(ports: list[Any], before: list[Any], says: str) -> None:
    patch, live = containers(ports=ports), containers(ports=before)
    told = list(mistaken(patch, live, merge(live, patch)))
    if not says:
        assert told == []
        return
    (message,) = told
    assert says in message
    assert message.startswith(
        "the server merges containers[name=app].ports by containerPort alone, so the patch would "
    )
    assert message.endswith("; write the whole list, with - $patch: replace as its first item")


def test_a_constraint_takes_the_place_of_no_other() -> None:
    soft, hard = ({"topologyKey": "zone", "whenUnsatisfiable": when} for when in ("ScheduleAnyway", "DoNotSchedule"))
    live, patch = {"topologySpreadConstraints": [soft]}, {"topologySpreadConstraints": [hard]}
    (message,) = mistaken(patch, live, merge(live, patch))
    assert "by topologyKey alone" in message


def test_a_variable_that_is_there_twice_is_not_changed_by_halves() -> None:
    live = containers(env=[{"name": "MODE", "value": "a"}, {"name": "MODE", "value": "b"}])
    patch = containers(env=[{"name": "MODE", "value": "c"}])
    (message,) = mistaken(patch, live, merge(live, patch))
    assert "has 2 items MODE, of which the patch changes the first and pods get the last" in message
    other = containers(env=[{"name": "LEVEL", "value": "c"}])
    assert list(mistaken(other, live, merge(live, other))) == []
