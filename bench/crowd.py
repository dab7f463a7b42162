"""Many plans at once in one namespace, beside the peers that the environment names: how fast, for how many requests, and what it costs the API server."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from environment import control_plane, machine, table
from peers import Peer, peers

from harness.cluster import Cluster
from harness.process import until
from harness.tools import print_progress
from support.cluster.crowd import Crowd, Watcher

WEIGHTS = (10, 25, 50, 100)
MORE = (5, 10, 20, 25, 40, 50, 75, 100)
"""Twice as many: what each further weight costs is a quarter of the difference."""
_HEAD = (
    "at once in one namespace",
    "applied → all available",
    "all available → last weight",
    "weights a second of that",
    "weights a second of all",
    "requests a weight",
    "for each weight more",
    "CPU of kube-apiserver a weight",
    "CPU of its own a weight",
)
_LEGEND = f"""Each shop has two Services, two Deployments of one simulated pod and a VirtualService, all in one namespace; its plan rolls out the new version and
moves the traffic in {len(WEIGHTS)} weights. Weights a second: those after the last new version was available, by the time until the last weight; and all, by
the time since the plans were applied. Requests: all from before the plans are applied until they have ended, by the audit log, without watches. For each weight more: by what plans of
{len(MORE)} weights take. Each row has a control plane of its own; """


@dataclass
class _Seen:
    """One crowd from its plans to the end."""

    weights: int
    later: int
    rollout: float
    shift: float
    requests: int
    server: float
    own: float


def measure(folder: Path, numbers: Sequence[int]) -> str:
    """The table: a row for each number of plans and each peer."""
    rows = []
    for number in numbers:
        for peer in peers():
            seen, more = (
                _one(folder / f"{peer.name}-{number}-{len(weights)}", peer, number, weights)
                for weights in (WEIGHTS, MORE)
            )
            rows.append(_row(f"{number}, {peer.name}", seen, more, number))
    return f"{table(_HEAD, rows)}\n{_LEGEND}{machine()}.\n"


def _row(what: str, seen: _Seen, more: _Seen, number: int) -> tuple[str, ...]:
    further = (more.requests - seen.requests) / (number * (len(MORE) - len(WEIGHTS)))
    return (
        what,
        f"{seen.rollout:.1f} s",
        f"{seen.shift:.1f} s",
        f"{seen.later / seen.shift:.1f}",
        f"{seen.weights / (seen.rollout + seen.shift):.1f}",
        f"{seen.requests / seen.weights:.1f}",
        f"{further:.1f}",
        f"{1000 * seen.server / seen.weights:.0f} ms",
        f"{1000 * seen.own / seen.weights:.0f} ms",
    )


def _one(folder: Path, peer: Peer, number: int, weights: Sequence[int]) -> _Seen:
    print_progress(f"{number} at once in one namespace, {len(weights)} weights each: {peer.name}")
    with control_plane(folder) as cluster, peer.running(cluster, folder) as process:
        cluster.control_plane.make_namespace("crowd")
        crowd = Crowd(cluster, "crowd", number)
        crowd.make(without=peer.replaced)
        peer.prepare(crowd)
        until("all old pods are ready", lambda: _ready(cluster) >= number, deadline=600)
        watcher = Watcher(crowd)
        server = cluster.control_plane.processes["kube-apiserver"].pid
        mark, before = cluster.audit.mark(), (_cpu(server), _cpu(process.pid))
        begun = time.time()
        peer.go(crowd, weights)
        watcher.until_over(deadline=1800)
        until("nothing is done any more", lambda: _quiet(cluster, peer, mark), deadline=300)
        after = _cpu(server), _cpu(process.pid)
        asked = cluster.audit.since(mark, user=peer.user)
        asked = [one for one in asked if one.resource != "leases"]
        if os.environ.get("SHOW"):
            for what, times in Counter((one.verb, one.resource, one.subresource) for one in asked).most_common(30):
                print_progress(f"{times / number:7.2f} a plan: {' '.join(what)}")
        written = watcher.written()
        assert len(written) == number * len(weights), f"{len(written)} weights were seen"
        seen = _Seen(
            weights=len(written),
            later=sum(at > watcher.available for at in written),
            rollout=watcher.available - begun,
            shift=written[-1] - watcher.available,
            requests=len(asked),
            server=after[0] - before[0],
            own=after[1] - before[1],
        )
        print_progress(str(seen))
        return seen


def _ready(cluster: Cluster) -> int:
    pods = cluster.api.list("/api/v1/namespaces/crowd/pods")
    return sum(
        any(one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions") or ())
        for pod in pods
    )


def _quiet(cluster: Cluster, peer: Peer, mark: int) -> bool:
    """Whether it has asked for nothing in the last three seconds."""
    before = len(cluster.audit.since(mark, user=peer.user))
    time.sleep(3)
    return len(cluster.audit.since(mark, user=peer.user)) <= before + 2  # its Lease


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
