"""How often a sound machine is accused: simulated hours, and many more drawn from them again.

A month of three 10 kHz axes takes half a day to simulate. So some hours of presses of their own are simulated, and
longer runs are put together from their seconds, three at a time at random. The means over six seconds that a verdict
rests on are new then, and every hour begins with learning anew, which is where a false alarm comes from most easily.
What does not occur in the simulated hours does not occur here either.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from msgspec import structs

from bench.attribution.rows import START
from boucle.block import as_dicts
from boucle.clock import SECOND
from boucle.drift.judge import Course, Judge
from boucle.drift.reading import Reading

__all__ = ["MONTH", "alarms", "readings"]

MONTH = 30 * 24 * 3600
"""Seconds of a machine-month."""

_PIECE = 3
_JUDGE = Judge(12, 4, 10, 60)
"""As `Attribute` has it by default."""


def readings(rows: pa.Table) -> list[Reading]:
    """The seconds of a sound run."""
    (batch,) = rows.combine_chunks().to_batches()
    return [Reading.of(row["at"], row, ("x", "y", "z")) for row in as_dicts(batch)]


def alarms(runs: Sequence[Sequence[Reading]], seconds: int, seed: int) -> Iterator[tuple[int, int]]:
    """Hour after hour of presses taken in turn, `seconds` in all: seconds judged, and alarms in them."""
    rng = np.random.default_rng(seed)
    done, number = 0, 0
    while done < seconds:
        run = runs[number % len(runs)]
        length = min(3600, seconds - done)
        yield length, _hour(run, length, rng)
        done, number = done + length, number + 1


def _hour(run: Sequence[Reading], seconds: int, rng: np.random.Generator) -> int:
    course, found, before = Course([], [], []), 0, "none"
    begins = rng.integers(0, len(run) - _PIECE, seconds // _PIECE + 1)
    for second in range(seconds):
        reading = run[int(begins[second // _PIECE]) + second % _PIECE]
        _JUDGE.hear(course, structs.replace(reading, at=START + second * SECOND))
        family = _JUDGE.family(course)
        found += family in ("sensor", "machine", "unknown") and family != before
        before = family
    return found
