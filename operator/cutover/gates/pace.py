"""How many samples the plans of one namespace take in a second. Pure; used by `watch.py`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Final

_GAP: Final = timedelta(milliseconds=40)
_AT_ONCE: Final = 50


class Pace:
    """Hands out moments for samples: 25 a second for long, 50 at once after a rest.

    The gates of one namespace could otherwise keep the operator, the API server and the provider busy for themselves. Those of many
    plans are taken later than their interval says; none is left out.
    """

    def __init__(self) -> None:
        self._booked = datetime.fromtimestamp(0, UTC)  # until when all moments are handed out, had there been no burst
        self._returned = list[datetime]()  # a heap of those that were given back

    def book(self, now: datetime) -> datetime:
        """The moment for one more sample: now, or later."""
        while self._returned:
            moment = heappop(self._returned)
            if moment >= now:
                return moment
        begin = max(now, self._booked - (_AT_ONCE - 1) * _GAP)
        self._booked = max(self._booked, now) + _GAP
        return begin

    def give_back(self, moment: datetime) -> None:
        """A moment for which nothing is to be taken any more.

        The next one who books gets it, so nobody waits for more samples than are wanted at once, no matter how many were wanted before.
        """
        heappush(self._returned, moment)
