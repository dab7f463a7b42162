"""The way to a server: what is between, who logs in, and a primary that becomes another."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme

from cutover.runner_messages.reasons import ExitCode, RunnerReason
from harness.postgresql import Database, Server
from harness.process import until
from support.database.runner import Runner, script

ADD: dict[str, Any] = {
    "up": script("ALTER TABLE users ADD COLUMN a int"),
    "down": script("ALTER TABLE users DROP COLUMN a"),
}
FILL: dict[str, Any] = {
    "table": "users",
    "set": {"n": "n + 1"},
    "verify": "n > 0",
    "batchSize": 100,
    "targetBatchTime": "0s",
    "delay": "20ms",
}
_FIRST, _SECOND = "first", "second"


@contextmanager
def pooler(server: Server) -> Iterator[int]:
    """Passes everything on, and tells the client of another backend, as a pooler that shares sessions does."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def pump(source: socket.socket, sink: socket.socket, *, rename: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if rename and (at := data.find(b"K\x00\x00\x00\x0c")) >= 0:
                    data, rename = data[: at + 5] + b"\x00\x00\x00\x07" + data[at + 9 :], False
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while not ended.is_set():
            with suppress(OSError):
                client, _ = listener.accept()
                behind = socket.create_connection(("127.0.0.1", server.port))
                for source, sink, rename in ((client, behind, False), (behind, client, True)):
                    threading.Thread(target=pump, args=(source, sink), kwargs={"rename": rename}, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    ended.set()
    listener.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pooler_in_the_way_is_found_out(database: Database, runner: Runner) -> None:
    database.run("CREATE TABLE users (id int PRIMARY KEY)")
    with pooler(database.server) as port:
        runner.url = f"postgresql://postgres@127.0.0.1:{port}/{database.name}"
        assert runner.run("preflight", schema=ADD).reason is RunnerReason.POOLER
    runner.url = database.url
    assert runner.run("preflight", schema=ADD).reason is RunnerReason.DONE


@pytest.fixture
def guarded() -> Iterator[Database]:
    """A server that wants a password."""
    server = Server().start()
    try:
        with server.database() as database:
            database.run("CREATE TABLE users (id int PRIMARY KEY)", "ALTER ROLE postgres PASSWORD 'first'")
            rules = server.folder / "data" / "pg_hba.conf"
            kept = rules.read_text()
            rules.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
            database.run("SELECT pg_reload_conf()")
            until("it wants the password", lambda: refuses(database.url))
            yield database
            rules.write_text(kept)
            with psycopg.connect(database.url, password=_SECOND, autocommit=True) as connection:
                connection.execute("SELECT pg_reload_conf()")
            until("it is open again", lambda: not refuses(database.url))
    finally:
        server.stop()


def refuses(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return True
    return False


def test_a_password_comes_from_a_file_that_is_read_each_time(guarded: Database, tmp_path: Path) -> None:
    """Short-lived passwords are projected into the pod, and change there."""
    file = tmp_path / "password"
    runner = Runner(guarded.url, tmp_path, {"passwordFile": str(file)})
    assert runner.run("preflight", schema=ADD).reason is RunnerReason.AUTHENTICATION
    file.write_text("wrong")
    assert runner.run("preflight", schema=ADD).reason is RunnerReason.AUTHENTICATION
    file.write_text("first\n")
    assert runner.run("up", schema=ADD).reason is RunnerReason.DONE
    with psycopg.connect(guarded.url, password=_FIRST, autocommit=True) as connection:
        connection.execute("ALTER ROLE postgres PASSWORD 'second'")
    assert runner.run("preflight", schema=ADD, step="b").reason is RunnerReason.AUTHENTICATION
    file.write_text("second")
    assert runner.run("down", schema=ADD, fence=2).reason is RunnerReason.DONE


@dataclass(frozen=True)
class Encrypted:
    """A server that lets in only who comes encrypted and shows a certificate; its files are what a pod would be handed."""

    database: Database
    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def tls(self, mode: str = "verify-full", ca: str = "ca", client: str = "client") -> dict[str, str]:
        files = {"caFile": self.file(f"{ca}.crt")} if mode.startswith("verify") else {}
        if client:
            files |= {"certFile": self.file(f"{client}.crt"), "keyFile": self.file(f"{client}.key")}
        return {"mode": mode, **files}


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("tls")
    ours, others = trustme.CA(), trustme.CA()
    issued = {
        "server": ours.issue_cert("127.0.0.1", "localhost"),
        "client": ours.issue_cert("unused", common_name="postgres"),
        "somebody": ours.issue_cert("unused", common_name="somebody"),
        "foreign": others.issue_cert("unused", common_name="postgres"),
    }
    server = Server(17)  # the wheel of 18 is built without TLS
    for name, authority in (("ca", ours), ("other", others)):
        authority.cert_pem.write_to_path(folder / f"{name}.crt")
    for name, pair in issued.items():
        pair.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
        pair.private_key_pem.write_to_path(folder / f"{name}.key")
        (folder / f"{name}.key").chmod(0o600)
    server.take({name: folder / name for name in ("server.crt", "server.key", "ca.crt")})
    server.settings |= {
        "ssl": "on",
        "ssl_cert_file": server.file("server.crt"),
        "ssl_key_file": server.file("server.key"),
        "ssl_ca_file": server.file("ca.crt"),
    }
    server.start()
    try:
        with server.database() as database:
            database.run("CREATE TABLE users (id int PRIMARY KEY)")
            rules = server.folder / "data" / "pg_hba.conf"
            kept = rules.read_text()
            rules.write_text("hostssl all all 127.0.0.1/32 cert\n")
            database.run("SELECT pg_reload_conf()")
            until("it wants a certificate", lambda: refuses(database.url))
            yield Encrypted(database, folder)
            rules.write_text(kept)
            server.reload()
            until("it is open again", lambda: not refuses(database.url))
    finally:
        server.stop()


def test_a_connection_is_encrypted_and_both_sides_show_certificates(encrypted: Encrypted, tmp_path: Path) -> None:
    runner = Runner(encrypted.database.url, tmp_path, {"tls": encrypted.tls()})
    seen = script(
        "SELECT count(*) FILTER (WHERE NOT ssl OR client_dn NOT LIKE '%CN=postgres') FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    )
    assert runner.run("preflight", schema=ADD).reason is RunnerReason.DONE
    result = runner.run("up", schema=ADD | {"validate": seen})
    assert result.reason is RunnerReason.DONE, result
    assert runner.run("down", schema=ADD, fence=2).reason is RunnerReason.DONE


@pytest.mark.parametrize(
    ("how", "host", "reason"),
    [
        ({"mode": "disable", "client": ""}, "127.0.0.1", RunnerReason.TLS_REQUIRED),
        ({"ca": "other"}, "127.0.0.1", RunnerReason.TLS_FAILED),
        ({"mode": "verify-ca", "ca": "other"}, "127.0.0.1", RunnerReason.TLS_FAILED),
        ({"client": ""}, "127.0.0.1", RunnerReason.TLS_FAILED),
        ({"client": "foreign"}, "127.0.0.1", RunnerReason.TLS_FAILED),
        ({"client": "open"}, "127.0.0.1", RunnerReason.TLS_FAILED),
        ({"client": "nobody"}, "127.0.0.1", RunnerReason.TLS_FAILED),
        ({"client": "somebody"}, "127.0.0.1", RunnerReason.AUTHENTICATION),
        ({"mode": "verify-full"}, "127.0.0.2", RunnerReason.TLS_FAILED),
        ({"mode": "verify-ca"}, "localhost", RunnerReason.DONE),
        ({"mode": "require"}, "127.0.0.1", RunnerReason.DONE),
    ],
    ids=range(11),
)
def test_why_no_encrypted_connection_can_be_made(
    encrypted: Encrypted, tmp_path: Path, how: dict[str, str], host: str, reason: RunnerReason
) -> None:
    """Wrong authorities, a wrong name, no certificate, one of other authorities, one that is missing, a key that all may read, another's certificate."""
    for suffix in ("crt", "key"):
        shutil.copy(encrypted.file(f"client.{suffix}"), encrypted.file(f"open.{suffix}"))
    Path(encrypted.file("open.key")).chmod(0o644)
    port = encrypted.database.server.port
    url = f"postgresql://postgres@{host}:{port}/{encrypted.database.name}"
    if host == "127.0.0.2":  # the name in the certificate is another one, and the address leads to the same server
        url = url.replace(host, "other.example") + "?hostaddr=127.0.0.1"
    runner = Runner(url, tmp_path, {"tls": encrypted.tls(**how)})
    result = runner.run("preflight", schema=ADD)
    assert result.reason is reason, result


def test_a_primary_that_takes_no_writes_for_a_while_is_waited_for(database: Database, runner: Runner) -> None:
    """As after a fail-over: the old one is read-only, and the name leads to the new one soon."""
    database.run(
        "CREATE TABLE users (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)",
        "INSERT INTO users SELECT generate_series(1, 3000)",
    )
    process = runner.start("up", backfill=FILL)
    until("it moves on", lambda: batches(database) > 2)
    database.run(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    database.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cutover%' AND datname = current_database()"
    )
    time.sleep(1)
    stood = batches(database)
    assert stood < 30
    with database.connect() as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {database.name} RESET default_transaction_read_only".encode())
    code, result, log = process.wait()
    assert (code, result and result.reason) == (0, RunnerReason.DONE), log
    assert database.rows("SELECT n, count(*) FROM users GROUP BY n") == [(1, 3000)]


def batches(database: Database) -> int:
    if not database.value("SELECT to_regclass('cutover.history') IS NOT NULL"):
        return 0
    return int(database.value("SELECT coalesce(max(batches), 0) FROM cutover.progress"))


def test_readers_wait_no_longer_than_the_lock_timeout(database: Database, runner: Runner) -> None:
    """Eight readers that overlap, and a session that keeps the table for seconds: the DDL gets its lock in the end."""
    database.run("CREATE TABLE users (id int PRIMARY KEY)", "INSERT INTO users SELECT generate_series(1, 100)")
    runner.settings |= {
        "lockTimeout": "400ms",
        "lockRetries": {"maxAttempts": 1000, "backoff": "100ms", "maxBackoff": "500ms"},
    }
    ended, waits = threading.Event(), []

    def read() -> None:
        with database.connect() as connection:
            while not ended.is_set():
                begun = time.monotonic()
                connection.execute("SELECT count(*) FROM users, pg_sleep(0.05)")
                waits.append(time.monotonic() - begun)

    readers = [threading.Thread(target=read) for _ in range(8)]
    with database.connect(autocommit=False) as blocker:
        blocker.execute("SELECT FROM users LIMIT 1")
        for one in readers:
            one.start()
        process = runner.start("up", schema=ADD)
        time.sleep(4)
        blocker.rollback()
        code, result, log = process.wait()
    ended.set()
    for one in readers:
        one.join()
    assert (code, result and result.reason) == (0, RunnerReason.DONE), log
    assert result is not None
    assert result.lock_waits >= 2
    usual = sorted(waits)[len(waits) // 2]
    assert max(waits) < 2 * 0.4 + 10 * usual, "nobody waits for the blocker's four seconds"


def test_nothing_that_is_secret_is_told(database: Database, runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """Planted in rows, keys, the URL and a script; searched in the results, the log, and what the journal shows of a failure."""
    planted = ["s3cr3t-row", "s3cr3t-key", "s3cr3t-password", "s3cr3t-text"]
    database.run(
        "CREATE TABLE users (id text PRIMARY KEY, n text)", f"INSERT INTO users VALUES ('{planted[1]}', '{planted[0]}')"
    )
    runner.url = f"postgresql://postgres:{planted[2]}@127.0.0.1:{database.server.port}/{database.name}"
    fill = {"table": "users", "set": {"n": "(n::int + 1)::text"}, "verify": "n <> ''"}
    clash = f"INSERT INTO users (id, n) VALUES ('{planted[1]}', '{planted[3]}')"
    cases: list[tuple[str, dict[str, Any]]] = [
        ("up", {"backfill": fill}),
        ("up", {"backfill": fill | {"verify": f"id <> '{planted[1]}'", "set": {"n": "'x'"}}, "step": "b"}),
        ("up", {"schema": {"up": script(clash)}, "step": "c"}),
        ("up", {"schema": {"up": script(f"SELEC '{planted[3]}'")}, "step": "d"}),
        ("up", {"schema": {"up": script("SELECT 1"), "validate": script("SELECT n FROM users")}, "step": "e"}),
        ("up", {"validate": {"queries": [{"name": "q", "sql": "SELECT n::int FROM users"}]}, "step": "f"}),
    ]
    for direction, work in cases:
        result = runner.run(direction, **work)
        assert result.reason.code in (ExitCode.BAD_INPUT, ExitCode.VERIFY_FAILED, ExitCode.VALIDATION_FAILED)
        for secret in planted:
            assert secret not in result.encode(), (work, secret)
    assert len(caplog.records) >= len(cases)
    assert [secret for secret in planted if secret in caplog.text] == []
