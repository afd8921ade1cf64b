"""Every source and sink of the bus room keeps every rule of its port, on the real far end."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from boucle.bus.broker import find_mosquitto
from boucle.testing.conformance.sink import SINK_CHECKS, SinkBench
from boucle.testing.conformance.source import SOURCE_CHECKS, SourceBench
from tests.bus.benches import (
    FileSourceBench,
    LogSinkBench,
    LogSourceBench,
    MemorySinkBench,
    MemorySourceBench,
    MqttSinkBench,
    MqttSourceBench,
    OpcUaSourceBench,
)

SOURCES: dict[str, Callable[[Path], SourceBench]] = {
    "memory": lambda _: MemorySourceBench(),
    "log": LogSourceBench,
    "parquet": lambda folder: FileSourceBench(folder, ".parquet"),
    "csv": lambda folder: FileSourceBench(folder, ".csv"),
    "arrow": lambda folder: FileSourceBench(folder, ".arrow"),
    "ndjson": lambda folder: FileSourceBench(folder, ".ndjson"),
    "mosquitto": lambda folder: MqttSourceBench(folder, "mosquitto"),
    "amqtt": lambda folder: MqttSourceBench(folder, "amqtt"),
    "opcua": lambda _: OpcUaSourceBench(),
}
SINKS: dict[str, Callable[[Path], SinkBench]] = {
    "memory": lambda _: MemorySinkBench(),
    "log": LogSinkBench,
    "mosquitto": lambda folder: MqttSinkBench(folder, "mosquitto"),
    "amqtt": lambda folder: MqttSinkBench(folder, "amqtt"),
}


def kinds(known: dict[str, Callable[[Path], Any]]) -> list[Any]:
    absent = pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto")
    marks = {"mosquitto": [pytest.mark.real, absent]}
    return [pytest.param(make, id=name, marks=marks.get(name, [])) for name, make in known.items()]


@pytest.mark.parametrize("check", SOURCE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", kinds(SOURCES))
def test_source(
    make: Callable[[Path], SourceBench], check: Callable[[SourceBench], None], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        bench = make(tmp_path)
        stack.callback(getattr(bench, "close", lambda: None))
        check(bench)


@pytest.mark.parametrize("check", SINK_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", kinds(SINKS))
def test_sink(make: Callable[[Path], SinkBench], check: Callable[[SinkBench], None], tmp_path: Path) -> None:
    with ExitStack() as stack:
        bench = make(tmp_path)
        stack.callback(getattr(bench, "close", lambda: None))
        check(bench)
