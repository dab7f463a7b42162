"""What another writer does to the shop in mid-traffic, as functions that get the writer. For the tests of other writers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.process import until
from support.faults.other_writer import ARGO, OtherWriter

Act = Callable[[OtherWriter], None]
Objects = dict[str, Any]


def resume_then_abort(who: OtherWriter) -> None:
    who.shop.request(RequestVerb.RESUME)
    until("weight 50 is written again", lambda: who.shop.weights() == [50, 50])
    who.shop.until_phase(Phase.RUNNING)
    who.shop.request(RequestVerb.ABORT)


def fix_then_resume(who: OtherWriter) -> None:
    who.scale(2)
    resume_then_abort(who)


def lowered_stays(who: OtherWriter) -> None:
    assert who.shop.weights() == [90, 10], "it is not fought"
    resume_then_abort(who)


def lower_again(who: OtherWriter) -> None:
    """What a person has resumed may be stopped once more."""
    who.weights(90, 10)
    who.shop.until_phase(Phase.PAUSED)
    who.shop.request(RequestVerb.RESUME)
    until("weight 50 is written again", lambda: who.shop.weights() == [50, 50])
    who.shop.until_phase(Phase.RUNNING)
    who.weights(80, 20)


def after(verb: RequestVerb, phase: Phase, act: Callable[[OtherWriter], None]) -> Callable[[OtherWriter], None]:
    def both(who: OtherWriter) -> None:
        who.shop.request(verb)
        who.shop.until_phase(phase)
        act(who)

    return both


def then_abort(act: Callable[[OtherWriter], None]) -> Callable[[OtherWriter], None]:
    """The change has no consequence on the way forward; that of an abort is measured."""

    def both(who: OtherWriter) -> None:
        act(who)
        who.ask(RequestVerb.ABORT)

    return both


def raise_while_suspended(who: OtherWriter) -> None:
    path = f"{who.shop.plans}/plan"
    who.api.patch(path, {"spec": {"suspend": True}})
    who.shop.until_phase(Phase.PAUSED)
    who.weights(20, 80)


def raise_again_and_again(who: OtherWriter) -> None:
    for _ in range(5):
        who.weights(20, 80)
        until("the weight is put back", lambda: who.shop.weights() == [50, 50])
    who.weights(20, 80)


def set_again_and_again(who: OtherWriter) -> None:
    """Each time the plan sets its image again, which never gets ready."""
    for _ in range(6):
        until(
            "the image is the plan's", lambda: "shop:2" in str(who.api.get(f"{who.shop.deployments}/shop-v2")["spec"])
        )
        who.image("shop:1")


def empty(who: OtherWriter) -> None:
    who.routes(lambda _: [{"name": "primary", "redirect": {"uri": "/away"}}])


def misroute(who: OtherWriter) -> None:
    def change(http: list[Any]) -> None:
        http[0]["route"][1]["destination"]["host"] = "shop-v9"

    who.routes(change)


def back_to_git(who: OtherWriter) -> None:
    spec = who.manifest("VirtualService", "shop")["spec"]
    who.routes(lambda _: spec["http"])


_ANOTHER = {
    "name": "admin",
    "match": [{"uri": {"prefix": "/admin"}}],
    "route": [{"destination": {"host": "shop-v1"}, "weight": 100}],
    "timeout": "3.5s",
    "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "5xx"},
    "fault": {"delay": {"fixedDelay": "0.1s", "percentage": {"value": 0.5}}},
    "corsPolicy": {"allowOrigins": [{"exact": "https://shop.example"}]},
}
_MORE = {"timeout": "7s", "retries": {"attempts": 3}, "headers": {"request": {"set": {"x-shop": "1"}}}}


def reorder(http: list[Any]) -> list[Any]:
    """Another route in front, and the destinations the other way round."""
    primary = copy.deepcopy(http[0])
    primary["route"].reverse()
    return [copy.deepcopy(_ANOTHER), primary]


def reorder_and_raise(who: OtherWriter) -> None:
    who.routes(reorder)
    who.weights(20, 80)


def adorn(http: list[Any]) -> list[Any]:
    """Everything but the weights."""
    return [copy.deepcopy(http[0]) | copy.deepcopy(_MORE), copy.deepcopy(_ANOTHER)]


def left_http(change: Callable[[list[Any]], list[Any]]) -> Callable[[Objects], None]:
    def left(objects: Objects) -> None:
        spec = objects["virtualservices/shop"][0]
        spec["http"] = change(spec["http"])

    return left


def recreate(who: OtherWriter) -> None:
    who.delete(who.shop.routes)
    version = who.version
    who.api.apply(who.manifest("VirtualService", "shop"), ARGO)
    who.version = version


def without(name: str) -> Callable[[Objects], None]:
    def left(objects: Objects) -> None:
        del objects[name]

    return left


def recreate_old(who: OtherWriter) -> None:
    """While nothing stands behind the old version, nothing is routed to it."""
    until("its endpoints are gone", lambda: who.shop.endpoints("shop-v1") == 0)
    who.shop.request(RequestVerb.ABORT)
    who.shop.until_phase(Phase.ROLLING_BACK)
    assert who.shop.weights() == [50, 50]
    who.api.apply(who.manifest("Deployment", "shop-v1"))
