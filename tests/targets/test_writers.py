"""Who wrote a field, as managedFields tell it."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.field_path import Path
from cutover.targets.writers import last_writer, writer_of

_IMAGE: Path = ("spec", "template", "spec", "containers", {"name": "app"}, "image")


def entry(manager: str, at: str, fields: dict[str, Any], **more: str) -> dict[str, Any]:
    return {"manager": manager, "time": f"2026-01-01T12:00:{at}Z", "fieldsV1": fields, **more}


BODY = {
    "metadata": {
        "managedFields": [
            entry("cutover", "30", {"f:spec": {"f:replicas": {}}}),
            entry(
                "kubectl-set",
                "10",
                {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"app"}': {"f:image": {}}}}}}},
            ),
            entry("helm", "05", {"f:spec": {"f:selector": {}, "f:template": {"f:metadata": {".": {}}}}}),
            entry("editor", "20", {"f:metadata": {"f:labels": {"f:team": {}}}}),
            entry("kube-controller-manager", "40", {"f:status": {"f:replicas": {}}}, subresource="status"),
        ]
    }
}


@pytest.mark.parametrize(
    ("path", "who"),
    [
        (_IMAGE, "field manager kubectl-set"),
        (("spec", "selector", "app"), "field manager helm"),  # a map that is one value
        (("spec", "template", "metadata", "annotations", "a"), "field manager editor"),  # of a field that is gone: the last
        (("spec", "replicas"), "field manager editor"),  # ours again by now
    ],
)  # fmt: skip
def test_the_owner_of_a_field(path: Path, who: str) -> None:
    assert writer_of(BODY, path) == who


def test_nobody_is_named_where_nobody_is_known() -> None:
    assert writer_of({"metadata": {}}, _IMAGE) == "another writer"
    assert last_writer({"metadata": {"managedFields": [entry("cutover", "00", {})]}}) == "another writer"
