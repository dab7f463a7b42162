"""A shop on the local cluster, its operator as a process, and plans over them."""

from __future__ import annotations

import copy
import functools
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cutover.plan.status_document import read_status
from cutover.ports import APPLIED_LABEL, FENCE_LABEL, PLAN_LABEL
from cutover.status.requests import RequestVerb, write
from cutover.status.status import ENDED, Phase, Status
from cutover.targets.ownership import fields_of
from harness.api import Api
from harness.cluster import ROOT, Cluster
from harness.kind import Installed
from harness.process import PATIENCE, Process, free_ports, until
from support.cluster.forked_operator import ForkedOperator

RIGHTS = ROOT / "charts/cutover/files"


def rights() -> tuple[list[Any], list[Any]]:
    """What the chart gives the operator: everywhere, and in its own namespace."""
    everywhere, own = (yaml.safe_load((RIGHTS / file).read_text()) for file in ("rules.yaml", "lease-rules.yaml"))
    return everywhere, own


class Operator:
    """The operator as a process, with the rights its chart gives it and no more.

    Started again it is the same pod with a new container: it goes on with its own Lease.

    Args:
        lease: settings of the Lease; without them there is none, and it works beside any other.
        name: of the pod.
        notify: who can be told.
        program: how it is called, to be started from its file; without it it is forked, which takes no second.
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        providers: dict[str, Any],
        lease: dict[str, Any] | None = None,
        name: str = "operator",
        notify: dict[str, Any] | None = None,
        program: Sequence[str] = (),
    ) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        settings = folder / f"{name}.yaml"
        settings.write_text(yaml.safe_dump({"providers": providers, "lease": lease, "notify": notify or {}}))
        kubeconfig = cluster.control_plane.operator_kubeconfig(*rights())
        (self._port,) = free_ports(1)
        arguments = ["--settings", str(settings), "--port", str(self._port)]
        env = {"KUBECONFIG": str(kubeconfig), "POD_NAME": name}
        self.process = (
            Process("operator", [*program, *arguments], log=self.log, env=env)
            if program
            else ForkedOperator(arguments, kubeconfig, self.log, name)
        )

    def start(self) -> None:
        self.process.start()

    def restart(self) -> None:
        """End it by SIGTERM, as Kubernetes does with a pod that is deleted, and start it again."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def stop(self) -> None:
        self.process.stop()

    @property
    def alive(self) -> bool:
        return self.process.alive

    def ask(self, path: str) -> str:
        """What its own port answers, such as /metrics. Raises OSError while it does not listen, HTTPError for a no."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def ready(self) -> bool:
        return self.ask("/readyz") == "ok\n"


AnyOperator = Operator | Installed
"""What a test that runs everywhere may ask for; one that asks for `Operator` is marked `local`."""


class Shop:
    """One namespace with a shop of simulated pods: v1 with all the traffic, v2 without pods."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.plans = f"/apis/cutover.dev/v1alpha1/namespaces/{namespace}/migrationplans"
        self.apps = f"/apis/apps/v1/namespaces/{namespace}"
        self.deployments = f"{self.apps}/deployments"
        self.routes = f"/apis/networking.istio.io/v1/namespaces/{namespace}/virtualservices/shop"
        self.http_routes = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes"

    def create(self, *, pods: int = 3) -> None:
        for manifest in self.manifests(pods):
            self.api.apply(manifest)
        until("the shop's first pods are ready", lambda: self.endpoints("shop-v1") >= pods)

    def manifests(self, pods: int) -> list[dict[str, Any]]:
        text = _SHOP.replace("NAMESPACE", self.namespace).replace("PODS", str(pods))
        return list(yaml.safe_load_all(text))

    def endpoints(self, service: str) -> int:
        slices = self.api.list(
            f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices",
            f"kubernetes.io/service-name={service}",
        )
        return sum(bool(e["conditions"].get("ready")) for part in slices for e in part.get("endpoints") or ())

    # --- plans --------------------------------------------------------------------------------------------------------

    def apply(self, spec: str | dict[str, Any], name: str = "plan", **metadata: Any) -> str:
        """Apply a plan; its path. Pods that go wait for no drain where the plan asks for none, or every rollback would take half a minute."""
        document = yaml.safe_load(spec) if isinstance(spec, str) else copy.deepcopy(spec)
        steps = document.get("steps")
        for step in steps if isinstance(steps, list) else ():
            for kind in ("traffic", "switch"):
                if isinstance(step, dict) and isinstance(fields := step.get(kind), dict):
                    fields.setdefault("drain", "0s")
        body = {
            "apiVersion": "cutover.dev/v1alpha1",
            "kind": "MigrationPlan",
            "metadata": {"name": name, "namespace": self.namespace, **metadata},
            "spec": {"serviceAccountName": "migrator", **document},
        }
        self.api.apply(body)
        return f"{self.plans}/{name}"

    def status(self, name: str = "plan") -> Status:
        return read_status(self.api.get(f"{self.plans}/{name}").get("status"))

    def until(self, reached: Callable[[Status], bool], name: str = "plan", deadline: float = 30.0) -> Status:
        """Wait on the watch until the status is as it should be."""
        end = time.monotonic() + deadline * PATIENCE
        seen = Status()
        while (left := end - time.monotonic()) > 0:
            for kind, body in self.api.watch(self.plans, seconds=left, fields=f"metadata.name={name}"):
                if kind == "DELETED":
                    raise AssertionError(f"plan {name} is gone; it was {seen}")
                seen = read_status(body.get("status"))
                if reached(seen):
                    return seen
        raise AssertionError(f"plan {name} did not get there within {deadline:g}s; it is {seen}")

    def until_phase(self, phase: Phase, name: str = "plan", deadline: float = 30.0) -> Status:
        return self.until(lambda status: status.phase is phase, name, deadline)

    def until_ended(self, name: str = "plan", deadline: float = 30.0) -> Status:
        """Until the run has ended and the finalizer is off."""
        status = self.until(lambda status: status.phase in ENDED, name, deadline)
        until("the finalizer is off", lambda: not self.api.get(f"{self.plans}/{name}")["metadata"].get("finalizers"))
        return status

    def refuses(self, before: dict[str, Any], *sentences: str) -> None:
        """The plan ends Refused with all of these sentences; nothing has changed."""
        status = self.until_ended()
        assert status.phase is Phase.REFUSED
        for sentence in sentences:
            assert sentence in status.message, status.message
        assert self.objects() == before
        assert self.leftovers() == []

    @functools.cached_property
    def user(self) -> str:
        """Who we are to the API server: the chart's policies take no request that is signed with another name."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self.api.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        name: str = answer["status"]["userInfo"]["username"]
        return name

    def request(self, verb: RequestVerb, step: str = "", name: str = "plan") -> None:
        key, value = write(verb, self.user, step)
        self.api.patch(f"{self.plans}/{name}", {"metadata": {"annotations": {key: value}}})

    def events(self, name: str = "plan") -> list[dict[str, Any]]:
        """What the events of a plan tell, in their order."""
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        own = {"kind": "MigrationPlan", "name": name}
        told = [event for event in self.api.list(path) if own.items() <= event["regarding"].items()]
        return sorted(told, key=lambda event: event["eventTime"])

    def take_rights(self) -> dict[str, Any]:
        """Take all rights from the account of the plans; what to apply to give them back."""
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}/rolebindings/migrator"
        binding: dict[str, Any] = self.api.get(path)
        self.api.delete(path)
        return {
            key: value if key != "metadata" else {"name": "migrator", "namespace": self.namespace}
            for key, value in binding.items()
        }

    # --- what is there ------------------------------------------------------------------------------------------------

    def weights(self) -> list[int]:
        return [entry.get("weight", 0) for entry in self.api.get(self.routes)["spec"]["http"][0]["route"]]

    def objects(self) -> dict[str, Any]:
        """Spec (of a ConfigMap its data, of a Service its selector), labels, annotations and owners of fields of all that a plan may touch."""
        found = {}
        workloads = [f"{self.apps}/{plural}" for plural in ("deployments", "statefulsets", "daemonsets")]
        core = [f"/api/v1/namespaces/{self.namespace}/{plural}" for plural in ("services", "configmaps")]
        for path in (*workloads, self.routes.rpartition("/")[0], self.http_routes, *core):
            for body in self.api.list(path):
                metadata = body["metadata"]
                if metadata["name"] == "kube-root-ca.crt" or metadata["name"].startswith("istio-ca-"):
                    continue  # every namespace gets it, some time after it was made
                content = (
                    body["spec"].get("selector") if path.endswith("/services") else body.get("spec", body.get("data"))
                )
                annotations = dict(metadata.get("annotations") or {})
                for counter in ("deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"):
                    annotations.pop(counter, None)  # the controllers count changes there, those back included
                found[f"{path.rpartition('/')[2]}/{metadata['name']}"] = (
                    content,
                    metadata.get("labels") or {},
                    annotations,
                    owners_of(metadata),
                )
        return found

    def leftovers(self) -> list[str]:
        """Claims and snapshots that should not be there after the end; a success keeps its mark and its snapshots."""
        plans = self.api.list(self.plans)
        succeeded = {plan["metadata"]["uid"] for plan in plans if plan["status"].get("phase") == Phase.SUCCEEDED}
        marks = (PLAN_LABEL, FENCE_LABEL) if succeeded else (PLAN_LABEL, FENCE_LABEL, APPLIED_LABEL)
        found = [name for name, (_, labels, *_) in self.objects().items() if any(mark in labels for mark in marks)]
        for revision in self.api.list(f"{self.apps}/controllerrevisions", PLAN_LABEL):
            metadata = revision["metadata"]
            if metadata["labels"][PLAN_LABEL] not in succeeded or not metadata.get("ownerReferences"):
                found.append(metadata["name"])
        return found


def owners_of(metadata: dict[str, Any]) -> dict[str, list[str]]:
    """Who owns which fields, without those who write the status. When they were written is left out, so an applied copy is equal."""
    found: dict[str, list[str]] = {}
    for entry in metadata.get("managedFields") or ():
        if not entry.get("subresource"):  # there the controllers count changes, those back included
            fields = found.setdefault(f"{entry['manager']} {entry['operation']}", [])
            fields += sorted({"/".join(field) for field in fields_of(entry)})
    return found


def without_owners(objects: dict[str, Any]) -> dict[str, Any]:
    """The same objects, for a test in which somebody else writes them and owns what he wrote."""
    return {name: (*parts, {}) for name, (*parts, _) in objects.items()}


_SHOP = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: migrator, namespace: NAMESPACE, labels: {cutover.dev/migrator: "true"}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: migrator, namespace: NAMESPACE}
rules:
  - {apiGroups: ["apps"], resources: ["deployments", "statefulsets", "daemonsets"], verbs: ["patch"]}
  - {apiGroups: ["networking.istio.io"], resources: ["virtualservices"], verbs: ["patch"]}
  - {apiGroups: ["gateway.networking.k8s.io"], resources: ["httproutes"], verbs: ["patch"]}
  - {apiGroups: [""], resources: ["services", "configmaps"], verbs: ["patch"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: migrator, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: migrator}
subjects: [{kind: ServiceAccount, name: migrator, namespace: NAMESPACE}]
---
apiVersion: v1
kind: Service
metadata: {name: shop-v1, namespace: NAMESPACE}
spec: {selector: {app: shop-v1}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop-v2, namespace: NAMESPACE}
spec: {selector: {app: shop-v2}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-v1, namespace: NAMESPACE, labels: {team: shop}}
spec:
  replicas: PODS
  selector: {matchLabels: {app: shop-v1}}
  template:
    metadata: {labels: {app: shop-v1}}
    spec: {containers: [{name: app, image: "shop:1"}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-v2, namespace: NAMESPACE}
spec:
  replicas: 0
  selector: {matchLabels: {app: shop-v2}}
  template:
    metadata: {labels: {app: shop-v2}}
    spec: {containers: [{name: app, image: "shop:1"}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: NAMESPACE}
spec:
  hosts: [NAMESPACE.example]
  gateways: [istio-system/gateway]
  http:
    - name: primary
      retries: {attempts: 0}
      route:
        - {destination: {host: shop-v1}, weight: 100}
        - {destination: {host: shop-v2}, weight: 0}
"""

DEPLOY = """
  - name: deploy
    deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}
    gates: [{name: pods, readiness: {percent: 100}}]
"""
SHIFT = """
  - name: shift
    traffic:
      virtualService: {name: shop}
      from: {host: shop-v1}
      to: {host: shop-v2}
      weights: [10, 25, 50, 100]
"""
