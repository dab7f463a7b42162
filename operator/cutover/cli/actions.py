"""Commands that act on a plan: each sets one request annotation, waits for the operator's answer and prints it.

They write nothing but that annotation; the operator decides. The texts here are the help of each command.
"""

# ruff: noqa: PLC0415 -- a command imports what only it needs, so that `lint` starts fast
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Final

import typer

from cutover.cli.base import ACT, TIMED_OUT, Context, Name, Namespace, app, err, fail, out, plans_of, status_of

ANSWER_TIMEOUT: Final = 10.0
"""Seconds to wait for the operator's answer to a request."""
_STEP_VERBS: Final = frozenset({"approve", "skip"})


def _request(verb: str, name: str, where: tuple[str | None, str | None], step: str = "", digest: str = "") -> None:
    """Set the annotation, wait for the answer and print it."""
    from cutover.status.requests import RequestVerb, write

    plans = plans_of(*where)
    # Read first: what is approved or skipped is what the status shows now, even if the plan moves on before the request arrives.
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
    err.print(
        f"{verb} requested for plan {name}, but the operator did not answer within {ANSWER_TIMEOUT:g}s; "
        "the request stays recorded and may still be applied. Check that the operator is running."
    )
    raise typer.Exit(TIMED_OUT)


@app.command(rich_help_panel=ACT)
def approve(
    name: Name,
    step: Annotated[str, typer.Option(help="Step to approve. Default: the step that waits.")] = "",
    digest: Annotated[
        str,
        typer.Option(
            help="Digest of what you reviewed, from the plan's status. The approval is rejected if it has changed."
        ),
    ] = "",
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Approve a step that waits for approval."""
    _request("approve", name, (context, namespace), step, digest)


@app.command(rich_help_panel=ACT)
def skip(
    name: Name,
    step: Annotated[str, typer.Option(help="Step whose gates to skip. Default: the current step.")] = "",
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Treat the current step's gates as passed."""
    _request("skip", name, (context, namespace), step)


def _command_for(verb: str) -> Callable[..., None]:
    def command(name: Name, namespace: Namespace = None, context: Context = None) -> None:
        _request(verb, name, (context, namespace))

    return command


for _verb, _help in (
    ("pause", "Pause a plan.\n\nNothing is undone, and its timeouts stop until it is resumed."),
    ("resume", "Resume a paused plan."),
    ("abort", "Abort a plan and roll it back.\n\nIts steps are undone, last first."),
    (
        "retry",
        "Retry the failed step of a paused plan or the failed undo of a stuck one, or check a refused plan again.",
    ),
    (
        "rollback",
        "Roll back a plan, even one that has succeeded.\n\nPossible while its snapshots are kept (spec.keepSnapshots).",
    ),
    ("abandon", "Abandon a plan and leave everything as it is.\n\nNothing is undone, and its targets are released."),
):
    app.command(_verb, help=_help, rich_help_panel=ACT)(_command_for(_verb))
