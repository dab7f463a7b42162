"""Messages of a real operator to real receivers: which came, in order; receivers that are dead; the operator killed around them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, StepState
from harness.api import Api
from harness.cluster import ROOT, Cluster
from harness.process import until
from support.cluster.shop import DEPLOY, Operator, Shop
from support.fakes.message_receiver import Receiver, nobody, receiver, written

pytestmark = [pytest.mark.cluster, pytest.mark.local("its operator has receivers on this machine")]
ALL = "[Running, Waiting, RollingBack, Paused, Stuck, Succeeded, RolledBack, Refused, Abandoned]"
TOLD = f"""
notifications: [{{provider: chat, phases: {ALL}}}]
steps:
  - {{name: before, notify: {{provider: chat, message: v2 is coming}}}}
{DEPLOY}
  - {{name: after, notify: {{provider: chat, message: v2 is there, undo: v2 is gone}}}}
  - {{name: ok, approve: {{message: "go on?"}}}}
"""
FORWARD = ["Running", "step before", "step after", "Waiting"]
BACKWARD = ["RollingBack", "step after", "step before", "RolledBack"]


class Teller:
    """An operator of this file alone, and who it can tell: chat, silent (accepts and never answers), dead (nobody listens)."""

    def __init__(self, operator: Operator, chat: Receiver, silent: Receiver) -> None:
        self.operator, self.chat, self.silent = operator, chat, silent

    def dropped(self, provider: str) -> int:
        """Messages to a provider that were abandoned, by the metrics."""
        line = rf'^cutover_messages_total{{provider="{provider}",result="dropped"}} (\S+)$'
        found = re.search(line, self.operator.ask("/metrics"), re.MULTILINE)
        return int(float(found[1])) if found else 0


@pytest.fixture(scope="module")
def teller(cluster: Cluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Teller]:
    """The session's operator sees all namespaces, so it is stopped first."""
    operator.stop()
    folder = tmp_path_factory.mktemp("teller")
    with receiver() as chat, receiver() as silent:
        silent.code = 0
        urls = {"chat": chat.url, "silent": silent.url, "dead": nobody()}
        notify = {name: {"urlFile": str(written(folder / name, url))} for name, url in urls.items()}
        own = Operator(cluster, folder, cluster.prometheus.providers, name="teller", notify=notify)
        own.start()
        until("the operator is ready", own.ready, process=own.process)
        yield Teller(own, chat, silent)
        own.stop()


@pytest.fixture
def shop(api: Api, namespace: str, teller: Teller) -> Shop:
    made = Shop(api, namespace)
    if not teller.operator.alive:
        teller.operator.start()
    made.create()
    return made


def came(shop: Shop, teller: Teller, *titles: str, plan: str = "plan") -> None:
    """Wait until just these have come, in this order."""
    wanted = list(titles)
    until(f"{wanted} came", lambda: len(teller.chat.of(f"{shop.namespace}/{plan}")) >= len(wanted))
    assert teller.chat.of(f"{shop.namespace}/{plan}") == wanted


def test_a_plan_that_succeeds(shop: Shop, teller: Teller) -> None:
    shop.apply(TOLD)
    shop.until_phase(Phase.WAITING)
    came(shop, teller, *FORWARD)
    shop.request(RequestVerb.APPROVE, "ok")
    assert shop.until_ended().phase is Phase.SUCCEEDED
    came(shop, teller, *FORWARD, "Running", "Succeeded")
    texts = dict(message for message in teller.chat.came if shop.namespace in message[0])
    assert texts[f"MigrationPlan {shop.namespace}/plan: step after"] == "v2 is there"
    assert "go on?" in texts[f"MigrationPlan {shop.namespace}/plan: Waiting"]


def test_a_plan_that_rolls_back(shop: Shop, teller: Teller) -> None:
    before = shop.objects()
    shop.apply(TOLD)
    shop.until_phase(Phase.WAITING)
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    came(shop, teller, *FORWARD, *BACKWARD)
    texts = [text for title, text in teller.chat.came if shop.namespace in title and "step" in title]
    assert texts == ["v2 is coming", "v2 is there", "v2 is gone", "undone: v2 is coming"]
    assert shop.objects() == before
    assert shop.leftovers() == []


def test_dead_receivers_delay_no_plan_and_are_counted(shop: Shop, teller: Teller) -> None:
    """The plan has ended before the first message is abandoned. One that listens gets its own in that time."""
    known = {name: teller.dropped(name) for name in ("silent", "dead")}
    phases = "[Running, Succeeded]"
    told = ", ".join(f"{{provider: {name}, phases: {phases}}}" for name in ("silent", "dead", "chat"))
    shop.apply(f"notifications: [{told}]\nsteps:{DEPLOY}")
    assert shop.until_ended().phase is Phase.SUCCEEDED
    assert teller.dropped("silent") == known["silent"]
    came(shop, teller, "Running", "Succeeded")
    for name, count in known.items():
        until(f"both messages to {name} are abandoned", lambda n=name, c=count: teller.dropped(n) == c + 2, deadline=60)  # type: ignore[misc]
    assert teller.silent.of(f"{shop.namespace}/plan") == ["Running"] * 3 + ["Succeeded"] * 3


@pytest.mark.parametrize("name", ["silent", "dead"])
def test_a_step_that_nobody_hears_is_done_and_says_so(shop: Shop, teller: Teller, name: str) -> None:
    shop.apply(
        f"steps:\n  - {{name: tell, notify: {{provider: {name}, message: hello}}}}\n  - {{name: ok, approve: {{message: go}}}}"
    )
    status = shop.until_phase(Phase.WAITING, deadline=60)
    assert status.steps[0].state is StepState.DONE
    assert status.steps[0].message == f"not delivered to {name}: 1 of 1 receivers did not accept it"
    before = teller.dropped(name)
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert teller.dropped(name) == before, "the rollback waits for nobody"


def test_sigterm_does_not_wait_for_one_that_never_answers(shop: Shop, teller: Teller) -> None:
    shop.apply("notifications: [{provider: silent, phases: [Waiting]}]\nsteps: [{name: ok, approve: {message: go}}]")
    until("it is on its way", lambda: bool(teller.silent.of(f"{shop.namespace}/plan")))
    process = teller.operator.process
    process.stop(grace=5.0)  # after that it is killed
    assert process.exit_code == 0
    assert len(teller.silent.of(f"{shop.namespace}/plan")) == 1, "it ended before the next try"
    teller.operator.start()
    shop.request(RequestVerb.ABORT)
    shop.until_ended()


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_the_operator_is_killed_around_a_step(shop: Shop, teller: Teller, back: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """The message of a step comes once or twice, that of a phase at most once, and the plan ends as ever."""
    chosen = random.Random(1 + back)  # noqa: S311 -- repeatable on purpose
    text = "{provider: chat, message: hello, undo: good bye}"
    steps = ", ".join(f"{{name: s{number}, notify: {text}}}" for number in range(4))
    for number in range(4):
        name = f"plan-{number}"
        shop.apply(
            f"notifications: [{{provider: chat, phases: {ALL}}}]\nsteps: [{steps}, {{name: ok, approve: {{message: go}}}}]",
            name,
        )
        if back:
            shop.until_phase(Phase.WAITING, name)
            shop.request(RequestVerb.ABORT, name=name)
        else:
            shop.until(lambda status: status.phase is Phase.RUNNING, name)
        time.sleep(chosen.random() * 0.3)  # the moment is the point of the test
        teller.operator.kill()
        teller.operator.start()
        if not back:
            shop.until_phase(Phase.WAITING, name)
            shop.request(RequestVerb.ABORT, name=name)
        assert shop.until_ended(name).phase is Phase.ROLLED_BACK
        until("it is told", lambda n=name: back or "RolledBack" in teller.chat.of(f"{shop.namespace}/{n}"))  # type: ignore[misc]
        heard = [(title, text) for title, text in teller.chat.came if f"{shop.namespace}/{name}:" in title]
        counts = {message: heard.count(message) for message in heard}
        for title, count in ((title, count) for (title, _), count in counts.items() if ": step" not in title):
            assert count == 1, (number, title)
        forward = [count for (_, said), count in counts.items() if said == "hello"]
        assert len(forward) == 4, (number, heard)
        assert all(1 <= count <= 2 for count in counts.values()), (number, heard)


# --- the example ------------------------------------------------------------------------------------------------------

CHECKOUT = """
apiVersion: v1
kind: ConfigMap
metadata: {name: checkout-flags}
data: {MAINTENANCE: "false"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: checkout}
spec:
  replicas: 2
  selector: {matchLabels: {app: checkout}}
  template:
    metadata: {labels: {app: checkout}}
    spec: {containers: [{name: app, image: "registry.example/checkout:1.0.0", envFrom: [{configMapRef: {name: checkout-flags}}]}]}
"""


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_the_example(shop: Shop, teller: Teller, back: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """As it stands, but for its night, which is all day here, and the account."""
    for manifest in yaml.safe_load_all(CHECKOUT):
        manifest["metadata"]["namespace"] = shop.namespace
        shop.api.apply(manifest)
    spec: dict[str, Any] = yaml.safe_load((ROOT / "examples/maintenance-mode.yaml").read_text())["spec"]
    spec |= {"windows": [{"from": "00:00", "to": "00:00"}], "serviceAccountName": "migrator"}
    flags = f"/api/v1/namespaces/{shop.namespace}/configmaps/checkout-flags"
    before = shop.objects()
    shop.apply(spec)
    shop.until_phase(Phase.WAITING, deadline=60)
    assert shop.api.get(flags)["data"] == {"MAINTENANCE": "true"}
    came(shop, teller, "step announce", "Waiting")
    shop.request(RequestVerb.ABORT if back else RequestVerb.APPROVE, "" if back else "look")
    assert shop.until_ended(deadline=60).phase is (Phase.ROLLED_BACK if back else Phase.SUCCEEDED)
    assert shop.api.get(flags)["data"] == {"MAINTENANCE": "false"}
    if back:
        came(shop, teller, "step announce", "Waiting", "RollingBack", "step announce", "RolledBack")
        assert shop.objects() == before
    else:
        came(shop, teller, "step announce", "Waiting", "step open", "Succeeded")
    assert shop.leftovers() == []
