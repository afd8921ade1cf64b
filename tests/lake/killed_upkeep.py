"""Upkeep that is killed: `python -m tests.lake.killed_upkeep FOLDER KILLS SEED`.

The parent has everything imported and forks one child after the other. Each appends, joins files, orders them, replaces
a span by itself, brings late rows home and vacuums, round and round, until it is killed (SIGKILL) after some
milliseconds; the last one does three rounds and ends. It prints how many kills met a child at work.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from boucle.clock import SECOND
from boucle.lake.delta import LakeTable
from boucle.lake.span import backfill, merge_late
from boucle.lake.upkeep import compact, order, vacuum
from boucle.testing.conformance.table import START, readings

STEP = SECOND + 1
LATE = 1_000_000


def work(folder: Path, rounds: int) -> None:
    """`rounds` of everything; row n is appended as transaction n, late row n by the one of its own table."""
    table = LakeTable(folder / "silver" / "readings")
    late = LakeTable(folder / "raw" / "readings_late", partition_by=("day",))
    for _ in range(rounds):
        for _ in range(3):
            number = (table.transaction("w") or 0) + 1
            table.append(readings(number, 1), app="w", transaction=number)
            behind = (late.transaction("w") or 0) + 1
            late.append(readings(LATE + behind, 1), app="w", transaction=behind)
        compact(table)
        merge_late(table, late, ["machine", "sensor", "at"])
        first, last = START + STEP, START + (number + 1) * STEP
        backfill(table, [readings(1, number)], first, last)
        order(table, ["value"])
        table.set_aside(last=12)
        vacuum(table, 0, now=time.time() + 3600)


def child(folder: Path, rounds: int) -> int:
    """The process id of one that works."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(folder, rounds)
            status = 0
        finally:
            os._exit(status)
    return pid


def main(folder: Path, kills: int, seed: int) -> None:
    chance, met = random.Random(seed), 0
    for _ in range(kills):
        pid = child(folder, 10_000)
        time.sleep(chance.uniform(0.02, 0.6))
        os.kill(pid, signal.SIGKILL)
        met += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    _, status = os.waitpid(child(folder, 3), 0)
    assert status == 0
    print(met)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
