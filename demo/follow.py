"""Tells Prometheus where the pods of the shop are, as service discovery would. A process, so that it can outlive the demo.

``python follow.py URL CA NAMESPACE FOLDER``: of the API server and of Prometheus; the token stands in HARNESS_TOKEN.
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
    """For ever. Trouble is said once, and the pods known last stay."""
    known: list[str] | None = None
    trouble = ""
    while True:
        try:
            entries = api.list(f"/apis/networking.istio.io/v1/namespaces/{namespace}/workloadentries")
            addresses = sorted(f"{entry['spec']['address']}:8080" for entry in entries)
            if addresses != known:
                known = addresses
                prometheus.scrape("shop", *known)
            trouble = ""
        except (ApiError, OSError, HTTPException) as error:
            if str(error) != trouble:
                trouble = str(error)
                print(f"cannot follow the pods: {trouble}", flush=True)  # noqa: T201 -- its log
        time.sleep(EVERY)


if __name__ == "__main__":
    url, ca, namespace, folder = sys.argv[1:]
    follow(Api(url, Path(ca), os.environ.pop("HARNESS_TOKEN")), namespace, Prometheus(Path(folder)))
