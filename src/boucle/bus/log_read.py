"""Reading the event log, in the process that writes it or any other."""

import os
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from boucle.block import Block, Position
from boucle.bus.frames import Frame
from boucle.bus.log_disk import DurableMark
from boucle.bus.segments import Place, first_row, repair, rows_in, segment_name, segment_names, walk
from boucle.errors import PositionLost

__all__ = ["LogReader"]

_PLACES = 8
"""In how many segments a reader remembers where it was."""
_TICK = 50_000_000
"""Nanoseconds; the clock of file times moves every 1 to 10 ms."""


class LogReader:
    """The durable rows of a log's folder."""

    def __init__(self, folder: Path, stream: str) -> None:
        self.folder, self.stream = folder, stream
        self._mark = DurableMark(folder)
        self._places: dict[int, Place] = {}
        self._listed: tuple[int, list[str]] = (0, [])

    def durable(self) -> int:
        """How many rows are on disk, as the writing process tells it in the folder."""
        known = self._mark.read()
        if known is not None:
            return known
        names = self._names()
        if not names:
            return 0
        first = first_row(names[-1])
        found, _ = repair(self.folder / names[-1], first, None)
        return first if found is None else found.end

    def start(self) -> int:
        """The number of the first row that retention has left."""
        names = self._names()
        return first_row(names[0]) if names else 0

    def read(self, after: int | None, upto: int, max_rows: int | None) -> Iterator[Block]:
        """Rows from number `after` on (None: from the first kept) and before `upto`, at most `max_rows`.

        PositionLost when they are not all in the log.
        """
        names = self._names()
        first = first_row(names[0]) if names else 0
        start = first if after is None else after
        if not first <= start <= upto:
            raise PositionLost(
                "B312",
                f"row {start} is not in the log",
                where=str(self.folder),
                why="retention removed it" if start < first else f"the log ends at {upto}",
                fix=f"open from {first} on, or from the beginning",
            )
        return self._between(names, start, upto, max_rows)

    def _names(self) -> list[str]:
        """The segments; listed again only when the folder changed, for a follower asks all the time."""
        try:
            changed = self.folder.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        listed, names = self._listed
        if changed != listed:
            names = segment_names(os.listdir(self.folder))  # noqa: PTH208 - a Path each costs more
            # Within one tick of the kernel's clock a second change would show the same time.
            settled = time.time_ns() - changed > _TICK
            self._listed = (changed if settled else 0, names)
        return names

    def _between(self, names: list[str], start: int, upto: int, most: int | None) -> Iterator[Block]:
        left = upto - start if most is None else most
        at = max(0, bisect_right(names, segment_name(start)) - 1)
        while at < len(names) and left > 0:
            begin = first_row(names[at])
            end = first_row(names[at + 1]) if at + 1 < len(names) else upto
            if begin >= upto:
                return
            if end > start:
                for block in self._blocks(self.folder / names[at], begin, start, min(end, upto), left):
                    left -= len(block)
                    yield block
            at += 1

    def _blocks(self, file: Path, begin: int, start: int, stop: int, left: int) -> Iterator[Block]:
        try:
            for frame, head, place in walk(file, begin, start, stop, self._places.get(begin)):
                self._remember(begin, place)
                rows, numbers = rows_in(file, frame, head.schema)
                block = None if rows is None else self._cut(frame, rows, numbers, start, stop, left)
                if block is None:
                    continue
                left -= len(block)
                yield block
                if left <= 0:
                    return
        except FileNotFoundError as error:
            what = f"rows from {begin} on were removed while they were read"
            fix = "read from the first row that is kept"
            raise PositionLost("B312", what, where=str(self.folder), fix=fix) from error

    def _remember(self, begin: int, place: Place) -> None:
        self._places[begin] = place
        if len(self._places) > _PLACES:
            self._places.pop(min(tuple(self._places)), None)

    def _cut(
        self,
        frame: Frame,
        rows: pa.RecordBatch,
        numbers: npt.NDArray[np.int64] | None,
        start: int,
        stop: int,
        most: int,
    ) -> Block | None:
        """What of a frame lies between `start` and `stop`, at most so many rows; None when nothing does."""
        end = frame.offset + frame.rows
        if numbers is None:
            skip, until = max(0, start - frame.offset), min(end, stop) - frame.offset
        else:
            skip, until = (int(one) for one in np.searchsorted(numbers, (start, stop)))
        kept = min(until - skip, most)
        if kept <= 0:
            return None
        if kept < until - skip:
            end = frame.offset + skip + kept if numbers is None else int(numbers[skip + kept - 1]) + 1
        rows = rows if kept == rows.num_rows else rows.slice(skip, kept)
        return Block(self.stream, rows, frame.watermark, Position(self.stream, min(end, stop)))
