"""Templates of Jobs as they stand in a plan: their rules, their images and their service account. Pure; used by the kind and the gate `job`.

Most of a template is left to the dry run of the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from cutover.field_path import Json
from cutover.objects.pod_names import wrong_names
from cutover.schema.problems import WrongFields
from cutover.schema.yaml_text import YamlText

_OURS: Final = "cutover.dev/"
_SPEC_ONLY: Final = "is not part of a template; keep metadata and spec, as in the jobTemplate of a CronJob"
_NOT_IN_SPEC: Final = {
    "ttlSecondsAfterFinished": "Kubernetes would delete the Job before the plan has seen how it ended; remove it, "
    "the Job is deleted with its plan",
    "suspend": "the plan decides when the Job runs; remove it",
    "backoffLimit": "write job.backoffLimit in the plan instead, where the default is 0; remove it here",
    "managedBy": "the plan relies on the Job controller of Kubernetes; remove it",
    **dict.fromkeys(("selector", "manualSelector"), "a Job finds its pods by itself; remove it"),
}


def mistakes(template: Json, why_never: str = "") -> Iterator[tuple[str, str]]:
    """What is wrong with a template, each with the field and a message; most is left to the server's dry run.

    Args:
        template: the template, of any content.
        why_never: why restartPolicy must be Never, as a message; empty where OnFailure is possible too.
    """
    if "spec" not in template:
        yield "spec", "is missing; write metadata and spec, as in the jobTemplate of a CronJob"
        return
    for extra in sorted(template.keys() - {"metadata", "spec"}):
        yield extra, _SPEC_ONLY
    parts = {"metadata": template.get("metadata", {}), "spec": template["spec"]}
    for where, node in parts.items():
        if not isinstance(node, dict):
            yield where, "is not a mapping; put its fields below it, indented"
        else:
            yield from _of_metadata(node) if where == "metadata" else _of_spec(node, why_never)


def _of_spec(spec: Json, why_never: str) -> Iterator[tuple[str, str]]:
    for key in sorted(spec.keys() & _NOT_IN_SPEC.keys()):
        yield f"spec.{key}", _NOT_IN_SPEC[key]
    for key in ("parallelism", "completions"):
        if spec.get(key, 1) == 0:
            yield f"spec.{key}", "with 0 no pod would run; give 1 or more, or remove it"
    pods = spec.get("template")
    pod = pods.get("spec") if isinstance(pods, dict) else None
    if not isinstance(pod, dict):
        yield "spec.template.spec", "is missing; add a pod spec with containers"
        return
    yield from _of_pod(pod, why_never)
    yield from wrong_names(pod, "spec.template.spec")


def _of_metadata(metadata: Json) -> Iterator[tuple[str, str]]:
    for key in sorted(metadata.keys() - {"labels", "annotations"}):
        yield f"metadata.{key}", "only labels and annotations go into a template; remove it"
    for part in ("labels", "annotations"):
        entries = metadata.get(part) or {}
        if not isinstance(entries, dict):
            yield f"metadata.{part}", 'is not a mapping of strings; write key: "value" below it'
            continue
        yield from _of_entries(f"metadata.{part}", entries)


def _of_entries(where: str, entries: Json) -> Iterator[tuple[str, str]]:
    for key, value in entries.items():
        if str(key).startswith(_OURS):
            yield where, f"{key} is set by Cutover; remove it"
        if not isinstance(key, str) or not isinstance(value, str):
            wrong_one = value if isinstance(key, str) else key
            yield f"{where}.{key}", f"{wrong_one!r} is not a string; put it in quotes"


def _of_pod(pod: Json, why_never: str) -> Iterator[tuple[str, str]]:
    at = "spec.template.spec"
    containers = pod.get("containers")
    if not containers:
        yield f"{at}.containers", "is missing or empty; add a container with name and image"
    elif not isinstance(containers, list) or not all(isinstance(item, dict) for item in containers):
        yield f"{at}.containers", "is not a list of containers; start each with a dash and its name"
    policy = pod.get("restartPolicy", "Never")
    if policy == "OnFailure" and why_never:
        yield f"{at}.restartPolicy", why_never
    elif policy not in ("Never", "OnFailure"):
        way_out = "use Never" if why_never else "use Never or OnFailure"
        yield f"{at}.restartPolicy", f"{policy!r} would never let the Job end; {way_out}"
    if "serviceAccount" in pod:
        yield f"{at}.serviceAccount", "that is the old name of the field; write serviceAccountName"


def possible(template: dict[str, Any], why_never: str = "") -> dict[str, Any]:
    """The template itself. Raises WrongFields with all its `mistakes`."""
    if wrong := list(mistakes(template, why_never)):
        raise WrongFields(wrong)
    return template


Template = Annotated[YamlText, AfterValidator(possible)]
"""A Job without a name, as the jobTemplate of a CronJob: `metadata` (labels, annotations) and `spec`, as text."""
BackoffLimit = Annotated[
    int,
    Field(ge=0, le=100, description="How many failed pods of one Job are replaced before the Job fails. Default 0."),
]


def pod_of(template: Json) -> Json:
    """The pod spec; without `serviceAccountName` the pods run under the plan's account."""
    pod = template["spec"]["template"]["spec"]
    return pod if pod.get("serviceAccountName") else {key: pod[key] for key in pod if key != "serviceAccountName"}


def images_of(template: Json) -> str:
    """The images it runs, as text."""
    return ", ".join(
        str(item.get("image", item.get("name"))) for item in template["spec"]["template"]["spec"]["containers"]
    )
