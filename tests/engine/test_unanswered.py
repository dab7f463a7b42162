"""Preflight cannot read everything: the plan says what, since when, and its deadline counts. Who wants a run to stop waits for no answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cutover.errors import Unavailable
from cutover.ports import SNAPSHOTS, VIRTUAL_SERVICES, Ref, Resource
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
