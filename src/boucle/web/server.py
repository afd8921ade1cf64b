"""The page's web server: uvicorn in a thread of this process, started and stopped by its owner.

It takes no signals: whoever runs the loop decides when it ends.
"""

import logging
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from boucle.errors import BoucleError, Unavailable

__all__ = ["PageServer", "serve"]

log = logging.getLogger("boucle.web.server")

GRACE_S = 2
STARTS_WITHIN_S = 15.0


class PageServer:
    """A web server in a thread. `start` returns once the port answers; `stop` once it is closed.

    Port 0 takes a free one; `port` and `url` then say which. B806 when the port is taken.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 8080,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.host, self.port, self._certificate = host, port, certificate
        self._app = app
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        return f"{'https' if self._certificate else 'http'}://{name}:{self.port}/"

    def start(self) -> None:
        """Bind, start the thread, wait until requests are answered."""
        listener = bind(self.host, self.port)
        self.port = int(listener.getsockname()[1])
        certificate, key = self._certificate or (None, None)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                ssl_certfile=certificate,
                ssl_keyfile=key,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listener, ready), name="boucle-web", daemon=True
        )
        self._thread.start()
        waited = 0.0
        while not self._server.started and not ready.wait(0.02) and waited < STARTS_WITHIN_S:
            waited += 0.02
        if not self._server.started:
            raise Unavailable("B807", "the page did not start", fix="see the log above; try another --port")
        log.info("the page is at %s", self.url)

    @staticmethod
    def _run(server: uvicorn.Server, listener: socket.socket, ended: threading.Event) -> None:
        try:
            server.run(sockets=[listener])
        finally:
            listener.close()
            ended.set()

    def stop(self) -> None:
        """Close every connection and the port. Safe to call twice."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(GRACE_S + 3)
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, or B806 with the way out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio only turns Nagle off (40 ms a page) when it is told that this is TCP
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BoucleError(
            "B806",
            f"the page cannot listen on {host}:{port}",
            why=error.strerror or str(error),
            fix="choose another with --port, or --port 0 for a free one",
        ) from error
    return listener


def serve(
    app: ASGIApp, host: str = "127.0.0.1", port: int = 8080, certificate: tuple[Path, Path] | None = None
) -> PageServer:
    """Start the page and give the running server; `stop()` or `with` ends it. `certificate`: two PEM files, for TLS."""
    server = PageServer(app, host, port, certificate)
    server.start()
    return server
