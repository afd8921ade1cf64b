"""Duplicates by identity within a horizon of event time.

At-least-once sources deliver again what they are not sure was kept. A reading is known by the
columns its product declares (producer and sequence number, or machine, sensor and time); the same
identity seen again within `horizon` is a duplicate. What is older than the horizon is forgotten,
and then caught as late.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from boucle.block import in_nanos
from boucle.clock import SECOND, Nanos
from boucle.stream.sequence import instants

__all__ = ["Dedupe"]

_Key = tuple[Any, ...]


class Dedupe:
    """Remembers identities for `horizon` seconds of event time."""

    def __init__(self, time: str, columns: Sequence[str], horizon: float) -> None:
        self._time = time
        self._columns = tuple(columns)
        self._horizon = int(horizon * SECOND)
        self._seen: set[_Key] = set()
        self._order: deque[tuple[Nanos, _Key]] = deque()
        self._newest: Nanos = 0

    def __len__(self) -> int:
        return len(self._seen)

    def duplicates(self, rows: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """True for each row whose identity was seen before; its first sight is remembered."""
        found = np.zeros(rows.num_rows, dtype=np.bool_)
        if not self._columns or rows.num_rows == 0:
            return found
        at = instants(rows, self._time).tolist()
        for index, (moment, key) in enumerate(zip(at, self._keys(rows), strict=True)):
            if key in self._seen:
                found[index] = True
            else:
                self._seen.add(key)
                self._order.append((moment, key))
                self._newest = max(self._newest, moment)
        self._forget()
        return found

    def _keys(self, rows: pa.RecordBatch) -> list[_Key]:
        columns = [in_nanos(rows.column(name)).to_pylist() for name in self._columns]
        return list(zip(*columns, strict=True))

    def _forget(self) -> None:
        # Arrival order, not event order: one row far in the future forgets nothing before its time.
        edge = self._newest - self._horizon
        while self._order and self._order[0][0] < edge:
            self._seen.discard(self._order.popleft()[1])

    def snapshot(self) -> bytes:
        """The state, as bytes."""
        return msgspec.msgpack.encode((list(self._order), self._newest))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot."""
        order, self._newest = msgspec.msgpack.decode(state, type=tuple[list[tuple[int, _Key]], int])
        self._order = deque(order)
        self._seen = {key for _, key in order}
