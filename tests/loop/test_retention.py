"""Logs of sources and steps forget what is old or too much, and nothing that anybody still needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from boucle.block import Block, Position
from boucle.bus.memory import MemorySource
from boucle.bus.segments import segment_files
from boucle.lake.sql import Sql
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.project import load_project
from boucle.testing.clock import ManualClock
from tests.loop.test_load import PRODUCT, START, rows

MINUTE = 60_000
"""Readings, a millisecond apart."""


class Kept:
    """The loaded product with a source that forgets, stepped by hand."""

    def __init__(
        self, folder: Path, keep: str = "10min", needed: MemorySource | None = None, key: str = ""
    ) -> None:
        product = folder / "product"
        if not product.exists():
            product.mkdir()
            text = (PRODUCT / "product.yaml").read_text(encoding="utf-8")
            text = text.replace("  needed:\n", f"  needed:\n    keep: {keep}\n")
            text = text.replace("  - id: passed\n", f"  - id: passed\n    keep: {keep}\n")
            text = text.replace("tables:\n", "tables:\n  raw: {from: needed, zone: raw, partition: []}\n")
            text = text.replace(
                "passed: {from: passed, zone: silver, partition: []",
                f"passed: {{from: passed, zone: silver, partition: []{key}",
            )
            (product / "product.yaml").write_text(text, encoding="utf-8")
            (product / "operators.py").write_bytes((PRODUCT / "operators.py").read_bytes())
        self.folder, self.clock = folder, ManualClock(START)
        self.minute = 0
        plan = build_plan(load_project(product, None, {"run.lake_every": "30d"}))
        self.needed = needed or MemorySource(stream="needed")
        others = {name: MemorySource(stream=name) for name in ("surplus", "waves")}
        self.loop = Loop(plan, self.clock, sources={"needed": self.needed, **others}, folder=folder)
        self.loop.open()
        self.log = self.loop.intakes["needed"].log

    def minutes(self, count: int) -> None:
        """100 readings at the beginning of each minute."""
        for _ in range(count):
            self.needed.put_rows(rows(self.minute * MINUTE, 100))
            self.minute += 1
            self.clock.advance(60)
            self.loop.pump()

    def checkpoint(self) -> None:
        self.loop._take_checkpoint()
        self.loop._save()

    def abandon(self) -> None:
        """End without a last checkpoint, as a killed process does; only its files are given back."""
        self.loop._closed = True
        for intake in self.loop.intakes.values():
            intake.close()
        for part in (self.loop.tables, self.loop.quarantine, self.loop.action.journal):
            part.close()

    @property
    def first(self) -> int:
        """The first row kept, after retention had its turn."""
        self.loop.retention.apply()
        return self.log.start().offset

    def source(self) -> Any:
        return next(one for one in self.loop.picture.fresh().sources if one.id == "needed")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    one = Kept(tmp_path)
    yield one
    one.loop.close()


def test_nothing_goes_that_a_checkpoint_a_table_or_a_group_needs(kept: Kept) -> None:
    kept.minutes(30)
    assert kept.first == 0, "no checkpoint yet"
    kept.checkpoint()
    assert kept.first == 0, "the tables lack every row"
    report = kept.log.group("report")
    kept.loop.tables.commit(force=True)
    assert kept.first == 0, "the group has read nothing"
    report.commit(Position("needed", 900))
    assert 0 < kept.first <= 900
    report.commit(kept.log.durable())
    # 30 minutes of 100 rows: the last 10 are kept, and at most an eighth and a minute more.
    assert 1700 <= kept.first <= 2000
    lake = Sql(kept.folder / "lake")
    assert lake.query("select count(*) as rows from raw").column("rows").to_pylist() == [3000]
    lake.close()


def test_a_table_that_is_behind_holds_its_log(kept: Kept) -> None:
    kept.minutes(30)
    kept.loop.tables.commit(force=True)
    kept.checkpoint()
    first = kept.first
    kept.minutes(30)
    kept.checkpoint()
    assert first < kept.first <= 3000, "the tables stand at row 3000"
    kept.loop.tables.commit(force=True)
    assert 4700 <= kept.first <= 5000


def test_what_retention_did_is_shown(kept: Kept) -> None:
    kept.minutes(30)
    kept.loop.tables.commit(force=True)
    kept.checkpoint()
    kept.loop.retention.apply()
    source = kept.source()
    assert source.log_removed > 5
    assert source.log_rows == 3000 - kept.log.start().offset
    logs = (kept.log, kept.loop.intakes["needed"].late)
    assert source.log_bytes == sum(
        file.stat().st_size for log in logs for _, file in segment_files(log.folder)
    )
    families = {one.name: one for one in text_string_to_metric_families(kept.loop.picture.metrics().decode())}
    removed = {
        one.labels["source"]: one.value
        for one in families["boucle_log_removed_segments"].samples
        if one.name.endswith("_total")
    }
    assert removed == {"needed": source.log_removed, "surplus": 0, "waves": 0}
    assert families["boucle_log_bytes"].samples


def test_a_restart_finds_all_it_needs(kept: Kept, tmp_path: Path) -> None:
    kept.minutes(30)
    kept.loop.tables.commit(force=True)
    kept.checkpoint()
    kept.minutes(5)  # worked through, and in no checkpoint: the process ends here
    assert kept.first > 1700
    kept.abandon()
    again = Kept(tmp_path, needed=kept.needed)
    gate: Any = again.loop.plan.steps[0].operator
    assert gate.seen == 500, "from the checkpoint on"
    again.clock.advance(35 * 60)
    again.needed.put_rows(rows(34 * MINUTE, 100))
    again.loop.pump()
    assert again.loop.intakes["needed"].counted().duplicate == 100
    again.loop.close()
    lake = Sql(tmp_path / "lake")
    assert lake.query("select count(*) as rows from raw").column("rows").to_pylist() == [3500]
    lake.close()


@pytest.mark.parametrize("key", ["", ", key: [seq]"])
def test_the_log_of_a_step_forgets_what_its_tables_have(tmp_path: Path, key: str) -> None:
    kept = Kept(tmp_path, key=key)
    log = next(one for one in kept.loop.tables.logs() if one.stream == "passed")
    kept.minutes(100)
    kept.loop.retention.apply()
    assert log.start().offset == 0, "no checkpoint, no table"
    kept.checkpoint()
    kept.loop.retention.apply()
    assert log.start().offset == 0, "the table lacks every row"
    kept.loop.tables.commit(force=True)
    kept.minutes(5)  # logged, and in no checkpoint: they come again
    kept.loop.retention.apply()
    # With a key a restart reads the last 10 000 rows at least to know duplicates; without one ten minutes stay.
    assert (0 if key else 8_500) < log.start().offset <= (500 if key else 10_000)
    kept.abandon()
    again = Kept(tmp_path, needed=kept.needed, key=key)
    again.loop.pump()
    again.loop.close()
    lake = Sql(tmp_path / "lake")
    told = lake.query("select count(*) as rows, count(distinct seq) as different from passed").to_pylist()
    assert told == [{"rows": 10_500, "different": 10_500}]
    lake.close()


def test_a_size_is_kept_too(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "{bytes: 1MB}")
    for _ in range(60):
        kept.needed.put_rows(rows(kept.minute * MINUTE, 2000))
        kept.minute += 5
        kept.clock.advance(300)
        kept.loop.pump()
    kept.loop.tables.commit(force=True)
    kept.checkpoint()
    assert kept.first > 0
    assert 500_000 < kept.source().log_bytes < 1_200_000
    kept.loop.close()


def test_without_keep_everything_stays(kept: Kept) -> None:
    for _ in range(30):
        kept.loop.intakes["surplus"].log.append(Block("surplus", rows(0, 100), START, Position("memory", 1)))
        kept.loop.intakes["surplus"].log.flush()
        kept.clock.advance(60)
    kept.loop.retention.look()
    assert kept.loop.retention.sizes["surplus"].rows == 3000
    assert {name: one.removed for name, one in kept.loop.retention.sizes.items()} == {
        "needed": 0, "surplus": 0, "waves": 0,
    }  # fmt: skip
    assert not (kept.folder / "log" / "surplus" / "groups").exists()
    assert (kept.folder / "log" / "needed" / "groups" / "loop").exists()
