"""Jobs created from a template of the plan: the manifest, its state, and what happens to Jobs at the end of a run.

Used by the kind and the gate `job`, and by `engine/` at the end of a run. No text that a pod or a server wrote
goes into a message: exit codes, reasons (one word, as Kubernetes spells them) and names of objects only.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cutover.errors import Denied, NotFound, Problem, Rejected
from cutover.field_path import ABSENT, Json, Operation, escape
from cutover.names import matching
from cutover.objects import sidecars
from cutover.objects.kept import Lost, unkept
from cutover.objects.pods import word
from cutover.ports import FENCE_LABEL, JOBS, MADE_LABEL, NAMESPACES, PLAN_LABEL, PLANS, Cluster, Ref
from cutover.targets.claims import Owner
from cutover.targets.snapshots import RUN_LABEL, former, write_over

STARTED_LABEL: Final = "cutover.dev/started"
"""``false`` until the Job may run, then ``true`` forever; ``never`` when it was stopped before."""
GATE_LABEL: Final = "cutover.dev/gate"
"""On a Job of a gate: which gate of the plan."""
_LABELS_OF_THE_SERVER: Final = frozenset(
    f"{prefix}{label}" for prefix in ("", "batch.kubernetes.io/") for label in ("controller-uid", "job-name")
)
_LEAD: Final = 45
"""Characters of a step's name in the name of a Job."""


def name_of(lead: str, *key: object) -> str:
    """The name of the Job of one attempt, derived from the key, so that every process gets the same.

    Pods carry it as a label, and pods of an Indexed Job have it with their index as host name: 63 characters at most,
    of which up to 7 are reserved for a million completions.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).hexdigest()[:10]
    return f"{lead[:_LEAD].rstrip('-')}-{digest}"


def manifest(template: Json, name: str, owner: Owner, backoff_limit: int, labels: Mapping[str, str]) -> Json:
    """The Job of a template, claimed by the plan.

    Without an account of its own a pod runs under the plan's account, and then without its token, unless the template asks
    for it: a tool of another author must not get the permissions of a migration by default.
    """
    body = copy.deepcopy(template)
    metadata, spec = body.get("metadata") or {}, body["spec"]
    pod = spec["template"]["spec"]
    pod.setdefault("restartPolicy", "Never")
    if not pod.get("serviceAccountName"):
        pod["serviceAccountName"] = owner.account
        pod.setdefault("automountServiceAccountToken", False)
    ours = {PLAN_LABEL: owner.uid, MADE_LABEL: owner.uid, RUN_LABEL: str(owner.run), FENCE_LABEL: str(owner.fence)}
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            **metadata,
            "name": name,
            "namespace": owner.namespace,
            "labels": {**(metadata.get("labels") or {}), **ours, **labels},
        },
        "spec": {**spec, "backoffLimit": backoff_limit},
    }


async def dry_run_problems(cluster: Cluster, place: str, body: Json, owner: Owner) -> list[Problem]:
    """Why the server would refuse a Job or run another one, by a dry run before the first step; and what could keep it from ending."""
    try:
        would_be = await cluster.create(JOBS, owner.namespace, body, owner.account, dry_run=True)
    except (Rejected, Denied) as no:
        if isinstance(no, Denied) and not await cluster.may(owner.account, owner.namespace, "create", JOBS, ""):
            return []  # preflight reports it with all other permissions
        return [Problem(place, f"the server refuses the Job: {str(no).rpartition('strict decoding error: ')[2]}")]
    except NotFound:
        return []  # the namespace is being deleted
    if "ttlSecondsAfterFinished" in would_be["spec"]:
        message = "something in the cluster adds ttlSecondsAfterFinished to it, and Kubernetes would delete it too soon"
        return [Problem(place, f"{message}; exempt the Jobs with the label {MADE_LABEL} from that")]
    lost = unkept(body["spec"], ABSENT, would_be["spec"], ("spec",))
    problems = [Problem(place, one.message, warning=one.kind is not Lost.DROPPED) for one in lost]
    try:
        namespace = await cluster.get(Ref(NAMESPACES, "", owner.namespace))
    except (NotFound, Denied):
        return problems
    if asked := sidecars.asked_for(namespace, would_be["spec"]["template"]):
        problems.append(Problem(place, f"{asked}, or the Job does not end unless that is a native one", warning=True))
    return problems


async def is_as_created(cluster: Cluster, found: Json, manifest: Json, owner: Owner) -> bool:
    """Whether a Job that was found under a name of ours is what this plan creates under it.

    Whoever may read a plan can derive the names of its Jobs, and whoever may create Jobs can be there first. The same Job under another
    name, in a dry run, shows what the server makes of the manifest; the names, labels and selectors that it adds itself are left out.
    """
    if (found["metadata"].get("labels") or {}).get(MADE_LABEL) != owner.uid:
        return False
    metadata = manifest["metadata"]
    trial = {**manifest, "metadata": {**metadata, "name": f"{metadata['name']}-0"}}
    created = await cluster.create(JOBS, owner.namespace, trial, owner.account, dry_run=True)
    return bool(_own_spec(found) == _own_spec(created))


def _own_spec(body: Json) -> Json:
    spec = {key: value for key, value in body["spec"].items() if key not in ("selector", "suspend")}
    template = spec["template"]
    metadata = {key: value for key, value in (template.get("metadata") or {}).items() if key != "creationTimestamp"}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key not in _LABELS_OF_THE_SERVER}
    return {**spec, "template": {**template, "metadata": {**metadata, "labels": labels}}}


# --- state of a Job -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """The state of a Job.

    Attributes:
        failed: why it has failed, as one word; empty when it has not failed.
        ending: it has succeeded or failed, and its last pods are terminating.
        stopped: the Job controller has seen that it is suspended, and has deleted its pods.
        acknowledged: the Job controller has seen that it may run.
        started: our label `STARTED_LABEL`: whether it may run.
    """

    name: str
    uid: str
    complete: bool
    failed: str
    ending: bool
    suspended: bool
    stopped: bool
    acknowledged: bool
    started: str
    deleting: bool
    active: int
    ready: int
    progress: str

    @property
    def finished(self) -> bool:
        """Nothing of it runs any more, or ever will."""
        return self.complete or bool(self.failed)

    @property
    def begun(self) -> bool:
        """It may have had an effect."""
        return self.finished or self.ending or self.started == "true" or not self.suspended


def state_of(body: Json) -> State:
    """Read the state of a Job."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    on = {entry["type"]: entry for entry in status.get("conditions") or () if entry.get("status") == "True"}
    suspended, labels = bool(spec.get("suspend")), metadata.get("labels") or {}
    return State(
        name=metadata["name"],
        uid=metadata["uid"],
        complete="Complete" in on,
        failed=word(on["Failed"].get("reason")) if "Failed" in on else "",
        ending="FailureTarget" in on or "SuccessCriteriaMet" in on,
        suspended=suspended,
        stopped=suspended and "Suspended" in on,
        acknowledged=not suspended and "Suspended" not in on and bool(status.get("startTime")),
        started=labels.get(STARTED_LABEL, ""),
        deleting="deletionTimestamp" in metadata,
        active=status.get("active", 0),
        ready=status.get("ready", 0),
        progress=f"{status.get('succeeded', 0)}/{spec.get('completions') or spec.get('parallelism') or 1}",
    )


def logs(namespace: str, name: str) -> str:
    """The command that shows its logs."""
    return f"kubectl logs -n {namespace} job/{name} --all-containers"


async def read(cluster: Cluster, ref: Ref) -> Json | None:
    """A Job as it is now; None when it does not exist."""
    try:
        return await cluster.get(ref)
    except NotFound:
        return None


# --- the end of a run ---------------------------------------------------------------------------------------------------


def owner_reference(owner: Owner) -> Json:
    """The plan as owner: what it owns is deleted with it."""
    return {"apiVersion": PLANS.api_version, "kind": PLANS.kind, "name": owner.plan.name, "uid": owner.uid}


async def release(cluster: Cluster, owner: Owner, *, abandoned: bool) -> None:
    """At the end of a run the plan owns its Jobs and no longer claims them; they stay for their logs, and so that their names stay taken.

    While the plan is active they have no owner: a foreground deletion would delete them first. A Job that still runs
    when its plan is abandoned has no owner from then on, so that nothing but itself ends it. A gate's Job that still runs is not
    needed and is deleted. Idempotent.
    """
    for body in await _of_run(cluster, owner):
        metadata, state = body["metadata"], state_of(body)
        labels = metadata["labels"]
        if GATE_LABEL in labels and not state.finished:
            await cluster.remove(Ref(JOBS, owner.namespace, state.name), state.uid, owner.account)
            continue
        free = abandoned and not state.finished and not state.suspended
        away = (PLAN_LABEL, FENCE_LABEL, *((MADE_LABEL,) if free else ()))
        owners = [] if free else [owner_reference(owner)]
        operations: list[Operation] = [
            {"op": "remove", "path": f"/metadata/labels/{escape(label)}"} for label in away if label in labels
        ]
        await _patch(cluster, owner, body, operations, owners)


async def reopen(cluster: Cluster, owner: Owner) -> None:
    """A run that had ended is active again: remove the owner from its Jobs. Idempotent."""
    for body in await _of_run(cluster, owner):
        if GATE_LABEL not in body["metadata"]["labels"]:
            await _patch(cluster, owner, body, [], [])


async def delete_former(cluster: Cluster, owner: Owner) -> None:
    """Delete the Jobs of earlier runs; if one of them still runs, its plan was abandoned with it, and all are left."""
    picked = matching({MADE_LABEL: owner.uid}, former(owner.run))
    states = map(state_of, await cluster.list(JOBS, owner.namespace, picked))
    if all(state.finished or state.suspended for state in states):
        await cluster.delete_all(JOBS, owner.namespace, picked)


async def _of_run(cluster: Cluster, owner: Owner) -> Sequence[Json]:
    return await cluster.list(JOBS, owner.namespace, matching({MADE_LABEL: owner.uid, RUN_LABEL: str(owner.run)}))


async def _patch(cluster: Cluster, owner: Owner, body: Json, operations: list[Operation], owners: list[Json]) -> None:
    metadata = body["metadata"]
    if (metadata.get("ownerReferences") or []) != owners:
        operations.append({"op": "add", "path": "/metadata/ownerReferences", "value": owners})
    if operations:
        ref = Ref(JOBS, owner.namespace, metadata["name"])
        await write_over(
            cluster, ref, body, operations, owner.account
        )  # its controller writes it too, so the version of the object is not tested
