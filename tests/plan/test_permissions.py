"""The Role that a plan needs, as it is printed."""

from __future__ import annotations

import pytest
import yaml

from cutover.plan.parsing import parse
from cutover.plan.permissions import role
from cutover.ports import PLANS, Ref
from support.fakes.shop import plan

SPEC = plan("steps: [{name: deploy, deploy: {workload: {name: shop-v2}, replicas: 1}}]")["spec"]


def names(plan_name: str) -> set[str]:
    printed = list(yaml.safe_load_all(role(Ref(PLANS, "shop", plan_name), parse(SPEC))))
    return {printed[0]["metadata"]["name"], printed[1]["metadata"]["name"], printed[1]["roleRef"]["name"]}


@pytest.mark.parametrize("length", [1, 239, 240, 253])
def test_the_name_of_a_role_is_no_longer_than_a_name_may_be(length: int) -> None:
    (name,) = names("a" * length)
    assert len(name) <= 253
    assert name.startswith(f"migrationplan-{'a' * length}"[:242])


def test_two_plans_have_two_roles() -> None:
    assert names("a" * 252 + "b") != names("a" * 252 + "c")
