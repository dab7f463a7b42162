"""One connection: where to, as whom, and how its session is set up. Credentials come from the pod and go to libpq alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cutover.database.engines.postgresql.errors import refused
from cutover.database.outcome import Ended
from cutover.runner_messages.payload import DatabaseSettings
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result

OLDEST: Final = 13
_URL: Final = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9_]+)?://")
_TIMEOUT: Final = 10
"""Seconds to connect."""
_KEEPALIVES: Final = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""A node that is lost says nothing: without these, the default waits two hours."""
_PINNED: Final = {
    "TimeZone": "UTC",  # decides whether timestamptz columns are rewritten, and how values read
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",  # the parser that splits scripts reads them so
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "1s",  # else the statement of a runner that was killed goes on
}
_SINCE: Final = {"client_connection_check_interval": 14}

Connection = psycopg.Connection[tuple[Any, ...]]


def parameters(url: str, settings: DatabaseSettings, application: str) -> dict[str, Any]:
    """What libpq connects with. Raises Ended: the URL is not one."""
    given: dict[str, Any] = {}
    if url:
        if _URL.match(url) is None:
            raise Ended(Result(RunnerReason.INVALID_URL))
        try:
            given = dict(conninfo_to_dict(_URL.sub("postgresql://", url, count=1)))
        except psycopg.Error:
            raise Ended(Result(RunnerReason.INVALID_URL)) from None
    parts = {"host": settings.host, "port": settings.port, "dbname": settings.database}
    if settings.tls is not None:
        tls = settings.tls
        parts |= {
            "sslmode": tls.mode,
            "sslrootcert": tls.ca_file,
            "sslcert": tls.cert_file,
            "sslkey": tls.key_file,
        }
    given |= {name: value for name, value in parts.items() if value is not None}
    if not (given.get("host") or given.get("hostaddr")) or not given.get("dbname"):
        raise Ended(Result(RunnerReason.INVALID_URL, names=("host and database are needed",)))
    return {"connect_timeout": _TIMEOUT} | given | _KEEPALIVES | {"application_name": application[:63]}


def connect(given: dict[str, Any], settings: DatabaseSettings) -> Connection:
    """A connection with its session set up.

    Raises:
        Ended: no further try would do.
        ConnectionBroken: another one may.
    """
    password = _password(settings.password_file)
    try:
        connection = psycopg.connect(
            **given | password, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.RawCursor
        )
    except psycopg.Error as error:
        raise refused(error) from None
    version = connection.info.server_version // 10_000
    if version < OLDEST:
        connection.close()
        raise Ended(Result(RunnerReason.UNSUPPORTED_VERSION, number=version))
    pinned = {name: value for name, value in _PINNED.items() if version >= _SINCE.get(name, 0)}
    pinned["search_path"] = f'"{settings.schema_.replace(chr(34), chr(34) * 2)}"'
    pinned["statement_timeout"] = f"{milliseconds(settings.statement_timeout)}ms"
    pinned["lock_timeout"] = f"{milliseconds(settings.lock_timeout)}ms"
    try:
        for name, value in pinned.items():
            connection.execute("SELECT pg_catalog.set_config($1, $2, false)", (name, value))
    except psycopg.Error as error:
        connection.close()
        raise refused(error) from None
    return connection


def milliseconds(span: Any) -> int:
    """A duration as the server's settings take it."""
    return int(span.total_seconds() * 1000)


def _password(file: str | None) -> dict[str, str]:
    """Read at each connection: a short-lived one has changed since the last."""
    if file is None:
        return {}
    try:
        return {"password": Path(file).read_text(encoding="utf-8").rstrip("\r\n")}
    except (OSError, UnicodeDecodeError):
        raise Ended(Result(RunnerReason.AUTHENTICATION, names=("passwordFile cannot be read",))) from None
