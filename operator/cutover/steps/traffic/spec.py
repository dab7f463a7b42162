"""The fields of a `traffic` step, and what follows from them alone: stages, targets, the written fields. No request is made here."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cutover.field_path import Change, Json
from cutover.objects.hosts import namespace_in, not_a_service
from cutover.ports import Ref
from cutover.routing.branches import Match, Mirror, Stickiness
from cutover.routing.http_routes import HttpRoute, no_prefix, no_subset
from cutover.routing.pairs import pairs
from cutover.routing.routes import Destination, Pair
from cutover.routing.routing import Routing
from cutover.routing.shift import Shift
from cutover.routing.virtual_services import VirtualService
from cutover.saga.turn import StageRule
from cutover.schema.model import Duration, validations
from cutover.schema.problems import WrongFields
from cutover.schema.yaml_text import Room
from cutover.steps.kind import StepContext, Target
from cutover.steps.parts import Enforced
from cutover.steps.shared.backward import DRAIN, Backward, DrainTime
from cutover.steps.shared.ready_sides import UNREADY_DEADLINE
from cutover.targets.snapshots import Snapshot

Weight = Annotated[int, Field(ge=1, le=100)]


class TrafficSpec(Enforced):
    """The fields of a `traffic` step."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                "has(self.virtualService) != has(self.httpRoute)",
                "exactly one of virtualService and httpRoute must be given",
            ),
            (
                ("!has(self.httpRoute) || !has(self.from.subset) && !has(self.to.subset)"),
                "Gateway API has no subsets; create one Service per version and use its name as host",
            ),
            (
                (
                    "!(has(self.match) && size(self.match) > 0 || has(self.mirror) || has(self.stickiness)) || !has(self.virtualService) "
                    "|| !(has(self.virtualService.tcp) && size(self.virtualService.tcp) > 0 "
                    "|| has(self.virtualService.tls) && size(self.virtualService.tls) > 0)"
                ),
                "only http routes support headers and mirrors; move tcp and tls into a step of their own",
            ),
            ("self.weights.isSorted()", "weights must ascend; sort them"),
            (
                (
                    "self.from.host != self.to.host || has(self.from.subset) != has(self.to.subset) "
                    "|| (has(self.from.subset) && self.from.subset != self.to.subset) "
                    "|| has(self.from.port) != has(self.to.port) || (has(self.from.port) && self.from.port != self.to.port)"
                ),
                "='from and to are both ' + self.from.host + '; name two different destinations'",
            ),
        )
    )
    key: ClassVar[str] = "traffic"

    virtual_service: VirtualService | None = Field(
        default=None, description="The object with the weights, in Istio's own API. Exactly one of this and httpRoute."
    )
    http_route: HttpRoute | None = Field(default=None, description="The object with the weights, in the Gateway API.")
    from_: Destination = Field(alias="from", description="The destination that loses traffic.")
    to: Destination = Field(description="The destination that gets traffic.")
    weights: tuple[Weight, ...] = Field(
        min_length=1,
        max_length=32,
        description="Percent of traffic on the new version (to), ascending: a share of the total weight that from and to have at the start. A weight that is already reached is skipped.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    match: tuple[Match, ...] = Field(
        default=(),
        max_length=8,
        description="Requests that go to the new version from before the first weight until the end of the step.",
    )
    mirror: Mirror | None = Field(
        default=None, description="Mirrors requests to the new version before the first weight."
    )
    stickiness: Stickiness | None = Field(
        default=None,
        description="Visitors stay on the version that answered first, from the first weight until the end of the step.",
    )
    dwell: Duration = Field(
        default=timedelta(),
        description="How long the step stays at each weight, and at the header routes (match) before the first weight.",
    )
    settle: Duration = Field(default=timedelta(), description="How long after each write gates are not evaluated.")
    unready_deadline: Duration = UNREADY_DEADLINE
    drain: DrainTime = DRAIN
    backward: Backward = Field(
        default=Backward(), description="What the old side needs before traffic goes back to it."
    )

    @field_validator("from_", "to")
    @classmethod
    def _of_the_namespace(cls, side: Destination, info: ValidationInfo) -> Destination:
        namespace = info.context.namespace if isinstance(info.context, Room) else ""
        if message := not_a_service(side.host, namespace):
            raise WrongFields([("host", message)])
        return side

    @model_validator(mode="after")
    def _makes_sense(self) -> TrafficSpec:
        for before, after in pairwise(self.weights):
            if after <= before:
                raise ValueError(
                    f"weights must ascend, and {after} comes after {before}; sort them and remove duplicates"
                )
        if self.from_ == self.to:
            raise ValueError(f"from and to are both {self.to}; name two different destinations")
        if len(namespaces := {namespace_in(side.host) for side in (self.from_, self.to)} - {""}) > 1:
            both = " and ".join(sorted(namespaces))
            raise ValueError(f"from and to are in namespaces {both}; traffic can be shifted within one namespace only")
        self._one_object()
        if duplicate := self.where.duplicate():
            raise ValueError(duplicate)
        if self.asks_for_http and not self.where.only_http():
            raise ValueError("only http routes support headers and mirrors; move tcp and tls into a step of their own")
        if self.http_route and (subset := self.from_.subset or self.to.subset):
            raise ValueError(no_subset(subset))
        if self.http_route and (message := no_prefix(self.match)):
            raise ValueError(message)
        return self

    def _one_object(self) -> None:
        given = [one for one in (self.virtual_service, self.http_route) if one is not None]
        if len(given) != 1:
            found = "both; keep one" if given else "none; add one"
            raise ValueError(f"exactly one of virtualService and httpRoute must be given, and it has {found}")

    @property
    def asks_for_http(self) -> bool:
        """Whether it has temporary fields, which only http routes support."""
        return bool(self.match or self.mirror or self.stickiness)

    @property
    def ends(self) -> tuple[Destination, Destination]:
        """The old side and the new one, as the step names them."""
        return self.from_, self.to

    @property
    def where(self) -> Routing:
        """The object that has the weights."""
        return self.virtual_service or self.http_route  # type: ignore[return-value]  # the validator requires exactly one

    def stages(self) -> tuple[StageRule, ...]:
        """One per weight; before them the mirror and the header routes, after them the removal of the header routes."""
        return tuple(stage.rule for stage in self.shift().stages())

    def touches(self) -> tuple[Target, ...]:
        """The object that has the weights."""
        return (Target(self.where.resource, self.where.name),)

    def fields(self, target: Target, body: Json) -> list[str]:
        """The weights and the temporary fields."""
        del target
        mirrors, sticks = self.mirror is not None, self.stickiness is not None
        return self.where.fields(body, self.match, mirrors=mirrors, sticks=sticks)

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Both weights of each route, and the temporary fields."""
        return self.shift().restores(snapshot)

    def ref(self, context: StepContext) -> Ref:
        """The object that has the weights, by its full address."""
        return self.touches()[0].ref(context.namespace)

    def shift(self) -> Shift:
        """The stages of the shift and what is in effect in each."""
        return Shift(
            str(self.to),
            self.weights,
            self.dwell,
            self.settle,
            bool(self.match),
            self.mirror,
            self.stickiness is not None,
        )

    def pairs(self, context: StepContext, body: Json) -> list[Pair]:
        """Where the weights of both sides stand in the object. Raises PlanError."""
        return pairs(body, self.where, self.from_, self.to, f"{context.place}.traffic")
