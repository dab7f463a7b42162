"""Whether a mesh is asked for a sidecar in the pods of a Job."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.objects.sidecars import asked_for


def asks(*, namespace: Any = None, noted: Any = None, labels: Any = None, annotations: Any = None, **spec: Any) -> str:
    around = {"metadata": {"name": "shop", "labels": namespace or {}, "annotations": noted or {}}}
    return asked_for(around, {"metadata": {"labels": labels or {}, "annotations": annotations or {}}, "spec": spec})


ISTIO, REV, INJECT, LINKERD = "istio-injection", "istio.io/rev", "sidecar.istio.io/inject", "linkerd.io/inject"


@pytest.mark.parametrize(
    ("given", "who"),
    [
        ({"namespace": {ISTIO: "enabled"}}, "the label istio-injection of the namespace asks for a sidecar of Istio"),
        ({"namespace": {REV: "1-30"}}, "the label istio.io/rev of the namespace asks for a sidecar of Istio"),
        ({"labels": {INJECT: "true"}}, f"its label {INJECT} asks for a sidecar of Istio"),
        ({"labels": {REV: "1-30"}}, "its label istio.io/rev asks for a sidecar of Istio"),
        ({"noted": {LINKERD: "enabled"}}, f"the annotation {LINKERD} of the namespace asks for a sidecar of Linkerd"),
        ({"annotations": {LINKERD: "enabled"}}, f"its annotation {LINKERD} asks for a sidecar of Linkerd"),
    ],
)
def test_who_asks(given: Any, who: str) -> None:
    assert asks(**given).startswith(f"{who}; ")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"namespace": {ISTIO: "enabled"}, "labels": {INJECT: "false"}},
        {"namespace": {ISTIO: "enabled"}, "annotations": {INJECT: "false"}},
        {"namespace": {ISTIO: "enabled"}, "hostNetwork": True},
        {"namespace": {ISTIO: "disabled"}, "labels": {INJECT: "true"}},
        {"noted": {LINKERD: "enabled"}, "annotations": {LINKERD: "disabled"}},
    ],
)
def test_nobody_asks(given: Any) -> None:
    assert asks(**given) == ""
