"""Predictions that no longer wait in memory, found again by event id when their label comes a month later.

They lie beside the checkpoints in files of 64-bit keys, sorted, 40 bytes a row; a lookup is a binary search in each
file, of which the system keeps in memory what is asked for. Rows are never changed: a label that came is another row
with the same key, and the newest one holds. A file's number is part of the state: what a killed process wrote after
its last checkpoint is removed when the step goes on from there. Two ids share a key with probability n²/2⁶⁵ (whole
numbers never do): 10⁻⁵ for ten million.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import msgpack
from numpy.typing import NDArray

from boucle.bus.log_disk import sync_folder
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.quality.key_hash import keys_of

__all__ = ["Past"]

_log = logging.getLogger("boucle.serve.monitor")

Keys = NDArray[np.uint64]
Matrix = NDArray[np.uint64]

_KEY, _AT, _SCORE, _TALLY, _LABEL = range(5)
_FIELDS = 5
_FULL = 65_536
"""Rows of a file; as many may be in memory."""


class Past:
    """Rows of `(key, at, score, tally, label)`; label is NaN until there is one. In memory until it has a folder."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._files: dict[int, Matrix] = {}
        """Number → columns of a file, by key; the order of numbers is that of writing."""
        self._newest: dict[int, Nanos] = {}
        """Number → time of the newest row."""
        self._next = 0
        self._open: list[Matrix] = []
        """Rows that are in no file yet, as they came."""
        self._sorted: Matrix | None = None
        self._gone: list[list[int]] = [[], [], []]
        """Files nobody asks for any more, by checkpoints since then: an older one may still be gone on from."""

    def open(self, folder: Path) -> None:
        """Keep files in `folder` from now on. Before `load`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def __len__(self) -> int:
        return sum(one.shape[1] for one in (*self._files.values(), *self._open))

    @staticmethod
    def keys(ids: Sequence[Any]) -> Keys:
        """The keys of some ids of one kind."""
        return np.asarray(keys_of([pa.array(ids)])[0], np.uint64)

    def put(
        self,
        keys: Keys,
        at: NDArray[np.int64],
        scores: NDArray[np.float64],
        tally: NDArray[np.int64],
        labels: NDArray[np.float64],
    ) -> None:
        """Keep rows; they hold against earlier ones of the same key."""
        if len(keys):
            wide = (
                keys,
                at.view(np.uint64),
                scores.view(np.uint64),
                tally.view(np.uint64),
                labels.view(np.uint64),
            )
            self._open.append(np.stack(wide))
            self._sorted = None
            if sum(one.shape[1] for one in self._open) >= _FULL:
                self._write()

    def find(self, keys: Keys) -> tuple[NDArray[np.bool_], Matrix]:
        """Which keys are known, and their newest rows, (fields, keys)."""
        found, rows = np.zeros(len(keys), bool), np.zeros((_FIELDS, len(keys)), np.uint64)
        newest_first = [self._now(), *(self._files[number] for number in sorted(self._files, reverse=True))]
        for columns in newest_first:
            left = np.flatnonzero(~found)
            if not len(left):
                break
            if columns.shape[1]:
                # Of equal keys the last: rows were sorted by a stable sort.
                place = np.searchsorted(columns[_KEY], keys[left], side="right") - 1
                known = (place >= 0) & (columns[_KEY][place] == keys[left])
                rows[:, left[known]] = columns[:, place[known]]
                found[left[known]] = True
        return found, rows

    @staticmethod
    def columns(
        rows: Matrix,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """Time, score, tally and label of rows that were found."""
        at, score, tally, label = (np.ascontiguousarray(one) for one in rows[1:])
        return at.view(np.int64), score.view(np.float64), tally.view(np.int64), label.view(np.float64)

    def forget(self, before: Nanos) -> None:
        """Leave out the files whose rows are all older; they are removed two checkpoints later."""
        for number, newest in list(self._newest.items()):
            if newest < before:
                del self._files[number], self._newest[number]
                self._gone[0].append(number)
        kept = [one for one in self._open if _newest(one) >= before]
        if len(kept) < len(self._open):
            self._open, self._sorted = kept, None

    def _now(self) -> Matrix:
        if self._sorted is None:
            whole = np.concatenate(self._open, 1) if self._open else np.zeros((_FIELDS, 0), np.uint64)
            self._sorted = np.ascontiguousarray(whole[:, np.argsort(whole[_KEY], kind="stable")])
            self._open = [self._sorted]
        return self._sorted

    def _write(self) -> None:
        columns = self._now()
        if self._folder is not None:
            try:
                columns = self._written(self._folder, columns)
            except OSError as error:
                _log.warning("predictions stay in memory, the disk does not take them: %s", error)
                return  # another time; nothing is lost
        self._files[self._next], self._newest[self._next] = columns, _newest(columns)
        self._next += 1
        self._open, self._sorted = [], None

    def _written(self, folder: Path, columns: Matrix) -> Matrix:
        place = folder / f"{self._next:012d}.npy"
        beside = place.with_suffix(".new")
        with beside.open("wb") as file:
            np.save(file, columns)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
        sync_folder(folder)
        return _mapped(place)

    def save(self) -> bytes:
        """Which files hold, and the rows that are in none."""
        for number in self._gone.pop():
            if self._folder is not None:
                (self._folder / f"{number:012d}.npy").unlink(missing_ok=True)
        self._gone.insert(0, [])
        loose = [] if self._folder is not None else [(n, one.tobytes()) for n, one in self._files.items()]
        rows = np.concatenate(self._open, 1).tobytes() if self._open else b""
        return msgpack.encode((self._next, sorted(self._files), rows, loose))

    def load(self, saved: bytes) -> None:
        """Go on from there; B755 when a file that holds is not there any more, or cannot be read."""
        kind = tuple[int, list[int], bytes, list[tuple[int, bytes]]]
        self._next, numbers, rows, loose = msgpack.decode(saved, type=kind)
        self._files = {number: _columns(told) for number, told in loose}
        self._open, self._sorted = [_columns(rows)] if rows else [], None
        for number in numbers if not loose else ():
            place = Path() if self._folder is None else self._folder / f"{number:012d}.npy"
            try:
                self._files[number] = _mapped(place)
            except (OSError, ValueError) as error:
                raise BoucleError(
                    "B755",
                    "predictions that wait for late labels cannot be read",
                    where=str(place),
                    why=str(error),
                    fix="bring the file back, or remove the checkpoint's folder to start afresh",
                ) from error
        self._newest = {number: _newest(columns) for number, columns in self._files.items()}
        if self._folder is not None:
            for place in self._folder.iterdir():
                if place.suffix == ".new" or (place.stem.isdigit() and int(place.stem) >= self._next):
                    place.unlink(missing_ok=True)


def _newest(columns: Matrix) -> Nanos:
    return int(columns[_AT].view(np.int64).max(initial=-(2**63)))


def _columns(told: bytes) -> Matrix:
    return np.frombuffer(told, np.uint64).reshape(_FIELDS, -1)


def _mapped(place: Path) -> Matrix:
    found = np.load(place, mmap_mode="r", allow_pickle=False)
    if found.ndim != 2 or len(found) != _FIELDS or found.dtype != np.uint64 or not found.shape[1]:
        raise ValueError(f"{found.dtype} of shape {found.shape}")
    columns: Matrix = found
    return columns
