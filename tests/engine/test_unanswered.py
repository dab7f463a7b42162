"""Preflight cannot read everything: the plan says what, since when, and its deadline counts. Who wants a run to stop waits for no answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from cutover.errors import Unavailable
from cutover.ports import SNAPSHOTS, VIRTUAL_SERVICES, Ref, Resource, Sample
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from steps.test_sides_without_pods import staffed
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation

SHIFT = """
startDeadline: 2m
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}
"""
BROKEN = "GET /apis/networking.istio.io/v1: HTTP 500: conversion webhook failed"
SAYS = f"not everything that the plan needs could be read since 2026-01-01 12:00 UTC; the API server is unavailable: {BROKEN}"


def broken(run: Simulation, *, saves: bool = False) -> Any:
    """Reads of one kind get no answer, with `saves` neither does a save; returns what makes it whole again."""
    get, save = run.cluster.get, run.cluster.save_status

    async def read(ref: Ref) -> Any:
        if ref.resource == VIRTUAL_SERVICES:
            raise Unavailable(BROKEN)
        return await get(ref)

    async def unsaved(*_: Any) -> Any:
        raise Unavailable("connection refused")

    def whole() -> None:
        run.cluster.get, run.cluster.save_status = get, save  # type: ignore[method-assign]

    run.cluster.get = read  # type: ignore[method-assign]
    if saves:
        run.cluster.save_status = unsaved  # type: ignore[method-assign,assignment]
    return whole


def warned(run: Simulation) -> list[str]:
    return [notice.message for notice in run.recorder.notices if notice.reason == "Unanswered" and notice.warning]


async def test_what_cannot_be_read_is_reported_and_the_deadline_counts() -> None:
    run = Simulation(plan(SHIFT), put=shop)
    broken(run)
    begin = run.clock.now()
    await run.until(lambda: run.status.reason == "Unanswered")
    assert run.clock.now() - begin <= timedelta(seconds=15)
    assert (run.phase, run.status.message) == (Phase.PENDING, SAYS)
    assert warned(run) == [SAYS]
    await run.until(lambda: run.phase is Phase.REFUSED)
    assert timedelta(minutes=2) <= run.clock.now() - begin <= timedelta(minutes=2, seconds=10)
    assert (run.status.reason, run.status.message) == ("Unanswered", SAYS)
    assert len(warned(run)) == 1


async def test_the_plan_goes_on_once_it_can_be_read() -> None:
    run = Simulation(plan(SHIFT), put=shop)
    whole = broken(run)
    await run.until(lambda: run.status.reason == "Unanswered")
    whole()
    assert await run.run() is Phase.SUCCEEDED


async def test_a_moment_without_an_answer_is_no_news() -> None:
    run = Simulation(plan(SHIFT), put=shop)
    whole = broken(run)
    await run.turn()
    assert (run.phase, run.status.message) == (Phase.PENDING, "")
    whole()
    assert await run.run() is Phase.SUCCEEDED
    assert warned(run) == []


@pytest.mark.parametrize("minutes", [1, 60])
async def test_an_outage_of_the_whole_server_changes_nothing(minutes: int) -> None:
    """Nothing can be saved then, so nothing is known of it afterwards, however long it took."""
    run = Simulation(plan(SHIFT), put=shop)
    whole = broken(run)
    await run.turn()
    whole()
    whole = broken(run, saves=True)
    for _ in range(minutes):
        run.clock.pass_time(timedelta(minutes=1))
        await run.turn()
    whole()
    assert await run.run() is Phase.SUCCEEDED
    assert warned(run) == []


GATED = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50], dwell: 1h}
    gates:
      - {name: errors, interval: 10s, failureThreshold: 3, prometheus: {query: errors}, pass: {max: "1"}}
"""
GUARDED = """
guards:
  - {name: errors, interval: 10s, failureThreshold: 3, prometheus: {query: errors}, pass: {max: "1"}}
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50], dwell: 1h}
"""


class Judged:
    """A run at its weight, with a gate or guard that fails at its third sample; the samples that were taken."""

    def __init__(self, spec: str) -> None:
        self.run = Simulation(plan(spec), put=staffed())
        self.samples = 0
        self.run.metrics.answer = self._sample
        # Endpoints are read, as where streams are refused.
        self.run.cluster.follow = lambda *_: None

    def _sample(self, _: str) -> Sample:
        shifted = self.run.status.current is not None and self.run.status.current.step == "shift"
        self.samples += shifted
        return Sample(9.0 if shifted else 0.0)

    async def until_samples(self, count: int) -> None:
        await self.run.until(lambda: self.samples >= count)

    def unread(self) -> Callable[[], None]:
        """No object can be read; returns what makes it whole again."""
        get, many = self.run.cluster.get, self.run.cluster.list

        async def unanswered(*_: Any, **__: Any) -> Any:
            raise Unavailable(BROKEN)

        def whole() -> None:
            self.run.cluster.get, self.run.cluster.list = get, many  # type: ignore[method-assign]

        self.run.cluster.get = self.run.cluster.list = unanswered  # type: ignore[method-assign]
        return whole


async def turn_in_vain(run: Simulation) -> None:
    """One turn that gets no answer."""
    missed = run.crashes
    run.clock.pass_time(timedelta(seconds=3))
    await run.turn()
    assert run.crashes == missed + 1


@pytest.mark.parametrize("spec", [GATED, GUARDED], ids=["gate", "guard"])
async def test_a_read_without_an_answer_loses_no_sample(spec: str) -> None:
    judged = Judged(spec)
    await judged.until_samples(2)
    whole = judged.unread()
    await turn_in_vain(judged.run)
    whole()
    assert await judged.run.run() is Phase.ROLLED_BACK
    assert judged.samples == 3


@pytest.mark.parametrize("spec", [GATED, GUARDED], ids=["gate", "guard"])
@pytest.mark.parametrize("lost", [True, False], ids=["not saved", "saved"])
async def test_a_save_without_an_answer_loses_no_sample(spec: str, lost: bool) -> None:  # noqa: FBT001
    judged = Judged(spec)
    run = judged.run
    await run.until(lambda: bool(run.status.current and run.status.current.applied_at))
    await judged.until_samples(2)
    save = run.cluster.save_status

    async def unanswered(*call: Any) -> Any:
        if not lost:
            await save(*call)
        raise Unavailable("connection reset")

    run.cluster.save_status = unanswered  # type: ignore[method-assign,assignment]
    run.request(RequestVerb.RETRY)  # that it is rejected is saved, and nothing else comes of it
    await turn_in_vain(run)
    run.cluster.save_status = save  # type: ignore[method-assign]
    assert await run.run() is Phase.ROLLED_BACK
    assert judged.samples == 3


@pytest.mark.parametrize("spec", [GATED, GUARDED], ids=["gate", "guard"])
async def test_what_fails_is_heard_though_its_targets_cannot_be_read(spec: str) -> None:
    judged = Judged(spec)
    run = judged.run
    await judged.until_samples(1)
    whole = judged.unread()
    for _ in range(4):
        run.clock.pass_time(timedelta(seconds=10))
        await run.turn()
    assert run.phase is Phase.ROLLING_BACK
    assert judged.samples == 3
    whole()
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


def abort(run: Simulation) -> None:
    run.request(RequestVerb.ABORT)


def delete(run: Simulation) -> None:
    run.cluster.delete(run.plan)


@pytest.mark.parametrize("unread", [VIRTUAL_SERVICES, SNAPSHOTS], ids=lambda one: one.plural)
@pytest.mark.parametrize("cause", [abort, delete])
async def test_who_wants_a_run_to_stop_is_heard_though_its_targets_cannot_be_read(unread: Resource, cause: Any) -> None:
    run = Simulation(plan(SHIFT.replace("[50]", "[50, 100], dwell: 1h")), put=staffed())
    await run.until(lambda: bool(run.status.current and run.status.current.step == "shift"))
    for _ in range(3):
        await run.turn()
    run.restart()
    get = run.cluster.get

    async def read(ref: Ref) -> Any:
        if ref.resource == unread:
            raise Unavailable(BROKEN)
        return await get(ref)

    run.cluster.get = read  # type: ignore[method-assign]
    await run.turn()
    assert run.crashes == 1
    cause(run)
    for _ in range(3):
        await run.turn()
    assert run.phase is Phase.ROLLING_BACK
    run.cluster.get = get  # type: ignore[method-assign]
    await run.until(lambda: run.over)
    assert run.specs() == run.specs_before()
