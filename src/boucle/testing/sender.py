"""What a data acquisition unit does with its messages: to the broker at QoS 1, kept while it is away.

paho leaves TCP_NODELAY off, which costs 18 ms at the 99th percentile; it is set on the socket here.
Delivery is at least once: what was under way when the connection broke is sent again.
"""

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import paho.mqtt.client as mqtt
from msgspec import Struct
from paho.mqtt.enums import CallbackAPIVersion

from boucle.testing.disturbance import Message

__all__ = ["Sender", "Sent"]

_LOG = logging.getLogger("boucle.testing.sender")
_WINDOW = 100  # messages under way
_RETRY = (1, 3)  # seconds between attempts to connect


class Sent(Struct, frozen=True):
    """How much went out. `messages` and `readings` are acknowledged by the broker; `waiting` are messages
    that are not yet; dropped ones found the buffer full, oldest first.
    """

    messages: int = 0
    readings: int = 0
    waiting: int = 0
    dropped_messages: int = 0
    dropped_readings: int = 0


class Sender:
    """Sends messages in order to `broker` (host:port), reconnecting by itself; it holds `limit` of them."""

    def __init__(self, broker: str, name: str, limit: int = 20_000) -> None:
        host, _, port = broker.rpartition(":")
        self._host, self._port = host or broker, int(port) if host else 1883
        self._limit = limit
        self._waiting: deque[Message] = deque()
        self._acknowledged: deque[int] = deque()
        self._under_way: dict[int, Message] = {}
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._stop = threading.Event()
        self._messages = self._readings = self._dropped = self._dropped_readings = 0
        self._problem = "not started"
        self._thread: threading.Thread | None = None
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311)
        client.on_socket_open = _no_delay
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        client.max_inflight_messages_set(_WINDOW)
        client.reconnect_delay_set(*_RETRY)
        self._client = client

    @property
    def sent(self) -> Sent:
        """The counts so far."""
        with self._lock:
            return Sent(
                self._messages,
                self._readings,
                len(self._waiting) + len(self._under_way),
                self._dropped,
                self._dropped_readings,
            )

    def state(self) -> str:
        """`connected`, or why not."""
        return "connected" if self._client.is_connected() else self._problem

    def start(self) -> None:
        """Start connecting; returns at once, whether the broker is there or not."""
        self._problem = f"no broker at {self._host}:{self._port}"
        self._client.connect_async(self._host, self._port, keepalive=10)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def give(self, messages: Iterable[Message]) -> None:
        """Take messages over; the oldest are dropped, and counted, when the buffer is full."""
        with self._lock:
            self._waiting.extend(messages)
            while len(self._waiting) > self._limit:
                lost = self._waiting.popleft()
                self._dropped += 1
                self._dropped_readings += lost.readings
        self._work.set()

    def drain(self, seconds: float) -> bool:
        """Wait until the broker has everything; False when it has not within `seconds` of the wall."""
        until = time.monotonic() + seconds
        while self.sent.waiting and time.monotonic() < until:
            time.sleep(0.01)
        return not self.sent.waiting

    def stop(self) -> None:
        """Disconnect. Safe to call twice; what still waits is lost."""
        self._stop.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._client.disconnect()
            self._client.loop_stop()
            # paho closes its own pair of sockets when it is deleted, which a circle would put off.
            self._client.on_connect = self._client.on_disconnect = self._client.on_publish = None
        self._problem = "stopped"

    def _run(self) -> None:
        while not self._stop.is_set():
            self._work.wait(0.2)
            self._work.clear()
            self._settle()
            while self._client.is_connected() and len(self._under_way) < _WINDOW and self._send():
                pass

    def _settle(self) -> None:
        """Count what was acknowledged. Only this thread looks at it: paho calls back under a lock."""
        with self._lock:
            while self._acknowledged:
                message = self._under_way.pop(self._acknowledged.popleft(), None)
                if message is not None:
                    self._messages += 1
                    self._readings += message.readings

    def _send(self) -> bool:
        with self._lock:
            if not self._waiting:
                return False
            message = self._waiting.popleft()
            information = self._client.publish(message.topic, message.payload, qos=1)
            # When the connection has just gone, paho keeps the message and sends it on reconnection.
            self._under_way[information.mid] = message
        return True

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        del client, data, flags, properties
        if reason.is_failure:
            self._problem = f"the broker at {self._host}:{self._port} refused: {reason}"
            _LOG.warning(self._problem)
        self._work.set()

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        del client, data, flags, properties
        self._problem = f"the broker at {self._host}:{self._port} is gone: {reason}"
        if not self._stop.is_set():
            _LOG.warning("%s; keeping messages until it is back", self._problem)

    def _published(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        del client, data, reason, properties
        self._acknowledged.append(mid)
        self._work.set()


def _no_delay(client: Any, data: Any, opened: Any) -> None:
    del client, data
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
