"""The entry point `cutover-database`: one payload, one database, one result.

The payload is a file or an environment variable, the URL comes from an environment variable or a file, the result is written as a termination message. The
exit code says what Kubernetes is to do about the pod (`runner_messages/reasons.py`).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cutover.database.engines.postgresql.engine import opened
from cutover.database.outcome import SIGNALS, Ended, stop
from cutover.database.reporting import Reporter
from cutover.database.run import carry_out, ended
from cutover.errors import PlanError
from cutover.runner_messages.payload import Payload, read_payload
from cutover.runner_messages.progress import Progress
from cutover.runner_messages.reasons import ExitCode, RunnerReason
from cutover.runner_messages.result import Result, identifier
from cutover.runner_messages.sentences import sentence

log = logging.getLogger("cutover.database")
_TERMINATION: Final = "/dev/termination-log"
_LARGEST: Final = 2 * 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit code."""
    options = _options(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for number in SIGNALS:
        signal.signal(number, stop)
    payload = Path(options.payload) if options.payload else os.environ.get(options.payload_env, "")
    result = run(payload, lambda: _url(options))
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what is left is to say how it ended
    with suppress(OSError):
        Path(options.result).write_text(result.encode(), encoding="utf-8")
    return int(result.reason.code)


def run(payload: Path | str, url: Callable[[], str]) -> Result:
    """Do what a payload says; nothing is raised.

    Args:
        payload: the document, or the file that has it.
        url: reads the database's URL.
    """
    result = ended(lambda: _result(payload, url))
    (log.info if result.reason.code is ExitCode.OK else log.error)("%s: %s", result.reason, sentence(result))
    return result


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cutover-database", description="Does one step's work in a database: what a database Job runs."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--payload", metavar="FILE", help="what to do, as JSON")
    what.add_argument("--payload-env", metavar="NAME", help="variable with what to do")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url-env", default="CUTOVER_DATABASE_URL", metavar="NAME", help="variable with the URL")
    where.add_argument("--url-file", metavar="FILE", help="file with the URL")
    parser.add_argument("--result", default=_TERMINATION, metavar="FILE", help="where the result goes")
    return parser.parse_args(arguments)


def _url(options: argparse.Namespace) -> str:
    if not options.url_file:
        return os.environ.get(options.url_env, "")
    try:
        return Path(options.url_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Ended(Result(RunnerReason.INVALID_URL, names=("the file of the URL cannot be read",))) from None


def _result(payload: Path | str, url: Callable[[], str]) -> Result:
    try:
        return _work(read_payload(payload) if isinstance(payload, str) else _payload(payload), url())
    except PlanError as error:
        for problem in error.problems:
            log.error("%s", problem)  # noqa: TRY400 -- a trace would say nothing more
        return Result(RunnerReason.INVALID_PAYLOAD, names=tuple(identifier(one.where) for one in error.problems))


def _payload(file: Path) -> Payload:
    try:
        with file.open(encoding="utf-8") as stream:
            return read_payload(stream.read(_LARGEST))
    except (OSError, UnicodeDecodeError) as error:
        raise Ended(Result(RunnerReason.INVALID_PAYLOAD, "payload", names=(type(error).__name__,))) from None


def _work(payload: Payload, url: str) -> Result:
    with opened(payload, url) as (engine, session):
        return carry_out(payload, engine, session, Reporter(_show))


def _show(progress: Progress) -> None:
    """A line of the log, for people."""
    slow = f", slowed by {progress.slow}" if progress.slow else ""
    log.info(
        "%s: %d of about %d rows, %.0f a second%s",
        progress.activity,
        progress.rows,
        progress.total,
        progress.rate,
        slow,
    )


if __name__ == "__main__":
    sys.exit(main())
