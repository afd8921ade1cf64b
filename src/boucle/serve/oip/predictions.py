"""The prediction log: every answered row with its model, version, inputs and outputs, in the lake for questions later.

Requests leave their rows in memory; a thread writes them to a durable log and from there to the table
`predictions`, exactly once. What waits is bounded: beyond it rows are left out, and counted.
"""

import hashlib
import logging
import threading
from collections import deque
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block, Position
from boucle.bus.log import EventLog, Retention
from boucle.clock import Clock, Nanos, SystemClock
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.writer import Feed, LakeWriter
from boucle.serve.oip.served import Served

__all__ = ["Predictions", "Scored"]

log = logging.getLogger("boucle.serve.oip.predictions")

Keep = Literal["inputs", "digest"]
_EVERY_S = 0.5
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


class Scored(Struct, frozen=True):
    """An answered request; `at` when it came, `seconds` how long it took, `role` who was asked."""

    model: Served
    id: str
    wire: str
    at: Nanos
    rows: NDArray[np.float32]
    scores: NDArray[np.float64]
    seconds: float
    role: str


class Predictions:
    """The log of one server, below `folder`: `predictions.log/` and the lake's table `raw/predictions`.

    `keep` says whether inputs are stored as they came, or only the SHA-256 of each row (of its float32, little-endian)
    where they are nobody's business. `most` rows wait in memory.
    """

    def __init__(
        self, folder: Path, *, keep: Keep = "inputs", most: int = 200_000, clock: Clock | None = None
    ) -> None:
        self.stored = self.shed = 0
        self._keep, self._most = keep, most
        self._waiting: deque[Scored] = deque()
        self._rows = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        clock = clock or SystemClock()
        self._log = EventLog(folder / f"{_TABLE}.log", stream=_TABLE, keep=Retention(bytes=1 << 30))
        self.table = LakeTable(folder / "lake" / "raw" / _TABLE, partition_by=("model", "day"))
        self._writer = LakeWriter([Feed(self._log, self.table)], clock, app="model-server", seconds=15.0)
        kept = (
            pa.field("inputs", pa.list_(pa.float32()))
            if keep == "inputs"
            else pa.field("digest", pa.string())
        )
        self._schema = pa.schema([*_FIELDS, kept, pa.field("outputs", pa.list_(pa.float64()))])

    def start(self) -> None:
        """Write from now on; Unavailable when another server writes there."""
        self._log.open()
        self._thread = threading.Thread(target=self._work, name="boucle-predictions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, to the table too. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None

    def take(self, scored: Scored) -> None:
        """A request's rows, to be written soon."""
        rows = len(scored.rows)
        with self._lock:
            if self._rows + rows > self._most:
                self.shed += rows
                return
            self._rows += rows
            self._waiting.append(scored)

    def _work(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._step(ends=False)
        self._step(ends=True)
        self._log.close()

    def _step(self, *, ends: bool) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, deque()
        try:
            self._write(list(batch))
            self._writer.step(force=ends)
        except BoucleError as error:
            log.warning("predictions cannot be written: %s", error)
        for name, failure in self._writer.failures.items():
            log.warning("the table %s cannot be written: %s", name, failure)

    def _write(self, batch: list[Scored]) -> None:
        if not batch:
            return
        count = sum(len(one.rows) for one in batch)
        try:
            self._log.append(Block(_TABLE, self._batch(batch), 0, Position(_TABLE, 0)))
            self._log.flush()
            self.stored += count
        except BoucleError:
            self.shed += count
            raise
        finally:
            with self._lock:
                self._rows -= count

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
            told([one.model.name for one in batch]),
            told([one.model.version for one in batch]),
            told([one.role for one in batch]),
            told([one.wire for one in batch]),
            pa.array(np.array([one.seconds * 1e6 for one in batch])[per_row]),
            kept,
            _lists([one.scores for one in batch], pa.float64()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _lists(matrices: list[NDArray[np.float32]] | list[NDArray[np.float64]], kind: pa.DataType) -> pa.Array:
    """One list a row."""
    widths = np.concatenate([np.full(len(one), one.shape[1]) for one in matrices])
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int32)
    values = np.concatenate([one.reshape(-1) for one in matrices])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind))
