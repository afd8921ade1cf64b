"""A line that sends ten times its usual rate for a while, and what the loop makes of it.

    told = burst(folder, [Phase(1, 100), Phase(60, 1000), Phase(1, 100)], capacity=400)

The line makes its readings by the clock, whether they are taken or not; what nobody takes waits with it, as with a
broker, and costs this process nothing. The path is given a fixed time for each Block, so that its capacity is known.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.bus.memory import MemorySource
from boucle.clock import SECOND, SystemClock
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.ports import Facts
from boucle.product.project import load_project

__all__ = ["Burst", "Phase", "burst"]

PRODUCT = Path(__file__).parent / "loaded_product"
ROWS = 25
"""Readings in a Block."""
SAMPLES = 1000
"""float32 values in a reading: a Block is 100 kB."""


class Phase(Struct, frozen=True):
    """So many seconds at so many Blocks a second."""

    seconds: float
    rate: float


class Line:
    """A Source that makes one Block after the other, at the rate of each phase in turn."""

    facts = Facts(ordered=True, replayable=False, delivery="at-least-once")

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.given = 0
        self.total = int(sum(phase.seconds * phase.rate for phase in phases))
        self._begun = time.time_ns()
        ends = np.cumsum([phase.seconds for phase in phases])
        made = np.cumsum([phase.seconds * phase.rate for phase in phases])
        self._times, self._made = np.concatenate([[0.0], ends]), np.concatenate([[0.0], made])
        self._samples = np.random.default_rng(1).normal(size=ROWS * SAMPLES).astype(np.float32)

    def made(self) -> int:
        """Blocks there are by now."""
        now = (time.time_ns() - self._begun) / SECOND
        return min(self.total, int(np.interp(now, self._times, self._made)))

    def open(self, resume: Position | None = None) -> None:
        """It has been running all the time."""

    def poll(self, wait: float) -> Block | None:
        """The next Block that was made."""
        if self.given >= self.made():
            time.sleep(min(wait, 0.002))
            return None
        seconds = float(np.interp(self.given + 1, self._made, self._times))
        moment = self._begun + int(seconds * SECOND)
        first = self.given * ROWS
        offsets = np.arange(0, ROWS * SAMPLES + 1, SAMPLES, dtype=np.int32)
        columns = {
            "machine": ["press-1"] * ROWS,
            "at": pa.array(np.arange(moment, moment + ROWS), pa.timestamp("ns", tz="UTC")),
            "seq": np.arange(first, first + ROWS),
            # A copy, as what comes over a wire is: memory that is kept must show.
            "samples": pa.ListArray.from_arrays(offsets, pa.array(self._samples + np.float32(0))),
        }
        self.given += 1
        return Block("waves", pa.record_batch(columns), 0, Position("line", self.given))

    def commit(self, upto: Position) -> None:
        """It need not be told."""

    def state(self) -> str:
        """`finished` once all was given."""
        return "finished" if self.given >= self.total else "connected"

    def close(self) -> None:
        """Nothing to give back."""


class Burst(Struct, frozen=True):
    """What was seen of a burst."""

    sent: int
    """Rows the line made."""
    logged: list[int]
    """The number of every row in the log, in order."""
    accounting: Any
    volume: int
    """Bytes of the rows sent."""
    most_blocks: int
    most_bytes: int
    grown: int
    """Bytes by which this process grew at most, from before the burst."""
    lag: float
    """Seconds the path was behind what was accepted, at most."""
    delay: float
    """Seconds the watermark worked through was behind the clock, at most: what waits with the line counts too."""
    waited: int
    """Blocks that waited with the line, at most."""
    lag_after: float
    worked_off: float
    """Seconds from the line's last Block until all was worked through."""


def burst(
    folder: Path, phases: Sequence[Phase], capacity: float, settings: Mapping[str, Any] | None = None
) -> Burst:
    """Run the product over the phases, with a path that works through `capacity` Blocks a second at most."""
    plan = build_plan(load_project(PRODUCT, None, {"run.lake_every": "60s", **(settings or {})}))
    others = {name: MemorySource(stream=name) for name in ("surplus", "needed")}
    line = Line(phases)
    loop = Loop(plan, SystemClock(), sources={**others, "waves": line}, folder=folder)
    gate: Any = next(step.operator for step in plan.steps if step.id == "walked")
    gate.seconds = 1 / capacity / ROWS
    loop.open()
    loop.start()
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    seen: list[tuple[int, int, float, float, int, int]] = []
    finished = 0.0
    while line.given < line.total or not loop.backlog.idle:
        view = loop.picture.fresh()
        (delay,) = [one.watermark_delay_s for one in view.sources if one.id == "waves"]
        kept = view.backlog
        waits = line.made() - line.given
        rss = process.memory_info().rss
        seen.append((kept.blocks, kept.bytes, kept.lag_s, 0.0 if math.isnan(delay) else delay, waits, rss))
        if not finished and line.made() == line.total:
            finished = time.monotonic()
        assert loop.failure is None
        time.sleep(0.02)
    loop.drain(60)
    worked_off = time.monotonic() - (finished or time.monotonic())
    after = loop.picture.fresh()
    loop.stop()
    assert loop.failure is None
    most = [max(column) for column in zip(*seen, strict=True)]
    blocks = EventLog(folder / "log" / "waves").read()
    logged = [seq for block in blocks for seq in block.rows.column("seq").to_pylist()]
    return Burst(
        sent=line.total * ROWS,
        logged=logged,
        accounting=after.accounting,
        volume=line.total * ROWS * SAMPLES * 4,
        most_blocks=int(most[0]),
        most_bytes=int(most[1]),
        grown=int(most[5]) - before,
        lag=most[2],
        delay=most[3],
        waited=int(most[4]),
        lag_after=after.backlog.lag_s,
        worked_off=worked_off,
    )
