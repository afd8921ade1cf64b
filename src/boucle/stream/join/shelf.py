"""Rows that a join may still need, by number."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.stream.sequence import load_rows, save_rows

__all__ = ["Shelf"]

_SLACK = 1024


class Shelf:
    """Rows by number; numbers only grow. What is no longer needed is put away now and then."""

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None
        self.next = 0
        self._batches: list[pa.RecordBatch] = []
        self._ids: list[NDArray[np.int64]] = []

    def put(self, rows: pa.RecordBatch) -> int:
        """Keep rows; the number of the first."""
        first, self.next = self.next, self.next + rows.num_rows
        self._batches.append(rows)
        self._ids.append(np.arange(first, self.next))
        return first

    def get(self, ids: NDArray[np.int64]) -> pa.RecordBatch:
        """The rows of these numbers; -1 gives nulls."""
        assert self.schema is not None
        known = ids[ids >= 0]
        if not len(known):
            return pa.record_batch(
                [pa.nulls(len(ids), field.type) for field in self.schema], self.schema.names
            )
        firsts = np.array([held[0] for held in self._ids])
        wanted = np.unique(np.searchsorted(firsts, known, "right") - 1).tolist()
        rows = pa.concat_batches([self._batches[one] for one in wanted])
        places = np.searchsorted(np.concatenate([self._ids[one] for one in wanted]), ids)
        return rows.take(pa.array(places, pa.int64(), mask=ids < 0))

    def full(self, needed: int) -> bool:
        """Whether it is time to put rows away, when about so many are still needed."""
        return sum(map(len, self._ids)) > 2 * needed + _SLACK

    def keep(self, ids: Iterable[int]) -> None:
        """Forget all other rows."""
        live = np.unique(np.fromiter(ids, np.int64))
        self._batches, self._ids = ([self.get(live)], [live]) if len(live) else ([], [])

    def save(self) -> tuple[bytes, int, list[bytes], list[bytes]]:
        """Everything."""
        schema = b"" if self.schema is None else self.schema.serialize().to_pybytes()
        return (
            schema,
            self.next,
            [save_rows(rows) for rows in self._batches],
            [held.tobytes() for held in self._ids],
        )

    def load(self, saved: tuple[bytes, int, list[bytes], list[bytes]]) -> None:
        """What `save` gave."""
        schema, self.next, batches, ids = saved
        self.schema = pa.ipc.read_schema(pa.py_buffer(schema)) if schema else None
        self._batches = [load_rows(rows) for rows in batches]
        self._ids = [np.frombuffer(held, np.int64) for held in ids]
