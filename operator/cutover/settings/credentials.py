"""How the operator authenticates to a provider: what the administrator writes, and the files it names, which are read at each use.

No message made here, and no `repr`, contains the content of a file or a header. Used by `settings.py` and the adapters.
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
_RESERVED_HEADERS: Final = frozenset(
    {"accept", "connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"}
)
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})


def _absolute_path(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(
            "is not an absolute path; give the file that contains the value, such as /etc/cutover-files/login/token"
        )
    return path


def _header_value(value: Any) -> Any:
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ValueError("is not a valid header value; give a string of printable ASCII characters")
    return value


File = Annotated[str, AfterValidator(_absolute_path)]


class Basic(Model):
    """User name and password, each in a file."""

    username_file: File = Field(description="File that contains the user name.")
    password_file: File = Field(description="File that contains the password.")


class Tls(Model):
    """Whom the operator trusts, and its client certificate. A server's certificate is always verified."""

    ca_file: File | None = Field(default=None, description="CA certificates (PEM) to trust instead of the system's.")
    cert_file: File | None = Field(default=None, description="Client certificate of the operator with its chain (PEM).")
    key_file: File | None = Field(
        default=None, description="Private key of that certificate (PEM, without a passphrase)."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            given, lacking = ("certFile", "keyFile") if self.cert_file else ("keyFile", "certFile")
            raise ValueError(f"has {given} but no {lacking}; give both")
        if self.ca_file is None and self.cert_file is None:
            raise ValueError("has neither caFile nor certFile; give one, or remove tls")
        return self

    def files(self) -> Iterator[str]:
        """All files it names."""
        yield from filter(None, (self.ca_file, self.cert_file, self.key_file))

    def context(self) -> ssl.SSLContext:
        """The context made from the files. Raises PlanError."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # includes SSLError
            raise PlanError(Problem("tls.caFile", _why(self.ca_file, error, "contains no PEM certificates"))) from None
        if self.cert_file is None or self.key_file is None:
            return context
        for place, file in (("tls.certFile", self.cert_file), ("tls.keyFile", self.key_file)):
            _bytes(place, file)
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as error:
            if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
                problem = f"the key in {self.key_file} does not match the certificate in {self.cert_file}"
            else:
                problem = f"{self.cert_file} and {self.key_file} are not a PEM certificate and key without a passphrase"
            raise PlanError(Problem("tls", problem)) from None
        return context


class Credentials(Model):
    """How the operator authenticates to a server."""

    bearer_token_file: File | None = Field(
        default=None, description="File that contains a token, sent as a bearer token."
    )
    basic: Basic | None = Field(default=None, description="User name and password, for HTTP basic authentication.")
    headers: Mapping[str, Annotated[str, BeforeValidator(_header_value)]] = Field(
        default_factory=dict, repr=False, description="Additional headers, such as X-Scope-OrgID; nothing secret."
    )
    header_files: Mapping[str, File] = Field(
        default_factory=dict, description="Additional headers whose values are read from files."
    )
    tls: Tls | None = Field(default=None, description="Certificates for TLS.")

    @field_validator("headers", "header_files", mode="after")
    @classmethod
    def _have_valid_names(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name in headers:
            if not _TOKEN.fullmatch(name):
                raise ValueError("a header name contains characters that are not allowed; use letters, digits and -")
            if name.lower() in _RESERVED_HEADERS:
                raise ValueError(f"{name} is set by the request itself; remove it")
        return headers

    @field_validator("headers", mode="after")
    @classmethod
    def _are_not_secret(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        for name in headers:
            if name.lower() in _SECRET_HEADERS:
                raise ValueError(f"{name} is secret; put its value into a file and name the file in headerFiles")
        return headers

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        if self.bearer_token_file and self.basic:
            raise ValueError("bearerTokenFile and basic exclude each other; keep one")
        implied = ["Authorization"] if self.bearer_token_file or self.basic else []
        _no_duplicates([*implied, *self.headers, *self.header_files])
        return self

    def read_headers(self) -> dict[str, str]:
        """The headers to send now. Raises PlanError with every file that cannot be used."""
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


def _no_duplicates(names: list[str]) -> None:
    lower = [name.lower() for name in names]
    if duplicates := [name for name in names if lower.count(name.lower()) > 1]:
        raise ValueError(f"header {duplicates[0]} is given twice; keep one")


def _text(place: str, file: str) -> str:
    """The content of a file, without the line break at its end."""
    try:
        text = _bytes(place, file).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise PlanError(Problem(place, f"{file} is not a text file")) from None
    if not text.strip():
        raise PlanError(Problem(place, f"{file} is empty"))
    if place == "basic.usernameFile" and ":" in text:
        raise PlanError(Problem(place, f"{file} contains a colon, which a user name must not have"))
    if not place.startswith("basic.") and not _VALUE.fullmatch(text):
        problem = (
            f"{file} contains line breaks or characters other than printable ASCII; it must contain only the value"
        )
        raise PlanError(Problem(place, problem))
    return text


def _bytes(place: str, file: str) -> bytes:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise PlanError(Problem(place, _why(file, error))) from None
    if len(content) > _LARGEST_FILE:
        raise PlanError(Problem(place, f"{file} is larger than {_LARGEST_FILE} bytes; check that it is the right file"))
    return content


def _why(file: str | None, error: OSError, otherwise: str = "cannot be read") -> str:
    if isinstance(error, ssl.SSLError) or not error.strerror:
        return f"{file} {otherwise}"
    return f"{file} cannot be read: {error.strerror.lower()}"
