"""Many parts of a plan look at the same objects; at one look the API server is asked for each only once, and not for all at a time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import yaml

from cutover.errors import Unavailable
from cutover.ports import CONFIG_MAPS, JOBS, PLANS, PODS, Ref, Resource
from cutover.preflight.look import Look
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from support.fakes.shop import V2, plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import template


class _Counted(MemoryCluster):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.open = self.most_open = 0

    async def get(self, ref: Any) -> Any:
        self.asked.append(str(ref))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        return await super().get(ref)

    async def may(self, *question: Any) -> bool:
        self.asked.append(f"may {question[2]}")
        return await super().may(*question)

    async def create(self, resource: Resource, *about: Any, **more: Any) -> Any:
        self.asked.append(f"create {resource.kind}")
        return await super().create(resource, *about, **more)

    async def list(self, resource: Resource, namespace: str, labels: str = "", *, fresh: bool = True) -> Any:
        self.asked.append(f"{resource.plural} {labels}")
        return await super().list(resource, namespace, labels, fresh=fresh)


async def test_each_object_and_each_list_is_read_once() -> None:
    cluster = _Counted()
    shop(cluster)
    for name in ("one", "other"):
        cluster.put(PODS, {"metadata": {"name": name, "namespace": "shop", "labels": {"app": name}}})
    look = Look(cluster).reader
    lists = await asyncio.gather(*(look.list(PODS, "shop", f"app={name}") for name in ("one", "other", "one")))
    assert [[pod["metadata"]["name"] for pod in pods] for pods in lists] == [["one"], ["other"], ["one"]]
    assert await look.get(V2) == await look.get(V2) == cluster.objects[V2]
    assert cluster.asked == ["pods app=one", "pods app=other", "Deployment shop-v2"]


async def test_each_permission_and_each_dry_run_is_asked_about_once() -> None:
    cluster = _Counted()
    shop(cluster)
    look = Look(cluster).reader
    for _ in range(3):
        assert await look.may("migrator", "shop", "patch", V2.resource, V2.name)
        for name in ("one", "other"):
            body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "shop"}}
            body["spec"] = yaml.safe_load(yaml.safe_load(template("smoke:1")))["spec"]
            await look.create(JOBS, "shop", body, "migrator", dry_run=True)
    assert cluster.asked == ["may patch", "create Job", "create Job"]


async def test_a_look_asks_a_few_things_at_a_time() -> None:
    cluster = _Counted()
    refs = [Ref(CONFIG_MAPS, "shop", f"map-{number}") for number in range(50)]
    for ref in refs:
        cluster.put(CONFIG_MAPS, {"metadata": {"name": ref.name, "namespace": "shop"}, "data": {}})
    look = Look(cluster).reader
    await asyncio.gather(*(look.get(ref) for ref in refs))
    assert cluster.most_open == 4


class _Slow(_Counted):
    """Never answers about a ConfigMap; counts what is still asked."""

    async def get(self, ref: Any) -> Any:
        self.asked.append(str(ref))
        self.open += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.open -= 1


async def test_a_look_without_an_answer_ends_after_a_while_and_asks_nothing_more() -> None:
    cluster = _Slow()
    refs = [Ref(CONFIG_MAPS, "shop", f"map-{number}") for number in range(9)]
    with pytest.raises(Unavailable, match="9 of 9 questions have no answer"):
        async with asyncio.timeout(10), Look(cluster, longest=0.1) as look:
            await asyncio.gather(*(look.reader.get(ref) for ref in refs))
    await asyncio.sleep(0.05)
    assert (len(cluster.asked), cluster.open) == (4, 0)


async def test_what_fails_ends_all_that_a_look_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts ask beside each other, each one thing after the other; none goes on after the turn."""
    run = Simulation(plan(_vast(20, alike=False)), put=shop)
    made = 0

    async def create(*about: Any, **_: Any) -> Any:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return about[2]

    async def may(*_: Any) -> bool:
        await asyncio.sleep(0)
        raise Unavailable("HTTP 503")

    monkeypatch.setattr(run.cluster, "create", create)
    monkeypatch.setattr(run.cluster, "may", may)
    await run.turn()
    at_end = made
    await asyncio.sleep(0.1)
    assert 0 < made == at_end


async def test_the_rest_after_a_look_is_as_long_as_it_lasted_at_least() -> None:
    async with Look(_Counted(), longest=10) as look:
        await asyncio.sleep(0.2)
    assert look.pause >= 2 * 0.2


async def test_the_pause_after_a_look_is_a_minute_at_most() -> None:
    cluster = _Counted()
    async with Look(cluster) as look:
        for number in range(2000):
            await look.reader.may("migrator", "shop", "get", CONFIG_MAPS, f"map-{number}")
    assert look.pause == 60


MISSING = "{name: last, deploy: {workload: {name: nowhere}, replicas: 1}}"


def _vast(steps: int, *, alike: bool) -> str:
    """Sixteen Job gates a step, and something that is missing."""

    def gate(step: int, number: int) -> str:
        image = "smoke:1" if alike else f"smoke:{step}.{number}"
        return f"{{name: g{number}, job: {{template: {template(image)}}}}}"

    soaks = [
        f"{{name: s{step}, check: {{}}, gates: [{', '.join(gate(step, number) for number in range(16))}]}}"
        for step in range(steps)
    ]
    return f"startDeadline: 1h\nsteps: [{', '.join([*soaks, MISSING])}]"


async def _pause_of(spec: str) -> float:
    """Seconds between two looks, long after the first."""
    run = Simulation(plan(spec), put=shop)
    await run.turn()
    run.clock.pass_time(timedelta(minutes=10))
    after = await run.turn()
    assert run.phase is Phase.PENDING
    assert after is not None
    return after.total_seconds()


async def test_what_costs_little_is_looked_at_every_five_seconds() -> None:
    assert await _pause_of(_vast(1, alike=False)) == 5


async def test_what_costs_much_is_looked_at_less_often() -> None:
    assert 30 * 16 * 0.05 <= await _pause_of(_vast(30, alike=False)) < 30
    assert await _pause_of(_vast(63, alike=False)) < 60
    assert await _pause_of(_vast(63, alike=True)) == 5, "the server is asked about equal Jobs once"


async def test_a_plan_that_is_woken_all_the_time_is_not_looked_at_all_the_time() -> None:
    run = Simulation(plan(_vast(30, alike=False)), put=shop)
    await run.turn()
    looked = run.switch.calls
    for _ in range(10):
        run.clock.pass_time(timedelta(seconds=1))
        await run.turn()
    assert run.switch.calls - looked < 20
    assert "there is no Deployment nowhere" in run.status.message, "what was found stays as it is"
    run.clock.pass_time(timedelta(seconds=30))
    await run.turn()
    assert run.switch.calls - looked > 30 * 16


@pytest.mark.parametrize("created_again", [False, True])
async def test_neither_another_spec_nor_another_plan_of_the_name_is_looked_at_sooner(*, created_again: bool) -> None:
    run = Simulation(plan(_vast(30, alike=False)), put=shop)
    await run.turn()
    looked = run.switch.calls
    for number in range(10):
        run.clock.pass_time(timedelta(seconds=1))
        body = plan(f"timeout: {number + 1}h\n{_vast(30, alike=False)}")
        if created_again:
            run.cluster.delete(run.plan)
            await run.turn()
        else:
            body = {**run.cluster.objects[run.plan], "spec": body["spec"]}
            body["metadata"] = {**body["metadata"], "generation": body["metadata"]["generation"] + 1}
        run.cluster.put(PLANS, body)
        await run.turn()
    assert run.switch.calls - looked < 50
    run.clock.pass_time(timedelta(seconds=30))
    await run.turn()
    assert run.switch.calls - looked > 30 * 16
