"""The template of a Job in a suspended CronJob, instead of in the plan. Used by the kind `job`."""

from __future__ import annotations

from typing import Final

from cutover.errors import NotFound
from cutover.field_path import Json
from cutover.objects.job_templates import mistakes, pod_of
from cutover.objects.pod_accounts import accounts_of
from cutover.ports import Cluster, Ref

_SUSPEND: Final = """'{"spec":{"suspend":true}}'"""


async def template_of(cluster: Cluster, ref: Ref, account: str, pods_account: str) -> tuple[Json, str]:
    """The template in a CronJob as it is now, with its `backoffLimit`, or what is wrong with it, as a message. Raises Denied.

    It is read as the plan's account: what that may not read must not get into a Job that the author of the plan can read.

    Args:
        cluster: the API server.
        ref: the CronJob.
        account: of the plan.
        pods_account: the only account that the pods may name, which is checked as such; without one they get the plan's.
    """
    try:
        body = await cluster.read_as(ref, account)
    except NotFound:
        return {}, f"there is no {ref} in namespace {ref.namespace}; create it, or fix the name"
    if not body["spec"].get("suspend"):
        command = f"kubectl patch cronjob {ref.name} -n {ref.namespace} -p {_SUSPEND}"
        return {}, f"{ref} also runs by itself; suspend it: {command}"
    template, limit = _as_in_a_plan(body["spec"]["jobTemplate"])
    if wrong := [f"spec.jobTemplate.{where}: {message}" for where, message in mistakes(template)]:
        return {}, f"{ref}, {'; '.join(wrong)}"
    if others := sorted(accounts_of(pod_of(template)) - {pods_account}):
        named = others[0]
        way_out = f"write serviceAccountName: {named} beside cronJob"
        return {}, f"the pods of {ref} run under ServiceAccount {named}, and the plan says {pods_account}; {way_out}"
    return template | {"spec": template["spec"] | limit}, ""


def _as_in_a_plan(template: Json) -> tuple[Json, Json]:
    """The template without what only the server writes and what a plan has elsewhere, and the `backoffLimit` of it, if it has one.

    A `ttlSecondsAfterFinished` is for Jobs that somebody starts by hand: those of a plan are deleted with it.
    """
    metadata, spec = template.get("metadata") or {}, dict(template["spec"])
    spec.pop("ttlSecondsAfterFinished", None)
    limit = {"backoffLimit": spec.pop("backoffLimit")} if "backoffLimit" in spec else {}
    kept = {key: metadata[key] for key in ("labels", "annotations") if metadata.get(key)}
    pods = spec["template"]
    pod = {key: value for key, value in pods["spec"].items() if key != "serviceAccount"}  # the old name of the account
    return {"metadata": kept, "spec": {**spec, "template": {**pods, "spec": pod}}}, limit
