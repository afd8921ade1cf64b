"""Over a real mosquitto: nothing lost at QoS 1, whoever goes away and whenever."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from boucle.address import parse_address
from boucle.bus.broker import Broker
from boucle.bus.mqtt import MqttSink, MqttSource
from boucle.errors import BoucleError, ContractBroken, Unavailable
from boucle.ports import WIRE
from tests.bus.benches import messages, mqtt_sink, mqtt_source, numbered, payloads_of

pytestmark = pytest.mark.real


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    assert true()


def connected(source: MqttSource) -> MqttSource:
    source.open()
    until(lambda: source.state() == "connected")
    return source


def collect(source: MqttSource, count: int, seconds: float = 20, *, commit: bool = True) -> list[int]:
    """Payloads until `count` different ones came."""
    found: list[int] = []
    end = time.monotonic() + seconds
    while len(set(found)) < count and time.monotonic() < end:
        block = source.poll(0.2)
        if block is not None:
            found += payloads_of(block)
            if commit:
                source.commit(block.position)
    return found


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Client ids that no other test uses: their sessions live as long as the broker."""
    return lambda name: f"{name}-{abs(hash(request.node.nodeid))}"


def publish(port: int, topic: str, payload: bytes, *, retain: bool = False) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(topic, payload, 1, retain=retain).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def test_blocks_are_wire_blocks(mosquitto: Broker, names: Callable[[str], str]) -> None:
    before = time.time_ns()
    with closing(connected(mqtt_source(mosquitto.port, names("a")))) as source:
        publish(mosquitto.port, "press/press-2/vibration", b"7")
        block = source.poll(10)
    assert block is not None
    assert block.rows.schema == WIRE
    assert block.stream == block.position.partition == "vibration"
    assert block.rows.column("topic").to_pylist() == ["press/press-2/vibration"]
    assert block.rows.column("payload").to_pylist() == [b"7"]
    assert block.rows.column("retained").to_pylist() == [False]
    assert before - 10**9 < block.rows.column("received")[0].value < time.time_ns() + 10**9


def test_retained_is_told(mosquitto: Broker, names: Callable[[str], str]) -> None:
    publish(mosquitto.port, "press/retained/vibration", b"1", retain=True)
    try:
        with closing(connected(mqtt_source(mosquitto.port, names("a")))) as source:
            first = source.poll(10)
            publish(mosquitto.port, "press/retained/vibration", b"2")
            second = source.poll(10)
    finally:
        publish(mosquitto.port, "press/retained/vibration", b"", retain=True)
    assert first is not None
    assert second is not None
    assert first.rows.column("retained").to_pylist() == [True]
    assert second.rows.column("retained").to_pylist() == [False]


def test_the_broker_keeps_for_us_what_comes_while_we_are_away(
    mosquitto: Broker, names: Callable[[str], str]
) -> None:
    connected(mqtt_source(mosquitto.port, names("a"))).close()
    with closing(mqtt_sink(mosquitto.port, names("b"))) as sink:
        sink.open()
        sink.write(messages(range(30)))
        sink.flush()
    with closing(connected(mqtt_source(mosquitto.port, names("a")))) as source:
        assert collect(source, 30) == list(range(30))


def test_a_full_queue_holds_the_broker_back(mosquitto: Broker, names: Callable[[str], str]) -> None:
    with (
        closing(connected(mqtt_source(mosquitto.port, names("a"), queue_blocks=5))) as source,
        closing(mqtt_sink(mosquitto.port, names("b"))) as sink,
    ):
        sink.open()
        sink.write(messages(range(500)))
        sink.flush()
        until(lambda: source.waits > 0)
        assert source.waiting == 5
        assert collect(source, 500) == list(range(500))
        assert source.waiting == 0


def test_far_more_than_twenty_may_be_uncommitted(mosquitto: Broker, names: Callable[[str], str]) -> None:
    """mosquitto's own limit is 20 in flight: a loop that commits once a second would starve."""
    with (
        closing(connected(mqtt_source(mosquitto.port, names("a"), queue_blocks=4000))) as source,
        closing(mqtt_sink(mosquitto.port, names("b"))) as sink,
    ):
        sink.open()
        sink.write(messages(range(2000)))
        sink.flush()
        assert collect(source, 2000, commit=False) == list(range(2000))


def test_restarts_of_the_broker_lose_nothing(tmp_path: Path, free_port: int) -> None:
    source = mqtt_source(free_port, "source")
    sink = mqtt_sink(free_port, "sink", timeout=30)
    with closing(source), closing(sink):
        source.open()
        sink.open()
        assert source.poll(0.2) is None
        assert "no connection" in source.state()
        broker = Broker.start(free_port, kind="mosquitto", keep=tmp_path)
        until(lambda: source.state() == "connected")
        writing = threading.Thread(target=_slowly, args=(sink, range(120)))
        writing.start()
        found = collect(source, 30)
        for _ in range(2):
            broker.stop()
            time.sleep(0.3)
            broker = Broker.start(free_port, kind="mosquitto", keep=tmp_path)
            found += collect(source, 30)
        writing.join()
        sink.flush()
        while set(found) != set(range(120)):
            more = collect(source, 1, seconds=10)
            assert more, f"lost: {sorted(set(range(120)) - set(found))}"
            found += more
        broker.stop()


def _slowly(sink: MqttSink, numbers: range) -> None:
    for number in numbers:
        sink.write(messages([number]))
        time.sleep(0.01)


def test_qos_0_and_shared_subscriptions(mosquitto: Broker, names: Callable[[str], str]) -> None:
    options = f"qos=0&share={names('group')}"
    first = mqtt_source(mosquitto.port, names("a"), options=options)
    second = mqtt_source(mosquitto.port, names("b"), options=options)
    assert first.facts.delivery == "at-most-once"
    with (
        closing(connected(first)),
        closing(connected(second)),
        closing(mqtt_sink(mosquitto.port, names("c"))) as sink,
    ):
        sink.open()
        sink.write(messages(range(40)))
        sink.flush()
        end = time.monotonic() + 20
        found: list[int] = []
        while len(found) < 40 and time.monotonic() < end:
            found += collect(first, 1, 0.3) + collect(second, 1, 0.3)
        assert sorted(found) == list(range(40))


def test_a_sink_without_a_broker_says_so_and_is_bounded(free_port: int) -> None:
    sink = MqttSink(
        parse_address(f"mqtt://127.0.0.1:{free_port}/", "sink"), client_id="x", buffer_messages=5, timeout=0.2
    )
    sink.open()
    sink.write(messages(range(5)))
    with pytest.raises(Unavailable, match="B301"):
        sink.write(messages([6]))
    with pytest.raises(Unavailable, match=r"5 messages are not acknowledged.*Fix: start the broker"):
        sink.flush()
    with pytest.raises(Unavailable):
        sink.close()
    sink.close()


def test_a_sink_refuses_what_is_no_message(mosquitto: Broker, names: Callable[[str], str]) -> None:
    with closing(mqtt_sink(mosquitto.port, names("a"))) as sink:
        sink.open()
        block = messages([1])
        with pytest.raises(ContractBroken, match="B303"):
            sink.write(type(block)("x", numbered([1]), 0, block.position))
        sink.write(messages([1], topic="press/+/vibration"))
        with pytest.raises(BoucleError, match="B304"):
            sink.flush()


def test_addresses_that_cannot_work(free_port: int) -> None:
    with pytest.raises(BoucleError, match="B206"):
        mqtt_source(free_port, "x", options="qos=2")
    address = parse_address("mqtts://127.0.0.1/press?ca=/nowhere.pem", "source")
    with pytest.raises(BoucleError, match="B302"):
        MqttSource(address, "vibration", client_id="x")


def test_a_peer_that_speaks_nonsense_is_left_and_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answered = threading.Event()

        def talk() -> None:
            for answer in (
                b"\x20\x02",
                b"\xff" * 64,
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                b"\x20\x02\x00\x05",
            ):
                peer, _ = server.accept()
                with peer:
                    peer.settimeout(5)
                    peer.recv(1000)
                    peer.sendall(answer)
            answered.set()

        thread = threading.Thread(target=talk)
        thread.start()
        source = mqtt_source(server.getsockname()[1], "x")
        source.open()
        assert answered.wait(30)
        until(lambda: source.state() != "connected")
        assert source.poll(0.1) is None
        source.close()
        thread.join()
