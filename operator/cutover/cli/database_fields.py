"""The fields of a database step as people type them: ``FIELD=VALUE``, or a YAML file as in a plan. Pure, but for reading files."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cutover.errors import PlanError, Problem
from cutover.runner_messages.payload import BackfillWork, DatabaseSettings, SchemaWork, Script, ValidateWork
from cutover.schema import yaml_file
from cutover.schema.problems import problems_of

Checked = TypeVar("Checked", bound=BaseModel)
KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "schema": SchemaWork,
    "backfill": BackfillWork,
    "validate": ValidateWork,
}
_OF_DATABASE: Final = "database."
_OPEN: Final = ("[", "{")
"""How a value begins that is YAML: no expression of SQL does."""


def settings_of(given: Sequence[str]) -> DatabaseSettings:
    """The fields of the database: those that begin with ``database.``. Raises PlanError."""
    fields: dict[str, Any] = {"name": "local"}
    for one in given:
        if one.startswith(_OF_DATABASE):
            _put(fields, DatabaseSettings, one.removeprefix(_OF_DATABASE), "schema=shop")
    return _checked(DatabaseSettings, fields, "database")


def work_of(kind: str, file: Path | None, given: Sequence[str]) -> BaseModel:
    """The fields of a kind: those of a file, and over them those that were given.

    Raises:
        PlanError: with everything that is wrong with them.
    """
    fields = dict(_of_file(file)) if file is not None else {}
    fields.pop("database", None)
    for one in given:
        if not one.startswith(_OF_DATABASE):
            _put(fields, KINDS[kind], one, _EXAMPLES[kind])
    for name, value in fields.items():  # as a plan has scripts
        if isinstance(value, dict) and set(value) == {"inline"}:
            fields[name] = {"text": value["inline"]}
    return _checked(KINDS[kind], fields, kind)


def _checked(model: type[Checked], fields: dict[str, Any], place: str) -> Checked:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise PlanError(*(_below(place, one) for one in problems_of(error, fields, model))) from None


def _below(kind: str, problem: Problem) -> Problem:
    return Problem(f"{kind}.{problem.where}" if problem.where else kind, problem.message)


def _of_file(file: Path) -> dict[str, Any]:
    try:
        documents = list(yaml_file.documents(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(Problem(str(file), f"cannot be read ({type(error).__name__})")) from None
    except (yaml.YAMLError, yaml_file.GivenTwiceError) as error:
        raise PlanError(Problem(str(file), f"is not valid YAML: {' '.join(str(error).split())}")) from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise PlanError(Problem(str(file), "must have the fields of one step, as a mapping"))
    return documents[0]


def _put(fields: dict[str, Any], model: type[BaseModel], given: str, example: str) -> None:
    """``set.email=lower(email)`` puts a key into a mapping, ``table=users`` a field."""
    name, equals, text = given.partition("=")
    if not equals or not name:
        raise PlanError(Problem(given, f"is not FIELD=VALUE; write such as {example}"))
    field, _, key = name.partition(".")
    wanted = _type_of(model, field)
    if not key:
        fields[field] = _value(wanted, text)
        return
    inside = fields.setdefault(field, {})
    if not isinstance(inside, dict):
        raise PlanError(Problem(field, "is given as a whole and by its parts; keep one of the two"))
    below = _type_of(wanted, key) if isinstance(wanted, type) and issubclass(wanted, BaseModel) else str
    inside[key] = _value(below, text)


_EXAMPLES: Final = {
    "schema": "up=@up.sql",
    "backfill": "table=users",
    "validate": "queries='[{name: all, sql: SELECT 0}]'",
}


def _type_of(model: Any, field: str) -> Any:
    """What a field takes; text where there is no such field, which the model reports."""
    found = next((one for name, one in model.model_fields.items() if field in (one.alias, name)), None)
    if found is None:
        return str
    choices = [one for one in typing.get_args(found.annotation) if one is not types.NoneType]
    is_union = typing.get_origin(found.annotation) in (typing.Union, types.UnionType)
    return choices[0] if is_union else found.annotation


def _value(wanted: Any, text: str) -> Any:
    """A number where the field takes one, a list of words where it takes several, YAML where it begins like that, a file's text after @."""
    if isinstance(wanted, type) and issubclass(wanted, Script):
        return {"text": _script(text)}
    if text.startswith(_OPEN):
        try:
            return next(iter(yaml_file.documents(text)), text)
        except (yaml.YAMLError, yaml_file.GivenTwiceError):
            return text
    if typing.get_origin(wanted) is tuple:
        return [word.strip() for word in text.split(",")]
    if wanted is bool and text in ("true", "false"):
        return text == "true"
    return int(text) if wanted is int and text.lstrip("-").isdecimal() else text


def _script(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(Problem(text[1:], f"cannot be read ({type(error).__name__})")) from None
