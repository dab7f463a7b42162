"""The spec of a MigrationPlan as frozen models, and the plan as the saga knows it.

Pure. Kinds and gates bring their own fields. `parsing.py` makes a `Plan` of a document; nothing else may.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, create_model, model_validator

from cutover.gates import Gate
from cutover.gates.base import Source
from cutover.objects.databases import Database
from cutover.objects.pod_accounts import accounts_of
from cutover.plan.notifications import Notification
from cutover.plan.windows import Recurring, Window, opening
from cutover.ports import Ref, Resource
from cutover.saga.turn import DeletionPolicy, OnFailure, Opening, Rules, StepRule
from cutover.schema.model import (
    Duration,
    Label,
    Model,
    Name,
    Text,
    parse_duration,
    show_duration,
    validations,
)
from cutover.steps import KINDS
from cutover.steps.kind import Kind, Target
from cutover.steps.parts import (
    BringsPods,
    ChangesNothing,
    Enforced,
    HasPurposes,
    MakesObjects,
    MayBeIrreversible,
    NeedsGates,
    Purpose,
    RollsOut,
    Unbounded,
)
from cutover.steps.shared.database_kind import DatabaseKind

DEFAULT_STAGE_TIMEOUT: Final = timedelta(minutes=30)
_LAST_START: Final = timedelta(hours=24)
"""The longest start deadline: until it is over, everything that is missing is looked for again and again."""
_START_LATER: Final = ", and retry the plan if it is Refused before it can start"
KIND_KEYS: Final = tuple(kind.key for kind in KINDS)
"""The key in a step that names its kind: each step has exactly one of them."""
_LIST_MAP: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

_ONE_KIND: Final = (
    f"[{', '.join(f'has(self.{key})' for key in KIND_KEYS)}].filter(x, x).size() == 1",
    f"='step ' + self.name + ' must have exactly one of {', '.join(KIND_KEYS)}'",
)

_GATES_NEEDED: Final = tuple(
    (
        f"!has(self.{kind.key}) || (has(self.gates) && size(self.gates) > 0)",
        f"='step ' + self.name + ': a {kind.key} without gates proves nothing; add a gate'",
    )
    for kind in KINDS
    if issubclass(kind, NeedsGates)
)
_WAY_BACK: Final = tuple(kind.undo_rule for kind in KINDS if issubclass(kind, MayBeIrreversible) and kind.undo_rule)


class _StepFields(Model):
    """A step of the plan. Exactly one key names its kind."""

    model_config = ConfigDict(json_schema_extra=validations(_ONE_KIND, *_GATES_NEEDED, *_WAY_BACK))

    name: Label = Field(description="Name of the step, unique in the plan.")
    description: Text = Field(default="", description="Free text, shown in status and reports.")
    timeout: Duration | None = Field(
        default=None,
        description="Maximum duration of one stage, not counting its dwell. Default 30m "
        f"({', '.join(kind.key for kind in KINDS if issubclass(kind, Unbounded))}: no limit); 0s means no limit.",
    )
    retries: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Further attempts when the step itself fails, each after the last one is undone. A failed gate is never retried.",
    )
    on_failure: OnFailure | None = Field(
        default=None,
        description="What happens when this step fails: Rollback undoes everything; Pause stops and lets a user decide. Default: spec.onFailure.",
    )
    irreversible: bool = Field(
        default=False, description="Once this step is done it cannot be undone: a rollback stops after it."
    )
    gates: tuple[Gate, ...] = Field(
        default=(),
        max_length=16,
        description="Checks that each stage of the step must pass.",
        json_schema_extra=_LIST_MAP,
    )

    def given(self) -> dict[str, Kind]:
        """The kinds that the author gives, by their keys; exactly one in a plan that is good."""
        return {key: kind for key in KIND_KEYS if (kind := getattr(self, _attribute(key))) is not None}

    @property
    def kind(self) -> Kind:
        """What the step does."""
        return next(iter(self.given().values()))

    def parts(self) -> tuple[Kind | Source, ...]:
        """The kind of the step and the sources of its gates: all that may write."""
        return (self.kind, *(gate.source for gate in self.gates))

    def serves(self, purpose: Purpose) -> bool:
        """Whether it is for that."""
        kind = self.kind
        return isinstance(kind, HasPurposes) and purpose in kind.purposes()

    def writes(self) -> bool:
        """Whether it writes anything as the plan's account."""
        return bool(self.kind.touches()) or any(_makes(part) for part in self.parts())

    def pod_accounts(self, account: str, *, undo: bool = False) -> frozenset[str]:
        """Service accounts that it gives to pods, other than the plan's, by do or by undo."""
        return _pod_accounts(self.parts(), undo=undo) - {account}

    def undoes(self) -> bool:
        """Whether there may be something to undo."""
        return not isinstance(self.kind, ChangesNothing)

    def workload(self) -> Target | None:
        """The workload that it rolls out."""
        kind = self.kind
        return kind.rolls_out() if isinstance(kind, RollsOut) else None

    def rule(self, on_failure: OnFailure = OnFailure.ROLLBACK) -> StepRule:
        """The step as the saga knows it; `on_failure` is the plan's."""
        kind = self.kind
        default = None if isinstance(kind, Unbounded) else DEFAULT_STAGE_TIMEOUT
        timeout = self.timeout if self.timeout is not None else default
        return StepRule(
            name=self.name,
            kind=kind.key,
            stages=kind.stages(),
            timeout=timeout or None,
            undoes=self.undoes(),
            retries=self.retries,
            on_failure=self.on_failure or on_failure,
            irreversible=self.irreversible,
            enforced=isinstance(kind, Enforced),
        )


def _makes(part: Kind | Source) -> tuple[Resource, ...]:
    return part.makes() if isinstance(part, MakesObjects | Source) else ()


def _pod_accounts(parts: Iterable[Kind | Source], *, undo: bool = False) -> frozenset[str]:
    bring = (part for part in parts if isinstance(part, BringsPods | Source))
    return frozenset().union(*(accounts_of(pod) for part in bring for pod in part.pod_specs(undo=undo)))


def _attribute(key: str) -> str:
    """The attribute of a step that has the kind; models have methods with some of these names."""
    return f"{key}_" if hasattr(Model, key) else key


_KIND_FIELDS: dict[str, Any] = {
    _attribute(kind.key): (
        kind | None,
        Field(default=None, alias=kind.key, description=(kind.__doc__ or "").strip().partition("\n")[0]),
    )
    for kind in KINDS
}
Step = create_model("Step", __base__=_StepFields, __doc__=_StepFields.__doc__, **_KIND_FIELDS)


class Plan(Model):
    """The spec of a plan."""

    service_account_name: Name = Field(
        description="ServiceAccount in the plan's namespace that all writes to targets are made as. It must have the label "
        'cutover.dev/migrator: "true".'
    )
    start_deadline: Annotated[
        Duration, BeforeValidator(partial(parse_duration, most=_LAST_START, hint=_START_LATER))
    ] = Field(
        default=timedelta(minutes=2),
        description="How long to wait for missing prerequisites before the plan is Refused, 24h at most. Default 2m.",
        json_schema_extra=validations(
            (
                f"duration(self) <= duration('{show_duration(_LAST_START)}')",
                f"='startDeadline ' + self + ' is too long; use {show_duration(_LAST_START)} or less{_START_LATER}'",
            )
        ),
    )
    timeout: Duration | None = Field(default=None, description="Maximum time in phase Running. Default: no limit.")
    on_failure: OnFailure = Field(
        default=OnFailure.ROLLBACK,
        description="What happens when a step or a guard fails: Rollback undoes everything; Pause stops and lets a user decide. Default Rollback.",
    )
    deletion_policy: DeletionPolicy = Field(
        default=DeletionPolicy.ROLLBACK,
        description="What deleting an active plan does: Rollback undoes everything first; Orphan leaves everything as it is. Default Rollback.",
    )
    window: Window | None = Field(
        default=None,
        description="When stages may begin, once. A stage that has begun continues; a rollback never waits.",
    )
    windows: tuple[Recurring, ...] = Field(
        default=(), max_length=16, description="When stages may begin, every week; one open window is enough."
    )
    notifications: tuple[Notification, ...] = Field(
        default=(),
        max_length=16,
        description="Which providers are notified of which phases of the plan.",
        json_schema_extra=_LIST_MAP | {"x-kubernetes-list-map-keys": ["provider"]},
    )
    keep_snapshots: Duration = Field(
        default=timedelta(hours=24),
        description="How long after a success a rollback can be requested. Default 24h; 0s means not at all.",
    )
    suspend: bool = Field(
        default=False,
        description="If true, no new stage starts. The only spec field that can change while the plan is active.",
    )
    databases: tuple[Database, ...] = Field(
        default=(),
        max_length=8,
        description="The databases that steps work in, by name.",
        json_schema_extra=_LIST_MAP,
    )
    guards: tuple[Gate, ...] = Field(
        default=(),
        max_length=16,
        description="Checks evaluated throughout the run. When one fails, the plan follows onFailure.",
        json_schema_extra=_LIST_MAP
        | validations(
            ("self.all(guard, !has(guard.successThreshold))", "a guard has no successThreshold; remove it"),
        ),
    )
    steps: tuple[Step, ...] = Field(
        min_length=1, max_length=64, description="The steps, done in this order.", json_schema_extra=_LIST_MAP
    )

    @model_validator(mode="after")
    def _connected(self) -> Plan:
        for step in self.steps:
            for kind in step.given().values():
                if isinstance(kind, DatabaseKind):
                    kind.connect(self.databases)
        return self

    def opening(self, now: datetime) -> Opening:
        """Whether a stage may begin now."""
        return opening((self.window,) if self.window else self.windows, now)

    def step(self, name: str) -> Any:
        """A step by name."""
        return next(step for step in self.steps if step.name == name)

    def parts(self) -> tuple[Kind | Source, ...]:
        """The kinds of all steps and the sources of all gates and guards: all that may write."""
        return (*(part for step in self.steps for part in step.parts()), *(guard.source for guard in self.guards))

    def targets(self, namespace: str) -> list[Ref]:
        """Every object that the steps change, once, in the order of the steps."""
        return list(dict.fromkeys(target.ref(namespace) for step in self.steps for target in step.kind.touches()))

    def makes(self) -> list[Resource]:
        """Kinds of objects that it creates, as its account."""
        return list(dict.fromkeys(resource for part in self.parts() for resource in _makes(part)))

    def reads(self, namespace: str) -> list[Ref]:
        """Objects that it reads as its account."""
        kinds = [step.kind for step in self.steps if isinstance(step.kind, MakesObjects)]
        return list(dict.fromkeys(target.ref(namespace) for kind in kinds for target in kind.reads()))

    def pod_accounts(self) -> list[str]:
        """Service accounts that it gives to pods, other than its own."""
        parts = self.parts()
        return sorted((_pod_accounts(parts) | _pod_accounts(parts, undo=True)) - {self.service_account_name})

    def rules(self, generation: int, spec_hash: str) -> Rules:
        """The plan as the saga knows it."""
        return Rules(
            steps=tuple(step.rule(self.on_failure) for step in self.steps),
            generation=generation,
            spec_hash=spec_hash,
            start_deadline=self.start_deadline,
            timeout=self.timeout or None,
            on_failure=self.on_failure,
            deletion=self.deletion_policy,
            keep_snapshots=self.keep_snapshots,
            steps_digest=self.steps_digest,
        )

    @cached_property
    def steps_digest(self) -> str:
        """Digest of what the steps do, in their order, without gates and times."""
        does: list[Any] = [
            [step.name, step.kind.key, step.kind.model_dump(mode="json", by_alias=True)] for step in self.steps
        ]
        does += [[database.model_dump(mode="json", by_alias=True)] for database in self.databases]
        return hashlib.sha256(json.dumps(does, sort_keys=True).encode()).hexdigest()[:16]
