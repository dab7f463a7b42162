"""A backfill beside one plain UPDATE of the same rows: what it costs the server and how long it takes, as ratios of one run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from environment import installed, machine, table

from harness.postgresql import DEFAULT, Database, Server
from harness.tools import print_progress

ROWS = 1_000_000
ROUNDS = 5
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum": "off",
    "shared_buffers": "256MB",
    "max_wal_size": "8GB",
}
"""As a server of one's own, but that no VACUUM and no checkpoint of the server's own falls into one run and not into another."""
COLUMNS = (
    "id bigint PRIMARY KEY, email text NOT NULL, email_norm text, a int, b int, c text, d text, e timestamptz DEFAULT now(), "
    "f numeric DEFAULT 1.5, g boolean DEFAULT true, h text DEFAULT 'hello world', i int DEFAULT 7"
)
FILLED = """
INSERT INTO users (id, email, a, b, c, d) SELECT n, 'User' || n || '@Example.com', n, n % 100, md5(n::text), md5((n + 1)::text)
"""
FILL = {"table": "users", "set": {"email_norm": "lower(email)"}, "verify": "email_norm = lower(email)"}
PLAIN = "UPDATE users SET email_norm = lower(email) WHERE email_norm IS DISTINCT FROM lower(email)"
OURS: Mapping[str, Mapping[str, Any]] = {
    "5,000 rows a batch": {"batchSize": 5000, "targetBatchTime": "0s", "vacuumEvery": 0},
    "20,000 rows a batch": {"batchSize": 20_000, "targetBatchTime": "0s", "vacuumEvery": 0},
    "5,000 rows a batch, VACUUM after each tenth": {"batchSize": 5000, "targetBatchTime": "0s"},
    "as it is by default": {},
}


@dataclass(frozen=True)
class _Seen:
    """One run. CPU and wall in seconds, WAL and memory in MB, heap as a part of what it was."""

    cpu: float
    wall: float
    wal: float
    heap: float
    memory: float = 0.0


def measure(folder: Path) -> str:
    """The table. `ROWS` and `ROUNDS` of the environment make it quicker."""
    rows, rounds = int(os.environ.get("ROWS", ROWS)), int(os.environ.get("ROUNDS", ROUNDS))
    server = Server(int(os.environ.get("POSTGRESQL", DEFAULT)), SETTINGS).start()
    installed(folder / "image", extras=["database"])
    seen: dict[str, list[_Seen]] = {name: [] for name in ("plain", *OURS)}
    try:
        for number in range(rounds):
            print_progress(f"round {number + 1} of {rounds}")
            for name, runs in seen.items():
                work = partial(_ours, folder, OURS[name]) if name in OURS else _plain
                runs.append(_one(server, rows, work))
    finally:
        server.stop()
    return _table(seen, rows, rounds, server.version)


def _one(server: Server, rows: int, work: Callable[[Database], float]) -> _Seen:
    with server.database() as database:
        database.run(
            f"CREATE TABLE users ({COLUMNS})",
            f"{FILLED} FROM generate_series(1, {rows}) AS n",
            "CREATE INDEX ON users (b)",
            "VACUUM ANALYZE users",
            "CHECKPOINT",
        )
        size, place = database.rows("SELECT pg_table_size('users'), pg_current_wal_lsn()::text")[0]
        cpu, begun = server.cpu_seconds(), time.monotonic()
        memory = work(database)
        wall = time.monotonic() - begun
        time.sleep(0.3)  # until the figures of the session that has ended are in those of the first process
        cpu = server.cpu_seconds() - cpu
        after, wal = database.rows(
            "SELECT pg_table_size('users'), pg_wal_lsn_diff(pg_current_wal_lsn(), %s::text::pg_lsn)", (place,)
        )[0]
        assert database.value("SELECT count(*) FROM users WHERE email_norm IS DISTINCT FROM lower(email)") == 0
        return _Seen(cpu, wall, float(wal) / 1e6, after / size, memory)


def _plain(database: Database) -> float:
    with database.connect() as connection:
        connection.execute(PLAIN)
    return 0.0


def _ours(folder: Path, how: Mapping[str, Any], database: Database) -> float:
    """The runner as a Job starts it; its resident memory at most, in MB."""
    payload = folder / "payload.json"
    payload.write_text(
        json.dumps({
            "plan": {"namespace": "bench", "name": "bench", "uid": "bench"}, "run": 1, "step": "fill", "attempt": 1, "fence": 1,
            "direction": "up", "database": {"name": "bench"}, "backfill": {**FILL, **how},
        })
    )  # fmt: skip
    argv = [
        str(folder / "image" / "bin" / "cutover-database"),
        "--payload",
        str(payload),
        "--result",
        str(folder / "result"),
    ]
    log, memory = folder / "runner.log", 0.0
    with log.open("w") as stream:
        process = subprocess.Popen(argv, env={**os.environ, "CUTOVER_DATABASE_URL": database.url}, stderr=stream)
        while process.poll() is None:
            memory = max(memory, _most(process.pid))
            time.sleep(0.05)
    assert process.returncode == 0, log.read_text()
    return memory


def _most(pid: int) -> float:
    """What a process had in memory at most, in MB (proc(5): VmHWM)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1000
    return 0.0


def _table(seen: Mapping[str, list[_Seen]], rows: int, rounds: int, version: int) -> str:
    """Each round's figures are parts of that round's plain UPDATE; the median of the rounds stands here."""

    def ratio(name: str, of: Callable[[_Seen], float]) -> str:
        pairs = zip(seen[name], seen["plain"], strict=True)
        return f"{statistics.median(of(one) / of(plain) for one, plain in pairs):.2f}"

    plain = seen["plain"]
    usual = _Seen(*(statistics.median(getattr(one, name) for one in plain) for name in ("cpu", "wall", "wal", "heap")))
    lines: list[tuple[str, ...]] = [
        (
            "one plain UPDATE",
            f"{usual.cpu:.1f} s",
            f"{usual.wall:.1f} s",
            f"{usual.wal:.0f} MB",
            f"{usual.heap:.2f}",
            "",
        )
    ]
    for name in OURS:
        ratios = [ratio(name, of) for of in (lambda one: one.cpu, lambda one: one.wall, lambda one: one.wal)]
        heap = statistics.median(one.heap for one in seen[name])
        memory = max(one.memory for one in seen[name])
        lines.append((name, *ratios, f"{heap:.2f}", f"{memory:.0f} MB"))
    head = (
        "",
        "server CPU",
        "wall",
        "WAL",
        "heap afterwards, as a part of before",
        "memory of the runner at most",
    )
    return (
        f"{table(head, lines)}\n{rows:,} rows of 12 columns with a primary key and one more index, PostgreSQL {version}, one worker, `verify` on, fsync on, "
        f"autovacuum off; all in turn, {rounds} rounds. CPU, wall and WAL are ratios to the plain UPDATE of the same round, medians of the rounds. "
        f"{machine().partition(', kube')[0]}.\n"
    )
