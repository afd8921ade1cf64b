"""amqtt, a broker in pure Python, in a thread of this process: for machines without mosquitto.

It speaks MQTT 3.1.1, forgets a client that goes away, and gives up on a message that is not
acknowledged within five seconds; good for a demonstration, not for a plant. The only importer of
amqtt.
"""

import asyncio
import logging
import threading

from boucle.errors import Unavailable

__all__ = ["EmbeddedBroker", "embedded_ports"]

embedded_ports: set[int] = set()
"""Loopback ports where an embedded broker listens: our clients need not try MQTT 5 there."""

_log = logging.getLogger("boucle.bus.embedded")
_PATIENCE = 10.0


class EmbeddedBroker:
    """amqtt listening on a loopback port, from construction until `stop`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"amqtt {port}", daemon=True)
        self._listening: asyncio.Future[None] | None = None
        self._started = threading.Event()
        self._why = "it took too long"
        self._ending: asyncio.Event | None = None
        self._thread.start()
        if not self._started.wait(_PATIENCE) or not self._thread.is_alive() or self._ending is None:
            where = f"127.0.0.1:{port}"
            fix = "choose another port, or apt-get install mosquitto"
            raise Unavailable("B306", "amqtt did not start", where=where, why=self._why, fix=fix)

    def stop(self) -> None:
        """End it and wait until its port is free. Safe to call twice."""
        if self._ending is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        # amqtt lets errors of closing sockets escape from its connections; they end with them.
        self._loop.set_exception_handler(lambda _, told: _log.debug("amqtt: %s", told))
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        from amqtt.broker import Broker
        from amqtt.contexts import BrokerConfig, ListenerConfig
        from amqtt.errors import AMQTTError, BrokerError

        for chatty in ("amqtt", "transitions"):
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        config = BrokerConfig(
            listeners={"default": ListenerConfig(bind=f"127.0.0.1:{self.port}")},
            plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        )
        broker = Broker(config)
        try:
            await broker.start()
        except (AMQTTError, BrokerError, OSError) as error:
            self._why = str(error)
            await self._rest()
            return
        self._ending = asyncio.Event()
        embedded_ports.add(self.port)
        self._started.set()
        await self._ending.wait()
        embedded_ports.discard(self.port)
        await broker.shutdown()
        await self._rest()

    async def _rest(self) -> None:
        """Let what is left of the connections end before their loop does."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
