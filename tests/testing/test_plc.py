"""The PLC says no by status code, to any OPC UA client; its fake is an honest actuator."""

import asyncio
import math
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from asyncua import Client, ua

from boucle.clock import SECOND
from boucle.errors import BoucleError, Unavailable
from boucle.event import Command, Outcome
from boucle.ports import Actuator
from boucle.testing import FakePlc, ManualClock, PlcLogic, PlcServer
from boucle.testing.plc import SIGNALS
from boucle.testing.plcserver import NAMESPACE

START = 1_800_000_000 * SECOND
SETPOINT = "press-1.speed_setpoint"


def command(value: Any, identity: str = "c1", target: str = "plc/press-1/speed_setpoint") -> Command:
    return Command(id=identity, target=target, verb="set", value=value, not_after=START + 5 * SECOND)


@pytest.fixture
def logic() -> PlcLogic:
    return PlcLogic(["press-1", "press-2"], ManualClock(START))


@pytest.fixture
def fake(logic: PlcLogic) -> FakePlc:
    plc = FakePlc(logic)
    plc.open()
    return plc


def test_the_fake_is_an_actuator(fake: FakePlc) -> None:
    assert isinstance(fake, Actuator)
    receipt = fake.send(command(30))
    assert (receipt.outcome, receipt.before, receipt.read_back) == (Outcome.applied, 40, 30)
    assert fake.read("plc/press-1/speed_setpoint") == 30


def test_a_command_sent_twice_moves_the_machine_once(fake: FakePlc) -> None:
    fake.send(command(30))
    fake.logic.set("press-1", "speed_setpoint", 36)
    assert fake.send(command(30)).outcome is Outcome.duplicate
    assert fake.read("plc/press-1/speed_setpoint") == 36


REFUSED: list[tuple[Callable[[PlcLogic], None], Any, str, str]] = [
    (lambda _: None, 45, "BadOutOfRange", "out_of_bounds"),
    (lambda _: None, 19.9, "BadOutOfRange", "out_of_bounds"),
    (lambda _: None, math.nan, "BadOutOfRange", "out_of_bounds"),
    (lambda _: None, "fast", "BadTypeMismatch", "type"),
    (lambda plc: plc.set("press-1", "interlock", True), 30, "BadUserAccessDenied", "interlock"),
    (lambda plc: plc.set("press-1", "emergency_stop", True), 30, "BadUserAccessDenied", "emergency_stop"),
    (lambda plc: plc.set("press-1", "mode", "manual"), 30, "BadInvalidState", "mode"),
    (lambda plc: plc.set("press-1", "speed_max", 25), 30, "BadOutOfRange", "out_of_bounds"),
]


@pytest.mark.parametrize(("prepare", "value", "status", "code"), REFUSED)
def test_what_the_plc_refuses(
    fake: FakePlc, prepare: Callable[[PlcLogic], None], value: Any, status: str, code: str
) -> None:
    prepare(fake.logic)
    receipt = fake.send(command(value))
    assert (receipt.outcome, receipt.code, receipt.read_back) == (Outcome.refused, code, 40)
    assert receipt.why.startswith(status)
    assert fake.logic.value("press-2", "interlock") is False


def test_only_the_set_point_can_be_written(fake: FakePlc) -> None:
    assert fake.send(command(60, target="plc/press-1/speed_max")).code == "not_writable"
    assert fake.send(command(30, "c2", target="plc/press-9/speed_setpoint")).code == "unknown_target"
    with pytest.raises(BoucleError, match="press-9"):
        fake.read("plc/press-9/speed_setpoint")


def test_an_unreachable_plc_is_unavailable_and_untouched(fake: FakePlc) -> None:
    fake.reachable = False
    with pytest.raises(Unavailable):
        fake.send(command(30))
    with pytest.raises(Unavailable):
        fake.read("plc/press-1/speed_setpoint")
    fake.reachable = True
    assert fake.send(command(30)).outcome is Outcome.applied
    fake.close()
    assert fake.state() == "not open"


def test_a_spoilt_signal_has_no_value(fake: FakePlc) -> None:
    fake.logic.spoil("press-1", "motor_current")
    with pytest.raises(Unavailable, match="BadSensorFailure"):
        fake.read("plc/press-1/motor_current")
    fake.logic.spoil("press-1", "motor_current", "Good")
    assert fake.read("plc/press-1/motor_current") == 0


def test_people_at_the_machine_are_not_limited_but_types_are(logic: PlcLogic) -> None:
    logic.set("press-1", "interlock", True)
    logic.set("press-1", "speed_setpoint", 60)
    assert logic.value("press-1", "speed_setpoint") == 60
    for signal, value in (("mode", "sleeping"), ("interlock", 1), ("speed_max", "high"), ("speed_min", True)):
        with pytest.raises(BoucleError, match=signal):
            logic.set("press-1", signal, value)


def test_a_scan_renews_values_but_never_the_set_point(logic: PlcLogic) -> None:
    heard: list[Any] = []
    logic.listen(heard.extend)
    later = START + SECOND
    logic.scan([(later, "press-1", "motor_current", 55.0), (later, "press-1", "speed_setpoint", 12.0)])
    assert [(tag.signal, tag.value, tag.at) for tag in heard] == [
        ("motor_current", 55.0, later),
        ("speed_setpoint", 40.0, later),
    ]
    logic.scan([(START, "press-1", "motor_current", 1.0)])
    assert logic.value("press-1", "motor_current") == 55, "older than what is held"


# Starting asyncua costs seconds: one server for the file, healthy again before each test.


@pytest.fixture(scope="module")
def served() -> Iterator[PlcServer]:
    with PlcServer(PlcLogic(["press-1", "press-2"], ManualClock(START))) as server:
        yield server


@pytest.fixture
def server(served: PlcServer) -> PlcServer:
    for signal in ("interlock", "emergency_stop", "mode", "speed_min", "speed_max", "speed_setpoint"):
        served.logic.set("press-1", signal, SIGNALS[signal])
    return served


def talk(server: PlcServer, work: Callable[[Client, int], Coroutine[Any, Any, None]]) -> None:
    async def session() -> None:
        async with Client(server.url) as client:
            await work(client, await client.get_namespace_index(NAMESPACE))

    asyncio.run(session())


async def write(client: Client, index: int, value: Any, node: str = SETPOINT) -> str:
    try:
        await client.get_node(f"ns={index};s={node}").write_value(value)
    except ua.UaStatusCodeError as error:
        return type(error).__name__
    return "Good"


def test_the_address_space(server: PlcServer) -> None:
    async def work(client: Client, index: int) -> None:
        assert index == 2
        for signal, value in SIGNALS.items():
            node = client.get_node(f"ns={index};s=press-2.{signal}")
            found = (await node.read_data_value()).Value
            assert isinstance(found.Value, type(value))
            assert await node.read_browse_name() == ua.QualifiedName(signal, index)
        folder = client.get_node(f"ns={index};s=press-2")
        assert len(await folder.get_children()) == len(SIGNALS)

    talk(server, work)


def test_a_client_can_slow_a_press_and_read_it_back(server: PlcServer) -> None:
    async def work(client: Client, index: int) -> None:
        assert await write(client, index, 30.0) == "Good"
        assert await client.get_node(f"ns={index};s={SETPOINT}").read_value() == 30.0

    talk(server, work)
    assert server.logic.value("press-1", "speed_setpoint") == 30


def test_a_client_sees_every_refusal_as_a_status(server: PlcServer) -> None:
    async def work(client: Client, index: int) -> None:
        logic = server.logic
        assert await write(client, index, 45.0) == "BadOutOfRange"
        assert await write(client, index, math.nan) == "BadOutOfRange"
        assert await write(client, index, "fast") == "BadTypeMismatch"
        assert await write(client, index, 30) == "BadTypeMismatch", "an integer is no Double"
        assert await write(client, index, 60.0, "press-1.speed_max") == "BadNotWritable"
        assert await write(client, index, False, "press-1.interlock") == "BadNotWritable"
        assert await write(client, index, 30.0, "press-9.speed_setpoint") == "BadNodeIdUnknown"
        for lock in ("interlock", "emergency_stop"):
            logic.set("press-1", lock, True)
            assert await write(client, index, 30.0) == "BadUserAccessDenied"
            logic.set("press-1", lock, False)
        logic.set("press-1", "mode", "manual")
        assert await write(client, index, 30.0) == "BadInvalidState"
        assert await write(client, index, 30.0, "press-2.speed_setpoint") == "Good", "the other press is free"
        assert await client.get_node(f"ns={index};s={SETPOINT}").read_value() == 40.0
        name = ua.DataValue(ua.Variant(ua.LocalizedText("mine")))
        with pytest.raises(ua.UaStatusCodeError):
            await client.get_node(f"ns={index};s={SETPOINT}").write_attribute(
                ua.AttributeIds.DisplayName, name
            )

    talk(server, work)


def test_values_carry_event_time_and_quality(server: PlcServer) -> None:
    at = server.logic.clock.now() + 5 * SECOND + 99_900_000

    async def work(client: Client, index: int) -> None:
        node = client.get_node(f"ns={index};s=press-1.motor_current")
        server.logic.scan([(at, "press-1", "motor_current", 61.5)])
        found = await _until(node, lambda value: value.Value.Value == 61.5)
        assert found.SourceTimestamp.timestamp() == pytest.approx(at / SECOND, abs=1e-6)
        server.logic.spoil("press-1", "motor_current", "BadSensorFailure")
        found = await _until(node, lambda value: not value.StatusCode.is_good())
        assert found.StatusCode.name == "BadSensorFailure"
        server.logic.spoil("press-1", "motor_current", "Good")
        await _until(node, lambda value: value.StatusCode.is_good() and value.Value.Value == 61.5)

    talk(server, work)


async def _until(node: Any, reached: Callable[[Any], bool]) -> Any:
    for _ in range(500):
        found = await node.read_data_value(raise_on_bad_status=False)
        if reached(found):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(found)


def test_it_goes_away_and_comes_back_on_the_same_port(server: PlcServer) -> None:
    async def work(client: Client, index: int) -> None:
        del client
        assert await write_anew(server, index, 31.0) == "Good"

    talk(server, work)
    port = server.port
    for _ in range(3):
        server.stop()
        server.stop()
        with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port), 1):
            pass
        server.logic.set("press-1", "speed_setpoint", 33.0)  # what happens meanwhile is not lost
        server.start()
        server.start()
    assert server.port == port

    async def check(client: Client, index: int) -> None:
        assert await client.get_node(f"ns={index};s={SETPOINT}").read_value() == 33.0

    talk(server, check)


async def write_anew(server: PlcServer, index: int, value: float) -> str:
    async with Client(server.url) as client:
        return await write(client, index, value)


def test_a_taken_port_is_said(server: PlcServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        second = PlcServer(server.logic, taken.getsockname()[1])
        with pytest.raises(Unavailable, match="cannot listen"):
            second.start()
        second.close()
