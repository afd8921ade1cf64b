"""Compaction keeps the last row of each key, under its number, and survives being killed anywhere."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.bus.segments import segment_files
from boucle.errors import BoucleError, ContractBroken

COMPACTOR = """
import sys
from boucle.bus.log import EventLog

log = EventLog(sys.argv[1], fsync_interval=0)
log.open()
print("open", flush=True)
print(log.compact(["key"]).rows, flush=True)
"""


def block(first: int, keys: list[str | None]) -> Block:
    rows = pa.record_batch({"key": pa.array(keys, pa.string()), "number": range(first, first + len(keys))})
    return Block("readings", rows, first, Position("press", first + len(keys)))


def filled(
    folder: Path, keys: list[str | None], *, per_block: int = 3, segment_bytes: int = 1200
) -> EventLog:
    log = EventLog(folder, stream="readings", segment_bytes=segment_bytes, fsync_interval=0)
    for first in range(0, len(keys), per_block):
        log.append(block(first, keys[first : first + per_block]))
    log.flush()
    return log


def rows(log: EventLog, after: int | None = None, most: int | None = None) -> list[tuple[int, str | None]]:
    position = None if after is None else Position(log.stream, after)
    return [(row["number"], row["key"]) for one in log.read(position, most) for row in one.rows.to_pylist()]


def compacted(folder: Path, keys: list[str | None]) -> list[tuple[int, str | None]]:
    """What must be left of rows numbered from 0: the last per key of closed segments, all of the open one."""
    open_from = segment_files(folder)[-1][0]
    last = {key: number for number, key in enumerate(keys[:open_from])}
    return [(n, key) for n, key in enumerate(keys) if n >= open_from or last[key] == n]


def test_the_last_row_of_each_key_stays_with_its_number(tmp_path: Path) -> None:
    keys: list[str | None] = [["a", "b", None, "c"][n * n % 4] for n in range(90)] + ["once"] * 3
    log = filled(tmp_path, keys)
    end, source, before = log.end(), log.source_position(), len(rows(log))
    done = log.compact(["key"])
    expected = compacted(tmp_path, keys)
    assert rows(log) == expected
    assert done.rows == before - len(expected)
    assert done.segments > 3
    assert done.bytes > 0
    assert (log.end(), log.start().offset, log.source_position()) == (end, 0, source)
    assert log.compact(["key"]) == (0, 0, 0)
    log.close()
    again = EventLog(tmp_path, stream="readings")
    again.open()
    assert rows(again) == expected
    assert (again.end(), again.source_position()) == (end, source)
    again.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    keys=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=120),
    more=st.lists(st.sampled_from(["a", "b", "d"]), max_size=40),
    per_block=st.integers(1, 20),
    segment_bytes=st.integers(300, 3000),
    place=st.floats(0, 1),
    most=st.integers(1, 60),
)
def test_reading_from_anywhere_and_compacting_twice(
    keys: list[str | None],
    more: list[str | None],
    per_block: int,
    segment_bytes: int,
    place: float,
    most: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        log = filled(Path(name), keys, per_block=per_block, segment_bytes=segment_bytes)
        log.compact(["key"])
        expected = compacted(Path(name), keys)
        start = int(place * len(keys))
        assert rows(log, start) == [row for row in expected if row[0] >= start]
        at, seen = Position("readings", start), []
        while part := list(log.read(at, most)):
            assert sum(len(one) for one in part) <= most
            seen += [number for one in part for number in one.rows.column("number").to_pylist()]
            at = part[-1].position
        assert seen == [number for number, _ in expected if number >= start]
        assert at.offset == max(start, len(keys))
        for first in range(0, len(more), per_block):
            log.append(block(len(keys) + first, more[first : first + per_block]))
        log.flush()
        log.compact(["key"])
        assert rows(log) == compacted(Path(name), [*keys, *more])
        log.close()


def test_two_key_columns_and_segments_without_them(tmp_path: Path) -> None:
    log = EventLog(tmp_path, stream="readings", segment_bytes=100, fsync_interval=0)
    for n in range(8):
        values = {"zone": [n % 2], "machine": ["press" if n % 4 else "saw"], "number": [n]}
        log.append(Block("readings", pa.record_batch(values), n, Position("p", n)))
        log.append(Block("readings", pa.record_batch({"number": [100 + n]}), n, Position("p", n)))
    log.flush()
    log.compact(["machine", "zone"])
    left = [n for one in log.read() for n in one.rows.column("number").to_pylist()]
    assert left == [100, 101, 102, 103, 4, 104, 105, 6, 106, 7, 107]
    log.close()


def test_keys_that_cannot_be(tmp_path: Path) -> None:
    log = EventLog(tmp_path, segment_bytes=100, fsync_interval=0)
    for n in range(3):
        listed = pa.record_batch({"number": [n], "list": [[1, 2]]})
        log.append(Block("readings", listed, n, Position("p", n)))
    log.flush()
    for key in (["absent"], ["list"], []):
        with pytest.raises(ContractBroken, match="B319"):
            log.compact(key)
    other = pa.record_batch({"number": ["text"], "list": [[1]]})
    log.append(Block("readings", other, 3, Position("p", 3)))
    log.append(Block("readings", other, 3, Position("p", 3)))
    log.flush()
    with pytest.raises(ContractBroken, match="B319"):
        log.compact(["number"])
    log.close()


def test_groups_and_readers_in_the_middle_go_on(tmp_path: Path) -> None:
    keys: list[str | None] = [["a", "b", "c"][n % 3] for n in range(90)]
    log = filled(tmp_path, keys)
    group = log.group("lake")
    group.commit(Position("readings", 40))
    reader = log.read(Position("readings", 0))
    first = next(reader)
    log.compact(["key"])
    rest = [n for one in reader for n in one.rows.column("number").to_pylist()]
    assert first.rows.column("number").to_pylist() == [0, 1, 2]
    assert rest == sorted(set(rest))
    assert rest[-3:] == [87, 88, 89]
    assert [number for number, _ in compacted(tmp_path, keys) if number >= 40] == [
        n for one in group.read() for n in one.rows.column("number").to_pylist()
    ]
    log.close()


def test_killed_while_compacting_it_opens_whole(tmp_path: Path) -> None:
    chance = random.Random(11)
    keys: list[str | None] = [f"k{n % 7}" for n in range(2400)]
    interrupted = 0
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        filled(folder, keys, per_block=10).close()
        expected, whole = compacted(folder, keys), list(enumerate(keys))
        command = [sys.executable, "-c", COMPACTOR, str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(chance.uniform(0.0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        interrupted += process.stdout.read() == ""
        process.stdout.close()
        process.wait()
        reader = EventLog(folder, stream="readings")
        left = rows(reader)
        assert set(expected) <= set(left) <= set(whole)
        assert left == sorted(left)
        log = EventLog(folder, stream="readings")
        log.open()
        assert rows(log) == left
        assert not list(folder.glob("*.compact"))
        log.compact(["key"])
        assert rows(log) == expected
        log.append(block(2400, ["k1"]))
        log.close()
        assert rows(reader, 2400) == [(2400, "k1")]
    assert interrupted > 0


def test_a_changed_segment_is_named_not_compacted(tmp_path: Path) -> None:
    log = filled(tmp_path, [["a", "b"][n % 2] for n in range(60)])
    segment = sorted(tmp_path.glob("*.seg"))[1]
    data = bytearray(segment.read_bytes())
    data[-30] ^= 4
    segment.write_bytes(data)
    with pytest.raises(BoucleError, match="B311"):
        log.compact(["key"])
    assert segment.read_bytes() == data
    assert not list(tmp_path.glob("*.compact"))
    log.close()
