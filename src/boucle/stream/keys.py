"""Keys of rows as whole numbers, so that compiled state can be found by them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["KeyIndex"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class KeyIndex:
    """Numbers for the keys of some columns, as they are seen; a row with a null in a key column has no key.

    A single column of whole numbers, or of texts, never comes here: see `boucle.stream.answers`.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._known: dict[Any, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._known)

    def of(self, rows: pa.RecordBatch) -> tuple[Ints, Mask | None]:
        """A number per row, and which rows have a key (None: all)."""
        columns = [rows.column(name) for name in self.columns]
        there: Mask | None = None
        for column in columns:
            if column.null_count:
                known = column.is_valid().to_numpy(zero_copy_only=False)
                there = known if there is None else there & known
        if len(columns) == 1:
            values: list[Any] = columns[0].to_pylist()
        else:
            values = list(zip(*(column.to_pylist() for column in columns), strict=True))
        return np.array([self._number(value) for value in values], np.int64), there

    def _number(self, value: Any) -> int:
        number = self._known.get(value)
        if number is None:
            number = self._known[value] = self._next
            self._next += 1
        return number

    def find(self, said: Sequence[str]) -> int | None:
        """The number of the key whose values read like this; None when it was never seen."""
        for key, number in self._known.items():
            if [str(value) for value in (key if isinstance(key, tuple) else (key,))] == list(said):
                return number
        own = len(said) == 1 and not self._known and re.fullmatch(r"-?\d+", said[0])
        return int(said[0]) if own else None

    def forget(self, alive: Callable[[Ints], Mask]) -> None:
        """Keep only the keys whose numbers are `alive`."""
        if not self._known:
            return
        numbers = np.fromiter(self._known.values(), np.int64, len(self._known))
        kept = alive(numbers).tolist()
        self._known = {
            key: number for (key, number), keep in zip(self._known.items(), kept, strict=True) if keep
        }

    def snapshot(self) -> tuple[list[tuple[Any, int]], int]:
        """What `restore` takes."""
        return list(self._known.items()), self._next

    def restore(self, state: Any) -> None:
        """Continue from a snapshot."""
        known, self._next = state
        self._known = {tuple(key) if isinstance(key, list) else key: number for key, number in known}
