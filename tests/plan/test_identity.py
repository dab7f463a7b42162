"""The hash of a spec: what is a new run, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cutover.plan.parsing import hash_of, parse

PLAN = """
serviceAccountName: migrator
guards: [{name: alive, interval: 10s, job: {template: '{spec: {template: {spec: {containers: [{name: a, image: "a:1"}]}}}}'}}]
steps:
  - name: deploy
    deploy:
      workload: {name: shop-v2}
      patch: |
        minReadySeconds: 5
        template: {metadata: {annotations: {config: "2"}}}
  - name: schema
    job:
      template: |
        spec: {template: {spec: {containers: [{name: up, image: "a:1"}]}}}
      undo: |
        spec: {template: {spec: {containers: [{name: down, image: "a:1"}]}}}
  - name: tell
    notify: {provider: chat, message: "a: 1", undo: "b: 1"}
"""


def spec(text: str = PLAN) -> Any:
    return yaml.safe_load(text)


def identity(text: str) -> str:
    return hash_of("plan", spec(text), parse(spec(text)))


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("minReadySeconds: 5\n", "# why\n        minReadySeconds:   5\n"),
        ('{metadata: {annotations: {config: "2"}}}', "{metadata: {annotations: {'config': '2'}}}"),
        ("        spec: {template: {spec: {containers: [{name: up", "        spec:\n          {template: {spec: {containers: [{name: up"),
        ('[{name: down, image: "a:1"}]', '[{"image": "a:1", "name": "down"}]'),
        ("'{spec: {template: {spec: {containers: [{name: a, image: \"a:1\"}]}}}}'", "'{spec: {template:   {spec: {containers: [{name: a, image: a:1}]}}}}'"),
        ("serviceAccountName", "suspend: true\nserviceAccountName"),
    ],
    ids=["comment", "quotes", "lines", "order", "gate", "suspend"],
)  # fmt: skip
def test_no_new_run(was: str, now: str) -> None:
    changed = PLAN.replace(was, now)
    assert changed != PLAN
    assert identity(changed) == identity(PLAN)
    assert parse(spec(changed)).steps_digest == parse(spec()).steps_digest


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("minReadySeconds: 5", "minReadySeconds: 6"),
        ('config: "2"', "config: null"),
        ("name: up", "name: down"),
        ("name: down", "name: up"),
        ("name: a,", "name: b,"),
        ('message: "a: 1"', 'message: "a:  1"'),  # a text for people, which only looks like YAML
        ('undo: "b: 1"', 'undo: "b:  1"'),
    ],
)
def test_a_new_run(was: str, now: str) -> None:
    changed = PLAN.replace(was, now)
    assert changed != PLAN
    assert identity(changed) != identity(PLAN)


def test_a_default_that_is_written_out_is_another_spec() -> None:
    """What is hashed is what is written, so that a default that changes with a version changes no spec."""
    assert identity(PLAN + "onFailure: Rollback\n") != identity(PLAN)


def test_a_spec_that_cannot_be_read_has_one_too() -> None:
    assert len(hash_of("plan", {"steps": 5}, None)) == 64
