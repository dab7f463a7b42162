"""What is asked of the API server in memory beside objects: who may do what, and the outlines that are streamed of all namespaces."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from cutover.field_path import Json
from cutover.objects.outlines import outline
from cutover.ports import Outlines, Ref, Resource
from cutover.testing.ports import MemoryClock
from cutover.testing.server_rules import permits, picked


class Questions:
    """The part of `MemoryCluster` that answers them.

    Attributes:
        objects: all objects.
        denied: (verb, object) that no account may do; without a namespace, that the operator may not do anywhere.
        readable: objects of other namespaces that an account may get.
        everywhere: whether the operator sees all namespaces.
        clock: the time.
    """

    def __init__(self) -> None:
        self.objects: dict[Ref, Json] = {}
        self.denied: set[tuple[str, Ref]] = set()
        self.readable: set[Ref] = set()
        self.everywhere = True
        self.clock = MemoryClock()
        self._opened: dict[Resource, datetime] = {}
        self._numbers: dict[tuple[Resource, str], int] = {}

    def close_streams(self) -> None:
        """A new process has opened none yet."""
        self._opened.clear()

    async def may(self, account: str, namespace: str, verb: str, resource: Resource, name: str) -> bool:
        """Unless a test denies it; of a whole kind, which has no name, unless it denies it for any object."""
        await asyncio.sleep(0)
        del account
        return permits(self.denied, verb, Ref(resource, namespace, name))

    async def may_get(self, account: str, namespace: str, ref: Ref) -> bool:
        """Only what a test allows."""
        await asyncio.sleep(0)
        del account, namespace
        return ref in self.readable

    async def outlines(self, resource: Resource, namespace: str, *, wait: bool = False) -> Outlines:
        """As the port has it; here a stream is never behind, but who does not wait for one that it opens knows nothing at that moment."""
        await asyncio.sleep(0)
        if ("list", Ref(resource, "", "")) in self.denied:
            return Outlines()
        if wait:
            self._opened[resource] = datetime.min.replace(tzinfo=UTC)
        if self._opened.setdefault(resource, self.clock.now()) == self.clock.now():
            return Outlines()
        seen = picked(self.objects, resource, "" if self.everywhere else namespace, "")
        bodies = [outline(resource, self.objects[ref]) for ref in seen]
        number = self._numbers.setdefault((resource, json.dumps(bodies)), len(self._numbers) + 1)
        return Outlines(bodies, number, self.everywhere)
