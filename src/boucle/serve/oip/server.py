"""The server: REST on connections of our own, gRPC by grpc.aio, both in one event loop of a thread of its own."""

import asyncio
import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError, Unavailable
from boucle.serve.oip.answering import Answering
from boucle.serve.oip.http import Connections

__all__ = ["ModelServer"]

log = logging.getLogger("boucle.serve.oip.server")

GRACE_S = 5.0
STARTS_WITHIN_S = 30.0
_BACKLOG = 1024


class ModelServer:
    """Serves until `stop`: no new requests then, those that were begun are answered, predictions are written.

    `http` and `grpc` are (host, port), port 0 for a free one; None leaves a wire out. `certificate` are the files of
    a certificate chain and its key: both wires then speak TLS. B678 when a port is taken.
    """

    def __init__(
        self,
        answering: Answering,
        *,
        http: tuple[str, int] | None = ("127.0.0.1", 8000),
        grpc: tuple[str, int] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._answering = answering
        self._socket = None if http is None else _bound(*http)
        self.http = None if http is None or self._socket is None else (http[0], self._socket.getsockname()[1])
        """Where REST is, once the server was made."""
        self.grpc = None if grpc is None else _free(*grpc)
        self._certificate = certificate
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._end: asyncio.Event | None = None
        self._failure: Exception | None = None

    @property
    def url(self) -> str:
        """Of REST."""
        assert self.http is not None
        return f"{'https' if self._certificate else 'http'}://{self.http[0]}:{self.http[1]}"

    def start(self) -> None:
        """Return once both wires answer."""
        self._answering.start()
        self._thread = threading.Thread(target=self._run, name="boucle-model-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(STARTS_WITHIN_S) or self._failure is not None or not self._thread.is_alive():
            self.stop()
            if isinstance(self._failure, BoucleError):
                raise self._failure
            raise Unavailable("B679", "the model server did not start", why=str(self._failure or "in time"))

    def stop(self) -> None:
        """End in order. Safe to call twice."""
        if self._loop is not None and self._end is not None and self._thread is not None:
            try:
                self._loop.call_soon_threadsafe(self._end.set)
            except RuntimeError:
                log.debug("the loop had ended")
            self._thread.join(GRACE_S * 3)
        self._thread = None
        if self._socket is not None:
            self._socket.close()
        self._answering.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except (BoucleError, OSError, RuntimeError, ValueError) as error:  # told to whoever waits in start()
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        connections = Connections(self._answering)
        rest = None
        if self._socket is not None:
            context = None if self._certificate is None else _tls(*self._certificate)
            rest = await self._loop.create_server(
                connections, sock=self._socket, backlog=_BACKLOG, ssl=context
            )
        rpc = None if self.grpc is None else await self._start_grpc()
        watch = asyncio.create_task(connections.watch())
        self._ready.set()
        await self._end.wait()
        if rest is not None:
            rest.close()
        await asyncio.gather(connections.end(GRACE_S), *([rpc.stop(GRACE_S)] if rpc is not None else []))
        watch.cancel()

    async def _start_grpc(self) -> Any:
        from boucle.serve.oip.rpc import Rpc

        handler = Rpc(self._answering).handler()
        import grpc

        assert self.grpc is not None
        most = self._answering.limits.body
        options = [("grpc.max_receive_message_length", most), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=[*options, ("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((handler,))
        where = _written(*self.grpc)
        if self._certificate is None:
            server.add_insecure_port(where)
        else:
            chain, key = (one.read_bytes() for one in self._certificate)
            server.add_secure_port(where, grpc.ssl_server_credentials([(key, chain)]))
        await server.start()
        return server


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address, port 0 for a free one; B678 when it is taken."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise BoucleError(
            "B678",
            f"the model server cannot listen on {host}:{port}",
            why=error.strerror or str(error),
            fix="give another port, or end what listens there",
        ) from error
    return made


def _free(host: str, port: int) -> tuple[str, int]:
    """The address with a port that nobody listens on: grpc binds for itself."""
    with _bound(host, port) as probe:
        return host, int(probe.getsockname()[1])


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
