"""Key compaction: of the closed segments, only the last row of each key stays, with its number.

A segment is written anew beside the old one, synced, and renamed over it. Killed at any moment the
folder holds, for each segment, the old file or the new one; what lies beside is removed at open.
Rows keep their numbers, so Positions and groups mean the same before and after (after the log cleaner
of Kafka, which keeps offsets in the same way).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from boucle.bus.frames import KEPT_KIND, PRODUCERS_KIND, ROWS_KIND, Encoded, Frame, encode
from boucle.bus.log_disk import refused, sync_folder, write_all
from boucle.bus.log_producers import Producers
from boucle.bus.segments import head_of, rows_in, segment_files, walk
from boucle.errors import ContractBroken

__all__ = ["Compacted", "compact_segments", "remove_unfinished"]

_SUFFIX = ".compact"
_JOIN_BYTES = 1 << 20
"""Kept rows of neighbouring frames are joined into one up to this size."""

_Numbers = npt.NDArray[np.int64]


class Compacted(NamedTuple):
    """What a compaction did: segments written anew, rows and bytes fewer."""

    segments: int
    rows: int
    bytes: int


class _Closed(NamedTuple):
    """A segment that nothing is appended to any more, and how many rows it holds now."""

    file: Path
    first: int
    end: int
    rows: int
    keyed: bool
    producers: Producers


def remove_unfinished(folder: Path, listed: Iterable[str]) -> None:
    """Remove what a killed compaction left beside the segments, given the names in the folder."""
    for name in listed:
        if name.endswith(_SUFFIX):
            (folder / name).unlink()


def compact_segments(folder: Path, key: Sequence[str]) -> Compacted:
    """Keep the last row per key in all segments but the newest; a segment without the key stays whole.

    Memory grows with the number of keys and with one segment's key columns. ContractBroken (B319)
    when no closed segment has these columns or they cannot be compared; Unavailable (B315) when the
    disk is full, which leaves the log as good as before.
    """
    closed, last = _last_rows(folder, key)
    if closed and not any(one.keyed for one in closed):
        raise _unusable(folder, key, "no closed segment has these columns")
    done = Compacted(0, 0, 0)
    for one in closed:
        begin, end = np.searchsorted(last, (one.first, one.end))
        removed = one.rows - int(end - begin)
        if not one.keyed or not removed:
            continue
        before = one.file.stat().st_size
        try:
            _rewrite(one, last)
        except OSError as error:
            raise refused(folder, error) from error
        done = Compacted(
            done.segments + 1,
            done.rows + removed,
            done.bytes + before - one.file.stat().st_size,
        )
    return done


def _unusable(folder: Path, key: Sequence[str], why: str) -> ContractBroken:
    return ContractBroken(
        "B319",
        f"the log cannot be compacted by {', '.join(key) or 'nothing'}",
        where=str(folder),
        why=why,
        fix="name columns of plain values that the rows have",
    )


def _among(numbers: _Numbers, last: _Numbers) -> npt.NDArray[np.bool_]:
    at = np.searchsorted(last, numbers)
    return (at < len(last)) & (last[np.minimum(at, len(last) - 1)] == numbers) if len(last) else at < 0


def _numbers(frame: Frame, numbers: _Numbers | None) -> _Numbers:
    return np.arange(frame.offset, frame.offset + frame.rows) if numbers is None else numbers


def _last_rows(folder: Path, key: Sequence[str]) -> tuple[list[_Closed], _Numbers]:
    """The closed segments, and the number of the last row of every key in them, ascending."""
    names = [f"key{index}" for index in range(len(key))]
    closed, known = [], None
    for (first, file), (end, _) in pairwise(segment_files(folder)):
        tables, count, keyed, producers = [], 0, True, Producers()
        for frame, head, _ in walk(file, first, first, end):
            keyed = bool(key) and set(key) <= set(head.schema.names)
            producers.saw(frame)
            rows, numbered = rows_in(file, frame, head.schema)
            if rows is None:
                continue
            count += rows.num_rows
            if keyed:
                columns = [rows.column(name) for name in key]
                tables.append(pa.table([*columns, pa.array(_numbers(frame, numbered))], [*names, "row"]))
        closed.append(_Closed(file, first, end, count, keyed, producers))
        if tables:
            try:
                both = pa.concat_tables([*known, *tables] if known else tables, promote_options="permissive")
                grouped = both.group_by(names, use_threads=False).aggregate([("row", "max")])
                known = [grouped.rename_columns([*names, "row"])]
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
                raise _unusable(folder, key, str(error)) from error
    last = known[0].column("row").to_numpy() if known else np.empty(0, np.int64)
    return closed, np.sort(last)


def _rewrite(one: _Closed, last: _Numbers) -> None:
    beside = one.file.with_suffix(_SUFFIX)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        at = 0
        for frame in _compacted(one, last):
            at = write_all(handle, frame.parts, at)
        os.fsync(handle)
        beside.replace(one.file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    sync_folder(one.file.parent)


def _compacted(one: _Closed, last: _Numbers) -> Iterator[Encoded]:
    """The frames of the new file: a head with its own salt, the rows that stay, what producers did."""
    joined: _Joined | None = None
    for frame, head, _ in walk(one.file, one.first, one.first, one.end):
        if joined is None:
            salt, encoded = head_of(head.schema, one.first, head.created)
            joined = _Joined(salt, one.first)
            yield encoded
            if one.producers:
                yield encode(PRODUCERS_KIND, one.producers.snapshot(), salt=salt, offset=one.first)
        if frame.kind == PRODUCERS_KIND:
            continue
        rows, numbered = rows_in(one.file, frame, head.schema)
        joined.take(frame, rows, _numbers(frame, numbered), last)
        if joined.full:
            yield joined.frame()
    if joined is not None and joined.waiting:
        yield joined.frame()


class _Joined:
    """The kept rows of neighbouring frames, until they make a frame of their own."""

    def __init__(self, salt: int, first: int) -> None:
        self.salt = salt
        self._first = first
        self._clear()

    def _clear(self) -> None:
        self._rows: list[pa.RecordBatch] = []
        self._kept: list[_Numbers] = []
        self._bytes = 0
        self._last: Frame | None = None

    @property
    def waiting(self) -> bool:
        return self._last is not None

    @property
    def full(self) -> bool:
        return self._bytes >= _JOIN_BYTES

    def take(self, frame: Frame, rows: pa.RecordBatch | None, numbers: _Numbers, last: _Numbers) -> None:
        self._last = frame
        keep = _among(numbers, last)
        if rows is None or not keep.any():
            return
        self._rows.append(rows if keep.all() else rows.filter(pa.array(keep)))
        self._kept.append(numbers[keep])
        self._bytes += self._rows[-1].nbytes

    def frame(self) -> Encoded:
        """One frame of them all, which stands for every row up to the end of the last."""
        assert self._last is not None
        end = self._last.offset + self._last.rows
        kept = np.concatenate(self._kept) if self._kept else np.empty(0, np.int64)
        whole = len(kept) == end - self._first
        body = pa.concat_batches(self._rows).serialize() if self._rows else b""
        encoded = encode(
            ROWS_KIND if whole else KEPT_KIND,
            body,
            salt=self.salt,
            rows=end - self._first,
            offset=self._first,
            watermark=self._last.watermark,
            label=self._last.label,
            mark=self._last.mark,
            extra=b"" if whole else (kept - self._first).astype("<u4").tobytes(),
        )
        self._first = end
        self._clear()
        return encoded
