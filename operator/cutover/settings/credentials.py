"""How the operator shows a provider who it is: what the administrator writes, and the files behind it, read at each use.

No sentence made here, and no `repr`, holds what stands in a file or in a header. Used by `settings.py` and the adapters.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from cutover.errors import PlanError, Problem
from cutover.schema.model import Model

_LARGEST_FILE: Final = 65536
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_OURS: Final = frozenset(
    {"accept", "connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"}
)
_SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(
            "it is no absolute path; give the file that holds the value, such as /etc/cutover-files/login/token"
        )
    return path


def _value(value: Any) -> Any:
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ValueError("it is no header's value; give a string of printable ASCII characters")
    return value


File = Annotated[str, AfterValidator(_absolute)]


class Basic(Model):
    """User and password, each in a file."""

    username_file: File = Field(description="File with the user's name.")
    password_file: File = Field(description="File with the password.")


class Tls(Model):
    """Whom the operator trusts, and by which certificate it is known. A server's certificate is always verified."""

    ca_file: File | None = Field(default=None, description="Certificates (PEM) trusted instead of the system's.")
    cert_file: File | None = Field(default=None, description="The operator's certificate with its chain (PEM).")
    key_file: File | None = Field(default=None, description="The key of that certificate (PEM, without a passphrase).")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            given, lacking = ("certFile", "keyFile") if self.cert_file else ("keyFile", "certFile")
            raise ValueError(f"it has {given} and no {lacking}; a certificate needs its key, so give both")
        if self.ca_file is None and self.cert_file is None:
            raise ValueError("it has neither caFile nor certFile; give one, or drop tls")
        return self

    def files(self) -> Iterator[str]:
        """All of its files."""
        yield from filter(None, (self.ca_file, self.cert_file, self.key_file))

    def context(self) -> ssl.SSLContext:
        """Read the files. Raises PlanError."""
        try:
            made = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # an SSLError is one too
            raise PlanError(Problem("tls.caFile", _why(self.ca_file, error, "holds no certificates in PEM"))) from None
        if self.cert_file is None or self.key_file is None:
            return made
        for place, file in (("tls.certFile", self.cert_file), ("tls.keyFile", self.key_file)):
            _bytes(place, file)
        try:
            made.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as error:
            if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
                says = f"the key in {self.key_file} is not that of the certificate in {self.cert_file}"
            else:
                says = f"{self.cert_file} and {self.key_file} are no certificate and key in PEM without a passphrase"
            raise PlanError(Problem("tls", says)) from None
        return made


class Credentials(Model):
    """Who the operator is to a server."""

    bearer_token_file: File | None = Field(default=None, description="File with a token, sent as a bearer.")
    basic: Basic | None = Field(default=None, description="User and password.")
    headers: Mapping[str, Annotated[str, BeforeValidator(_value)]] = Field(
        default_factory=dict, repr=False, description="Further headers, such as X-Scope-OrgID; nothing secret."
    )
    header_files: Mapping[str, File] = Field(
        default_factory=dict, description="Further headers whose values stand in files."
    )
    tls: Tls | None = Field(default=None, description="Certificates.")

    @field_validator("headers", "header_files", mode="after")
    @classmethod
    def _are_headers(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name in headers:
            if not _TOKEN.fullmatch(name):
                raise ValueError("the name of a header has characters that none may have; use letters, digits and -")
            if name.lower() in _OURS:
                raise ValueError(f"{name} belongs to the request itself; drop it")
        return headers

    @field_validator("headers", mode="after")
    @classmethod
    def _are_open(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name in headers:
            if name.lower() in _SECRET:
                raise ValueError(f"{name} is secret; put its value into a file and name that in headerFiles")
        return headers

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if self.bearer_token_file and self.basic:
            raise ValueError("bearerTokenFile and basic both say who asks; keep one")
        said = ["Authorization"] if self.bearer_token_file or self.basic else []
        _no_doubles([*said, *self.headers, *self.header_files])
        return self

    def read(self) -> dict[str, str]:
        """The headers to send now. Raises PlanError with every file that is of no use."""
        texts: dict[str, str] = {}
        problems: list[Problem] = []
        for place, file in self._files():
            try:
                texts[place] = _text(place, file)
            except PlanError as error:
                problems.extend(error.problems)
        if problems:
            raise PlanError(*problems)
        headers = dict(self.headers) | {name: texts[f"headerFiles.{name}"] for name in self.header_files}
        if self.bearer_token_file:
            headers["Authorization"] = f"Bearer {texts['bearerTokenFile']}"
        if self.basic:
            pair = f"{texts['basic.usernameFile']}:{texts['basic.passwordFile']}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return headers

    def _files(self) -> Iterator[tuple[str, str]]:
        if self.bearer_token_file:
            yield "bearerTokenFile", self.bearer_token_file
        if self.basic:
            yield "basic.usernameFile", self.basic.username_file
            yield "basic.passwordFile", self.basic.password_file
        for name, file in self.header_files.items():
            yield f"headerFiles.{name}", file


def _no_doubles(names: list[str]) -> None:
    lower = [name.lower() for name in names]
    if doubles := [name for name in names if lower.count(name.lower()) > 1]:
        raise ValueError(f"header {doubles[0]} is given twice; keep one")


def _text(place: str, file: str) -> str:
    """What one file holds, without the line break at its end."""
    try:
        text = _bytes(place, file).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise PlanError(Problem(place, f"{file} is no text")) from None
    if not text.strip():
        raise PlanError(Problem(place, f"{file} is empty"))
    if place == "basic.usernameFile" and ":" in text:
        raise PlanError(Problem(place, f"{file} has a colon in it, which no user name may have"))
    if not place.startswith("basic.") and not _VALUE.fullmatch(text):
        says = f"{file} has line breaks or characters other than printable ASCII in it; it must hold the value alone"
        raise PlanError(Problem(place, says))
    return text


def _bytes(place: str, file: str) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise PlanError(Problem(place, _why(file, error))) from None
    if len(content) > _LARGEST_FILE:
        raise PlanError(Problem(place, f"{file} is larger than {_LARGEST_FILE} bytes, so it is something else"))
    return content


def _why(file: str | None, error: OSError, otherwise: str = "cannot be read") -> str:
    if isinstance(error, ssl.SSLError) or not error.strerror:
        return f"{file} {otherwise}"
    return f"{file} cannot be read: {error.strerror.lower()}"
