"""A stand-in for Prometheus, whose answer the bench chooses and whose moments it knows."""

from __future__ import annotations

import json
import time

from support.fakes.http_server import HttpServer, RequestHandler


class PrometheusStub(HttpServer):
    """A stand-in for Prometheus that answers with one number and remembers when it first gave a bad one."""

    def __init__(self) -> None:
        self.bad = False
        self.said_bad: float | None = None
        answers = self

        class Handler(RequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                value = "0.9" if answers.bad else "0.1"
                result = [{"metric": {}, "value": [time.time(), value]}]
                body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
                self.reply(body)
                if answers.bad and answers.said_bad is None:
                    answers.said_bad = time.time()

        super().__init__(Handler)
        self.url = f"http://127.0.0.1:{self.port}"
