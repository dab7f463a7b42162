"""A real receiver of messages on 127.0.0.1: takes what apprise posts to a json:// URL, refuses it, or never answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.process import free_ports
from support.fakes.http_server import HttpServer, RequestHandler


class Receiver(HttpServer):
    """One receiver.

    Attributes:
        code: what it answers; 0 is nothing, as long as it runs.
        elsewhere: where it sends those who ask, with a code that does so.
        came: titles and texts of what was posted, in order, those that were not taken included.
    """

    def __init__(self) -> None:
        self.code, self.came = 200, list[tuple[str, str]]()
        self.elsewhere = ""
        self._over = threading.Event()
        receiver = self

        class Handler(RequestHandler):
            def do_POST(self) -> None:
                body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.came.append((body["title"], body["message"]))
                if not receiver.code:
                    receiver._over.wait()
                    return
                self.reply(b"", receiver.code, **({"Location": receiver.elsewhere} if receiver.elsewhere else {}))

        super().__init__(Handler)
        self.url = f"json://user:s3cret@127.0.0.1:{self.port}/hook?rto=2&cto=2"

    def of(self, plan: str) -> list[str]:
        """What came about a plan, without its name."""
        lead = f"MigrationPlan {plan}: "
        return [title.removeprefix(lead) for title, _ in list(self.came) if title.startswith(lead)]

    def close(self) -> None:
        self._over.set()
        super().close()


@contextmanager
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    try:
        yield made
    finally:
        made.close()


def nobody() -> str:
    """The URL of a port where nothing listens."""
    return f"json://127.0.0.1:{free_ports(1)[0]}/"


def written(file: Path, *urls: str) -> Path:
    """A file of URLs, as a mounted Secret."""
    file.write_text("# who is told\n\n" + "\n".join(urls) + "\n")
    return file
