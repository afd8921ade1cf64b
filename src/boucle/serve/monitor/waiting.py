"""Predictions that wait for their label, found by event id, forgotten in the order of their time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import msgpack
from numpy.typing import NDArray

from boucle.clock import Nanos

__all__ = ["Waiting"]

_ROW = np.dtype([("at", np.int64), ("score", np.float64), ("tally", np.int64), ("label", np.float64)])


class Waiting:
    """Some 150 bytes a row. `tally` says to which counts a row belongs; `label` is NaN until there is one."""

    def __init__(self) -> None:
        self._slot: dict[Any, int] = {}
        self._ids: list[Any] = []
        self._gone = 0
        """Rows forgotten so far: slot numbers never come back."""
        self._room = np.zeros(1024, _ROW)
        self._first = 0

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def rows(self) -> Any:
        """The rows, oldest first, as they lie: what is written here is kept."""
        return self._room[self._first : self._first + len(self._ids)]

    def put(
        self, ids: Sequence[Any], at: NDArray[np.int64], scores: NDArray[np.float64], tally: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Keep rows, which are not older than those before; says which were new: an id waits once."""
        new = np.ones(len(ids), bool)
        slot = self._gone + len(self._ids)
        before = len(self._ids)
        for index, one in enumerate(ids):
            if self._slot.setdefault(one, slot) == slot:
                self._ids.append(one)
                slot += 1
            else:
                new[index] = False
        self._make_room(before)
        fresh = self.rows[before:]
        fresh["at"], fresh["score"], fresh["tally"], fresh["label"] = at[new], scores[new], tally[new], np.nan
        return new

    def _make_room(self, held: int) -> None:
        if self._first + len(self._ids) <= len(self._room):
            return
        room = np.zeros(max(2 * len(self._ids), 1024), _ROW)
        room[:held] = self._room[self._first : self._first + held]
        self._room, self._first = room, 0

    def find(self, ids: Sequence[Any]) -> NDArray[np.int64]:
        """The place of each id in `rows`; -1 for one that does not wait."""
        get, gone = self._slot.get, self._gone
        return np.fromiter((get(one, gone - 1) - gone for one in ids), np.int64, len(ids))

    def forget(self, before: Nanos) -> tuple[Any, list[Any]]:
        """The rows older than `before`, which no longer wait, and their ids."""
        count = int(np.searchsorted(self.rows["at"], before))
        out, ids = self.rows[:count].copy(), self._ids[:count]
        for one in ids:
            del self._slot[one]
        del self._ids[:count]
        self._gone += count
        self._first += count
        return out, ids

    def save(self) -> bytes:
        return msgpack.encode((self._ids, self.rows.tobytes()))

    def load(self, saved: bytes) -> None:
        self._ids, rows = msgpack.decode(saved, type=tuple[list[Any], bytes])
        self._gone, self._first, self._slot = 0, 0, {one: place for place, one in enumerate(self._ids)}
        self._room = np.frombuffer(rows, _ROW).copy()
