"""The report as people and programs get it: text, JSON and a page, from a plan as the API server has it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml
from rich.console import Console

from cutover.engine.criteria import with_report
from cutover.plan.parsing import hash_of, parse
from cutover.plan.status_document import read_status, write_status
from cutover.report.page import page
from cutover.report.screen import screen
from cutover.report.summary import TITLES, human_duration, summarize, to_document
from cutover.report.terminal import report
from cutover.status.conditions import present
from cutover.status.report import SuccessCriterion
from cutover.status.state import State
from cutover.status.status import Current, Failure, PastRun, Phase, Run, Status, StepState, StepStatus

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
EVIL = "<script>alert('x')</script> & \"quotes\" [bold]not markup[/]"


def a_plan(
    steps: int = 3, phase: Phase = Phase.SUCCEEDED, message: str = "all steps are done", **more: Any
) -> dict[str, Any]:
    """A plan at its end; each step took a minute, one after the other."""
    spec = {
        "serviceAccountName": "migrator",
        "steps": [{"name": f"step-{at}", "wait": {"for": "1m"}} for at in range(steps)],
    }
    states = tuple(
        StepStatus(
            name=f"step-{at}",
            kind="wait",
            state=StepState.DONE,
            attempt=1,
            started_at=NOW + timedelta(minutes=at),
            finished_at=NOW + timedelta(minutes=at + 1),
        )
        for at in range(steps)
    )
    run = Run(
        number=2,
        generation=1,
        spec_hash=hash_of("plan", spec, parse(spec)),
        started_at=NOW,
        finished_at=NOW + timedelta(minutes=steps),
    )
    status = Status(observed_generation=1, phase=phase, message=message, run=run, steps=states, **more)
    status = present(with_report(parse(spec), status), NOW)
    metadata = {"name": "plan", "namespace": "shop", "uid": "u"}
    return {"metadata": metadata, "spec": spec, "status": write_status(status)}


def an_event(note: str, at: datetime = NOW, kind: str = "Normal") -> dict[str, Any]:
    return {"metadata": {}, "eventTime": at.isoformat(), "reason": "StageStarted", "note": note, "type": kind}


def text(body: dict[str, Any], events: tuple[dict[str, Any], ...] = (), width: int = 80) -> str:
    console = Console(width=width, highlight=False, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as shown:
        console.print(report(summarize(body, events, NOW)))
    return shown.get()


class Read(HTMLParser):
    """What a browser would make of a page: its elements, and its text without what is not shown."""

    def __init__(self, whole: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(whole)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def test_all_three_say_the_same() -> None:
    body = a_plan()
    summary = summarize(body, (), NOW)
    made, shown, read = to_document(summary), " ".join(text(body).split()), Read(page(summary))
    assert read.open == []
    for line in made["report"]:
        says = f"{TITLES[SuccessCriterion(line['criterion'])]}: {line['evidence']}"
        assert says in shown
        assert says in read.text
    for line in made["checklist"]:
        says = f"{line['line']}: {line['proof']}"
        assert says in shown
        assert says in read.text
    assert json.loads(json.dumps(made)) == made
    assert yaml.safe_load(yaml.safe_dump(made)) == made
    assert [step["name"] for step in made["steps"]] == ["step-0", "step-1", "step-2"]
    assert made["phase"] == "Succeeded"


def test_no_text_gets_into_the_page_as_anything_else() -> None:
    past = PastRun(number=1, phase=Phase.ROLLED_BACK, reason="x", message=EVIL, started_at=NOW)
    failure = Failure(step=EVIL, reason="GateFailed", message=EVIL)
    body = a_plan(message=EVIL, failure=failure, history=(past,))
    body["metadata"]["namespace"] = EVIL
    body["status"]["steps"][0]["kind"] = EVIL
    summary = summarize(body, (an_event(EVIL),), NOW)
    read = Read(page(summary))
    titles = [attrs["title"] for _, attrs in read.tags if attrs.get("title")]
    assert titles[0] == f"step-0 ({EVIL}): Done, started 12:00:00 UTC, 1m"
    assert read.text.count(EVIL) == 4
    assert {tag for tag, _ in read.tags} <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "main",
            "h1",
            "h2",
            "h3",
            "p",
            "span",
            "b",
            "ul",
            "li",
            "div",
        ),
        *("details", "summary"),
    }
    assert EVIL in text(body, width=400)


def test_no_text_is_read_in_another_order_than_it_has() -> None:
    """An approver reads what stands there: U+202E would show the rest of a line backwards."""
    text = page(summarize(a_plan(message="weight \u202e001\u202c now"), (an_event("\u2067x"),), NOW))
    assert r"weight \u202e001\u202c now" in text
    assert not set(text) & set("\u202e\u202c\u2067")


def test_the_page_loads_nothing() -> None:
    whole = page(summarize(a_plan(), (an_event("x"),), NOW))
    assert not re.search(r"https?:|url\(|@import|src=|href=|<script|<link|<img", whole)
    assert "default-src 'none'; style-src 'unsafe-inline'" in Read(whole).tags[4][1].values()


def test_the_timeline_shows_when_each_step_was() -> None:
    read = Read(page(summarize(a_plan(4), (), NOW)))
    bars = [attrs["style"] for tag, attrs in read.tags if attrs.get("class", "").startswith("bar ")]  # type: ignore[union-attr]
    assert bars == [f"left:{at * 25:.2f}%;width:25.00%" for at in range(4)]
    drawn = [line.split()[2] for line in text(a_plan(4)).splitlines() if "█" in line]
    assert drawn == ["░" * 6 * at + "█" * 6 + "░" * 6 * (3 - at) for at in range(4)]


@pytest.mark.parametrize("width", [60, 80])
def test_a_long_plan_fits_a_terminal(width: int) -> None:
    body = a_plan(64)
    for at, step in enumerate(body["spec"]["steps"]):
        step["name"] = f"{'a-long-name-of-a-step-' * 2}{at}"
        body["status"]["steps"][at]["name"] = step["name"]
    body["status"]["run"]["specHash"] = hash_of("plan", body["spec"], parse(body["spec"]))
    shown = text(body, width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert len([line for line in shown.splitlines() if "█" in line]) == 64


def test_a_plan_that_continues_is_not_judged() -> None:
    body = a_plan(phase=Phase.RUNNING)
    del body["status"]["run"]["finishedAt"], body["status"]["steps"][2]["finishedAt"]
    summary = summarize(body, (), NOW + timedelta(minutes=10))
    assert "the plan is Running; it is evaluated when its run ends" in Read(page(summary)).text
    assert to_document(summary)["noReport"].startswith("the plan is Running")
    assert [bar.duration for bar in summary.bars][-1] == timedelta(minutes=8)


def test_one_that_nobody_has_seen() -> None:
    body = a_plan()
    body["status"] = {"observedGeneration": -1}
    assert "not seen yet by the operator" in text(body)
    assert "evaluated when its run ends" in Read(page(summarize(body, (), NOW))).text


def test_the_screen_of_a_plan_says_how_many_were_met() -> None:
    body = a_plan(phase=Phase.ROLLED_BACK, failure=Failure(reason="Aborted", message="aborted"))
    console = Console(width=100, highlight=False)
    with console.capture() as shown:
        console.print(screen("plan", read_status(body["status"])))
    assert "criteria: 0 of 7 met, 1 not met; for the evidence: kubectl cutover report plan\n" in shown.get()


def shown_at(status: Status, now: datetime) -> str:
    console = Console(width=100, highlight=False)
    with console.capture() as shown:
        console.print(screen("plan", status, now))
    return shown.get()


def test_the_screen_offers_an_approval_only_to_what_waits_for_one() -> None:
    current = Current(step="step-0", stage="1/1", started_at=NOW)
    waits = replace(read_status(a_plan()["status"]), phase=Phase.WAITING, current=current)
    offer = "kubectl cutover approve plan --step step-0"
    assert offer in shown_at(replace(waits, state=State.WAITING), NOW)
    assert offer not in shown_at(replace(waits, state=State.OUTSIDE_WINDOW), NOW)


def test_a_step_that_was_left_as_it_was_took_no_longer_than_its_run() -> None:
    left = read_status(a_plan(steps=1, phase=Phase.ABANDONED)["status"])
    step = replace(left.steps[0], state=StepState.DOING, finished_at=None)
    assert "60.0s" not in shown_at(replace(left, steps=(step,)), NOW + timedelta(days=3))
    assert "Doing  1m" in shown_at(replace(left, steps=(step,)), NOW + timedelta(days=3))


def test_a_run_that_did_nothing() -> None:
    body = a_plan(phase=Phase.REFUSED)
    body["status"].pop("report")
    for step in body["status"]["steps"]:
        step.pop("attempt")
    assert "the run did nothing" in text(body)


def test_a_run_that_did_something_and_was_not_judged() -> None:
    body = a_plan(phase=Phase.ABANDONED)
    body["status"].pop("report")
    shown = " ".join(text(body).split())
    assert "the run was not evaluated: its spec could not be read when it ended" in shown
    assert "did nothing" not in shown


def test_a_spec_that_has_changed_since_is_not_compared_with_the_run() -> None:
    body = a_plan()
    body["spec"]["timeout"] = "1h"
    summary = summarize(body, (), NOW)
    assert (summary.checklist, summary.no_checklist) == ((), "the spec has changed since this run")
    assert "the spec has changed since this run" in text(body)
    assert to_document(summary)["noChecklist"] == "the spec has changed since this run"
    assert len(to_document(summary)["report"]) == 7


def test_a_spec_that_cannot_be_read() -> None:
    body = a_plan()
    body["spec"]["steps"] = []
    body["status"]["run"]["specHash"] = hash_of("plan", body["spec"], None)
    assert summarize(body, (), NOW).no_checklist.startswith("the spec cannot be read: steps: ")


def test_events_of_this_run_in_their_order() -> None:
    events = tuple(an_event(f"event {at}", NOW + timedelta(minutes=at)) for at in (3, -1, 1))
    summary = summarize(a_plan(), events, NOW)
    assert [event.note for event in summary.events] == ["event 1", "event 3"]
    assert "event 1" in Read(page(summary)).text


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(0, "0.0s"), (59.94, "59.9s"), (60, "1m"), (61, "1m 1s"), (3600, "1h"), (3661, "1h 1m"), (90_061, "1d 1h")],
)
def test_how_long(seconds: float, says: str) -> None:
    assert human_duration(timedelta(seconds=seconds)) == says
