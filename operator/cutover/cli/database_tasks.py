"""What `cutover database` is to do: one step that was typed, or the database steps of a plan, each with the URL of its database."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from pydantic import BaseModel

from cutover.cli.base import USAGE, fail, out, print_error
from cutover.cli.database_fields import KINDS, settings_of, work_of
from cutover.cli.files import file_name, name_of, namespace_of, parsed, read
from cutover.errors import PlanError, Problem
from cutover.field_path import Json
from cutover.plan.spec import Plan
from cutover.runner_messages.payload import DatabaseSettings, Direction, Owner, Payload
from cutover.steps.shared.database_kind import DatabaseKind

_WHO: Final = "local"
"""Namespace, name and uid in the journal of what no plan did."""
_FORM: Final = "with the name of a variable that has postgresql://user:password@host:port/database"


@dataclass(frozen=True)
class Task:
    """One step, and the URL of its database."""

    payload: Payload
    url: str

    @property
    def step(self) -> str:
        """Its name."""
        return self.payload.step


@dataclass(frozen=True)
class Given:
    """What the options say.

    Attributes:
        fields: ``FIELD=VALUE``.
        file: with more of them.
        steps: names.
        url_env: ``NAME`` or ``DB=NAME``.
        direction: what is to be done.
    """

    fields: Sequence[str]
    file: Path | None
    steps: Sequence[str]
    url_env: Sequence[str]
    direction: Direction


def tasks_of(what: str, given: Given) -> list[Task]:
    """In the order in which they are done.

    Args:
        what: a kind, or the file of a plan.
        given: the options.

    Raises:
        PlanError: with everything that is wrong with the step, or with the plan.
    """
    if what in KINDS:
        return [_typed(what, given)]
    if what != "-" and not Path(what).is_file():
        fail(f"{what} is neither a kind of step in a database ({', '.join(KINDS)}) nor the file of a plan", USAGE)
    return _planned(Path(what), given)


def _typed(kind: str, given: Given) -> Task:
    url = _urls((_WHO,), given.url_env)[_WHO]
    if len(given.steps) > 1:
        fail("--step names the one step; give it once", USAGE)
    settings, work = settings_of(given.fields), work_of(kind, given.file, given.fields)
    text = work.model_dump_json(by_alias=True, exclude_defaults=True)
    name = next(iter(given.steps), f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")
    owner = Owner(namespace=_WHO, name=_WHO, uid=_WHO)
    return Task(_payload(owner, (name, kind, work), settings, given.direction), url)


def _payload(
    owner: Owner, step: tuple[str, str, BaseModel], settings: DatabaseSettings, direction: Direction
) -> Payload:
    name, kind, work = step
    document = {"plan": owner, "run": 1, "step": name, "attempt": 1, "fence": 0, "direction": direction}
    return Payload.model_validate(document | {"database": settings, kind: work})


# --- of a plan ----------------------------------------------------------------------------------------------------------


def _planned(file: Path, given: Given) -> list[Task]:
    if given.fields or given.file:
        fail("FIELD=VALUE and --file go with a kind; a plan has its own fields", USAGE)
    document = _document(file)
    kinds = _kinds(parsed(document), given.steps)
    urls = _urls(tuple(dict.fromkeys(kind.works_in() for kind in kinds.values())), given.url_env)
    owner = _owner(namespace_of(document) or _WHO, name_of(document))
    tasks = [
        Task(_payload(owner, (name, kind.key, kind.work()), _settings(kind), given.direction), urls[kind.works_in()])
        for name, kind in kinds.items()
        if not (given.direction is Direction.DOWN and kind.only_reads())
    ]
    return tasks[::-1] if given.direction is Direction.DOWN else tasks


def _document(file: Path) -> Json:
    documents, unreadable = read([file])
    if unreadable or len(documents) != 1:
        fail("; ".join(unreadable) or f"{file_name(file)} has {len(documents)} plans; give a file with one", USAGE)
    return documents[0][1]


def _kinds(plan: Plan, names: Sequence[str]) -> Mapping[str, DatabaseKind]:
    """The database steps of a plan, or those of them that are named."""
    found = {step.name: step.kind for step in plan.steps if isinstance(step.kind, DatabaseKind)}
    if not found:
        raise PlanError(Problem("steps", f"none is of a kind that works in a database ({', '.join(KINDS)})"))
    if unknown := [name for name in names if name not in found]:
        fail(f"no database step is named {', '.join(unknown)}; use {', '.join(found)}", USAGE)
    if names:
        return {name: kind for name, kind in found.items() if name in names}
    for step in plan.steps:
        if step.name not in found:
            out.print(f"{step.name}: {step.kind.key}, which does not work in a database: left out", markup=False)
    return found


def _owner(namespace: str, name: str) -> Owner:
    """A plan in a file has no uid, and needs one that stays the same."""
    return Owner(
        namespace=namespace, name=name, uid=f"{_WHO}-{hashlib.sha256(f'{namespace}/{name}'.encode()).hexdigest()[:16]}"
    )


def _settings(kind: DatabaseKind) -> DatabaseSettings:
    """The plan's, but for the address: from here the database may have another one, which is in the URL."""
    return kind.connected.settings().model_copy(update={"host": None, "port": None, "database": None})


# --- URLs ---------------------------------------------------------------------------------------------------------------


def _urls(databases: Sequence[str], given: Sequence[str]) -> Mapping[str, str]:
    """The URL of each database, from the environment. It is never an argument: everybody on the machine can see those."""
    if not given:
        _no_url("--url-env is missing; give it")
    if any("://" in one for one in given):
        _no_url("--url-env takes the name of a variable, since others can see the arguments of a program; give it")
    named = {one.rpartition("=")[0]: one.rpartition("=")[2] for one in given}
    if "" in named and len(databases) == 1:
        named[databases[0]] = named.pop("")
    wrong = list(_wrong(databases, named))
    for one in wrong[:-1]:
        print_error(one)
    if wrong:
        _no_url(f"{wrong[-1]}; give --url-env")
    return {name: os.environ[named[name]] for name in databases}


def _wrong(databases: Sequence[str], named: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the variables of databases."""
    if "" in named:
        yield f"name the database of {named['']}, as --url-env {databases[0]}={named['']}"
        return
    unknown = [name for name in named if name not in databases]
    yield from (f"{name} is not a database that these steps use; use {', '.join(databases)}" for name in unknown)
    for name in databases:
        if name not in named:
            yield f"database {name} has no URL; give --url-env {name}=NAME"
        elif not os.environ.get(named[name], ""):
            yield f"the environment variable {named[name]} is not set"


def _no_url(message: str) -> NoReturn:
    fail(f"{message} {_FORM}", USAGE)
