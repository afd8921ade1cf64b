"""The far ends of our sources and sinks, for the conformance suites."""

import atexit
import functools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from boucle.address import parse_address
from boucle.block import Block, Position
from boucle.bus.broker import Broker
from boucle.bus.files import FileSource
from boucle.bus.log import EventLog, LogSource
from boucle.bus.memory import MemorySink, MemorySource
from boucle.bus.mqtt import MqttSink, MqttSource
from boucle.bus.opcua import OpcUaSource
from boucle.ports import WIRE, Sink, Source
from boucle.testing.conformance.sink import SinkBench
from boucle.testing.conformance.source import SourceBench
from tests.bus.plc import NAMESPACE, TinyPlc
from tests.conftest import unused_port

Kind = Literal["mosquitto", "amqtt"]


def numbered(numbers: Sequence[int]) -> pa.RecordBatch:
    return pa.record_batch({"number": pa.array(numbers, pa.int64())})


def numbers_of(block: Block) -> list[int]:
    return [int(number) for number in block.rows.column("number").to_pylist()]


def messages(numbers: Sequence[int], topic: str = "press/press-1/vibration") -> Block:
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([topic] * len(numbers), pa.string()),
            pa.array([str(number).encode() for number in numbers], pa.binary()),
            pa.array([0] * len(numbers), WIRE.field("received").type),
            pa.array([False] * len(numbers), pa.bool_()),
        ],
        schema=WIRE,
    )
    return Block("out", rows, 0, Position("out", 0))


def payloads_of(block: Block) -> list[int]:
    return [int(payload) for payload in block.rows.column("payload").to_pylist()]


def mqtt_source(port: int, client_id: str, *, queue_blocks: int = 16, options: str = "qos=1") -> MqttSource:
    address = parse_address(f"mqtt://127.0.0.1:{port}/press/+/vibration?{options}", "source")
    return MqttSource(address, "vibration", client_id=client_id, queue_blocks=queue_blocks)


def mqtt_sink(port: int, client_id: str, *, timeout: float = 10.0, options: str = "qos=1") -> MqttSink:
    address = parse_address(f"mqtt://127.0.0.1:{port}/?{options}", "sink")
    return MqttSink(address, client_id=client_id, timeout=timeout)


class MemorySourceBench(SourceBench):
    def __init__(self) -> None:
        self._source = MemorySource(stream="readings")

    def make(self) -> Source:
        return self._source

    def feed(self, numbers: Sequence[int]) -> None:
        for first in range(0, len(numbers), 7):
            self._source.put_rows(numbered(numbers[first : first + 7]))

    def numbers(self, block: Block) -> list[int]:
        return numbers_of(block)


class LogSourceBench(SourceBench):
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "readings"
        self._log = EventLog(self._folder, segment_bytes=2000, fsync_interval=0)
        self._log.open()

    def make(self) -> Source:
        return LogSource(EventLog(self._folder))

    def feed(self, numbers: Sequence[int]) -> None:
        for first in range(0, len(numbers), 7):
            rows = numbered(numbers[first : first + 7])
            self._log.append(Block("readings", rows, 0, Position("bench", first)))
            self._log.flush()

    def numbers(self, block: Block) -> list[int]:
        return numbers_of(block)

    def close(self) -> None:
        self._log.close()


class FileSourceBench(SourceBench):
    grows = False

    def __init__(self, folder: Path, suffix: str) -> None:
        self._file = folder / f"readings{suffix}"

    def make(self) -> Source:
        return FileSource(parse_address(f"file://{self._file}?rows=7", "source"), "readings")

    def feed(self, numbers: Sequence[int]) -> None:
        table = pa.Table.from_batches([numbered(numbers)])
        match self._file.suffix:
            case ".parquet":
                pq.write_table(table, self._file, row_group_size=11)
            case ".csv":
                csv.write_csv(table, self._file)
            case ".arrow":
                with pa.OSFile(str(self._file), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
                    writer.write_table(table, max_chunksize=5)
            case _:
                self._file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))

    def numbers(self, block: Block) -> list[int]:
        return numbers_of(block)


class MqttSourceBench(SourceBench):
    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder = folder
        self._kind: Kind = kind
        self.keeps = kind == "mosquitto"
        self._broker = Broker.start(kind=kind, keep=folder)
        self._sink = mqtt_sink(self._broker.port, "bench")
        self._sink.open()

    def make(self) -> Source:
        return mqtt_source(self._broker.port, "conformance")

    def feed(self, numbers: Sequence[int]) -> None:
        self._sink.write(messages(numbers))
        self._sink.flush()

    def numbers(self, block: Block) -> list[int]:
        return payloads_of(block)

    def outage(self) -> AbstractContextManager[object]:
        return self._away()

    @contextmanager
    def _away(self) -> Iterator[None]:
        self._broker.stop()
        try:
            yield
        finally:
            self._broker = Broker.start(self._broker.port, kind=self._kind, keep=self._folder)

    def close(self) -> None:
        self._sink.close()
        self._broker.stop()


@functools.cache
def shared_plc() -> TinyPlc:
    """One for the session: an OPC UA server takes seconds to fill its address space."""
    plc = TinyPlc(unused_port())
    plc.start()
    atexit.register(plc.close)
    return plc


class OpcUaSourceBench(SourceBench):
    def __init__(self) -> None:
        self._plc = shared_plc()
        self._plc.set("value", -1.0)

    def make(self) -> Source:
        return OpcUaSource(
            parse_address(f"{self._plc.url}", "source"),
            "process",
            machines=["press-1"],
            sensors=["value"],
            ns_uri=NAMESPACE,
            period=0.02,
            queue_blocks=64,
        )

    def feed(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._plc.set("value", float(number))
            time.sleep(0.003)

    def numbers(self, block: Block) -> list[int]:
        return [int(value) for value in block.rows.column("value").to_pylist() if value >= 0]

    def outage(self) -> AbstractContextManager[object]:
        return self._plc.away()


class MemorySinkBench(SinkBench):
    def __init__(self) -> None:
        self._sink = MemorySink()

    def make(self) -> Sink:
        return self._sink

    def block(self, numbers: Sequence[int]) -> Block:
        return Block("readings", numbered(numbers), 0, Position("bench", 0))

    def stored(self, count: int) -> list[int]:
        return [number for block in self._sink.blocks for number in numbers_of(block)]


class LogSinkBench(SinkBench):
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "readings"

    def make(self) -> Sink:
        return EventLog(self._folder, fsync_interval=0)

    def block(self, numbers: Sequence[int]) -> Block:
        return Block("readings", numbered(numbers), 0, Position("bench", 0))

    def stored(self, count: int) -> list[int]:
        return [number for block in EventLog(self._folder).read() for number in numbers_of(block)]


class MqttSinkBench(SinkBench):
    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder = folder
        self._kind: Kind = kind
        self._broker = Broker.start(kind=kind, keep=folder)
        self._far = mqtt_source(self._broker.port, "far", queue_blocks=10_000)
        self._far.open()
        self._seen: list[int] = []
        self._wait_for_far_end()

    def make(self) -> Sink:
        return mqtt_sink(self._broker.port, "sink", timeout=2.0)

    def block(self, numbers: Sequence[int]) -> Block:
        return messages(numbers)

    def stored(self, count: int) -> list[int]:
        until = time.monotonic() + 20
        while len(set(self._seen)) < count and time.monotonic() < until:
            block = self._far.poll(0.2)
            if block is not None:
                self._seen += payloads_of(block)
        return self._seen

    def outage(self) -> AbstractContextManager[object] | None:
        # amqtt forgets who listened: what comes before our far end is back, nobody gets.
        return self._away() if self._kind == "mosquitto" else None

    @contextmanager
    def _away(self) -> Iterator[None]:
        self._broker.stop()
        try:
            yield
        finally:
            self._broker = Broker.start(self._broker.port, kind=self._kind, keep=self._folder)
            self._wait_for_far_end()

    def _wait_for_far_end(self) -> None:
        until = time.monotonic() + 20
        while self._far.state() != "connected" and time.monotonic() < until:
            time.sleep(0.02)

    def close(self) -> None:
        self._far.close()
        self._broker.stop()
