"""The ports in memory, for tests and for trying a plan out. Nothing that runs in the operator imports this."""

from cutover.testing.cluster import Crash, CrashSwitch, MemoryCluster
from cutover.testing.playing import NODES, roll_out, run_jobs
from cutover.testing.ports import MemoryClock, MemoryMetrics, MemoryRecorder, Spawner

__all__ = [
    "NODES",
    "Crash",
    "CrashSwitch",
    "MemoryClock",
    "MemoryCluster",
    "MemoryMetrics",
    "MemoryRecorder",
    "Spawner",
    "roll_out",
    "run_jobs",
]
