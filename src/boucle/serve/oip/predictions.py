"""The prediction log: every answered row with its model, version, inputs and outputs, in the lake for questions later.

Rows go to a durable log and from there to the table `predictions`, exactly once. It is written beside the server, in
the process of `sidecar`.
"""

import hashlib
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.block import Block, Position
from boucle.bus.log import EventLog, Retention
from boucle.clock import Clock, SystemClock
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.writer import Feed, LakeWriter
from boucle.serve.oip.scored import Scored

__all__ = ["Keep", "Predictions", "predictions_of"]

log = logging.getLogger("boucle.serve.oip.predictions")

Keep = Literal["inputs", "digest"]
_TABLE = "predictions"
_FIELDS = [
    pa.field("at", pa.timestamp("ns", "UTC")),
    pa.field("request", pa.string()),
    pa.field("row", pa.int32()),
    pa.field("model", pa.string()),
    pa.field("version", pa.string()),
    pa.field("role", pa.string()),
    pa.field("wire", pa.string()),
    pa.field("latency_us", pa.float64()),
]


class Predictions:
    """The log of one server, below `folder`: `predictions.log/` and the lake's table `raw/predictions`.

    `keep` says whether inputs are stored as they came, or only the SHA-256 of each row (of its float32, little-endian)
    where they are nobody's business.
    """

    def __init__(self, folder: Path, *, keep: Keep = "inputs", clock: Clock | None = None) -> None:
        self.stored = self.failed = 0
        """Rows."""
        self._keep = keep
        clock = clock or SystemClock()
        self._log = EventLog(folder / f"{_TABLE}.log", stream=_TABLE, keep=Retention(bytes=1 << 30))
        self._writer = LakeWriter(
            [Feed(self._log, predictions_of(folder))], clock, app="model-server", seconds=15.0
        )
        kept = (
            pa.field("inputs", pa.list_(pa.float32()))
            if keep == "inputs"
            else pa.field("digest", pa.string())
        )
        self._schema = pa.schema([*_FIELDS, kept, pa.field("outputs", pa.list_(pa.float64()))])

    def open(self) -> None:
        """Unavailable when another server writes there."""
        self._log.open()

    def close(self) -> None:
        """Everything goes to the table."""
        self._step(ends=True)
        self._log.close()

    def write(self, batch: list[Scored]) -> None:
        """Requests, on disk when it returns; what cannot be written is counted, and the reason logged."""
        if not batch:
            return
        count = sum(len(one.rows) for one in batch)
        try:
            self._log.append(Block(_TABLE, self._batch(batch), 0, Position(_TABLE, 0)))
            self._log.flush()
            self.stored += count
        except BoucleError as error:
            self.failed += count
            log.warning("predictions cannot be written: %s", error)

    def step(self) -> None:
        """Bring what is in the log to the table, when it is time."""
        self._step(ends=False)

    def _step(self, *, ends: bool) -> None:
        try:
            self._writer.step(force=ends)
        except BoucleError as error:
            log.warning("the table of predictions cannot be written: %s", error)
        for name, failure in self._writer.failures.items():
            log.warning("the table %s cannot be written: %s", name, failure)

    def _batch(self, batch: list[Scored]) -> pa.RecordBatch:
        sizes = np.array([len(one.rows) for one in batch])
        per_row = np.repeat(np.arange(len(batch)), sizes)
        firsts = np.repeat(np.cumsum(sizes) - sizes, sizes)

        def told(values: list[str]) -> pa.Array:
            return pa.array(values, pa.string()).take(pa.array(per_row))

        kept = _lists([one.rows for one in batch], pa.float32())
        if self._keep == "digest":
            digests = [hashlib.sha256(row.tobytes()).hexdigest() for one in batch for row in one.rows]
            kept = pa.array(digests, pa.string())
        columns = [
            pa.array(np.array([one.at for one in batch])[per_row], pa.timestamp("ns", "UTC")),
            told([one.id for one in batch]),
            pa.array((np.arange(len(per_row)) - firsts).astype(np.int32)),
            told([one.of.name for one in batch]),
            told([one.of.version for one in batch]),
            told([one.role for one in batch]),
            told([one.wire for one in batch]),
            pa.array(np.array([one.seconds * 1e6 for one in batch])[per_row]),
            kept,
            _lists([one.scores for one in batch], pa.float64()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def predictions_of(folder: Path) -> LakeTable:
    """The table that predictions below a folder end in."""
    return LakeTable(folder / "lake" / "raw" / _TABLE, partition_by=("model", "day"))


def _lists(matrices: list[NDArray[np.float32]] | list[NDArray[np.float64]], kind: pa.DataType) -> pa.Array:
    """One list a row."""
    widths = np.concatenate([np.full(len(one), one.shape[1]) for one in matrices])
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int32)
    values = np.concatenate([one.reshape(-1) for one in matrices])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind))
