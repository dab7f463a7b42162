"""A real HTTP server on 127.0.0.1 for a test: a subclass answers its requests."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RequestHandler(BaseHTTPRequestHandler):
    """Requests that nobody logs; `reply` answers one."""

    # Otherwise an answer goes out as two packets, and the second one waits 40 ms for the first to be acknowledged.
    disable_nagle_algorithm = True

    def reply(self, body: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class HttpServer:
    """Serves until it is closed.

    Attributes:
        port: where.
    """

    def __init__(self, handler: type[RequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
