"""Upkeep that is killed: `python -m tests.lake.killed_upkeep FOLDER KILLS SEED`.

The parent has everything imported and forks one child after the other. Each appends, joins files, orders them, replaces
a span by itself, brings late rows home and vacuums, round and round, until it is killed (SIGKILL) after some
milliseconds; the last one does three rounds and ends. It prints how many kills met a child at work.
"""

import time
from pathlib import Path

from boucle.clock import SECOND
from boucle.lake.aside import set_aside
from boucle.lake.delta import LakeTable
from boucle.lake.span import backfill, merge_late
from boucle.lake.upkeep import compact, order, vacuum
from boucle.testing.conformance.table import START, readings
from tests.killed_children import main

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
        set_aside(table, last=12)
        vacuum(table, 0, now=time.time() + 3600)


if __name__ == "__main__":
    main(work, alive=(0.02, 0.6), last=3)
