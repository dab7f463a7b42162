"""What the administrator decides, as one frozen object that is read once: providers, namespaces, addresses."""

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
from cutover.schema.mistakes import sentences
from cutover.schema.model import Duration, Label, Model, Name, show_duration
from cutover.settings.credentials import Credentials


def _address(url: Any) -> Any:
    parts = urlsplit(url) if isinstance(url, str) and re.fullmatch(r"https?://\S{1,2048}", url) else None
    try:
        known = parts is not None and parts.hostname and parts.port != 0
    except ValueError:  # of a port that is none
        known = False
    if parts is None or not known:
        raise ValueError("write an address such as https://prometheus.monitoring:9090")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the address has a user or a password in it; put them into files and name those in basic")
    if parts.query or parts.fragment:
        raise ValueError("the address has a ? or a # in it; end it before, what is asked comes from the plan")
    return url.rstrip("/")


class Server(Credentials):
    """Where a provider is, who the operator is to it, and how much may be asked of it."""

    url: Annotated[str, BeforeValidator(_address)] = Field(
        description="Its address, such as https://prometheus.monitoring:9090; what is asked is below its path."
    )
    timeout: float = Field(default=10.0, gt=0, le=60, description="Seconds until a question counts as unanswered.")
    max_bytes: int = Field(default=1 << 20, ge=1024, le=16 << 20, description="Bytes that an answer may have.")
    concurrency: int = Field(default=32, ge=1, le=256, description="Questions that may be under way at once.")

    @model_validator(mode="after")
    def _certificates_are_used(self) -> Self:
        if self.tls and not self.url.startswith("https:"):
            raise ValueError("it has tls, and its url begins with http:; write https:, or drop tls")
        return self


class Provider(Model):
    """A source of numbers that plans may name."""

    prometheus: Server | None = Field(default=None, description="A Prometheus, or what speaks its query API.")
    http: Server | None = Field(default=None, description="A server that answers with JSON.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.prometheus is None) == (self.http is None):
            raise ValueError("a provider has exactly one of prometheus and http")
        return self

    @property
    def kind(self) -> str:
        """The one key that is set."""
        return "prometheus" if self.prometheus else "http"

    @property
    def server(self) -> Server:
        """What stands below it."""
        server = self.prometheus or self.http
        assert server is not None  # noqa: S101 -- the validator saw to it
        return server


class NotifyProvider(Model):
    """Where messages to people go. Its URLs hold credentials, so they stand in a file and nowhere else."""

    url_file: Path = Field(description="File with one apprise URL a line (a mounted Secret); # begins a comment.")
    timeout: float = Field(default=10.0, gt=0, le=60, description="Seconds until a try counts as unanswered.")


class LeaseSettings(Model):
    """Which of several operator processes works. The times are those of client-go, but fewer requests.

    Attributes:
        name: of the Lease; processes that watch the same plans share one.
        namespace: where it lives; left out, that of the pod. Outside a pod, without it, there is no Lease.
        duration: a holder that was silent for so long has lost it.
        renew_deadline: a holder that could not renew it for so long does nothing until it has.
        renew_every: how often it is renewed.
        retry_every: how soon a failed request is tried again.
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
                f"retryEvery, renewEvery, renewDeadline and duration must rise in this order; they are {given}"
            )
        return self


class Settings(Model):
    """The operator's settings.

    Attributes:
        notify: who can be told, by the names that plans use.
        namespaces: the namespaces to watch; empty for all.
        port: of ``/livez``, ``/readyz`` and ``/metrics``; 0 takes a free one.
        lease: None for a process that is alone.
    """

    providers: Mapping[Label, Provider] = Field(default_factory=dict)
    notify: Mapping[Label, NotifyProvider] = Field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    port: int = Field(default=8080, ge=0, le=65535)
    log_format: Literal["json", "text"] = "json"
    lease: LeaseSettings | None = Field(default_factory=LeaseSettings)


def load(path: Path | None, **overrides: object) -> Settings:
    """Read the settings file, if there is one; what is given beside it wins.

    Raises:
        PlanError: with every mistake. It shows no value of a provider. What stands in files of credentials is no mistake of
            these settings: they are read at each use, and one provider that cannot be asked stops no other plan.
    """
    document = _document(path) | {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise PlanError(*sentences(error, document, Settings, hidden="providers")) from None


def _document(path: Path | None) -> dict[str, Json]:
    if path is None:
        return {}
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except yaml.MarkedYAMLError as error:  # its own text quotes the line
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise PlanError(Problem("", f"{path} is not YAML{where}; mend it")) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise PlanError(Problem("", f"{path} is not YAML; mend it")) from None
    if not isinstance(document, dict):
        raise PlanError(Problem("", f"{path} is no mapping; write `providers:` and what belongs below it"))
    return document
