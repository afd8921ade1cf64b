"""From a log to its table exactly once, whatever is killed in between."""

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import SECOND, Nanos
from boucle.errors import PositionLost, Unavailable
from boucle.lake.delta import LakeTable
from boucle.lake.writer import Behind, Feed, LakeWriter
from boucle.testing.conformance.table import START, readings, rows_of


class HandClock:
    """A clock moved by hand."""

    speed = 1.0

    def __init__(self) -> None:
        self.time: Nanos = START

    def now(self) -> Nanos:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += int(seconds * SECOND)


class ListLog:
    """A log in memory that hands out the whole Block around the position, as frames on disk do."""

    def __init__(self, partition: str = "readings", synced: int | None = None) -> None:
        self.partition = partition
        self.blocks: list[Block] = []
        self.synced = synced
        self.first = 0

    def start(self) -> Position:
        return Position(self.partition, self.first)

    def append(self, block: Block) -> None:
        end = self._end() + len(block)
        self.blocks.append(Block(block.stream, block.rows, block.watermark, Position(self.partition, end)))

    def _end(self) -> int:
        return self.blocks[-1].position.offset if self.blocks else 0

    def read(self, start: Position | None, max_rows: int) -> Iterator[Block]:
        begin = 0 if start is None else start.offset
        return iter([block for block in self.blocks if block.position.offset > begin])

    def durable(self) -> Position:
        return Position(self.partition, self._end() if self.synced is None else self.synced)


def test_a_new_table_begins_where_the_log_does(tmp_path: Path) -> None:
    """Retention removed the first rows before anybody thought of this table."""
    log, table = log_of(3, 3, 3), LakeTable(tmp_path / "silver" / "readings")
    log.first, log.blocks = 3, log.blocks[1:]
    LakeWriter([Feed(log, table)], HandClock()).step(force=True)
    assert values(table) == [float(number) for number in range(3, 9)]
    log.append(log.blocks[-1])
    LakeWriter([Feed(log, table)], HandClock()).step(force=True)
    assert len(values(table)) == 9


class Crash(BaseException):
    """The process dies here."""


class CrashingTable(LakeTable):
    """A table whose process dies right after the commit, before anybody hears of it."""

    def append(
        self,
        block: Block | Sequence[Block],
        *,
        app: str = "",
        transaction: int | None = None,
        after: int | None = None,
    ) -> int:
        super().append(block, app=app, transaction=transaction, after=after)
        raise Crash


def log_of(*sizes: int) -> ListLog:
    log, first = ListLog(), 0
    for size in sizes:
        log.append(readings(first, size))
        first += size
    return log


def values(table: LakeTable) -> list[float]:
    return [row["value"] for row in rows_of(table)]


def test_nothing_is_committed_before_it_is_due(tmp_path: Path) -> None:
    clock, log, table = HandClock(), log_of(10), LakeTable(tmp_path / "silver" / "readings")
    writer = LakeWriter([Feed(log, table)], clock, seconds=5, rows=100)
    assert writer.step() == 0
    clock.sleep(4)
    assert writer.step() == 0
    clock.sleep(1)
    assert writer.step() == 10
    assert writer.step() == 0
    log.append(readings(10, 100))
    assert writer.step() == 100
    assert values(table) == [float(number) for number in range(110)]


def test_a_faster_clock_does_not_commit_more_often(tmp_path: Path) -> None:
    clock = HandClock()
    clock.speed = 60.0
    writer = LakeWriter([Feed(log_of(1), LakeTable(tmp_path / "silver" / "r"))], clock, seconds=5)
    assert writer.step() == 0
    clock.sleep(299)
    assert writer.step() == 0
    clock.sleep(1)
    assert writer.step() == 1


def test_only_durable_rows_are_committed(tmp_path: Path) -> None:
    log, table = log_of(4, 4), LakeTable(tmp_path / "silver" / "readings")
    log.synced = 6
    writer = LakeWriter([Feed(log, table)], HandClock())
    assert writer.step(force=True) == 6
    log.synced = 8
    assert writer.step(force=True) == 2
    assert values(table) == [float(number) for number in range(8)]


def test_a_crash_after_the_commit_adds_nothing_twice(tmp_path: Path) -> None:
    folder, log = tmp_path / "silver" / "readings", log_of(3, 3, 3)
    with pytest.raises(Crash):
        LakeWriter([Feed(log, CrashingTable(folder))], HandClock(), rows=4).step(force=True)
    table = LakeTable(folder)
    assert values(table) == [0.0, 1.0, 2.0, 3.0]
    writer = LakeWriter([Feed(log, table)], HandClock(), rows=4)
    assert writer.committed("readings") == 4
    assert writer.step(force=True) == 5
    assert values(table) == [float(number) for number in range(9)]


def test_two_writers_of_the_same_log_add_every_row_once(tmp_path: Path) -> None:
    folder, log = tmp_path / "silver" / "readings", log_of(5)
    one = LakeWriter([Feed(log, LakeTable(folder))], HandClock())
    other = LakeWriter([Feed(log, LakeTable(folder))], HandClock())
    other.committed("readings")
    one.step(force=True)
    log.append(readings(5, 3))
    assert other.step(force=True) == 0
    assert other.failures["readings"].code == "B509"
    assert other.step(force=True) == 3
    assert other.failures == {}
    assert values(LakeTable(folder)) == [float(number) for number in range(8)]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    rows=st.integers(1, 9),
    crashes=st.lists(st.booleans(), max_size=4),
)
def test_however_cut_and_crashed_the_table_is_the_log(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], rows: int, crashes: list[bool]
) -> None:
    folder, log = tmp_path_factory.mktemp("lake") / "silver" / "readings", log_of(*sizes)
    for crash in crashes:
        table = CrashingTable(folder) if crash else LakeTable(folder)
        writer = LakeWriter([Feed(log, table)], HandClock(), rows=rows)
        log.synced = min(sum(sizes), writer.committed("readings") + rows)
        if crash and log.synced > writer.committed("readings"):
            with pytest.raises(Crash):
                writer.step(force=True)
        else:
            writer.step(force=True)
    log.synced = None
    LakeWriter([Feed(log, LakeTable(folder))], HandClock(), rows=rows).step(force=True)
    assert values(LakeTable(folder)) == [float(number) for number in range(sum(sizes))]


def test_one_broken_table_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("a file where a folder should be")
    broken, good = LakeTable(tmp_path / "broken" / "a"), LakeTable(tmp_path / "silver" / "b")
    writer = LakeWriter([Feed(log_of(2), broken), Feed(log_of(3), good)], HandClock())
    assert writer.step(force=True) == 3
    assert isinstance(writer.failures["a"], Unavailable)
    (tmp_path / "broken").unlink()
    assert writer.step(force=True) == 2
    assert writer.failures == {}


def test_rows_without_event_time_have_no_age(tmp_path: Path) -> None:
    log = ListLog("r")
    log.append(Block("r", pa.record_batch({"payment": [1, 2]}), 0, Position("r", 2)))
    behind = LakeWriter([Feed(log, LakeTable(tmp_path / "r"))], HandClock()).behind()["r"]
    assert behind.rows == 2
    assert math.isnan(behind.seconds)


def test_behind_counts_durable_rows_and_the_age_of_the_oldest(tmp_path: Path) -> None:
    clock, log = HandClock(), log_of(3)
    writer = LakeWriter([Feed(log, LakeTable(tmp_path / "silver" / "r"))], clock)
    clock.sleep(10)
    assert writer.behind() == {"r": Behind(3, 10.0)}
    writer.step(force=True)
    assert writer.behind() == {"r": Behind(0, 0.0)}


def test_a_log_replaced_under_its_table_is_refused(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    LakeWriter([Feed(log_of(9), table)], HandClock()).step(force=True)
    writer = LakeWriter([Feed(log_of(2), table)], HandClock())
    with pytest.raises(PositionLost, match="B507"):
        writer.committed("readings")
    assert writer.step(force=True) == 0
    assert writer.failures["readings"].code == "B507"
    assert table.rows == 9


def test_a_log_that_lost_rows_is_refused(tmp_path: Path) -> None:
    log = log_of(4)
    log.blocks, log.synced = [], 4
    writer = LakeWriter([Feed(log, LakeTable(tmp_path / "silver" / "readings"))], HandClock())
    assert writer.step(force=True) == 0
    assert writer.failures["readings"].code == "B508"


def test_small_files_are_joined_now_and_then(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    writer = LakeWriter([Feed(log_of(*[2] * 8), table)], HandClock(), rows=2, compact_every=4)
    assert writer.step(force=True) == 16
    assert len(table.files()) == len({tuple(file.partition.items()) for file in table.files()})
    assert values(table) == [float(number) for number in range(16)]


def test_a_real_log_fills_its_table(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "silver" / "readings")
    for first in (0, 6):
        log = EventLog(tmp_path / "log" / "readings", stream="readings")
        log.append(readings(first, 4))
        log.append(readings(first + 4, 2))
        log.flush()
        log.append(readings(99, 1) if first else readings(12, 0))
        writer = LakeWriter([Feed(log, table)], HandClock(), rows=5)
        assert writer.step(force=True) == 6
        assert writer.committed("readings") == first + 6
        log.close()
    assert values(table) == [float(number) for number in range(12)]


KILLED = """
import os, signal, sys
from pathlib import Path
from boucle.clock import SystemClock
from boucle.lake.delta import LakeTable
from boucle.lake.writer import Feed, LakeWriter
from tests.lake.test_writer import log_of

class Killed(LakeTable):
    def sync(self):
        os.kill(os.getpid(), signal.SIGKILL)

LakeWriter([Feed(log_of(3, 3), Killed(sys.argv[1]))], SystemClock(), rows=4).step(force=True)
"""


@pytest.mark.slow
def test_killed_between_the_commit_and_its_sync(tmp_path: Path) -> None:
    folder = tmp_path / "silver" / "readings"
    root = Path(__file__).parents[2]
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=root, check=False)
        assert ended.returncode == -9
    LakeWriter([Feed(log_of(3, 3), LakeTable(folder))], HandClock()).step(force=True)
    assert values(LakeTable(folder)) == [float(number) for number in range(6)]
