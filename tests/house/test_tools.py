"""How the programs of the local cluster are found, and what is said when they cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import tools


def program(folder: Path, name: str, says: str, code: int = 0) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("version", "found"),
    [("2.41.9", None), ("2.42.0+ds", "prometheus"), ("2.53.1", "prometheus"), ("3.5.0", "prometheus"), ("3", None)],
)
def test_a_prometheus_on_the_path(
    version: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "prometheus", f"prometheus, version {version} (branch: HEAD)")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools._from_path(tools.TOOLS["prometheus"]) == (tmp_path / found if found else None)


def test_others_on_the_path_must_be_of_the_very_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "etcd", "etcd Version: 3.4.0")
    assert tools._from_path(tools.TOOLS["etcd"]) is None
    program(tmp_path, "etcd", f"etcd Version: {tools.ETCD.removeprefix('v')}")
    assert tools._from_path(tools.TOOLS["etcd"]) == tmp_path / "etcd"


def test_without_go_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        tools.ToolMissing, match=r"source of istio.io/istio cannot be had: Go is not on PATH; install Go"
    ):
        tools.module_dir("istio", "istio.io/istio")


def test_what_go_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "go", "no such module", code=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tools.ToolMissing, match=r"go mod download -json istio.io/istio says: no such module"):
        tools.module_dir("istio", "istio.io/istio")
