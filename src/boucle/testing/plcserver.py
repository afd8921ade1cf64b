"""The PLC of the simulated line as an OPC UA server (asyncua), on this machine only.

Namespace `urn:boucle:press-line`, a folder per machine, string node ids: `press-1.speed_setpoint`. Writes
are refused by status code, so any OPC UA client sees why (`boucle.testing.plc` lists which).

**asyncua accepts any client and any certificate by default.** The server therefore binds 127.0.0.1 only,
without security; it is a simulator, not a gateway to a plant.

Source timestamps are those of the line's event time; OPC UA carries them to 100 ns, asyncua to 1 µs.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from asyncua import Server, ua
from asyncua.server.address_space import AddressSpace, AttributeService
from asyncua.server.user_managers import User

from boucle.clock import Nanos
from boucle.errors import Unavailable
from boucle.testing.plc import SIGNALS, PlcLogic, Tag

__all__ = ["NAMESPACE", "PlcServer", "free_port"]

NAMESPACE = "urn:boucle:press-line"

_LOG = logging.getLogger("boucle.testing.plcserver")
_VARIANTS = {float: ua.VariantType.Double, bool: ua.VariantType.Boolean, str: ua.VariantType.String}


def free_port() -> int:
    """A port nobody listens on now, on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_free(port: int) -> None:
    """OSError when the port is taken; asyncua would find out after seconds of preparation."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


class PlcServer:
    """Serves a PlcLogic; `address` is where. Stop and start again keep port and values.

    Runs in a thread of its own. Unavailable when the port is taken.
    """

    def __init__(self, logic: PlcLogic, port: int = 0) -> None:
        self.logic = logic
        self.port = port or free_port()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: Server | None = None
        self._index = 0
        self._listening = False

    @property
    def address(self) -> str:
        """host:port/path, as `{plc}` of a boucle.toml wants it."""
        return f"127.0.0.1:{self.port}/boucle"

    @property
    def url(self) -> str:
        """The endpoint for an OPC UA client."""
        return f"opc.tcp://{self.address}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Serve, for the first time or again after `stop`; returns once clients can connect."""
        if self._listening:
            return
        if self._thread is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="plc", daemon=True)
            self._thread.start()
        try:
            self._call(self._serve())
        except OSError as error:
            self.close()
            raise Unavailable(
                "B130",
                f"the PLC cannot listen on port {self.port}",
                why=str(error),
                fix="choose another port",
            ) from error
        self._listening = True

    def stop(self) -> None:
        """Pull the network cable: every connection and the port are gone until `start`. Safe to call twice."""
        if self._listening:
            self._listening = False
            self._call(self._hang_up())

    def close(self) -> None:
        """Stop for good and end the thread. Safe to call twice."""
        self.stop()
        if self._thread is None or self._loop is None:
            return
        if self._server is not None:
            self.logic.unlisten(self._mirror)
            self._call(_end(self._server))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop = self._thread = self._server = None

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        # asyncua leaves the watchdogs of sessions and subscriptions running when a cable was pulled.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    async def _serve(self) -> None:
        if self._server is not None:
            await self._server.bserver.start()
            return
        _check_free(self.port)
        server = Server()
        await server.init()
        server.set_endpoint(self.url)
        server.set_server_name("boucle press line")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self._index = await server.register_namespace(NAMESPACE)
        for machine in self.logic.machines:
            await self._add(server, machine)
        server.iserver.attribute_service = _GuardedAttributes(server.iserver.aspace, self)
        await server.start()
        self._server = server
        self.logic.listen(self._mirror)
        await self._write(self.logic.tags())

    async def _add(self, server: Server, machine: str) -> None:
        folder = await server.nodes.objects.add_folder(
            ua.NodeId(machine, self._index), ua.QualifiedName(machine, self._index)
        )
        for signal, start in SIGNALS.items():
            node = await folder.add_variable(
                ua.NodeId(f"{machine}.{signal}", self._index),
                ua.QualifiedName(signal, self._index),
                start,
                varianttype=_VARIANTS[type(start)],
            )
            if signal == "speed_setpoint":
                await node.set_writable()

    async def _hang_up(self) -> None:
        assert self._server is not None
        await self._server.bserver.stop()

    def _mirror(self, tags: Sequence[Tag]) -> None:
        if self._loop is not None and threading.current_thread() is not self._thread:
            asyncio.run_coroutine_threadsafe(self._write(tags), self._loop)

    async def _write(self, tags: Sequence[Tag]) -> None:
        assert self._server is not None
        for tag in tags:
            # A newer value may have come by another thread meanwhile: the latest is what counts.
            await self._server.write_attribute_value(self.node_id(tag), data_value(self._latest(tag)))

    def _latest(self, tag: Tag) -> Tag:
        held = self.logic.tag(tag.machine, tag.signal)
        return held if tag.signal == "speed_setpoint" else tag

    def node_id(self, tag: Tag) -> Any:
        """The node of a tag."""
        return ua.NodeId(f"{tag.machine}.{tag.signal}", self._index)

    async def client_write(self, node: Any, value: Any) -> str | None:
        """A client's write: None when it is not a signal of ours, else the name of the status."""
        if node.NamespaceIndex != self._index or not isinstance(node.Identifier, str):
            return None
        machine, _, signal = node.Identifier.rpartition(".")
        refusal = self.logic.write(machine, signal, value)
        if refusal is not None:
            _LOG.info("refused %s.%s = %r: %s", machine, signal, value, refusal.why)
            return refusal.status
        await self._write([self.logic.tag(machine, signal)])
        return "Good"


async def _end(server: Server) -> None:
    # Its clock sleeps a second before it looks whether it should stop.
    clock, server.iserver.time_task = server.iserver.time_task, None
    if clock is not None:
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)
    await server.iserver.stop()


class _GuardedAttributes(AttributeService):  # type: ignore[misc]  # asyncua is not typed here
    """asyncua's write service, asking the PLC first; nobody from outside is an administrator."""

    def __init__(self, space: AddressSpace, plc: PlcServer) -> None:
        super().__init__(space)
        self._plc = plc

    async def write(self, params: Any, user: User) -> list[Any]:
        results: list[Any] = []
        for item in params.NodesToWrite:
            status = None
            if item.AttributeId == ua.AttributeIds.Value:
                status = await self._plc.client_write(item.NodeId, _plain(item.Value.Value))
            if status is None:
                alone = ua.WriteParameters(NodesToWrite=[item])
                results += await super().write(alone, user=user)
            else:
                results.append(ua.StatusCode(getattr(ua.StatusCodes, status)))
        return results


def _plain(variant: Any) -> Any:
    """The Python value; None for an integer, which Python would take for a Double but OPC UA does not."""
    if variant is None or variant.VariantType not in {*_VARIANTS.values(), ua.VariantType.Float}:
        return None
    return variant.Value


def data_value(tag: Tag) -> Any:
    """A tag as OPC UA says it: value, status code, source timestamp."""
    return ua.DataValue(
        Value=ua.Variant(tag.value, _VARIANTS[type(SIGNALS[tag.signal])]),
        StatusCode=ua.StatusCode(getattr(ua.StatusCodes, tag.status)),
        SourceTimestamp=_moment(tag.at),
    )


def _moment(at: Nanos) -> datetime:
    seconds, rest = divmod(at, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
