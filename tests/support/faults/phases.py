"""Plans on the local cluster that are brought into one phase and stay there until they are set free. For the fault tests."""

from __future__ import annotations

import time
from typing import ClassVar

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.kwok import BEHAVIOUR
from harness.process import until
from harness.proxy import Exchange, Fault, Pause
from support.cluster.shop import DEPLOY, SHIFT, Shop

_OK = "\n  - {name: ok, approve: {message: go}}\n"
_PAIR = "virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}"
_OLD = '\n  - {name: old, deploy: {workload: {name: shop-v1}, images: [{container: app, image: "shop:1b"}]}}'
_ODD = """
  - name: odd
    deploy: {workload: {name: shop-v2}, patch: '{template: {metadata: {annotations: {odd: "<a & b> \\u00e9 \\u2028"}}}}'}
"""


class Case:
    """A plan that is in one phase when something happens: how it gets there, and what sets it free afterwards."""

    spec: ClassVar[str]
    end: ClassVar[Phase] = Phase.SUCCEEDED
    blocked: ClassVar[bool] = False
    """Nothing goes on, not even the end of a deletion, until it is set free."""
    edited: ClassVar[bool] = False
    """Somebody else writes a field of the plan in it, and owns that field from then on."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def prepare(self) -> None:
        """What the shop is like before the plan is applied."""

    def enter(self) -> None:
        """Bring the plan into its phase."""

    def free(self) -> None:
        """Let it go on."""

    def behave(self, name: str, behaviour: str | None) -> None:
        template = {"metadata": {"annotations": {BEHAVIOUR: behaviour}}}
        self.shop.api.patch(f"{self.shop.deployments}/{name}", {"spec": {"template": template}})


class Pending(Case):
    """The account is not allowed to run migrations."""

    spec = f"startDeadline: 1h\nsteps:{DEPLOY}"

    def _label(self, value: str | None) -> None:
        account = f"/api/v1/namespaces/{self.shop.namespace}/serviceaccounts/migrator"
        self.shop.api.patch(account, {"metadata": {"labels": {"cutover.dev/migrator": value}}})

    def prepare(self) -> None:
        self._label(None)

    def enter(self) -> None:
        self.shop.until(
            lambda status: status.phase is Phase.PENDING and "is not allowed to run migrations" in status.message
        )

    def free(self) -> None:
        self._label("true")


class Refused(Pending):
    """It waited for its account as long as it was to."""

    spec = f"startDeadline: 1s\nsteps:{DEPLOY}"
    end = Phase.REFUSED

    def enter(self) -> None:
        assert self.shop.until_ended().phase is Phase.REFUSED


class OutsideWindow(Case):
    """Nothing has begun; it waits for another day."""

    spec = (
        f"windows: [{{days: [{'Mon' if time.gmtime().tm_wday in (3, 4) else 'Fri'}], from: '11:00', to: '13:00'}}]\n"
        f"steps:{DEPLOY}"
    )

    def enter(self) -> None:
        self.shop.until(lambda status: status.phase is Phase.PENDING and status.reason == "OutsideWindow")


class Waiting(Case):
    """For a person."""

    spec = f"steps:{DEPLOY}{_OK}"

    def enter(self) -> None:
        self.shop.until_phase(Phase.WAITING)

    def free(self) -> None:
        self.shop.request(RequestVerb.APPROVE, "ok")


class Paused(Waiting):
    """By a person."""

    def enter(self) -> None:
        super().enter()
        self.shop.request(RequestVerb.PAUSE)
        self.shop.until_phase(Phase.PAUSED)

    def free(self) -> None:
        self.shop.request(RequestVerb.RESUME)
        self.shop.until_phase(Phase.WAITING)
        super().free()


class PausedPastNoReturn(Waiting):
    """Everything after a step that cannot be undone is undone."""

    spec = Waiting.spec.replace("    gates:", "    irreversible: true\n    gates:")

    def enter(self) -> None:
        super().enter()
        self.shop.request(RequestVerb.ABORT)
        assert self.shop.until_phase(Phase.PAUSED).reason == "PastPointOfNoReturn"


class RollingBack(Waiting):
    """The undo waits for pods of the old image that never get ready."""

    spec = f"steps:{_OLD}{_OK}"
    end = Phase.ROLLED_BACK
    blocked = True

    def enter(self) -> None:
        super().enter()
        self.behave("shop-v1", "never-ready")
        self.shop.request(RequestVerb.ABORT)
        self.shop.until_phase(Phase.ROLLING_BACK)

    def free(self) -> None:
        self.behave("shop-v1", None)


class RollingOut(Case):
    """Running, in a deploy whose pods do not get ready."""

    spec = f"steps:{DEPLOY}"

    def prepare(self) -> None:
        self.behave("shop-v2", "never-ready")

    def enter(self) -> None:
        self.shop.until(lambda status: status.current is not None and status.current.ready == "0/3")

    def free(self) -> None:
        self.behave("shop-v2", None)


class Dwelling(Case):
    """Running, at a weight; by itself it goes on."""

    spec = f"steps:{DEPLOY}\n  - {{name: shift, traffic: {{{_PAIR}, weights: [10, 100], dwell: 8s}}}}"

    def enter(self) -> None:
        until("weight 10 is written", lambda: self.shop.weights() == [90, 10])


class DwellingLong(Dwelling):
    """Running, at a weight, with half of the targets' fields changed; it stays there."""

    spec = Dwelling.spec.replace("8s", "10m")


class PausedByFailure(RollingOut):
    """Its pods did not get ready in time, and under `onFailure: Pause` a person decides."""

    spec = RollingOut.spec.replace("    gates:", "    timeout: 2s\n    onFailure: Pause\n    gates:")

    def enter(self) -> None:
        assert self.shop.until_phase(Phase.PAUSED).reason == "StageTimedOut"


class _Delays:
    """A rule of a proxy: it delays the patch of a VirtualService in one of these namespaces, if it has these bytes."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[bytes, Pause]] = {}

    def __call__(self, exchange: Exchange) -> Fault | None:
        if exchange.method != "PATCH" or not exchange.path.endswith("/virtualservices/shop"):
            return None
        content, pause = self.of.get(exchange.path.split("/")[5], (b"", None))
        return pause if content in exchange.body else None


class _Delayed(Case):
    """One target is claimed or released, and the write that does it to the other is delayed. Its operator's proxy is armed with `delays`."""

    blocked = True
    delays: ClassVar[_Delays] = _Delays()
    content: ClassVar[bytes]
    reason: ClassVar[str]

    def prepare(self) -> None:
        self.pause = Pause()
        self.delays.of[self.shop.namespace] = self.content, self.pause

    def enter(self) -> None:
        assert self.pause.paused.wait(20), "the VirtualService was not written"
        assert self.shop.status().reason == self.reason

    def free(self) -> None:
        self.pause.release()


class Claiming(_Delayed):
    """Before the first step."""

    spec = DwellingLong.spec
    content, reason = b'"op":"add","path":"/metadata/labels/cutover.dev~1plan"', "Claiming"


class Releasing(_Delayed):
    """After the last step."""

    spec = f"steps:{DEPLOY}\n  - {{name: shift, traffic: {{{_PAIR}, weights: [100]}}}}"
    content, reason = b'"op":"remove","path":"/metadata/labels/cutover.dev~1plan"', "Releasing"


class Reclaiming(_Delayed):
    """A success that is to be rolled back."""

    spec = Releasing.spec
    end = Phase.ROLLED_BACK
    content, reason = Claiming.content, "Reclaiming"

    def prepare(self) -> None:
        """The first claim is not kept back."""

    def enter(self) -> None:
        assert self.shop.until_ended().phase is Phase.SUCCEEDED
        super().prepare()
        self.shop.request(RequestVerb.ROLLBACK)
        super().enter()


class Stuck(Waiting):
    """Somebody else changed the image that the undo is to bring back."""

    spec = RollingBack.spec
    end = Phase.ROLLED_BACK
    edited = True

    def set_image(self, image: str) -> None:
        containers = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}}
        self.shop.api.patch(f"{self.shop.deployments}/shop-v1", containers, "strategic", "somebody")

    def enter(self) -> None:
        super().enter()
        self.set_image("shop:by-hand")
        self.shop.request(RequestVerb.ABORT)
        assert self.shop.until_phase(Phase.STUCK).reason == "ForeignChange"

    def free(self) -> None:
        self.set_image("shop:1")


class Succeeded(Case):
    """Over; its snapshots are kept. What stands in them is not written alike by every encoder."""

    spec = f"steps:{DEPLOY}{_ODD}{SHIFT}"

    def enter(self) -> None:
        assert self.shop.until_ended().phase is Phase.SUCCEEDED


class SuccessRolledBack(Succeeded):
    """The same, but a person wants everything back afterwards."""

    end = Phase.ROLLED_BACK

    def free(self) -> None:
        self.shop.request(RequestVerb.ROLLBACK)
        self.shop.until_phase(Phase.ROLLED_BACK)


class RolledBack(Waiting):
    """Over; nothing is kept."""

    end = Phase.ROLLED_BACK

    def enter(self) -> None:
        super().enter()
        self.shop.request(RequestVerb.ABORT)
        assert self.shop.until_ended().phase is Phase.ROLLED_BACK

    def free(self) -> None:
        """Nothing more happens to it."""


class Abandoned(Waiting):
    """Over; what was done is left."""

    end = Phase.ABANDONED

    def enter(self) -> None:
        super().enter()
        self.shop.request(RequestVerb.ABANDON)
        assert self.shop.until_ended().phase is Phase.ABANDONED
