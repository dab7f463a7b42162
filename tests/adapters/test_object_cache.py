"""What is kept of what the streams bring: as much as somebody works with, and no more."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from cutover.adapters.object_cache import ObjectCache
from cutover.ports import CONFIG_MAPS, PLAN_LABEL, PLANS, Ref
from cutover.runtime.event_router import EventRouter

FLAGS, PLAN = Ref(CONFIG_MAPS, "shop", "flags"), Ref(PLANS, "shop", "plan")
LARGE = 1_000_000


def config(version: int, *, claim: str | None = "uid-a", size: int = 8) -> dict[str, Any]:
    labels = {} if claim is None else {PLAN_LABEL: claim}
    metadata = {"name": "flags", "namespace": "shop", "uid": "u", "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": "x" * size}}


def plan(phase: str, version: int = 5, *, name: str = "plan", size: int = 8) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": str(version)}
    spec = {"steps": [{"name": f"step-{at}", "wait": {"for": "1s"}} for at in range(size)]}
    return {"kind": "MigrationPlan", "metadata": metadata, "spec": spec, "status": {"phase": phase}}


def test_of_an_object_that_nobody_works_with_only_its_claim_is_kept() -> None:
    cache = ObjectCache()
    assert cache.note(FLAGS, config(5))
    assert cache.get(FLAGS) is None, "who needs it reads it"
    known = cache.known(FLAGS)
    assert known is not None
    assert (known.claim, known.version) == ("uid-a", 5)
    assert cache.note(FLAGS, config(6, claim="uid-b")), "a stream still tells who is to be woken"
    assert not cache.note(FLAGS, config(5))


@pytest.mark.parametrize("ours", [True, False], ids=["written", "read"])
def test_what_was_read_or_written_is_kept_as_it_changes(*, ours: bool) -> None:
    cache = ObjectCache()
    cache.note(FLAGS, config(5))
    cache.keep(FLAGS, config(6), ours=ours)
    assert cache.get(FLAGS) == config(6)
    assert cache.note(FLAGS, config(6)) is not ours, "the echo of an own write is no news"
    assert cache.note(FLAGS, config(7, size=9))
    assert cache.get(FLAGS) == config(7, size=9)


@pytest.mark.parametrize("end", ["deleted", "released"])
def test_once_it_is_gone_or_released_nothing_is_kept(end: str) -> None:
    cache = ObjectCache()
    cache.keep(FLAGS, config(6), ours=True)
    if end == "deleted":
        assert cache.note(FLAGS, config(7), deleted=True)
    else:
        cache.keep(FLAGS, config(7, claim=None), ours=True)
    assert (cache.get(FLAGS), cache.known(FLAGS)) == (None, None)
    cache.note(FLAGS, config(9))
    assert cache.get(FLAGS) is None, "the next plan has not read it"


def test_what_others_call_a_managed_field_is_not_kept() -> None:
    cache, body = ObjectCache(), config(5)
    body["metadata"]["managedFields"] = [{"manager": "argocd-controller"}]
    assert cache.keep(FLAGS, body) is body, "who has read it gets all"
    assert cache.get(FLAGS) == config(5)


@pytest.mark.parametrize("phase", ["Succeeded", "RolledBack", "Refused", "Abandoned"])
def test_a_plan_that_has_ended_takes_little(phase: str) -> None:
    """A hundred steps each, as Python has them: 40 kB."""

    def taken(phase: str) -> int:
        tracemalloc.start()
        cache = ObjectCache()
        for at in range(50):
            cache.note(Ref(PLANS, "shop", f"plan-{at}"), plan(phase, name=f"plan-{at}", size=100))
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert cache.get(Ref(PLANS, "shop", "plan-7")) == plan(phase, name="plan-7", size=100)
        return size

    assert taken(phase) < taken("Running") / 8


def test_a_plan_that_begins_again_is_at_hand() -> None:
    cache = ObjectCache()
    cache.note(PLAN, plan("Succeeded"))
    assert cache.get(PLAN) == plan("Succeeded")
    cache.note(PLAN, plan("Running", 6))
    assert cache.get(PLAN) is cache.get(PLAN)
    cache.note(PLAN, plan("Running", 7), deleted=True)
    assert cache.get(PLAN) is None


def test_kopf_is_left_with_no_body_that_is_not_kept() -> None:
    """It holds the last event of each object for half a second, and of a list it brings all at once."""
    cluster = _Streams()
    event = {"type": "ADDED", "object": config(5, size=LARGE)}
    EventRouter(cluster, lambda _: None, lambda *_: None).target(CONFIG_MAPS, event)  # type: ignore[arg-type]
    assert event["object"] == {"metadata": config(5)["metadata"]}
    cluster.cache.keep(FLAGS, config(6))
    event = {"type": "MODIFIED", "object": config(7)}
    EventRouter(cluster, lambda _: None, lambda *_: None).target(CONFIG_MAPS, event)  # type: ignore[arg-type]
    assert event["object"] == cluster.cache.get(FLAGS) == config(7)


class _Streams:
    def __init__(self) -> None:
        self.cache = ObjectCache()
        self.note, self.known, self.holds = self.cache.note, self.cache.known, self.cache.holds
