"""The durable event log: rows appended in order, flushed to disk, read again from any position.

One folder is one stream. Its Positions count rows since the beginning, whatever was removed since.
The bytes are described in `boucle.bus.frames`; they stay readable by every later version.

Several syncs asked for at once share one (group commit, DeWitt et al., "Implementation techniques
for main memory database systems", 1984); the interval between two is what an acknowledgement costs.
"""

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from boucle.block import Block, Position
from boucle.bus.frames import ROWS_KIND, Frame, encode
from boucle.bus.segments import (
    DurableMark,
    Segment,
    create_segment,
    lock_folder,
    read_segment,
    repair,
    segment_files,
    sync_folder,
    write_all,
)
from boucle.errors import BoucleError, ContractBroken, PositionLost, Unavailable
from boucle.ports import Facts

__all__ = ["EventLog", "LogSource"]

_log = logging.getLogger("boucle.bus.log")


class _Waiting(NamedTuple):
    """A frame that is not durable yet; kept until it is, so that a failed disk loses nothing."""

    frame: bytes
    end: int
    source: Position


class EventLog:
    """The durable log of one stream, and a Sink.

    >>> import tempfile
    >>> log = EventLog(tempfile.mkdtemp(), stream="process")
    >>> rows = pa.record_batch({"value": [1.0, 2.0]})
    >>> log.append(Block("process", rows, 0, Position("plc", 7)))
    Position(partition='process', offset=2)
    >>> log.flush()
    >>> [block.rows["value"].to_pylist() for block in log.read(Position("process", 1))]
    [[2.0]]
    >>> log.close()

    One process writes, any number read, each sees the rows that are durable. Raises `Unavailable`
    when the disk is full (nothing flushed is lost; appending resumes when there is room) or when
    another process writes; B311 when bytes that were durable have changed; PositionLost when the
    rows asked for were removed. Dictionary-encoded columns are stored plain.
    """

    facts = Facts(ordered=True, replayable=True, delivery="at-least-once")

    def __init__(
        self,
        folder: Path | str,
        *,
        stream: str = "",
        segment_bytes: int = 64 << 20,
        fsync_interval: float = 0.01,
        buffer_bytes: int = 8 << 20,
    ) -> None:
        self.folder = Path(folder)
        self.stream = stream or self.folder.name
        self.repaired = 0
        """Torn tails cut off since this object was made: rows that were never flushed."""
        self.syncs = 0
        self._segment_bytes = segment_bytes
        self._interval = fsync_interval
        self._buffer_bytes = buffer_bytes
        self._mark = DurableMark(self.folder)
        self._lock = threading.Lock()  # the fields below
        self._disk = threading.RLock()  # the files; taken before _lock
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._segment: Segment | None = None
        self._handle = -1
        self._folder_lock = -1
        self._size = 0  # durable bytes of the open segment
        self._end = 0
        self._durable = 0
        self._source: Position | None = None
        self._last_sync = 0.0

    def open(self) -> None:
        """Take the folder for writing and cut off a torn tail. Safe to call twice."""
        if self._folder_lock >= 0:
            return
        with self._disk:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = lock_folder(self.folder)
            try:
                self._recover()
            except BaseException:
                os.close(held)
                raise
            self._folder_lock = held

    def append(self, block: Block) -> Position:
        """Take a Block; the returned Position is durable once `flush` has returned."""
        self.open()
        rows = _plain(block.rows)
        if rows.num_rows == 0:
            return self.end()
        while True:
            with self._lock:
                if self._fits(rows.schema):
                    return self._accept(block, rows)
            if self._waiting_bytes >= self._buffer_bytes:
                self.flush()
            else:
                self._roll(rows.schema)

    def write(self, block: Block) -> None:
        """Take a Block, as a Sink does."""
        self.append(block)

    def flush(self) -> None:
        """Return when everything appended before is on disk; callers at the same time share one sync."""
        with self._lock:
            target = self._end
        if target <= self._durable:
            return
        with self._disk:
            if target <= self._durable:
                return
            pause = self._last_sync + self._interval - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            self._sync()

    def end(self) -> Position:
        """After the last row appended, durable or not (in a reading process: the last durable)."""
        with self._lock:
            return Position(self.stream, self._end) if self._folder_lock >= 0 else self.durable()

    def durable(self) -> Position:
        """After the last row that is on disk."""
        if self._folder_lock >= 0:
            return Position(self.stream, self._durable)
        return Position(self.stream, self._durable_elsewhere())

    def start(self) -> Position:
        """Before the first row that retention has left."""
        files = segment_files(self.folder)
        return Position(self.stream, files[0][0] if files else 0)

    def source_position(self) -> Position | None:
        """The source's own position of the last durable Block: where to resume the source. None: no row."""
        self.open()
        with self._lock:
            return self._source

    def read(self, after: Position | None = None, max_rows: int | None = None) -> Iterator[Block]:
        """The durable rows after `after` (None: from the first kept), at most `max_rows` of them.

        Ends where the durable rows end; call again to follow. One Block per Block appended, cut
        where `after` or `max_rows` fall inside one.
        """
        upto = self.durable().offset
        files = segment_files(self.folder)
        first = files[0][0] if files else 0
        start = first if after is None else after.offset
        if not first <= start <= upto:
            what = f"row {start} is not in the log"
            why = "retention removed it" if start < first else f"the log ends at {upto}"
            fix = f"open from {first} on, or from the beginning"
            raise PositionLost("B312", what, where=str(self.folder), why=why, fix=fix)
        stop = upto if max_rows is None else min(upto, start + max_rows)
        return self._between(files, start, stop)

    def truncate(self, before: Position) -> int:
        """Retention: remove the segments whose rows all lie before `before`; returns how many."""
        self.open()
        with self._disk:
            files = segment_files(self.folder)
            gone = [file for (_, file), (end, _) in pairwise(files) if end <= before.offset]
            for file in gone:
                file.unlink()
            if gone:
                sync_folder(self.folder)
            return len(gone)

    def close(self) -> None:
        """Flush and give the folder back. Safe to call twice."""
        with self._disk:
            if self._folder_lock < 0:
                return
            try:
                self.flush()
            finally:
                if self._handle >= 0:
                    os.close(self._handle)
                os.close(self._folder_lock)
                self._handle = self._folder_lock = -1
                self._segment = None
                self._waiting.clear()
                self._waiting_bytes = 0

    def _recover(self) -> None:
        durable = self._mark.read()
        files = segment_files(self.folder)
        self._segment, self._source, self._end = None, None, 0
        while files and not self._resumed(*files[-1], durable):
            files.pop()
        if self._source is None and len(files) > 1:
            self._source = self._last_source(files)
        if durable is not None and durable > self._end:
            what = f"rows {self._end} to {durable} were durable and are gone"
            raise BoucleError("B311", what, where=str(self.folder), fix="restore the folder from a copy")
        self._durable = self._end
        self._mark.write(self._end)

    def _resumed(self, first: int, file: Path, durable: int | None) -> bool:
        found, torn = repair(file, first, durable)
        if torn or found is None:
            self.repaired += 1
            _log.warning("%s: %d bytes of a torn tail cut off; none of it was flushed", file, torn)
        if found is None:
            file.unlink()
            sync_folder(self.folder)
            self._end = first
            return False
        handle = os.open(file, os.O_RDWR)
        os.ftruncate(handle, found.size)
        os.fsync(handle)
        self._segment, self._handle, self._size, self._end = found, handle, found.size, found.end
        self._source = None if found.last is None else Position(*found.last)
        return True

    def _last_source(self, files: list[tuple[int, Path]]) -> Position | None:
        (first, file), (end, _) = files[-2:]
        for frame, _ in read_segment(file, first, end - 1, end):
            return Position(frame.label, frame.mark)
        return None

    def _fits(self, schema: pa.Schema) -> bool:
        if self._segment is None or not self._segment.schema.equals(schema):
            return False
        if self._waiting_bytes >= self._buffer_bytes:
            return False
        empty = self._end == self._segment.first
        return empty or self._size + self._waiting_bytes < self._segment_bytes

    def _accept(self, block: Block, rows: pa.RecordBatch) -> Position:
        assert self._segment is not None
        try:
            frame = encode(
                ROWS_KIND,
                rows.serialize(),
                salt=self._segment.salt,
                rows=rows.num_rows,
                offset=self._end,
                watermark=block.watermark,
                label=block.position.partition,
                mark=block.position.offset,
            )
        except ValueError as error:
            fix = "cut the Block into smaller ones"
            raise ContractBroken("B314", str(error), where=str(self.folder), fix=fix) from error
        self._end += rows.num_rows
        self._waiting.append(_Waiting(frame, self._end, block.position))
        self._waiting_bytes += len(frame)
        return Position(self.stream, self._end)

    def _roll(self, schema: pa.Schema) -> None:
        with self._disk:
            self.flush()
            with self._lock:
                if self._fits(schema) or self._waiting:
                    return
                # The old file is done with first: an empty one is replaced under the same name.
                if self._handle >= 0:
                    os.close(self._handle)
                self._handle, self._segment = -1, None
                try:
                    self._handle, self._segment = create_segment(self.folder, self._end, schema)
                except OSError as error:
                    raise self._refused(error) from error
                self._size = self._segment.size

    def _sync(self) -> None:
        with self._lock:
            frames = tuple(self._waiting)
            handle, size = self._handle, self._size
        data = b"".join(waiting.frame for waiting in frames)
        try:
            write_all(handle, data, size)
            os.fdatasync(handle)
        except OSError as error:
            # After a failed sync the kernel may call pages clean that are not on disk: write again.
            os.ftruncate(handle, size)
            raise self._refused(error) from error
        with self._lock:
            for _ in frames:
                self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self._size += len(data)
            self._durable = frames[-1].end
            self._source = frames[-1].source
            self.syncs += 1
        self._mark.write(self._durable)
        self._last_sync = time.monotonic()

    def _refused(self, error: OSError) -> Unavailable:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        return Unavailable(
            "B315",
            "the disk is full" if full else "the disk refuses to write",
            where=str(self.folder),
            why=error.strerror or str(error),
            fix="free space or shorten retention; writing resumes by itself" if full else "check the disk",
        )

    def _durable_elsewhere(self) -> int:
        known = self._mark.read()
        files = segment_files(self.folder)
        if known is not None or not files:
            return known or 0
        first, file = files[-1]
        found, _ = repair(file, first, None)
        return first if found is None else found.end

    def _between(self, files: list[tuple[int, Path]], start: int, stop: int) -> Iterator[Block]:
        ends = [first for first, _ in files[1:]] + [stop] * bool(files)
        for (begin, file), until in zip(files, ends, strict=True):
            if until > start and begin < stop:
                yield from self._blocks(file, begin, start, min(until, stop))

    def _blocks(self, file: Path, begin: int, start: int, stop: int) -> Iterator[Block]:
        try:
            for frame, rows in read_segment(file, begin, start, stop):
                yield self._block(frame, rows, start, stop)
        except FileNotFoundError as error:
            what = f"rows from {begin} on were removed while they were read"
            fix = "read from the first row that is kept"
            raise PositionLost("B312", what, where=str(self.folder), fix=fix) from error

    def _block(self, frame: Frame, rows: pa.RecordBatch, start: int, stop: int) -> Block:
        skip = max(0, start - frame.offset)
        rows = rows.slice(skip, min(frame.rows, stop - frame.offset) - skip)
        end = frame.offset + skip + rows.num_rows
        return Block(self.stream, rows, frame.watermark, Position(self.stream, end))


def _plain(rows: pa.RecordBatch) -> pa.RecordBatch:
    for index, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            plain = pa.field(field.name, field.type.value_type, field.nullable, field.metadata)
            rows = rows.set_column(index, plain, rows.column(index).dictionary_decode())
    return rows


class LogSource:
    """Replays an event log as a Source, and follows it while another process appends."""

    facts = Facts(ordered=True, replayable=True, delivery="at-least-once")

    def __init__(
        self, log: EventLog, stream: str = "", *, follow: bool = True, look_every: float = 0.02
    ) -> None:
        self.stream = stream or log.stream
        self._log = log
        self._follow = follow
        self._look_every = look_every
        self._at: Position | None = None
        self._blocks: Iterator[Block] = iter(())

    def open(self, resume: Position | None = None) -> None:
        """Deliver after `resume` (None: from the first row kept). PositionLost when it was removed."""
        at = self._log.start() if resume is None else resume
        self._blocks = self._log.read(at)
        self._at = at

    def poll(self, wait: float) -> Block | None:
        """The next Block, or None when nothing more became durable within `wait` seconds."""
        deadline = time.monotonic() + wait
        while self._at is not None:
            block = next(self._blocks, None)
            if block is not None:
                self._at = block.position
                return Block(self.stream, block.rows, block.watermark, block.position)
            if self._log.durable().offset > self._at.offset:
                self._blocks = self._log.read(self._at)
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not self._follow:
                return None
            time.sleep(min(left, self._look_every))
        return None

    def commit(self, upto: Position) -> None:
        """Nothing to do: what a log keeps is retention's affair."""

    def state(self) -> str:
        """`connected`, `finished` at the end when not following, or `closed`."""
        if self._at is None:
            return "closed"
        if self._follow or self._log.durable().offset > self._at.offset:
            return "connected"
        return "finished"

    def close(self) -> None:
        """Stop reading; the log itself stays as it is."""
        self._at = None
        self._blocks = iter(())
