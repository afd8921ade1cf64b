"""A table scored into another: only what is new, each row once, whatever is killed or done twice."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.cli.answer import readable
from boucle.cli.main import main
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.serve.table import ScoredTable, score_table
from tests.models.tiny import tiny
from tests.serve.offered import shifted

DAY = 86_400_000_000_000


def readings(begin: int, end: int, **more: Any) -> Block:
    """a = 1, 2, …; every fifth is missing."""
    numbers = range(begin, end)
    rows = pa.record_batch(
        {
            "machine": pa.array([f"press-{number % 2}" for number in numbers]),
            "at": pa.array(
                [20_000 * DAY + number * DAY // 4 + number for number in numbers], pa.timestamp("ns", "UTC")
            ),
            "a": pa.array([None if number % 5 == 0 else float(number) for number in numbers]),
            "b": pa.array(list(numbers), pa.int64()),
            **{name: pa.array([value] * (end - begin)) for name, value in more.items()},
        }
    )
    return Block("readings", rows, 0, Position("readings", end))


@pytest.fixture
def source(tmp_path: Path) -> LakeTable:
    table = LakeTable(tmp_path / "lake" / "raw" / "readings", partition_by=("day",))
    table.append(readings(0, 10))
    return table


@pytest.fixture
def target(tmp_path: Path) -> LakeTable:
    return LakeTable(tmp_path / "lake" / "gold" / "scored", partition_by=("day",))


def rows_of(table: LakeTable) -> list[dict[str, Any]]:
    rows = [row for block in table.scan(None, None) for row in readable(block.rows)]
    return sorted(rows, key=lambda row: int(row["b"]))


def scored(source: LakeTable, target: LakeTable, version: str = "1", **how: Any) -> ScoredTable:
    return score_table(source, target, tiny(), version=version, **how)


def test_every_row_once_however_often_it_is_asked(source: LakeTable, target: LakeTable) -> None:
    first = scored(source, target)
    assert (first.rows, first.unscored, first.commits) == (10, 2, 1)
    assert scored(source, target).commits == 0
    source.append(readings(10, 13))
    source.append(readings(13, 17))
    assert scored(source, target, version="2").rows == 7
    told = rows_of(target)
    assert [row["b"] for row in told] == list(range(17))
    assert [row["rul_h"] for row in told] == [None if n % 5 == 0 else 3 * n for n in range(17)]
    assert {row["model_version"] for row in told[:10]} == {"1"}
    assert {row["model_version"] for row in told[10:]} == {"2"}
    assert [row["at"] for row in told] == [row["at"] for row in rows_of(source)], "to the nanosecond"


def test_a_run_that_ends_midway_goes_on_where_its_last_commit_ended(
    source: LakeTable, target: LakeTable
) -> None:
    scored(source, target)
    for begin in range(10, 40, 5):
        source.append(readings(begin, begin + 5))

    def dies(done: int) -> None:
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(source, target, rows=10, progress=dies)
    assert len(rows_of(target)) == 30, "two commits of ten"
    assert scored(source, target).rows == 10
    assert [row["b"] for row in rows_of(target)] == list(range(40))


def test_joined_files_bring_nothing_new(source: LakeTable, target: LakeTable) -> None:
    source.append(readings(10, 12))
    scored(source, target)
    source.compact()
    assert scored(source, target).rows == 0
    source.append(readings(12, 14))
    assert scored(source, target).rows == 2


def test_anew_in_one_commit(source: LakeTable, target: LakeTable) -> None:
    scored(source, target)
    before = target.version
    again = score_table(source, target, shifted(1.0), version="2", full=True)
    assert (again.rows, again.commits, target.version) == (10, 1, before + 1)
    assert {row["model_version"] for row in rows_of(target)} == {"2"}
    assert len(rows_of(target)) == 10


def test_rows_taken_away_from_the_source_are_told(source: LakeTable, target: LakeTable) -> None:
    scored(source, target)
    source.put([readings(20, 23).rows], source.files()[:1])
    with pytest.raises(BoucleError, match="B681"):
        scored(source, target)
    assert scored(source, target, full=True).rows == len(rows_of(source))


def test_two_runs_at_once_add_nothing_twice(source: LakeTable, target: LakeTable) -> None:
    scored(source, target)
    source.append(readings(10, 12))
    other = LakeTable(target.folder, partition_by=("day",))
    more = iter([readings(12, 14)])

    def meanwhile(done: int) -> None:
        scored(source, other)
        for block in more:
            source.append(block)
            scored(source, other)

    with suppress(BoucleError):
        scored(source, target, progress=meanwhile)
    assert [row["b"] for row in rows_of(target)] == list(range(14))


def test_what_cannot_be_scored(tmp_path: Path, source: LakeTable, target: LakeTable) -> None:
    empty = LakeTable(tmp_path / "none")
    with pytest.raises(BoucleError, match="B681"):
        scored(empty, target)
    named = LakeTable(tmp_path / "lake" / "raw" / "named")
    named.append(readings(0, 2, health=1.0))
    with pytest.raises(BoucleError, match="B681"):
        scored(named, target)


def test_by_the_command(tmp_path: Path, source: LakeTable, capsys: pytest.CaptureFixture[str]) -> None:
    tiny().save(tmp_path / "model")
    words = [
        "score",
        "readings",
        "--model",
        str(tmp_path / "model"),
        "--to",
        "scored",
        "--folder",
        str(tmp_path),
    ]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == len(rows_of(source))
    source.append(readings(10, 12))
    assert main(words) == 0
    assert "2 rows of readings" in capsys.readouterr().out
