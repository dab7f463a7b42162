"""What the administrator decides, as one frozen object that is read once: providers, namespaces, addresses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from cutover.errors import PlanError
from cutover.mistakes import sentences
from cutover.model import Duration, Label, Model, Name, show_duration

Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$", max_length=2048)]


class PrometheusProvider(Model):
    """One Prometheus, or what speaks its query API."""

    url: Url = Field(description="Its address, such as http://prometheus.monitoring:9090.")
    timeout: float = Field(default=10.0, gt=0, le=60, description="Seconds until a query counts as unanswered.")


class Provider(Model):
    """A source of numbers that plans may name."""

    prometheus: PrometheusProvider = Field(description="A Prometheus.")


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
    """Read the settings file, if there is one; what is given beside it wins. Raises PlanError with every mistake."""
    document = (yaml.safe_load(path.read_text()) or {}) if path else {}
    document |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise PlanError(*sentences(error, document, Settings)) from None
