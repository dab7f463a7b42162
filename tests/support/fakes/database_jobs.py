"""The runner as the pod of a Job, on a database in memory: what it is handed, and what it leaves, are what they are in a cluster."""

from __future__ import annotations

from typing import Any

from cutover.database.outcome import ConnectionBroken, Ended
from cutover.database.reporting import Reporter
from cutover.database.run import carry_out
from cutover.database.works.transactions import Clock
from cutover.runner_messages.payload import Payload, read_payload
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result
from cutover.testing import MemoryCluster
from support.database.double import Double
from support.fakes.shop import exits, shop


class DatabaseJobs:
    """The database, and the kubelet that starts runners on it.

    Attributes:
        payloads: what each pod was handed.
        fails: how the next pods end, before they have done anything.
        hangs: pods do not end.
    """

    def __init__(self, cluster: MemoryCluster, rows: int = 0) -> None:
        self.server = Double(rows)
        self.payloads: list[Payload] = []
        self.fails: list[Result] = []
        self.hangs = False
        self._told = ""
        cluster.exits, cluster.messages = self.exits, self.message

    def exits(self, pod: Any) -> int | None:
        """The runner's exit code; that of other Jobs is in the tag of their image."""
        (container,) = pod["containers"]
        self._told = ""
        if container["name"] != "runner":
            return exits(pod)
        if self.hangs:
            return None
        variables = {one["name"]: one.get("value", "") for one in container["env"]}
        payload = read_payload(variables["CUTOVER_PAYLOAD"])
        self.payloads.append(payload)
        result = self.fails.pop(0) if self.fails else self._run(payload)
        self._told = result.encode()
        return int(result.reason.code)

    def message(self, pod: Any) -> str:
        del pod
        return self._told

    def _run(self, payload: Payload) -> Result:
        clock = Clock(sleep=lambda _: None)
        try:
            return carry_out(payload, self.server, self.server.connect(), Reporter(), clock)
        except (Ended, ConnectionBroken) as ended:
            return ended.result

    @property
    def applied(self) -> list[str]:
        """The statements that were committed, in their order."""
        return self.server.state.applied

    @property
    def rows(self) -> list[int]:
        """The column `n` of the table."""
        return [row["n"] for row in self.server.state.rows.values()]


def database_of(cluster: MemoryCluster) -> DatabaseJobs | None:
    """That of a shop with one."""
    owner = getattr(cluster.exits, "__self__", None)
    return owner if isinstance(owner, DatabaseJobs) else None


def shop_with_a_database(cluster: MemoryCluster) -> None:
    """The shop, and a table of ten rows."""
    shop(cluster)
    DatabaseJobs(cluster, rows=10)


GONE = Result(RunnerReason.CONNECTION_REFUSED)
