"""The report as one HTML file: no script, nothing loaded from elsewhere, readable in light and dark mode and on a phone.

Every text passes through `tag`, which escapes it. Called by `cutover report --html`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cutover.report.evidence import State
from cutover.report.html import Html, style, tag
from cutover.report.summary import TITLES, Bar, PlanSummary, human_duration
from cutover.saga.draft import clock, moment
from cutover.status.report import Result
from cutover.status.status import Phase, StepState

_GOOD, _BAD, _OPEN, _BACK, _DIM = "good", "bad", "open", "back", "dim"
_PHASES: Final = {
    Phase.SUCCEEDED: _GOOD,
    Phase.ROLLED_BACK: _BACK,
    Phase.ROLLING_BACK: _BACK,
    Phase.REFUSED: _BAD,
    Phase.ABANDONED: _BAD,
    Phase.STUCK: _BAD,
}
_RESULTS: Final = {
    Result.MET: ("✓", "Met", _GOOD),
    Result.NOT_MET: ("✗", "Not met", _BAD),
    Result.NOT_MEASURED: ("?", "Not measured", _OPEN),
}
_STATES: Final = {
    State.PROVEN: ("✓", "Proven", _GOOD),
    State.PLANNED: ("·", "Planned", _DIM),
    State.MISSING: ("-", "Missing", _OPEN),
}
_STEPS: Final = {
    StepState.DONE: ("✓", _GOOD),
    StepState.FAILED: ("✗", _BAD),
    StepState.UNDONE: ("↺", _BACK),
    StepState.UNDOING: ("◂", _BACK),
}
_IN_PROGRESS: Final = ("▸", _OPEN)
_LEGEND: Final = "✓ done, ↺ undone, ✗ failed, ▸ ◂ in progress"
_SHEET: Final = """
:root{color-scheme:light dark;--page:#fff;--card:#f6f7f9;--line:#d9dde3;--text:#1b1f24;--soft:#5b6470;
--good:#1a7f37;--bad:#c62828;--open:#8a5a00;--back:#7b3fa0;--dim:#5b6470}
@media (prefers-color-scheme:dark){:root{--page:#14171a;--card:#1d2126;--line:#363c44;--text:#e6e9ec;--soft:#9aa4af;
--good:#56d364;--bad:#ff7b72;--open:#e3b341;--back:#d2a8ff;--dim:#9aa4af}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.6rem;margin:0;line-height:1.2}h2{font-size:1.15rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1rem 0 .25rem;color:var(--soft)}
p{margin:.25rem 0}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}.open{color:var(--open)}
.back{color:var(--back)}.dim{color:var(--dim)}
.badge{display:inline-block;border:1px solid currentColor;border-radius:1rem;padding:0 .7rem;font-weight:600}
ul{list-style:none;margin:0;padding:0}
li{display:grid;grid-template-columns:9.5rem 1fr;gap:.25rem 1rem;padding:.5rem 0;border-top:1px solid var(--line)}
li b{font-weight:600}.mark{font-weight:600;white-space:nowrap}
.bars{display:grid;gap:.3rem;margin:.5rem 0}
.row{display:grid;grid-template-columns:minmax(6rem,14rem) 1fr 5rem;gap:.75rem;align-items:center}
.row .took{text-align:right;font-variant-numeric:tabular-nums}
.track{position:relative;height:1.1rem;background:var(--card);border-radius:.2rem;overflow:hidden}
.bar{position:absolute;top:0;bottom:0;min-width:3px;background:currentColor;border-radius:.2rem}
.times{display:flex;justify-content:space-between}
details{margin-top:.5rem}summary{cursor:pointer;color:var(--soft)}
.warn{color:var(--open)}
@media (max-width:36rem){li{grid-template-columns:1fr;gap:0}
.row{grid-template-columns:1fr auto;gap:0 .75rem}.row .track,.row .times{grid-column:1/-1;grid-row:2}}
@media print{details{display:block}}
"""


def page(summary: PlanSummary) -> str:
    """The content of the file."""
    title = f"Migration {summary.name}: {summary.status.phase or 'not seen yet'}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        tag("title", title),
        style(_SHEET),
    )
    parts = (
        *_head(summary),
        *_criteria(summary),
        *_timeline(summary),
        *_checklist(summary),
        *_events(summary),
        *_history(summary),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *parts)), lang='en')}\n"


def _head(summary: PlanSummary) -> Iterator[Html]:
    status, run = summary.status, summary.status.run
    kind = _PHASES.get(status.phase, _OPEN) if status.phase else _DIM
    yield tag("h1", summary.name)
    begin, end = summary.span
    ran = f"{moment(begin)} to {moment(end)}, {human_duration(end - begin)}" if summary.bars else ""
    where = f"namespace {summary.namespace}{f', run {run.number}' if run else ''}"
    yield tag("p", ", ".join(part for part in (where, ran) if part), class_="soft")
    yield tag("p", tag("span", str(status.phase or "not seen yet by the operator"), class_=f"badge {kind}"))
    if status.message:
        yield tag("p", status.message)


def _item(mark: str, word: str, kind: str, title: str, text: str) -> Html:
    return tag("li", tag("span", f"{mark} {word}", class_=f"mark {kind}"), tag("span", tag("b", f"{title}: "), text))


def _criteria(summary: PlanSummary) -> Iterator[Html]:
    yield tag("h2", "Success criteria")
    if summary.no_report:
        yield tag("p", summary.no_report, class_="soft")
        return
    lines = summary.status.report
    yield tag("ul", *(_item(*_RESULTS[line.result], TITLES[line.criterion], line.evidence) for line in lines))


def _checklist(summary: PlanSummary) -> Iterator[Html]:
    yield tag("h2", "Checklist")
    if summary.no_checklist:
        yield tag("p", summary.no_checklist, class_="soft")
    for part in dict.fromkeys(line.part for line in summary.checklist):
        yield tag("h3", f"{part} the migration")
        lines = (line for line in summary.checklist if line.part == part)
        yield tag("ul", *(_item(*_STATES[line.state], line.line, line.proof) for line in lines))


def _timeline(summary: PlanSummary) -> Iterator[Html]:
    if not (bars := summary.bars):
        return
    begin, end = summary.span
    yield tag("h2", "Timeline")
    times = tag("span", tag("span", clock(begin)), tag("span", clock(end)), class_="times soft")
    head = tag("div", tag("span"), times, tag("span"), class_="row")
    yield tag("div", head, *map(_bar, bars), class_="bars")
    yield tag("p", _LEGEND, class_="soft")


def _bar(bar: Bar) -> Html:
    step, (mark, kind) = bar.step, _STEPS.get(bar.step.state, _IN_PROGRESS)
    begin = step.started_at or step.finished_at
    label = f"{step.name} ({step.kind}): {step.state}, started {clock(begin) if begin else 'never'}, {human_duration(bar.duration)}"
    where = f"left:{min(bar.begin, 0.997):.2%};width:{bar.length:.2%}"
    return tag(
        "div",
        tag("span", tag("span", mark, class_=kind), f" {step.name}"),
        tag(
            "span",
            tag("span", class_=f"bar {kind}", style=where),
            class_="track",
            role="img",
            aria_label=label,
            title=label,
        ),
        tag("span", human_duration(bar.duration), class_="took soft"),
        class_="row",
    )


def _events(summary: PlanSummary) -> Iterator[Html]:
    if not summary.events:
        return
    lines = (
        tag(
            "li",
            tag("span", clock(event.at), class_="soft"),
            tag("span", tag("b", f"{event.reason}: ", class_="warn" if event.warning else ""), event.note),
        )
        for event in summary.events
    )
    yield tag("h2", "Events")
    yield tag(
        "details", tag("summary", f"{len(summary.events)} events that the API server still has"), tag("ul", *lines)
    )


def _history(summary: PlanSummary) -> Iterator[Html]:
    if not summary.status.history:
        return
    yield tag("h2", "Earlier runs")
    yield tag(
        "ul",
        *(
            _item(
                "",
                str(past.phase),
                _PHASES.get(past.phase, _OPEN),
                f"run {past.number}, {moment(past.started_at)}",
                past.message,
            )
            for past in summary.status.history
        ),
    )
