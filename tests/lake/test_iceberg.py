"""A table as Iceberg: read back by pyiceberg and, through its files, by DuckDB; exported again it is up to date."""

import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.table import StaticTable

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.duck import connection
from boucle.lake.iceberg import export
from boucle.lake.upkeep import compact, vacuum
from boucle.testing.conformance.table import readings, rows_of


def iceberg(metadata: str) -> pa.Table:
    return StaticTable.from_metadata(metadata).scan().to_arrow().sort_by("at")


@pytest.mark.parametrize("partition", [(), ("machine", "day")], ids=["own files", "copies"])
def test_every_row_is_there_and_stays_so(tmp_path: Path, partition: tuple[str, ...]) -> None:
    table = LakeTable(tmp_path / "silver" / "readings", partition_by=partition)
    table.append(readings(0, 4))
    first = export(table, tmp_path / "out")
    assert (first.version, first.rows) == (table.version, 4)
    assert (tmp_path / "out" / "data").exists() == bool(partition)
    assert iceberg(first.metadata)["value"].to_pylist() == [0.0, 1.0, 2.0, 3.0]
    table.append(readings(4, 2, zone=["A", "B"]))
    second = export(table, tmp_path / "out")
    found = iceberg(second.metadata)
    assert found["zone"].to_pylist() == [None] * 4 + ["A", "B"]
    assert found["machine"].to_pylist() == [row["machine"] for row in rows_of(table)]
    assert export(table, tmp_path / "out").files == 0, "nothing is new"
    compact(table)
    third = export(table, tmp_path / "out")
    assert iceberg(third.metadata)["value"].to_pylist() == [float(number) for number in range(6)]
    vacuum(table, 0, now=time.time() + 3600)
    assert len(iceberg(third.metadata)) == 6
    files = [task.file.file_path for task in StaticTable.from_metadata(third.metadata).scan().plan_files()]
    with connection() as duck:
        read = f"SELECT count(*), sum(value) FROM read_parquet({files!r})"
        assert duck.execute(read).fetchall() == [(6, 15.0)]


def test_what_cannot_be_exported_says_so(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    with pytest.raises(BoucleError, match="B539"):
        export(table, tmp_path / "out")
    table.append(readings(0, 1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(BoucleError, match="B539"):
        export(table, tmp_path / "full")
