"""A disk that is really full: the rows acknowledged stay, the error says so, and room lets it go on."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.log import EventLog, Retention
from boucle.errors import Unavailable

UNTIL_FULL = """
import sys
import pyarrow as pa
from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.errors import Unavailable

log = EventLog(sys.argv[1], stream="readings", segment_bytes=int(sys.argv[2]), fsync_interval=0)
log.open()
number = log.end().offset
try:
    while True:
        rows = pa.record_batch({"number": range(number, number + 100)})
        number = log.append(Block("readings", rows, 0, Position("p", number))).offset
        log.flush()
        print(number, flush=True)
except Unavailable as error:
    print(error.code, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def numbers(log: EventLog) -> list[int]:
    return [n for b in log.read() for n in b.rows.column("number").to_pylist()]


def append(log: EventLog, count: int = 1000) -> int:
    first = log.end().offset
    numbers = range(first, first + count)
    rows = pa.record_batch({"number": numbers, "pair": [number // 2 for number in numbers]})
    log.append(Block("readings", rows, first, Position("press", first + count)))
    return first + count


def fill(log: EventLog) -> int:
    """Append and flush until the disk is full; returns how many rows were acknowledged."""
    acknowledged = [log.durable().offset]
    with pytest.raises(Unavailable, match=r"B315 .*the disk is full: No space left.*Fix: free space"):
        flush_for_ever(log, acknowledged)
    return acknowledged[-1]


def flush_for_ever(log: EventLog, acknowledged: list[int]) -> None:
    while True:
        end = append(log)
        log.flush()
        acknowledged.append(end)


@pytest.mark.parametrize("segment_bytes", [64 << 20, 50_000])
def test_it_says_so_loses_nothing_and_goes_on(small: Path, segment_bytes: int) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(700_000))
    log = EventLog(small / "log", stream="readings", segment_bytes=segment_bytes, fsync_interval=0)
    acknowledged = fill(log)
    assert acknowledged > 10_000
    assert log.durable().offset == acknowledged
    assert numbers(log) == list(range(acknowledged))
    assert fill(log) == acknowledged  # asked again, still full
    ballast.unlink()
    end = log.end().offset
    log.flush()
    assert numbers(log) == list(range(end))
    assert fill(log) > end
    durable = log.durable()
    with pytest.raises(Unavailable, match="B315"):  # there is no room for what was never acknowledged
        log.close()
    log.open()
    assert log.durable() == log.end() == durable
    assert numbers(log) == list(range(durable.offset))
    if log.truncate(durable):
        end = append(log)
        log.flush()
        assert log.durable().offset == end
    log.close()


def test_killed_on_a_full_disk_it_opens_with_all_that_was_acknowledged(small: Path) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    command = [sys.executable, "-c", UNTIL_FULL, str(small / "log"), "50000"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdin is not None
    told = []
    while (line := writer.stdout.readline().strip()).isdecimal():
        told.append(int(line))
    assert line == "B315"
    writer.kill()
    writer.stdout.close()
    writer.stdin.close()
    writer.wait()
    log = EventLog(small / "log", stream="readings", fsync_interval=0)
    log.open()
    assert log.durable().offset == told[-1]
    assert numbers(log) == list(range(told[-1]))
    ballast.unlink()
    end = append(log)
    log.flush()
    assert numbers(log) == list(range(end))
    log.close()


def test_retention_makes_the_room(small: Path) -> None:
    log = EventLog(
        small / "log",
        stream="readings",
        segment_bytes=100_000,
        fsync_interval=0,
        keep=Retention(bytes=1_500_000),
    )
    for _ in range(1000):
        end = append(log)
        log.flush()
    assert log.durable().offset == end
    assert log.start().offset > 0
    log.close()


def test_groups_and_compaction_say_so_too(small: Path) -> None:
    log = EventLog(small / "log", stream="readings", segment_bytes=400_000, fsync_interval=0)
    for _ in range(80):
        append(log)
    log.flush()
    group = log.group("lake")
    group.commit(Position("readings", 500))
    rest = small / "rest"
    with pytest.raises(OSError, match="No space left"):
        rest.write_bytes(bytes(3_000_000))
    with pytest.raises(Unavailable, match="B315"):
        group.commit(Position("readings", 1000))
    assert group.position().offset == 500
    with pytest.raises(Unavailable, match="B315"):
        log.group("another")
    with pytest.raises(Unavailable, match="B315"):
        log.compact(["pair"])
    assert not list((small / "log").glob("*.compact"))
    assert numbers(log) == list(range(80_000))
    rest.unlink()
    group.commit(Position("readings", 1000))
    assert log.compact(["pair"]).rows > 10_000
    assert set(range(1, 80_000, 2)) <= set(numbers(log))
    log.close()
