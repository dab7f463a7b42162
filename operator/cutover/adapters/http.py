"""One server that the administrator configured, asked within its limits. What it answers goes to a reader and nowhere else.

Any trouble is a sample without a value and a note in our own words: no text of an answer, no credential, no address.
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

_QUICK: Final = 16384
"""Bytes of an answer that are read at once; a larger one is read in a thread, so that the loop goes on meanwhile."""


class ProviderEndpoint:
    """Asks one server.

    Args:
        name: as notes call it.
        place: of its settings, as the log names them.
        server: where it is.
        session: of all providers, for its connections.
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
        """GET, or POST of a form, below the server's address; `read` makes a sample of the JSON that comes back."""
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
            return Sample(None, f"{self._name} was not asked, because {most} questions to it were under way already")
        except PlanError:
            return Sample(None, f"the operator's credentials for {self._name} cannot be used; its log says why")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
            return Sample(None, f"the TLS connection to {self._name} cannot be made")
        except (aiohttp.ClientError, OSError):
            return Sample(None, f"{self._name} cannot be reached")

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
                        None, f"the answer of {self._name} is too large; the most is {self._server.max_bytes} bytes"
                    )
        if len(text) > _QUICK:
            return await asyncio.to_thread(self._read, text, read)
        return self._read(text, read)

    def usable(self) -> bool:
        """Whether the files of its credentials are of use as they are now."""
        try:
            self._credentials()
        except PlanError:
            return False
        return True

    def _credentials(self) -> tuple[dict[str, str], ssl.SSLContext | bool]:
        """The headers to send and whom to trust now. The log says what cannot be used, and when all can again: once each.

        Raises:
            PlanError: with every file that is of no use.
        """
        headers, problems = {"Accept": "application/json"}, list[Problem]()
        trusted: ssl.SSLContext | bool = True
        try:
            headers |= self._server.read()
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
            return f"{self._name} does not take the operator's credentials (HTTP {code})"
        if 300 <= code < 400:  # noqa: PLR2004 -- redirections
            return f"{self._name} answers with another address, which is not followed (HTTP {code})"
        return f"{self._name} refuses the query (HTTP {code})"

    def _read(self, text: bytearray, read: Callable[[Json], Sample]) -> Sample:
        try:
            document = json.loads(text, parse_constant=_reject_constant)
        except (ValueError, RecursionError):
            return Sample(None, f"the answer of {self._name} is not JSON")
        return read(document)


class _Certificates:
    """The context of a provider's connections, made anew when one of its files has changed."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._seen: object = None
        self._made: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The one to use now. Raises PlanError."""
        seen = [_fingerprint(file) for file in self._tls.files()]
        if self._made is None or seen != self._seen:
            self._made, self._seen = self._tls.context(), seen
        return self._made


def _fingerprint(file: str) -> object:
    try:
        found = os.stat(file)  # noqa: PTH116 -- a string is enough
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _reject_constant(name: str) -> float:
    raise ValueError(name)
