"""Blocks of synthetic waveform for the tests of the edge."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import Block, Position
from boucle.clock import SECOND, Nanos

START = 1_700_000_000 * SECOND
TIME = pa.timestamp("ns", tz="UTC")
Chunk = tuple[str, str, Nanos, NDArray[np.float32]]


def vibration(chunks: Sequence[Chunk], watermark: Nanos = 0, rate: float = 10_000) -> Block:
    rows = pa.record_batch(
        {
            "machine": pa.array([chunk[0] for chunk in chunks], pa.string()),
            "sensor": pa.array([chunk[1] for chunk in chunks], pa.string()),
            "at": pa.array([chunk[2] for chunk in chunks], TIME),
            "rate_hz": pa.array([rate] * len(chunks), pa.float64()),
            "samples": pa.array([chunk[3] for chunk in chunks], pa.list_(pa.float32())),
        }
    )
    return Block("vibration", rows, watermark, Position("vibration", 0))


def speed(machine: str, value: float, at: Nanos = START, status: str = "Good") -> Block:
    rows = pa.record_batch(
        {
            "machine": pa.array([machine], pa.string()),
            "sensor": pa.array(["speed_actual"], pa.string()),
            "at": pa.array([at], TIME),
            "value": pa.array([value], pa.float64()),
            "status": pa.array([status], pa.string()),
        }
    )
    return Block("process", rows, 0, Position("process", 0))


def cut(machine: str, sensor: str, signal: NDArray[Any], size: int = 1000, rate: int = 10_000) -> list[Chunk]:
    """A signal from START on, in chunks of `size` samples."""
    return [
        (machine, sensor, START + first * SECOND // rate, signal[first : first + size].astype(np.float32))
        for first in range(0, len(signal), size)
    ]


def rows_of(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    return [row for block in blocks for row in block.rows.to_pylist()]
