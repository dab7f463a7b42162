"""Verbs with which people act on a plan: each sets one annotation, and says what became of it."""

# ruff: noqa: PLC0415 -- a verb imports what only it needs, so that `lint` starts in a blink
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Final

import typer

from cutover.cli.base import TIMED_OUT, Context, Name, Namespace, app, err, fail, out, plans_of, status_of

ANSWER_TIMEOUT: Final = 10.0
"""Seconds the operator has to answer a request."""
_STEP_VERBS: Final = frozenset({"approve", "skip"})


def _request(verb: str, name: str, where: tuple[str | None, str | None], step: str = "", digest: str = "") -> None:
    """Set the annotation, then say what became of it."""
    from cutover.status.requests import RequestVerb, write

    plans = plans_of(*where)
    seen = status_of(plans.get(name))
    if verb in _STEP_VERBS and seen.current is not None:
        step, digest = step or seen.current.step, digest or seen.current.digest
    key, value = write(RequestVerb(verb), plans.user() or "unknown", step, digest if verb == "approve" else "")
    plans.annotate(name, {key: value})
    token = dict(part.split("=", 1) for part in value.split())["token"]
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while time.monotonic() < deadline:
        record = next((found for found in status_of(plans.get(name)).requests if found.token == token), None)
        if record is not None:
            if record.answer != "Accepted":
                fail(f"{verb} was {str(record.answer).lower()}: {record.message}")
            out.print(f"{verb} accepted for plan {name}")
            return
        time.sleep(0.1)
    err.print(f"{verb} is requested, but the operator has not answered within {ANSWER_TIMEOUT:g}s; is it running?")
    raise typer.Exit(TIMED_OUT)


@app.command()
def approve(
    name: Name,
    step: Annotated[str, typer.Option(help="The step; left out, the one that waits.")] = "",
    digest: Annotated[
        str, typer.Option(help="Of what you have seen, as the status showed it; rejected if it is another by now.")
    ] = "",
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Let a step go on that waits for a person."""
    _request("approve", name, (context, namespace), step, digest)


@app.command()
def skip(
    name: Name,
    step: Annotated[str, typer.Option(help="The step; left out, the one in hand.")] = "",
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Take the gates of a step as passed."""
    _request("skip", name, (context, namespace), step)


def _command_for(verb: str) -> Callable[..., None]:
    def command(name: Name, namespace: Namespace = None, context: Context = None) -> None:
        _request(verb, name, (context, namespace))

    return command


for _verb, _help in (
    ("pause", "Stop where the plan is; nothing is undone, and clocks stand still."),
    ("resume", "Let a paused plan go on."),
    ("abort", "Turn back: everything done is undone, last first."),
    ("retry", "Do the failed step of a paused plan again, or examine a refused plan anew."),
    ("rollback", "Take back a plan, also one that has succeeded, while its snapshots are kept."),
    ("abandon", "Let go of a plan and leave everything as it is."),
):
    app.command(_verb, help=_help)(_command_for(_verb))
