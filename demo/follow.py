"""Keeps the scrape targets of Prometheus in step with the pods of the shop, as service discovery would. A process of its own, so that it can outlive the demo.

``python follow.py URL CA NAMESPACE FOLDER``: URL and CA of the API server, folder of Prometheus; the token is in HARNESS_TOKEN.
"""

from __future__ import annotations

import os
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import NoReturn

from harness.api import Api, ApiError
from harness.cluster import Cluster
from harness.process import Process
from harness.prometheus import Prometheus

EVERY = 0.2


def process(cluster: Cluster, namespace: str, log: Path, *, detached: bool = False) -> Process:
    """The process for a cluster, not yet started."""
    plane = cluster.control_plane
    where = [plane.url, str(plane.ca), namespace, str(cluster.prometheus.folder)]
    env = {"HARNESS_TOKEN": plane.admin_token, "PYTHONPATH": os.pathsep.join(sys.path)}
    return Process("follow", [sys.executable, __file__, *where], log=log, env=env, detached=detached)


def follow(api: Api, namespace: str, prometheus: Prometheus) -> NoReturn:
    """Run forever. A problem is logged once, and the pods known last are kept."""
    known: list[str] | None = None
    problem = ""
    while True:
        try:
            entries = api.list(f"/apis/networking.istio.io/v1/namespaces/{namespace}/workloadentries")
            addresses = sorted(f"{entry['spec']['address']}:8080" for entry in entries)
            if addresses != known:
                known = addresses
                prometheus.scrape("shop", *known)
            problem = ""
        except (ApiError, OSError, HTTPException) as error:
            if str(error) != problem:
                problem = str(error)
                print(f"cannot follow the pods: {problem}", flush=True)  # noqa: T201 -- its log
        time.sleep(EVERY)


if __name__ == "__main__":
    url, ca, namespace, folder = sys.argv[1:]
    follow(Api(url, Path(ca), os.environ.pop("HARNESS_TOKEN")), namespace, Prometheus(Path(folder)))
