"""Every manifest that is shown is taken by the real API server."""

from __future__ import annotations

from typing import Any

import pytest

from harness.api import Api
from house.test_house import MANIFESTS

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(("where", "body"), MANIFESTS, ids=[where for where, _ in MANIFESTS])
def test_it_can_be_applied(where: str, body: dict[str, Any], api: Api, namespace: str) -> None:
    if body["metadata"].get("namespace"):
        body = body | {"metadata": body["metadata"] | {"namespace": namespace}}
    path = api.path(body)
    content = "application/apply-patch+yaml"
    api.request("PATCH", f"{path}?fieldManager=t&dryRun=All&fieldValidation=Strict", body, content)
    assert where
