"""Joined, ordered, expired, vacuumed, backfilled, restored, killed: the rows are those that should be there."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.lake.aside import is_aside, set_aside
from boucle.lake.commit import Action
from boucle.lake.delta import LakeTable
from boucle.lake.history import changes, restore, version_at, version_of, versions
from boucle.lake.span import backfill, from_file, merge_late
from boucle.lake.upkeep import compact, expire, order, vacuum
from boucle.testing.conformance.table import START, readings, rows_of
from tests.lake.killed_upkeep import LATE

STEP = SECOND + 1


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    return LakeTable(tmp_path / "silver" / "readings")


def values(table: LakeTable, version: int | None = None) -> list[float]:
    return [row["value"] for row in rows_of(table, **({} if version is None else {"version": version}))]


def test_killed_while_it_joins_replaces_and_vacuums_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.lake.killed_upkeep", str(tmp_path), "12", "7"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 12
    table = LakeTable(tmp_path / "silver" / "readings")
    last, late = table.transaction("w"), LakeTable(tmp_path / "raw" / "readings_late").transaction("w")
    assert last is not None
    assert late is not None
    assert values(table) == [float(n) for n in range(1, last + 1)] + [
        float(LATE + n) for n in range(1, late + 1)
    ]


def test_joining_beside_an_appending_writer_waits_for_nobody(table: LakeTable) -> None:
    for number in range(5):
        table.append(readings(number, 1))
    other = LakeTable(table.folder)

    class Meanwhile(LakeTable):
        def write_parts(self, *given: Any, **named: Any) -> list[Action]:
            other.append(readings(other.rows, 1))
            return super().write_parts(*given, **named)

    compact(Meanwhile(table.folder))
    assert len(values(table)) > 5
    assert values(table) == [float(number) for number in range(len(values(table)))]


def test_two_that_join_the_same_files_join_them_once(table: LakeTable) -> None:
    for number in range(5):
        table.append(readings(number, 1))
    other = LakeTable(table.folder)

    class Overtaken(LakeTable):
        def write_parts(self, *given: Any, **named: Any) -> list[Action]:
            compact(other)
            return super().write_parts(*given, **named)

    compact(Overtaken(table.folder))
    assert values(table) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_ordered_along_a_curve_the_rows_are_the_same(table: LakeTable) -> None:
    for number in range(4):
        table.append(readings(number * 5, 5))
    before = rows_of(table)
    order(table, ["value", "at"])
    assert rows_of(table) == before
    for column in ("samples", "machine", "nothing"):
        with pytest.raises(BoucleError, match="B522"):
            order(table, [column])


def test_old_rows_go_by_whole_files(table: LakeTable) -> None:
    for number in range(4):
        table.append(readings(number * 5, 5))
    assert expire(table, START + 10 * STEP) > 0
    assert values(table)[-10:] == [float(number) for number in range(10, 20)]
    assert min(values(table)) > 0
    assert expire(table, START) == 0


@given(
    st.lists(
        st.sampled_from(["append", "compact", "backfill", "order", "restore", "set aside"]),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_is_done_kept_versions_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[str]
) -> None:
    table = LakeTable(tmp_path_factory.mktemp("lake") / "silver" / "readings")
    table.append(readings(0, 2))
    seen = {}
    for number, deed in enumerate(deeds):
        if deed == "append":
            table.append(readings(2 + number, 1))
        elif deed == "compact":
            compact(table)
        elif deed == "backfill":
            backfill(table, [readings(1, 1)], START + STEP, START + 2 * STEP)
        elif deed == "order":
            order(table, ["value"])
        elif deed == "set aside":
            set_aside(table, last=0)
        else:
            restore(table, max(1, table.version - 1))
        seen[table.version] = rows_of(table)
    vacuum(table, 3600)
    assert {version: rows_of(table, version=version) for version in seen} == seen
    vacuum(table, 0, now=time.time() + 3600)
    assert rows_of(table) == seen[table.version]


def test_a_vacuum_leaves_what_somebody_is_about_to_commit(table: LakeTable) -> None:
    table.append(readings(0, 1))
    young = table.folder / "machine=a" / "young.parquet"
    young.parent.mkdir()
    young.write_bytes(b"being written")
    assert vacuum(table, 0).files == 0
    assert young.exists()
    assert vacuum(table, 0, now=time.time() + 3600).files == 1
    assert not young.parent.exists()


def test_changes_tell_what_came_and_went(table: LakeTable) -> None:
    first = table.append(readings(0, 2))
    table.append(readings(2, 1, zone=["A"]))
    compact(table)
    backfill(table, [readings(0, 1)], START, START + 2 * STEP)
    told = [(len(one.inserted), len(one.deleted)) for one in changes(table, first)]
    assert told == [(1, 0), (0, 1)], "joining changes nothing; the row that was replaced by itself neither"
    assert [len(one.inserted) for one in changes(table, -1, first)] == [2]


def test_a_log_set_aside_is_read_as_before(table: LakeTable) -> None:
    for number in range(60):
        table.append(readings(number, 1), app="w", transaction=number)
    beside, told = LakeTable(table.folder), versions(table)
    assert beside.rows == 60
    assert set_aside(LakeTable(table.folder), last=5) > 20
    assert set_aside(table, last=5) == 0
    assert len(list((table.folder / "_delta_log").glob("*.json"))) < 20
    for one in (table, beside, LakeTable(table.folder)):
        one.append(readings(one.rows, 1))
        assert versions(one)[-len(told) :] == told
        assert [len(values(one, version)) for version in (1, 12, 30)] == [1, 12, 30]
        assert len(list(changes(one, 0))) == one.rows
    assert is_aside(table.place, 4)
    restore(table, 4, "back to the first")
    assert values(table) == [0.0, 1.0, 2.0, 3.0]
    assert table.transaction("w") == 59
    vacuum(table, 0, now=time.time() + 3600)
    assert values(table) == [0.0, 1.0, 2.0, 3.0]
    assert not is_aside(table.place, 4)
    with pytest.raises(BoucleError, match="B505"):
        values(table, 12)


def test_a_large_file_waits_for_its_share(table: LakeTable) -> None:
    table.append(readings(0, 4000))
    table.append(readings(5000, 1))
    table.append(readings(5002, 1))
    large = {file.path for file in table.files() if file.rows > 100}
    compact(table)
    assert large <= {file.path for file in table.files()}
    assert table.rows == 4002


def test_what_the_log_forgot_is_told(table: LakeTable) -> None:
    for number in range(3):
        table.append(readings(number, 1))
    (table.folder / "_delta_log" / f"{1:020d}.json").unlink()
    with pytest.raises(BoucleError, match="B525"):
        list(changes(table, 0))
    assert [one.number for one in versions(table)] == [3, 2]


def test_a_moment_is_a_version(table: LakeTable) -> None:
    table.append(readings(0, 1))
    between = datetime.now(UTC)
    time.sleep(0.005)
    table.append(readings(1, 1))
    assert version_at(table, between) == 1
    assert version_of(table, between.isoformat()) == 1
    assert version_of(table, "2") == 2
    assert version_of(table, (between + timedelta(days=1)).isoformat()) == 2
    for text, code in (("1999-01-01", "B523"), ("yesterday", "B524"), ("99", "B505"), ("", "B524")):
        with pytest.raises(BoucleError, match=code):
            version_of(table, text)


def test_a_restored_table_is_as_it_was_and_knows_why(table: LakeTable) -> None:
    table.append(readings(0, 1), app="w", transaction=1)
    then = table.append(readings(1, 1), app="w", transaction=2)
    before = rows_of(table)
    table.append(readings(2, 1, zone=["A"]), app="w", transaction=3)
    restore(table, then, "a wrong batch")
    assert rows_of(table) == before
    assert table.transaction("w") == 3
    assert versions(table, 1)[0].because == {"did": "restore", "version": then, "why": "a wrong batch"}
    backfill(table, [readings(0, 2)], START, START + 2 * STEP)
    vacuum(table, 0, now=time.time() + 3600)
    with pytest.raises(BoucleError, match="B505"):
        restore(table, then)


def test_a_span_is_replaced_as_a_whole(table: LakeTable, tmp_path: Path) -> None:
    table.append(readings(0, 10))
    since, until = START + 3 * STEP, START + 6 * STEP
    assert backfill(table, [readings(4, 1)], since, until, "sensor mended") == (3, 1)
    assert values(table) == [0.0, 1.0, 2.0, 4.0, 6.0, 7.0, 8.0, 9.0]
    assert backfill(table, [readings(4, 1)], since, until) == (1, 1), "again, and nothing is different"
    assert len(values(table)) == 8
    with pytest.raises(BoucleError, match="B526"):
        backfill(table, [readings(8, 1)], since, until)
    file = tmp_path / "given.parquet"
    pq.write_table(pa.Table.from_batches([readings(0, 10).rows]), file)
    assert backfill(table, from_file(file, table, since, until), since, until) == (1, 3)
    assert values(table) == [float(number) for number in range(10)]


@pytest.mark.parametrize("content", [b"", b"PAR1 is not enough", b"\x00" * 100])
def test_a_file_that_is_none_says_so(table: LakeTable, tmp_path: Path, content: bytes) -> None:
    table.append(readings(0, 1))
    file = tmp_path / "given.parquet"
    file.write_bytes(content)
    with pytest.raises(BoucleError, match="B529"):
        list(from_file(file, table, 0, 2**62))


def test_late_rows_come_home_once(table: LakeTable, tmp_path: Path) -> None:
    late = LakeTable(tmp_path / "raw" / "readings_late", partition_by=("day",))
    key = ["machine", "sensor", "at"]
    assert merge_late(table, late, key) == 0
    table.append(readings(0, 4))
    late.append([readings(2, 1), readings(7, 1), readings(7, 1)])
    assert merge_late(table, late, key) == 1, "row 2 is there already, row 7 came twice"
    assert merge_late(table, late, key) == 0
    late.append(readings(5, 1))
    assert merge_late(table, late, key) == 1
    assert values(table) == [0.0, 1.0, 2.0, 3.0, 5.0, 7.0]
    late.append(readings(9, 1))
    with pytest.raises(BoucleError, match="B527"):
        merge_late(table, late, ["id"])


def test_numbers_become_wider_and_never_narrower(table: LakeTable) -> None:
    def rows(first: int, kind: pa.DataType, value: object) -> object:
        block = readings(first, 1)
        return type(block)(
            block.stream, block.rows.append_column("n", pa.array([value], kind)), 0, block.position
        )

    table.append(rows(0, pa.int16(), 7))  # type: ignore[arg-type]
    then = table.version
    table.append(rows(1, pa.int64(), 2**40))  # type: ignore[arg-type]
    table.append(rows(2, pa.int8(), 3))  # type: ignore[arg-type]
    assert [row["n"] for row in rows_of(table)] == [7, 2**40, 3]
    assert table.schema.field("n").type == pa.int64()
    assert {pq.ParquetFile(file.path).schema_arrow.field("n").type for file in table.files()} == {pa.int64()}
    assert [row["n"] for row in rows_of(table, version=then)] == [7]
    assert sum(len(one.inserted) - len(one.deleted) for one in changes(table, -1)) == 3
    for kind, value in ((pa.string(), "5"), (pa.float32(), 0.5)):
        with pytest.raises(BoucleError, match="B502"):
            table.append(rows(3, kind, value))  # type: ignore[arg-type]


@pytest.mark.parametrize("partition", [(), ("number",), ("flag", "date")])
def test_any_columns_partition_or_none(tmp_path: Path, partition: tuple[str, ...]) -> None:
    table = LakeTable(tmp_path / "gold" / "sums", time="", partition_by=partition)
    rows = pa.RecordBatch.from_pydict(
        {
            "number": pa.array([1, -2, None], pa.int32()),
            "flag": [True, False, None],
            "date": pa.array([20_000, None, 3], pa.date32()),
            "day": ["Monday", "Tuesday", None],
        }
    )
    table.put([rows])
    again = LakeTable(table.folder)
    found = pa.Table.from_batches([block.rows for block in again.scan()])
    assert sorted(map(repr, found.to_pylist())) == sorted(map(repr, rows.to_pylist()))
    assert (again.time, again.partition_by or ()) == ("", partition or again.partition_by)
    table.put([rows])
    compact(table)
    assert table.rows == 6
