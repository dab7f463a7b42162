"""The base of the kinds that work in a database: a Job of the runner, what it is handed, and what its result means.

The operator opens no database and reads no Secret. The truth about what was done is in the database, in a journal that the runner
writes in the same transaction as the work.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from pydantic import Field, PrivateAttr

from cutover.errors import Broken, Problem
from cutover.field_path import Json
from cutover.objects import database_pods, jobs, pods
from cutover.objects.databases import Database
from cutover.objects.jobs import State
from cutover.runner_messages.payload import Direction, Owner, Payload
from cutover.runner_messages.sentences import sentence, summary
from cutover.saga.turn import Done, Failed, StageRule
from cutover.schema.model import Label, Model
from cutover.steps.kind import Kind, StepContext
from cutover.steps.parts import LooksFirst
from cutover.steps.shared import database_look
from cutover.steps.shared.job_kind import JobKind

_PER_ATTEMPT: Final = 1_000_000
"""More than there are attempts of one undo."""


class DatabaseKind(JobKind, LooksFirst):
    """Does its work in a database, by a Job of the runner.

    Idempotent as every `JobKind` is, and once more in the database: its journal says what is done, in the transaction that did it. So a
    Job that was deleted is created again, and several pods at once do the work once.

    A kind of this shape has its fields, `key` and `work`. It overrides `only_reads` and `irreversible_reason` where that differs.
    """

    database: Label | None = Field(
        default=None, description="Name of the database, one of spec.databases. Default: the only one."
    )
    _connected: Database | None = PrivateAttr(default=None)
    made_again: ClassVar[bool] = True

    # --- what a kind says -------------------------------------------------------------------------------------------------

    @abstractmethod
    def work(self) -> Model:
        """Its fields as the runner reads them: the part of the payload below the kind's key."""

    def mistakes(self, before: Mapping[str, Kind]) -> Iterator[tuple[str, str]]:
        """What is wrong with it beside its single fields.

        Args:
            before: the earlier steps of the plan, by their names.

        Yields:
            Each with the field below the kind's key (as ``.up``) and a message.
        """
        del before
        size = len(self._payload(Direction.UP).encode().encode())
        if size > database_pods.LONGEST_PAYLOAD:
            yield (
                "",
                f"takes {size} bytes, and the maximum is {database_pods.LONGEST_PAYLOAD}; split it into several steps",
            )

    # --- which database ---------------------------------------------------------------------------------------------------

    def connect(self, databases: Sequence[Database]) -> None:
        """Called once, when the plan is read: of these databases it works in the one it names, or in the only one."""
        named = [one for one in databases if self.database in (one.name, None)]
        self._connected = named[0] if len(named) == 1 else None

    def not_connected(self, databases: Sequence[Database]) -> str:
        """Why it works in none of them; empty when it does."""
        if self._connected is not None:
            return ""
        names = ", ".join(one.name for one in databases)
        if not databases:
            return "the plan has no databases; add one to spec.databases"
        if self.database is None:
            return f"the plan has several databases; name one of {names}"
        return f"the plan has no database {self.database}; use {names}"

    @property
    def connected(self) -> Database:
        """Its database. Raises Broken: the plan has none for it, which the parser refuses."""
        if self._connected is None:
            raise Broken(f"a step of kind {self.key} without a database")
        return self._connected

    # --- its Jobs ---------------------------------------------------------------------------------------------------------

    def works_in(self) -> str:
        """The name of its database; empty when the plan has none for it."""
        return "" if self._connected is None else self._connected.name

    def stages(self) -> tuple[StageRule, ...]:
        """One: the Job."""
        return (StageRule(f"{self.key} in database {self.works_in()}"),)

    def job_template(self) -> Json:
        """The runner."""
        return database_pods.template(self.connected)

    def undo_template(self) -> Json | None:
        """The runner again; its payload says that it goes back. Where nothing takes the work back it makes sure that none was done."""
        return None if self.only_reads() else self.job_template()

    def changed_since(self) -> str:
        """The image of the settings may have changed between the creation of the Job and the save of its uid."""
        return "" if self.connected.runner.image else ", or the operator's runnerImage has changed since"

    def backoff_limit_of(self, template: Json) -> int:
        """A pod that was killed, or that found no server or no lock, is replaced."""
        del template
        return database_pods.BACKOFF_LIMIT

    def manifest(self, context: StepContext, name: str, template: Json, started: str = "false") -> Json:
        """The Job with its payload; its name tells which way it goes."""
        body = super().manifest(context, name, template, started)
        forward = name == self.name_of(context, undo=0)
        payload = self._payload(Direction.UP if forward else Direction.DOWN, context)
        image = self.connected.runner.image or context.runner_image
        database_pods.complete(body, image, payload.encode())
        return body

    def _payload(self, direction: Direction, context: StepContext | None = None) -> Payload:
        document: dict[str, Any] = {
            "plan": Owner(namespace="none", name="none", uid="none"),
            "run": 1,
            "step": "none",
            "attempt": 1,
            "fence": _PER_ATTEMPT,
        }
        if context is not None:
            owner = context.targets.owner
            # The fence of the run would rise when another process takes over, and the Job of an attempt stays the same.
            again = context.undo_attempt if direction is Direction.DOWN else 0
            document = {
                "plan": Owner(namespace=owner.namespace, name=owner.plan.name, uid=owner.uid),
                "run": owner.run,
                "step": context.targets.step,
                "attempt": context.attempt,
                "fence": context.attempt * _PER_ATTEMPT + again,
            }
        given = {"direction": direction, "database": database_pods.settings_of(self.connected), self.key: self.work()}
        return Payload.model_validate(document | given)

    async def examine(self, context: StepContext) -> list[Problem]:
        """There is an image, and the server accepts both Jobs."""
        if not (self.connected.runner.image or context.runner_image):
            why = "the operator's settings have no runnerImage; set it there, or give an image here"
            return [Problem(f"databases[{self.connected.name}].runner.image", why)]
        return await super().examine(context)

    async def look(self, context: StepContext) -> list[Problem]:
        """The server answers, the role has its rights, and what is there fits."""
        if not self.may_look(context.before):
            return []
        payload = self._payload(Direction.PREFLIGHT, context).encode()
        template = self.job_template()
        key = hashlib.sha256(json.dumps([template, context.runner_image, payload], sort_keys=True).encode()).hexdigest()
        step, owner = context.targets.step, context.targets.owner
        name = jobs.name_of(f"{step[:38].rstrip('-')}-look", owner.uid, owner.run, step, key)
        body = database_look.never_claimed(super().manifest(context, name, template, "true"), context)
        database_pods.complete(body, self.connected.runner.image or context.runner_image, payload)
        place = f"{context.place}.{self.key}"
        return await database_look.look(context, body, place, f"database {self.works_in()}")

    def may_look(self, before: Sequence[Kind]) -> bool:
        """Whether a look before the first step means anything, after these steps of the plan."""
        del before
        return True

    # --- their results ----------------------------------------------------------------------------------------------------

    async def result(self, context: StepContext, ended: State, *, undo: bool) -> Done | Failed:
        """What the runner has left as the termination message, of which only known words, numbers and names are taken."""
        told = database_pods.told_by(
            await pods.pods_of(context.cluster, context.namespace, ended.name), complete=ended.complete
        )
        if ended.complete:
            return Done(message=summary(told) if told else "")
        if told is None:
            return await super().result(context, ended, undo=undo)
        where = f"database {self.connected.name}: {sentence(told)}"
        return Failed(str(told.reason), f"{where}; {jobs.logs(context.namespace, ended.name)}")
