"""An API server in memory, for tests and for simulating a plan. Used through `cutover.testing`.

It keeps resourceVersions and generations, applies JSON patches as the real one does (all or nothing; 422 for a
failed test), honours finalizers, and raises for requests that must never be made: weights that no longer add up, a target
written without a claim or with a lower fence.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence

from cutover.errors import Broken, Conflict, Denied, NotFound, NotInstalled
from cutover.field_path import Json, Operation
from cutover.ports import EVENTS, JOBS, NAMESPACES, PLANS, SNAPSHOTS, Ref, Resource
from cutover.testing.crash import CrashSwitch
from cutover.testing.ledger import Ledger
from cutover.testing.questions import Questions
from cutover.testing.server_rules import (
    apply_defaults,
    as_listed,
    check_possible,
    content,
    merged,
    patched,
    picked,
    prune,
    told,
)
from cutover.testing.streams import Streams


class MemoryCluster(Questions):
    """An API server in memory.

    Attributes:
        writes: every write so far, as (verb, object), for counting.
        told: called with each write and its content.
        changed: called with each changed object: before and after, None where absent.
        effects: the writes that changed a spec (of a ConfigMap its data), as ("spec", object).
        unknown: kinds that are not installed.
        refuse: called with each object that a dry run would produce; raises Rejected or Denied as the server would.
        strict: raise for weights that no longer add up.
        rollouts: the controllers complete rollouts.
        templates: the pod template that each workload's controller has rolled out last.
        exits: the exit code with which the pod of a Job (its spec) ends; None while it runs.
        messages: the termination message that its containers leave then.
        status_schema: the schema by which the status of a plan is pruned; None: nothing is.
        ledger: what runs have written, all of which must stand at a success.
    """

    def __init__(self, switch: CrashSwitch | None = None) -> None:
        super().__init__()
        self.writes: list[tuple[str, Ref]] = []
        self.told: Callable[[str, Ref, Json], None] = lambda *_: None
        self.changed: Callable[[Ref, Json | None, Json | None], None] = lambda *_: None
        self.effects: list[tuple[str, Ref]] = []
        self.unknown: set[Resource] = set()
        self.refuse: Callable[[Ref, Json], None] = lambda *_: None
        self.strict, self.rollouts = True, True
        self.templates: dict[Ref, Json] = {}
        self.exits: Callable[[Json], int | None] = lambda _: 0
        self.messages: Callable[[Json], str] = lambda _: ""
        self.status_schema: Json = None
        self.ledger = Ledger()
        self.switch = switch or CrashSwitch()
        self._version = 100
        self.restart()

    def restart(self) -> None:
        """A new process works with it: of the claimed objects it has read none."""
        self._streams = Streams(self.objects)
        self.follow = self._streams.follow
        self.close_streams()

    # --- for tests ----------------------------------------------------------------------------------------------------

    def put(self, resource: Resource, body: Json) -> Ref:
        """Create or replace an object, as people do."""
        body = copy.deepcopy(body)
        apply_defaults(resource, body)
        metadata = body["metadata"]
        ref = Ref(resource, metadata.setdefault("namespace", "shop"), metadata["name"])
        old = self.objects.get(ref)
        metadata.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{ref.name}-{self._version}")
        changed = old is None or old.get("spec") != body.get("spec")
        generation = old["metadata"]["generation"] if old else 0
        metadata["generation"] = generation + 1 if changed else generation
        if old is not None:
            body.setdefault("status", old.get("status"))
        self._store(ref, body)
        return ref

    def report(self, ref: Ref, status: Json) -> None:
        """Set the status of an object, as its controller does."""
        body = self.objects[ref]
        self._store(ref, body | {"metadata": dict(body["metadata"]), "status": status})

    def delete(self, ref: Ref) -> None:
        """Delete an object; one with finalizers is only marked."""
        body = copy.deepcopy(self.objects[ref])
        self.ledger.deleted(ref, body)
        if body["metadata"].get("finalizers"):
            body["metadata"].setdefault("deletionTimestamp", self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"))
            self._store(ref, body)
        else:
            self._remove(ref)

    def terminate(self, namespace: str) -> None:
        """Start deleting a namespace: it stays until it is empty."""
        metadata = {"name": namespace, "namespace": "", "deletionTimestamp": "2026-01-01T12:00:00Z"}
        self.put(NAMESPACES, {"metadata": metadata})

    def _store(self, ref: Ref, body: Json) -> None:
        before = self.objects.get(ref)
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[ref] = body
        self._streams.changed(ref, body)
        self.changed(ref, before, body)

    def _remove(self, ref: Ref) -> None:
        self._version += 1
        self._streams.gone(ref)
        self.changed(ref, self.objects.pop(ref), None)

    def _write(self, verb: str, ref: Ref, content: Json) -> None:
        self.writes.append((verb, ref))
        self.told(verb, ref, content)

    @property
    def version(self) -> int:
        """The resourceVersion of the last change."""
        return self._version

    # --- the port -----------------------------------------------------------------------------------------------------

    async def get(self, ref: Ref) -> Json:
        """Read one object."""
        await asyncio.sleep(0)
        return self._streams.read(ref, self.switch.around(lambda: self._get(ref)))

    async def read_as(self, ref: Ref, account: str) -> Json:
        """Read one object as an account."""
        await asyncio.sleep(0)
        return self.switch.around(lambda: self._read_as(ref, account))

    def _read_as(self, ref: Ref, account: str) -> Json:
        if ("get", ref) in self.denied:
            raise Denied(f"{account} cannot get {ref}")
        return self._get(ref)

    def _get(self, ref: Ref) -> Json:
        if ref.resource in self.unknown:
            raise NotInstalled(f"there is no kind {ref.resource.kind}")
        if ref not in self.objects:
            raise NotFound(f"{ref} not found")
        return self.objects[ref]  # never changed in place, so not copied

    def seen(self, ref: Ref) -> Json | None:
        """The object, if a process keeps its body."""
        return self.objects.get(ref) if self._streams.keeps(ref) else None

    async def list(self, resource: Resource, namespace: str, labels: str = "", *, fresh: bool = True) -> Sequence[Json]:
        """The objects of a kind that a selector picks."""
        del fresh
        await asyncio.sleep(0)
        found: Sequence[Json] = self.switch.around(
            lambda: as_listed(self.objects, picked(self.objects, resource, namespace, labels))
        )
        if ("list", Ref(resource, namespace, "")) in self.denied:
            raise Denied(f"the operator cannot list {resource.plural}")
        return found

    async def events_of(self, ref: Ref, uid: str, reason: str) -> Sequence[Json]:
        """The events about an object with a reason."""
        await asyncio.sleep(0)
        if ("list", Ref(EVENTS, ref.namespace, "")) in self.denied:
            raise Denied("the operator cannot list events")
        return list(self.switch.around(lambda: told(self.objects, ref, uid, reason)))

    async def patch(self, ref: Ref, operations: Sequence[Operation], account: str = "") -> Json:
        """Apply a JSON patch."""
        await asyncio.sleep(0)
        return self._streams.read(ref, self.switch.around(lambda: self._patch(ref, operations, account)))

    async def try_out(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        """A dry run of a JSON patch."""
        await asyncio.sleep(0)
        return self.switch.around(lambda: self._try_out(ref, operations, account))

    def _try_out(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        self._allowed(ref, account)
        body = self._patched(ref, operations)
        self.refuse(ref, body)
        return body

    def _allowed(self, ref: Ref, account: str) -> None:
        if ("patch", ref) in self.denied:
            raise Denied(f"{account or 'the operator'} cannot patch {ref}")

    def _patched(self, ref: Ref, operations: Sequence[Operation]) -> Json:
        return patched(ref.resource, self._get(ref), operations)

    def _patch(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        before, body = self._get(ref), self._patched(ref, operations)
        if ref.resource not in (PLANS, SNAPSHOTS) and not account:
            raise Broken(f"{ref} is written without an account")
        self._allowed(ref, account)
        check_possible(ref, before, body, strict=self.strict)
        if body == before:
            return before
        self.ledger.note(ref, before, body, self.objects)
        if content(body) != content(before):
            body["metadata"]["generation"] += 1
            self.effects.append(("spec", ref))
        self._write("patch", ref, list(operations))
        if "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers"):
            self._remove(ref)
            return body
        self._store(ref, body)
        return body

    async def dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        """A dry run of a strategic merge patch."""
        await asyncio.sleep(0)
        return self.switch.around(lambda: self._dry_run(ref, patch, account))

    def _dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        before = self._get(ref)
        if not account:
            raise Broken(f"{ref} is patched in a dry run without an account")
        self._allowed(ref, account)
        version = patch.get("metadata", {}).get("resourceVersion", before["metadata"]["resourceVersion"])
        if version != before["metadata"]["resourceVersion"]:
            raise Conflict(f"{ref} is no longer at version {version}")
        after = merged(ref.resource, before, patch)
        self.refuse(ref, after)
        return after

    async def create(
        self, resource: Resource, namespace: str, body: Json, account: str = "", *, dry_run: bool = False
    ) -> Json:
        """Create an object."""
        await asyncio.sleep(0)
        made = self.switch.around(lambda: self._create(resource, namespace, body, account, dry_run=dry_run))
        return made if dry_run else self._streams.read(Ref(resource, namespace, made["metadata"]["name"]), made)

    def _create(self, resource: Resource, namespace: str, body: Json, account: str, *, dry_run: bool) -> Json:
        ref = Ref(resource, namespace, body["metadata"]["name"])
        if resource == JOBS and not account:
            raise Broken(f"{ref} is created without an account")
        if ("create", Ref(resource, namespace, "")) in self.denied:
            raise Denied(f"{account} cannot create {resource.plural}")
        if ref in self.objects:
            raise Conflict(f"{ref} already exists")
        made = copy.deepcopy(body)
        self.refuse(ref, made)
        if dry_run:
            return made
        self._write("create", ref, body)
        made["metadata"]["creationTimestamp"] = self.clock.now().isoformat()
        return self.objects[self.put(resource, made)]

    async def remove(self, ref: Ref, uid: str, account: str) -> None:
        """Delete one object."""
        await asyncio.sleep(0)

        def effect() -> None:
            if not account:
                raise Broken(f"{ref} is deleted without an account")
            if ref in self.objects and self.objects[ref]["metadata"]["uid"] == uid:
                self._write("delete", ref, None)
                self.delete(ref)

        self.switch.around(effect)

    async def delete_all(self, resource: Resource, namespace: str, labels: str) -> None:
        """Delete the objects that a selector picks."""
        await asyncio.sleep(0)

        def effect() -> None:
            for ref in picked(self.objects, resource, namespace, labels):
                self._write("delete", ref, None)
                self.delete(ref)

        self.switch.around(effect)

    async def save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        """Replace the status at a version."""
        await asyncio.sleep(0)
        return self._streams.read(ref, self.switch.around(lambda: self._save_status(ref, resource_version, status)))

    def _save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        body = self._get(ref)
        if body["metadata"]["resourceVersion"] != resource_version:
            raise Conflict(f"{ref} is no longer at version {resource_version}")
        body = body | {"metadata": dict(body["metadata"]), "status": self._pruned(copy.deepcopy(status))}
        self._write("status", ref, status)
        self._store(ref, body)
        return body

    def _pruned(self, status: Json) -> Json:
        return status if self.status_schema is None else prune(status, self.status_schema)
