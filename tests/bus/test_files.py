"""Files are read as they are, paced as asked, and what is wrong with them is said."""

import csv
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boucle.address import parse_address
from boucle.block import Block, Position
from boucle.bus.files import FileSource
from boucle.errors import BoucleError, PositionLost
from boucle.testing.clock import ManualClock

SKAB = Path("../shared/data/skab/skab.parquet")


def opened(path: Path | str, options: str = "", **settings: Any) -> FileSource:
    source = FileSource(parse_address(f"file://{path}?{options}", "source"), "readings", **settings)
    source.open()
    return source


def blocks(source: FileSource) -> list[Block]:
    found = []
    with closing(source):
        while source.state() != "finished":
            block = source.poll(1.0)
            if block is not None:
                found.append(block)
    return found


def write_csv(file: Path, delimiter: str = ",") -> Path:
    with file.open("w", newline="") as out:
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerow(["datetime", "line", "value"])
        writer.writerows([f"2026-01-01 00:00:{second:02}", second % 2, second / 2] for second in range(10))
    return file


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_time_column_becomes_at_and_rows_are_chosen(tmp_path: Path, delimiter: str) -> None:
    file = write_csv(tmp_path / "run.csv", delimiter)
    found = blocks(opened(file, "time=datetime&where=line:1&rows=4"))
    rows = [row for block in found for row in block.rows.to_pylist()]
    assert [row["value"] for row in rows] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert found[0].rows.schema.field("at").type == pa.timestamp("ns", tz="UTC")
    assert rows[0]["at"].isoformat() == "2026-01-01T00:00:01+00:00"
    assert [block.position.offset for block in found] == [4, 8, 10]


def test_times_may_be_numbers(tmp_path: Path) -> None:
    file = tmp_path / "run.parquet"
    pq.write_table(pa.table({"t": [1.5, 2.25]}), file)
    rows = blocks(opened(file, "time=t&unit=s"))[0].rows
    assert rows.column("at").cast(pa.int64()).to_pylist() == [1_500_000_000, 2_250_000_000]


def test_several_files_follow_each_other(tmp_path: Path) -> None:
    for name in ("b", "a"):
        pq.write_table(pa.table({"name": [name] * 3}), tmp_path / f"{name}.parquet")
    found = blocks(opened(tmp_path / "*.parquet", "rows=2"))
    assert [name for block in found for name in block.rows.column("name").to_pylist()] == list("aaabbb")
    assert found[-1].position == Position("readings", 6)


def test_it_is_paced_by_the_clock(tmp_path: Path) -> None:
    clock = ManualClock()
    source = opened(write_csv(tmp_path / "run.csv"), "time=datetime&rows=2&pace=2", clock=clock)
    assert source.poll(0.1) is None
    assert clock.now() == 100_000_000
    assert source.poll(0.4) is not None
    assert clock.now() == 500_000_000
    assert source.poll(10) is not None
    assert clock.now() == 1_500_000_000
    source.close()


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    write_csv(tmp_path / "run.csv")
    with pytest.raises(BoucleError, match=r"B330 .*did you mean .*run\.csv"):
        opened(tmp_path / "rum.csv")


def test_a_missing_column_names_its_neighbour(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "run.csv")
    with pytest.raises(BoucleError, match=r'B332 .*did you mean "datetime"'):
        opened(file, "time=datetme")
    with pytest.raises(BoucleError, match=r"B332 .*it has: datetime, line, value"):
        opened(file, "where=q:1")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ndjson", ".csv", ".xlsx"])
def test_what_cannot_be_read_is_told(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"run{suffix}"
    file.write_bytes(b'{"a": \x00\xff' * 3)
    with pytest.raises(BoucleError, match=r"B331|B332|B333"):
        blocks(opened(file, "time=at"))


def test_times_that_are_none_are_told(tmp_path: Path) -> None:
    file = tmp_path / "run.csv"
    file.write_text("at,value\nsoon,1\n")
    with pytest.raises(BoucleError, match=r"B333 .*2026-01-31T12:00:00Z"):
        opened(file, "time=at")


def test_a_position_beyond_the_end_is_lost(tmp_path: Path) -> None:
    source = FileSource(parse_address(f"file://{write_csv(tmp_path / 'run.csv')}", "source"), "readings")
    with pytest.raises(PositionLost, match=r"B334"):
        source.open(Position("readings", 11))


@pytest.mark.skipif(not SKAB.exists(), reason=f"{SKAB} is not here: recorded data is not part of boucle")
def test_a_recorded_testbed_is_read_to_its_end() -> None:
    names = pq.read_schema(SKAB).names
    time = next(name for name in names if "time" in name.lower())
    found = blocks(opened(SKAB, f"time={time}&rows=10000"))
    assert sum(len(block) for block in found) == pq.read_metadata(SKAB).num_rows
    assert "at" in found[0].rows.schema.names
