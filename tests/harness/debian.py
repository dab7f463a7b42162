"""Unpacks one package of the distribution (Debian or what descends from it) without root and without installing it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path


def unpack(package: str, into: Path) -> None:
    """Download a package and unpack it below a folder. Raises OSError with apt's message."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise OSError("this is not a Debian: apt-get or dpkg is missing")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        message = _download(package, Path(folder), [])
        if not list(Path(folder).glob("*.deb")):  # no package lists yet: fetch them into folders of our own
            own = _own_folders(Path(folder))
            _run(["apt-get", *own, "update"], Path(folder))
            message = _download(package, Path(folder), own)
        packed = sorted(Path(folder).glob("*.deb"))
        if not packed:
            raise OSError(f"apt-get download {package}: {message}")
        message = _run(["dpkg", "-x", str(packed[0]), str(into)], Path(folder))
        if message:
            raise OSError(f"dpkg -x {packed[0].name}: {message}")


def _own_folders(folder: Path) -> list[str]:
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "archives" / "partial").mkdir(parents=True)
    return [
        "-o",
        f"Dir::State::lists={folder}/lists",
        "-o",
        f"Dir::Cache={folder}",
        "-o",
        f"Dir::Cache::archives={folder}/archives",
        "-o",
        "APT::Sandbox::User=",
    ]


def _download(package: str, folder: Path, options: list[str]) -> str:
    return _run(["apt-get", *options, "download", package], folder)


def _run(command: list[str], folder: Path) -> str:
    """Run a command; its message when it failed, else nothing."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-500:]
