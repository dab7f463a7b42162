"""The figures of the demo, and what makes it fail, from made-up records."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from figures import SETTLE, Migration, Request, rollback_time, wrong_backward, wrong_forward

from cutover.status.status import Current, Phase, Status

ASKED = [10, 25, 50, 100]


def migration(*weights: int, seconds: float = 6.0) -> Migration:
    """One whose weights stood for so many seconds each, from second 100 on."""
    made = Migration(version="2", started=100.0)
    for number, weight in enumerate(weights):
        made.saw_weight(weight, 100.0 + number * seconds)
    made.ended = 100.0 + len(weights) * seconds
    return made


def load(made: Migration, rate: int = 100, off: int = 0) -> list[Request]:
    """Requests at a steady rate, split as the weights say, or so many points beside that."""
    found = []
    for number in range(int((made.ended - 100.0) * rate)):
        at = 100.0 + number / rate
        weight = next(weight for weight, since in reversed(made.weights) if since <= at + 1e-9)
        version = "2" if number * 37 % 100 < weight + (off if weight else 0) else "1"
        found.append(Request(at, 0.001, 200, version))
    return found


def test_a_good_migration() -> None:
    made = migration(0, *ASKED)
    assert list(wrong_forward("shop-2", ASKED, made, load(made))) == []
    assert [(split.weight, round(split.seen)) for split in made.splits(load(made))] == [
        (10, 10),
        (25, 25),
        (50, 50),
        (100, 100),
    ]


def test_a_weight_just_written_is_not_counted() -> None:
    made = migration(0, 100)
    late = [Request(106.0 + SETTLE - 0.01, 0.001, 200, "1"), Request(106.0 + SETTLE + 0.01, 0.001, 200, "2")]
    assert [(split.seen, split.requests) for split in made.splits(late)] == [(100.0, 1)]


def test_one_lost_request() -> None:
    made = migration(0, *ASKED)
    requests = [*load(made), Request(110.0, 10.0, 0, "-"), Request(99.0, 0.1, 503, "-")]
    assert list(wrong_forward("shop-2", ASKED, made, requests)) == ["shop-2 lost 1 requests, by status: {0: 1}"]


def test_a_split_that_is_off() -> None:
    made = migration(0, *ASKED)
    wrong = list(wrong_forward("shop-2", ASKED, made, load(made, off=-7)))
    assert [line.partition(" requests at")[2] for line in wrong] == [
        " weight 10",
        " weight 25",
        " weight 50",
        " weight 100",
    ]
    assert list(wrong_forward("shop-2", ASKED, made, load(made, off=-4))) == []


@pytest.mark.parametrize("missing", ASKED)
def test_a_weight_that_was_not_seen(missing: int) -> None:
    made = migration(0, *(weight for weight in ASKED if weight != missing))
    assert list(wrong_forward("shop-2", ASKED, made, load(made))) == [
        f"shop-2: only 0 requests were seen at weight {missing}; 500 are needed"
    ]


def test_too_few_requests_prove_nothing() -> None:
    made = migration(0, *ASKED)
    assert len(list(wrong_forward("shop-2", ASKED, made, load(made, rate=80)))) == 4
    assert len(list(wrong_forward("shop-2", ASKED, migration(), []))) == 4


def status(phase: Phase, intent: str, at: float) -> Status:
    current = Current(step="shift", intent=intent, started_at=datetime.fromtimestamp(at, UTC))
    return Status(phase=phase, current=current)


def test_the_rollback_time() -> None:
    """It begins with the first status of the rollback: later ones are of other steps."""
    made = migration(0, 10, 0)
    made.saw_status(status(Phase.RUNNING, "weight 10", 106.0))
    assert not made.judged
    for at, intent in ((111.9, "undo"), (112.5, "undo")):
        made.saw_status(status(Phase.ROLLING_BACK, intent, at))
    assert made.judged == pytest.approx(111.9)
    assert made.back == 112.0
    sent = [Request(111.95, 0.001, 500, "2"), Request(112.2, 0.001, 200, "1")]
    says = rollback_time(made, sent)
    assert "traffic back: 100 ms\n" in says
    assert "version 2 answered was sent 50 ms after the sample" in says
    assert list(wrong_backward("shop-3", made, [])) == []


def test_a_rollback_that_was_not_seen() -> None:
    made = migration(0, 10)
    assert list(wrong_backward("shop-3", made, [])) == ["shop-3: the failing sample was never seen"]
    made.saw_status(status(Phase.ROLLING_BACK, "undo", 107.0))
    assert list(wrong_backward("shop-3", made, [])) == ["shop-3: the end of the rollback was never seen"]
