"""What stands behind a destination."""

from __future__ import annotations

from cutover.objects.endpoints import Side, count_ready, resolve
from cutover.ports import DESTINATION_RULES, SERVICES, WORKLOAD_ENTRIES
from cutover.testing import MemoryCluster

HOST = "shop.shop.svc.cluster.local"


def cluster(selector: dict[str, str] | None) -> MemoryCluster:
    """A Service, and two definitions of one subset of it."""
    made = MemoryCluster()
    made.put(SERVICES, {"metadata": {"name": "shop"}, "spec": {"selector": selector}})
    for name, version in (("a", "2"), ("b", "3")):
        subset = {"name": "new", "labels": {"version": version}}
        made.put(DESTINATION_RULES, {"metadata": {"name": name}, "spec": {"host": HOST, "subsets": [subset]}})
    return made


async def test_a_subset_is_what_the_service_selects_and_its_labels_narrow() -> None:
    side = await resolve(cluster({"app": "shop"}), "shop", "shop", "new")
    assert side == Side("shop", {"app": "shop", "version": "2"}, subset=True), "of two definitions the first counts"


async def test_a_service_without_a_selector_cannot_be_counted() -> None:
    assert await resolve(cluster(None), "shop", HOST, None) == (
        f"host {HOST}: Service shop has no selector, so its endpoints cannot be counted; add one"
    )


async def test_what_is_missing_is_named() -> None:
    of_shop = cluster({"app": "shop"})
    assert "define it" in str(await resolve(of_shop, "shop", "shop", "old"))
    assert "there is no Service till; create it" in str(await resolve(of_shop, "shop", "till", None))
    assert "is not a Service of namespace shop" in str(
        await resolve(of_shop, "shop", "shop.other.svc.cluster.local", None)
    )


async def test_workload_entries_that_the_service_selects_count_too() -> None:
    of_shop = cluster({"app": "shop"})
    for name, app in (("a", "shop"), ("b", "shop"), ("c", "till")):
        of_shop.put(WORKLOAD_ENTRIES, {"metadata": {"name": name}, "spec": {"labels": {"app": app}}})
    side = await resolve(of_shop, "shop", "shop", None)
    assert isinstance(side, Side)
    assert await count_ready(of_shop, "shop", side) == (2,)
