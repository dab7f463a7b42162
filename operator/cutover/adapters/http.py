"""Sends queries to one configured server, within its limits. Its answer goes to a reader and nowhere else. Called by providers.py.

Every failure is a sample without a value and with a note in our own words: no text of an answer, no credential, no URL.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
from yarl import URL

from cutover.errors import PlanError, Problem
from cutover.field_path import Json
from cutover.ports import Sample
from cutover.settings.credentials import Tls
from cutover.settings.settings import Server

log = logging.getLogger(__name__)

_PARSED_INLINE: Final = 16384
"""Bytes of an answer that are parsed in the event loop; a larger one is parsed in a thread, so that the loop is not blocked."""


class ProviderEndpoint:
    """One server of one provider.

    Args:
        name: of the provider, for notes.
        place: where it is in the settings, for the log.
        server: its settings.
        session: returns the session that all providers share.
    """

    def __init__(self, name: str, place: str, server: Server, session: Callable[[], aiohttp.ClientSession]) -> None:
        self._name, self._place, self._server, self._session = name, place, server, session
        self._reported: tuple[Problem, ...] = ()
        self._slots = asyncio.Semaphore(server.concurrency)
        self._certificates = _Certificates(server.tls) if server.tls else None

    async def request(
        self,
        path: str,
        read: Callable[[Json], Sample],
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Sample:
        """GET, or POST a form, below the server's URL; `read` turns the JSON answer into a sample."""
        url = URL(self._server.url + path, encoded=True).with_query(query or None)
        sent = False
        try:
            async with asyncio.timeout(self._server.timeout), self._slots:
                sent = True
                return await self._send(url, form, read)
        except TimeoutError:
            if sent:
                return Sample(None, f"{self._name} gave no answer within {self._server.timeout:g}s")
            most = self._server.concurrency
            return Sample(None, f"{self._name} was not queried, because {most} queries to it were already running")
        except PlanError:
            return Sample(None, f"the operator's credentials for {self._name} cannot be used; its log says why")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
            return Sample(None, f"cannot establish a TLS connection to {self._name}")
        except (aiohttp.ClientError, OSError):
            return Sample(None, f"cannot reach {self._name}")

    async def _send(self, url: URL, form: Mapping[str, str] | None, read: Callable[[Json], Sample]) -> Sample:
        headers, trusted = self._credentials()
        method = "GET" if form is None else "POST"
        request = self._session().request(method, url, data=form, headers=headers, ssl=trusted, allow_redirects=False)
        async with request as response:
            if response.status != 200:  # noqa: PLR2004 -- OK
                return Sample(None, self._refusal(response.status))
            text = bytearray()
            async for part in response.content.iter_chunked(65536):
                text += part
                if len(text) > self._server.max_bytes:
                    return Sample(
                        None,
                        f"the response of {self._name} is too large; the maximum is {self._server.max_bytes} bytes",
                    )
        if len(text) > _PARSED_INLINE:
            return await asyncio.to_thread(self._read, text, read)
        return self._read(text, read)

    def usable(self) -> bool:
        """Whether its credential files can be used as they are now."""
        try:
            self._credentials()
        except PlanError:
            return False
        return True

    def _credentials(self) -> tuple[dict[str, str], ssl.SSLContext | bool]:
        """The headers to send and whom to trust now. Logs once what cannot be used, and once when it can be used again.

        Raises:
            PlanError: with every file that cannot be used.
        """
        headers, problems = {"Accept": "application/json"}, list[Problem]()
        trusted: ssl.SSLContext | bool = True
        try:
            headers |= self._server.read_headers()
        except PlanError as error:
            problems.extend(error.problems)
        try:
            trusted = self._certificates.context() if self._certificates else True
        except PlanError as error:
            problems.extend(error.problems)
        found = tuple(Problem(f"{self._place}.{problem.where}", problem.message) for problem in problems)
        if self._reported and not found:
            log.info("the credentials for %s can be used again", self._name, extra={"where": self._place})
        for problem in found if found != self._reported else ():
            log.warning("the credentials for %s cannot be used", self._name, extra={"why": str(problem)})
        self._reported = found
        if found:
            raise PlanError(*found)
        return headers, trusted

    def _refusal(self, code: int) -> str:
        if code in {401, 403}:
            return f"{self._name} rejected the operator's credentials (HTTP {code})"
        if 300 <= code < 400:  # noqa: PLR2004 -- redirections
            return f"{self._name} answered with a redirect, which is not followed (HTTP {code})"
        return f"{self._name} rejected the query (HTTP {code})"

    def _read(self, text: bytearray, read: Callable[[Json], Sample]) -> Sample:
        try:
            document = json.loads(text, parse_constant=_reject_constant)
        except (ValueError, RecursionError):
            return Sample(None, f"the response of {self._name} is not JSON")
        return read(document)


class _Certificates:
    """The TLS context of a provider, made again when one of its files has changed."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._fingerprints: object = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context to use now. Raises PlanError."""
        # Taken before the files are read: if one changes in between, the next call sees another fingerprint and reads it again.
        fingerprints = [_fingerprint(file) for file in self._tls.files()]
        if self._context is None or fingerprints != self._fingerprints:
            self._context, self._fingerprints = self._tls.context(), fingerprints
        return self._context


def _fingerprint(file: str) -> object:
    try:
        found = os.stat(file)  # noqa: PTH116 -- a string is enough
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _reject_constant(name: str) -> float:
    raise ValueError(name)
