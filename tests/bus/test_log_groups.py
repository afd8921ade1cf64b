"""Consumer groups: positions that survive everything, and that retention waits for."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.log import EventLog, Retention
from boucle.errors import BoucleError, ContractBroken, PositionLost

COMMITTER = """
import sys
from boucle.block import Position
from boucle.bus.log import EventLog

group = EventLog(sys.argv[1], stream="readings").group(sys.argv[2])
for offset in range(0, 101, int(sys.argv[3])):
    group.commit(Position("readings", offset))
print(group.position().offset)
"""


def filled(folder: Path, keep: Retention | None = None, rows: int = 100) -> EventLog:
    log = EventLog(folder, stream="readings", segment_bytes=600, fsync_interval=0, keep=keep)
    for first in range(0, rows, 10):
        numbers = pa.record_batch({"number": range(first, first + 10)})
        log.append(Block("readings", numbers, first, Position("press", first)))
    log.flush()
    return log


def at(offset: int) -> Position:
    return Position("readings", offset)


def test_it_starts_at_the_first_row_and_goes_where_it_committed(tmp_path: Path) -> None:
    log = filled(tmp_path)
    group = log.group("lake")
    assert (group.position(), group.lag()) == (at(0), 100)
    group.commit(at(40))
    group.commit(at(30))
    assert (group.position(), group.lag()) == (at(40), 60)
    assert [n for one in group.read(5) for n in one.rows.column("number").to_pylist()] == list(range(40, 45))
    log.close()
    other = EventLog(tmp_path, stream="readings").group("lake")
    assert (other.position(), other.lag()) == (at(40), 60)


def test_several_processes_commit_their_own_and_the_same_group(tmp_path: Path) -> None:
    log = filled(tmp_path)
    jobs = [("a", 10), ("b", 20), ("c", 50), ("shared", 10), ("shared", 4), ("shared", 25)]
    committers = [
        subprocess.Popen(
            [sys.executable, "-c", COMMITTER, str(tmp_path), name, str(step)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, step in jobs
    ]
    told = [process.communicate()[0] for process in committers]
    assert told == ["100\n"] * len(jobs)
    assert [log.group(name).lag() for name, _ in jobs] == [0] * len(jobs)
    log.close()


@pytest.mark.parametrize("name", ["", ".x", "a/b", "..", "a b", "é", "x" * 101])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    log = filled(tmp_path)
    with pytest.raises(ContractBroken, match=r"B316.*Fix: take up to 100 letters"):
        log.group(name)
    log.close()


@pytest.mark.parametrize("position", [at(101), at(-1), Position("other", 5)])
def test_only_rows_of_this_log_are_committed(tmp_path: Path, position: Position) -> None:
    log = filled(tmp_path)
    log.append(Block("readings", pa.record_batch({"number": [100]}), 0, Position("press", 0)))  # not durable
    with pytest.raises(ContractBroken, match=r"B316.*end at 100"):
        log.group("lake").commit(position)
    log.close()


def test_retention_waits_for_every_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = filled(tmp_path, Retention(bytes=0))
    slow, fast = log.group("slow"), log.group("fast")
    first = log.start().offset
    assert first > 0
    log.append(Block("readings", pa.record_batch({"number": range(100, 200)}), 0, Position("press", 0)))
    log.append(Block("readings", pa.record_batch({"number": range(200, 300)}), 0, Position("press", 0)))
    log.flush()
    fast.commit(at(300))
    assert log.retain() == 0
    assert log.start().offset == first
    assert f'the group "slow" stands at row {first}' in caplog.text
    slow.commit(at(150))
    assert log.retain() > 0
    assert 0 < log.start().offset <= 150
    slow.forget()
    log.retain()
    assert log.start().offset == 200
    with pytest.raises(PositionLost, match=r"B312.*has no position: it was forgotten"):
        slow.position()
    assert log.group("slow").position() == at(200)
    log.close()


def test_a_group_that_retention_did_not_wait_for_is_told(tmp_path: Path) -> None:
    log = EventLog(
        tmp_path, stream="readings", segment_bytes=600, keep=Retention(bytes=0, hold_for_groups=False)
    )
    group = log.group("lake")
    for first in range(0, 100, 10):
        numbers = pa.record_batch({"number": range(first, first + 10)})
        log.append(Block("readings", numbers, first, Position("press", first)))
    log.flush()
    start = log.start().offset
    assert start > 0
    with pytest.raises(PositionLost, match=rf'B312.*"lake".*before {start}.*Fix: commit {start} to go on'):
        group.read()
    group.commit(log.start())
    assert next(group.read()).rows.column("number")[0].as_py() == start
    log.close()


def test_a_changed_group_is_an_error_and_holds_everything(tmp_path: Path) -> None:
    log = filled(tmp_path)
    group = log.group("lake")
    group.commit(at(100))
    log.close()
    file = tmp_path / "groups" / "lake"
    whole = file.read_bytes()
    log = filled(tmp_path, Retention(bytes=0), rows=0)
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        with pytest.raises(BoucleError, match="B311"):
            group.position()
        with pytest.raises(BoucleError, match="B311"):
            log.retain()
    assert log.start().offset == 0
    file.unlink()
    assert log.group("lake").position() == at(0)
    log.close()
