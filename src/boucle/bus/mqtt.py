"""MQTT: messages in with acknowledgement after commit, messages out with proof of arrival.

The only importer of paho. MQTT 5, or 3.1.1 with a broker that speaks no more. The client's socket
is driven by our own thread, for two reasons: it stops reading when the queue is full, so that TCP
holds the broker back and nothing is dropped; and it sets TCP_NODELAY, without which a message
waits for the acknowledgement of the one before (Nagle's algorithm, RFC 896).
"""

import contextlib
import logging
import random
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import paho.mqtt.client as paho
import pyarrow as pa
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from boucle.address import Address
from boucle.block import Block, Position
from boucle.bus.embedded import embedded_ports
from boucle.clock import Clock, SystemClock
from boucle.errors import BoucleError, ContractBroken, Unavailable
from boucle.ports import WIRE, Facts

__all__ = ["MqttSink", "MqttSource"]

_log = logging.getLogger("boucle.bus.mqtt")

_MOST = 65535  # the largest Receive Maximum of MQTT 5
_WINDOW = 200  # unacknowledged publishes of a sink
_BATCH = 256  # messages in one Block
_ANSWER = 1.0  # seconds for CONNACK; some 3.1.1 brokers never answer a CONNECT of MQTT 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# What a broken peer makes paho's packet parser raise; the connection is given up and made anew.
_BROKEN = (OSError, ValueError, IndexError, KeyError, TypeError, struct.error, MQTTException)


class _User(Protocol):
    """What the link tells its source or sink; every call comes from the link's thread."""

    def room(self) -> bool: ...
    def up(self, client: paho.Client, most: int, *, known: bool) -> None: ...
    def down(self) -> None: ...
    def send(self, client: paho.Client) -> None: ...
    def message(self, client: paho.Client, message: paho.MQTTMessage) -> None: ...
    def subscribed(self, client: paho.Client, refused: str) -> None: ...
    def published(self, mid: int, refused: str) -> None: ...


class _Link:
    """One connection that is kept up: a thread that connects, serves, and reconnects with backoff."""

    def __init__(
        self, address: Address, client_id: str, user: _User, *, username: str, password: str, expiry: int
    ) -> None:
        self.address = address
        self.client: paho.Client | None = None
        """The client of the present connection, while it is up."""
        self.state = "not opened"
        self._client_id = client_id
        self._user = user
        self._login = (username, password)
        self._expiry = expiry
        self._tls = _tls(address) if address.scheme == "mqtts" else None
        self._port = address.port or (8883 if self._tls else 1883)
        old = address.host in {"127.0.0.1", "localhost"} and self._port in embedded_ports
        self._version = MQTTProtocolVersion.MQTTv311 if old else MQTTProtocolVersion.MQTTv5
        self._closing = threading.Event()
        self._ends: tuple[socket.socket, ...] = ()
        self._answered = self._refused = False
        self._thread = threading.Thread(target=self._run, name=f"mqtt {client_id}", daemon=True)

    def start(self) -> None:
        self._ends = socket.socketpair()
        for end in self._ends:
            end.setblocking(False)
        self.state = f"connecting to {self.where}"
        self._thread.start()

    @property
    def where(self) -> str:
        return f"{self.address.host}:{self._port}"

    @property
    def is_modern(self) -> bool:
        """Whether MQTT 5 is spoken."""
        return self._version is MQTTProtocolVersion.MQTTv5

    def wake(self) -> None:
        """Make the thread look again: there is something to send, or room to read."""
        if self._ends:
            with contextlib.suppress(BlockingIOError):  # it has not yet seen the last call
                self._ends[1].send(b"\0")

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(5)
        ends, self._ends = self._ends, ()
        for end in ends:
            end.close()
        self.state = "closed"

    def _run(self) -> None:
        pause, first = _FIRST_PAUSE, True
        while not self._closing.is_set():
            self._answered = self._refused = False
            client = self._fresh_client()
            try:
                client.connect(self.address.host, self._port, keepalive=60, **self._how())
                _no_delay(client)
                self._serve(client)
                why = "the broker closed the connection"
            except _BROKEN as error:
                why = str(error) or type(error).__name__
            was_up, self.client = self.client is not None, None
            if self._closing.is_set():
                return
            if was_up:
                pause = _FIRST_PAUSE
            self._user.down()
            if not self.state.startswith("refused"):
                self.state = f"no connection to {self.where}: {why}"
            _log.log(logging.WARNING if was_up or first else logging.DEBUG, "%s; trying again", self.state)
            first = False
            # Jitter: a hundred gateways that lost one broker must not all come back at once.
            self._closing.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _how(self) -> dict[str, Any]:
        if not self.is_modern:
            return {}
        wanted = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wanted.SessionExpiryInterval = self._expiry
        wanted.ReceiveMaximum = _MOST
        return {"clean_start": False, "properties": wanted}

    def _fresh_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            clean_session=None if self.is_modern else False,
            protocol=self._version,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = 3.0
        client.max_inflight_messages_set(0)  # the sink keeps its own window
        if self._login[0]:
            client.username_pw_set(self._login[0], self._login[1] or None)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_message = lambda c, _, message: self._user.message(c, message)
        client.on_subscribe = lambda c, _u, _m, codes, _p: self._user.subscribed(c, _refusal(codes))
        client.on_publish = lambda _c, _u, mid, code, _p: self._user.published(mid, _refusal([code]))
        # Without this paho would write from whichever thread publishes or acknowledges.
        client.on_socket_register_write = lambda *_: self.wake()
        return client

    def _on_connect(
        self,
        client: paho.Client,
        _user: object,
        flags: paho.ConnectFlags,
        code: ReasonCode,
        told: Properties | None,
    ) -> None:
        if code.is_failure:
            self._refused = True
            if "protocol version" not in str(code).lower():
                self.state = f"refused by {self.where}: {code}"
            return
        self._answered = True
        self.client = client
        self.state = "connected"
        most = int(getattr(told, "ReceiveMaximum", _MOST))
        self._user.up(client, most, known=flags.session_present)

    def _other_version(self) -> None:
        five, three = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
        self._version = three if self.is_modern else five
        _log.info("%s did not answer; trying MQTT %s", self.where, "5" if self.is_modern else "3.1.1")

    def _serve(self, client: paho.Client) -> None:
        until = time.monotonic() + _ANSWER
        while (sock := client.socket()) is not None and not self._closing.is_set():
            # Before CONNACK there is always room: only messages are held back.
            reading = self.client is None or self._user.room()
            self._wait(client, sock, reading=reading)
            if client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS or self._refused:
                break
            if self.client is client:
                self._user.send(client)
            elif time.monotonic() > until:
                break
        self._leave(client)
        if not self._answered and not self.state.startswith("refused"):
            self._other_version()

    def _wait(self, client: paho.Client, sock: Any, *, reading: bool) -> None:
        near = self._ends[0]
        poller = select.poll()
        poller.register(near, select.POLLIN)
        wanted = (select.POLLIN if reading else 0) | (select.POLLOUT if client.want_write() else 0)
        if wanted:
            poller.register(sock, wanted)
        decrypted = reading and isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = dict(poller.poll(0 if decrypted else 250))
        if near.fileno() in ready:
            near.recv(4096)
        now = ready.get(sock.fileno(), 0)
        if now & select.POLLOUT:
            client.loop_write()
        if decrypted or now & (select.POLLIN | select.POLLHUP | select.POLLERR):
            client.loop_read()

    def _leave(self, client: paho.Client) -> None:
        """Send what is queued (acknowledgements) and a clean DISCONNECT: the session stays at the broker."""
        sock: Any = client.socket()
        if sock is None:
            return
        with contextlib.closing(sock):
            until = time.monotonic() + _ANSWER
            while client.want_write() and _holds(client, sock) and time.monotonic() < until:
                select.select([], [sock], [], 0.05)
                client.loop_write()
            if self.client is not client or not _holds(client, sock):
                return
            # Not through paho, which closes at once: closing with messages unread makes TCP reset
            # the connection, and the broker would never see the acknowledgements sent before.
            sock.setblocking(True)
            sock.settimeout(_ANSWER)
            sock.sendall(b"\xe0\x00")
            while sock.recv(65536) and time.monotonic() < until:
                pass


def _holds(client: paho.Client, sock: object) -> bool:
    return client.socket() is sock


def _no_delay(client: paho.Client) -> None:
    sock: Any = client.socket()
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _refusal(codes: list[ReasonCode]) -> str:
    return ", ".join(str(code) for code in codes if code.is_failure)


def _tls(address: Address) -> ssl.SSLContext:
    options = address.options
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
    except (OSError, ssl.SSLError) as error:
        fix = "give ca=, cert= and key= as paths of PEM files"
        raise BoucleError(
            "B302", "the certificates cannot be read", where=address.text, why=str(error), fix=fix
        ) from error
    return context


def _quality_of_service(address: Address) -> int:
    text = address.options.get("qos", "1")
    if text not in {"0", "1"}:
        why = "2 costs two more round trips and we remove duplicates by key anyway"
        raise BoucleError(
            "B206", f"qos={text} is not offered", where=address.text, why=why, fix="write qos=1 or qos=0"
        )
    return int(text)


class _Waiting(NamedTuple):
    topic: str
    payload: bytes
    received: int
    retained: bool
    mid: int
    client: paho.Client


class MqttSource:
    """Messages of a topic filter as WIRE Blocks: `mqtt://host:1883/press/+/vibration?qos=1`.

    A message is acknowledged when its position is committed, and the broker keeps it until then:
    at least once, also over our own restart (`client_id` must stay the same, and no two sources
    may share one). With qos=0 it is at most once. A Block holds what was waiting, 256 messages at
    most; it never waits for more. Positions count messages. `share=group` joins a shared
    subscription, `expiry=seconds` is how long the broker keeps for us what arrives while we are
    away (one day). For mqtts: `ca=`, `cert=`, `key=` (PEM files).
    """

    def __init__(
        self,
        address: Address,
        stream: str,
        *,
        client_id: str,
        clock: Clock | None = None,
        queue_blocks: int = 1024,
        username: str = "",
        password: str = "",
    ) -> None:
        self.stream = stream
        self.waits = 0
        """How often the queue was full and the broker was held back."""
        self._qos = _quality_of_service(address)
        self.facts = Facts(
            ordered=True, replayable=False, delivery="at-least-once" if self._qos else "at-most-once"
        )
        share = address.options.get("share")
        self._filter = f"$share/{share}/{address.path}" if share else address.path
        self._clock = clock or SystemClock()
        self._limit = queue_blocks
        self._queue: deque[_Waiting] = deque()
        self._unacknowledged: deque[tuple[int, int, paho.Client]] = deque()
        self._ready = threading.Condition()
        self._delivered = 0
        self._full = False
        self._subscribed = False
        expiry = int(address.options.get("expiry", "86400"))
        self._link = _Link(address, client_id, self, username=username, password=password, expiry=expiry)

    def open(self, resume: Position | None = None) -> None:
        """Connect in the background; positions go on from `resume`. The broker knows what we lack."""
        self._delivered = 0 if resume is None else resume.offset
        self._link.start()

    def poll(self, wait: float) -> Block | None:
        """The messages waiting, or None when none came within `wait` seconds."""
        with self._ready:
            if not self._queue:
                self._ready.wait_for(lambda: self._queue, wait)
            count = min(len(self._queue), _BATCH)
            if count == 0:
                return None
            taken = [self._queue.popleft() for _ in range(count)]
            for message in taken:
                self._delivered += 1
                if message.mid:
                    self._unacknowledged.append((self._delivered, message.mid, message.client))
            was_full, self._full = self._full, False
            position = Position(self.stream, self._delivered)
        if was_full:
            self._link.wake()
        return Block(self.stream, _wire(taken), 0, position)

    def commit(self, upto: Position) -> None:
        """Acknowledge every message up to `upto`."""
        acknowledged = False
        with self._ready:
            while self._unacknowledged and self._unacknowledged[0][0] <= upto.offset:
                _, mid, client = self._unacknowledged.popleft()
                # Numbers belong to their connection: after a reconnect the broker sends again what
                # it has no acknowledgement of, and an old number may mean another message.
                if client is self._link.client:
                    client.ack(mid, self._qos)
                    acknowledged = True
        if acknowledged:
            self._link.wake()

    def state(self) -> str:
        """`connected`, or why not."""
        if self._link.state == "connected" and not self._subscribed:
            return f"subscribing to {self._filter}"
        return self._link.state

    def close(self) -> None:
        """Disconnect and leave our session at the broker; what was not committed comes again."""
        self._link.close()
        with self._ready:
            self._queue.clear()
            self._unacknowledged.clear()

    @property
    def waiting(self) -> int:
        """Messages received and not yet polled."""
        return len(self._queue)

    def room(self) -> bool:
        """Whether the queue takes another message (link's thread)."""
        with self._ready:
            if len(self._queue) < self._limit:
                return True
            if not self._full:
                self._full = True
                self.waits += 1
            return False

    def up(self, client: paho.Client, most: int, *, known: bool) -> None:  # noqa: ARG002
        """Subscribe, in every connection: a broker that restarted may have forgotten us."""
        # A broker that knows us sends what it kept before it answers: a full queue may hide the answer.
        self._subscribed = known
        if self._link.is_modern:
            client.subscribe(self._filter, options=SubscribeOptions(qos=self._qos))
        else:
            client.subscribe(self._filter, qos=self._qos)

    def down(self) -> None:
        """The connection is gone."""
        self._subscribed = False

    def send(self, client: paho.Client) -> None:
        """Nothing of its own to send."""

    def message(self, client: paho.Client, message: paho.MQTTMessage) -> None:
        """A message came (link's thread; `room` was asked before)."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "\ufffd"  # not UTF-8: quarantine will say which
        mid = message.mid if message.qos else 0
        payload = bytes(message.payload)
        waiting = _Waiting(topic, payload, self._clock.now(), message.retain, mid, client)
        with self._ready:
            self._queue.append(waiting)
            self._ready.notify()

    def subscribed(self, client: paho.Client, refused: str) -> None:
        """The broker answered the subscription."""
        self._subscribed = not refused
        if refused:
            self._link.state = f"refused by {self._link.where}: subscription to {self._filter}: {refused}"
            client.disconnect()

    def published(self, mid: int, refused: str) -> None:
        """A source publishes nothing."""


def _wire(messages: list[_Waiting]) -> pa.RecordBatch:
    columns = zip(*(message[:4] for message in messages), strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(values, type=field.type) for values, field in zip(columns, WIRE, strict=True)], schema=WIRE
    )


class MqttSink:
    """Publishes the rows of WIRE Blocks to their topics; `flush` waits for every PUBACK.

    While the broker is away up to `buffer_messages` are kept; `write` and `flush` raise
    `Unavailable` after `timeout` seconds and nothing accepted is given up: it goes out when the
    broker is back, perhaps twice (at least once). `retain=1` keeps the last of each topic at the
    broker: for states, never for commands.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_id: str,
        buffer_messages: int = 10_000,
        timeout: float = 5.0,
        username: str = "",
        password: str = "",
    ) -> None:
        self._qos = _quality_of_service(address)
        self.facts = Facts(
            ordered=True, replayable=False, delivery="at-least-once" if self._qos else "at-most-once"
        )
        self._retain = address.options.get("retain", "0") == "1"
        self._limit = buffer_messages
        self._timeout = timeout
        self._unsent: deque[tuple[str, bytes]] = deque()
        self._sent: dict[int, tuple[str, bytes]] = {}
        self._window = _WINDOW
        self._refused: list[str] = []
        self._change = threading.Condition()
        self._link = _Link(address, client_id, self, username=username, password=password, expiry=0)

    def open(self) -> None:
        """Connect in the background."""
        self._link.start()

    def write(self, block: Block) -> None:
        """Take a Block's messages; waits for room when too many are unacknowledged."""
        if not {"topic", "payload"} <= set(block.rows.schema.names):
            why = f"it has {', '.join(block.rows.schema.names)}"
            fix = "encode the rows first; a sink of messages needs topic and payload"
            raise ContractBroken("B303", "this Block holds no messages", where=block.stream, why=why, fix=fix)
        for message in _messages(block.rows):
            with self._change:
                if not self._change.wait_for(self._has_room, self._timeout):
                    raise self._unavailable(f"{self._limit} messages wait already")
                self._unsent.append(message)
        self._link.wake()

    def flush(self) -> None:
        """Return when the broker has acknowledged everything; `Unavailable` when it does not in time."""
        with self._change:
            done = self._change.wait_for(lambda: not self._unsent and not self._sent, self._timeout)
            refused, self._refused = self._refused, []
            if refused:
                fix = "allow this client to publish there"
                raise BoucleError("B304", refused[0], where=self._link.where, fix=fix)
            if not done:
                raise self._unavailable(
                    f"{len(self._unsent) + len(self._sent)} messages are not acknowledged"
                )

    def state(self) -> str:
        """`connected`, or why not."""
        return self._link.state

    def close(self) -> None:
        """Flush and disconnect; raises what `flush` raises, disconnected all the same."""
        try:
            if self._link.state != "closed":
                self.flush()
        finally:
            self._link.close()

    def _has_room(self) -> bool:
        return len(self._unsent) + len(self._sent) < self._limit

    def _unavailable(self, what: str) -> Unavailable:
        fix = "start the broker or check the address; what was accepted is kept and sent then"
        return Unavailable("B301", what, where=self._link.where, why=self._link.state, fix=fix)

    def room(self) -> bool:
        """A sink reads acknowledgements only: always."""
        return True

    def up(self, client: paho.Client, most: int, *, known: bool) -> None:  # noqa: ARG002
        """Send again, in order, what the last connection left without an answer."""
        with self._change:
            self._window = min(_WINDOW, most)
            self._take_back()

    def down(self) -> None:
        """The connection is gone: nothing sent and unanswered counts as arrived."""
        with self._change:
            self._take_back()

    def _take_back(self) -> None:
        self._unsent.extendleft(reversed(self._sent.values()))
        self._sent.clear()

    def send(self, client: paho.Client) -> None:
        """Hand over what waits, as far as the window goes (link's thread)."""
        with self._change:
            while self._unsent and len(self._sent) < self._window:
                topic, payload = message = self._unsent.popleft()
                try:
                    info = client.publish(topic, payload, self._qos, retain=self._retain)
                except ValueError as error:
                    self._refused.append(f"topic {topic!r} cannot be published to: {error}")
                    self._change.notify_all()
                    continue
                self._sent[info.mid] = message

    def message(self, client: paho.Client, message: paho.MQTTMessage) -> None:
        """A sink subscribes to nothing."""

    def subscribed(self, client: paho.Client, refused: str) -> None:
        """A sink subscribes to nothing."""

    def published(self, mid: int, refused: str) -> None:
        """The broker has this one."""
        with self._change:
            message = self._sent.pop(mid, None)
            if message is not None and refused:
                self._refused.append(f"the broker refused a message to {message[0]}: {refused}")
            self._change.notify_all()


def _messages(rows: pa.RecordBatch) -> Iterator[tuple[str, bytes]]:
    return zip(rows.column("topic").to_pylist(), rows.column("payload").to_pylist(), strict=True)
