"""A steady load through the gateway: a fixed number of requests per second, regardless of the answers. One line per request in a file.

A line has: time sent (Unix seconds), seconds taken, status (0: none), version. ``python load.py URL HOST RATE FILE``
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TextIO

import aiohttp


async def one(session: aiohttp.ClientSession, url: str, host: str, out: TextIO) -> None:
    sent = time.time()
    status, version = 0, "-"
    try:
        async with session.get(url, headers={"Host": host}) as response:
            await response.read()
            status, version = response.status, response.headers.get("X-Version", "-")
    except (aiohttp.ClientError, TimeoutError):
        pass
    out.write(f"{sent:.6f} {time.time() - sent:.6f} {status} {version}\n")


async def main(url: str, host: str, rate: float, file: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=10)
    connector = aiohttp.TCPConnector(limit=0)
    running: set[asyncio.Task[None]] = set()
    with file.open("w", buffering=1) as out:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            started, number = time.monotonic(), 0
            while True:
                number += 1
                task = asyncio.create_task(one(session, url, host, out))
                running.add(task)
                task.add_done_callback(running.discard)
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4])))
    except KeyboardInterrupt:
        sys.exit(0)
