"""A real server of JSON for the gate `http`: answers below /status with what a test sets, to who brings the token of now."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from support.fakes.http_server import HttpServer, RequestHandler


class JsonServer(HttpServer):
    """Serves until it is closed.

    Attributes:
        document: what /status answers.
        answers: to requests with the token of now, and to others.
    """

    def __init__(self, token: Path) -> None:
        self.document: Any = {"errors": 0.0}
        self.token, self.answers = token, {True: 0, False: 0}
        self.release = threading.Event()
        self.rotate("first")
        page = self

        class Handler(RequestHandler):
            def do_GET(self) -> None:
                known = self.headers.get("Authorization") == f"Bearer {page.expected}"
                page.answers[known] += 1
                code, body = page.answer(self.path.partition("?")[0]) if known else (401, b"who are you, s3cret?")
                self.reply(body, code, Location="http://127.0.0.1:9/s3cret")

        super().__init__(Handler)
        self.url = f"http://127.0.0.1:{self.port}"

    def rotate(self, token: str) -> None:
        """From now on another token is the right one, and stands in the file."""
        self.expected = f"s3cret-{token}"
        self.token.write_text(f"{self.expected}\n")

    def answer(self, path: str) -> tuple[int, bytes]:
        """Code and body. `/slow` answers when the page is closed."""
        if path == "/slow":
            self.release.wait(60)
        bodies = {"/html": b"<p>s3cret</p>", "/large": b'"' + b"s3cret" * 2000 + b'"'}
        codes = {"/moved": 302, "/broken": 500}
        return codes.get(path, 200), bodies.get(path) or json.dumps(self.document).encode()

    def close(self) -> None:
        self.release.set()
        super().close()
