"""How a run of the runner ends: exceptions that carry the result, wherever it is found out.

Raised by engines and works; `works/transactions.py` runs again what may succeed now, and `main.py` ends the process.
"""

from __future__ import annotations

import signal
from typing import Final, NoReturn

from cutover.runner_messages.result import Result
from cutover.runner_messages.sentences import sentence


class _WithResult(Exception):
    def __init__(self, result: Result) -> None:
        super().__init__(sentence(result))
        self.result = result


class Ended(_WithResult):
    """The run is over: the same call would end the same way, now."""


class LockNotGranted(_WithResult):
    """A lock was not to be had in time, or another transaction was in the way. Nothing was done; the transaction may run again.

    The result says how the run ends if it never is: who had the lock, and what wanted it.
    """


class ConnectionBroken(_WithResult):
    """The connection is gone. Whether the last COMMIT took effect is not known: the journal tells.

    The result says how the run ends when there is no other connection.
    """


class Stopped(KeyboardInterrupt):
    """SIGTERM: the transaction that runs is rolled back, and the run ends. A KeyboardInterrupt, because drivers cancel on those."""


SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""Those that end a run."""


def stop(number: int, frame: object) -> NoReturn:
    """Handles the first of these signals: the transaction that runs is rolled back on the way out, and no other one disturbs that."""
    del number, frame
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise Stopped
