"""Processes that read while another writes, forgets and compacts: every row is right and in its order."""

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from boucle.block import Block, Position
from boucle.bus.log import EventLog, LogSource, Retention
from boucle.errors import PositionLost

ROWS = 40_000
KEYS = 50
SEGMENT = 20_000


def key_of(number: int) -> int:
    return number * number % KEYS


def text_of(number: int) -> str:
    return f"{number:07d}" * (1 + number % 5)


def write(folder: str, keep: Retention, compact_every: int) -> None:
    """Rows whose every value follows from their number, in Blocks of uneven size."""
    log = EventLog(folder, stream="readings", segment_bytes=SEGMENT, fsync_interval=0, keep=keep)
    first, blocks = 0, 0
    while first < ROWS:
        numbers = range(first, min(ROWS, first + 1 + first % 37))
        rows = pa.record_batch(
            {
                "number": numbers,
                "key": [key_of(number) for number in numbers],
                "text": [text_of(number) for number in numbers],
            }
        )
        first = log.append(Block("readings", rows, first, Position("press", numbers[-1]))).offset
        blocks += 1
        if blocks % 5 == 0:
            log.flush()
        if compact_every and blocks % compact_every == 0:
            log.compact(["key"])
    log.close()


def checked(block: Block) -> list[int]:
    """The numbers of a Block, after looking at every value in it."""
    numbers: list[int] = block.rows.column("number").to_pylist()
    assert numbers
    assert block.rows.column("key").to_pylist() == [key_of(number) for number in numbers]
    assert block.rows.column("text").to_pylist() == [text_of(number) for number in numbers]
    assert block.position.offset > numbers[-1]
    return numbers


def follow(folder: str, group: str, done: "multiprocessing.Queue[tuple[str, list[int], int]]") -> None:
    """Read to the end; on PositionLost go on at the first row kept. Tells the rows, and how often it was lost."""
    log = EventLog(folder, stream="readings")
    own = log.group(group) if group.startswith("group") else None
    source = LogSource(log, look_every=0.001)
    source.open(own.position() if own else None)
    seen: list[int] = []
    at, lost = 0, 0
    while at < ROWS:
        try:
            block = source.poll(20)
        except PositionLost:
            assert own is None
            lost += 1
            source.open(None)
            continue
        assert block is not None
        assert block.position.offset > at
        numbers = checked(block)
        at = block.position.offset
        seen += numbers
        if own and (at == ROWS or at % 10 == 0):
            own.commit(block.position)
        if group == "slow":
            time.sleep(0.005)
    done.put((group, seen, lost))


def run(folder: Path, keep: Retention, compact_every: int, readers: Sequence[str]) -> dict[str, list[int]]:
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Queue()
    for name in readers:
        if name.startswith("group"):
            EventLog(folder, stream="readings").group(name)
    processes = [spawn.Process(target=follow, args=(str(folder), name, done)) for name in readers]
    processes.append(spawn.Process(target=write, args=(str(folder), keep, compact_every)))
    for process in processes:
        process.start()
    told = [done.get(timeout=200) for _ in readers]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    for _, seen, _ in told:
        assert seen == sorted(set(seen))
    return {name: seen for name, seen, _ in told}


def test_groups_read_every_row_while_retention_runs_behind_them(tmp_path: Path) -> None:
    seen = run(tmp_path, Retention(bytes=4 * SEGMENT), 0, ["group-1", "group-2"])
    assert seen == {"group-1": list(range(ROWS)), "group-2": list(range(ROWS))}
    assert EventLog(tmp_path, stream="readings").start().offset > 0


def test_readers_that_retention_overtakes_are_told_and_go_on(tmp_path: Path) -> None:
    keep = Retention(bytes=4 * SEGMENT, hold_for_groups=False)
    seen = run(tmp_path, keep, 0, ["quick", "slow"])
    start = EventLog(tmp_path, stream="readings").start().offset
    for numbers in seen.values():
        assert set(range(start, ROWS)) <= set(numbers)
    assert len(seen["slow"]) < ROWS


def test_readers_beside_compaction_miss_no_last_row(tmp_path: Path) -> None:
    seen = run(tmp_path, Retention(), 150, ["one", "two", "slow"])
    left = [number for block in EventLog(tmp_path, stream="readings").read() for number in checked(block)]
    assert len(left) < ROWS / 2
    assert left == sorted(set(left))
    last = {key_of(number): number for number in range(ROWS)}
    for numbers in (*seen.values(), left):
        assert set(last.values()) <= set(numbers)
        assert set(left) <= set(numbers)
