"""The spec of a MigrationPlan as frozen models, every mistake in it at once, and the plan as the saga knows it.

Pure. `parse` is the only way from a document to a `Plan`; kinds and gates bring their own fields and checks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model

from cutover.errors import PlanError, Problem
from cutover.field_path import Json
from cutover.gates import SOURCES, Gate, Source
from cutover.plan.notifications import Notification
from cutover.plan.windows import Recurring, Window, opening
from cutover.ports import Ref, Resource
from cutover.saga.turn import DeletionPolicy, OnFailure, Opening, Rules, StepRule
from cutover.schema.mistakes import sentences
from cutover.schema.model import Duration, Label, Model, Name, Text, show_duration, validations
from cutover.status.status import Status
from cutover.steps import KINDS, Kind

DEFAULT_STAGE_TIMEOUT: Final = timedelta(minutes=30)
_KEYS: Final = tuple(kind.key for kind in KINDS)
_LIST_MAP: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}

_ONE_KIND: Final = (
    f"[{', '.join(f'has(self.{key})' for key in _KEYS)}].filter(x, x).size() == 1",
    f"='step ' + self.name + ' must have exactly one of {', '.join(_KEYS)}'",
)

_GATES_NEEDED: Final = tuple(
    (
        f"!has(self.{kind.key}) || (has(self.gates) && size(self.gates) > 0)",
        f"='step ' + self.name + ': a {kind.key} without gates proves nothing; add a gate'",
    )
    for kind in KINDS
    if kind.needs_gates
)
_WAY_BACK: Final = tuple(kind.undo_rule for kind in KINDS if kind.undo_rule)


class _StepFields(Model):
    """One item of the plan. Exactly one key names its kind."""

    model_config = ConfigDict(json_schema_extra=validations(_ONE_KIND, *_GATES_NEEDED, *_WAY_BACK))

    name: Label = Field(description="Name of the step, unique in the plan.")
    description: Text = Field(default="", description="Shown to people.")
    timeout: Duration | None = Field(
        default=None,
        description="How long one stage may take beyond its dwell. Default 30m (approve: none); 0s is none.",
    )
    retries: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Further attempts when the step itself fails, each after the last one is undone. A failed gate is never retried.",
    )
    on_failure: OnFailure | None = Field(
        default=None, description="What a failure of this step leads to. Left out: what the plan says."
    )
    irreversible: bool = Field(
        default=False, description="Once this step is done there is no way back before it: a rollback stops after it."
    )
    gates: tuple[Gate, ...] = Field(
        default=(),
        max_length=16,
        description="Checks that each stage of the step must pass.",
        json_schema_extra=_LIST_MAP,
    )

    @property
    def kind(self) -> Kind:
        """What the step does."""
        found: Kind = next(kind for key in _KEYS if (kind := getattr(self, key)) is not None)
        return found

    def parts(self) -> tuple[Kind | Source, ...]:
        """What does the step, and what measures for its gates: all that may write."""
        return (self.kind, *(gate.source for gate in self.gates))

    def writes(self) -> bool:
        """Whether anything is written for it as the plan's account."""
        return bool(self.kind.touches()) or any(part.makes() for part in self.parts())

    def pod_accounts(self, account: str) -> frozenset[str]:
        """Service accounts that it gives to pods, beside the plan's."""
        return frozenset().union(*(part.pod_accounts(account) for part in self.parts()))

    def rule(self, on_failure: OnFailure = OnFailure.ROLLBACK) -> StepRule:
        """The step as the saga knows it; `on_failure` is the plan's."""
        kind = self.kind
        timeout = self.timeout if self.timeout is not None else DEFAULT_STAGE_TIMEOUT if kind.bounded else None
        return StepRule(
            name=self.name,
            kind=kind.key,
            stages=kind.stages(),
            timeout=timeout or None,
            undoes=kind.undoes,
            retries=self.retries,
            on_failure=self.on_failure or on_failure,
            irreversible=self.irreversible,
            keeps=kind.enforced,
        )


_KIND_FIELDS: dict[str, Any] = {
    kind.key: (kind | None, Field(default=None, description=(kind.__doc__ or "").strip().partition("\n")[0]))
    for kind in KINDS
}
Step = create_model("Step", __base__=_StepFields, __doc__=_StepFields.__doc__, **_KIND_FIELDS)


_NAME: Final = TypeAdapter[str](Name)


class Plan(Model):
    """What a person asks for."""

    service_account_name: Name = Field(
        description="Every write to a target is made as this account of the plan's namespace. It must carry the label "
        'cutover.dev/migrator: "true".'
    )
    start_deadline: Duration = Field(
        default=timedelta(minutes=2),
        description="How long what is missing may stay missing before the plan is Refused. Default 2m.",
    )
    timeout: Duration | None = Field(
        default=None, description="Time spent Running after which the plan has failed. Left out: none."
    )
    on_failure: OnFailure = Field(
        default=OnFailure.ROLLBACK, description="Rollback undoes everything; Pause stops and lets a person decide."
    )
    deletion_policy: DeletionPolicy = Field(
        default=DeletionPolicy.ROLLBACK,
        description="What deleting the active plan does: Rollback undoes everything first, Orphan leaves all as it is.",
    )
    window: Window | None = Field(
        default=None, description="When stages may begin, once. What has begun goes on; a rollback never waits."
    )
    windows: tuple[Recurring, ...] = Field(
        default=(), max_length=16, description="When stages may begin, each week; any of them will do."
    )
    notifications: tuple[Notification, ...] = Field(
        default=(),
        max_length=16,
        description="Who is told when the plan comes into which phase.",
        json_schema_extra=_LIST_MAP | {"x-kubernetes-list-map-keys": ["provider"]},
    )
    keep_snapshots: Duration = Field(
        default=timedelta(hours=24),
        description="How long after a success a rollback can still be asked for. Default 24h; 0s is not at all.",
    )
    suspend: bool = Field(
        default=False, description="Starts no new stage. The only field that an active plan may change."
    )
    guards: tuple[Gate, ...] = Field(
        default=(),
        max_length=16,
        description="Checks judged all along; one that fails turns the plan back.",
        json_schema_extra=_LIST_MAP,
    )
    steps: tuple[Step, ...] = Field(
        min_length=1, max_length=64, description="What is done, in this order.", json_schema_extra=_LIST_MAP
    )

    def opening(self, now: datetime) -> Opening:
        """Whether a stage may begin now."""
        return opening((self.window,) if self.window else self.windows, now)

    def step(self, name: str) -> Any:
        """A step by name."""
        return next(step for step in self.steps if step.name == name)

    def parts(self) -> tuple[Kind | Source, ...]:
        """All that may write: what the steps do, and what measures for gates and guards."""
        return (*(part for step in self.steps for part in step.parts()), *(guard.source for guard in self.guards))

    def targets(self, namespace: str) -> list[Ref]:
        """Every object that its steps change, once, in the order of the steps."""
        return list(dict.fromkeys(target.ref(namespace) for step in self.steps for target in step.kind.touches()))

    def makes(self) -> list[Resource]:
        """Kinds of objects that it makes, as its account."""
        return list(dict.fromkeys(resource for part in self.parts() for resource in part.makes()))

    def pod_accounts(self) -> list[str]:
        """Service accounts that it gives to pods, beside its own."""
        return sorted(frozenset().union(*(part.pod_accounts(self.service_account_name) for part in self.parts())))

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
        """Digest of what the steps do, in their order: the way there and back, whatever gates and times are around it."""
        does = [[step.name, step.kind.key, step.kind.model_dump(mode="json", by_alias=True)] for step in self.steps]
        return hashlib.sha256(json.dumps(does, sort_keys=True).encode()).hexdigest()[:16]


def parse(spec: Json) -> Plan:
    """Read `.spec`. Raises PlanError with every mistake in it."""
    try:
        plan = Plan.model_validate(spec)
    except ValidationError as error:
        raise PlanError(*sentences(error, spec, Plan)) from None
    if problems := tuple(_contradictions(plan)):
        raise PlanError(*problems)
    return plan


def account_of(spec: Json) -> str:
    """The service account of a spec that cannot be read otherwise; empty when the name of that cannot be read either."""
    try:
        return _NAME.validate_python(spec.get("serviceAccountName"))
    except ValidationError:
        return ""


def hash_of(name: str, spec: Json) -> str:
    """What identifies a spec: sha256 over the plan's name and all of the spec but `suspend`, in hexadecimal digits."""
    lasting = {key: value for key, value in spec.items() if key != "suspend"}
    text = json.dumps([name, lasting], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _contradictions(plan: Plan) -> Iterator[Problem]:
    """Mistakes that no single field shows."""
    yield from _doubles("steps", "step", [step.name for step in plan.steps])
    yield from _doubles("guards", "guard", [guard.name for guard in plan.guards])
    for guard in plan.guards:
        yield from _of_gate(f"guards[{guard.name}]", guard, None)
    for name in sorted(_repeated([notification.provider for notification in plan.notifications])):
        yield Problem("notifications", f"provider {name} is there more than once; put its phases into one list")
    for notification in plan.notifications:
        for phase in sorted(_repeated(list(notification.phases))):
            yield Problem(f"notifications[{notification.provider}].phases", f"{phase} is there twice; keep one")
    for step in plan.steps:
        place = f"steps[{step.name}]"
        given = [key for key in _KEYS if getattr(step, key) is not None]
        if len(given) != 1:
            found = (
                f"it has {' and '.join(given)}; split it into {len(given)} steps" if given else "it has none; add one"
            )
            yield Problem(place, f"a step has exactly one of {', '.join(_KEYS)}, and {found}")
            continue
        yield from _doubles(f"{place}.gates", "gate", [gate.name for gate in step.gates])
        if step.kind.needs_gates and not step.gates:
            yield Problem(f"{place}.gates", f"a {step.kind.key} without gates proves nothing; add a gate")
        yield from _of_the_way_back(place, step)
        for gate in step.gates:
            yield from _of_gate(f"{place}.gates[{gate.name}]", gate, step)
    if plan.window and plan.windows:
        yield Problem("windows", "the plan has window too; keep one of them")
    yield from _too_long(plan)


def _repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def _doubles(where: str, what: str, names: list[str]) -> Iterator[Problem]:
    for name in sorted(_repeated(names)):
        yield Problem(where, f"{names.count(name)} {what}s are named {name}; give each a name of its own")


def _of_the_way_back(place: str, step: Any) -> Iterator[Problem]:
    says = step.kind.irreversible_reason()
    if says and not step.irreversible:
        yield Problem(f"{place}.{step.kind.key}", says)
    elif says and step.retries:
        why = "an attempt is undone before the next one, and this step cannot be undone; drop retries"
        yield Problem(f"{place}.retries", why)


def _of_gate(place: str, gate: Any, step: Any) -> Iterator[Problem]:
    keys = [source.key for source in SOURCES]
    given = [key for key in keys if getattr(gate, key) is not None]
    if len(given) != 1:
        found = f"it has {' and '.join(given)}; split it" if given else "it has none; add one"
        yield Problem(place, f"a gate has exactly one of {', '.join(keys)}, and {found}")
        return
    source = gate.source
    yield from _of_bounds(place, gate)
    if gate.interval < source.shortest:
        least = show_duration(source.shortest)
        yield Problem(f"{place}.interval", f"{show_duration(gate.interval)} is too short; use {least} or more")
    if source.needs_workload() and (step is None or step.kind.rolls_out() is None):
        why = "a guard belongs to no step" if step is None else f"a {step.kind.key} step rolls out none"
        yield Problem(f"{place}.{source.key}.workload", f"it does not say whose pods, and {why}; name a workload")
    if step is None:
        return
    timeout = step.rule().timeout
    if timeout is None:
        return
    samples, sustain = (gate.success_threshold - 1) * gate.interval, source.sustain()
    needed = source.settle() + gate.initial_delay + max(samples, sustain)
    lower = [
        field
        for field, counts in (
            ("the range of the query", source.settle()),
            ("initialDelay", gate.initial_delay),
            ("successThreshold or interval", samples and samples >= sustain),
            (f"{source.key}.for", sustain and sustain >= samples),
        )
        if counts
    ]
    for stage in step.kind.stages():
        if needed > stage.dwell + timeout:
            yield Problem(
                place,
                f"it needs {show_duration(needed)} to pass, and a stage ends after {show_duration(stage.dwell + timeout)}; "
                f"lower {', '.join(lower)}, or raise the step's timeout",
            )
            return


def _of_bounds(place: str, gate: Any) -> Iterator[Problem]:
    source, given = gate.source, gate.pass_
    if source.needs_bounds and given is None:
        yield Problem(f"{place}.pass", f"a gate with {source.key} needs a bound; add pass with min or max")
    elif not source.needs_bounds and given is not None:
        yield Problem(f"{place}.pass", f"a gate with {source.key} has its own bound; remove pass")
    elif given is not None and given.ratio is not None and not source.baseline_query():
        way = f"add {source.key}.baseline" if source.has_baseline else "use min or max; only prometheus has a baseline"
        yield Problem(f"{place}.pass.ratio", f"there is no baseline to compare with; {way}")
    elif given is not None and given.ratio is None and source.baseline_query():
        yield Problem(
            f"{place}.{source.key}.baseline", "pass bounds no ratio to it; write pass.ratio, or drop baseline"
        )


def _too_long(plan: Plan) -> Iterator[Problem]:
    if not plan.timeout:
        return
    dwell = (
        sum((stage.dwell for step in plan.steps for stage in step.kind.stages()), timedelta()) if _whole(plan) else None
    )
    if dwell is not None and dwell >= plan.timeout:
        yield Problem(
            "timeout",
            f"the steps dwell for {show_duration(dwell)} in all, and the plan turns back after "
            f"{show_duration(plan.timeout)}; raise timeout or shorten the dwells",
        )


def _whole(plan: Plan) -> bool:
    return all(any(getattr(step, key) is not None for key in _KEYS) for step in plan.steps)


_STATUS: Final = TypeAdapter(Status)


def read_status(document: Json) -> Status:
    """Read `.status` as we saved it. Fields of a later version are passed over."""
    return _STATUS.validate_python(document or {})


def write_status(status: Status) -> Json:
    """The status as a JSON document; what is empty or false is left out."""
    return _without_empty(_STATUS.dump_python(status, mode="json", by_alias=True))


def _without_empty(document: Json) -> Json:
    if isinstance(document, dict):
        kept = {key: _without_empty(value) for key, value in document.items()}
        return {
            key: value
            for key, value in kept.items()
            if value is not None and value is not False and value not in ("", [], {})
        }
    if isinstance(document, list):
        return [_without_empty(item) for item in document]
    return document
