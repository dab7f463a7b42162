"""Who shifts traffic in the bench of a crowd: this operator, another revision of it, and Argo Rollouts where its files are at hand.

``BASE=folder`` is a checkout of another revision. ``ARGO_ROLLOUTS=program`` is the controller of Argo Rollouts and
``ARGO_ROLLOUTS_CRDS=folder`` has its CRDs. Each is measured on a control plane of its own, in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from environment import installed

from harness.cluster import ROOT, Cluster
from harness.control_plane import install, load
from harness.process import Process, free_ports, until
from support.cluster.crowd import NEW_IMAGE, Crowd
from support.cluster.neighbours import side_by_side
from support.cluster.shop import Operator


class Peer(Protocol):
    """Somebody who shifts the traffic of a crowd.

    Attributes:
        name: as the table calls it.
        user: as whom it makes its requests.
        replaced: kinds of a shop that it has objects of its own for.
    """

    name: str
    user: str
    replaced: Sequence[str]

    def running(self, cluster: Cluster, folder: Path) -> Any:
        """A context in which it runs."""

    def prepare(self, crowd: Crowd) -> None:
        """What it needs beside the shops, before the clock runs."""

    def go(self, crowd: Crowd, weights: Sequence[int]) -> None:
        """Let it shift the traffic of all shops at once."""


def peers() -> list[Peer]:
    """All that the environment names, ours first."""
    found: list[Peer] = [Cutover("ours", ROOT)]
    if base := os.environ.get("BASE"):
        found.append(Cutover(f"ours at {Path(base).name}", Path(base)))
    if program := os.environ.get("ARGO_ROLLOUTS"):
        found.append(ArgoRollouts(Path(program), Path(os.environ["ARGO_ROLLOUTS_CRDS"])))
    return found


@dataclass
class Cutover:
    """This operator, as a checkout has it."""

    name: str
    checkout: Path
    user: str = "system:serviceaccount:cutover-system:cutover"
    replaced: Sequence[str] = ()

    @contextmanager
    def running(self, cluster: Cluster, folder: Path) -> Iterator[Process]:
        """With its own CRD."""
        install(cluster.api, *load(self.checkout / "crds" / "migrationplans.yaml"))
        operator = Operator(cluster, folder, {}, program=[str(installed(folder / "image", self.checkout))])
        operator.start()
        try:
            until("the operator is ready", operator.ready)
            yield operator.process  # type: ignore[misc]  # a program, so not forked
        finally:
            operator.stop()

    def prepare(self, crowd: Crowd) -> None:
        """The account of the plans."""
        crowd.make_account()

    def go(self, crowd: Crowd, weights: Sequence[int]) -> None:
        """A plan for each."""
        crowd.apply(weights)


@dataclass
class ArgoRollouts:
    """Argo Rollouts with its defaults: a Rollout in the place of both Deployments, and Services that select its pods."""

    program: Path
    crds: Path
    name: str = "Argo Rollouts"
    user: str = "system:serviceaccount:cutover-system:cutover"
    replaced: Sequence[str] = ("Deployment", "Service")

    @contextmanager
    def running(self, cluster: Cluster, folder: Path) -> Iterator[Process]:
        """Under an account that may do everything, so that its requests are told from those of others."""
        manifests = [one for file in sorted(self.crds.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())]
        install(cluster.api, *(one for one in manifests if one and one["kind"] == "CustomResourceDefinition"))
        cluster.control_plane.make_namespace("argo-rollouts")  # where it looks for its Lease
        everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        kubeconfig = cluster.control_plane.operator_kubeconfig(everything)
        metrics, health = free_ports(2)
        arguments = [f"--kubeconfig={kubeconfig}", f"--metricsport={metrics}", f"--healthzPort={health}"]
        process = Process("argo-rollouts", [str(self.program), *arguments], log=folder / "argo-rollouts.log")
        process.start()
        try:
            yield process
        finally:
            process.stop()

    def prepare(self, crowd: Crowd) -> None:
        """The first version of each Rollout, which becomes stable without steps."""

        def one(name: str) -> None:
            for side in ("v1", "v2"):
                crowd.api.apply(_service(crowd.namespace, f"{name}-{side}", name))
            crowd.api.apply(_rollout(crowd.namespace, name, "shop:1", (10,)))

        side_by_side(one, crowd.names)
        path = f"/apis/argoproj.io/v1alpha1/namespaces/{crowd.namespace}/rollouts"

        def stable() -> bool:
            found = [one.get("status", {}) for one in crowd.api.list(path)]
            return all(one.get("availableReplicas") == 1 and one.get("stableRS") for one in found)

        until("all Rollouts are stable", stable, deadline=600)

    def go(self, crowd: Crowd, weights: Sequence[int]) -> None:
        """Another image for each."""
        side_by_side(lambda name: crowd.api.apply(_rollout(crowd.namespace, name, NEW_IMAGE, weights)), crowd.names)


def _service(namespace: str, name: str, pods: str) -> dict[str, Any]:
    """Argo Rollouts adds to the selector which of its pods are meant."""
    spec = {"selector": {"app": pods}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _rollout(namespace: str, name: str, image: str, weights: Sequence[int]) -> dict[str, Any]:
    traffic = {"istio": {"virtualService": {"name": name, "routes": ["primary"]}}}
    canary = {
        "stableService": f"{name}-v1",
        "canaryService": f"{name}-v2",
        "trafficRouting": traffic,
        "steps": [{"setWeight": weight} for weight in weights],
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": image}]},
            },
            "strategy": {"canary": canary},
        },
    }
