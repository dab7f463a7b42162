"""The databases of a plan: where each one is, who logs in, and how the pods that work in it look. Pure; no request is made here.

A plan names Secrets and never contains what is in them: the kubelet hands them to the pod.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from cutover.runner_messages.payload import DatabaseSettings, Identifier, LockRetries
from cutover.schema.model import Duration, Label, Model, Name, validations
from cutover.schema.problems import WrongFields

_BESIDE_URL: Final = ("host", "port", "database", "user", "userFrom", "passwordFrom")
_WHERE: Final = "give urlFrom, or host and database"
_ONE_SOURCE: Final = "give exactly one of {}"
_ONE_PASSWORD: Final = "keep one of passwordFrom and passwordFile"  # noqa: S105 -- names of fields
_PAIR: Final = "certFrom and keyFrom belong together; add {}"
_VERIFIES: Final = ("verify-ca", "verify-full")
_SHORTEST: Final = timedelta(milliseconds=1)

Key = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
Image = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
Quantities = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(min_length=1, max_length=32)]]
Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^\s/@]+$")]


class KeyRef(Model):
    """One key of an object in the plan's namespace."""

    name: Name = Field(description="Name of the object.")
    key: Key = Field(description="The key in it.")


class FromSecret(Model):
    """A value that the kubelet reads from a Secret."""

    secret_key_ref: KeyRef = Field(description="The Secret in the plan's namespace, and the key in it.")


def _exactly_one(*fields: str) -> ConfigDict:
    rule = f"[{', '.join(f'has(self.{field})' for field in fields)}].filter(x, x).size() == 1"
    return ConfigDict(json_schema_extra=validations((rule, _ONE_SOURCE.format(" and ".join(fields)))))


class Certificate(Model):
    """Certificates that the kubelet reads from a Secret or a ConfigMap."""

    model_config = _exactly_one("secretKeyRef", "configMapKeyRef")
    secret_key_ref: KeyRef | None = Field(default=None, description="The Secret, and the key in it.")
    config_map_key_ref: KeyRef | None = Field(default=None, description="The ConfigMap, and the key in it.")

    @model_validator(mode="after")
    def _one(self) -> Certificate:
        if (self.secret_key_ref is None) == (self.config_map_key_ref is None):
            raise ValueError(_ONE_SOURCE.format("secretKeyRef and configMapKeyRef"))
        return self


class Token(Model):
    """A token of the plan's ServiceAccount that is good for a short time, and that the kubelet renews."""

    audience: str = Field(min_length=1, max_length=253, description="Whom it is for.")
    expiration_seconds: int = Field(default=3600, ge=600, le=86_400, description="How long one is good. Default 3600.")


class PasswordFile(Model):
    """A password that is read again at each connection, so that it may change while a Job runs."""

    model_config = _exactly_one("secretKeyRef", "serviceAccountToken")
    secret_key_ref: KeyRef | None = Field(default=None, description="The Secret, and the key in it.")
    service_account_token: Token | None = Field(
        default=None, description="A token of the plan's ServiceAccount, for servers that take one as the password."
    )

    @model_validator(mode="after")
    def _one(self) -> PasswordFile:
        if (self.secret_key_ref is None) == (self.service_account_token is None):
            raise ValueError(_ONE_SOURCE.format("secretKeyRef and serviceAccountToken"))
        return self


class Encryption(Model):
    """How the connection is encrypted."""

    mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        description="As sslmode of libpq: verify-full checks the server's certificate and its name."
    )
    ca_from: Certificate | None = Field(
        default=None, description="The authorities that the server's certificate is checked against."
    )
    cert_from: FromSecret | None = Field(default=None, description="The client's certificate.")
    key_from: FromSecret | None = Field(default=None, description="The private key of the client's certificate.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Encryption:
        if wrong := list(self._mistakes()):
            raise WrongFields(wrong)
        return self

    def _mistakes(self) -> Iterator[tuple[str, str]]:
        if self.mode in _VERIFIES and self.ca_from is None:
            yield "caFrom", f"mode {self.mode} checks the server's certificate; add the authorities to check it against"
        if self.mode not in _VERIFIES and self.ca_from is not None:
            yield "mode", f"{self.mode} checks no certificate, and caFrom is given; write verify-full, or remove caFrom"
        if (self.cert_from is None) != (self.key_from is None):
            missing = "certFrom" if self.cert_from is None else "keyFrom"
            yield missing, _PAIR.format(missing)
        if self.mode == "disable" and self.cert_from is not None:
            yield "mode", "disable uses no certificate; write require or verify-full, or remove certFrom and keyFrom"


class Resources(Model):
    """What the container of the runner asks for, and its limits."""

    requests: Quantities = Field(default={}, max_length=8, description='By resource, such as cpu: "100m".')
    limits: Quantities = Field(default={}, max_length=8, description='By resource, such as memory: "256Mi".')


class Toleration(Model):
    """A taint that the pods tolerate."""

    key: str = Field(default="", max_length=316, description="The taint. Default: all.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="Exists takes any value. Default Equal.")
    value: str = Field(default="", max_length=63, description="With Equal: its value.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        default="", description="Its effect. Default: all."
    )


class RunnerPods(Model):
    """How the pods look that work in the database."""

    image: Image | None = Field(
        default=None, description="Image of the runner, with the entry point cutover-database. Default: the operator's."
    )
    image_pull_secrets: tuple[Name, ...] = Field(
        default=(), max_length=8, description="Names of Secrets that pull the image."
    )
    resources: Resources = Field(
        default=Resources(requests={"cpu": "50m", "memory": "64Mi"}, limits={"memory": "256Mi"}),
        description="Requests and limits of the container. Default: 50m of CPU and 64Mi, limited to 256Mi.",
    )
    node_selector: dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]] = Field(
        default={}, max_length=16, description="Labels of the nodes that may run them."
    )
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16, description="Taints that they tolerate.")


class Database(Model):
    """A database that steps change, check or fill."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            ("has(self.urlFrom) != (has(self.host) && has(self.database))", _WHERE),
            ("!has(self.passwordFrom) || !has(self.passwordFile)", _ONE_PASSWORD),
        )
    )
    name: Label = Field(description="Name of the database in the plan.")
    engine: Literal["postgresql"] = Field(description="What kind of server it is: postgresql, version 13 to 18.")
    url_from: FromSecret | None = Field(
        default=None, description="Where its URL is: postgresql://user:password@host:port/database."
    )
    host: Host | None = Field(default=None, description="Instead of urlFrom: name or address of the server.")
    port: int | None = Field(default=None, ge=1, le=65_535, description="With host: its port. Default 5432.")
    database: Identifier | None = Field(default=None, description="With host: name of the database on the server.")
    user: Identifier | None = Field(default=None, description="With host: the role that logs in.")
    user_from: FromSecret | None = Field(default=None, description="Instead of user: where it stands.")
    password_from: FromSecret | None = Field(
        default=None, description="With host: where the password is. It is read when a pod starts."
    )
    password_file: PasswordFile | None = Field(
        default=None,
        description="Instead of a password in the URL or passwordFrom: one that may change while a Job runs.",
    )
    tls: Encryption | None = Field(
        default=None, description="How the connection is encrypted. Default: as the URL says."
    )
    schema_: Identifier = Field(
        default="public", alias="schema", description="Where names without a schema are. Default public."
    )
    lock_timeout: Duration = Field(
        default=timedelta(milliseconds=500),
        description="How long others wait behind a lock that a step waits for. Default 500ms.",
    )
    statement_timeout: Duration = Field(
        default=timedelta(), description="Maximum duration of one statement. Default 0s, which is none."
    )
    lock_retries: LockRetries = Field(default=LockRetries(), description="How often a lock is tried for.")
    runner: RunnerPods = Field(default=RunnerPods(), description="How the pods look that work in the database.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Database:
        if wrong := list(self._mistakes()):
            raise WrongFields(wrong)
        return self

    def _mistakes(self) -> Iterator[tuple[str, str]]:
        given = self.model_dump(by_alias=True, exclude_none=True)
        if self.url_from is not None:
            for field in (field for field in _BESIDE_URL if field in given):
                yield field, "urlFrom says that already; keep one of the two"
        else:
            yield from self._without_url()
        if self.password_from is not None and self.password_file is not None:
            yield "passwordFile", _ONE_PASSWORD
        if self.lock_timeout < _SHORTEST:
            yield "lockTimeout", "0s would wait for ever; use 1ms or more"

    def _without_url(self) -> Iterator[tuple[str, str]]:
        if self.host is None and self.database is None:
            yield "urlFrom", f"is missing; {_WHERE}"
            return
        for field, value in (("host", self.host), ("database", self.database)):
            if value is None:
                yield field, f"is missing; {_WHERE}"
        if (self.user is None) == (self.user_from is None):
            yield (
                "user",
                "give the role that logs in, as user or as userFrom"
                if self.user is None
                else ("keep one of user and userFrom"),
            )

    def settings(self) -> DatabaseSettings:
        """What the runner is told of it; no credential, and nothing of the pods."""
        return DatabaseSettings(
            name=self.name,
            engine=self.engine,
            host=self.host,
            port=self.port,
            database=self.database,
            schema_=self.schema_,
            lock_timeout=self.lock_timeout,
            statement_timeout=self.statement_timeout,
            lock_retries=self.lock_retries,
        )
