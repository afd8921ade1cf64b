"""The lineage journal as rows of the lake: every event once, whatever was torn, and edges that SQL can ask for."""

import re
from pathlib import Path

import pytest

from boucle.catalog import Column, Lineage, dataset, events, table
from boucle.catalog.lineage_log import LINEAGE_TABLE, LineageLog
from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.lake.sql import Sql
from boucle.lake.whole import Lake
from boucle.lake.writer import Feed, LakeWriter
from boucle.loop.lineage import check_kept_name
from boucle.testing.clock import ManualClock

NOON = 1_795_262_400 * SECOND
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "catalogue.md"


@pytest.fixture
def told(tmp_path: Path) -> tuple[Lineage, ManualClock]:
    clock = ManualClock(NOON)
    return Lineage(tmp_path / "lineage", clock, namespace="plant"), clock


def run_once(lineage: Lineage, folder: Path) -> None:
    topic = dataset("mqtt://gateway/press/1/vibration")
    mean = Column(topic, "x", "AGGREGATION", "mean of a second")
    made = table(folder / "lake", "silver", "features", made_from={"x_mean": [mean]})
    lineage.start("loop", [topic], [made]).complete()


def follow(folder: Path) -> int:
    """One step of a writer that never heard of the journal before."""
    kept = Lake(folder / "lake").table("raw", LINEAGE_TABLE, partition_by=("day",))
    writer = LakeWriter([Feed(LineageLog(folder / "lineage"), kept)], ManualClock(NOON))
    done = writer.step(force=True)
    assert writer.failures == {}
    return done


def test_events_are_rows_once_and_edges_can_be_asked_for(
    told: tuple[Lineage, ManualClock], tmp_path: Path
) -> None:
    lineage, clock = told
    assert follow(tmp_path) == 0, "nothing was told yet"
    run_once(lineage, tmp_path)
    assert follow(tmp_path) == 2
    clock.advance(86_400)
    run_once(lineage, tmp_path)  # another day is another file
    assert [follow(tmp_path), follow(tmp_path)] == [2, 0]
    sql = Sql(tmp_path / "lake")
    rows = sql.query("SELECT kind, job, inputs, event FROM lineage_events ORDER BY at, kind DESC").to_pylist()
    assert [row["kind"] for row in rows] == ["START", "COMPLETE"] * 2
    assert rows[0]["inputs"] == ["mqtt://gateway/press/1/vibration"]
    assert [len(row["event"]) for row in rows] == [
        len(line)
        for file in sorted((tmp_path / "lineage").iterdir())
        for line in file.read_text().splitlines()
    ]
    (question,) = re.findall(
        r"^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert sql.query(question).to_pylist() == [
        {
            "made": "silver/features", "made_column": "x_mean", "source": "press/1/vibration", "source_column": "x",
            "how": "AGGREGATION", "says": "mean of a second",
        }
    ]  # fmt: skip
    sql.close()


def test_a_torn_line_waits_until_it_was_cut_off(told: tuple[Lineage, ManualClock], tmp_path: Path) -> None:
    lineage, _ = told
    run_once(lineage, tmp_path)
    (file,) = (tmp_path / "lineage").glob("*.ndjson")
    with file.open("ab") as journal:
        journal.write(b'{"eventType": "RUNN')
    log = LineageLog(tmp_path / "lineage")
    assert (log.durable().offset, follow(tmp_path)) == (2, 2)
    run_once(lineage, tmp_path)  # cuts it off and goes on
    assert (log.durable().offset, follow(tmp_path)) == (4, 2)
    assert len(list(events(tmp_path / "lineage"))) == 4


def test_two_folders_share_one_table(told: tuple[Lineage, ManualClock], tmp_path: Path) -> None:
    lineage, clock = told
    run_once(lineage, tmp_path)
    assert follow(tmp_path) == 2
    (tmp_path / "lineage").rename(tmp_path / "of another run")
    run_once(Lineage(tmp_path / "lineage", clock, namespace="other"), tmp_path)
    assert follow(tmp_path) == 2
    assert Lake(tmp_path / "lake").find(LINEAGE_TABLE).rows == 4


def test_reading_begins_and_ends_where_it_is_told(told: tuple[Lineage, ManualClock], tmp_path: Path) -> None:
    for _ in range(3):
        run_once(told[0], tmp_path)
    log = LineageLog(tmp_path / "lineage")
    (block,) = log.read(log.start(), 2)
    (after,) = log.read(block.position, 100)
    assert (len(block), block.position.offset, len(after), after.position.offset) == (2, 2, 4, 6)
    assert list(log.read(after.position, 100)) == []


def test_the_name_is_kept() -> None:
    check_kept_name(["events", "quarantine"], Path("product.yaml"))
    with pytest.raises(BoucleError, match=r"B543 product\.yaml"):
        check_kept_name(["events", LINEAGE_TABLE], Path("product.yaml"))
