"""When stages may begin: one window, or several that recur every week. Pure; read by the driver at each turn.

Daylight saving time is followed as the time zone says: a time that is skipped is taken an hour later, one that comes twice
is taken the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from cutover.saga.turn import Opening
from cutover.schema.model import Model, validations

_DAY: Final = timedelta(days=1)
_AHEAD: Final = 14
"""Days: two weeks, because daylight saving time may skip the window of the first one."""


class Day(StrEnum):
    """A day of the week."""

    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


def _moment(value: object) -> datetime:
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("write a time with its zone, such as 2026-11-28T22:00:00Z") from None
    return found.astimezone(UTC)


def _time_of_day(value: object) -> time:
    if isinstance(value, int):  # YAML 1.1 reads 22:00 without quotes to the base of 60
        raise ValueError(f'YAML has read it as the number {value}; put the time of day in quotes, such as "22:00"')  # noqa: TRY004 -- pydantic makes a sentence of it
    text = value.strftime("%H:%M") if isinstance(value, time) else value
    if not isinstance(text, str) or len(text) != 5 or text[2] != ":":  # noqa: PLR2004 -- HH:MM
        raise ValueError("write a time of day such as 22:00")
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise ValueError("write a time of day such as 22:00") from None


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # what it raises depends on the name
        raise ValueError("write a time zone of the IANA database, such as Europe/Berlin or UTC") from None
    return name


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    PlainSerializer(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ")),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 40}),
]
TimeOfDay = Annotated[
    time,
    BeforeValidator(_time_of_day),
    PlainSerializer(lambda at: at.strftime("%H:%M")),
    WithJsonSchema({"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "maxLength": 5}),
]
Zone = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$"), AfterValidator(_zone)]


class Window(Model):
    """A window that opens once."""

    model_config = ConfigDict(
        json_schema_extra=validations(("self.start < self.end", "the window ends before it starts; swap start and end"))
    )

    start: Moment = Field(description="From when stages may begin.")
    end: Moment = Field(description="Until when stages may begin.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Window:
        if self.end <= self.start:
            raise ValueError("the window ends before it starts; swap start and end")
        return self

    def spans(self, _: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The one span, UTC."""
        yield self.start, self.end


class Recurring(Model):
    """A window that opens on some days of every week."""

    days: tuple[Day, ...] = Field(
        default=tuple(Day),
        min_length=1,
        max_length=7,
        description="The days on which it opens. Default: all.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    from_: TimeOfDay = Field(alias="from", description="When it opens, such as 22:00.")
    to: TimeOfDay = Field(description="When it closes; on the next day, when that is not later.")
    time_zone: Zone = Field(default="UTC", description="Time zone of these times, such as Europe/Berlin. Default UTC.")

    def spans(self, now: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The spans from the one that may have begun yesterday to those two weeks ahead, UTC, in their order.

        One that daylight saving time skips as a whole is left out.
        """
        zone = ZoneInfo(self.time_zone)
        today = now.astimezone(zone).date()
        for ahead in range(-1, _AHEAD + 1):
            day = today + ahead * _DAY
            if list(Day)[day.weekday()] in self.days:
                until = day if self.to > self.from_ else day + _DAY
                begin, end = _at(day, self.from_, zone), _at(until, self.to, zone)
                if begin < end:
                    yield begin, end


def _at(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)


def opening(windows: tuple[Window | Recurring, ...], now: datetime) -> Opening:
    """Whether a stage may begin now, or when it may; without windows it always may."""
    if not windows:
        return Opening(open=True)
    spans = [span for window in windows for span in window.spans(now)]
    if any(begin <= now < end for begin, end in spans):
        return Opening(open=True)
    return Opening(open=False, opens_at=min((begin for begin, _ in spans if begin > now), default=None))
