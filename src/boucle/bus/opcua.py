"""OPC UA: values of a PLC in, writes out, over connections that come back by themselves.

The only importer of asyncua outside `testing`. All connections live on one asyncio loop in one
thread; callers are ordinary threads. A server that is absent never hangs a caller: requests have
a short timeout and fail at once while there is no connection.
"""

import asyncio
import concurrent.futures
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from asyncua import Client, Node, ua

from boucle.address import Address
from boucle.block import Block, Position
from boucle.clock import Clock, Nanos, SystemClock
from boucle.errors import BoucleError, CommandRefused, Unavailable
from boucle.ports import Facts
from boucle.product.duration import seconds

__all__ = ["PROCESS", "OpcUaConnection", "OpcUaSource", "Value"]

_log = logging.getLogger("boucle.bus.opcua")

PROCESS = pa.schema(
    [
        pa.field("machine", pa.string(), nullable=False),
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
    ]
)
"""One row per value: `value` is null when the server sent none, `status` is the name of its code."""

_T = TypeVar("_T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_TROUBLE = (OSError, TimeoutError, asyncio.TimeoutError, ua.UaError)
_loop: asyncio.AbstractEventLoop | None = None
_loop_lock = threading.Lock()


def _shared_loop() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603  one loop for the process, made when first needed
    with _loop_lock:
        if _loop is None:
            # asyncua reports each lost connection as several exceptions; we say it once, in words.
            logging.getLogger("asyncua").setLevel(logging.CRITICAL)
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="opc ua", daemon=True).start()
        return _loop


class Value(NamedTuple):
    """What a server says of one node: `at` is its source timestamp, `status` the name of its code."""

    node: str
    value: Any
    status: str
    at: Nanos


class OpcUaConnection:
    """A connection to one server, kept up in the background.

    `ns_uri` is the namespace of node names given without one (`press-1.speed_setpoint`); its index
    is looked up at each connection, because it may change when the server restarts. Full node ids
    (`ns=2;s=press-1.speed_setpoint`) work too. `timeout` (seconds) bounds every request.
    """

    def __init__(
        self,
        url: str,
        *,
        ns_uri: str = "",
        ns_index: int = 2,
        timeout: float = 1.0,
        clock: Clock | None = None,
        session: "Callable[[Client], Coroutine[Any, Any, None]] | None" = None,
    ) -> None:
        self.url = url
        self._clock = clock or SystemClock()
        self._ns_uri = ns_uri
        self._ns_index = ns_index
        self._timeout = timeout
        self._session = session or _until_lost
        self._client: Client | None = None
        self._types: dict[str, ua.VariantType] = {}
        self._state = "not opened"
        self._closing: asyncio.Event | None = None
        self._running: concurrent.futures.Future[None] | None = None

    def open(self) -> None:
        """Start connecting; returns at once."""
        if self._running is None:
            self._state = f"connecting to {self.url}"
            self._running = asyncio.run_coroutine_threadsafe(self._run(), _shared_loop())

    def state(self) -> str:
        """`connected`, or why not."""
        return self._state

    def read(self, nodes: Sequence[str]) -> list[Value]:
        """The present values, in the order asked for; a bad one has its status and does not raise.

        Unavailable when the server does not answer.
        """
        return self._ask(self._read(self._connected(), nodes), f"reading {', '.join(nodes)}")

    def write(self, node: str, value: float | bool | str) -> Value | None:
        """Write one value, cast to the type the node has; gives what the node holds right after.

        None when it was written and could not be read again. Both requests leave from one coroutine:
        each hand-over between threads costs a millisecond while the path computes.

        CommandRefused when the server says no; its `why` is the name of the status code. Unavailable
        with code B321 when nothing was sent, B322 when no answer came: it may have been applied.
        """
        return self._ask(self._write(self._connected(), node, value), f"writing {node}")

    def close(self) -> None:
        """Disconnect. Safe to call twice."""
        running, self._running = self._running, None
        if running is None:
            return
        _shared_loop().call_soon_threadsafe(self._end)
        try:
            running.result(2 * self._timeout + 1)
        except (TimeoutError, concurrent.futures.CancelledError):
            running.cancel()
        self._state = "closed"

    def node_id(self, name: str) -> ua.NodeId:
        """The id of a node name, in this connection's namespace unless it names its own."""
        if "=" in name.partition(";")[0]:
            return ua.NodeId.from_string(name)
        return ua.NodeId(name, self._ns_index)

    def _end(self) -> None:
        if self._closing is not None:
            self._closing.set()

    def _connected(self) -> Client:
        if self._client is None:
            raise Unavailable(
                "B321", "the server is not connected", where=self.url, why=self._state, fix=_FIX
            )
        return self._client

    def _ask(self, request: Coroutine[Any, Any, _T], what: str) -> _T:
        asked = asyncio.run_coroutine_threadsafe(request, _shared_loop())
        try:
            return asked.result(self._timeout)
        except (*_TROUBLE, concurrent.futures.TimeoutError, concurrent.futures.CancelledError) as error:
            asked.cancel()
            why = str(error) or f"no answer within {self._timeout:g} s"
            raise Unavailable("B322", f"{what} failed", where=self.url, why=why, fix=_FIX) from error

    async def _read(self, client: Client, nodes: Sequence[str]) -> list[Value]:
        ids = [self.node_id(node) for node in nodes]
        found = await client.uaclient.read_attributes(ids, ua.AttributeIds.Value)
        return [value_of(node, told, self._clock.now()) for node, told in zip(nodes, found, strict=True)]

    async def _write(self, client: Client, node: str, value: float | bool | str) -> Value | None:
        if node not in self._types:
            told = (await client.uaclient.read_attributes([self.node_id(node)], ua.AttributeIds.Value))[0]
            if told.Value is None or told.Value.Value is None:
                raise self._refused(node, value, told.StatusCode or ua.StatusCode())
            self._types[node] = told.Value.VariantType
        try:
            variant = ua.Variant(_cast(value, self._types[node]), self._types[node])
        except (ValueError, OverflowError) as error:
            raise self._refused(node, value, ua.StatusCode(ua.StatusCodes.BadTypeMismatch)) from error
        sent = [ua.DataValue(variant)]
        answer = await client.uaclient.write_attributes([self.node_id(node)], sent, ua.AttributeIds.Value)
        if not answer[0].is_good():
            raise self._refused(node, value, answer[0])
        try:
            return (await self._read(client, [node]))[0]
        except _TROUBLE as error:
            _log.debug("%s was written and could not be read again: %s", node, error)
            return None

    def _refused(self, node: str, value: object, status: ua.StatusCode) -> CommandRefused:
        fix = "see the machine's limits, mode and interlocks"
        return CommandRefused(
            "B320", f"the server refused {value!r} for {node}", where=self.url, why=status.name, fix=fix
        )

    async def _run(self) -> None:
        self._closing = asyncio.Event()
        pause, first = _FIRST_PAUSE, True
        while not self._closing.is_set():
            client = Client(self.url, timeout=self._timeout)
            try:
                await asyncio.wait_for(client.connect(), 5 * self._timeout)
                if self._ns_uri:
                    self._ns_index = await client.get_namespace_index(self._ns_uri)
                self._types.clear()
                self._client, self._state, pause = client, "connected", _FIRST_PAUSE
                why = await self._until_it_ends(client)
            except ValueError:
                why = f"it has no namespace {self._ns_uri}"
            except _TROUBLE as error:
                why = str(error) or type(error).__name__
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                why = "the connection was lost"  # asyncua cancels what waits on a lost connection
            was_up, self._client = self._client is not None, None
            self._state = f"no connection to {self.url}: {why}"
            await _leave(client, 2 * self._timeout)
            if not self._closing.is_set():
                _log.log(
                    logging.WARNING if was_up or first else logging.DEBUG, "%s; trying again", self._state
                )
                first = False
                # Jitter: clients that lost one server together must not come back together.
                await _wait(self._closing, pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _until_it_ends(self, client: Client) -> str:
        assert self._closing is not None
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def gone(error: Exception) -> None:
            if not lost.done():
                lost.set_result(str(error) or type(error).__name__)

        client.connection_lost_callback = gone
        session = asyncio.create_task(self._session(client))
        closing = asyncio.create_task(self._closing.wait())
        ends: set[asyncio.Future[Any]] = {session, closing, lost}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if session.done():
                session.result()
                return "the subscription ended"
            return lost.result() if lost.done() else "closed"
        finally:
            for task in (session, closing):
                task.cancel()
            await asyncio.gather(session, closing, return_exceptions=True)


_FIX = "start the server or check its address; the connection comes back by itself"


async def _until_lost(_: Client) -> None:
    await asyncio.Event().wait()


async def _wait(event: asyncio.Event, at_most: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), at_most)
    except TimeoutError:
        return


async def _leave(client: Client, at_most: float) -> None:
    try:
        await asyncio.wait_for(client.disconnect(), at_most)
    except _TROUBLE as error:
        _log.debug("disconnecting: %s", error)


def _cast(value: float | bool | str, kind: ua.VariantType) -> float | bool | str:
    if kind in {ua.VariantType.Double, ua.VariantType.Float}:
        return float(value)
    if kind is ua.VariantType.Boolean:
        return bool(value)
    if kind is ua.VariantType.String:
        return str(value)
    return int(value)


def nanos(moment: datetime) -> Nanos:
    """A datetime as nanoseconds; one without a zone is UTC, as OPC UA's are."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1000


def value_of(node: str, told: ua.DataValue, now: Nanos) -> Value:
    """A DataValue in our terms; `now` stands in when the server gave no time."""
    moment = told.SourceTimestamp or told.ServerTimestamp
    status = "Good" if told.StatusCode is None else told.StatusCode.name
    return Value(
        node, None if told.Value is None else told.Value.Value, status, nanos(moment) if moment else now
    )


class OpcUaSource:
    """Value changes of a PLC as Blocks of the process schema: machine, sensor, at, value, status.

    One Block holds what one publish of the server brought. A value of bad quality is a row with its
    status and disturbs no other; booleans and integers become numbers, what is no number becomes
    null with `BadTypeMismatch`. Subscriptions can die without a word: when nothing came for
    `silent` periods the nodes are read, and if they moved on without us, all is connected anew.
    OPC UA cannot be held back: when `queue_blocks` are waiting the oldest is given up and its rows
    are counted in `shed`. Values that change while we are away are lost, but for the last.
    """

    facts = Facts(ordered=True, replayable=False, delivery="at-most-once")

    def __init__(
        self,
        address: Address,
        stream: str,
        *,
        machines: Sequence[str],
        sensors: Sequence[str],
        nodes: str = "{machine}.{sensor}",
        ns_uri: str = "",
        period: float | str = 0.1,
        clock: Clock | None = None,
        queue_blocks: int = 1024,
        silent: int = 20,
        timeout: float = 1.0,
    ) -> None:
        self.stream = stream
        self.shed = 0
        """Rows given up because nobody polled."""
        self._period = seconds(period)
        self._silent = max(silent * self._period, 1.0)
        self._clock = clock or SystemClock()
        self._names = {
            _node_name(nodes, machine, sensor, address): (machine, sensor)
            for machine in machines
            for sensor in sensors
        }
        self._queue: deque[Block] = deque()
        self._limit = queue_blocks
        self._ready = threading.Condition()
        self._received = 0
        self._latest: dict[str, Nanos] = {}
        self._refused = ""
        self._subscribed = False
        self._heard = 0.0
        where = f"opc.tcp://{address.host}:{address.port or 4840}/{address.path}".rstrip("/")
        self._connection = OpcUaConnection(
            where,
            ns_uri=ns_uri or address.options.get("ns", ""),
            ns_index=int(address.options.get("index", "2")),
            timeout=timeout,
            clock=self._clock,
            session=self._watch,
        )

    def open(self, resume: Position | None = None) -> None:
        """Connect in the background; row numbers go on from `resume`. Starts with the present values."""
        self._received = 0 if resume is None else resume.offset
        self._connection.open()

    def poll(self, wait: float) -> Block | None:
        """The next Block, or None when none came within `wait` seconds."""
        with self._ready:
            if not self._queue:
                self._ready.wait_for(lambda: self._queue, wait)
            return self._queue.popleft() if self._queue else None

    def commit(self, upto: Position) -> None:
        """Nothing to do: a server keeps nothing for us."""

    def state(self) -> str:
        """`connected`, or why not, and which nodes the server does not have."""
        state = self._connection.state()
        if state == "connected" and not self._subscribed:
            return f"subscribing at {self._connection.url}"
        return f"connected, but {self._refused}" if state == "connected" and self._refused else state

    def close(self) -> None:
        """Unsubscribe and disconnect."""
        self._connection.close()
        with self._ready:
            self._queue.clear()

    async def _watch(self, client: Client) -> None:
        ids = {name: self._connection.node_id(name) for name in self._names}
        ended = asyncio.Event()
        listener = _Listener({node: name for name, node in ids.items()}, self._take, ended.set, self._clock)
        try:
            await self._subscribe(client, ids, listener)
            self._subscribed = True
            self._heard = time.monotonic()
            while not ended.is_set():
                await _wait(ended, self._silent / 4)
                if time.monotonic() - self._heard > self._silent:
                    await self._look(client, list(ids.values()))
        finally:
            self._subscribed = False

    async def _subscribe(self, client: Client, ids: Mapping[str, ua.NodeId], listener: "_Listener") -> None:
        # Twice as often as values change: half a period is then the most a value waits.
        millis = max(self._period * 500 / self._clock.speed, 1.0)
        subscription = await client.create_subscription(millis, listener)
        nodes = [Node(client.uaclient.session, node) for node in ids.values()]
        answers = await subscription.subscribe_data_change(nodes, queuesize=20, sampling_interval=millis)
        refused = [
            f"{name}: {answer.name}"
            for name, answer in zip(ids, answers, strict=True)
            if isinstance(answer, ua.StatusCode) and not answer.is_good()
        ]
        self._refused = "; ".join(refused[:3]) + (f" and {len(refused) - 3} more" if len(refused) > 3 else "")
        if refused:
            _log.warning("%s refuses %s", self._connection.url, self._refused)

    async def _look(self, client: Client, ids: list[ua.NodeId]) -> None:
        told = await client.uaclient.read_attributes(ids, ua.AttributeIds.Value)
        for name, value in zip(self._names, told, strict=True):
            moment = value.SourceTimestamp
            if moment is not None and nanos(moment) > self._latest.get(name, 0) and name in self._latest:
                raise TimeoutError(f"the subscription is dead: {name} moved on without us")
        self._heard = time.monotonic()

    def _take(self, values: Sequence[Value]) -> None:
        self._heard = time.monotonic()
        for value in values:
            self._latest[value.node] = max(value.at, self._latest.get(value.node, 0))
        with self._ready:
            self._received += len(values)
            rows = self._rows(values)
            self._queue.append(Block(self.stream, rows, 0, Position(self.stream, self._received)))
            if len(self._queue) > self._limit:
                self.shed += len(self._queue.popleft())
            self._ready.notify()

    def _rows(self, values: Sequence[Value]) -> pa.RecordBatch:
        told = [(*self._names[value.node], value.at, *_number(value)) for value in values]
        columns = zip(*told, strict=True)
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, PROCESS, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=PROCESS)


def _node_name(template: str, machine: str, sensor: str, address: Address) -> str:
    try:
        return template.format(machine=machine, sensor=sensor, signal=sensor)
    except (KeyError, IndexError, ValueError) as error:
        fix = "use {machine} and {sensor}: nodes: '{machine}.{sensor}'"
        raise BoucleError(
            "B207", f"nodes: {template!r} cannot be filled in", where=address.text, why=str(error), fix=fix
        ) from error


def _number(told: Value) -> tuple[float | None, str]:
    if told.value is None:
        return None, told.status
    if isinstance(told.value, bool | int | float):
        return float(told.value), told.status
    return None, "BadTypeMismatch" if told.status == "Good" else told.status


class _Listener:
    """What asyncua calls for each value; hands on all the values of one publish together."""

    def __init__(
        self,
        names: Mapping[ua.NodeId, str],
        take: Callable[[Sequence[Value]], None],
        ended: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._names = names
        self._take = take
        self._ended = ended
        self._clock = clock
        self._values: list[Value] = []

    def datachange_notification(self, node: Node, _: object, data: Any) -> None:
        """One value. asyncua starts one task per value of a publish, all before the next callback."""
        if not self._values:
            asyncio.get_running_loop().call_soon(self._hand_on)
        name = self._names[node.nodeid]
        self._values.append(value_of(name, data.monitored_item.Value, self._clock.now()))

    def status_change_notification(self, _: ua.StatusChangeNotification) -> None:
        """The server ended the subscription."""
        self._ended()

    def _hand_on(self) -> None:
        values, self._values = self._values, []
        self._take(values)
