"""A steady load through the gateway: a fixed number of requests per second, regardless of the answers. One line per request in a file.

A line has: time sent (Unix seconds), seconds taken, status (0: none), version. ``python load.py URL HOST RATE FILE [CLIENTS]``:
so many clients, each with connections of its own, take turns. Ended by SIGTERM, it waits for the answers that are due.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
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


async def main(url: str, host: str, rate: float, file: Path, clients: int = 1) -> None:
    timeout = aiohttp.ClientTimeout(total=10)
    running: set[asyncio.Task[None]] = set()
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    async with contextlib.AsyncExitStack() as stack:
        out = stack.enter_context(file.open("w", buffering=1))
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
            )
            for _ in range(clients)
        ]
        started = time.monotonic()
        for number, session in enumerate(itertools.cycle(sessions), 1):
            if ending.is_set():
                break
            task = asyncio.create_task(one(session, url, host, out))
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        await asyncio.gather(*running)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]), *map(int, sys.argv[5:])))
    except KeyboardInterrupt:
        sys.exit(0)
