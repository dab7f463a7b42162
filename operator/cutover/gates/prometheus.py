"""Measures with Prometheus: one number from an instant query, or its ratio to the number of a second query."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import ClassVar, Final

from pydantic import Field, field_validator

from cutover.gates.base import GateContext, Source
from cutover.gates.promql import looks_back
from cutover.gates.verdict import Measurement
from cutover.ports import Sample
from cutover.schema.model import Duration, Label, show_duration

PLACEHOLDERS: Final = ("window", "namespace", "step")
_PLACEHOLDER: Final = re.compile(r"\$\(([^)]*)\)")
_LEAST_LOOKBACK: Final = timedelta(minutes=1)


class Prometheus(Source):
    """One number from an instant query. NaN, infinity, several series, an empty or a stale response count as no data."""

    key: ClassVar[str] = "prometheus"
    has_baseline: ClassVar[bool] = True

    provider_: Label = Field(
        default="default", alias="provider", description="Name of a provider that the administrator configured."
    )
    query: str = Field(
        min_length=1,
        max_length=4096,
        description="PromQL that gives one number. $(window), $(namespace) and $(step) are filled in.",
    )
    baseline: str = Field(
        default="",
        max_length=4096,
        description="PromQL of the number to compare with, such as that of the old version; pass.ratio then bounds the ratio of both, taken at the same instant.",
    )
    window: Duration = Field(
        default=timedelta(minutes=1),
        description="The value of $(window). The first sample is taken only when this time has passed since the stage took effect.",
    )

    @field_validator("query", "baseline")
    @classmethod
    def _known_placeholders(cls, query: str) -> str:
        unknown = sorted({name for name in _PLACEHOLDER.findall(query) if name not in PLACEHOLDERS})
        if unknown:
            known = ", ".join(f"$({name})" for name in PLACEHOLDERS)
            raise ValueError(f"$({unknown[0]}) is not a placeholder; there are {known}")
        return query

    def provider(self) -> str:
        """The provider it names."""
        return self.provider_

    def queries(self) -> tuple[str, ...]:
        """Both queries."""
        return (self.query, f"{self.baseline} (the baseline)") if self.baseline else (self.query,)

    def details(self) -> tuple[str, ...]:
        """Both queries, and the window where they have it."""
        window = (f"$(window) is {show_duration(self.window)}",) if self.settle() else ()
        return (*super().details(), *window)

    def looks_back(self) -> timedelta:
        """That of the query; the baseline is meant to be of the past."""
        return looks_back(self.query.replace("$(window)", show_duration(self.window)))

    def baseline_query(self) -> str:
        """The second query."""
        return self.baseline

    def settle(self) -> timedelta:
        """A query over a window includes the time before the stage until the window has passed."""
        return self.window if "$(window)" in self.query + self.baseline else timedelta()

    async def measure(self, context: GateContext) -> Measurement:
        """Query the provider once, or for both numbers, the second at the instant that the server used for the first."""
        seen = await self._ask(context, self.query)
        if seen.value is None or not self.baseline:
            return Measurement(seen.value, context.clock.now(), seen.note)
        base = await self._ask(context, self.baseline, seen.at)
        return compare(seen.value, base, context.clock.now())

    async def _ask(self, context: GateContext, query: str, at: float | None = None) -> Sample:
        values = {"window": show_duration(self.window), "namespace": context.namespace, "step": context.step}
        text = _PLACEHOLDER.sub(lambda match: escape(values[match.group(1)]), query)
        lookback = max(2 * context.interval, _LEAST_LOOKBACK)
        return await context.metrics.query(self.provider_, text, lookback.total_seconds(), at)


def compare(value: float, base: Sample, now: datetime) -> Measurement:
    """The ratio of a number to its baseline. A baseline that is missing, zero or below gives no number."""
    if base.value is None:
        return Measurement(None, now, f"the baseline: {base.note}")
    if base.value <= 0:
        return Measurement(None, now, f"the baseline is {base.value:.6g}; a ratio needs one above 0")
    ratio = value / base.value
    if not math.isfinite(ratio):
        return Measurement(None, now, f"{value:.6g} against a baseline of {base.value:.6g} gives no usable ratio")
    return Measurement(ratio, now, of=f"{value:.6g} against a baseline of {base.value:.6g}")


def escape(text: str) -> str:
    """Text escaped for a PromQL string. Names in Kubernetes contain none of these characters; it costs nothing."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
