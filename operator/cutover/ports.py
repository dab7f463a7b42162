"""What Cutover needs of the outside, as small protocols. `adapters/` holds the real ones, `testing.py` the in-memory ones.

Every method raises only the errors of `errors.py`. Bodies are plain JSON documents, never to be changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from cutover.field_path import Json, Operation
from cutover.saga.turn import Notice

GROUP: Final = "cutover.dev"
VERSION: Final = "v1alpha1"
FINALIZER: Final = "cutover.dev/rollback"
PLAN_LABEL: Final = "cutover.dev/plan"
FENCE_LABEL: Final = "cutover.dev/fence"
MIGRATOR_LABEL: Final = "cutover.dev/migrator"
APPLIED_LABEL: Final = "cutover.dev/applied"
"""On a target after a success: the first 32 hexadecimal digits of the hash of the spec that was applied."""
MADE_LABEL: Final = "cutover.dev/made-by"
"""On a Job: the uid of the plan that made it. It stays when the claim is taken off at the end."""
FIELD_MANAGER: Final = "cutover"


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A kind of object as the API server knows it. `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As manifests spell it, such as ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str) -> str:
        """Where the API server has its objects of a namespace; empty: of all."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"


PLANS: Final = Resource(GROUP, VERSION, "migrationplans", "MigrationPlan")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
SNAPSHOTS: Final = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
JOBS: Final = Resource("batch", "v1", "jobs", "Job")
PODS: Final = Resource("", "v1", "pods", "Pod")
SERVICES: Final = Resource("", "v1", "services", "Service")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
RESOURCE_QUOTAS: Final = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES: Final = Resource("", "v1", "limitranges", "LimitRange")
DISRUPTION_BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
AUTOSCALERS: Final = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
VIRTUAL_SERVICES: Final = Resource("networking.istio.io", "v1", "virtualservices", "VirtualService")
DESTINATION_RULES: Final = Resource("networking.istio.io", "v1", "destinationrules", "DestinationRule")
WORKLOAD_ENTRIES: Final = Resource("networking.istio.io", "v1", "workloadentries", "WorkloadEntry")
HTTP_ROUTES: Final = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")

WORKLOADS: Final = (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS)
"""What runs pods from a template."""

STREAMED: Final = (*WORKLOADS, VIRTUAL_SERVICES, HTTP_ROUTES, SERVICES, CONFIG_MAPS, JOBS)
"""Kinds of targets, and what we make. Of these, and only while they carry `PLAN_LABEL`, every change is streamed to us."""


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """One object by name."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        """As messages name it: ``Deployment checkout-v2``."""
        return f"{self.resource.kind} {self.name}"


class Cluster(Protocol):
    """The API server."""

    async def get(self, ref: Ref) -> Json:
        """Read one object now. Raises NotFound."""

    def seen(self, ref: Ref) -> Json | None:
        """The newest streamed body of a claimed object, never older than our own last write; None when there is none."""

    async def list(self, resource: Resource, namespace: str, labels: str = "", *, fresh: bool = True) -> Sequence[Json]:
        """All objects of a kind in a namespace, or in all of them; a kind that is not installed has none (but plans are).

        Args:
            resource: the kind.
            namespace: where; empty for everywhere.
            labels: a label selector.
            fresh: what is read is not older than the call. Without it the server answers from its cache at once, as it
                would feed a watch; with it a list of a quiet kind takes up to 100 ms (kube-apiserver 1.36).
        """

    async def patch(self, ref: Ref, operations: Sequence[Operation], account: str = "") -> Json:
        """Apply a JSON patch and return the object.

        Args:
            ref: the object.
            operations: RFC 6902; all or none take effect.
            account: the service account of the same namespace to act as; empty for the operator itself.

        Raises:
            Rejected, NotFound, Conflict, Denied: nothing was done.
            Unavailable: it may have been done.
        """

    async def try_out(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        """What an object would be after a JSON patch, fields dropped that the server does not know. Nothing is changed."""

    async def dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        """What an object would be after a strategic merge patch. Nothing is changed.

        The server defaults, validates and asks admission as for a real write, and refuses fields it does not know.

        Args:
            ref: an object of a built-in kind.
            patch: the document; with ``metadata.resourceVersion`` it is Conflict when the object is at another.
            account: the service account of the same namespace to act as.
        """

    async def create(
        self, resource: Resource, namespace: str, body: Json, account: str = "", *, dry_run: bool = False
    ) -> Json:
        """Create an object. Raises Conflict when the name is taken.

        Args:
            resource: the kind.
            namespace: where.
            body: the manifest.
            account: the service account of the namespace to act as, for which the server refuses fields that it does not
                know; empty for the operator itself.
            dry_run: the server defaults, validates and asks admission, and makes nothing.
        """

    async def remove(self, ref: Ref, uid: str, account: str) -> None:
        """Delete one object, as a service account, if it is the one with this uid; what it owns follows. Gone already is fine."""

    async def delete_all(self, resource: Resource, namespace: str, labels: str) -> None:
        """Delete every object of a kind that a label selector picks, as the operator."""

    async def save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        """Replace `.status` of a plan if it is still at this version. Raises Conflict when it is not."""

    async def may(self, account: str, namespace: str, verb: str, resource: Resource, name: str) -> bool:
        """Whether a service account of the namespace may do this, asked of the API server's authorizer."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a metrics server answered to one query.

    Attributes:
        value: a finite number, or None when there was none.
        note: why there was none, in words of ours: no text of the server's answer ever goes into a status.
        at: the server's time that the number is of, in seconds; None when it did not say.
    """

    value: float | None
    note: str = ""
    at: float | None = None


class Metrics(Protocol):
    """Servers of numbers, configured by the administrator and named by plans.

    No method raises for what a server does: any trouble is a sample without a value, with a note.
    """

    def names(self, kind: str) -> Sequence[str]:
        """Names of all providers of a kind, ``prometheus`` or ``http``, sorted."""

    def usable(self, provider: str) -> bool:
        """Whether the operator has what it takes to show a provider who it is; where it has not, its log says why."""

    async def query(self, provider: str, query: str, lookback: float, at: float | None = None) -> Sample:
        """One instant query.

        Args:
            provider: its name in the settings, of kind prometheus.
            query: PromQL.
            lookback: seconds after which a series that got no new sample counts as gone.
            at: the server's time to ask about, in seconds; None for its present.
        """

    async def fetch(self, provider: str, path: str, query: Mapping[str, str], pick: Callable[[Json], Sample]) -> Sample:
        """One GET of a JSON document.

        Args:
            provider: its name in the settings, of kind http.
            path: below the provider's address, beginning with a slash; of characters that need no quoting.
            query: what follows the question mark; quoted here.
            pick: finds the number in the document, which goes nowhere else. Called in another thread when it is large.
        """


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """The present moment, UTC."""


class Tone(StrEnum):
    """How a message is coloured where it is read."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Message:
    """What people are told."""

    title: str
    text: str
    tone: Tone = Tone.INFO


@dataclass(slots=True)
class Delivery:
    """What becomes of one message; whoever sends it writes here.

    Attributes:
        over: it was delivered, or given up.
        trouble: why it was given up, in words of ours; empty when it was delivered.
    """

    over: bool = False
    trouble: str = ""


class Messenger(Protocol):
    """Receivers of messages, configured by the administrator and named by plans."""

    def knows(self, provider: str) -> bool:
        """Whether a provider of this name is configured."""

    def names(self) -> Sequence[str]:
        """Names of all providers, for messages."""

    def post(self, provider: str, message: Message, patience: float, key: Hashable = None) -> Delivery:
        """Send a message in the background; never blocks, never raises. The messages of one provider keep their order.

        Args:
            provider: its name in the settings.
            message: what is sent.
            patience: seconds after which a message that nobody took is given up.
            key: what was posted under it before in this process is not sent again; that delivery is returned.
        """

    def delivery(self, key: Hashable) -> Delivery | None:
        """What was posted under a key by this process; None when nothing was, or so long ago that it is forgotten."""


class Recorder(Protocol):
    """Where people read what happened."""

    def record(self, plan: Json, notice: Notice) -> None:
        """Publish one event about a plan; never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class Ports:
    """All of the outside."""

    cluster: Cluster
    metrics: Metrics
    messenger: Messenger
    recorder: Recorder
    clock: Clock
