"""Beside a running loop: tables are refined when their inputs have something new, and kept in order, by declaration."""

import shutil
import time
from pathlib import Path

import pytest

from boucle.bus.log import EventLog
from boucle.lake.delta import LakeTable
from boucle.lake.history import versions
from boucle.lake.whole import Lake
from boucle.loop.feeds import Fed
from boucle.loop.lakekeeper import LakeKeeper
from boucle.loop.upkeep import Care, Caretaker
from boucle.testing.clock import ManualClock
from tests.refine.payments import DAY, SHOP, START, arrived, ask, payments

UPKEEP = """
lake:
  every: 1h
  history: 3d
  tables:
    payments: {rows: 30d, late: merge}
"""


@pytest.fixture
def care(tmp_path: Path) -> Care:
    product = tmp_path / "shop"
    shutil.copytree(SHOP, product)
    with (product / "product.yaml").open("a") as file:
        file.write(UPKEEP)
    return Care(str(tmp_path / "lake"), str(tmp_path / "refine"), str(product))


def test_what_is_new_is_refined_and_what_failed_is_not_tried_again(care: Care) -> None:
    lake = Lake(care.lake)
    keeper = Caretaker(care, ManualClock(START))
    keeper.step()
    arrived(lake, (1, 0, "a", 5.0))
    keeper.step()
    assert ask(lake, "spent", ["card", "spent"]) == [("a", 5.0)]
    version = lake.find("spent").version
    keeper.step()
    assert lake.find("spent").version == version
    arrived(lake, (2, 0, "", 1.0))
    keeper.step()
    keeper.step()
    assert len(list((Path(care.work) / "held" / "accepted").iterdir())) == 1
    assert "accepted" in keeper.held
    assert ask(lake, "spent", ["card", "spent"]) == [("a", 5.0)]
    assert keeper.failures == {}


RETENTION = "slaProperties: [{property: retention, value: 30, unit: d, element: payments}]\n"


@pytest.mark.parametrize("promised", [False, True])
def test_tables_are_kept_as_declared(care: Care, promised: bool) -> None:
    if promised:  # by the contract, and nothing is said of it beside
        file = Path(care.product) / "product.yaml"
        parts = file.read_text(encoding="utf-8").replace("rows: 30d, ", "").split("---\n")
        at = next(number for number, part in enumerate(parts) if "kind: DataContract" in part)
        file.write_text(
            "---\n".join([*parts[:at], parts[at] + RETENTION, *parts[at + 1 :]]), encoding="utf-8"
        )
    lake = Lake(care.lake)
    for number in range(4):
        arrived(lake, (number, 0, "a", 1.0))
    arrived(lake, (9, 40, "a", 1.0))
    late = LakeTable(lake.path("raw", "payments_late"), partition_by=("day",))
    late.append([payments((9, 40, "a", 1.0)), payments((10, 39, "a", 1.0))])
    keeper = Caretaker(care, ManualClock(START + 41 * DAY))
    keeper.step(force=True)
    table = lake.find("payments")
    assert [row[0] for row in ask(lake, "payments", ["id"])] == [9, 10], (
        "30 days are kept, late row 10 came home"
    )
    assert [one.did for one in versions(table)][:3] == ["expire", "remember", "merge late rows"]
    assert table.properties_now()["delta.logRetentionDuration"] == "interval 72 hours"
    before = lake.find("payments").version
    keeper.step()
    assert lake.find("payments").version == before, "its turn comes in an hour"


def test_a_table_that_cannot_be_kept_holds_no_other_back(care: Care) -> None:
    lake = Lake(care.lake)
    arrived(lake, (1, 0, "a", 1.0))
    broken = Path(lake.path("gold", "broken")) / "_delta_log"
    broken.mkdir(parents=True)
    (broken / f"{0:020d}.json").write_text("not json")
    keeper = Caretaker(care, ManualClock(START))
    keeper.step(force=True)
    assert set(keeper.failures) == {"broken"}
    assert ask(lake, "accepted", ["id"]) == [(1,)]


def test_the_process_that_commits_refines_too(care: Care, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log", stream="payments")
    log.open()
    log.append(payments((1, 0, "a", 2.0), (2, 0, "a", 3.0)))
    log.flush()
    fed = Fed("payments", "raw", ["day"], [], str(log.folder), "payments", care.lake)
    keeper = LakeKeeper([fed], tmp_path / "lock", 0.1, 1.0, START, care)
    lake, until = Lake(care.lake), time.monotonic() + 60
    while "spent" not in [table.name for table in lake.tables()] or lake.find("spent").rows == 0:
        assert keeper.alive()
        assert time.monotonic() < until
        time.sleep(0.1)
    keeper.finish()
    log.close()
    assert ask(lake, "spent", ["card", "payments", "spent"]) == [("a", 2, 5.0)]
