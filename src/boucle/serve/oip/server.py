"""The server: granian carries REST, grpc.aio carries gRPC, both in one event loop of a thread of its own."""

import asyncio
import logging
import socket
import threading
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError, MissingExtra, Unavailable
from boucle.serve.oip.answering import Answering
from boucle.serve.oip.refusal import TooLarge
from boucle.serve.oip.rest import Rest

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
        self.http = None if http is None else _free(*http)
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
        carried: asyncio.Task[None] | None = None
        rest = None if self.http is None else _granian(self._answering, self.http, self._certificate)
        rpc = None if self.grpc is None else await self._start_grpc()
        if rest is not None:
            carried = asyncio.create_task(rest.serve())
            await _answers(self.http, carried)
        self._ready.set()
        watch = asyncio.create_task(self._answering.watch())
        waits = asyncio.create_task(self._end.wait())
        await asyncio.wait([waits, *([carried] if carried else [])], return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
        if rpc is not None:
            await rpc.stop(GRACE_S)
        if rest is not None and carried is not None:
            rest.stop()
            _, left = await asyncio.wait([carried], timeout=GRACE_S)
            if left:
                log.warning("a request was not answered within %g s of the end", GRACE_S)

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


def _granian(answering: Answering, where: tuple[str, int], certificate: tuple[Path, Path] | None) -> Any:
    try:
        from granian.constants import HTTPModes, Interfaces
        from granian.server.embed import Server
    except ModuleNotFoundError as error:
        raise MissingExtra("the model server", "granian", "serving") from error

    return Server(
        _application(Rest(answering)),
        address=where[0],
        port=where[1],
        interface=Interfaces.RSGI,
        http=HTTPModes.auto,
        websockets=False,
        log_enabled=False,
        backlog=_BACKLOG,
        backpressure=answering.limits.waiting
        + _BACKLOG,  # we refuse, with a reason, before granian lets wait
        ssl_cert=certificate[0] if certificate else None,
        ssl_key=certificate[1] if certificate else None,
    )


def _application(rest: Rest) -> Any:
    """The callable granian asks, in its own interface: one call for a request, one for the answer."""

    async def application(scope: Any, protocol: Any) -> None:
        headers = scope.headers

        async def read(most: int) -> bytes:
            told = headers.get("content-length")
            if told is not None and told.isdigit():
                if int(told) > most:
                    raise TooLarge(most)
                return bytes(await protocol())
            parts, size = [], 0
            async for part in protocol:
                size += len(part)
                if size > most:
                    raise TooLarge(most)
                parts.append(part)
            return b"".join(parts)

        reply = await rest.reply(scope.method, scope.path, headers, read)
        protocol.response_bytes(reply.status, reply.headers, reply.body)

    return application


async def _answers(where: tuple[str, int] | None, carried: "asyncio.Task[None]") -> None:
    """Return once somebody listens there."""
    assert where is not None
    while not carried.done():
        try:
            _, writer = await asyncio.open_connection(*where)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
    await carried


def _free(host: str, port: int) -> tuple[str, int]:
    """The address with a port that nobody listens on; B678 when it is taken. Both carriers bind for themselves."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BoucleError(
                "B678",
                f"the model server cannot listen on {host}:{port}",
                why=error.strerror or str(error),
                fix="give another port, or end what listens there",
            ) from error
        return host, int(probe.getsockname()[1])


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
