"""The administrator's settings as one frozen object, read once at start: providers, notifications, namespaces, Lease.

Files with credentials are not read here but at each use (credentials.py). Called by the command line and by app.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from cutover.errors import PlanError, Problem
from cutover.field_path import Json
from cutover.schema import yaml_file
from cutover.schema.model import Duration, Label, Model, Name, show_duration
from cutover.schema.problems import problems_of
from cutover.settings.credentials import Credentials


def _valid_url(url: Any) -> Any:
    parts = urlsplit(url) if isinstance(url, str) and re.fullmatch(r"https?://\S{1,2048}", url) else None
    try:
        valid = parts is not None and parts.hostname and parts.port != 0
    except ValueError:  # an invalid port
        valid = False
    if parts is None or not valid:
        raise ValueError("write a URL such as https://prometheus.monitoring:9090")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL contains a user or a password; put them into files and name the files in basic")
    if parts.query or parts.fragment:
        raise ValueError("the URL contains ? or #; end it before that, the query comes from the plan")
    return url.rstrip("/")


class Server(Credentials):
    """A server that answers queries: its URL, how to authenticate to it, and limits."""

    url: Annotated[str, BeforeValidator(_valid_url)] = Field(
        description="URL of the server, such as https://prometheus.monitoring:9090; paths of queries are appended to it."
    )
    timeout: float = Field(default=10.0, gt=0, le=60, description="Seconds to wait for an answer.")
    max_bytes: int = Field(default=1 << 20, ge=1024, le=16 << 20, description="Maximum size of an answer, in bytes.")
    concurrency: int = Field(default=32, ge=1, le=256, description="Maximum number of queries at once.")

    @model_validator(mode="after")
    def _certificates_are_used(self) -> Self:
        if self.tls and not self.url.startswith("https:"):
            raise ValueError("has tls, but its url begins with http:; write https:, or remove tls")
        return self


class Provider(Model):
    """A metrics provider that plans may name."""

    prometheus: Server | None = Field(default=None, description="A Prometheus server, or one with the same query API.")
    http: Server | None = Field(default=None, description="A server that answers in JSON.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.prometheus is None) == (self.http is None):
            raise ValueError("must have exactly one of prometheus and http")
        return self

    @property
    def kind(self) -> str:
        """The one key that is set."""
        return "prometheus" if self.prometheus else "http"

    @property
    def server(self) -> Server:
        """The server of this provider."""
        server = self.prometheus or self.http
        assert server is not None  # noqa: S101 -- the validator guarantees it
        return server


class NotifyProvider(Model):
    """Where messages are sent. The URLs contain credentials, so they are in a file and nowhere else."""

    url_file: Path = Field(description="File with one apprise URL per line (a mounted Secret); # begins a comment.")
    timeout: float = Field(default=10.0, gt=0, le=60, description="Seconds to wait for one attempt.")


class LeaseSettings(Model):
    """Leader election among operator processes. The times are those of client-go, but with fewer requests.

    Attributes:
        name: of the Lease; processes that watch the same plans share one.
        namespace: of the Lease; default: the pod's. Outside a pod and without it, there is no Lease.
        duration: a process that has not renewed it for this long has lost it.
        renew_deadline: a process that could not renew it for this long does nothing until it has.
        renew_every: how often it is renewed.
        retry_every: how soon a failed request is retried.
    """

    name: Name = "cutover"
    namespace: Label | None = None
    duration: Duration = timedelta(seconds=15)
    renew_deadline: Duration = timedelta(seconds=10)
    renew_every: Duration = timedelta(seconds=5)
    retry_every: Duration = timedelta(seconds=2)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times = (timedelta(), self.retry_every, self.renew_every, self.renew_deadline, self.duration)
        if sorted(set(times)) != list(times):
            given = ", ".join(show_duration(span) for span in times[1:])
            raise ValueError(
                f"retryEvery, renewEvery, renewDeadline and duration must increase in this order; they are {given}"
            )
        return self


class Settings(Model):
    """The operator's settings.

    Attributes:
        providers: metrics providers, by the names that plans use.
        notify: receivers of messages, by the names that plans use.
        namespaces: the namespaces to watch; empty for all.
        port: of ``/livez``, ``/readyz`` and ``/metrics``; 0 picks a free one.
        lease: None for a single process without leader election.
        runner_image: what database Jobs run where a plan gives no image: the operator's own, in the chart.
    """

    providers: Mapping[Label, Provider] = Field(default_factory=dict)
    notify: Mapping[Label, NotifyProvider] = Field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    port: int = Field(default=8080, ge=0, le=65535)
    log_format: Literal["json", "text"] = "json"
    lease: LeaseSettings | None = Field(default_factory=LeaseSettings)
    runner_image: str = Field(default="", max_length=1024, pattern=r"^\S*$")


def load(path: Path | None, **overrides: object) -> Settings:
    """Read the settings file, if there is one; overrides win.

    Raises:
        PlanError: with every error; it shows no value of a provider. Credential files are not checked here: they are read at each
            use, so that one unusable provider does not affect plans that do not need it.
    """
    document = _document(path) | {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise PlanError(*problems_of(error, document, Settings, hidden="providers")) from None


def _document(path: Path | None) -> dict[str, Json]:
    if path is None:
        return {}
    try:
        document = yaml_file.document(path.read_text()) or {}
    except yaml_file.GivenTwiceError as error:
        raise PlanError(Problem("", f"{path}, line {error.line}: a key is given twice; keep one")) from None
    except yaml.MarkedYAMLError as error:  # its text may quote a value, and the values here are not to be shown
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise PlanError(Problem("", f"{path} is not valid YAML{where}")) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise PlanError(Problem("", f"{path} is not valid YAML: it must be printable UTF-8 text")) from None
    if not isinstance(document, dict):
        raise PlanError(Problem("", f"{path} is not a mapping; write `providers:` and the providers below it"))
    return document
