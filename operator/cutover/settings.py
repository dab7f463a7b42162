"""What the administrator decides, as one frozen object that is read once: providers, namespaces, addresses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError

from cutover.errors import PlanError
from cutover.mistakes import sentences
from cutover.model import Label, Model

Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$", max_length=2048)]


class PrometheusProvider(Model):
    """One Prometheus, or what speaks its query API."""

    url: Url = Field(description="Its address, such as http://prometheus.monitoring:9090.")
    timeout: float = Field(default=10.0, gt=0, le=60, description="Seconds until a query counts as unanswered.")


class Provider(Model):
    """A source of numbers that plans may name."""

    prometheus: PrometheusProvider = Field(description="A Prometheus.")


class Settings(Model):
    """The operator's settings.

    Attributes:
        namespaces: the namespaces to watch; empty for all.
        port: of ``/livez`` and ``/readyz``; 0 takes a free one.
    """

    providers: Mapping[Label, Provider] = Field(default_factory=dict)
    namespaces: tuple[str, ...] = ()
    port: int = Field(default=8080, ge=0, le=65535)
    log_format: Literal["json", "text"] = "json"


def load(path: Path | None, **overrides: object) -> Settings:
    """Read the settings file, if there is one; what is given beside it wins. Raises PlanError with every mistake."""
    document = (yaml.safe_load(path.read_text()) or {}) if path else {}
    document |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        raise PlanError(*sentences(error, document, Settings)) from None
