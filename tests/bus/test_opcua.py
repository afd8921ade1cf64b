"""Over a real OPC UA server: quality carried, refusals told, nothing hangs, all comes back."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua import ua

from boucle.address import parse_address
from boucle.bus.opcua import PROCESS, OpcUaConnection, OpcUaSource
from boucle.errors import BoucleError, CommandRefused, Unavailable
from tests.bus.benches import shared_plc
from tests.bus.plc import NAMESPACE, TinyPlc


@pytest.fixture(scope="module")
def plc() -> TinyPlc:
    return shared_plc()


@pytest.fixture
def connection(plc: TinyPlc) -> Iterator[OpcUaConnection]:
    with closing(OpcUaConnection(plc.url, ns_uri=NAMESPACE)) as connection:
        connection.open()
        until(lambda: connection.state() == "connected")
        yield connection


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    assert true()


def source(url: str, sensors: list[str], **settings: Any) -> OpcUaSource:
    settings = {"ns_uri": NAMESPACE, "period": "40ms", **settings}
    address = parse_address(url, "source")
    return OpcUaSource(address, "process", machines=["press-1"], sensors=sensors, **settings)


def rows(source: OpcUaSource, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    end = time.monotonic() + 20
    while not enough(found) and time.monotonic() < end:
        block = source.poll(0.2)
        if block is not None:
            assert block.rows.schema == PROCESS
            found += block.rows.to_pylist()
    return found


def test_values_are_rows_and_a_bad_one_disturbs_no_other(plc: TinyPlc) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    with closing(source(plc.url, ["value", "flag", "name", "absent"])) as opened:
        opened.open()
        first = rows(opened, lambda found: len(found) >= 3)
        assert {row["sensor"] for row in first} == {"value", "flag", "name"}
        assert {row["sensor"]: row["value"] for row in first}["flag"] in {0.0, 1.0}
        assert {row["sensor"]: row["status"] for row in first}["name"] == "BadTypeMismatch"
        assert opened.state() == "connected, but press-1.absent: BadNodeIdUnknown"
        plc.set("flag", False, ua.StatusCodes.BadSensorFailure, at)
        plc.set("value", 42.5, at=at)
        later = rows(opened, lambda found: len(found) >= 2)
    told = {row["sensor"]: row for row in later}
    assert (told["value"]["value"], told["value"]["status"]) == (42.5, "Good")
    assert told["flag"]["status"] == "BadSensorFailure"
    assert told["value"]["at"] == told["flag"]["at"] == at
    assert told["value"]["machine"] == "press-1"
    plc.set("flag", True)


def test_rows_of_one_publish_come_as_one_block(plc: TinyPlc) -> None:
    with closing(source(plc.url, ["value", "flag", "name"])) as opened:
        opened.open()
        block = opened.poll(20)
        assert block is not None
        assert len(block) == 3
        assert block.position.offset == 3


def test_what_nobody_polls_is_counted(plc: TinyPlc) -> None:
    with closing(source(plc.url, ["value"], queue_blocks=2)) as opened:
        opened.open()
        until(lambda: opened.state() == "connected")
        for number in range(10):
            plc.set("value", float(number))
            time.sleep(0.06)
        until(lambda: opened.shed > 0)
        kept = rows(opened, lambda found: any(row["value"] == 9.0 for row in found))
        assert kept[-1]["value"] == 9.0
        assert opened.shed + len(kept) in {10, 11}  # two changes may share a publish of the server


def test_a_restart_of_the_server_is_survived(plc: TinyPlc, connection: OpcUaConnection) -> None:
    with closing(source(plc.url, ["value"])) as opened:
        opened.open()
        until(lambda: opened.state() == "connected")
        with plc.away():
            until(lambda: "no connection" in opened.state() and "no connection" in connection.state())
            started = time.monotonic()
            with pytest.raises(Unavailable, match="B321"):
                connection.write("press-1.value", 1.0)
            with pytest.raises(Unavailable):
                connection.read(["press-1.value"])
            assert time.monotonic() - started < 5
        plc.set("value", 77.0)
        assert rows(opened, lambda found: any(row["value"] == 77.0 for row in found))
        until(lambda: connection.state() == "connected")
        assert connection.read(["press-1.value"])[0].value == 77.0


def test_a_dead_subscription_is_noticed(plc: TinyPlc) -> None:
    """The node is newer than what the subscription told, and the subscription says nothing."""
    with closing(source(plc.url, ["value"], period=0.02, silent=5)) as opened:
        opened.open()
        plc.set("value", 1.0)
        assert rows(opened, lambda found: any(row["value"] == 1.0 for row in found))
        opened._latest["press-1.value"] -= 10**9  # as if the last value had never been told
        assert rows(opened, lambda found: any(row["value"] == 1.0 for row in found))
        until(lambda: opened.state() == "connected")


def test_a_value_that_stands_still_is_no_dead_subscription(plc: TinyPlc) -> None:
    with closing(source(plc.url, ["value"], period=0.02, silent=5)) as opened:
        opened.open()
        assert rows(opened, lambda found: len(found) >= 1)
        assert opened.poll(3.0) is None
        assert opened.state() == "connected"


def test_writes_are_cast_and_refusals_named(plc: TinyPlc, connection: OpcUaConnection) -> None:
    connection.write("press-1.value", 30)
    assert plc.value("value") == 30.0
    connection.write(f"ns={connection.node_id('x').NamespaceIndex};s=press-1.value", 31.5)
    assert plc.value("value") == 31.5
    with pytest.raises(CommandRefused) as refused:
        connection.write("press-1.flag", True)
    assert refused.value.why == "BadUserAccessDenied"
    with pytest.raises(CommandRefused) as unknown:
        connection.write("press-1.nowhere", 1)
    assert unknown.value.why == "BadNodeIdUnknown"


def test_reads_carry_status_and_time(plc: TinyPlc, connection: OpcUaConnection) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(microseconds=1)
    plc.set("value", 5.0, ua.StatusCodes.UncertainSensorNotAccurate, at)
    value, absent = connection.read(["press-1.value", "press-1.nowhere"])
    assert (value.value, value.status) == (5.0, "UncertainSensorNotAccurate")
    assert value.at == int(at.timestamp()) * 10**9 + 1000
    assert (absent.value, absent.status) == (None, "BadNodeIdUnknown")


def test_an_absent_server_hangs_nobody(free_port: int) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port}"
    with closing(source(url, ["value"])) as opened, closing(OpcUaConnection(url)) as connection:
        opened.open()
        connection.open()
        assert opened.poll(0.3) is None
        until(lambda: "no connection" in opened.state())
        with pytest.raises(Unavailable, match="B321"):
            connection.write("press-1.value", 1.0)


def test_a_wrong_namespace_is_told(plc: TinyPlc) -> None:
    with closing(OpcUaConnection(plc.url, ns_uri="urn:nobody")) as connection:
        connection.open()
        until(lambda: "no namespace urn:nobody" in connection.state())


def test_a_template_that_cannot_be_filled_in() -> None:
    with pytest.raises(BoucleError, match="B207"):
        source("opc.tcp://127.0.0.1:4840", ["value"], nodes="{machin}.{sensor}")
