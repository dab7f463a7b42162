"""The port `Metrics`: the configured metrics providers by name, each queried by the API of its kind. Made by app.py, used by gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import aiohttp

from cutover.adapters import prometheus
from cutover.adapters.http import ProviderEndpoint
from cutover.field_path import Json
from cutover.ports import Sample
from cutover.settings.settings import Provider


class Providers:
    """All providers, over one connection pool."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._providers = dict(providers)
        self._endpoints = {
            name: ProviderEndpoint(
                "Prometheus" if provider.prometheus else f"provider {name}",
                f"providers.{name}.{provider.kind}",
                provider.server,
                self._connections,
            )
            for name, provider in providers.items()
        }

    def names(self, kind: str) -> Sequence[str]:
        """Names of all providers of a kind."""
        return sorted(name for name, provider in self._providers.items() if provider.kind == kind)

    def usable(self, provider: str) -> bool:
        """Whether its credential files can be used as they are now; if not, the log says why, once."""
        return self._endpoints[provider].usable()

    def health(self) -> dict[str, bool]:
        """For each provider, whether it is usable."""
        return {name: endpoint.usable() for name, endpoint in self._endpoints.items()}

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def query(self, provider: str, query: str, lookback: float, at: float | None = None) -> Sample:
        """One instant query."""
        if provider not in self.names("prometheus"):
            return Sample(None, f"there is no provider {provider} of kind prometheus")
        timeout = self._providers[provider].server.timeout
        # Plain seconds: a PromQL duration has no fractions ("2.5s" is rejected).
        form = {"query": query, "timeout": f"{timeout:.3f}", "lookback_delta": f"{lookback:.3f}"}
        form["nocache"] = "1"  # otherwise VictoriaMetrics evaluates as of 30 seconds ago, and dates the number to now
        if at is not None:
            form["time"] = f"{at:.3f}"
        return await self._endpoints[provider].request(prometheus.PATH, prometheus.read, form=form)

    async def fetch(self, provider: str, path: str, query: Mapping[str, str], pick: Callable[[Json], Sample]) -> Sample:
        """One GET of a JSON document."""
        if provider not in self.names("http"):
            return Sample(None, f"there is no provider {provider} of kind http")
        return await self._endpoints[provider].request(path, pick, query=query)

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No cookies, so that plans cannot affect each other; concurrency is limited per provider, not here.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session
