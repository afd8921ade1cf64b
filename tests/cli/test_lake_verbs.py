"""`boucle lake`, `refine` and `rollback` as people run them, with an answer for them and one for machines."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boucle.cli.main import main
from boucle.lake.whole import Lake
from tests.refine.payments import SHOP, arrived, ask, payments


@pytest.fixture
def run(tmp_path: Path) -> Path:
    lake = Lake(tmp_path / "lake")
    arrived(lake, (1, 0, "a", 5.0), (2, 0, "b", 3.0))
    arrived(lake, (3, 1, "a", 1.0))
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    """What a verb says as JSON."""
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_tables_and_their_history(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table,) = answer(capsys, "lake", "list", "--folder", run)
    assert (table["table"], table["rows"], table["files"], table["version"]) == ("payments", 3, 2, 2)
    history = answer(capsys, "lake", "history", "payments", "--folder", run)
    assert [one["did"] for one in history] == ["write", "write", "create table"]
    assert [row["id"] for row in answer(capsys, "lake", "at", "payments", "1", "--folder", run)] == [1, 2]
    rows = answer(capsys, "lake", "changes", "raw.payments", "--since", "1", "--folder", run)
    assert [(row["change"], row["id"], row["at"]) for row in rows] == [
        ("insert", 3, "2026-01-02 00:00:03.000000Z")
    ]
    assert main(["lake", "list", "--folder", str(run)]) == 0
    assert "payments" in capsys.readouterr().out
    assert main(["lake", "history", "payment", "--folder", str(run)]) == 1
    assert "B528" in capsys.readouterr().err


def test_upkeep_by_hand(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrived(Lake(run / "lake"), (4, 1, "c", 1.0))
    done = answer(capsys, "lake", "optimize", "payments", "--folder", run)
    assert (done["before"], done["after"]) == (3, 2)
    assert (
        answer(capsys, "lake", "vacuum", "payments", "--keep", "0s", "--dry-run", "--folder", run)["files"]
        == 0
    )
    answer(capsys, "lake", "optimize", "payments", "--by", "card", "--folder", run)
    out = run / "iceberg"
    assert answer(capsys, "lake", "export", "payments", out, "--folder", run)["rows"] == 4
    told = answer(capsys, "lake", "export", "payments", out, "--as", "csv", "--folder", run)
    files = [Path(told["folder"], one["name"]) for one in told["files"]]
    assert sum(len(one.read_text().splitlines()) - 1 for one in files) == told["rows"] == 4
    assert (out / "metadata" / "version-hint.text").exists()


def test_a_span_is_filled_from_a_file_or_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, other = run / "given.parquet", Lake(run / "replayed" / "lake")
    pq.write_table(pa.Table.from_batches([payments((7, 0, "z", 9.0), (8, 1, "z", 9.0)).rows]), file)
    span: list[str | Path] = [
        "--since",
        "2026-01-01",
        "--until",
        "2026-01-02",
        "--folder",
        run,
        "--because",
        "prices",
    ]
    assert answer(capsys, "lake", "backfill", "payments", file, *span) == {
        "taken": 2,
        "added": 1,
        "version": 3,
    }
    assert ask(Lake(run / "lake"), "payments", ["id"]) == [(3,), (7,)]
    arrived(other, (1, 0, "a", 5.0), (2, 0, "b", 3.0))
    done = answer(capsys, "lake", "backfill", "payments", run / "replayed", *span)
    assert (done["taken"], done["added"]) == (1, 2)
    assert ask(Lake(run / "lake"), "payments", ["id"]) == [(1,), (2,), (3,)]


def test_refined_and_rolled_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tried = answer(capsys, "refine", SHOP, "--sample", "100%", "--folder", run)
    assert [one["rows"] for one in tried] == [3, 3]
    assert [one.name for one in Lake(run / "lake").tables()] == ["payments"], "a sample is published nowhere"
    done = answer(capsys, "refine", SHOP, "--folder", run)
    assert [(one["name"], one["state"], one["rows"]) for one in done] == [
        ("accepted", "published", 3),
        ("spent", "published", 3),
    ]
    arrived(Lake(run / "lake"), (9, 3, "", 1.0))
    assert main(["refine", str(SHOP), "accepted", "--folder", str(run)]) == 1
    assert "✗ no card without a name: 1 rows should not be there" in capsys.readouterr().out
    (held,) = answer(capsys, "refine", SHOP, "--held", "--folder", run)
    assert held["transform"] == "accepted"
    assert "no card without a name" in held["why"]
    back = answer(capsys, "rollback", "spent", "--to", "0", "--because", "wrong", "--folder", run)
    assert (back["from"], back["to"], back["version"]) == (1, 0, 2)
    assert ask(Lake(run / "lake"), "spent", ["card"]) == []


def test_sql_is_tested_and_linted_without_a_lake(capsys: pytest.CaptureFixture[str]) -> None:
    assert [one["passed"] for one in answer(capsys, "refine", SHOP, "--test")] == [True, True]
    assert answer(capsys, "refine", SHOP, "--lint") == {"ok": True, "problems": []}
    assert main(["refine", str(SHOP), "spend"]) == 1
    assert 'did you mean "spent"?' in capsys.readouterr().err


def test_without_a_lake_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lake", "list", "--folder", str(tmp_path)]) == 1
    assert "B810" in capsys.readouterr().err
    assert main(["lake", "list", "--lake", "s3://"]) == 1
    assert "B520" in capsys.readouterr().err
