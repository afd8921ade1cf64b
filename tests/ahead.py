"""Compiles what the tests will need, in a process beside them.

A fresh clone has compiled nothing, which costs minutes, and most tests keep only one processor busy. The results
lie on disk: who comes first to a function compiles it, and nobody waits for anybody.
"""

import tempfile
from pathlib import Path

import pyarrow as pa

from boucle.block import Block, Position
from boucle.edge.waveform import Waveform
from boucle.ports import Operator
from boucle.stream.sliding import Sliding
from boucle.stream.window import Hopping, Session, Tumbling
from tests.loop.manual import ManualPlant
from tests.stream.test_sliding import FEATURES

SECOND = 1_000_000_000
VALUES = {kind: f"{kind}(amount)" for kind in ("sum", "mean", "min", "max", "std", "first", "distinct")}


def press() -> None:
    """Decoder, edge, features and scores of the press."""
    with tempfile.TemporaryDirectory() as folder:
        plant = ManualPlant(Path(folder))
        plant.loop.open()
        plant.run(3)
        plant.loop.close()


def windows() -> None:
    """Sliding features and windows, by numbers and by texts."""
    rows = pa.record_batch(
        {
            "at": pa.array([second * SECOND for second in range(10, 40)], pa.timestamp("ns", "UTC")),
            "card": pa.array([1, 2, 3] * 10),
            "shop": pa.array(["a", "b", None] * 10),
            "amount": pa.array([1.0, 2.0, None] * 10),
        }
    )
    operators: list[Operator] = [Sliding("f", features=FEATURES)]
    for by in ("card", "shop"):
        operators += [
            Tumbling("w", by=by, size="5s", values=VALUES),
            Hopping("w", by=by, size="5s", every="1s", values=VALUES),
            Session("w", by=by, gap="2s", values=VALUES),
        ]
    for operator in operators:
        operator.step(Block("tx", rows, 30 * SECOND, Position("tx", 30)))


if __name__ == "__main__":
    press()
    windows()
    Waveform("w", by="machine", size="1s", rate_hz=1000, values={"rms": "rms", "low": "band(10, 100)"})
