"""The event log keeps what it flushed: over crashes, full disks, retention, and readers beside it."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.errors import BoucleError, PositionLost, Unavailable

WRITER = """
import sys
import pyarrow as pa
from boucle.block import Block, Position
from boucle.bus.log import EventLog

log = EventLog(sys.argv[1], segment_bytes=3_000_000, fsync_interval=0)
log.open()
number = log.end().offset
print("open", number, flush=True)
while True:
    for _ in range(3):
        rows = pa.record_batch({"number": range(number, number + 500), "ballast": [bytes(400)] * 500})
        number = log.append(Block("readings", rows, number, Position("writer", number + 500))).offset
    log.flush()
    print(number, flush=True)
"""


def block(first: int, count: int, source: int = 0) -> Block:
    rows = pa.record_batch({"number": pa.array(range(first, first + count), pa.int64())})
    return Block("readings", rows, first, Position("press", source or first + count))


def numbers(log: EventLog, after: int | None = None, max_rows: int | None = None) -> list[int]:
    position = None if after is None else Position(log.stream, after)
    return [n for b in log.read(position, max_rows) for n in b.rows.column("number").to_pylist()]


def filled(
    folder: Path, blocks: int = 10, *, segment_bytes: int = 64 << 20, buffer_bytes: int = 8 << 20
) -> EventLog:
    log = EventLog(folder, fsync_interval=0, segment_bytes=segment_bytes, buffer_bytes=buffer_bytes)
    for index in range(blocks):
        log.append(block(index * 10, 10))
    log.flush()
    return log


def test_positions_count_rows_and_read_starts_after_them(tmp_path: Path) -> None:
    log = filled(tmp_path / "readings", segment_bytes=2000)
    assert log.end() == log.durable() == Position("readings", 100)
    assert numbers(log) == list(range(100))
    assert numbers(log, after=37) == list(range(37, 100))
    assert numbers(log, after=37, max_rows=20) == list(range(37, 57))
    assert numbers(log, after=100) == []
    read = list(log.read(Position("readings", 37), 20))
    assert [b.position.offset for b in read] == [40, 50, 57]
    assert [b.watermark for b in read] == [30, 40, 50]
    log.close()


def test_not_flushed_is_not_read(tmp_path: Path) -> None:
    log = filled(tmp_path / "readings")
    assert log.append(block(100, 5)).offset == 105
    assert log.durable().offset == 100
    assert numbers(log) == list(range(100))
    log.flush()
    assert numbers(log, after=100) == [100, 101, 102, 103, 104]
    log.close()


def test_reopened_it_goes_on_and_knows_the_source_position(tmp_path: Path) -> None:
    filled(tmp_path / "readings", segment_bytes=2000).close()
    log = EventLog(tmp_path / "readings", fsync_interval=0)
    assert log.source_position() == Position("press", 100)
    log.append(block(100, 10, source=777))
    log.flush()
    assert log.source_position() == Position("press", 777)
    assert numbers(log) == list(range(110))
    log.close()


def test_another_schema_starts_another_segment(tmp_path: Path) -> None:
    log = filled(tmp_path / "readings", blocks=2)
    wider = pa.record_batch({"number": [20, 21], "zone": ["A", "B"]})
    log.append(Block("readings", wider, 0, Position("press", 22)))
    log.flush()
    assert [b.rows.schema.names for b in log.read()] == [["number"], ["number"], ["number", "zone"]]
    assert numbers(log, after=15) == [15, 16, 17, 18, 19, 20, 21]
    assert len(list((tmp_path / "readings").glob("*.seg"))) == 2
    log.close()


def test_dictionary_columns_are_stored_plain(tmp_path: Path) -> None:
    rows = pa.record_batch({"machine": pa.array(["press-1", "press-2", "press-1"]).dictionary_encode()})
    with_log = EventLog(tmp_path, fsync_interval=0)
    with_log.append(Block("readings", rows, 0, Position("press", 3)))
    with_log.flush()
    assert next(with_log.read()).rows.column("machine").to_pylist() == ["press-1", "press-2", "press-1"]
    with_log.close()


def test_retention_removes_whole_segments_and_positions_stay(tmp_path: Path) -> None:
    log = filled(tmp_path / "readings", segment_bytes=1000)
    assert log.truncate(Position("readings", 45)) > 0
    first = log.start().offset
    assert 0 < first <= 45
    assert numbers(log) == list(range(first, 100))
    with pytest.raises(PositionLost) as told:
        log.read(Position("readings", 0))
    assert told.value.code == "B312"
    with pytest.raises(PositionLost):
        log.read(Position("readings", 101))
    log.close()
    again = EventLog(tmp_path / "readings")
    assert again.end().offset == 100
    again.close()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    log = filled(tmp_path)
    with pytest.raises(Unavailable, match="B313"):
        EventLog(tmp_path).open()
    log.close()
    EventLog(tmp_path).open()


def test_a_reader_follows_a_writer_in_another_object(tmp_path: Path) -> None:
    log = filled(tmp_path, segment_bytes=1000)
    reader = EventLog(tmp_path)
    assert numbers(reader) == list(range(100))
    log.append(block(100, 10))
    assert reader.durable().offset == 100
    log.flush()
    assert numbers(reader, after=100) == list(range(100, 110))
    log.close()


def test_a_torn_tail_is_cut_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path).close()
    segment = next(tmp_path.glob("*.seg"))
    whole = segment.read_bytes()
    segment.write_bytes(whole + whole[-100:-50])
    log = EventLog(tmp_path, fsync_interval=0)
    log.open()
    assert log.repaired == 1
    assert "torn tail" in caplog.text
    assert segment.read_bytes() == whole
    log.append(block(100, 1))
    log.flush()
    assert numbers(log) == list(range(101))
    log.close()


def test_a_segment_whose_head_was_torn_is_removed(tmp_path: Path) -> None:
    filled(tmp_path).close()
    (tmp_path / f"{100:020d}.seg").write_bytes(b"BCLF\x01")
    log = EventLog(tmp_path, fsync_interval=0)
    log.append(block(100, 1))
    log.flush()
    assert log.repaired == 1
    assert numbers(log) == list(range(101))
    log.close()


@pytest.mark.parametrize("where", [0.3, 0.6, 0.999])
def test_damage_of_flushed_rows_is_named_not_skipped(tmp_path: Path, where: float) -> None:
    filled(tmp_path).close()
    segment = next(tmp_path.glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[int(len(data) * where)] ^= 0x10
    segment.write_bytes(data)
    log = EventLog(tmp_path)
    with pytest.raises(BoucleError, match=r"B311 .*\.seg: the log is damaged at byte \d+"):
        log.open()
    with pytest.raises(BoucleError, match="B311"):
        numbers(log)


def test_rows_that_vanished_are_told(tmp_path: Path) -> None:
    filled(tmp_path).close()
    next(tmp_path.glob("*.seg")).unlink()
    with pytest.raises(BoucleError, match=r"B311.*rows 0 to 100"):
        EventLog(tmp_path).open()


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `size`: to the log it is a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_nothing_and_is_left_by_itself(tmp_path: Path) -> None:
    log = filled(tmp_path)
    size = next(tmp_path.glob("*.seg")).stat().st_size
    with at_most(size + 100):
        log.append(block(100, 200))
        with pytest.raises(Unavailable, match=r"the disk is full.*Fix: free space"):
            log.flush()
        assert next(tmp_path.glob("*.seg")).stat().st_size == size
        assert log.durable().offset == 100
    log.append(block(300, 10))
    log.flush()
    assert numbers(log) == list(range(310))
    log.close()


def append_for_ever(log: EventLog) -> None:
    while True:
        log.append(block(log.end().offset, 100))


def test_a_full_disk_refuses_blocks_when_the_buffer_is_full_too(tmp_path: Path) -> None:
    log = filled(tmp_path, buffer_bytes=10_000)
    size = next(tmp_path.glob("*.seg")).stat().st_size
    with at_most(size + 100), pytest.raises(Unavailable, match="B315"):
        append_for_ever(log)
    end = log.end().offset
    assert end > 100
    log.flush()
    assert numbers(log) == list(range(end))
    log.close()


def test_syncs_asked_for_at_once_are_shared(tmp_path: Path) -> None:
    log = EventLog(tmp_path, fsync_interval=0.02)
    log.open()
    lock = threading.Lock()
    order = iter(range(10_000))

    def write() -> None:
        for _ in range(10):
            with lock:
                position = log.append(block(next(order), 1))
            log.flush()
            assert log.durable() >= position

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(log) == list(range(80))
    assert log.syncs < 80
    log.close()


def test_killed_while_writing_it_keeps_all_that_was_flushed(tmp_path: Path) -> None:
    chance = random.Random(7)
    flushed = 0
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline().startswith("open")
        time.sleep(chance.uniform(0.02, 0.25))
        os.kill(writer.pid, signal.SIGKILL)
        told = writer.stdout.read().split()
        writer.stdout.close()
        writer.wait()
        flushed = max([flushed, *(int(number) for number in told[:-1])])
        log = EventLog(tmp_path)
        log.open()
        end = log.end().offset
        assert end >= flushed
        assert numbers(log) == list(range(end))
        assert log.source_position() == (Position("writer", end) if end else None)
        log.close()
    assert flushed > 0
