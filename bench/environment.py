"""What every part of the bench needs: a cluster without Istio's webhook, the operator as a process, and the form of a table."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prometheus_stub import PrometheusStub

from harness.cluster import ROOT, Cluster
from harness.process import until
from support.cluster.shop import Operator


@contextmanager
def environment(folder: Path) -> Iterator[tuple[Cluster, Operator, PrometheusStub]]:
    """A fresh cluster, an operator that runs, and the stand-in for Prometheus that it asks."""
    answers = PrometheusStub()
    with control_plane(folder) as cluster:
        providers = {"default": {"prometheus": {"url": answers.url}}}
        operator = Operator(cluster, folder, providers, program=[str(installed(folder / "image"))])
        operator.start()
        try:
            until("the operator is ready", operator.ready)
            yield cluster, operator, answers
        finally:
            operator.stop()


@contextmanager
def control_plane(folder: Path) -> Iterator[Cluster]:
    """A fresh cluster with Istio's CRDs."""
    cluster = Cluster(folder / "cluster")
    try:
        cluster.start(("mesh",))
        cluster.mesh.processes["istiod"].stop()  # its webhook is none of our time
        cluster.api.delete("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-validator")
        yield cluster
    finally:
        cluster.stop()


def installed(folder: Path, checkout: Path = ROOT, extras: Sequence[str] = ()) -> Path:
    """The operator's program with the packages that its image holds, as the Dockerfile installs them; the command line needs more."""
    options = ["--quiet", "--frozen", "--no-dev", "--no-editable", "--compile-bytecode"]
    options += [f"--extra={extra}" for extra in extras]
    subprocess.run(
        [os.environ.get("UV", "uv"), "sync", *options],  # `uv run` says where it is
        cwd=checkout,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)},
        check=True,
    )
    return folder / "bin" / "cutover-operator"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of them do not exceed."""
    return sorted(values)[int(percent / 100 * (len(values) - 1))]


median = statistics.median


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine() -> str:
    """Where the figures come from."""
    return (
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, kube-apiserver and etcd beside it"
    )
