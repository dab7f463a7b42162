"""The gates: one file per source of measurements, one line per source in `SOURCES`; `verdict.py` judges what they measure."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, ConfigDict, Field, create_model, model_validator

from cutover.gates.base import Source
from cutover.gates.http import Http
from cutover.gates.job import Job
from cutover.gates.prometheus import Prometheus
from cutover.gates.readiness import Readiness
from cutover.gates.verdict import NoData, Rule
from cutover.schema.model import Decimal, Duration, Label, Model, parse_duration, show_duration, validations

__all__ = ["FASTEST", "SOURCES", "Bounds", "Gate"]

SOURCES: Final[tuple[type[Source], ...]] = (Readiness, Prometheus, Http, Job)
FASTEST: Final = timedelta(seconds=1)
"""The shortest interval of a gate: each sample is work for a server that others use too."""

_SOME_LIMIT: Final = ("has(self.min) || has(self.max)", "ratio has neither min nor max; give at least one")
_SOME_BOUND: Final = (
    "has(self.min) || has(self.max) || has(self.ratio)",
    "pass has none of min, max and ratio; give at least one",
)
_RATIO_ALONE: Final = (
    "!has(self.ratio) || (!has(self.min) && !has(self.max))",
    "pass has ratio and also min or max; use two gates",
)
_IN_ORDER: Final = (
    "!has(self.min) || !has(self.max) || double(self.min) <= double(self.max)",
    "='min ' + self.min + ' is above max ' + self.max + ', so nothing could pass; swap or widen them'",
)
_KEYS: Final = ", ".join(kind.key for kind in SOURCES)
_ONE_SOURCE: Final = (
    f"[{', '.join(f'has(self.{kind.key})' for kind in SOURCES)}].filter(x, x).size() == 1",
    f"='gate ' + self.name + ' must have exactly one of {_KEYS}'",
)
_BOUNDED: Final = tuple(
    (
        f"!has(self.{kind.key}) || has(self.pass)",
        f"='gate ' + self.name + ': a gate with {kind.key} needs a bound; add pass with min or max'",
    )
    if kind.needs_bounds
    else (
        f"!has(self.{kind.key}) || !has(self.pass)",
        f"='gate ' + self.name + ': a gate with {kind.key} has its own bound; remove pass'",
    )
    for kind in SOURCES
)
_COMPARED: Final = tuple(
    (
        f"!has(self.{kind.key}) || !has(self.pass) || has(self.{kind.key}.baseline) == has(self.pass.ratio)",
        f"='gate ' + self.name + ': baseline of {kind.key} and pass.ratio belong together; give both or neither'",
    )
    for kind in SOURCES
    if kind.has_baseline
)


class _Limits(Model):
    min: Decimal | None = Field(
        default=None, description='The smallest number that passes, as a string such as "0.99".'
    )
    max: Decimal | None = Field(default=None, description='The largest number that passes, as a string such as "0.5".')

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}, so nothing could pass; swap or widen them")
        return self


class Ratio(_Limits):
    """Bounds of the number divided by its baseline."""

    model_config = ConfigDict(json_schema_extra=validations(_SOME_LIMIT, _IN_ORDER))

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("has neither min nor max; give at least one")
        return self


class Bounds(_Limits):
    """Bounds of a number."""

    model_config = ConfigDict(json_schema_extra=validations(_SOME_BOUND, _RATIO_ALONE, _IN_ORDER))

    ratio: Ratio | None = Field(
        default=None,
        description="Bounds of the number divided by its baseline, instead of bounds of the number itself.",
    )

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.min is None and self.max is None and self.ratio is None:
            raise ValueError("has none of min, max and ratio; give at least one")
        if self.ratio is not None and (self.min, self.max) != (None, None):
            raise ValueError("has ratio and also min or max; use two gates")
        return self


class _GateFields(Model):
    """A check that a stage must pass, or, as a guard, one that must not fail while the plan runs."""

    model_config = ConfigDict(json_schema_extra=validations(_ONE_SOURCE, *_BOUNDED, *_COMPARED))

    name: Label = Field(description="Name of the gate, unique within its step.")
    interval: Annotated[Duration, BeforeValidator(partial(parse_duration, least=FASTEST))] = Field(
        default=timedelta(seconds=15),
        description="Time from one sample to the next, 1s or more. Default 15s.",
        json_schema_extra=validations(
            (
                f"duration(self) >= duration('{show_duration(FASTEST)}')",
                f"='interval ' + self + ' is too short; use {show_duration(FASTEST)} or more'",
            )
        ),
    )
    initial_delay: Duration = Field(
        default=timedelta(), description="How long after the stage took effect the first sample is taken."
    )
    success_threshold: int = Field(
        default=1, ge=1, le=1000, description="Number of consecutive passing samples needed to pass."
    )
    failure_threshold: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Number of failing samples after which it fails: for a gate, total within a stage; for a guard, consecutive.",
    )
    no_data: NoData = Field(
        default=NoData.WAIT,
        description="What a sample without a usable number means: Wait neither passes nor fails; Pass and Fail count it as such. Default Wait.",
    )
    pass_: Bounds | None = Field(default=None, alias="pass", description="Bounds of the number.")

    @property
    def source(self) -> Source:
        """The one source that is set; `plan/` has checked that there is exactly one."""
        found: Source = next(source for kind in SOURCES if (source := getattr(self, kind.key)) is not None)
        return found

    def rule(self, *, guard: bool = False) -> Rule:
        """The gate as `verdict.py` knows it."""
        source, given = self.source, self.pass_ or Bounds.model_construct()
        bounds = given.ratio or given
        return Rule(
            name=self.name,
            interval=self.interval,
            minimum=source.minimum() if bounds.min is None else bounds.min,
            maximum=source.maximum() if bounds.max is None else bounds.max,
            passes_needed=self.success_threshold,
            fails_allowed=self.failure_threshold,
            no_data=self.no_data,
            sustain=source.sustain(),
            guard=guard,
            patient=source.patient and not guard,
            compared=given.ratio is not None,
            unit=source.unit,
        )


_SOURCE_FIELDS: dict[str, Any] = {
    kind.key: (kind | None, Field(default=None, description=(kind.__doc__ or "").strip())) for kind in SOURCES
}
Gate = create_model("Gate", __base__=_GateFields, __doc__=_GateFields.__doc__, **_SOURCE_FIELDS)
