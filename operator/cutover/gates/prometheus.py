"""Measures with Prometheus: one number from an instant query."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import ClassVar, Final

from pydantic import Field, field_validator

from cutover.gates.base import Source, Surroundings
from cutover.gates.verdict import Measurement
from cutover.model import Duration, Label, show_duration

PLACEHOLDERS: Final = ("window", "namespace", "step")
_PLACEHOLDER: Final = re.compile(r"\$\(([^)]*)\)")
_LEAST_LOOKBACK: Final = timedelta(minutes=1)


class Prometheus(Source):
    """One number from an instant query. NaN, infinity, several series, an empty or a stale answer are no number."""

    key: ClassVar[str] = "prometheus"

    provider_: Label = Field(
        default="default", alias="provider", description="Name of a provider that the administrator configured."
    )
    query: str = Field(
        min_length=1,
        max_length=4096,
        description="PromQL that gives one number. $(window), $(namespace) and $(step) are filled in.",
    )
    window: Duration = Field(
        default=timedelta(minutes=1),
        description="What $(window) stands for. The first sample is taken only when a window has passed since the stage took effect.",
    )

    @field_validator("query")
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

    def settle(self) -> timedelta:
        """A query over a window still sees the time before the stage until the window has passed."""
        return self.window if "$(window)" in self.query else timedelta()

    async def measure(self, around: Surroundings) -> Measurement:
        """Ask the provider once."""
        values = {"window": show_duration(self.window), "namespace": around.namespace, "step": around.step}
        query = _PLACEHOLDER.sub(lambda match: escape(values[match.group(1)]), self.query)
        lookback = max(2 * around.interval, _LEAST_LOOKBACK)
        sample = await around.metrics.query(self.provider_, query, lookback.total_seconds())
        return Measurement(sample.value, around.clock.now(), sample.note)


def escape(text: str) -> str:
    """Text as it may stand inside a PromQL string. Names of Kubernetes hold none of these; this costs nothing."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
