"""What is kept of what the streams and reads bring: as much as an active plan works with, and no more."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from cutover.adapters.object_cache import ObjectCache
from cutover.ports import CONFIG_MAPS, PLAN_LABEL, PLANS, Ref
from cutover.runtime.event_router import EventRouter

FLAGS, PLAN = Ref(CONFIG_MAPS, "shop", "flags"), Ref(PLANS, "shop", "plan")
LARGE = 1_000_000


def config(version: int, *, claim: str | None = "plan", size: int = 8) -> dict[str, Any]:
    labels = {} if claim is None else {PLAN_LABEL: claim}
    metadata = {"name": "flags", "namespace": "shop", "uid": "u", "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": "x" * size}}


def plan(
    phase: str, version: int = 5, *, name: str = "plan", uid: str = "", namespace: str = "shop", size: int = 8
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": uid or name, "resourceVersion": str(version)}
    spec = {"steps": [{"name": f"step-{at}", "wait": {"for": "1s"}} for at in range(size)]}
    return {"kind": "MigrationPlan", "metadata": metadata, "spec": spec, "status": {"phase": phase}}


def busy() -> ObjectCache:
    """A cache that knows a plan under way."""
    cache = ObjectCache()
    cache.note(PLAN, plan("Running", 1))
    return cache


def test_of_an_object_that_nobody_works_with_only_its_claim_is_kept() -> None:
    cache = busy()
    assert cache.note(FLAGS, config(5))
    assert cache.get(FLAGS) is None, "who needs it reads it"
    known = cache.known(FLAGS)
    assert known is not None
    assert (known.claim, known.version) == ("plan", 5)
    assert cache.note(FLAGS, config(6, claim="uid-b")), "a stream still tells who is to be woken"
    assert not cache.note(FLAGS, config(5))


@pytest.mark.parametrize("ours", [True, False], ids=["written", "read"])
@pytest.mark.parametrize("phase", ["Running", "Waiting", "RollingBack", "Paused", "Stuck"])
def test_what_an_active_plan_has_read_or_written_is_kept_as_it_changes(phase: str, *, ours: bool) -> None:
    cache = ObjectCache()
    cache.note(FLAGS, config(5))
    cache.note(PLAN, plan(phase))
    cache.keep(FLAGS, config(6), ours=ours)
    assert cache.get(FLAGS) == config(6)
    assert cache.note(FLAGS, config(6)) is not ours, "the echo of an own write is no news"
    assert cache.note(FLAGS, config(7, size=9))
    assert cache.get(FLAGS) == config(7, size=9)


@pytest.mark.parametrize("ours", [True, False], ids=["written", "read"])
@pytest.mark.parametrize(
    ("ref", "owner"),
    [
        (PLAN, plan("Running", uid="another")),
        (PLAN, plan("Pending")),
        (PLAN, plan("")),
        (PLAN, plan("Succeeded")),
        (PLAN, plan("Abandoned")),
        (Ref(PLANS, "mall", "plan"), plan("Running", namespace="mall")),
    ],
    ids=["nobody's", "Pending", "new", "Succeeded", "Abandoned", "of another namespace"],
)
def test_what_no_active_plan_of_the_namespace_claims_is_not_kept(
    ref: Ref, owner: dict[str, Any], *, ours: bool
) -> None:
    """Anybody may write a label, and have a plan read what carries it."""
    cache = ObjectCache()
    cache.note(ref, owner)
    body = config(6, size=LARGE)
    assert cache.keep(FLAGS, body, ours=ours) is body
    assert (cache.get(FLAGS), cache.holds(FLAGS, body)) == (None, False)
    assert cache.note(FLAGS, config(6)) is not ours, "it is known for whom it is"
    assert cache.note(FLAGS, config(7))
    assert cache.get(FLAGS) is None


def test_what_is_claimed_for_another_is_kept_no_longer() -> None:
    cache = busy()
    cache.keep(FLAGS, config(6), ours=True)
    cache.note(FLAGS, config(7, claim="nobody"))
    assert cache.get(FLAGS) is None
    cache.note(FLAGS, config(8))
    assert cache.get(FLAGS) is None, "it has not been read since"


@pytest.mark.parametrize("end", ["ended", "begins anew", "deleted", "gone", "released from its finalizer", "replaced"])
def test_with_the_run_of_its_plan_a_body_goes(end: str) -> None:
    cache = busy()
    other = Ref(CONFIG_MAPS, "shop", "other")
    cache.note(Ref(PLANS, "shop", "second"), plan("Stuck", 2, name="second"))
    cache.keep(FLAGS, config(6), ours=True)
    cache.keep(other, config(6, claim="second"), ours=True)
    if end == "ended":
        cache.keep(PLAN, plan("RolledBack", 9), ours=True)
    elif end == "begins anew":
        cache.note(PLAN, plan("Pending", 9))
    elif end == "deleted":
        cache.note(PLAN, plan("Running", 9), deleted=True)
    elif end == "gone":
        cache.drop(PLAN)
    elif end == "replaced":
        cache.note(PLAN, plan("Running", 9, uid="new"))
    else:
        released = plan("Running", 9)
        released["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
        cache.keep(PLAN, released, ours=True)
    assert cache.get(FLAGS) is None
    assert cache.known(FLAGS) is not None, "its claim is still there"
    assert cache.get(other) == config(6, claim="second")


def test_a_plan_that_is_labelled_stays_when_another_ends() -> None:
    """A plan is no target, whatever its labels say."""
    cache, labelled = busy(), plan("Running", 2, name="second")
    labelled["metadata"]["labels"] = {PLAN_LABEL: "plan"}
    second = Ref(PLANS, "shop", "second")
    cache.note(second, labelled)
    cache.note(PLAN, plan("Succeeded", 3))
    assert cache.get(second) == labelled


def test_a_rollback_after_the_success_has_its_targets_at_hand_again() -> None:
    cache = busy()
    cache.keep(FLAGS, config(6), ours=True)
    cache.keep(FLAGS, config(7, claim=None), ours=True)
    cache.keep(PLAN, plan("Succeeded", 8), ours=True)
    cache.keep(FLAGS, config(9), ours=False)
    assert cache.get(FLAGS) is None
    cache.keep(PLAN, plan("RollingBack", 10), ours=True)
    cache.keep(FLAGS, config(11), ours=True)
    assert cache.get(FLAGS) == config(11)


def test_an_end_that_is_told_late_takes_nothing_from_the_run_that_goes_on() -> None:
    cache = busy()
    cache.keep(PLAN, plan("RollingBack", 10), ours=True)
    cache.keep(FLAGS, config(11), ours=True)
    assert not cache.note(PLAN, plan("Succeeded", 8))
    assert cache.get(FLAGS) == config(11)


@pytest.mark.parametrize("end", ["deleted", "released"])
def test_once_it_is_gone_or_released_nothing_is_kept(end: str) -> None:
    cache = busy()
    cache.keep(FLAGS, config(6), ours=True)
    if end == "deleted":
        assert cache.note(FLAGS, config(7), deleted=True)
    else:
        cache.keep(FLAGS, config(7, claim=None), ours=True)
    assert (cache.get(FLAGS), cache.known(FLAGS)) == (None, None)
    cache.note(FLAGS, config(9))
    assert cache.get(FLAGS) is None, "the next plan has not read it"


def test_what_others_call_a_managed_field_is_not_kept() -> None:
    cache, body = busy(), config(5)
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


@pytest.mark.parametrize("label", ["before", "after"])
def test_a_label_wakes_no_plan_of_another_namespace(label: str) -> None:
    """Who may write anything in one namespace could keep every plan of another busy."""
    woken: list[Ref] = []
    router = EventRouter(_Streams(), woken.append, lambda *_: None)  # type: ignore[arg-type]
    for namespace in ("shop", "mall"):
        router.plan({"type": "ADDED", "object": plan("Running", uid=f"of-{namespace}", namespace=namespace)})
    woken.clear()
    owners = ["of-mall", "of-shop"] if label == "before" else ["of-shop", "of-mall"]
    for version, owner in enumerate(owners, 5):
        router.target(CONFIG_MAPS, {"type": "MODIFIED", "object": config(version, claim=owner)})
    assert set(woken) == {PLAN}


class _Streams:
    def __init__(self) -> None:
        self.cache = busy()
        self.note, self.known, self.holds = self.cache.note, self.cache.known, self.cache.holds


def test_an_answer_that_comes_after_the_end_of_its_object_revives_nothing() -> None:
    """Our write was answered late: somebody has taken the label off since, so no other event will ever follow."""
    cache = busy()
    cache.keep(FLAGS, config(5), ours=True)
    assert cache.note(FLAGS, config(7), deleted=True)
    cache.keep(FLAGS, config(6), ours=True)
    assert (cache.known(FLAGS), cache.get(FLAGS)) == (None, None)
    cache.keep(FLAGS, config(8), ours=True)
    assert cache.get(FLAGS) == config(8), "claimed again since"


def test_of_few_objects_it_is_remembered_when_they_ended() -> None:
    cache = busy()
    for number in range(3_000):
        cache.note(Ref(CONFIG_MAPS, "shop", f"flags-{number}"), config(7), deleted=True)
    assert len(cache._gone) <= 1_000
