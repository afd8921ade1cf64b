"""The press's contracts in small, and payloads that keep them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.ports import WIRE
from boucle.product.contract import FieldContract, StreamContract

NOW = 1_767_225_600 * SECOND
AT = pa.timestamp("ns", tz="UTC")
VIBRATION = StreamContract(
    "vibration",
    (
        FieldContract("producer", pa.string(), required=True, pattern="^[a-z0-9-]+$"),
        FieldContract("seq", pa.int64(), required=True, minimum=0),
        FieldContract("machine", pa.string(), required=True, one_of=("press-1", "press-2")),
        FieldContract("sensor", pa.string(), required=True, one_of=("vib_x", "vib_y", "vib_z")),
        FieldContract("at", AT, required=True),
        FieldContract("rate_hz", pa.float64(), required=True, minimum=9000, maximum=11000, unit="Hz"),
        FieldContract(
            "samples", pa.list_(pa.float32()), required=True, minimum=-100, maximum=100, min_items=1,
            max_items=20000, unit="g",
        ),
    ),
)  # fmt: skip
PROCESS = StreamContract(
    "process",
    (
        FieldContract("machine", pa.string(), required=True, one_of=("press-1", "press-2")),
        FieldContract("sensor", pa.string(), required=True),
        FieldContract("at", AT, required=True),
        FieldContract("value", pa.float64(), minimum=-1e9, maximum=1e9, unit="bar"),
        FieldContract("status", pa.string(), one_of=("Good", "BadSensorFailure")),
        FieldContract("tries", pa.int8()),
        FieldContract("held", pa.bool_()),
    ),
)


class StillClock:
    speed = 1.0

    def now(self) -> int:
        return NOW

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


def wire(*payloads: bytes, stream: str = "vibration", retained: bool = False) -> Block:
    rows = pa.RecordBatch.from_pydict(
        {
            "topic": ["press/press-1/vibration"] * len(payloads),
            "payload": list(payloads),
            "received": [NOW] * len(payloads),
            "retained": [retained] * len(payloads),
        },
        schema=WIRE,
    )
    return Block(stream, rows, 7, Position("mqtt", 9))


def chunk(length: int = 1000, **columns: Sequence[Any]) -> pa.RecordBatch:
    """A message's three rows."""
    noise = np.random.default_rng(1).normal(0, 1, (3, length)).astype(np.float32)
    values: dict[str, Any] = {
        "producer": ["press-1-daq"] * 3,
        "seq": [5] * 3,
        "machine": ["press-1"] * 3,
        "sensor": ["vib_x", "vib_y", "vib_z"],
        "at": [NOW - SECOND] * 3,
        "rate_hz": [1e4] * 3,
        "samples": noise.tolist(),
        **columns,
    }
    return pa.RecordBatch.from_pydict(values, schema=VIBRATION.schema())


def stream_of(*batches: pa.RecordBatch, options: Any = None) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(out.getvalue())


def typed(batch: pa.RecordBatch, stream: str = "vibration") -> Block:
    return Block(stream, batch, 7, Position("mqtt", 9))
