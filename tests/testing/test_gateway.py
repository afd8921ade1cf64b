"""The line on a real broker: paced, complete, and patient when the broker goes away."""

import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from boucle.clock import SECOND, ScaledClock
from boucle.testing import Disturbance, Gateway, ManualClock, Operation, PlcLogic, PressLine, Scenario
from boucle.testing.plcserver import free_port
from boucle.testing.sender import Sender

START = 1_800_000_000 * SECOND
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto: apt-get install mosquitto")


class Broker:
    """A mosquitto that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.file = folder / "mosquitto.conf"
        self.file.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        assert MOSQUITTO is not None
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self.file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until(listens)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    server = Broker(tmp_path)
    yield server
    server.kill()


class Listener:
    """Everything that comes over `press/+/vibration`."""

    def __init__(self, broker: Broker) -> None:
        self.payloads: list[bytes] = []
        self.ready = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self.client.on_connect = lambda client, *_: client.subscribe("press/+/vibration", qos=1)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = lambda _client, _data, message: self.payloads.append(bytes(message.payload))
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert self.ready.wait(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def until(reached: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.real
@needs_mosquitto
def test_what_is_counted_as_sent_is_what_arrives(broker: Broker) -> None:
    broker.start()
    listener = Listener(broker)
    disturbances = (Disturbance(kind="malformed", times=(1,)), Disturbance(kind="duplicate", times=(2,)))
    line = PressLine(Scenario(disturbances=disturbances), seed=1)
    clock = ScaledClock(5, START)
    with Gateway(line, clock, broker.address) as gateway:
        until(lambda: line.elapsed >= 4)
        gateway.pause()
        assert gateway.drain(10)
        sent = gateway.sent
    until(lambda: len(listener.payloads) >= sent.messages)
    listener.close()
    ticks = round(line.elapsed * 10)
    assert sent.messages == len(listener.payloads) == 3 * ticks + 2
    assert sent.readings == 9 * ticks + 1 + 3
    assert (sent.waiting, sent.dropped_messages) == (0, 0)
    assert len(line.injections) == 2


@pytest.mark.real
@needs_mosquitto
def test_an_absent_broker_is_waited_for_and_a_lost_one_found_again(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    line = PressLine(Scenario(machines=("press-1",)), seed=1)
    gateway = Gateway(line, ScaledClock(4, START), broker.address)
    with caplog.at_level(logging.WARNING, "boucle.testing"):
        gateway.start()
        until(lambda: line.elapsed >= 1)
        assert "no broker at" in gateway.state()
        assert gateway.sent.messages == 0
        broker.start()
        until(lambda: gateway.state() == "connected")
        listener = Listener(broker)
        until(lambda: gateway.sent.messages >= 10)
        broker.kill()
        until(lambda: "gone" in gateway.state() or "no broker" in gateway.state())
        here = line.elapsed
        until(lambda: line.elapsed >= here + 2)
        assert gateway.sent.waiting >= 10
        broker.start()
        gateway.pause()
        assert gateway.drain(20)
        gateway.stop()
    assert "keeping messages until it is back" in caplog.text
    assert gateway.sent.messages == round(line.elapsed * 10), "every chunk was acknowledged exactly once"
    assert gateway.sent.dropped_messages == 0
    listener.close()


def test_a_full_buffer_drops_the_oldest_and_says_how_many() -> None:
    line = PressLine(Scenario(machines=("press-1",)))
    gateway = Gateway(line, ManualClock(START), "127.0.0.1:1", limit=10)
    for _ in range(15):
        gateway.step()
    sent = gateway.sent
    assert (sent.waiting, sent.dropped_messages, sent.dropped_readings) == (10, 5, 15)
    gateway.stop()


def test_a_chunk_goes_out_at_the_time_of_its_last_sample() -> None:
    clock = ManualClock(START)
    plc = PlcLogic(["press-1"], clock)
    gateway = Gateway(PressLine(Scenario(machines=("press-1",)), start=START), clock, plc=plc)
    tick = gateway.step()
    assert tick.last == START + 99_900_000
    assert clock.now() == tick.last + 70_000_000, "the PLC scans out of phase with the acquisition"
    assert gateway.behind_s == 0
    assert plc.tag("press-1", "bearing_temperature").at == tick.last
    assert plc.value("press-1", "bearing_temperature") > 30
    assert gateway.process_rows == 8


def test_set_points_reach_the_press_and_peoples_changes_reach_the_plc() -> None:
    clock = ManualClock(START)
    plc = PlcLogic(["press-1"], clock)
    change = Operation(machine="press-1", at=3, speed=36)
    line = PressLine(Scenario(machines=("press-1",), operation=(change,)), start=START)
    gateway = Gateway(line, clock, plc=plc)
    gateway.step()
    assert plc.write("press-1", "speed_setpoint", 30) is None
    for _ in range(25):
        gateway.step()
    assert line.state("press-1").setpoint == 30
    assert plc.value("press-1", "speed_setpoint") == 30
    assert plc.value("press-1", "speed_actual") < 33
    for _ in range(10):
        gateway.step()
    assert plc.value("press-1", "speed_setpoint") == line.state("press-1").setpoint == 36


def test_a_line_that_cannot_keep_up_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(START)
    gateway = Gateway(PressLine(Scenario(machines=("press-1",)), start=START), clock)
    gateway.step()
    clock.advance(5)
    with caplog.at_level(logging.WARNING, "boucle.testing"):
        for _ in range(3):
            gateway.step()
    assert gateway.behind_s > 4
    assert caplog.text.count("cannot keep up") == 1


def test_it_begins_on_the_next_chunk_of_the_clock() -> None:
    line = PressLine(Scenario(machines=("press-1",)))
    gateway = Gateway(line, ScaledClock(10, START + 12_345))
    gateway.start()
    until(lambda: line.elapsed > 0)
    gateway.stop()
    gateway.stop()
    assert line.start >= START + SECOND // 10
    assert line.start % (SECOND // 10) == 0
    assert gateway.failure is None


def test_a_sender_that_never_started_stops_quietly() -> None:
    sender = Sender("127.0.0.1:1", "nobody")
    assert sender.state() == "not started"
    sender.stop()
    assert sender.state() == "stopped"
