"""What each plan of a namespace asks about Services of its own: in a crowd one request asks for those of many plans.

A plan that is alone has its own request at once. Used by `kubernetes.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cutover.adapters.shared_reads import SharedReads
from cutover.errors import NotFound, OutsideError
from cutover.field_path import Json
from cutover.names import Selector, matching
from cutover.objects.endpoints import SERVICE_LABEL
from cutover.ports import ENDPOINT_SLICES, SERVICES, Ref

_BY_NAME: Final = 4
"""Services that are read one by one, at most: more of them are one list, also in a namespace where it has several pages."""
IN_SELECTOR: Final = 64
"""Services that one selector names: it stands in a URL, and has 4 kB of it at most."""
_PICKING: Final = re.compile(rf"{re.escape(SERVICE_LABEL)} in \(([^()]+)\)")


class Slices(Protocol):
    """Lists the EndpointSlices of a namespace that a selector picks."""

    async def __call__(self, namespace: str, labels: Selector, *, fresh: bool) -> Sequence[Json]:
        """With `fresh` the answer is not older than the call."""


@dataclass(frozen=True, slots=True)
class JointReads:
    """The requests that plans of one namespace have in common.

    Args:
        shared: all that is under way.
        list_slices: lists EndpointSlices.
        get: reads one object.
        list_services: reads all Services of a namespace, each whole.
    """

    shared: SharedReads
    list_slices: Slices
    get: Callable[[Ref], Coroutine[Any, Any, Json]]
    list_services: Callable[[str], Coroutine[Any, Any, Sequence[Json]]]

    async def slices(self, namespace: str, labels: Selector, *, fresh: bool) -> Sequence[Json]:
        """The EndpointSlices that a selector picks; of those that pick by the Service many have one request."""
        services = _services_of(labels)
        if not services:
            return await self.list_slices(namespace, labels, fresh=fresh)

        async def ask(names: frozenset[str]) -> Sequence[Json]:
            known = sorted(names)
            parts = [picking(known[at : at + IN_SELECTOR]) for at in range(0, len(known), IN_SELECTOR)]
            found = await asyncio.gather(*(self.list_slices(namespace, part, fresh=fresh) for part in parts))
            return [body for part in found for body in part]

        found = await self.shared.read_jointly((ENDPOINT_SLICES, namespace, fresh), services, ask)
        return [body for body in found if body["metadata"]["labels"].get(SERVICE_LABEL) in services]

    async def service(self, ref: Ref) -> Json:
        """One Service as it is now. Raises NotFound."""

        async def ask(names: frozenset[str]) -> dict[str, Json | OutsideError]:
            if len(names) > _BY_NAME:
                return {body["metadata"]["name"]: body for body in await self.list_services(ref.namespace)}
            return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

        async def one(name: str) -> Json | OutsideError:
            """What becomes of one is no matter for who asks for another."""
            try:
                return await self.get(Ref(SERVICES, ref.namespace, name))
            except OutsideError as error:
                return error

        found = await self.shared.read_jointly((SERVICES, ref.namespace), [ref.name], ask)
        answer = found.get(ref.name) or NotFound(f"{ref} not found")
        if isinstance(answer, OutsideError):
            raise answer
        return answer


def picking(services: Collection[str]) -> Selector:
    """The selector of the EndpointSlices of some Services."""
    return matching({}, (SERVICE_LABEL, "In", sorted(services)))


def _services_of(labels: Selector) -> frozenset[str]:
    """The Services whose EndpointSlices a selector picks, where it picks by nothing else."""
    found = _PICKING.fullmatch(labels)
    return frozenset(found[1].split(",")) if found else frozenset()
