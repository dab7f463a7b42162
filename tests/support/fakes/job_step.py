"""A step that runs a Job, alone: without an engine and without a plan around it."""

from __future__ import annotations

from typing import Any

import yaml

from cutover.ports import JOBS, PLANS, Ref
from cutover.saga.turn import Again, Outcome
from cutover.steps.job import Job
from cutover.steps.kind import StepContext
from cutover.targets.claims import Owner
from cutover.targets.targets import Targets
from cutover.testing import MemoryCluster, MemoryMessenger, run_jobs
from support.fakes.shop import PLAN, shop


class Bench:
    """One step, whose command is carried out again and again as the driver does it: what is to be saved is saved in between."""

    def __init__(self, text: str, cluster: MemoryCluster | None = None, kind: Any = None) -> None:
        self.kind: Any = kind or Job.model_validate(yaml.safe_load(text))
        self.cluster = cluster or MemoryCluster()
        if cluster is None:
            shop(self.cluster)
        self.made, self.fence, self.undo_attempt = "", 1, 1

    def work(self, elapsed: float = 0.0, *, fence: int = 0, applied: bool = False) -> StepContext:
        """What a process has that saved the plan last; with another `fence` one that slept since."""
        body = {"metadata": {"name": PLAN.name, "uid": "uid-a"}, "spec": {}}
        self.cluster.put(PLANS, body | {"status": {"phase": "Running", "run": {"number": 1, "fence": self.fence}}})
        targets = Targets(self.cluster, Owner(PLAN, "uid-a", 1, fence or self.fence, "migrator"), "schema")
        now = self.cluster.clock.now()
        return StepContext(
            self.cluster,
            targets,
            "shop",
            "steps[schema]",
            now,
            elapsed=elapsed,
            applied=applied,
            made=self.made,
            undo_attempt=self.undo_attempt,
            messenger=MemoryMessenger(),
        )

    async def do(self, **work: Any) -> Outcome:
        """One call."""
        return self._saved(await self.kind.do(self.work(**work), 0))

    async def undo(self, **work: Any) -> Outcome:
        return self._saved(await self.kind.undo(self.work(**work)))

    def _saved(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Again) and outcome.made:
            self.made = outcome.made
        return outcome

    async def to_the_end(self, verb: str) -> Outcome:
        """Call after call while the Job controller works, until the command has an outcome, or nothing moves any more."""
        for _ in range(20):
            outcome: Outcome = await getattr(self, verb)()
            if not isinstance(outcome, Again):
                return outcome
            if not run_jobs(self.cluster) and outcome.after != 0.0:
                return outcome
        raise AssertionError(outcome)

    async def back(self) -> Outcome:
        """The fence rises before an undo."""
        self.fence += 1
        return await self.to_the_end("undo")

    async def back_again(self) -> Outcome:
        """On request: another attempt of the undo, counted in the save that raises the fence."""
        self.undo_attempt += 1
        return await self.back()

    def jobs(self) -> list[Any]:
        return [body for ref, body in self.cluster.objects.items() if ref.resource == JOBS]

    def undo_jobs(self) -> list[Any]:
        """In the order of their creation."""
        return [job for job in self.jobs() if "-undo-" in job["metadata"]["name"]]

    def job(self, *, undo: bool = False) -> Any:
        return next(job for job in self.jobs() if ("-undo-" in job["metadata"]["name"]) is undo)

    def ref(self, *, undo: bool = False) -> Ref:
        return Ref(JOBS, "shop", self.job(undo=undo)["metadata"]["name"])

    def writes(self) -> int:
        return len(self.cluster.writes)
