"""Jobs made from a template of the plan: what may stand in one, the manifest, what became of it, in words of our own.

Used by the kind and the gate of that name, and by `engine/commands.py` at the end of a run. No text that a pod or a server wrote
goes into a message: exit codes, reasons (one word, as Kubernetes spells them) and names of objects only.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from cutover.errors import Denied, NotFound, Problem, Rejected
from cutover.field_path import Json, Operation, deeper_than, escape
from cutover.objects.pods import word
from cutover.ports import FENCE_LABEL, JOBS, MADE_LABEL, PLAN_LABEL, PLANS, Cluster, Ref
from cutover.targets.snapshots import RUN_LABEL, former, write_over
from cutover.targets.targets import Owner

STARTED_LABEL: Final = "cutover.dev/started"
"""``false`` until the Job may run, then ``true`` for ever; ``never`` when it was stopped before."""
GATE_LABEL: Final = "cutover.dev/gate"
"""On a Job of a gate: which gate of the plan."""
_LONGEST: Final = 16_384
"""Characters of a template as JSON."""
_DEEPEST: Final = 32
_LEAD: Final = 45
"""Characters of a step's name in that of a Job."""
_OURS: Final = "cutover.dev/"
_SPEC_ONLY: Final = "{key} is no part of a template; keep metadata and spec, as in the jobTemplate of a CronJob"
_NOT_IN_SPEC: Final = {
    "ttlSecondsAfterFinished": "Kubernetes would take the Job away before the plan has seen how it ended; take it out, "
    "the Job goes when its plan goes",
    "suspend": "whether the Job runs is for the plan to say; take it out",
    "backoffLimit": "it stands beside the template, where its default is 0; move it there",
    "managedBy": "the plan rests on the Job controller of Kubernetes; take it out",
    **dict.fromkeys(("selector", "manualSelector"), "a Job finds its pods by itself; take it out"),
}


# --- templates ----------------------------------------------------------------------------------------------------------


def wrong(template: Json) -> str:
    """What is wrong with a template, as a sentence; empty when nothing is. Most is left to the server's dry run."""
    if deeper_than(_DEEPEST, template):
        return f"it is nested more than {_DEEPEST} deep, which no Job is; mend it"
    if (length := len(json.dumps(template))) > _LONGEST:
        return f"it has {length} characters, and the most is {_LONGEST}; put scripts into a ConfigMap or the image"
    if "spec" not in template:
        return "it has no spec; write metadata and spec, as in the jobTemplate of a CronJob"
    if extra := sorted(template.keys() - {"metadata", "spec"}):
        return _SPEC_ONLY.format(key=extra[0])
    return next((f"{where}: {says}" for where, says in _mistakes(template)), "")


def _mistakes(template: Json) -> Iterator[tuple[str, str]]:
    metadata, spec = template.get("metadata", {}), template["spec"]
    for where, node in (("metadata", metadata), ("spec", spec)):
        if not isinstance(node, dict):
            yield where, "it is not a mapping; put its fields below it, indented"
            return
    yield from _of_metadata(metadata)
    for key in sorted(spec.keys() & _NOT_IN_SPEC.keys()):
        yield f"spec.{key}", _NOT_IN_SPEC[key]
    for key in ("parallelism", "completions"):
        if spec.get(key, 1) == 0:
            yield f"spec.{key}", "with 0 no pod would run; give 1 or more, or drop it"
    pods = spec.get("template")
    pod = pods.get("spec") if isinstance(pods, dict) else None
    if not isinstance(pod, dict):
        yield "spec.template.spec", "there is no pod to run; add it, with containers"
        return
    yield from _of_pod(pod)


def _of_metadata(metadata: Json) -> Iterator[tuple[str, str]]:
    for key in sorted(metadata.keys() - {"labels", "annotations"}):
        yield f"metadata.{key}", "only labels and annotations go into a template; take it out"
    for part in ("labels", "annotations"):
        entries = metadata.get(part) or {}
        if not isinstance(entries, dict):
            yield f"metadata.{part}", 'it is no mapping of strings; write key: "value" below it'
            continue
        for key, value in entries.items():
            if str(key).startswith(_OURS):
                yield f"metadata.{part}", f"{key} is for Cutover to set; take it out"
            if not isinstance(key, str) or not isinstance(value, str):
                wrong_one = value if isinstance(key, str) else key
                yield f"metadata.{part}.{key}", f"{wrong_one!r} is not a string; put it in quotes"


def _of_pod(pod: Json) -> Iterator[tuple[str, str]]:
    at = "spec.template.spec"
    containers = pod.get("containers")
    if not isinstance(containers, list) or not containers or not all(isinstance(item, dict) for item in containers):
        yield f"{at}.containers", "it is no list of containers; begin each with a dash and its name"
    if pod.get("restartPolicy", "Never") not in ("Never", "OnFailure"):
        yield f"{at}.restartPolicy", f"{pod['restartPolicy']!r} would never let the Job end; use Never or OnFailure"
    if "serviceAccount" in pod:
        yield f"{at}.serviceAccount", "that is the old name of the field; write serviceAccountName"
    if not isinstance(pod.get("serviceAccountName", ""), str):
        yield f"{at}.serviceAccountName", "it is not a string; put it in quotes"


def _possible(template: dict[str, Any]) -> dict[str, Any]:
    if says := wrong(template):
        raise ValueError(says)
    return template


Template = Annotated[
    dict[str, Any],
    AfterValidator(_possible),
    Field(max_length=2, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
]
"""A Job without a name, as the jobTemplate of a CronJob: `metadata` (labels, annotations) and `spec`."""
BackoffLimit = Annotated[
    int,
    Field(ge=0, le=100, description="How many failed pods of one Job are replaced before it has failed. Default 0."),
]


def account_of(template: Json, default: str) -> str:
    """The service account that the pods run under."""
    return str(template["spec"]["template"]["spec"].get("serviceAccountName") or default)


def images_of(template: Json) -> str:
    """What it runs, for people."""
    return ", ".join(
        str(item.get("image", item.get("name"))) for item in template["spec"]["template"]["spec"]["containers"]
    )


def name_of(lead: str, *key: object) -> str:
    """The name of the Job of one try, the same whenever it is asked for.

    The pods carry it as a label, and those of an Indexed Job have it with their index as host name: 63 characters at most,
    of which up to 7 are left for a million completions.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).hexdigest()[:10]
    return f"{lead[:_LEAD].rstrip('-')}-{digest}"


def manifest(template: Json, name: str, owner: Owner, backoff_limit: int, labels: Mapping[str, str]) -> Json:
    """The Job of a template, claimed by the plan.

    Without an account of its own a pod runs under that of the plan, and then without its token, unless the template asks
    for it: a tool that somebody else wrote must not get the rights of a migration by default.
    """
    body = copy.deepcopy(template)
    metadata, spec = body.get("metadata") or {}, body["spec"]
    pod = spec["template"]["spec"]
    pod.setdefault("restartPolicy", "Never")
    if not pod.get("serviceAccountName"):
        pod["serviceAccountName"] = owner.account
        pod.setdefault("automountServiceAccountToken", False)
    marks = {PLAN_LABEL: owner.uid, MADE_LABEL: owner.uid, RUN_LABEL: str(owner.run), FENCE_LABEL: str(owner.fence)}
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            **metadata,
            "name": name,
            "namespace": owner.namespace,
            "labels": {**(metadata.get("labels") or {}), **marks, **labels},
        },
        "spec": {**spec, "backoffLimit": backoff_limit},
    }


async def refused(cluster: Cluster, place: str, body: Json, owner: Owner) -> list[Problem]:
    """What the server says to a Job by a dry run, before anything is touched."""
    try:
        would_be = await cluster.create(JOBS, owner.namespace, body, owner.account, dry_run=True)
    except (Rejected, Denied) as no:
        if isinstance(no, Denied) and not await cluster.may(owner.account, owner.namespace, "create", JOBS, ""):
            return []  # said by preflight for all rights
        return [Problem(place, f"the server refuses the Job: {str(no).rpartition('strict decoding error: ')[2]}")]
    except NotFound:
        return []  # the namespace is going
    if "ttlSecondsAfterFinished" in would_be["spec"]:
        says = "something in the cluster adds ttlSecondsAfterFinished to it, and Kubernetes would take it away too soon"
        return [Problem(place, f"{says}; exempt the Jobs with the label {MADE_LABEL} from that")]
    return []


# --- what became of one -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """A Job as it stands.

    Attributes:
        failed: why it has failed, as one word; empty when it has not.
        ending: it has succeeded or failed, and its last pods go.
        stopped: the Job controller has seen that it is suspended, and has deleted its pods.
        acknowledged: the Job controller has seen that it may run.
        started: our label: it has been let run.
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
    """Read a Job."""
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
    """The command that shows what it wrote."""
    return f"kubectl logs -n {namespace} job/{name} --all-containers"


async def read(cluster: Cluster, ref: Ref) -> Json | None:
    """A Job as it is now; None when there is none."""
    try:
        return await cluster.get(ref)
    except NotFound:
        return None


# --- the end of a run ---------------------------------------------------------------------------------------------------


def owner_reference(owner: Owner) -> Json:
    """The plan as owner: what it owns goes when it goes."""
    return {"apiVersion": PLANS.api_version, "kind": PLANS.kind, "name": owner.plan.name, "uid": owner.uid}


async def release(cluster: Cluster, owner: Owner, *, abandoned: bool) -> None:
    """At the end the plan owns its Jobs and claims them no more; they stay for their logs, and to keep their names taken.

    While it is active they have no owner: a deletion in the foreground would take them away first. A Job that still runs
    when its plan is abandoned is nobody's from now on, so that nothing ends it but itself. A gate's Job that still runs is of no
    use. Twice is harmless.
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


async def take_back(cluster: Cluster, owner: Owner) -> None:
    """A run that had ended is active once more: its Jobs have no owner again. Twice is harmless."""
    for body in await _of_run(cluster, owner):
        if GATE_LABEL not in body["metadata"]["labels"]:
            await _patch(cluster, owner, body, [], [])


async def drop_former(cluster: Cluster, owner: Owner) -> None:
    """Delete the Jobs of the runs before this one; if one of them still runs, somebody has abandoned it so, and all are left."""
    picked = f"{MADE_LABEL}={owner.uid},{former(owner.run)}"
    states = map(state_of, await cluster.list(JOBS, owner.namespace, picked))
    if all(state.finished or state.suspended for state in states):
        await cluster.delete_all(JOBS, owner.namespace, picked)


async def _of_run(cluster: Cluster, owner: Owner) -> Sequence[Json]:
    return await cluster.list(JOBS, owner.namespace, f"{MADE_LABEL}={owner.uid},{RUN_LABEL}={owner.run}")


async def _patch(cluster: Cluster, owner: Owner, body: Json, operations: list[Operation], owners: list[Json]) -> None:
    metadata = body["metadata"]
    if (metadata.get("ownerReferences") or []) != owners:
        operations.append({"op": "add", "path": "/metadata/ownerReferences", "value": owners})
    if operations:
        ref = Ref(JOBS, owner.namespace, metadata["name"])
        await write_over(cluster, ref, body, operations, owner.account)  # its controller writes it too
