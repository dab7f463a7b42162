"""Every mistake gets its own sentence: which step, which field, which value, the way out."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cutover.errors import PlanError
from cutover.plan.parsing import parse
from cutover.plan.spec import KIND_KEYS
from cutover.schema import yaml_text
from cutover.schema.yaml_text import MOST, MOST_TOGETHER

GOOD = yaml.safe_load("""
serviceAccountName: migrator
steps:
  - name: shift
    traffic:
      virtualService: {name: shop}
      from: {host: shop-v1}
      to: {host: shop-v2}
      weights: [50, 100]
    gates:
      - {name: errors, prometheus: {query: errors}, pass: {max: "0.5"}}
""")
CASES = yaml.safe_load((Path(__file__).parent / "bad_plans.yaml").read_text().replace("KINDS", ", ".join(KIND_KEYS)))


def spec_of(case: dict[str, Any]) -> dict[str, Any]:
    """The good plan with the mistake put over it."""
    spec: dict[str, Any] = copy.deepcopy(GOOD)
    step = spec["steps"][0]
    for place, over in ((spec, "spec"), (step["traffic"], "traffic"), (step["gates"][0], "gate")):
        for key, value in case.get(over, {}).items():
            if value is None:
                place.pop(key, None)
            else:
                place[key] = value
    return spec


def test_the_good_plan_is_good() -> None:
    assert parse(GOOD).steps[0].name == "shift"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_one_sentence(case: dict[str, Any]) -> None:
    with pytest.raises(PlanError) as caught:
        parse(spec_of(case))
    assert [str(problem) for problem in caught.value.problems] == [case["lint"]]


def test_each_sentence_is_its_own() -> None:
    assert len(CASES) >= 150
    assert len({case["lint"] for case in CASES}) == len(CASES)


def test_all_mistakes_of_a_database_are_told_at_once() -> None:
    database = yaml.safe_load("""
name: shop
engine: postgresql
host: db
port: 70000
passwordFrom: {secretKeyRef: {name: shop-db}}
tls: {mode: always}
""")
    several = yaml.safe_load(
        "{name: other, engine: postgresql, host: db, tls: {mode: disable, keyFrom: {secretKeyRef: {name: a, key: b}}}}"
    )
    with pytest.raises(PlanError) as caught:
        parse(GOOD | {"databases": [database, several]})
    assert [problem.where for problem in caught.value.problems] == [
        "databases[shop].port",
        "databases[shop].passwordFrom.secretKeyRef.key",
        "databases[shop].tls.mode",
        "databases[other].tls.certFrom",
    ]
    with pytest.raises(PlanError) as caught:
        parse(GOOD | {"databases": [{"name": "other", "engine": "postgresql", "host": "db", "lockTimeout": "0s"}]})
    assert [problem.where for problem in caught.value.problems] == [
        "databases[other].database",
        "databases[other].user",
        "databases[other].lockTimeout",
    ]


def test_what_yaml_has_read_otherwise_is_reported() -> None:
    """A key that YAML 1.1 takes for true, and a number that is none; neither gets as far as the API server."""
    spec = copy.deepcopy(GOOD)
    spec["steps"][0]["traffic"] |= yaml.safe_load("{on: 1, weights: [.nan, 100]}")
    with pytest.raises(PlanError) as caught:
        parse(spec)
    assert [problem.message for problem in caught.value.problems] == [
        "NaN is a decimal number; write a whole number",
        "YAML reads the key true, which is not a string; put it in quotes, or fix its name",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "kube-system:default",
        "../kube-system/default",
        "system:masters",
        "migrator\n",
        "migrator\r\nImpersonate-Group: system:masters",
        "migrator%0aX",
        "migrator\x00",
        "Migrator",
        "migr\u0430tor",
        "",
    ],
)
def test_an_account_is_a_name_and_nothing_that_a_header_or_a_path_reads_otherwise(name: str) -> None:
    with pytest.raises(PlanError, match=r"serviceAccountName: .* is not a valid name"):
        parse({**GOOD, "serviceAccountName": name})


def test_all_mistakes_at_once() -> None:
    spec = copy.deepcopy(GOOD)
    spec["timeout"] = 5
    spec["steps"][0]["traffic"]["weights"] = [200]
    spec["steps"].append({"name": "UPPER", "wait": {"for": "x"}})
    with pytest.raises(PlanError) as caught:
        parse(spec)
    assert [problem.where for problem in caught.value.problems] == [
        "timeout",
        "steps[shift].traffic.weights[0]",
        "steps[UPPER].name",
        "steps[UPPER].wait.for",
    ]


def test_hosts_of_another_namespace() -> None:
    """Where the document says which one is the plan's; both sides may be given in full."""
    spec = copy.deepcopy(GOOD)
    spec["steps"][0]["traffic"] |= {
        side: {"host": f"{name}.shop.svc.cluster.local"} for side, name in (("from", "shop-v1"), ("to", "shop-v2"))
    }
    assert parse(spec)
    assert parse(spec, "shop")
    with pytest.raises(PlanError) as caught:
        parse(spec, "other")
    assert [str(problem) for problem in caught.value.problems] == [
        f"steps[shift].traffic.{side}.host: host {name}.shop.svc.cluster.local is not a Service of namespace other; "
        "traffic can be shifted between its Services only; name one, or give what runs elsewhere a WorkloadEntry that one selects"
        for side, name in (("from", "shop-v1"), ("to", "shop-v2"))
    ]


PATCH = """
replicas: 3
labels: {a: b}
minReadySeconds: {}
template:
  metadata: {labels: [a]}
  spec:
    priorityClassName: Not A Name
    initContainers: {app: x}
    containers:
      - {image: x}
      - {name: 1}
      - {name: app, env: [{name: A, valueFrom: {configMapKeyRef: {name: ../other, key: a}}}]}
    nodeSelector: {}
"""
TEMPLATE = """
kind: Job
metadata: {name: x, labels: [a]}
spec:
  suspend: true
  completions: 0
  template:
    spec:
      restartPolicy: RESTART
      serviceAccount: old
      priorityClassName: Not A Name
"""


def test_all_mistakes_of_a_patch_at_once() -> None:
    step = {"name": "a", "deploy": {"workload": {"name": "shop-v2"}, "patch": PATCH}}
    with pytest.raises(PlanError) as caught:
        parse({**GOOD, "steps": [step]})
    at = "steps[a].deploy.patch."
    assert sorted(problem.where.removeprefix(at) for problem in caught.value.problems) == [
        "labels",
        "minReadySeconds",
        "replicas",
        "template.metadata.labels",
        "template.spec.containers[0]",
        "template.spec.containers[1].name",
        "template.spec.containers[app].env[A].valueFrom.configMapKeyRef.name",
        "template.spec.initContainers",
        "template.spec.nodeSelector",
        "template.spec.priorityClassName",
    ]


@pytest.mark.parametrize("where", ["step", "undo", "gate"])
def test_all_mistakes_of_a_template_at_once(where: str) -> None:
    """Also that the policy is one which only a step may have."""
    text = TEMPLATE.replace("RESTART", "OnFailure" if where == "gate" else "Always")
    good = "spec: {template: {spec: {containers: [{name: a, image: x}]}}}"
    job = {"template": good if where == "undo" else text, "undo": text if where == "undo" else good}
    step: dict[str, Any] = {"name": "a", "job": job}
    if where == "gate":
        step = {"name": "a", "check": {}, "gates": [{"name": "g", "job": {"template": text}}]}
    with pytest.raises(PlanError) as caught:
        parse({**GOOD, "steps": [step]})
    at = {"step": "job.template", "undo": "job.undo", "gate": "gates[g].job.template"}[where]
    found = {problem.where.removeprefix(f"steps[a].{at}."): problem.message for problem in caught.value.problems}
    assert list(found) == [
        "kind",
        "metadata.name",
        "metadata.labels",
        "spec.suspend",
        "spec.completions",
        "spec.template.spec.containers",
        "spec.template.spec.restartPolicy",
        "spec.template.spec.serviceAccount",
        "spec.template.spec.priorityClassName",
    ]
    policy = found["spec.template.spec.restartPolicy"]
    assert ("use Never, with backoffLimit" if where == "gate" else "use Never or OnFailure") in policy


JOB = "spec: {template: {spec: {containers: [{name: a, args: [ITEMS]}]}}}"
_WITHOUT_ITEMS = 14
"""Keys and values of this Job when it has no arguments."""


def with_texts(count: int, sizes: Iterable[int]) -> dict[str, Any]:
    """A plan of so many Jobs, each with an undo; in the texts so many keys and values."""
    each = iter(sizes)
    texts = [JOB.replace("ITEMS", "0," * (next(each) - _WITHOUT_ITEMS)) for _ in range(2 * count)]
    steps = [{"name": f"s{at}", "job": {"template": texts[2 * at], "undo": texts[2 * at + 1]}} for at in range(count)]
    return {"serviceAccountName": "migrator", "steps": steps}


def test_all_texts_of_a_plan_together_are_bounded() -> None:
    """Texts are read in one go, while all other plans wait."""
    assert parse(with_texts(20, itertools.repeat(500)))
    with pytest.raises(PlanError) as caught:
        parse(with_texts(20, [*itertools.repeat(500, 39), 501]))
    assert str(caught.value) == (
        "the patches and templates of all steps, gates and guards have more than 20000 keys and values together, "
        "the maximum; split the plan, or keep templates in CronJobs and name them in cronJob"
    )


@pytest.mark.parametrize("size", [MOST, MOST + 1, 8000])
def test_no_more_is_read_of_a_plan_than_its_texts_may_have(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where each text is one that is accepted, nor where each is one that is refused."""
    read, node = [], yaml_text._node

    def counting(event: Any) -> Any:
        read.append(event)
        return node(event)

    monkeypatch.setattr(yaml_text, "_node", counting)
    with pytest.raises(PlanError, match="keys and values together") as caught:
        parse(with_texts(44, itertools.repeat(size)))
    assert len(caught.value.problems) == 1
    assert len(read) <= MOST_TOGETHER
