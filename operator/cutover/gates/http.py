"""Measures with any server that returns JSON: one number, selected by JSONPath."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final
from urllib.parse import urlencode

from pydantic import Field, field_validator

from cutover.field_path import Json
from cutover.gates.base import GateContext, Source
from cutover.gates.verdict import Measurement
from cutover.ports import Sample
from cutover.schema.json_path import LONGEST, check, find
from cutover.schema.model import Label

_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?")
_TYPES: Final = {bool: "true or false", str: "a string", list: "a list", dict: "an object", type(None): "null"}


class Http(Source):
    """One number from the JSON of a server. Several values, none, or anything but a number counts as no data."""

    key: ClassVar[str] = "http"

    provider_: Label = Field(
        alias="provider", description="Name of a provider of kind http that the administrator configured."
    )
    path: str = Field(
        default="",
        max_length=1024,
        description="Path below the provider's address, such as /status; only characters that need no quoting.",
    )
    query: Mapping[str, Annotated[str, Field(max_length=1024)]] = Field(
        default_factory=dict, max_length=32, description="Query parameters, each with its value."
    )
    json_path: str = Field(
        min_length=1, max_length=LONGEST, description="Where the number is in the response, such as $.latency.p99."
    )

    @field_validator("path")
    @classmethod
    def _below_the_address(cls, path: str) -> str:
        if any(part in {".", ".."} for part in path.split("/")):
            raise ValueError(
                "has . or .. in it, which leaves the provider's address; write the path below that address"
            )
        if not _PATH.fullmatch(path):
            raise ValueError("write a path such as /v1/status, without a query and of characters that need no quoting")
        return path

    @field_validator("json_path")
    @classmethod
    def _cheap(cls, text: str) -> str:
        check(text)
        return text

    def provider(self) -> str:
        """The provider it names."""
        return self.provider_

    def queries(self) -> tuple[str, ...]:
        """Path and JSONPath."""
        question = f"?{urlencode(self.query)}" if self.query else ""
        return (f"GET {self.path or '/'}{question}, {self.json_path}",)

    async def measure(self, context: GateContext) -> Measurement:
        """Ask the provider once."""
        sample = await context.metrics.fetch(self.provider_, self.path, self.query, self.pick)
        return Measurement(sample.value, context.clock.now(), sample.note)

    def pick(self, document: Json) -> Sample:
        """The one number in a response."""
        found = find(self.json_path, document, 2)
        if not found:
            return Sample(None, "the JSONPath finds nothing in the response")
        if len(found) > 1:
            return Sample(None, "the JSONPath finds several values in the response, not one")
        return _number(found[0])


def _number(found: Json) -> Sample:
    if type(found) in _TYPES:
        return Sample(None, f"the JSONPath finds {_TYPES[type(found)]}, not a number")
    try:
        value = float(found)
    except OverflowError:
        value = math.inf
    return Sample(value) if math.isfinite(value) else Sample(None, "the JSONPath finds a number that is too large")
