"""An API server in memory that keeps the rules, for tests and for trying a plan out. Used through `cutover.testing`.

It keeps resourceVersions and generations, applies JSON patches as the real one does (all or nothing; 422 for a
failed test), honours finalizers, and refuses what must never be asked of it: weights that no longer add up, a target
written without a claim or with a lower fence. A crash switch kills the caller at the n-th call, before or after its
effect.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutover.errors import Broken, Conflict, Denied, NotFound, NotInstalled, Unavailable
from cutover.field_path import Json, Operation
from cutover.ports import (
    FENCE_LABEL,
    HTTP_ROUTES,
    JOBS,
    NAMESPACES,
    PLAN_LABEL,
    PLANS,
    SNAPSHOTS,
    Ref,
    Resource,
)
from cutover.routing.resources import ROUTINGS
from cutover.targets.patching import apply, merge, tidy
from cutover.testing.ports import MemoryClock


class Crash(BaseException):
    """The process died here."""


@dataclass
class CrashSwitch:
    """Kills the caller at the n-th call, or lets it get no answer.

    Attributes:
        at: the call to die at, counted from 1; 0 for none.
        after: die after the effect instead of before it.
        calls: calls so far.
        lost: no answer comes, and the caller lives.
    """

    at: int = 0
    after: bool = False
    calls: int = 0
    lost: bool = False

    def around(self, effect: Callable[[], Any]) -> Any:
        """Count one call, and die if it is the one."""
        self.calls += 1
        hit = self.calls == self.at
        if hit and not self.after:
            raise self._trouble()
        try:
            return effect()
        finally:
            if hit:
                raise self._trouble()

    def _trouble(self) -> BaseException:
        return Unavailable("no answer") if self.lost else Crash()


class MemoryCluster:
    """An API server in memory.

    Attributes:
        objects: what it holds.
        writes: every write so far, as (verb, object), for counting.
        told: called with each write and its content.
        changed: called with each object that is no longer what it was: before and after, None for not there.
        effects: those among them that changed a spec (of a ConfigMap its data), as ("spec", object).
        denied: (verb, object) that no account may do.
        unknown: kinds that are not installed.
        refuse: called with each object that a dry run would bring about; raises Rejected or Denied as the server would.
        strict: refuse weights that no longer add up to what they did.
        rollouts: the controllers bring rollouts to their end.
        templates: the pod template that each workload's controller has rolled out last.
        exits: the exit code with which the pod of a Job (its spec) ends; None while it runs.
        clock: dates what is created.
    """

    def __init__(self, switch: CrashSwitch | None = None) -> None:
        self.objects: dict[Ref, Json] = {}
        self.writes: list[tuple[str, Ref]] = []
        self.told: Callable[[str, Ref, Json], None] = lambda *_: None
        self.changed: Callable[[Ref, Json | None, Json | None], None] = lambda *_: None
        self.effects: list[tuple[str, Ref]] = []
        self.denied: set[tuple[str, Ref]] = set()
        self.unknown: set[Resource] = set()
        self.refuse: Callable[[Ref, Json], None] = lambda *_: None
        self.strict, self.rollouts = True, True
        self.templates: dict[Ref, Json] = {}
        self.exits: Callable[[Json], int | None] = lambda _: 0
        self.switch = switch or CrashSwitch()
        self.clock = MemoryClock()
        self._version = 100

    # --- for tests ----------------------------------------------------------------------------------------------------

    def put(self, resource: Resource, body: Json) -> Ref:
        """Create or replace an object, as a person would."""
        body = copy.deepcopy(body)
        _fill_in(resource, body)
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
        """Set the status of an object, as its controller would."""
        body = self.objects[ref]
        self._store(ref, body | {"metadata": dict(body["metadata"]), "status": status})

    def delete(self, ref: Ref) -> None:
        """Delete an object; one with finalizers is only marked."""
        body = copy.deepcopy(self.objects[ref])
        if body["metadata"].get("finalizers"):
            body["metadata"].setdefault("deletionTimestamp", self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"))
            self._store(ref, body)
        else:
            self._remove(ref)

    def terminate(self, namespace: str) -> None:
        """Begin to delete a namespace: it stays until all that is in it is gone."""
        metadata = {"name": namespace, "namespace": "", "deletionTimestamp": "2026-01-01T12:00:00Z"}
        self.put(NAMESPACES, {"metadata": metadata})

    def _store(self, ref: Ref, body: Json) -> None:
        before = self.objects.get(ref)
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[ref] = body
        self.changed(ref, before, body)

    def _remove(self, ref: Ref) -> None:
        self._version += 1
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
        return self.switch.around(lambda: self._get(ref))

    def _get(self, ref: Ref) -> Json:
        if ref.resource in self.unknown:
            raise NotInstalled(f"there is no kind {ref.resource.kind}")
        if ref not in self.objects:
            raise NotFound(f"{ref} not found")
        return self.objects[ref]  # nobody changes a body in place, so nothing need be copied

    def seen(self, ref: Ref) -> Json | None:
        """The object, if it would be streamed."""
        body = self.objects.get(ref)
        streamed = ref.resource == PLANS or (body is not None and PLAN_LABEL in (body["metadata"].get("labels") or {}))
        return body if streamed else None

    async def list(self, resource: Resource, namespace: str, labels: str = "", *, fresh: bool = True) -> Sequence[Json]:
        """Objects of a kind that a selector picks."""
        del fresh
        await asyncio.sleep(0)
        picked: Sequence[Json] = self.switch.around(
            lambda: [self.objects[ref] for ref in self._pick(resource, namespace, labels)]
        )
        if ("list", Ref(resource, namespace, "")) in self.denied:
            raise Denied(f"the operator cannot list {resource.plural}")
        return picked

    def _pick(
        self, resource: Resource, namespace: str, labels: str, among: Mapping[Ref, Json] | None = None
    ) -> Sequence[Ref]:
        found = self.objects if among is None else among
        return [
            ref
            for ref in sorted(ref for ref in found if ref.resource == resource)
            if namespace in ("", ref.namespace) and _selected(found[ref]["metadata"].get("labels") or {}, labels)
        ]

    async def patch(self, ref: Ref, operations: Sequence[Operation], account: str = "") -> Json:
        """Apply a JSON patch."""
        await asyncio.sleep(0)
        return self.switch.around(lambda: self._patch(ref, operations, account))

    async def try_out(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        """What a JSON patch would make of an object."""
        await asyncio.sleep(0)

        def effect() -> Json:
            if ("patch", ref) in self.denied:
                raise Denied(f"{account} cannot patch {ref}")
            body = self._patched(ref, operations)
            self.refuse(ref, body)
            return body

        return self.switch.around(effect)

    def _patched(self, ref: Ref, operations: Sequence[Operation]) -> Json:
        body = copy.deepcopy(self._get(ref))
        for operation in operations:
            apply(body, operation)
        tidy(body)
        _fill_in(ref.resource, body)
        return body

    def _patch(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        before, body = self._get(ref), self._patched(ref, operations)
        if ref.resource not in (PLANS, SNAPSHOTS) and not account:
            raise Broken(f"{ref} is written without an account")
        if ("patch", ref) in self.denied:
            raise Denied(f"{account or 'the operator'} cannot patch {ref}")
        _possible(ref, before, body, strict=self.strict)
        if body == before:
            return before
        if _content(body) != _content(before):
            body["metadata"]["generation"] += 1
            self.effects.append(("spec", ref))
        self._write("patch", ref, list(operations))
        if "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers"):
            self._remove(ref)
            return body
        self._store(ref, body)
        return body

    async def dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        """What a strategic merge patch would make of an object."""
        await asyncio.sleep(0)
        return self.switch.around(lambda: self._dry_run(ref, patch, account))

    def _dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        before = self._get(ref)
        if not account:
            raise Broken(f"{ref} is tried out without an account")
        if ("patch", ref) in self.denied:
            raise Denied(f"{account} cannot patch {ref}")
        version = patch.get("metadata", {}).get("resourceVersion", before["metadata"]["resourceVersion"])
        if version != before["metadata"]["resourceVersion"]:
            raise Conflict(f"{ref} is no longer at version {version}")
        after = merge(before, patch)
        self.refuse(ref, after)
        return after

    async def create(
        self, resource: Resource, namespace: str, body: Json, account: str = "", *, dry_run: bool = False
    ) -> Json:
        """Create an object."""
        await asyncio.sleep(0)
        return self.switch.around(lambda: self._create(resource, namespace, body, account, dry_run=dry_run))

    def _create(self, resource: Resource, namespace: str, body: Json, account: str, *, dry_run: bool) -> Json:
        ref = Ref(resource, namespace, body["metadata"]["name"])
        if resource == JOBS and not account:
            raise Broken(f"{ref} is made without an account")
        if ("create", Ref(resource, namespace, "")) in self.denied:
            raise Denied(f"{account} cannot create {resource.plural}")
        if ref in self.objects:
            raise Conflict(f"{ref} already exists")
        self.refuse(ref, body)
        if dry_run:
            return body
        self._write("create", ref, body)
        made = copy.deepcopy(body)
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
        """Delete what a selector picks."""
        await asyncio.sleep(0)

        def effect() -> None:
            for ref in self._pick(resource, namespace, labels):
                self._write("delete", ref, None)
                self.delete(ref)

        self.switch.around(effect)

    async def save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        """Replace the status at a version."""
        await asyncio.sleep(0)
        return self.switch.around(lambda: self._save_status(ref, resource_version, status))

    def _save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        body = self._get(ref)
        if body["metadata"]["resourceVersion"] != resource_version:
            raise Conflict(f"{ref} is no longer at version {resource_version}")
        body = body | {"metadata": dict(body["metadata"]), "status": copy.deepcopy(status)}
        self._write("status", ref, status)
        self._store(ref, body)
        return body

    async def may(self, account: str, namespace: str, verb: str, resource: Resource, name: str) -> bool:
        """Whether nobody has forbidden it."""
        await asyncio.sleep(0)
        del account
        return (verb, Ref(resource, namespace, name)) not in self.denied


def _selected(labels: Json, selector: str) -> bool:
    if " in (" in selector:
        key, _, values = selector.partition(" in (")
        return labels.get(key) in values.rstrip(")").split(",")
    return all(_meets(labels, part) for part in selector.split(",") if part)


def _meets(labels: Json, part: str) -> bool:
    for sign in ("!=", "=", "<"):
        key, found, value = part.partition(sign)
        if found:
            label = labels.get(key)
            if sign == "<":
                return label is not None and label.isdecimal() and int(label) < int(value)
            return (label == value) is (sign == "=")
    return part in labels


def _possible(ref: Ref, before: Json, after: Json, *, strict: bool) -> None:
    """Refuse what no correct caller asks for."""
    if ref.resource in (PLANS, SNAPSHOTS):
        return
    labels, was = after["metadata"].get("labels") or {}, before["metadata"].get("labels") or {}
    if _content(before) != _content(after) and PLAN_LABEL not in labels:
        raise Broken(f"{ref} is changed without a claim")
    if was.get(PLAN_LABEL) == labels.get(PLAN_LABEL) and _number(labels) < _number(was):
        raise Broken(f"the fence of {ref} is lowered")
    if strict and ref.resource in ROUTINGS and _sums(ref, before) != _sums(ref, after):
        raise Broken(f"the weights of {ref} add up to {_sums(ref, after)} instead of {_sums(ref, before)}")


def _fill_in(resource: Resource, body: Json) -> None:
    """What the definition of an HTTPRoute fills in where it is left out."""
    rules = body["spec"].get("rules") or () if resource == HTTP_ROUTES else ()
    for rule in rules:
        for match in rule.setdefault("matches", [{}]):
            match["path"] = {"type": "PathPrefix", "value": "/"} | match.get("path", {})
            for header in match.get("headers", ()):
                header.setdefault("type", "Exact")
        mirrors = [one["requestMirror"]["backendRef"] for one in rule.get("filters", ()) if "requestMirror" in one]
        for reference in (*rule.get("backendRefs", ()), *mirrors):
            reference.setdefault("group", "")
            reference.setdefault("kind", "Service")
        for reference in rule.get("backendRefs", ()):
            reference.setdefault("weight", 1)


def _content(body: Json) -> tuple[Json, Json]:
    return body.get("spec"), body.get("data")


def _number(labels: Json) -> int:
    text = labels.get(FENCE_LABEL, "")
    return int(text) if text.isdecimal() else 0


def _sums(ref: Ref, body: Json) -> list[int]:
    """Of the routes that split traffic; one destination alone has all of it, whatever its weight."""
    routes = ROUTINGS[ref.resource].routes_of(body)
    return [sum(aim.weight for aim in route.destinations) for route in routes if len(route.destinations) > 1]
