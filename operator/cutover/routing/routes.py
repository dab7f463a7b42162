"""Routes as the `traffic` kind sees them, the same for every object that has routes: destinations with weights, and pairs of them. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from cutover.field_path import ABSENT, Json, Path
from cutover.routing.branches import Match
from cutover.schema.model import Label, Model, Name

Port = Annotated[int, Field(ge=1, le=65535)]

WHOLE: Final = 100
"""Percent: all of what a route or a pair has, and what the weights of a route should add up to."""


class Destination(Model):
    """A destination that the route already has, as Istio reads it."""

    host: Name = Field(description="Host; a short name is a Service of the plan's namespace.")
    subset: Label | None = Field(default=None, description="Subset, as a DestinationRule defines it.")
    port: Port | None = Field(default=None, description="Port. Default: any.")

    def __str__(self) -> str:
        """As messages name it: ``shop-v2``, ``shop subset v2``."""
        subset = f" subset {self.subset}" if self.subset else ""
        return f"{self.host}{subset}{f' port {self.port}' if self.port else ''}"


@dataclass(frozen=True, slots=True)
class WeightedDestination:
    """One destination of a route, with its weight.

    Attributes:
        host: as written in the route; empty for anything but a Service, which is never shifted.
        weight: its weight.
        weight_path: path of that weight in the object.
        entry: the destination as written, without its weight.
    """

    host: str
    subset: str | None
    port: int | None
    weight: int
    weight_path: Path
    entry: Json


@dataclass(frozen=True, slots=True)
class Route:
    """One route of an object.

    Attributes:
        path: its path in the object. It is identified by its name, or if it has none by all that it matches.
        body: the route as written.
        called: its name in messages.
        names: the names by which a plan may refer to it.
        destinations: its destinations.
        http: whether it is an http route; only those support headers and mirrors.
    """

    path: Path
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
        """The weight of both in total."""
        return self.old.weight + self.new.weight


@dataclass(frozen=True, slots=True)
class HeaderRoute:
    """A route to add directly above the route of a pair, for some of the requests that the latter takes.

    Attributes:
        name: what distinguishes it from others: the step's name and its purpose.
        destination: where all its requests go.
        match: the headers of these requests.
    """

    name: str
    destination: WeightedDestination
    match: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that an abandoned plan seems to have left in the object.

    Attributes:
        message: what was found.
        fields: its fields, each with the value to restore.
        mirrors: it is a mirror to the new side, which a step with a mirror of its own would take for the user's.
    """

    message: str
    fields: tuple[tuple[Path, Json], ...]
    mirrors: bool = False


def number(weight: Json) -> int:
    """A weight as a number. An absent one is 0 beside other destinations of a VirtualService; an HTTPRoute always has one."""
    return 0 if weight is ABSENT else int(weight)
