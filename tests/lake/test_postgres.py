"""Tables in PostgreSQL: the rows and how far they go are one transaction, on a real server."""

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from boucle.address import parse_address
from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.errors import BoucleError, Unavailable
from boucle.lake.postgres import PostgresTable
from tests.lake.server import PostgresServer

pytestmark = pytest.mark.real
START = 1_790_000_000_000_000_000
APP = "boucle/readings"


@pytest.fixture
def fresh(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[PostgresTable]:
    """A table of its own for each test."""
    table = PostgresTable(
        parse_address(postgres.address, "table"), f"t{abs(hash(request.node.name))}", "silver"
    )
    yield table
    table.close()


def block(first: int, count: int, **more: Any) -> Block:
    at = pa.array(range(START + first, START + first + count), pa.timestamp("ns", tz="UTC"))
    columns = {"machine": ["press-1"] * count, "at": at, "seq": list(range(first, first + count)), **more}
    return Block("readings", pa.record_batch(columns), 0, Position("readings", first + count))


def ask(server: PostgresServer, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(server.address) as connection:
        return connection.execute(text.encode()).fetchall()


def test_rows_come_with_their_transaction(postgres: PostgresServer, fresh: PostgresTable) -> None:
    assert (fresh.transaction(APP), fresh.version, fresh.rows) == (None, -1, 0)
    assert fresh.append([block(0, 3), block(3, 2)], app=APP, transaction=5, after=0) == 0
    assert fresh.append(block(5, 1), app=APP, transaction=6, after=5) == 1
    assert fresh.append(block(5, 1), app=APP, transaction=6, after=5) == 1, "the same again changes nothing"
    again = PostgresTable(parse_address(postgres.address, "table"), fresh.name, "silver")
    assert (again.transaction(APP), again.rows, again.version) == (6, 6, 1)
    again.close()
    found = ask(postgres, f"select seq, at, at_ns from silver.{fresh.name} order by seq")
    assert [row[0] for row in found] == list(range(6))
    assert found[4][1] == dt.datetime.fromtimestamp(START // 10**9, dt.UTC)
    assert found[4][2] == 4, "no nanosecond is lost"


def test_one_that_was_overtaken_writes_nothing(fresh: PostgresTable) -> None:
    fresh.append(block(0, 3), app=APP, transaction=3, after=0)
    with pytest.raises(BoucleError, match="B509"):
        fresh.append(block(3, 3), app=APP, transaction=9, after=6)
    assert (fresh.transaction(APP), fresh.rows) == (3, 3)


def test_every_type_and_columns_that_come_later(postgres: PostgresServer, fresh: PostgresTable) -> None:
    fresh.append(block(0, 1), app=APP, transaction=1, after=0)
    wide = {
        "level": pa.array([0.1], pa.float32()),
        "wave": pa.array([[1.0, float("nan")]], pa.list_(pa.float64())),
        "good": [True],
        "raw": [b"\x00\xff"],
        "said": [{"en": "worn", "bands": [1, 2]}],
        "word": pa.array([None], pa.string()),
        "family": pa.array(["wear"]).dictionary_encode(),
    }
    fresh.append(block(1, 1, **wide), app=APP, transaction=2, after=1)
    names = "level, wave::text, good, raw, said, word, family"
    old, new = ask(postgres, f"select {names} from silver.{fresh.name} order by seq")
    assert old == (None,) * 7
    level, wave, good, raw, said, word, family = new
    assert level == pytest.approx(0.1)
    assert (wave, good, raw, word, family) == ("{1,NaN}", True, b"\x00\xff", None, "wear")
    assert said == {"en": "worn", "bands": [1, 2]}
    with pytest.raises(BoucleError, match="B502"):
        fresh.append(block(2, 1, good=["yes"]), app=APP, transaction=3, after=2)


def test_what_the_server_refuses_is_told_and_leaves_nothing(fresh: PostgresTable) -> None:
    fresh.append(block(0, 1, word=["well"]), app=APP, transaction=1, after=0)
    with pytest.raises(BoucleError, match="B514"):
        fresh.append(
            [block(1, 1, word=["well"]), block(2, 1, word=["a\x00b"])], app=APP, transaction=3, after=1
        )
    assert (fresh.transaction(APP), fresh.rows) == (1, 1)


def test_a_server_that_is_away_is_asked_again(postgres: PostgresServer, fresh: PostgresTable) -> None:
    fresh.append(block(0, 1), app=APP, transaction=1, after=0)
    postgres.stop()
    try:
        with pytest.raises(Unavailable, match="B515"):
            fresh.append(block(1, 1), app=APP, transaction=2, after=1)
    finally:
        postgres.start()
    assert fresh.append(block(1, 1), app=APP, transaction=2, after=1) == 1
    assert fresh.transaction(APP) == 2


def test_killed_at_any_moment_every_row_is_there_once(postgres: PostgresServer, tmp_path: Path) -> None:
    with_rows = EventLog(tmp_path / "log", stream="readings")
    for first in range(0, 10_000, 20):
        with_rows.append(block(first, 20))
    with_rows.close()
    words = [
        sys.executable,
        "-m",
        "tests.lake.killed_writer",
        postgres.address,
        str(tmp_path / "log"),
        "30",
        "1",
    ]
    done = subprocess.run(words, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    met, written = map(int, done.stdout.split())
    assert met >= 20
    assert 500 < written <= 10_000, "some died after a few commits"
    assert ask(postgres, "select count(*), count(distinct seq), max(seq) from raw.killed") == [
        (10_000, 10_000, 9999)
    ]
    progress = ask(postgres, 'select "transaction", "rows" from boucle.progress where "table" = \'killed\'')
    assert progress == [(10_000, 10_000)]
