"""The Job of a database step as Kubernetes sees it: its pod, what the kubelet hands it, which exit codes end it, what it leaves. Pure.

No credential is in it: they are named, and the kubelet puts them into the pod. All of it keeps to the restricted pod security standard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cutover.field_path import Json
from cutover.objects.databases import Certificate, Database, FromSecret, KeyRef, PasswordFile
from cutover.runner_messages.payload import DatabaseSettings, Tls
from cutover.runner_messages.reasons import FINAL
from cutover.runner_messages.result import Result, decode

RUNNER: Final = "runner"
"""Name of the container whose exit code and termination message count."""
PAYLOAD: Final = "CUTOVER_PAYLOAD"
"""The variable with the payload. It stands in the template of the pod, which nobody can change once the Job is created."""
LONGEST_PAYLOAD: Final = 120_000
"""Bytes; Linux starts no program with a variable of 128 KiB or more."""
BACKOFF_LIMIT: Final = 6
"""Failed pods that are replaced. Each goes on where the journal in the database ends."""
_GROUP: Final = 65_532
"""That of the image's user: a private key must not be readable by all."""
_FILES: Final = "/etc/cutover-database"
_TLS, _LOGIN = "tls", "login"


def settings_of(database: Database) -> DatabaseSettings:
    """What the runner is told, with where the files lie in the pod."""
    settings, tls = database.settings(), database.tls
    files = Tls() if tls is None else Tls(
        mode=tls.mode,
        ca_file=tls.ca_from and f"{_FILES}/{_TLS}/ca.crt",
        cert_file=tls.cert_from and f"{_FILES}/{_TLS}/tls.crt",
        key_file=tls.key_from and f"{_FILES}/{_TLS}/tls.key",
    )  # fmt: skip
    password = f"{_FILES}/{_LOGIN}/password" if database.password_file is not None else None
    return settings.model_copy(update={"tls": files if tls is not None else None, "password_file": password})


def template(database: Database) -> Json:
    """The Job without its image and its payload, which are known when it is created."""
    runner = database.runner
    volumes = dict(_volumes(database))
    pod: Json = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": RUNNER,
                "command": ["cutover-database"],
                "args": ["--payload-env", PAYLOAD, "--result", "/dev/termination-log"],
                "env": list(_variables(database)),
                "resources": runner.resources.model_dump(exclude_defaults=True),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": name, "mountPath": f"{_FILES}/{name}", "readOnly": True} for name in volumes],
            }
        ],
        "volumes": [{"name": name, "projected": volume} for name, volume in volumes.items()],
    }
    if database.tls is not None and database.tls.key_from is not None:
        pod["securityContext"]["fsGroup"] = _GROUP
    if runner.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in runner.image_pull_secrets]
    if runner.node_selector:
        pod["nodeSelector"] = dict(runner.node_selector)
    if runner.tolerations:
        pod["tolerations"] = [one.model_dump(exclude_defaults=True) for one in runner.tolerations]
    spec = {"podReplacementPolicy": "Failed", "podFailurePolicy": {"rules": _rules()}, "template": {"spec": pod}}
    return {"spec": spec}


def _rules() -> list[Json]:
    """A pod that is taken off its node is no failure, and after some exit codes another pod would meet the same."""
    codes = sorted(int(code) for code in FINAL)
    ends = {"containerName": RUNNER, "operator": "In", "values": codes}
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    return [{"action": "FailJob", "onExitCodes": ends}, {"action": "Ignore", "onPodConditions": disrupted}]


def complete(body: Json, image: str, payload: str) -> None:
    """Put into a Job of the template what is only known now."""
    (container,) = body["spec"]["template"]["spec"]["containers"]
    container["image"] = image
    container["env"] = [{"name": PAYLOAD, "value": payload}, *container["env"]]


def _variables(database: Database) -> Iterator[Json]:
    """Those that the runner reads, and those of libpq."""
    if database.url_from is not None:
        yield _secret("CUTOVER_DATABASE_URL", database.url_from)
    if database.user is not None:
        yield {"name": "PGUSER", "value": database.user}
    if database.user_from is not None:
        yield _secret("PGUSER", database.user_from)
    if database.password_from is not None:
        yield _secret("PGPASSWORD", database.password_from)


def _secret(variable: str, source: FromSecret) -> Json:
    return {"name": variable, "valueFrom": {"secretKeyRef": source.secret_key_ref.model_dump()}}


def _volumes(database: Database) -> Iterator[tuple[str, Json]]:
    tls = database.tls
    if tls is not None and (sources := list(_of_tls(tls.ca_from, tls.cert_from, tls.key_from))):
        yield _TLS, {"sources": sources, "defaultMode": 0o440 if tls.key_from is not None else 0o444}
    if database.password_file is not None:
        yield _LOGIN, {"sources": [_of_password(database.password_file)], "defaultMode": 0o444}


def _of_tls(authorities: Certificate | None, *own: FromSecret | None) -> Iterator[Json]:
    if authorities is not None and authorities.secret_key_ref is not None:
        yield {"secret": _item(authorities.secret_key_ref, "ca.crt")}
    if authorities is not None and authorities.config_map_key_ref is not None:
        yield {"configMap": _item(authorities.config_map_key_ref, "ca.crt")}
    for source, file in zip(own, ("tls.crt", "tls.key"), strict=True):
        if source is not None:
            yield {"secret": _item(source.secret_key_ref, file)}


def _of_password(file: PasswordFile) -> Json:
    if file.secret_key_ref is not None:
        return {"secret": _item(file.secret_key_ref, "password")}
    token = file.service_account_token.model_dump(by_alias=True) if file.service_account_token is not None else {}
    return {"serviceAccountToken": {**token, "path": "password"}}


def _item(ref: KeyRef, file: str) -> Json:
    return {"name": ref.name, "items": [{"key": ref.key, "path": file}]}


def told_by(of_job: Sequence[Json], *, complete: bool) -> Result | None:
    """The result that the last pod of a Job has left, if it goes with the exit code; of an ended Job."""
    ends = [
        (str(ended.get("finishedAt", "")), int(ended.get("exitCode", -1)), str(ended.get("message", "")))
        for pod in of_job
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
        if status["name"] == RUNNER
        for ended in (status.get("state", {}).get("terminated"),)
        if ended
    ]
    for _, code, message in sorted(ends, reverse=True):
        told = decode(message)
        if told is not None and told.reason.code == code and (code == 0) is complete:
            return told
    return None
