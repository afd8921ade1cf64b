"""Seconds of a press as feature rows, made without a waveform: what a test wants is wrong by construction."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.drift import Attribute
from tests.drift.harness import START

Row = dict[str, Any]
Change = Callable[[Row, int], None]

SLOW = {
    "bearing_temperature": (46.0, 0.03),
    "oil_temperature": (39.0, 0.03),
    "hydraulic_pressure": (153.0, 0.6),
    "motor_current": (62.0, 0.12),
}
_BANDS = (3e-4, 1.5e-4, 1e-4, 2e-3, 8e-3, 1.5e-3, 2e-4, 5e-5)
TIME = pa.timestamp("ns", tz="UTC")


def seconds(count: int, change: Change | None = None, *, seed: int = 1, since: int = 15) -> list[Row]:
    """Sound seconds; from second `since` on, `change` is applied (with the seconds since then)."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for second in range(count):
        row: Row = {"machine": "press-1", "at": START + second * SECOND, "speed": 40.0, "setpoint": 40.0}
        row["speed"] += 0.05 * rng.standard_normal()
        for name, (level, noise) in SLOW.items():
            row[name] = level + noise * rng.standard_normal()
            row[f"{name}_noise"] = noise * rng.uniform(0.8, 1.2)
            row[f"{name}_count"] = 10.0
        for axis in "xyz":
            row[f"{axis}_mean"] = 1e-4 * rng.standard_normal()
            for band, energy in enumerate(_BANDS):
                row[f"{axis}_band_{band}"] = energy * float(np.exp(0.03 * rng.standard_normal()))
            row |= {f"{axis}_bpfo": rng.uniform(0.5, 1.5), f"{axis}_bpfi": rng.uniform(0.5, 1.5)}
            row[f"{axis}_count"] = 10_000
        if change is not None and second >= since:
            change(row, second - since)
        rows.append(row)
    return rows


def block(rows: list[Row], stream: str = "health") -> Block:
    """Rows as one Block."""
    batch = pa.RecordBatch.from_pylist(rows)
    at = batch.schema.get_field_index("at")
    return Block(stream, batch.set_column(at, "at", batch.column(at).cast(TIME)), START, Position("rows", 1))


def verdicts(rows: list[Row], made: Attribute | None = None) -> list[Row]:
    """What is said of them."""
    out = (made or Attribute("verdicts")).step(block(rows))
    return [row for given in out for row in given.rows.to_pylist()]


def told(rows: list[Row]) -> list[tuple[str, str, str]]:
    """The different verdicts, in order."""
    found: list[tuple[str, str, str]] = []
    for row in verdicts(rows):
        said = (row["family"], row["cause"], row["sensor"])
        if not found or found[-1] != said:
            found.append(said)
    return found
