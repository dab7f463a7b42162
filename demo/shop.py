"""The shop: a small web service whose version is its image tag. Version 3 answers a third of its requests with 500.

Serves /, /healthz and /metrics on POD_IP:8080, as a container of the process node.
"""

from __future__ import annotations

import os
import random

from aiohttp import web

APP = os.environ.get("APP", "shop")
VERSION = os.environ.get("CONTAINER_IMAGE", "shop:0").rpartition(":")[2]
FAILING = {"3": 0.33}.get(VERSION, 0.0)
counts: dict[str, int] = {"200": 0, "500": 0}


async def answer(_: web.Request) -> web.Response:
    code = "500" if random.random() < FAILING else "200"  # noqa: S311 -- a fault, not a secret
    counts[code] += 1
    headers = {"X-Version": VERSION, "X-App": APP}
    return web.Response(status=int(code), text=f"shop version {VERSION}\n", headers=headers)


async def health(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def metrics(_: web.Request) -> web.Response:
    lines = ["# TYPE http_requests_total counter"]
    lines += [
        f'http_requests_total{{app="{APP}",version="{VERSION}",code="{code}"}} {count}'
        for code, count in counts.items()
    ]
    return web.Response(text="\n".join(lines) + "\n")


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/", answer), web.get("/healthz", health), web.get("/metrics", metrics)])
    web.run_app(app, host=os.environ["POD_IP"], port=8080, access_log=None, print=None)
