"""Routes as the `traffic` kind sees them, whatever object they stand in: destinations with weights, pairs of them. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from cutover.field_path import ABSENT, Json, Path
from cutover.routing.branches import Match
from cutover.schema.model import Label, Model, Name

Port = Annotated[int, Field(ge=1, le=65535)]


class Destination(Model):
    """A destination that stands in the route already, as Istio reads it."""

    host: Name = Field(description="Host; a short name is a Service of the plan's namespace.")
    subset: Label | None = Field(default=None, description="Subset, as a DestinationRule defines it.")
    port: Port | None = Field(default=None, description="Port; left out, any.")

    def __str__(self) -> str:
        """As messages name it: ``shop-v2``, ``shop subset v2``."""
        subset = f" subset {self.subset}" if self.subset else ""
        return f"{self.host}{subset}{f' port {self.port}' if self.port else ''}"


@dataclass(frozen=True, slots=True)
class WeightedDestination:
    """One destination of a route, as it stands there.

    Attributes:
        host: as it is written; empty for what is no Service and never ours to shift.
        weight: the weight it has.
        at: where that weight stands.
        entry: what is said of it beside the weight.
    """

    host: str
    subset: str | None
    port: int | None
    weight: int
    at: Path
    entry: Json


@dataclass(frozen=True, slots=True)
class Route:
    """One route of an object.

    Attributes:
        at: where it stands. It is told from the others by its name, or where it has none by all that it matches.
        body: what it says.
        called: how messages name it.
        names: what a plan may call it by.
        destinations: its destinations.
        http: whether it is one of http; only those know headers and mirrors.
    """

    at: Path
    body: Json
    called: str
    names: frozenset[str | int]
    destinations: tuple[WeightedDestination, ...]
    http: bool = True

    def __str__(self) -> str:
        """As messages name it."""
        return self.called


@dataclass(frozen=True, slots=True)
class Pair:
    """The two destinations of one route between which weight is shifted."""

    route: Route
    old: WeightedDestination
    new: WeightedDestination

    @property
    def total(self) -> int:
        """What both have together."""
        return self.old.weight + self.new.weight


@dataclass(frozen=True, slots=True)
class HeaderRoute:
    """A route to be put right above that of a pair, for some of the requests that that one takes.

    Attributes:
        name: what tells it from others: the step's name, and what it is for.
        destination: where all these requests go.
        match: what they have.
    """

    name: str
    destination: WeightedDestination
    match: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an abandoned plan must have left, by the look of it.

    Attributes:
        message: what stands there.
        fields: where, each with what is there without it.
        mirrors: it is a mirror to the new side, which a step that mirrors itself would take for the user's.
    """

    message: str
    fields: tuple[tuple[Path, Json], ...]
    mirrors: bool = False


def number(weight: Json) -> int:
    """A weight that is left out is 0 beside other destinations of a VirtualService; an HTTPRoute always says it."""
    return 0 if weight is ABSENT else int(weight)
