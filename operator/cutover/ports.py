"""What Cutover needs of the outside, as small protocols. `adapters/` has the real ones, `testing/` those in memory.

Every method raises only the errors of `errors.py`. Bodies are plain JSON documents, never to be changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from cutover import names
from cutover.errors import NotFound, Rejected
from cutover.field_path import Json, Operation
from cutover.messaging import Messenger
from cutover.names import EVERYTHING, ApiPath, Selector
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
"""On a Job: the uid of the plan that created it. It stays when the claim is removed at the end."""
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

    @property
    def root(self) -> ApiPath:
        """The URL path of its API version, where the server lists the kinds that it has."""
        return names.path(*self._root)

    @property
    def _root(self) -> tuple[str, ...]:
        return ("apis", self.group, self.version) if self.group else ("api", self.version)

    def path(self, namespace: str, *below: str) -> ApiPath:
        """The URL path of its objects in a namespace (empty: in all of them), or of what is below. Raises NotFound."""
        inside = ("namespaces", namespace) if namespace else ()
        return names.path(*self._root, *inside, self.plural, *below)


PLANS: Final = Resource(GROUP, VERSION, "migrationplans", "MigrationPlan")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
SNAPSHOTS: Final = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
JOBS: Final = Resource("batch", "v1", "jobs", "Job")
CRON_JOBS: Final = Resource("batch", "v1", "cronjobs", "CronJob")
PODS: Final = Resource("", "v1", "pods", "Pod")
SERVICES: Final = Resource("", "v1", "services", "Service")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
CRDS: Final = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
ACCESS_REVIEWS: Final = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview")
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
ISTIO_GATEWAYS: Final = Resource("networking.istio.io", "v1", "gateways", "Gateway")
GATEWAYS: Final = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway")

WORKLOADS: Final = (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS)
"""Kinds that run pods from a template."""

STREAMED: Final = (*WORKLOADS, VIRTUAL_SERVICES, HTTP_ROUTES, SERVICES, CONFIG_MAPS, JOBS)
"""Kinds of targets, and of objects that steps create. Their changes are streamed only while they carry `PLAN_LABEL`."""


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """One object by name."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        """As messages name it: ``Deployment checkout-v2``."""
        return f"{self.resource.kind} {self.name}"

    def path(self, *subresource: str) -> ApiPath:
        """The URL path of the object. Raises NotFound: none can have such a name."""
        return self.resource.path(self.namespace, self.name, *subresource)

    def written_at(self, *subresource: str) -> ApiPath:
        """The same for a write. Raises Rejected: to a write NotFound would mean that the object was there and is gone."""
        try:
            return self.path(*subresource)
        except NotFound as impossible:
            raise Rejected(str(impossible)) from None


@dataclass(frozen=True, slots=True)
class Outlines:
    """What decides who gets a request, of all objects of a kind: of each what `objects/outlines.py` keeps.

    Attributes:
        bodies: the outlines.
        number: another one after each change of them; 0 while they are not known.
        complete: they are of all namespaces.
    """

    bodies: Sequence[Json] = ()
    number: int = 0
    complete: bool = False


class Cluster(Protocol):
    """The API server."""

    async def get(self, ref: Ref) -> Json:
        """Read one object now. Raises NotFound."""

    async def read_as(self, ref: Ref, account: str) -> Json:
        """Read one object now, as a service account of its namespace. Raises NotFound, Denied.

        For what is copied into objects that the account creates: an author gets nothing to read that the account may not.
        """

    def seen(self, ref: Ref) -> Json | None:
        """The newest streamed body of a claimed object, never older than our own last write; None when it is not streamed."""

    def follow(self, plan: Ref, services: frozenset[str]) -> int | None:
        """Stream the EndpointSlices of some Services of the plan's namespace until a turn of the plan does not ask for it.

        Returns:
            A number that grows with each change of them, and wakes the plan; None while they are not streamed, so that
            only a read tells.
        """

    async def list(
        self, resource: Resource, namespace: str, labels: Selector = EVERYTHING, *, fresh: bool = True
    ) -> Sequence[Json]:
        """All objects of a kind in a namespace, or in all of them; none where the kind is not installed (except plans).

        Of each only what `objects/listed.py` keeps.

        Args:
            resource: the kind.
            namespace: its namespace; empty for all.
            labels: which of them, of `names.matching`.
            fresh: what is read is not older than the call. Without it the server answers at once from its watch cache;
                with it a list of a quiet kind takes up to 100 ms (kube-apiserver 1.36).
        """

    async def outlines(self, resource: Resource, namespace: str, *, wait: bool = False) -> Outlines:
        """What is streamed of all objects of a kind, for all plans together, while any plan asks.

        Args:
            resource: the kind.
            namespace: that of the plan; an operator of some namespaces sees this one only.
            wait: for a stream that has just been opened, some seconds at most; otherwise nothing is asked and nothing waited for.
        """

    async def events_of(self, ref: Ref, uid: str, reason: str) -> Sequence[Json]:
        """The events about an object that have this reason. Raises Denied."""

    async def patch(self, ref: Ref, operations: Sequence[Operation], account: str = "") -> Json:
        """Apply a JSON patch and return the object.

        Args:
            ref: the object.
            operations: RFC 6902; all or none take effect.
            account: the service account of the same namespace to impersonate; empty for the operator itself.

        Raises:
            Rejected, NotFound, Conflict, Denied: nothing was done.
            Unavailable: it may have been done.
        """

    async def try_out(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        """A dry run of a JSON patch: what the object would be, without fields the server does not know. Nothing is changed."""

    async def dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        """A dry run of a strategic merge patch: what the object would be. Nothing is changed.

        The server applies defaults, validation and admission as for a real write, and refuses fields it does not know.

        Args:
            ref: an object of a built-in kind.
            patch: the document; with another ``metadata.resourceVersion`` than the object has, it is a Conflict.
            account: the service account of the same namespace to impersonate.
        """

    async def create(
        self, resource: Resource, namespace: str, body: Json, account: str = "", *, dry_run: bool = False
    ) -> Json:
        """Create an object. Raises Conflict when the name is taken.

        Args:
            resource: the kind.
            namespace: its namespace.
            body: the manifest.
            account: the service account of the namespace to impersonate, with strict validation of fields; empty for the
                operator itself.
            dry_run: the server applies defaults, validation and admission, and creates nothing.
        """

    async def remove(self, ref: Ref, uid: str, account: str) -> None:
        """Delete one object with what it owns, as a service account, if it has this uid. Harmless when it is gone."""

    async def delete_all(self, resource: Resource, namespace: str, labels: Selector) -> None:
        """Delete every object of a kind that a label selector picks, as the operator."""

    async def save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        """Replace `.status` of a plan if it is still at this version. Raises Conflict."""

    async def may(self, account: str, namespace: str, verb: str, resource: Resource, name: str) -> bool:
        """Whether a service account of the namespace may do this, asked of the API server's authorizer."""

    async def may_get(self, account: str, namespace: str, ref: Ref) -> bool:
        """The same of an object of another namespace: a message names it only to who may get it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a metrics server answered to one query.

    Attributes:
        value: a finite number, or None when there was none.
        note: why there was none, in words of ours: no text of the answer ever reaches a status.
        at: the server's time of the number, in seconds; None when it did not say.
    """

    value: float | None
    note: str = ""
    at: float | None = None


class Metrics(Protocol):
    """Metric servers, configured by the administrator and named by plans.

    No method raises for what a server does: a failure is a sample without a value, with a note.
    """

    def names(self, kind: str) -> Sequence[str]:
        """Names of all providers of a kind, ``prometheus`` or ``http``, sorted."""

    def usable(self, provider: str) -> bool:
        """Whether the operator has usable credentials for a provider; when it has not, its log says why."""

    async def query(self, provider: str, query: str, lookback: float, at: float | None = None) -> Sample:
        """One instant query.

        Args:
            provider: its name in the settings, of kind prometheus.
            query: PromQL.
            lookback: seconds after which a series without a new sample counts as gone.
            at: the server's time of the query, in seconds; None for now.
        """

    async def fetch(self, provider: str, path: str, query: Mapping[str, str], pick: Callable[[Json], Sample]) -> Sample:
        """One GET of a JSON document.

        Args:
            provider: its name in the settings, of kind http.
            path: below the provider's address, beginning with a slash; of characters that need no quoting.
            query: the query parameters; quoted here.
            pick: finds the number in the document, which goes nowhere else. Called in another thread when it is large.
        """


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """The present moment, UTC."""


class Recorder(Protocol):
    """Where events are published."""

    def record(self, plan: Json, notice: Notice) -> None:
        """Publish one event of a plan; never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class Ports:
    """All of the outside."""

    cluster: Cluster
    metrics: Metrics
    messenger: Messenger
    recorder: Recorder
    clock: Clock
    runner_image: str = ""
    """What database Jobs run where a plan gives no image."""
