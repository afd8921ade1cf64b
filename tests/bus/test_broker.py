"""The broker that comes along: ends with us, starts again on its port, says why it cannot start."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pyarrow as pa
import pytest

from boucle.block import Block
from boucle.bus.broker import Broker, find_mosquitto
from boucle.bus.embedded import EmbeddedBroker
from boucle.errors import Unavailable
from boucle.ports import WIRE
from tests.bus.benches import Kind, messages, mqtt_sink, mqtt_source
from tests.bus.test_mqtt import collect, connected

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto")
KINDS = [pytest.param("mosquitto", marks=[pytest.mark.real, needs_mosquitto]), "amqtt"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_carries_large_messages_and_restarts_on_its_port(kind: Kind, free_port: int) -> None:
    for _ in range(2):
        with Broker.start(free_port, kind=kind) as broker:
            assert (broker.port, broker.kind) == (free_port, kind)
            source = connected(mqtt_source(free_port, "source"))
            with closing(source), closing(mqtt_sink(free_port, "sink")) as sink:
                sink.open()
                sink.write(large([1, 2, 3]))
                sink.flush()
                assert collect(source, 3) == [1, 2, 3]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_port_is_told(kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match="B306"):
            Broker.start(port, kind=kind)


def test_amqtt_says_why_it_cannot_start() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(Unavailable, match=r"B306 .*address already in use"),
    ):
        EmbeddedBroker(other.getsockname()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_with_us_even_when_we_are_killed(kind: Kind) -> None:
    program = (
        f"import time; from boucle.bus.broker import Broker; b = Broker.start(kind='{kind}'); "
        "print(b.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.stdout.close()
    assert psutil.pid_exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pid)


def large(numbers: list[int]) -> Block:
    """Messages of 12 kB, as a machine's 100 ms of three axes at 10 kHz are."""
    block = messages(numbers)
    payloads = pa.array([str(number).ljust(12_000).encode() for number in numbers], pa.binary())
    return Block(block.stream, block.rows.set_column(1, WIRE.field(1), payloads), 0, block.position)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
