"""A very small OPC UA server in a thread, to be stopped and started again on its port."""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from asyncua import Server, ua

NAMESPACE = "urn:boucle:press-line"
SENSORS: dict[str, Any] = {"value": -1.0, "flag": True, "name": "A7"}


class TinyPlc:
    """One machine, press-1, with writable numbers; `value` and `flag` and `name` to begin with."""

    def __init__(self, port: int) -> None:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        self.port = port
        self.url = f"opc.tcp://127.0.0.1:{port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="plc", daemon=True)
        self._thread.start()
        self._server: Server | None = None
        self._nodes: dict[str, Any] = {}

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        if self._server is not None:
            self._call(self._server.stop())
            self._server = None

    def close(self) -> None:
        self.stop()
        self._call(self._rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def set(self, sensor: str, value: Any, status: int = 0, at: datetime | None = None) -> None:
        told = ua.DataValue(ua.Variant(value), ua.StatusCode(status), SourceTimestamp=at or datetime.now(UTC))
        self._call(self._write(sensor, told))

    async def _write(self, sensor: str, told: ua.DataValue) -> None:
        assert self._server is not None
        await self._server.write_attribute_value(self._nodes[sensor].nodeid, told)

    def value(self, sensor: str) -> Any:
        return self._call(self._nodes[sensor].read_value())

    async def _start(self) -> None:
        self._server = server = Server()
        await server.init()
        server.set_endpoint(f"{self.url}/")
        index = await server.register_namespace(NAMESPACE)
        machine = await server.nodes.objects.add_object(index, "press-1")
        for name, value in SENSORS.items():
            node = await machine.add_variable(ua.NodeId(f"press-1.{name}", index), name, value)
            self._nodes[name] = node
        await self._nodes["value"].set_writable()
        await server.start()

    async def _rest(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)
