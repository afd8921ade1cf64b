"""Rows compared with a source of truth: a file with the right value of each key, as of a time."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from boucle.block import in_nanos
from boucle.clock import SECOND
from boucle.product.sla import Reference

__all__ = ["Truth"]

_FOREVER = -(2**62)


class Truth:
    """A file of right values, read again whenever it changed. `time` names the rows' own column of time."""

    def __init__(self, reference: Reference, column: str, time: str, folder: Path) -> None:
        self._reference, self._column, self._time = reference, column, time
        self._file = folder / reference.file
        self._stamp: tuple[int, int] | None = None
        self._known: dict[tuple[Any, ...], tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        self.why = ""
        """Why nothing can be compared."""

    def judge(self, rows: pa.RecordBatch) -> tuple[int, int]:
        """How many rows agree with the truth, of those whose truth is known."""
        if not self._renew():
            return 0, 0
        reference, names = self._reference, rows.schema.names
        missing = [one for one in (*reference.key, self._column, self._time) if one not in names]
        if missing:
            self.why = f"the rows have no column {missing[0]}"
            return 0, 0
        keys = zip(*(_texts(rows.column(name)) for name in reference.key), strict=True)
        values = _floats(rows.column(self._column))
        times = in_nanos(rows.column(self._time)).fill_null(_FOREVER).to_numpy(zero_copy_only=False)
        good = total = 0
        for key, value, at in zip(keys, values, times.tolist(), strict=True):
            right = self._right(key, at)
            if right is None:
                continue
            total += 1
            allowed = reference.tolerance * (abs(right) if reference.relative else 1.0)
            good += bool(abs(value - right) <= allowed)  # not for NaN
        return good, total

    def _right(self, key: tuple[Any, ...], at: int) -> float | None:
        known = self._known.get(key)
        if known is None:
            return None
        times, values = known
        place = int(np.searchsorted(times, at, side="right")) - 1
        if place < 0:
            return None
        age = at - int(times[place])
        if self._reference.time and age > self._reference.within * SECOND:
            return None
        return float(values[place])

    def _renew(self) -> bool:
        """Read the file where it is new; False when it cannot be read."""
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._known = self._read()
                self._stamp = stamp
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            self.why = f"{self._reference.file}: {why}"
            return False
        self.why = ""
        return True

    def _read(self) -> dict[tuple[Any, ...], tuple[NDArray[np.int64], NDArray[np.float64]]]:
        reference = self._reference
        table = pyarrow.csv.read_csv(self._file) if self._file.suffix == ".csv" else pq.read_table(self._file)
        wanted = [*reference.key, reference.column, *([reference.time] if reference.time else [])]
        rows = table.select(wanted).combine_chunks()
        keys = list(zip(*(_texts(rows.column(name)) for name in reference.key), strict=True))
        values = _floats(rows.column(reference.column))
        times = np.full(len(keys), _FOREVER)
        if reference.time:
            at = rows.column(reference.time).cast(pa.timestamp("ns")).cast(pa.int64())
            times = at.fill_null(_FOREVER).to_numpy()
        found: dict[Any, list[int]] = defaultdict(list)
        for place in np.argsort(times, kind="stable").tolist():
            found[keys[place]].append(place)
        return {key: (times[places], values[places]) for key, places in found.items()}


def _texts(column: Any) -> list[str | None]:
    """Keys are compared as text: a CSV does not say whether 7 is a number or a name."""
    told: list[str | None] = column.cast(pa.string()).to_pylist()
    return told


def _floats(column: Any) -> NDArray[np.float64]:
    told: NDArray[np.float64] = (
        column.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    )
    return told
