"""The durable event log: rows appended in order, flushed to disk, read again from any position.

One folder is one stream. Its Positions count rows since the beginning, whatever was removed since.
The bytes are described in `boucle.bus.frames`; they stay readable by every later version.

Several syncs asked for at once share one (group commit, DeWitt et al., "Implementation techniques
for main memory database systems", 1984); the interval between two is what an acknowledgement costs.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from boucle.block import Block, Position
from boucle.bus.log_compact import Compacted, compact_segments
from boucle.bus.log_disk import DurableMark, lock_folder, refused, write_all
from boucle.bus.log_groups import Group
from boucle.bus.log_producers import Producers, numbered_nothing, produced
from boucle.bus.log_read import LogReader
from boucle.bus.log_recover import recover
from boucle.bus.log_retention import Retention, remove_before, remove_expired
from boucle.bus.log_source import LogSource
from boucle.bus.log_waiting import Waiting
from boucle.bus.segments import Segment, create_segment, encode_rows, plain
from boucle.clock import Clock, SystemClock
from boucle.errors import BoucleError
from boucle.ports import Facts

__all__ = ["Compacted", "EventLog", "Group", "LogSource", "Retention"]

_log = logging.getLogger("boucle.bus.log")


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

    `keep` says what may be removed, by default nothing. It is applied whenever a segment is begun,
    and by `retain`. Memory holds up to twice `buffer_bytes`: what waits, and what is being written.
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
        keep: Retention | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.stream = stream or self.folder.name
        self.repaired = 0
        """Torn tails cut off since this object was made: rows that were never flushed."""
        self.syncs = 0
        self._segment_bytes = segment_bytes
        self._interval = fsync_interval
        self.keep = keep or Retention()
        """What it was told to keep."""
        self._clock = clock or SystemClock()
        self._reader = LogReader(self.folder, self.stream)
        self._mark = DurableMark(self.folder)
        self._lock = threading.Lock()  # the fields below
        self._room = threading.Condition(self._lock)  # told when appending need no longer wait
        self._disk = threading.RLock()  # the open segment; taken before _lock
        self._tidy = threading.RLock()  # the closed segments; taken before _disk, or not waited for
        self._producers = Producers()
        self._waiting = Waiting(buffer_bytes)
        self._flushing = 0  # threads that will sync what waits
        self._full = threading.Event()  # set while appending waits for the disk
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

    def append(self, block: Block, *, producer: str = "", sequence: int | None = None) -> Position:
        """Take a Block; the returned Position is durable once `flush` has returned.

        A producer that numbers its Blocks one after the other may append the same number again, also
        after a crash: it is stored once and has its first Position. ContractBroken (B317) when numbers
        are skipped, PositionLost (B318) for a number of too long ago (`log_producers.SEQUENCES`).
        """
        self.open()
        if (sequence is None) == bool(producer):
            raise ValueError("a producer and its sequence are given together")
        rows = plain(block.rows)
        if rows.num_rows == 0:
            if sequence is not None:
                raise numbered_nothing(producer, sequence, str(self.folder))
            return self.end()
        body = rows.serialize()
        while True:
            with self._lock:
                if sequence is not None:
                    end = self._producers.stored(producer, sequence, str(self.folder))
                    if end is not None:
                        return Position(self.stream, end)
                if self._fits(rows.schema):
                    extra = b"" if sequence is None else produced(producer, sequence)
                    position = self._accept(block, rows.num_rows, body, extra)
                    if sequence is not None:
                        self._producers.took(producer, sequence, position.offset)
                    return position
            if self._waiting.full:
                self._make_room()
            else:
                self._roll(rows.schema)
                self._retain_beside()

    def write(self, block: Block) -> None:
        """Take a Block, as a Sink does."""
        self.append(block)

    def flush(self) -> None:
        """Return when everything appended before is on disk; callers at the same time share one sync."""
        with self._lock:
            target = self._end
            self._flushing += 1
        try:
            if target > self._durable:
                self._flush(target)
        finally:
            with self._lock:
                self._flushing -= 1
                self._room.notify_all()

    def _flush(self, target: int) -> None:
        with self._disk:
            if target <= self._durable:
                return
            pause = self._last_sync + self._interval - time.monotonic()
            if pause > 0:
                self._full.wait(pause)  # a full buffer has nothing to gain by waiting
            self._sync()

    def _make_room(self) -> None:
        """Let whoever flushes take what waits, and go on while the disk is busy; flush when nobody does."""
        with self._lock:
            while self._flushing and self._waiting.full:
                self._room.wait()
            if not self._waiting.full:
                return
        self.flush()

    def end(self) -> Position:
        """After the last row appended, durable or not (in a reading process: the last durable)."""
        with self._lock:
            return Position(self.stream, self._end) if self._folder_lock >= 0 else self.durable()

    def durable(self) -> Position:
        """After the last row that is on disk."""
        ours = self._folder_lock >= 0
        return Position(self.stream, self._durable if ours else self._reader.durable())

    def start(self) -> Position:
        """Before the first row that retention has left."""
        return Position(self.stream, self._reader.start())

    def source_position(self) -> Position | None:
        """The source's own position of the last durable Block: where to resume the source. None: no row."""
        self.open()
        with self._lock:
            return self._source

    def read(self, after: Position | None = None, max_rows: int | None = None) -> Iterator[Block]:
        """The durable rows after `after` (None: from the first kept), at most `max_rows` of them.

        Ends where the durable rows end; call again to follow. One Block per Block appended, cut
        where `after` or `max_rows` fall inside one; what compaction left of small ones comes joined.
        """
        return self._reader.read(None if after is None else after.offset, self.durable().offset, max_rows)

    def group(self, name: str) -> Group:
        """The consumer group of this name, in any process; one asked for the first time starts at `start`."""
        return Group(self, name)

    def retain(self) -> int:
        """Remove the segments that `keep` does not ask for; returns how many.

        Done by itself whenever a segment is begun; a log that may fall silent needs it called, or its
        last rows stay. Never those of the segment being written.
        """
        self.open()
        with self._tidy:
            with self._disk:
                if self._aged():
                    assert self._segment is not None
                    self._roll(self._segment.schema)
            return remove_expired(self.folder, self.keep, self._clock.now())

    def truncate(self, before: Position) -> int:
        """Remove the segments whose rows all lie before `before`, whoever may want them; returns how many."""
        self.open()
        with self._tidy:
            return remove_before(self.folder, before.offset)

    def compact(self, key: Sequence[str]) -> Compacted:
        """Keep only the last row per key in all but the newest segment; every row keeps its number.

        Appending and reading go on meanwhile. ContractBroken (B319) when the rows have no such columns.
        """
        self.open()
        with self._tidy:
            return compact_segments(self.folder, key)

    def close(self) -> None:
        """Flush and give the folder back. Safe to call twice."""
        with self._tidy, self._disk:
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
                self._full.clear()

    def _recover(self) -> None:
        found = recover(self.folder, self._mark.read())
        self.repaired += found.torn
        self._segment, self._handle = found.segment, found.handle
        self._size = 0 if found.segment is None else found.segment.size
        self._end = self._durable = found.end
        self._source, self._producers = found.source, found.producers
        self._mark.write(self._end)

    def _fits(self, schema: pa.Schema) -> bool:
        if self._segment is None or not self._segment.schema.equals(schema):
            return False
        if self._waiting.full:
            return False
        if self._end == self._segment.first:
            return True
        return self._size + self._waiting.bytes < self._segment_bytes and not self._aged()

    def _aged(self) -> bool:
        """Whether the open segment has rows and covers as much time as retention likes it to."""
        age, segment = self.keep.segment_age, self._segment
        if age is None or segment is None or self._end == segment.first:
            return False
        return self._clock.now() - segment.created >= age

    def _accept(self, block: Block, rows: int, body: pa.Buffer, extra: bytes) -> Position:
        assert self._segment is not None
        frame = encode_rows(self._segment, self._end, block, rows, body, extra)
        self._end += rows
        self._waiting.add(frame, self._end, block.position)
        if self._waiting.full:
            self._full.set()
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
                    self._handle, self._segment = create_segment(
                        self.folder,
                        self._end,
                        schema,
                        created=self._clock.now(),
                        producers=self._producers,
                    )
                except OSError as error:
                    raise refused(self.folder, error) from error
                self._size = self._segment.size

    def _retain_beside(self) -> None:
        """Retention must neither wait for a compaction nor stop rows from being taken."""
        if self.keep == Retention() or not self._tidy.acquire(blocking=False):
            return
        try:
            remove_expired(self.folder, self.keep, self._clock.now())
        except (BoucleError, OSError) as error:
            _log.error("%s: nothing was removed by retention: %s", self.folder, error)
        finally:
            self._tidy.release()

    def _sync(self) -> None:
        with self._lock:
            frames = self._waiting.take()
            handle, size = self._handle, self._size
            self._full.clear()
            self._room.notify_all()
        try:
            end = write_all(handle, [part for waiting in frames for part in waiting.frame.parts], size)
            os.fdatasync(handle)
        except OSError as error:
            with self._lock:
                self._waiting.failed()
            # After a failed sync the kernel may call pages clean that are not on disk: write again.
            os.ftruncate(handle, size)
            raise refused(self.folder, error) from error
        with self._lock:
            self._waiting.done(len(frames))
            self._size = end
            self._durable = frames[-1].end
            self._source = frames[-1].source
            self.syncs += 1
        self._mark.write(self._durable)
        self._last_sync = time.monotonic()
