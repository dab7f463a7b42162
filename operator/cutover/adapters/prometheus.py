"""Prometheus' query API. Anything but one finite number is a sample without a value, with a note in our own words."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp

from cutover.fields import Json
from cutover.ports import Sample
from cutover.settings import PrometheusProvider, Provider

_LARGEST_ANSWER: Final = 1 << 20
_AT_ONCE: Final = 32


class Providers:
    """The port `Metrics`: the administrator's providers by name."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = dict(providers)
        self._session: aiohttp.ClientSession | None = None
        self._room = {name: asyncio.Semaphore(_AT_ONCE) for name in providers}

    def knows(self, provider: str) -> bool:
        """Whether a provider of this name is configured."""
        return provider in self._providers

    def names(self) -> Sequence[str]:
        """Names of all providers."""
        return sorted(self._providers)

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()

    async def query(self, provider: str, query: str, lookback: float) -> Sample:
        """One instant query."""
        known = self._providers.get(provider)
        if known is None:
            return Sample(None, f"there is no provider {provider}")
        try:
            async with asyncio.timeout(known.prometheus.timeout), self._room[provider]:
                return await self._ask(known.prometheus, query, lookback)
        except TimeoutError:
            return Sample(None, f"Prometheus gave no answer within {known.prometheus.timeout:g}s")

    async def _ask(self, provider: PrometheusProvider, query: str, lookback: float) -> Sample:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        form = {"query": query, "timeout": f"{provider.timeout:g}s", "lookback_delta": f"{lookback:g}s"}
        url = f"{provider.url.rstrip('/')}/api/v1/query"
        try:
            async with self._session.post(url, data=form, allow_redirects=False) as response:
                if response.status != 200:  # noqa: PLR2004 -- OK
                    return Sample(None, f"Prometheus refuses the query (HTTP {response.status})")
                text = bytearray()
                async for part in response.content.iter_chunked(65536):
                    text += part
                    if len(text) > _LARGEST_ANSWER:
                        return Sample(None, "the answer of Prometheus is too large")
                return read(json.loads(text))
        except aiohttp.ClientError:
            return Sample(None, "Prometheus cannot be reached")
        except (ValueError, TypeError, KeyError, IndexError):
            return _unread()


def _unread() -> Sample:
    return Sample(None, "the answer of Prometheus cannot be read")


def read(answer: Json) -> Sample:
    """The one number in an answer of the query API."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        return _unread()
    if answer.get("warnings"):
        return Sample(None, "Prometheus answers with warnings, so the result may be a part of the truth")
    kind, result = answer["data"].get("resultType"), answer["data"].get("result")
    if kind == "scalar":
        return _finite(result[1])
    if kind != "vector":
        return Sample(None, f"the query gives a {kind}, not one number")
    if not result:
        return Sample(None, "the query gives no series: nothing is there, or it is stale")
    if len(result) > 1:
        return Sample(None, f"the query gives {len(result)} series, not one; aggregate it, for example with sum()")
    if "value" not in result[0]:
        return Sample(None, "the query gives a histogram, not one number")
    return _finite(result[0]["value"][1])


def _finite(text: str) -> Sample:
    value = float(text)
    if math.isfinite(value):
        return Sample(value)
    return Sample(None, f"the query gives {text}, which is no usable number")
