"""The fields of a plan for what the `traffic` kind sets beside the weights: headers, mirrors, cookies. Pure.

`virtual_services.py` and `http_routes.py` turn them into fields of an object with their values, so
that `targets/` writes, compares and restores them like any other field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from cutover.schema.model import Duration, Model, validations

_HEADER: Final = re.compile(r"[a-z0-9]([-a-z0-9_.]{0,126}[a-z0-9])?")
_WAYS: Final = ("exact", "prefix", "regex")
HeaderText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
CookieName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$", min_length=1, max_length=64)]


class HeaderValue(Model):
    """The value of a header: exactly one of the three, as in Istio's StringMatch."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                f"[{', '.join(f'has(self.{way})' for way in _WAYS)}].filter(x, x).size() == 1",
                f"a header is matched by exactly one of {', '.join(_WAYS)}",
            )
        )
    )

    exact: HeaderText | None = Field(default=None, description="The whole value.")
    prefix: HeaderText | None = Field(default=None, description="The beginning of the value.")
    regex: HeaderText | None = Field(default=None, description="An RE2 expression that matches the whole value.")

    @model_validator(mode="after")
    def _one(self) -> HeaderValue:
        given = [way for way in _WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            found = f"it has {' and '.join(given)}; keep one" if given else "it has none; add one"
            raise ValueError(f"a header is matched by exactly one of {', '.join(_WAYS)}, and {found}")
        return self


class Match(Model):
    """Requests that go to the new version before any weight does: those that match all these headers."""

    headers: dict[str, HeaderValue] = Field(
        min_length=1, max_length=8, description="Headers by name, in lower case, with the value that each must have."
    )

    @field_validator("headers", mode="before")
    @classmethod
    def _names(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if str(name) != str(name).lower():
                raise ValueError(f"headers are matched in lower case; write {str(name).lower()} instead of {name}")
            if not _HEADER.fullmatch(str(name)):
                raise ValueError(f"{name!r} is not a valid header name; use lower case letters, digits, -, _ and .")
        return given


class Mirror(Model):
    """Copies of requests go to the new version too; its responses are discarded."""

    percent: int = Field(default=100, ge=1, le=100, description="Percent of the requests to mirror. Default 100.")
    dwell: Duration = Field(default=timedelta(), description="How long to mirror before the first weight.")


class Stickiness(Model):
    """A visitor stays on the version that answered first: its response sets a cookie, and the cookie decides from then on."""

    cookie: CookieName = Field(description="Name of the cookie. Its value differs for each run and step.")
    max_age: Duration = Field(
        default=timedelta(days=1), description="How long a visitor stays on a version; at least 1s. Default 24h."
    )

    @field_validator("max_age")
    @classmethod
    def _a_second(cls, given: timedelta) -> timedelta:
        if given < timedelta(seconds=1):
            raise ValueError("the lifetime of a cookie is in whole seconds; write 1s or more")
        return given

    def sets(self, value: str) -> str:
        """The header value that sets it, for all paths of the host."""
        return f"{self.cookie}={value}; Path=/; Max-Age={int(self.max_age.total_seconds())}; HttpOnly; SameSite=Lax"

    def match(self, value: str) -> Match:
        """Requests that carry it with this value."""
        return Match(headers={"cookie": HeaderValue(regex=rf"^(.*;\s*)?{self.cookie}={value}(\s*;.*)?$")})
