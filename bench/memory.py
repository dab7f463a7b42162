"""Memory by the number of plans, and how soon an operator with many plans begins to work."""

from __future__ import annotations

import time
from pathlib import Path

from environment import table
from shops import Shops, side_by_side

from cutover.plan.parsing import hash_of, parse
from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from harness.tools import print_progress
from support.cluster.shop import Operator, Shop

RUN = (0, 100, 500, 1000)
"""Plans that were carried out by the process that is measured."""
MANY = 5000
"""Plans that are there when a process starts: those that were run, and copies of one of them."""


def measure(cluster: Cluster, operator: Operator) -> str:
    """The table."""
    rows, made = [], 0
    for number in RUN:
        print_progress(f"memory with {number} plans")
        if number > made:
            crowd = Shops(cluster, f"size-{number}", number - made)
            crowd.make()
            crowd.migrate(deadline=900)
            made = number
        rows.append((f"{number} plans carried out", *_memory(operator), ""))
    print_progress(f"{MANY - made} more plans")
    operator.stop()
    _copies(cluster, MANY - made)
    shop = Shop(cluster.api, crowd.names[0])
    shop.apply("steps: [{name: tick, wait: {for: 10ms}}]", "first")
    begun = time.monotonic()
    operator.start()
    shop.until_phase(Phase.SUCCEEDED, "first", deadline=120)
    taken = time.monotonic() - begun
    until("the queue is empty", lambda: "cutover_queue_depth 0.0" in operator.ask("/metrics"), deadline=120)
    rows.append((f"{MANY} plans there at the start", *_memory(operator), f"{taken:.1f} s"))
    return table(("", "memory", "most so far", "start of the process → a new plan is done"), rows)


def _memory(operator: Operator) -> tuple[str, str]:
    """Resident memory now, and the most it was (proc(5): VmRSS, VmHWM)."""
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "VmHWM")))
    now, most = (int(found[name].split()[0]) / 1000 for name in ("VmRSS", "VmHWM"))
    return f"{now:.0f} MB", f"{most:.0f} MB"


def _copies(cluster: Cluster, number: int) -> None:
    """Plans that have ended as a real one has; nobody runs."""
    api = cluster.api
    real = api.list("/apis/cutover.dev/v1alpha1/migrationplans")[0]
    namespace = "copies"
    cluster.control_plane.make_namespace(namespace)
    path = f"/apis/cutover.dev/v1alpha1/namespaces/{namespace}/migrationplans"
    body = {name: real[name] for name in ("apiVersion", "kind", "spec")}

    def one(name: str) -> None:
        api.create(path, body | {"metadata": {"name": name, "namespace": namespace}})
        run = real["status"]["run"] | {"specHash": hash_of(name, real["spec"], parse(real["spec"]))}
        api.patch(f"{path}/{name}/status", {"status": real["status"] | {"run": run}})

    side_by_side(one, [f"copy-{at}" for at in range(number)])
