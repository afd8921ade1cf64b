"""What a Delta table of the lake promises beyond the port: its files, its log, its durability."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.errors import BoucleError, Unavailable
from boucle.lake.delta import LakeTable
from boucle.lake.deltars import CHECKPOINT_EVERY
from boucle.lake.upkeep import vacuum
from boucle.testing.conformance.table import START, readings, rows_of


def block_of(columns: dict[str, pa.Array]) -> Block:
    batch = pa.RecordBatch.from_pydict(columns)
    return Block("rows", batch, 0, Position("rows", batch.num_rows))


def times(*nanos: int) -> pa.Array:
    return pa.array(nanos, pa.timestamp("ns", tz="UTC"))


def commits(table: LakeTable) -> list[dict[str, object]]:
    log = sorted((table.folder / "_delta_log").glob("*.json"))
    return [json.loads(line) for path in log for line in path.read_text().splitlines()]


def test_partitions_are_machine_sensor_and_utc_day(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    table.append(readings(0, 4))
    folders = {Path(file.path).parent.relative_to(table.folder).as_posix() for file in table.files()}
    assert folders == {
        "machine=press-1/sensor=vib_x/day=2025-12-31",
        "machine=press-1/sensor=vib_x/day=2026-01-01",
        "machine=press-2/sensor=vib_x/day=2026-01-01",
    }


def test_a_partition_column_the_rows_lack_is_left_out(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "gold" / "verdicts")
    table.append(block_of({"machine": pa.array(["press-1"]), "at": times(START)}))
    assert {"machine", "day"} == set(table.files()[0].partition)


@pytest.mark.parametrize("name", ["press 1/é=%", "__x", "a'b", "press-1"])
def test_machine_names_survive_folder_names(tmp_path: Path, name: str) -> None:
    table = LakeTable(tmp_path / "silver" / "odd")
    table.append(block_of({"machine": pa.array([name, None]), "at": times(START, START + 1)}))
    assert [row["machine"] for row in rows_of(table)] == [name, None]
    table.sync()


def test_checkpoints_come_now_and_then_and_deletion_vectors_never(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    for first in range(CHECKPOINT_EVERY + 2):
        table.append(readings(first, 1))
    assert (table.folder / "_delta_log" / f"{CHECKPOINT_EVERY - 1:020d}.checkpoint.parquet").exists()
    metadata = next(action["metaData"] for action in commits(table) if "metaData" in action)
    assert isinstance(metadata, dict)
    assert metadata["configuration"]["delta.checkpointInterval"] == str(CHECKPOINT_EVERY)
    assert "delta.enableDeletionVectors" not in metadata["configuration"]


def test_microseconds_are_split_from_nanoseconds_on_disk(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    table.append(readings(0, 1))
    stored = pq.ParquetFile(table.files()[0].path).read().to_pydict()
    assert pa.scalar(stored["at"][0], pa.timestamp("us", tz="UTC")).value == START // 1000
    assert stored["at_ns"] == [START % 1000]


def test_times_before_1970_and_missing_ones_come_back_exactly(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "gold" / "old")
    onset = pa.array([None, -1], pa.timestamp("ns", tz="UTC"))
    table.append(block_of({"at": times(-1_234_567_891, 5), "onset": onset}))
    rows = pa.Table.from_batches([block.rows for block in table.scan()])
    assert rows.column("at").cast(pa.int64()).to_pylist() == [-1_234_567_891, 5]
    assert rows.column("onset").cast(pa.int64()).to_pylist() == [None, -1]
    assert {file.partition["day"] for file in table.files()} == {"1969-12-31", "1970-01-01"}


def test_columns_delta_does_not_know_are_widened(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "wide")
    columns = {
        "at": times(START, START + 1),
        "status": pa.array(["Good", "Bad"]).dictionary_encode(),
        "count": pa.array([1, 255], pa.uint8()),
        "name": pa.array(["a", "b"], pa.large_string()),
        "coded": pa.array([[1.5], []], pa.large_list(pa.float16())),
    }
    table.append(block_of(columns))
    (block,) = table.scan()
    assert block.rows.drop_columns(["at"]).to_pydict() == {
        "status": ["Good", "Bad"],
        "count": [1, 255],
        "name": ["a", "b"],
        "coded": [[1.5], []],
    }


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"at": pa.array([1])}, 'without a timestamp column "at"'),
        ({"at": pa.array([1], pa.timestamp("ns"))}, "no time zone"),
        ({"at": times(1), "x": pa.array([1], pa.uint64())}, '"x" of type uint64'),
        ({"at": times(1), "machine": pa.array([1.5])}, "cannot name a partition"),
        ({"at": times(1), "day": pa.array(["x"])}, '"day" is kept'),
        ({"at": times(1), "at_ns": pa.array([1])}, '"at_ns" is kept'),
        ({"at": pa.array([None], pa.timestamp("ns", tz="UTC"))}, 'have no "at"'),
    ],
)
def test_rows_that_cannot_be_stored_say_why(tmp_path: Path, columns: dict[str, pa.Array], says: str) -> None:
    table = LakeTable(tmp_path / "silver" / "bad")
    with pytest.raises(BoucleError, match=r"B503") as error:
        table.append(block_of(columns))
    assert says in str(error.value)
    assert error.value.fix


def test_a_transaction_needs_an_app(tmp_path: Path) -> None:
    with pytest.raises(BoucleError, match=r"B506"):
        LakeTable(tmp_path / "silver" / "t").append(readings(0, 1), transaction=1)


def test_two_handles_that_race_write_a_transaction_once(tmp_path: Path) -> None:
    folder = tmp_path / "silver" / "readings"
    first, second = LakeTable(folder), LakeTable(folder)
    first.append(readings(0, 1), app="w", transaction=1)
    assert second.rows == 1
    first.append(readings(1, 1), app="w", transaction=2)
    second.append(readings(1, 1), app="w", transaction=2)
    second.append(readings(2, 1), app="w", transaction=3)
    assert [row["value"] for row in rows_of(first)] == [0.0, 1.0, 2.0]
    assert first.transaction("w") == 3


class Overtaken(LakeTable):
    """A table that a stranger, who knows nothing of our lock, overtakes between the look at the log and the commit."""

    def _commit(self, *given: Any, **named: Any) -> int:
        if self.version == 1:
            rows = pa.Table.from_batches([readings(1, 1).rows])
            marks = CommitProperties(app_transactions=[Transaction("w", 2)])
            columns = [
                rows.column("at").cast(pa.timestamp("us", "UTC"), safe=False)
                if name == "at"
                else pa.array(["2026-01-01"])
                if name == "day"
                else pa.nulls(1, pa.int16())
                if name == "at_ns"
                else rows.column(name)
                for name in self.schema.names
            ]
            write_deltalake(
                self.folder, pa.table(columns, schema=self.schema), mode="append", commit_properties=marks
            )
        return super()._commit(*given, **named)


def test_losing_a_race_for_the_same_transaction_adds_nothing(tmp_path: Path) -> None:
    table = Overtaken(tmp_path / "silver" / "readings")
    table.append(readings(0, 1), app="w", transaction=1)
    table.append(readings(1, 1), app="w", transaction=2)
    assert [row["value"] for row in rows_of(table)] == [0.0, 1.0]


RACING = """
import sys
from boucle.lake.delta import LakeTable
from boucle.lake.deltars import CHECKPOINT_EVERY
from boucle.lake.upkeep import vacuum
from boucle.testing.conformance.table import readings

table = LakeTable(sys.argv[1])
sys.stdin.readline()
for number in range(1, 31):
    table.append(readings(number, 1), app="w", transaction=number)
    if number % 2 == 0:
        table.compact()
"""


def test_processes_that_append_and_join_files_at_once_double_nothing(tmp_path: Path) -> None:
    """The lake's process of a loop that was killed commits what is left while the next life begins."""
    table = LakeTable(tmp_path / "silver" / "readings")
    words = [sys.executable, "-c", RACING, str(table.folder)]
    racing = [subprocess.Popen(words, stdin=subprocess.PIPE, text=True) for _ in range(3)]
    for one in racing:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.close()
    assert [one.wait() for one in racing] == [0, 0, 0]
    assert len(rows_of(table)) == 30
    assert table.transaction("w") == 30


def test_several_blocks_are_one_commit(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    created = table.append(readings(0, 1))
    assert table.append([readings(1, 2), readings(3, 2)]) == created + 1
    assert table.append([readings(5, 2), readings(7, 2, zone=["A", "B"])]) == created + 2
    assert [row["zone"] for row in rows_of(table)][5:] == [None, None, "A", "B"]


def test_compacting_changes_files_but_no_row_and_no_transaction(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    for first in range(6):
        table.append(readings(first, 1), app="w", transaction=first)
    before, files = rows_of(table), len(table.files())
    version = table.version
    assert table.compact() > version
    assert len(table.files()) < files
    assert rows_of(table) == before == rows_of(table, version=version)
    assert table.transaction("w") == 5
    assert LakeTable(tmp_path / "silver" / "none").compact() == -1


def test_vacuum_deletes_what_no_kept_version_needs(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    for first in range(4):
        table.append(readings(first, 2))
    before = rows_of(table)
    table.compact()
    assert vacuum(table, keep_seconds=0).files == 0
    later = time.time() + 3600
    planned = vacuum(table, keep_seconds=0, now=later, dry_run=True)
    assert planned.files > 0
    assert vacuum(table, keep_seconds=0, now=later) == planned
    assert rows_of(table) == before
    with pytest.raises(BoucleError, match="B505"):
        rows_of(table, version=2)
    assert vacuum(LakeTable(tmp_path / "silver" / "none"), 0).oldest == -1


def test_a_version_that_does_not_exist_says_which_do(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    table.append(readings(0, 1))
    with pytest.raises(BoucleError, match=r"B505.*from 0 to 1"):
        rows_of(table, version=99)


def test_a_vacuumed_file_is_named(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    table.append(readings(0, 1))
    Path(table.files()[0].path).unlink()
    with pytest.raises(BoucleError, match=r"B505"):
        rows_of(table)


def test_rows_and_version_follow_other_writers(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    assert (table.version, table.rows, table.schema.names, table.files()) == (-1, 0, [], [])
    LakeTable(table.folder).append(readings(0, 5))
    assert (table.version, table.rows) == (1, 5)


def test_sync_covers_every_file_of_every_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[Path] = set()

    def note(path: Path) -> None:
        if path.exists():
            synced.add(path)

    monkeypatch.setattr("boucle.lake.durable.fsync", note)
    table = LakeTable(tmp_path / "silver" / "readings")
    assert table.sync() == -1
    for first in range(11):
        table.append(readings(first, 2))
    assert table.sync() == table.version
    assert set(table.folder.rglob("*")) <= synced


def test_a_commit_torn_to_nothing_is_as_if_it_never_was(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    table.append(readings(0, 1), app="w", transaction=1)
    table.append(readings(1, 1), app="w", transaction=2)
    (table.folder / "_delta_log" / f"{table.version:020d}.json").write_bytes(b"")
    again = LakeTable(table.folder)
    assert again.transaction("w") == 1
    again.append(readings(1, 1), app="w", transaction=2)
    assert [row["value"] for row in rows_of(again)] == [0.0, 1.0]


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "silver").write_text("not a folder")
    with pytest.raises(Unavailable, match=r"B504"):
        LakeTable(tmp_path / "silver" / "readings").append(readings(0, 1))


def test_blocks_are_bounded_in_bytes(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "raw" / "vibration")
    count = 3000
    samples = pa.array([[0.5] * 1000] * count, pa.list_(pa.float32()))
    table.append(block_of({"at": times(*range(START, START + count)), "samples": samples}))
    blocks = list(table.scan())
    assert sum(len(block) for block in blocks) == count
    assert max(block.rows.nbytes for block in blocks) < 9_000_000


READER = """
import sys
from boucle.lake.delta import LakeTable
from boucle.lake.deltars import CHECKPOINT_EVERY
table = LakeTable(sys.argv[1])
print(sum(len(block) for block in table.scan()))
"""


@pytest.mark.slow
def test_short_processes_that_read_end_well(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    table.append(readings(0, 50))
    command: Sequence[str] = [sys.executable, "-c", READER, str(table.folder)]
    ends = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(12)]
    assert [(end.returncode, end.stdout.strip()) for end in ends] == [(0, "50")] * 12


def test_scan_reads_only_the_files_it_needs(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    for first in range(0, 100, 10):
        table.append(readings(first, 10))
    late = START + 95 * (SECOND + 1)
    for file in table.files():
        if file.end is not None and file.end < late:
            Path(file.path).unlink()
    assert [row["value"] for row in rows_of(table, since=late)] == [95.0, 96.0, 97.0, 98.0, 99.0]
