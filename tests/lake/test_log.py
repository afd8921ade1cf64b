"""The newest version in memory, and commits written here: other readers and writers of Delta see what they should."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from boucle.block import Block
from boucle.errors import Unavailable
from boucle.lake.commit import Add, file_of, lines_of
from boucle.lake.delta import LakeTable
from boucle.lake.history import restore
from boucle.lake.place import Local, commit_file
from boucle.lake.upkeep import compact
from boucle.testing.conformance.table import readings, rows_of

ODD = ["press 1/é=%", "a'b", "50%25", "~x+y&z", "ü:*?"]


def named(machine: str, first: int) -> Block:
    block = readings(first, 1)
    rows = block.rows.set_column(0, "machine", pa.array([machine]))
    return Block(block.stream, rows, 0, block.position)


def seen(table: LakeTable) -> tuple[int, int, int | None]:
    """Version, rows and transaction, as delta-rs reads them from the folder."""
    delta = DeltaTable(str(table.folder))
    counts = pa.table(delta.get_add_actions(flatten=True)).column("num_records").to_pylist()
    return delta.version(), sum(counts), delta.transaction_version("w")


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    return LakeTable(tmp_path / "silver" / "readings")


def test_delta_rs_reads_our_commits_and_checkpoints(table: LakeTable) -> None:
    for number in range(60):
        table.append(named(ODD[number % len(ODD)], number), app="w", transaction=number)
        if number % 20 == 19:
            compact(table)
    assert seen(table) == (table.version, 60, 59)
    assert table.rows == 60
    assert (
        len(DeltaTable(str(table.folder)).file_uris())
        == len(table.files())
        == len(LakeTable(table.folder).files())
    )


def test_what_delta_rs_changes_is_followed(table: LakeTable) -> None:
    for number in range(4):
        table.append(named(ODD[number], number))
    beside = LakeTable(table.folder)
    assert beside.rows == 4
    delta = DeltaTable(str(table.folder))
    delta.delete("value = 2.0")
    delta.optimize.z_order(["value"])
    assert sorted(row["value"] for row in rows_of(beside)) == [0.0, 1.0, 3.0]
    delta.alter.set_table_properties({"delta.checkpointInterval": "7"})
    assert beside.properties_now()["delta.checkpointInterval"] == "7"
    restore(beside, 4)
    assert (beside.rows, seen(beside)[1]) == (4, 4)
    table.put([], [file for file in table.files() if file.partition["machine"] == ODD[0]])
    assert (beside.rows, seen(beside)[1]) == (3, 3)


def test_a_table_with_a_rule_of_its_own_is_written_by_delta_rs(table: LakeTable) -> None:
    table.append(readings(0, 1))
    DeltaTable(str(table.folder)).alter.add_constraint({"positive": "value >= 0"})
    table.append(readings(1, 1), app="w", transaction=1)
    last = (table.folder / commit_file(table.version)).read_text(encoding="utf-8")
    assert "delta-rs" in last
    assert seen(table) == (table.version, 2, 1)


def test_a_log_whose_head_was_cleared_away_is_opened_again(table: LakeTable) -> None:
    table.append(readings(0, 1))
    stale = LakeTable(table.folder)
    assert stale.rows == 1
    for number in range(1, 6):
        table.append(readings(number, 1))
    DeltaTable(str(table.folder)).create_checkpoint()
    for version in range(table.version):
        (table.folder / commit_file(version)).unlink()
    assert stale.rows == 6
    stale.append(readings(6, 1))
    assert (table.rows, seen(table)[1]) == (7, 7)


def test_a_table_that_was_taken_away_and_made_again_is_another(table: LakeTable) -> None:
    import shutil

    for number in range(3):
        table.append(readings(number, 1))
    shutil.rmtree(table.folder)
    assert (table.version, table.rows) == (-1, 0)
    LakeTable(table.folder).append(readings(9, 2))
    assert (table.version, table.rows) == (1, 2)


@pytest.mark.parametrize("line", ["{", '{"add": 1}', '{"add": {"path": "x"}}', "[]", '{"txn": {"appId": 3}}'])
def test_a_commit_that_is_none_is_told(table: LakeTable, line: str) -> None:
    table.append(readings(0, 1))
    (table.folder / commit_file(table.version + 1)).write_text(line, encoding="utf-8")
    with pytest.raises(Unavailable, match="B504"):
        table.append(readings(1, 1))


def test_a_version_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = Local(tmp_path)
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "_delta_log" / "_next.tmp").write_bytes(b"of one that was killed")
    assert place.put_new(commit_file(0), b"first")
    assert not place.put_new(commit_file(0), b"second")
    assert [file.read_bytes() for file in (tmp_path / "_delta_log").iterdir()] == [b"first"]


@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda inner: st.dictionaries(
                st.sampled_from(["add", "remove", "txn", "path", "stats", "size", "version", "appId"]), inner
            ),
        ).map(json.dumps),
    )
)
def test_any_text_is_a_commit_or_a_value_error(text: str) -> None:
    try:
        list(lines_of(text))
    except ValueError:
        return


@given(
    stats=st.none()
    | st.text()
    | st.dictionaries(
        st.sampled_from(["numRecords", "minValues", "maxValues"]),
        st.none()
        | st.integers()
        | st.dictionaries(st.just("at"), st.text() | st.integers() | st.datetimes().map(str)),
    ).map(json.dumps)
)
def test_statistics_of_strangers_say_something_or_nothing(stats: Any) -> None:
    file = file_of(Add("a%20b.parquet", {}, 1, 0, stats=stats), Local(Path("x")), "at")
    assert file.inside == "a b.parquet"
    assert file.rows >= 0 or stats
