"""From the document to a `Plan`: reads `.spec`, and computes what identifies it. Pure.

`parse` is the only way from a document to a `Plan`. Called by the driver once for each new spec, by preflight and the command line.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from cutover.errors import PlanError
from cutover.field_path import Json
from cutover.plan.contradictions import contradictions
from cutover.plan.spec import Plan
from cutover.schema.model import Name
from cutover.schema.problems import problems_of
from cutover.schema.yaml_text import Room

_NAME: Final = TypeAdapter[str](Name)


def parse(spec: Json, namespace: str = "") -> Plan:
    """Read `.spec`.

    Args:
        spec: as it is written.
        namespace: of the plan, where the document says so and nothing else will check what must be in it.

    Raises:
        PlanError: with every error in it, or with one alone when its texts are too large to go on.
    """
    try:
        plan = Plan.model_validate(spec, context=Room(namespace=namespace))
    except ValidationError as error:
        raise PlanError(*problems_of(error, spec, Plan)) from None
    if problems := tuple(contradictions(plan)):
        raise PlanError(*problems)
    return plan


def account_of(spec: Json) -> str:
    """The service account of a spec that cannot be read; empty when its name cannot be read either."""
    try:
        return _NAME.validate_python(spec.get("serviceAccountName"))
    except ValidationError:
        return ""


def hash_of(name: str, spec: Json, plan: Plan | None) -> str:
    """The identity of a spec: sha256 over the plan's name and all of the spec but `suspend`, in hexadecimal digits.

    Args:
        name: of the plan.
        spec: as it is written. Defaults are not part of it, so that a new version of the operator does not change them.
        plan: what was read of it, so that the formatting of texts does not count; None when it cannot be read.
    """
    lasting = {key: value for key, value in _meaning(spec, plan).items() if key != "suspend"}
    text = json.dumps([name, lasting], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _meaning(written: Json, read: object) -> Json:
    """A part of a document with what its texts contain in place of each text that the models read as a mapping."""
    if isinstance(read, BaseModel):
        names = {field.alias or name: name for name, field in type(read).model_fields.items()}
        return {key: _meaning(value, getattr(read, names[key])) for key, value in written.items()}
    if isinstance(written, list) and isinstance(read, tuple):
        return [_meaning(item, part) for item, part in zip(written, read, strict=True)]
    return read if isinstance(written, str) and isinstance(read, dict) else written
