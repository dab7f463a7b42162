"""One namespace with a shop, operators of its own behind proxies, and what is there at the end. For the fault tests."""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cutover.ports import FENCE_LABEL, FINALIZER, PLAN_LABEL
from cutover.status.status import ENDED
from harness.cluster import Cluster
from harness.process import free_ports, until
from harness.proxy import Proxy
from support.cluster.forked_operator import ForkedOperator
from support.cluster.observer import Observer
from support.cluster.shop import Shop, rights, without_owners
from support.plans.on_cluster import Story

T = TypeVar("T")
_NAMESPACES = "/api/v1/namespaces"
_CLAIM = (PLAN_LABEL, FENCE_LABEL)


class Testbed:
    """Where sites are put up: the cluster, who watches it, and the operator's account. Safe to use from several threads."""

    __test__ = False  # pytest takes a class for tests whose name begins like this one

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.api, self.folder = cluster, cluster.api, folder
        plane = cluster.control_plane
        plane.operator_kubeconfig(*rights())
        self.token = plane.token_for("cutover-system", "cutover")
        self.observer = Observer(self.api)
        self.settings = folder / "settings.yaml"
        self.settings.write_text(
            yaml.safe_dump({"providers": {"default": {"prometheus": {"url": cluster.prometheus.url}}}})
        )

    def baseline(self, story: Story) -> Baseline:
        """Run a story to which nothing happens."""
        with self.site(story.name, more=story.more) as site:
            site.runner.proxy.arm(lambda _: None)
            site.play(story)
            made = site.runner.proxy.exchanges
            found = Baseline(site.end(), len(made), sum(exchange.writes for exchange in made))
        assert found.end.phase == story.end
        assert found.end.differs_from(found.end) == []
        return found

    @contextmanager
    def operator(
        self, name: str, proxy: Proxy | None = None, lease: dict[str, Any] | None = None
    ) -> Iterator[tuple[ForkedOperator, int]]:
        """One operator for all namespaces, and its port: ready, straight at the API server or behind a proxy."""
        (port,) = free_ports(1)
        server = proxy.url if proxy is not None else ""
        kubeconfig = self.cluster.control_plane.kubeconfig_for(name, self.token, server=server)
        settings = self.folder / f"{name}.yaml"
        settings.write_text(yaml.safe_dump({**yaml.safe_load(self.settings.read_text()), "lease": lease}))
        arguments = ["--settings", str(settings), "--port", str(port)]
        process = ForkedOperator(arguments, kubeconfig, self.folder / f"{name}.log")
        process.start()

        def ready() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)

        try:
            until("the operator is ready", ready)
            yield process, port
        finally:
            process.kill()

    @contextmanager
    def site(self, name: str, *, more: str = "", operators: int = 1) -> Iterator[Site]:
        """A fresh namespace with a shop and what else is asked for; its operators run through their proxies when it is handed out."""
        namespace = f"{name}-{secrets.token_hex(3)}"
        self.cluster.control_plane.make_namespace(namespace)
        made = Site(self, namespace)
        try:
            for manifest in yaml.safe_load_all(more.replace("NAMESPACE", namespace)):
                self.api.apply(manifest)
            made.shop.create(pods=2)
            made.before = made.objects()
            for _ in range(operators):
                made.add_operator().start()
            yield made
        finally:
            made.close()
            self.api.delete(f"{_NAMESPACES}/{namespace}")


@dataclass(frozen=True)
class End:
    """What is there after a story, told without the namespace's name."""

    phase: str
    failure: str
    steps: tuple[tuple[str, str], ...]
    objects: dict[str, Any]
    before: dict[str, Any]
    history: dict[str, list[Any]]
    snapshots: int
    jobs: tuple[str, ...]
    jobs_did: tuple[str, ...]
    leftovers: tuple[str, ...]

    def without_owners(self) -> End:
        """The same, for a story in which somebody else takes fields over."""
        return replace(self, objects=without_owners(self.objects), before=without_owners(self.before))

    def differs_from(self, other: End) -> list[str]:
        """In what the story went otherwise than this other run of it, or is wrong in itself."""
        found = [f"left behind: {name}" for name in self.leftovers]
        for what in ("phase", "steps", "objects", "history", "snapshots", "jobs", "jobs_did"):
            ours, theirs = getattr(self, what), getattr(other, what)
            if what == "objects":
                ours, theirs = _apart(ours, theirs)
            if ours != theirs:
                found.append(f"{what}: {ours} instead of {theirs}")
        if found and self.failure != other.failure:
            found.insert(0, f"it failed with: {self.failure}")
        if self.phase == "RolledBack" and self.objects != self.before:
            found.append(f"not as before: {self.objects} instead of {self.before}")
        for name, values in self.history.items():
            if name.startswith(("virtualservices/", "httproutes/")):
                found += [f"{name}: weights {route}" for value in values for route in value if sum(route) != 100]
        return found


@dataclass(frozen=True)
class Baseline:
    """A story to which nothing happened: how it ended, how many requests it took, and how many of those were writes."""

    end: End
    requests: int
    writes: int


@dataclass
class ProxiedOperator:
    """One operator and the proxy before it."""

    site: Site
    number: int
    port: int = field(default_factory=lambda: free_ports(1)[0])

    def __post_init__(self) -> None:
        testbed, namespace = self.site.testbed, self.site.shop.namespace
        plane = testbed.cluster.control_plane
        self.proxy = Proxy(plane.url, plane.ca)
        self.proxy.start()
        name = f"{namespace}-{self.number}"
        kubeconfig = plane.kubeconfig_for(name, testbed.token, server=self.proxy.url)
        arguments = ["--settings", str(testbed.settings), "--namespace", namespace, "--port", str(self.port)]
        self.process = ForkedOperator(arguments, kubeconfig, testbed.folder / f"{name}.log")

    def start(self) -> None:
        """Start it and wait until it sees plans."""
        before = len(self.proxy.opened)
        self.process.start()
        self.wait_watching(before)

    def wait_watching(self, before: int = 0) -> None:
        """Until it streams plans and targets; `before` is how many watches were opened when it was started."""

        def streams() -> bool:
            opened = {path.rpartition("/")[2] for path in self.proxy.opened[before:]}
            return opened >= {"migrationplans", "deployments", "virtualservices"}

        until("the operator streams", streams, deadline=90)  # many begin at once

    def close(self) -> None:
        self.proxy.disarm()
        self.process.kill()
        self.proxy.stop()


class Site:
    """A shop and its operators."""

    def __init__(self, testbed: Testbed, namespace: str) -> None:
        self.testbed, self.shop = testbed, Shop(testbed.api, namespace)
        self.ledger = testbed.folder / f"{namespace}.ledger"
        self.ledger.touch()
        self.before: dict[str, Any] = {}
        self.runners: list[ProxiedOperator] = []

    def add_operator(self) -> ProxiedOperator:
        """One more operator, not yet started."""
        made = ProxiedOperator(self, len(self.runners))
        self.runners.append(made)
        return made

    @property
    def runner(self) -> ProxiedOperator:
        return self.runners[0]

    def close(self) -> None:
        for runner in self.runners:
            runner.close()

    def apply(self, story: Story) -> None:
        """Its plan, whose Jobs write into the ledger of this site."""
        self.shop.apply(story.spec.replace("LEDGER", str(self.ledger)))

    def play(self, story: Story, deadline: float = 60.0) -> None:
        """Apply the plan, play the people, wait for the end."""
        self.apply(story)
        story.people(self.shop)
        self.shop.until_ended(deadline=deadline)

    def objects(self) -> dict[str, Any]:
        """All that a plan may touch, without what is the namespace's or the plan's own: names, uid, hash."""
        text = json.dumps(self.shop.objects()).replace(self.shop.namespace, "NAMESPACE")
        for plan in self.testbed.api.list(self.shop.plans):
            text = text.replace(plan["metadata"]["uid"][:8], "UID")
            if run := plan.get("status", {}).get("run"):
                text = text.replace(run["specHash"][:32], "HASH")
        found: dict[str, Any] = json.loads(text)
        return found

    def claims(self) -> list[str]:
        """Claims on the shop's objects, and finalizers of ours on its plans."""
        api, shop = self.testbed.api, self.shop
        found = [
            f"label {key} on {name}"
            for name, (_, labels, *_) in shop.objects().items()
            for key in labels
            if key in _CLAIM
        ]
        plans = api.list(shop.plans)
        return found + [
            f"a finalizer of {plan['metadata']['name']}"
            for plan in plans
            if FINALIZER in plan["metadata"].get("finalizers", ())
        ]

    def snapshots(self) -> list[str]:
        """Snapshots that are kept; the shop has no other ControllerRevisions."""
        return [
            f"snapshot {body['metadata']['name']}"
            for body in self.testbed.api.list(f"{self.shop.apps}/controllerrevisions")
        ]

    def jobs(self) -> tuple[str, ...]:
        """Each Job that is there, named as its plan names it for all plans, and what became of it."""
        found = []
        for job in self.testbed.api.list(f"/apis/batch/v1/namespaces/{self.shop.namespace}/jobs"):
            ended = [entry["type"] for entry in job["status"].get("conditions") or () if entry["status"] == "True"]
            found.append(f"{job['metadata']['name'].rpartition('-')[0]}: {', '.join(sorted(ended))}")
        return tuple(sorted(found))

    def end(self) -> End:
        """What is there now."""
        status = self.shop.status()
        assert status.phase in ENDED
        objects, kept = self.objects(), self.snapshots()
        left = self.claims() + (kept if status.phase != "Succeeded" else [])
        return End(
            phase=str(status.phase),
            failure=str(status.failure),
            steps=tuple((step.name, str(step.state)) for step in status.steps),
            objects=objects,
            before=self.before,
            history=self.testbed.observer.history(self.shop.namespace),
            snapshots=len(kept),
            jobs=self.jobs(),
            jobs_did=tuple(self.ledger.read_text().split()),
            leftovers=tuple(left),
        )


def _apart(one: dict[str, Any], other: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both without what is the same in them."""
    differ = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    return {name: one.get(name) for name in differ}, {name: other.get(name) for name in differ}


def unclaimed(objects: dict[str, Any]) -> dict[str, Any]:
    """The same objects without our claims."""
    return without_labels(objects, _CLAIM)


def without_labels(objects: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """The same objects without these labels, and without the ownership of them."""
    owned = {"f:metadata/f:labels", *(f"f:metadata/f:labels/f:{key}" for key in keys)}
    found = {}
    for name, (spec, labels, remarks, owners) in objects.items():
        left = {who: [field for field in fields if field not in owned] for who, fields in owners.items()}
        kept = {key: value for key, value in labels.items() if key not in keys}
        found[name] = (spec, kept, remarks, {who: fields for who, fields in left.items() if fields})
    return found


def until_met(attempt: Callable[[float], T], met: Callable[[T], bool]) -> T:
    """Try something at a request that was drawn from the count of another run, at an ever smaller share of its number.

    How often a run polls depends on how fast it goes, so that this one may be over before.
    """
    share = 1.0
    while not met(done := attempt(share)) and share > 0.1:
        share *= 3 / 4
    return done


def side_by_side(cases: Sequence[Callable[[], T]], workers: int = 4) -> list[T]:
    """Run cases in a few threads; what each returned, in their order. They mostly wait for the cluster."""
    with ThreadPoolExecutor(workers) as pool:
        return [future.result() for future in [pool.submit(case) for case in cases]]
