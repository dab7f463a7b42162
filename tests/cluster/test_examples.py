"""Every example as it stands, driven to its end and back again, on what has to be there before it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, Status
from harness.api import Api
from harness.process import until
from support.cluster.shop import AnyOperator, Shop

pytestmark = pytest.mark.cluster

FOLDER = Path(__file__).parents[2] / "examples"
ELSEWHERE = {
    "compared-canary": "test_http.py",
    "maintenance-mode": "test_notify.py",
    "schema-and-data": "test_database.py",
}
"""Those that need an operator with settings of their own, or a database, are driven there, both ways."""
EXAMPLES = sorted({file.stem for file in FOLDER.glob("*.yaml")} - ELSEWHERE.keys())
FAILS = {
    "name": "fails",
    "check": {},
    "gates": [{"name": "no", "prometheus": {"query": "vector(1)"}, "pass": {"max": "0"}}],
}
_LENGTH = re.compile(r"\d+(s|m|h)")


@pytest.fixture
def shop(api: Api, namespace: str, operator: AnyOperator) -> Shop:
    if not operator.alive:
        operator.start()
    return Shop(api, namespace)


def put_before(shop: Shop, name: str) -> None:
    """What the example needs, in this namespace and with its pods ready."""
    bodies = list(yaml.safe_load_all((FOLDER / "before" / f"{name}.yaml").read_text()))
    for body in bodies:
        body["metadata"]["namespace"] = shop.namespace
        for subject in body.get("subjects", []):
            subject["namespace"] = shop.namespace
        shop.api.apply(body)
    for body in bodies:
        if (wanted := body.get("spec", {}).get("replicas")) is not None:
            path = f"{shop.apps}/{body['kind'].lower()}s/{body['metadata']['name']}"
            until(f"{path} is ready", lambda path=path, wanted=wanted: _available(shop.api.get(path)) == wanted)  # type: ignore[misc]


def _available(body: dict[str, Any]) -> int:
    status = body.get("status", {})
    return status.get("availableReplicas", 0) if "observedGeneration" in status else -1


def in_a_hurry(value: Any, key: str = "") -> Any:
    """The same in seconds instead of minutes. Nobody measures visitors here: such a query is answered by 0."""
    if isinstance(value, dict):
        if "query" in value:
            value = {**value, "query": "vector(0)"}
        return {name: in_a_hurry(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [in_a_hurry(part, key) for part in value]
    if key in ("dwell", "for", "interval") and _LENGTH.fullmatch(str(value)):
        return "1s"
    return value


def drive(shop: Shop, spec: dict[str, Any]) -> Status:
    """To its end; whoever is asked agrees."""
    shop.apply(spec)
    agreed: set[str] = set()

    def asks(status: Status) -> bool:
        return status.phase is Phase.WAITING and status.current is not None and status.current.step not in agreed

    stops = (Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.REFUSED, Phase.PAUSED, Phase.STUCK)
    while True:
        status = shop.until(lambda status: asks(status) or status.phase in stops, deadline=90)
        if not asks(status):
            return shop.until_ended() if status.phase not in (Phase.PAUSED, Phase.STUCK) else status
        assert status.current is not None
        agreed.add(status.current.step)
        shop.request(RequestVerb.APPROVE, status.current.step)


def test_the_others_are_driven_elsewhere() -> None:
    for name, file in ELSEWHERE.items():
        assert f"examples/{name}.yaml" in (Path(__file__).parent / file).read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_forward(shop: Shop, name: str) -> None:
    put_before(shop, name)
    spec = in_a_hurry(yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["spec"])
    status = drive(shop, spec)
    assert status.phase is Phase.SUCCEEDED, status
    assert shop.leftovers() == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_there_and_back(shop: Shop, name: str) -> None:
    """A step that fails stands behind all that can be undone."""
    put_before(shop, name)
    before = shop.objects()
    spec = in_a_hurry(yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["spec"])
    steps = spec["steps"]
    wall = next((at for at, step in enumerate(steps) if step.get("irreversible")), len(steps))
    status = drive(shop, spec | {"steps": [*steps[:wall], FAILS]})
    assert status.phase is Phase.ROLLED_BACK, status
    assert status.failure is not None
    assert status.failure.step == "fails"
    assert shop.objects() == before
    assert shop.leftovers() == []
