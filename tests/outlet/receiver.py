"""A receiver of webhooks on a free port, that answers what it is told to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec


class Receiver:
    """What came, in order; `answers` gives a status for an event, 204 without."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.answers: dict[str, list[int]] = {}
        self.calls = 0
        self.busy = False
        self.url = ""

    def answer(self, event: dict[str, Any], heads: dict[str, str]) -> int:
        self.calls += 1
        if self.busy:
            return 503
        waiting = self.answers.get(event["id"], [])
        status = waiting.pop(0) if waiting else 204
        if status < 300:
            self.taken.append(event)
            self.heads.append(heads)
        return status


@contextmanager
def receiver() -> Iterator[Receiver]:
    """It listens until the end of the block."""
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = told.answer(msgspec.json.decode(body), dict(self.headers.items()))
            self.send_response(status)
            if status == 503:
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}/hook?of=press"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
