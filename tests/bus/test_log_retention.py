"""Retention by age and by size: whole segments, the oldest first, never the one being written."""

from pathlib import Path

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.log import EventLog, Retention
from boucle.clock import SECOND
from boucle.errors import PositionLost
from boucle.testing.clock import ManualClock

HOUR = 3600


def append(log: EventLog, first: int, count: int = 10) -> None:
    rows = pa.record_batch({"number": range(first, first + count)})
    log.append(Block("readings", rows, 0, Position("press", first + count)))
    log.flush()


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.seg"))


def test_by_age_a_slow_stream_rolls_and_forgets(tmp_path: Path) -> None:
    clock = ManualClock(1_767_225_600 * SECOND)
    log = EventLog(tmp_path, stream="readings", keep=Retention(seconds=8 * HOUR), clock=clock)
    for number in range(48):
        append(log, number, 1)
        clock.advance(HOUR / 2)
    kept = [n for block in log.read() for n in block.rows.column("number").to_pylist()]
    assert kept == list(range(kept[0], 48))
    # Sixteen half hours are asked for; a segment holds two of them and goes when its newest is too old.
    assert 16 <= len(kept) <= 20
    with pytest.raises(PositionLost, match=r"B312.*retention removed it"):
        log.read(Position("readings", kept[0] - 1))
    log.close()


def test_by_age_a_silent_stream_is_emptied_when_asked(tmp_path: Path) -> None:
    clock = ManualClock(1_767_225_600 * SECOND)
    log = EventLog(tmp_path, stream="readings", keep=Retention(seconds=8 * HOUR), clock=clock)
    append(log, 0)
    assert log.retain() == 0
    clock.advance(7 * HOUR)
    assert log.retain() == 0  # rolled: the rows count as no older than this moment
    clock.advance(7.9 * HOUR)
    assert log.retain() == 0
    clock.advance(0.2 * HOUR)
    assert log.retain() == 1
    assert log.start() == log.end() == Position("readings", 10)
    assert log.source_position() == Position("press", 10)
    append(log, 10)
    log.close()


def test_age_is_kept_over_restarts(tmp_path: Path) -> None:
    clock = ManualClock(1_767_225_600 * SECOND)
    for number in range(20):
        log = EventLog(tmp_path, stream="readings", keep=Retention(seconds=8 * HOUR), clock=clock)
        append(log, number, 1)
        log.close()
        clock.advance(HOUR)
    first = log.start().offset
    assert 10 <= first <= 12


def test_by_size_the_oldest_go(tmp_path: Path) -> None:
    log = EventLog(tmp_path, stream="readings", segment_bytes=2000, keep=Retention(bytes=10_000))
    for number in range(0, 2000, 10):
        append(log, number)
        assert size(tmp_path) <= 10_000 + 2000 + 1000
    assert size(tmp_path) > 7000
    first = log.start().offset
    assert [n for block in log.read() for n in block.rows.column("number").to_pylist()] == list(
        range(first, 2000)
    )
    log.close()
    log = EventLog(tmp_path, stream="readings", keep=Retention(bytes=0))
    assert log.retain() > 0
    assert len(list(tmp_path.glob("*.seg"))) == 1
    log.close()


def test_without_retention_nothing_goes(tmp_path: Path) -> None:
    log = EventLog(tmp_path, stream="readings", segment_bytes=500)
    for number in range(0, 300, 10):
        append(log, number)
    assert log.retain() == 0
    assert log.start().offset == 0
    log.close()


def test_a_broken_head_stops_retention_not_appending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(1_767_225_600 * SECOND)
    log = EventLog(tmp_path, stream="readings", keep=Retention(seconds=80), clock=clock)
    for number in range(4):
        append(log, number, 1)
        clock.advance(11)
    second = sorted(tmp_path.glob("*.seg"))[1]
    data = bytearray(second.read_bytes())
    data[70] ^= 1
    second.write_bytes(data)
    clock.advance(200)
    append(log, 4, 1)
    assert "nothing was removed by retention" in caplog.text
    assert log.start().offset == 0
    assert log.durable().offset == 5
    log.close()


@pytest.mark.parametrize(("seconds", "count"), [(0, None), (-1, None), (None, -1)])
def test_limits_that_cannot_be(seconds: float | None, count: int | None) -> None:
    with pytest.raises(ValueError, match="positive"):
        Retention(seconds=seconds, bytes=count)
