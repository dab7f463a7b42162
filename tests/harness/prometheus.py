"""A real Prometheus that scrapes every second what it is told to."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from harness import tools
from harness.process import Process, free_ports, until


class Prometheus:
    """One server.

    Args:
        folder: for its data and configuration.
        detached: it outlives us.
        address: that it listens on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        detached: bool = False,
        report: Callable[[str], None] = print,
        address: str = "127.0.0.1",
    ) -> None:
        self.folder, self._detached, self._report, self._address = folder, detached, report, address
        self._port = free_ports(1)[0]
        self.process: Process | None = None
        self._pid = 0

    def attach(self, url: str, pid: int) -> None:
        """Use one that runs already."""
        self._port, self._pid = int(url.rpartition(":")[2]), pid

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._port}"

    @property
    def providers(self) -> dict[str, Any]:
        """What plans of tests may name: this one, this one with little patience, and one that is down."""
        return {
            "default": {"prometheus": {"url": self.url}},
            "hasty": {"prometheus": {"url": self.url, "timeout": 0.5}},
            "down": {"prometheus": {"url": f"http://127.0.0.1:{free_ports(1)[0]}"}},
        }

    def signal(self, number: int) -> None:
        """Stop it for a while, or let it go on (SIGSTOP, SIGCONT)."""
        os.kill(self.process.pid if self.process else self._pid, number)

    def start(self) -> None:
        (self.folder / "targets").mkdir(parents=True, exist_ok=True)
        files = {"files": [str(self.folder / "targets" / "*.json")], "refresh_interval": "1s"}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "files", "file_sd_configs": [files]}],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = Process(
            "prometheus",
            [
                str(tools.locate("prometheus", self._report)),
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                "--storage.tsdb.retention.time=1h",
                f"--web.listen-address={self._address}:{self._port}",
                "--log.level=warn",
            ],
            log=self.folder / "prometheus.log",
            cwd=self.folder,
            detached=self._detached,
        )
        self.process.start()
        until("Prometheus is ready", self._ready, process=self.process)

    def _ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def scrape(self, job: str, *addresses: str, path: str = "/metrics") -> None:
        """Replace the targets of a job."""
        labels = {"job": job, "__metrics_path__": path}
        targets = [{"targets": list(addresses), "labels": labels}] if addresses else []
        fresh = self.folder / "targets" / f"{job}.new"
        fresh.write_text(json.dumps(targets))
        fresh.rename(fresh.with_suffix(".json"))

    def query(self, expression: str) -> list[Any]:
        """The result of an instant query."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
        return result

    def wait_up(self, job: str, count: int, deadline: float = 15.0) -> None:
        """Until so many targets of a job have been scraped."""
        until(
            f"{count} targets of job {job} are up",
            lambda: len(self.query(f'up{{job="{job}"}} == 1')) >= count,
            deadline=deadline,
        )
