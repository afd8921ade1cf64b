"""Killed at any moment, any number of times: no row lost, none doubled, every reading accounted for.

A broker or a PLC that goes away in the middle is in test_faults.py, the press killed as `boucle run` in
test_restart.py, a Command killed on its way in tests/act/test_killed.py. Many more kills: `make soak`.
"""

import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import SystemClock
from boucle.loop.intake import recent
from boucle.loop.tables import Tables
from boucle.product.project import load_project
from boucle.quality.quarantine import Quarantine
from tests.loop.killed_product.victim import MOMENTS, Ended, Life
from tests.loop.killing import (
    TABLES,
    Killer,
    Recorded,
    Round,
    compare,
    logged,
    read_tables,
    record,
)

PRODUCT = Path(__file__).parent / "killed_product"
KILLS = 25
"""Of each of the two loops that are killed at the same time."""


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Killer() as one:
        yield one


class Undisturbed:
    """One run over a recording that nobody disturbs."""

    def __init__(self, killer: Killer, folder: Path, rows: int) -> None:
        folder.mkdir()
        self.recorded: Recorded = record(folder / "input.arrow", rows)
        self.ended = Round(killer, folder / "whole", self.recorded, seed=0, kills=0).run()
        self.tables = read_tables(folder / "whole")


@pytest.fixture(scope="module")
def undisturbed(killer: Killer, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(killer, tmp_path_factory.mktemp("killed") / "one", 3000)


@pytest.fixture(scope="module")
def killed(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> list[Round]:
    """Two loops: the lake is written in the loop's process, and now and then in one of its own."""

    def one(seed: int) -> Round:
        folder = tmp_path_factory.mktemp("loop")
        with Killer() as killer:
            keeper = 0.0 if seed == 1 else 0.5
            made = Round(
                killer, folder, undisturbed.recorded, seed=seed, kills=KILLS, keeper=keeper, longest=0.5
            )
            made.run()
        return made

    with ThreadPoolExecutor(2) as both:
        return list(both.map(one, (1, 2)))


def accounted(tables: dict[str, Counter[tuple[Any, ...]]], recorded: Recorded) -> bool:
    """in = stored + late + duplicate + quarantined + shed, from the tables; the recording knows its duplicates."""
    there = sum(tables[name].total() for name in ("readings_raw", "readings_late", "quarantine"))
    return recorded.rows == there + recorded.duplicates


def test_undisturbed_every_reading_is_accounted_for(undisturbed: Undisturbed) -> None:
    assert undisturbed.ended.failure == ""
    told = undisturbed.ended.told
    gone = sum(told[name] for name in ("stored", "late", "duplicate", "quarantined", "shed"))
    assert told["in"] == gone == undisturbed.recorded.rows
    assert told["duplicate"] == undisturbed.recorded.duplicates
    assert accounted(undisturbed.tables, undisturbed.recorded)
    assert all(undisturbed.tables[name] for name in TABLES)


def test_killed_again_and_again_the_tables_are_those_of_an_undisturbed_run(
    killed: list[Round], undisturbed: Undisturbed
) -> None:
    for one in killed:
        assert one.ended[-1].failure == ""
        assert one.by_moment.total() >= KILLS
        tables = read_tables(one.folder)
        assert not compare(tables, undisturbed.tables), one.by_moment
        assert accounted(tables, undisturbed.recorded)
        assert logged(one.folder)["readings_raw"] == tables["readings_raw"].total()


def test_killed_where_the_clock_would_seldom_meet_it(
    killer: Killer, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Between write and sync, between Delta's commit and ours, within a checkpoint, within a restart."""
    moments = [
        "log: in the middle of a write", "log: written, not synced", "quarantine: synced",
        "lake: after the commit", "checkpoint: in the middle",
        "checkpoint: parts there, manifest not", "checkpoint: not in place",
        "checkpoint: manifest there, old parts too", "restart: state restored", "restart: while catching up",
    ]  # fmt: skip
    assert set(moments) <= set(MOMENTS)
    one = Round(killer, tmp_path, undisturbed.recorded, seed=0, kills=len(moments) + 1)
    first = Life(
        str(tmp_path), str(undisturbed.recorded.file), upto=50, after=0.7
    )  # something for the others to find
    one.ended.append(killer.live(first))
    for number, moment in enumerate(moments):
        upto = 50 + 10 * (number + 1)
        life = Life(
            str(tmp_path), str(undisturbed.recorded.file), upto=upto, after=10.0, moment=moment, pause=0.005
        )
        one.ended.append(killer.live(life))
    assert one.last().failure == ""
    assert set(moments) <= set(one.by_moment)
    assert not compare(read_tables(tmp_path), undisturbed.tables)


def half_written(killer: Killer, undisturbed: Undisturbed, folder: Path, skip: int) -> Ended:
    """A life that is killed with rows of its log written and not synced."""
    moment = "log: written, not synced"
    life = Life(
        str(folder), str(undisturbed.recorded.file), after=20.0, moment=moment, skip=skip, pause=0.002
    )
    ended = killer.live(life)
    assert ended.killed == moment
    return ended


@pytest.mark.parametrize("seed", [1, 2])
def test_a_tail_that_was_never_durable_is_cut_off(
    killer: Killer, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    ended = half_written(killer, undisturbed, tmp_path, chance.randrange(50, 100))
    file = Path(ended.file)
    os.truncate(file, chance.randrange(ended.synced, file.stat().st_size))
    assert killer.live(Life(str(tmp_path), str(undisturbed.recorded.file))).failure == ""
    assert not compare(read_tables(tmp_path), undisturbed.tables)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_tail_that_was_durable_is_missed(
    killer: Killer, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    """Told, not passed over: with the bytes back in place the loop goes on as if nothing had been."""
    chance = random.Random(seed)
    ended = half_written(killer, undisturbed, tmp_path, chance.randrange(50, 100))
    file = Path(ended.file)
    whole = file.read_bytes()
    os.truncate(file, chance.randrange(ended.synced))
    refused = killer.live(Life(str(tmp_path), str(undisturbed.recorded.file))).failure
    assert "B311" in refused
    assert "durable" in refused
    assert str(file.parent) in refused
    file.write_bytes(whole)
    assert killer.live(Life(str(tmp_path), str(undisturbed.recorded.file))).failure == ""
    assert not compare(read_tables(tmp_path), undisturbed.tables)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small file system can only be mounted by root")
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(4096))
        except OSError:
            return ballast


def test_a_full_disk_loses_nothing(killer: Killer, undisturbed: Undisturbed, small_disk: Path) -> None:
    """Nothing is accepted while it is full; with room again it goes on, in this life or the next."""
    folder = small_disk / "run"
    held: list[int] = []

    def disturb() -> None:
        while logged(folder).get("readings_raw", 0) < 500:
            time.sleep(0.05)
        ballast = fill(small_disk)
        # What could still be written into pages that were there already is written by then.
        time.sleep(0.6)
        held.append(logged(folder)["readings_raw"])
        time.sleep(0.6)
        held.append(logged(folder)["readings_raw"])
        ballast.unlink()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    life = Life(str(folder), str(undisturbed.recorded.file), pause=0.01)
    killer.live(life)
    disturber.join()
    assert held[0] == held[1] < undisturbed.tables["readings_raw"].total()
    assert killer.live(Life(str(folder), str(undisturbed.recorded.file))).failure == ""
    assert not compare(read_tables(folder), undisturbed.tables)


TIMES = pa.timestamp("ns", tz="UTC")


def test_a_restart_reads_its_log_as_far_back_as_duplicates_are_remembered(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "readings")
    for first in range(0, 30_000, 1000):
        at = pa.array([number * 10**9 for number in range(first, first + 1000)], TIMES)
        log.append(Block("readings", pa.record_batch({"at": at}), 0, Position("file", first + 1000)))
    log.flush()
    assert sum(len(block) for block in recent(log, "at", 60.0)) == 10_000
    far = [block.rows.column("at")[0].value for block in recent(log, "at", 20_000.0)]
    assert far[0] <= 10_000 * 10**9
    assert sum(len(block) for block in recent(log, "at", 20_000.0, Position("readings", 500))) == 500
    log.close()


@pytest.mark.parametrize("key", [["machine", "at"], []])
def test_what_a_restart_gives_again_is_dropped_once(tmp_path: Path, key: list[str]) -> None:
    """However much event time lies between a checkpoint and a kill, and with no key as well."""
    loop = load_project(PRODUCT, None, {"addresses.input": "nowhere"}).loop
    tables = {**loop.tables, "sums": msgspec.structs.replace(loop.tables["sums"], key=key)}
    loop = msgspec.structs.replace(loop, tables=tables)

    def opened(since: dict[str, Position] | None) -> Tables:
        logs = {"readings": EventLog(tmp_path / "log" / "readings")}
        late = {"readings": EventLog(tmp_path / "log" / "readings.late")}
        quarantine = Quarantine(tmp_path / "quarantine")
        made = Tables(loop, tmp_path, logs, late, quarantine, SystemClock(), 60.0)
        quarantine.close()
        made.open(since)
        return made

    def write(into: Tables, hours: range) -> None:
        for hour in hours:
            at = pa.array([hour * 3600 * 10**9], TIMES)
            rows = pa.record_batch({"machine": ["pump-1"], "at": at, "rows": [1], "total": [0.5]})
            into.write(Block("sums", rows, 0, Position("readings", hour)))

    one = opened({})
    write(one, range(1000))
    ends = one.ends()
    write(one, range(1000, 1010))
    one.close()
    two = opened(ends)
    write(two, range(1000, 1020))
    two.flush()
    hours = [block.rows.column("at")[0].value // 3600 // 10**9 for block in two.read("sums")]
    assert hours == list(range(1020))
    two.close()
