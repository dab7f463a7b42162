"""The ports in memory, for tests and for simulating a plan. Nothing that runs in the operator imports this."""

from cutover.testing.cluster import MemoryCluster
from cutover.testing.controllers import NODES, name_endpoints, pod, react, roll_out, run_jobs, run_pods
from cutover.testing.crash import Crash, CrashSwitch
from cutover.testing.ports import MemoryClock, MemoryMessenger, MemoryMetrics, MemoryRecorder, Spawner

__all__ = [
    "NODES",
    "Crash",
    "CrashSwitch",
    "MemoryClock",
    "MemoryCluster",
    "MemoryMessenger",
    "MemoryMetrics",
    "MemoryRecorder",
    "Spawner",
    "name_endpoints",
    "pod",
    "react",
    "roll_out",
    "run_jobs",
    "run_pods",
]
