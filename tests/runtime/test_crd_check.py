"""When the CRD is compared with the one of this version, and what is said of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from cutover.errors import Denied, Unavailable
from cutover.plan.crd_gap import CrdGap
from cutover.runtime.crd_check import CrdCheck
from support.fakes.older_crd import older

MADE, READY = "status.steps[].made", "status.current.ready"


class Crd:
    """A CRD that is replaced; what has been read of it, and what was told."""

    def __init__(self, *missing: str) -> None:
        self.version, self.reads, self.told = 0, 0, list[CrdGap]()
        self.error: Exception | None = None
        self.replace(*missing)
        self.saves_lose = list[str]()
        self.check = CrdCheck(self.read, self.take, every=3600.0, soon=0.005)

    def take(self, gap: CrdGap) -> None:
        """As the driver does: what was dropped is saved again."""
        self.told.append(gap)
        if self.saves_lose:
            self.check.dropped(self.saves_lose)

    def replace(self, *missing: str) -> None:
        self.version += 1
        self.body = older(*missing)
        self.body["metadata"]["resourceVersion"] = str(self.version)

    async def read(self) -> Any:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.body

    async def until(self, reached: Callable[[], bool]) -> None:
        """Let the check run until it is so."""
        task = asyncio.create_task(self.check.run())
        async with asyncio.timeout(30):
            while not reached():
                await asyncio.sleep(0.001)
        task.cancel()


async def test_a_complete_one_is_read_once() -> None:
    crd = Crd()
    assert "has not been read yet" in crd.check.problem()
    await crd.until(crd.check.first.is_set)
    assert (crd.check.problem(), crd.check.remark(), crd.told, crd.reads) == ("", "", [CrdGap()], 1)


async def test_an_upgrade_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    crd = Crd(MADE)
    caplog.set_level(logging.INFO)
    await crd.until(crd.check.first.is_set)
    assert MADE in crd.check.problem()
    await crd.until(lambda: crd.reads > 3)
    assert [record.levelname for record in caplog.records] == ["WARNING"], "said once"
    crd.replace()
    await crd.until(lambda: not crd.check.problem())
    assert crd.told == [CrdGap.of([MADE]), CrdGap()]
    assert caplog.records[-1].message == "the CRD is as new as the operator"


async def test_what_is_only_shown_is_a_remark() -> None:
    crd = Crd(READY)
    await crd.until(crd.check.first.is_set)
    assert crd.check.problem() == ""
    assert READY in crd.check.remark()


async def test_an_older_one_is_noticed_by_what_a_save_lost() -> None:
    crd = Crd()
    await crd.until(crd.check.first.is_set)
    crd.replace(MADE)
    crd.check.dropped([MADE])
    await crd.until(lambda: MADE in crd.check.problem())
    assert crd.told == [CrdGap(), CrdGap.of([MADE])]


async def test_one_that_may_not_be_read_is_known_by_what_saves_lost() -> None:
    crd = Crd()
    crd.error = Denied("cannot list customresourcedefinitions")
    await crd.until(crd.check.first.is_set)
    assert crd.check.problem() == ""
    assert crd.check.remark() == (
        "whether the CustomResourceDefinition migrationplans.cutover.dev is outdated is not known: "
        "cannot list customresourcedefinitions"
    )
    crd.check.dropped([MADE])
    await crd.until(lambda: MADE in crd.check.problem())
    crd.error = None
    await crd.until(lambda: not crd.check.problem())
    assert [gap for gap, _ in itertools.groupby(crd.told)] == [CrdGap(), CrdGap.of([MADE]), CrdGap()]
    crd.error = Denied("cannot list customresourcedefinitions")
    await crd.until(lambda: bool(crd.check.remark()))
    assert "is not known" in crd.check.remark(), "what was lost before it was read is forgotten"
    crd.error = None
    await crd.until(lambda: not crd.check.remark())


async def test_one_that_may_not_be_read_and_was_upgraded_is_known_by_what_saves_no_longer_lose() -> None:
    crd = Crd()
    crd.error = Denied("cannot list customresourcedefinitions")
    crd.check.dropped([MADE, READY])
    await crd.until(lambda: len(crd.told) > 1)
    crd.saves_lose = [MADE]
    await crd.until(lambda: len(crd.told) > 5)
    assert MADE in crd.check.problem()
    assert READY not in crd.check.problem()
    crd.saves_lose = []
    await crd.until(lambda: not crd.check.problem())
    assert "is not known" in crd.check.remark()
    assert crd.told[-1] == CrdGap()


async def test_without_an_answer_nothing_is_known_and_what_was_known_stays() -> None:
    crd = Crd(MADE)
    crd.error = Unavailable("no answer")
    await crd.until(crd.check.first.is_set)
    assert crd.reads > 2, "it is given time to answer"
    assert "has not been read yet, so plans wait" in crd.check.problem()
    assert [gap.problem for gap in crd.told] == [crd.check.problem()], "no run begins, and those under way are driven"
    crd.error = None
    await crd.until(lambda: MADE in crd.check.problem())
    crd.error, seen = Unavailable("no answer"), crd.reads
    await crd.until(lambda: crd.reads > seen + 2)
    assert MADE in crd.check.problem()
    assert crd.told[-1] == CrdGap.of([MADE])
