"""A container of the process node that answers with the flags it was started with, and for a while after it was told to end.

Started with USE_NEW_SCHEMA=unready it never gets ready.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_KNOWN = ("USE_NEW_SCHEMA", "DUAL_WRITE")
_DRAIN = 1.0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({name: os.environ.get(name) for name in _KNOWN}).encode()
        unready = self.path == "/ready" and os.environ.get("USE_NEW_SCHEMA") == "unready"
        self.send_response(503 if unready else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer((os.environ["POD_IP"], 8091), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Timer(_DRAIN, server.shutdown).start())
    server.serve_forever()
