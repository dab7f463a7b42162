"""Every name of another object in a pod spec is one that an object can have, wherever a plan brings the pod spec."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cutover.errors import PlanError
from cutover.names import NAME_RULE
from cutover.objects.pod_names import wrong_names
from cutover.plan.parsing import parse
from support.hostile_names import NO_SEGMENTS, REFERENCES

NEEDS = f"is not a valid name; use {NAME_RULE}"


def wrong(pod: Any) -> list[str]:
    return [f"{field}: {message}" for field, message in wrong_names(pod, "spec")]


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", [*filter(None, NO_SEGMENTS), "Shop", "a b", "a\n", "a_b", "-a", "a?b", "a,b"])
def test_a_name_that_no_object_can_have(reference: str, name: str) -> None:
    pod = yaml.safe_load(reference.replace("NAME", "shop-v2.example"))
    assert wrong(pod) == []
    pod = _replaced(pod, name)
    (message,) = wrong(pod)
    assert message.endswith(NEEDS)
    for other in (5, True, ["a"], {"a": "b"}):
        (message,) = wrong(_replaced(yaml.safe_load(reference.replace("NAME", "shop-v2.example")), other))
        assert "a string" in message
    for none in (None, ""):
        assert wrong(_replaced(yaml.safe_load(reference.replace("NAME", "shop-v2.example")), none)) == []


def _replaced(node: Any, name: Any) -> Any:
    if isinstance(node, dict):
        return {key: _replaced(value, name) for key, value in node.items()}
    if isinstance(node, list):
        return [_replaced(item, name) for item in node]
    return name if node == "shop-v2.example" else node


@pytest.mark.parametrize(
    "shape", [None, 5, "x", [], {"volumes": {"a": 1}}, {"volumes": [None, "x", 5]}, {"containers": 1}]
)
def test_another_shape_is_left_to_the_server(shape: Any) -> None:
    assert wrong(shape) == []


def test_all_of_them_are_reported_at_once_each_with_its_field() -> None:
    spec = yaml.safe_load("""
serviceAccountName: migrator
steps:
  - name: roll
    deploy:
      workload: {name: shop}
      patch: |
        template:
          spec:
            serviceAccount: A/B
            imagePullSecrets: [{name: x/y}]
            containers: [{name: app, env: [{name: MODE, valueFrom: {configMapKeyRef: {name: ../x, key: y}}}]}]
  - name: seed
    job:
      template: '{spec: {template: {spec: {priorityClassName: a/b, containers: [{name: app, image: x}]}}}}'
      undo: '{spec: {template: {spec: {serviceAccountName: c/d, containers: [{name: app, image: x}]}}}}'
""")
    with pytest.raises(PlanError) as caught:
        parse(spec)
    assert [str(problem) for problem in caught.value.problems] == [
        f"steps[roll].deploy.patch.template.spec.serviceAccount: 'A/B' {NEEDS}",
        f"steps[roll].deploy.patch.template.spec.imagePullSecrets[x/y].name: 'x/y' {NEEDS}",
        f"steps[roll].deploy.patch.template.spec.containers[app].env[MODE].valueFrom.configMapKeyRef.name: '../x' {NEEDS}",
        f"steps[seed].job.template.spec.template.spec.priorityClassName: 'a/b' {NEEDS}",
        f"steps[seed].job.undo.spec.template.spec.serviceAccountName: 'c/d' {NEEDS}",
    ]
