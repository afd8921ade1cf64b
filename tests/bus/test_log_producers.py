"""An idempotent producer's Block is stored once, whatever is sent again and whoever was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.bus.log_producers import PRODUCERS, SEQUENCES
from boucle.errors import BoucleError, ContractBroken, PositionLost

SENDER = """
import sys
import pyarrow as pa
from boucle.block import Block, Position
from boucle.bus.log import EventLog

log = EventLog(sys.argv[1], segment_bytes=20_000, fsync_interval=0)
print("open", flush=True)
for sequence in range(int(sys.argv[2]), 1_000_000):
    rows = pa.record_batch({"number": [sequence * 10 + n for n in range(10)]})
    log.append(Block("readings", rows, 0, Position("plc", 0)), producer="plc", sequence=sequence)
    if sequence % 3 == 0:
        log.flush()
        print(sequence, flush=True)
"""


def block(sequence: int, count: int = 2) -> Block:
    rows = pa.record_batch({"number": [sequence * count + n for n in range(count)]})
    return Block("readings", rows, 0, Position("press", sequence))


def numbers(log: EventLog) -> list[int]:
    return [n for b in log.read() for n in b.rows.column("number").to_pylist()]


def opened(folder: Path, segment_bytes: int = 64 << 20) -> EventLog:
    return EventLog(folder, stream="readings", fsync_interval=0, segment_bytes=segment_bytes)


def test_sent_again_it_has_its_first_position(tmp_path: Path) -> None:
    log = opened(tmp_path)
    first = [log.append(block(n), producer="a", sequence=n) for n in range(5)]
    log.flush()
    again = [log.append(block(n), producer="a", sequence=n) for n in range(5)]
    assert again == first == [Position("readings", 2 * (n + 1)) for n in range(5)]
    log.flush()
    assert numbers(log) == list(range(10))
    log.close()


def test_sent_again_before_the_flush_too(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert log.append(block(0), producer="a", sequence=0) == log.append(block(0), producer="a", sequence=0)
    log.flush()
    assert numbers(log) == [0, 1]
    log.close()


@pytest.mark.parametrize("segment_bytes", [300, 64 << 20])
def test_after_a_restart_too_from_the_last_segment_alone(tmp_path: Path, segment_bytes: int) -> None:
    log = opened(tmp_path, segment_bytes)
    first = {}
    for n in range(12):
        name = "ab"[n % 2]
        first[name, n // 2] = log.append(block(n), producer=name, sequence=n // 2)
        log.append(block(100))  # of nobody
    log.close()
    for segment in sorted(tmp_path.glob("*.seg"))[:-1]:
        segment.unlink()
    log = opened(tmp_path, segment_bytes)
    log.open()
    end = log.end()
    assert {key: log.append(block(99), producer=key[0], sequence=key[1]) for key in first} == first
    assert log.end() == end
    assert log.append(block(6), producer="a", sequence=6).offset == end.offset + 2
    log.close()


def test_compaction_and_retention_keep_what_producers_did(tmp_path: Path) -> None:
    log = opened(tmp_path, 400)
    first = [log.append(block(n), producer="a", sequence=n) for n in range(9)]
    log.append(Block("readings", pa.record_batch({"other": ["x"]}), 0, Position("press", 9)))
    log.flush()
    assert log.compact(["number"]).segments == 0
    log.truncate(log.end())
    log.close()
    log = opened(tmp_path)
    assert [log.append(block(n), producer="a", sequence=n) for n in range(9)] == first
    log.close()


def test_a_torn_empty_segment_after_a_compacted_one(tmp_path: Path) -> None:
    log = opened(tmp_path, 100)
    for n in range(6):
        same = Block("readings", pa.record_batch({"number": [7]}), 0, Position("p", n))
        log.append(same, producer="a", sequence=n)
    log.close()
    log = opened(tmp_path, 10_000)
    log.open()
    assert log.compact(["number"]).rows == 4
    assert log.compact(["number"]).rows == 0
    log.close()
    last = max(tmp_path.glob("*.seg"))
    assert int(last.stem) == 5
    last.unlink()
    (tmp_path / "durable").unlink()
    log = opened(tmp_path)
    assert log.append(block(0), producer="a", sequence=4).offset == 5
    with pytest.raises(ContractBroken, match="B317"):
        log.append(block(0), producer="a", sequence=6)
    log.close()


def test_skipped_sequences_are_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append(block(0), producer="a", sequence=41)
    with pytest.raises(ContractBroken, match=r"B317.*from sequence 41 to 43.*Fix: append 42 first"):
        log.append(block(1), producer="a", sequence=43)
    log.append(block(1), producer="a", sequence=42)
    log.append(block(2), producer="b", sequence=7)
    log.flush()
    assert numbers(log) == [0, 1, 2, 3, 4, 5]
    log.close()


def test_what_was_stored_long_ago_is_told_and_not_stored_again(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for n in range(SEQUENCES + 1):
        log.append(block(n), producer="a", sequence=n)
    assert log.append(block(1), producer="a", sequence=1).offset == 4
    with pytest.raises(PositionLost, match=rf"B318.*it was stored; go on with {SEQUENCES + 1}"):
        log.append(block(0), producer="a", sequence=0)
    assert log.end().offset == 2 * (SEQUENCES + 1)
    log.close()


def test_the_producer_silent_for_longest_is_forgotten(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for n in range(PRODUCERS + 1):
        log.append(block(n), producer=f"p{n}", sequence=5)
    assert log.append(block(0), producer="p1", sequence=5).offset == 4
    assert log.append(block(0), producer="p0", sequence=9).offset == 2 * PRODUCERS + 4
    log.close()


def test_a_sequence_needs_a_producer_and_rows(tmp_path: Path) -> None:
    log = opened(tmp_path)
    with pytest.raises(ValueError, match="together"):
        log.append(block(0), producer="a")
    with pytest.raises(ValueError, match="together"):
        log.append(block(0), sequence=1)
    with pytest.raises(BoucleError, match=r"B317.*empty"):
        log.append(block(0, 0), producer="a", sequence=0)
    log.close()


def test_killed_and_sent_again_from_before_it_is_stored_once(tmp_path: Path) -> None:
    flushed = 0
    for _ in range(5):
        resend = max(0, flushed - 5)
        command = [sys.executable, "-c", SENDER, str(tmp_path), str(resend)]
        sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert sender.stdout is not None
        assert sender.stdout.readline() == "open\n"
        time.sleep(0.1)
        os.kill(sender.pid, signal.SIGKILL)
        told = sender.stdout.read().split()
        sender.stdout.close()
        sender.wait()
        flushed = max([flushed, *(int(number) for number in told[:-1])])
        log = EventLog(tmp_path)
        log.open()
        assert numbers(log) == list(range(log.end().offset))
        assert log.end().offset >= flushed * 10
        log.close()
    assert flushed > 0
