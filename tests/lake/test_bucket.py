"""Tables in an S3 bucket keep every rule of tables in a folder; a server that goes away loses and doubles nothing."""

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import SystemClock
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.history import restore
from boucle.lake.place import Bucket
from boucle.lake.span import backfill
from boucle.lake.upkeep import compact, order, vacuum
from boucle.lake.whole import Lake
from boucle.lake.writer import Feed, LakeWriter
from boucle.refine.run import refine
from boucle.refine.transform import transforms_of
from boucle.testing.conformance.table import START, TABLE_CHECKS, OpenTable, readings, rows_of
from tests.conftest import unused_port
from tests.lake.bucket import KEYS, Server, find_minio
from tests.refine.payments import payments, shop

STEP = 1_000_000_001


@pytest.fixture(scope="module", params=["moto", pytest.param("minio", marks=pytest.mark.real)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "minio" and find_minio() is None:
        pytest.skip(
            "MinIO is not installed: GOBIN=build/minio go install github.com/minio/minio@latest (minutes)"
        )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        made = Server(request.param, unused_port(), tmp_path_factory.mktemp("bucket"))
        yield made
        made.stop()


@pytest.fixture
def somewhere(server: Server) -> str:
    """An address of a lake nobody used before."""
    return server.address(f"lake-{uuid.uuid4().hex[:8]}")


@pytest.mark.parametrize("check", TABLE_CHECKS, ids=lambda check: check.__name__)
def test_table(check: Callable[[OpenTable], None], somewhere: str) -> None:
    check(lambda name: LakeTable(Lake(somewhere).path("silver", name)))


def test_upkeep_in_a_bucket(somewhere: str) -> None:
    table = LakeTable(Lake(somewhere).path("silver", "readings"))
    for number in range(4):
        table.append(readings(number, 1), app="w", transaction=number)
    before = rows_of(table)
    compact(table)
    order(table, ["value"])
    backfill(table, [readings(1, 1)], START + STEP, START + 2 * STEP)
    assert rows_of(table) == before
    version = table.version
    table.append(readings(9, 1))
    restore(table, version)
    assert rows_of(table) == before
    import time

    assert vacuum(table, 0, now=time.time() + 7200).files > 0
    assert rows_of(table) == before
    assert table.transaction("w") == 3
    assert [one.name for one in Lake(somewhere).tables()] == ["readings"]


def test_writers_that_race_are_told_apart_by_conditional_puts(somewhere: str) -> None:
    address = Lake(somewhere).path("silver", "raced")
    LakeTable(address).append(readings(0, 1))
    problems: list[BoucleError] = []

    def write(first: int) -> None:
        table = LakeTable(address)
        for number in range(3):
            try:
                table.append(readings(first + number, 1), app=f"w{first}", transaction=number + 1)
            except BoucleError as error:
                problems.append(error)

    threads = [threading.Thread(target=write, args=(first,)) for first in (10, 20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert problems == []
    assert [row["value"] for row in rows_of(LakeTable(address))] == [0.0, 10.0, 11.0, 12.0, 20.0, 21.0, 22.0]


def test_refining_in_a_bucket(somewhere: str, tmp_path: Path) -> None:
    lake = Lake(somewhere)
    table = LakeTable(lake.path("raw", "payments"), partition_by=("day",))
    for amount in (5.0, 3.0):
        table.append(payments((int(amount), 0, "a", amount)))
        states = [refine(one, lake, tmp_path / "work").state for one in transforms_of(shop())]
        assert states == ["published", "published"]
    (block,) = lake.find("spent").scan()
    assert block.rows.column("spent").to_pylist() == [8.0]


def test_a_server_that_goes_away_is_waited_for(server: Server, somewhere: str, tmp_path: Path) -> None:
    if server.kind == "moto":
        pytest.skip("moto keeps its bucket in memory: it cannot come back with it; see MinIO")
    log = EventLog(tmp_path / "log", stream="readings")
    log.open()
    table = LakeTable(Lake(somewhere).path("silver", "readings"))
    writer = LakeWriter([Feed(log, table)], SystemClock(), seconds=0.0)

    def say(first: int) -> None:
        log.append(Block("readings", readings(first, 5).rows, 0, Position("readings", first + 5)))
        log.flush()

    say(0)
    assert writer.step(force=True) == 5
    server.stop()
    say(5)
    assert writer.step(force=True) == 0
    assert writer.failures["readings"].code == "B504"
    server.start()
    say(10)
    assert writer.step(force=True) == 10
    assert writer.failures == {}
    assert [row["value"] for row in rows_of(table)] == [float(number) for number in range(15)]
    log.close()


@pytest.mark.parametrize(
    "address", ["s3://", "s3://bucket", "s3:bucket/x", "s3://b/x?secret=y", "s3://b/x?endpoint=e&key=z"]
)
def test_an_address_that_cannot_be_meant(address: str) -> None:
    with pytest.raises(BoucleError, match="B520"):
        Bucket(address)
