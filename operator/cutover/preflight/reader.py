"""What preflight reads of the cluster, with the permissions of the caller. Read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from cutover.errors import Denied, NotFound
from cutover.field_path import Json
from cutover.names import EVERYTHING, Selector
from cutover.plan.spec import Plan
from cutover.ports import Ref, Resource


class Reader(Protocol):
    """The part of the API server that preflight needs; the port `Cluster` has it."""

    async def get(self, ref: Ref) -> Json:
        """Read one object. Raises NotFound."""

    async def list(
        self, resource: Resource, namespace: str, labels: Selector = EVERYTHING, *, fresh: bool = True
    ) -> Sequence[Json]:
        """All objects of a kind in a namespace; a kind that is not installed has none."""


async def targets(plan: Plan, reader: Reader, namespace: str) -> dict[Ref, Json]:
    """Every existing target of the plan, in the order of the plan."""
    refs = plan.targets(namespace)

    async def found(ref: Ref) -> Json:
        try:
            return await reader.get(ref)
        except NotFound:
            return None

    bodies = await asyncio.gather(*(found(ref) for ref in refs))
    return {ref: body for ref, body in zip(refs, bodies, strict=True) if body is not None}


async def permitted(reader: Reader, resource: Resource, namespace: str) -> Sequence[Json]:
    """All objects of a kind; none where the caller may not list them."""
    try:
        return await reader.list(resource, namespace, fresh=False)
    except Denied:
        return ()
