"""From the durable log to the tables, beside the path: every row exactly once, whatever is killed.

A row is stored once the log has fsync'ed it; the lake follows a few seconds later. Each commit
carries the log offset it ends at as its Delta transaction, so the table itself knows where to
resume, and rows and progress can never disagree.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import BoucleError, PositionLost

__all__ = ["Behind", "FedTable", "Feed", "LakeWriter", "LogReader"]

log = logging.getLogger("boucle.lake.writer")


class LogReader(Protocol):
    """One stream's durable log, as the writer sees it; an offset counts rows from the log's start."""

    def read(self, start: Position | None, max_rows: int, /) -> Iterator[Block]:
        """Blocks after `start` (None: from the beginning), each with the log's own position after it."""
        ...

    def start(self) -> Position:
        """Before the first row the log still has: where a table that is new begins."""
        ...

    def durable(self) -> Position:
        """Up to where the log survives a power cut."""
        ...


class FedTable(Protocol):
    """A table that remembers its transactions; LakeTable is one."""

    name: str
    time: str

    @property
    def rows(self) -> int:
        """How many rows it has."""
        ...

    @property
    def version(self) -> int:
        """Its newest version; -1 before the first append."""
        ...

    def append(
        self,
        block: Sequence[Block],
        /,
        *,
        app: str = "",
        transaction: int | None = None,
        after: int | None = None,
    ) -> int:
        """Add the rows of all the Blocks in one commit, provided `after` is the app's last transaction."""
        ...

    def transaction(self, app: str, /) -> int | None:
        """The last transaction `app` committed; None when it never did."""
        ...

    def compact(self) -> int:
        """Join small files into larger ones."""
        ...

    def sync(self) -> int:
        """Make what was committed survive a power cut."""
        ...


class Feed(Struct, frozen=True):
    """One log and the table it fills."""

    log: LogReader
    table: FedTable


class Behind(Struct, frozen=True):
    """What a table still lacks: durable rows not yet committed, and the age of the oldest in seconds."""

    rows: int
    seconds: float


class LakeWriter:
    """Commits what the logs hold to their tables, every `seconds` of the wall or every `rows` rows.

    Each commit leaves a small file a partition; after `compact_every` of them (0: never) they are
    joined, without which SQL takes seconds after an hour.

    Nothing runs by itself: call `step` often, from one thread; the rest may be asked from any.
    A table that cannot be written now keeps its place and is tried again at the next turn, while
    the others go on; `failures` says which, and why.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        clock: Clock,
        *,
        app: str = "boucle",
        seconds: float = 5.0,
        rows: int = 20_000,
        compact_every: int = 100,
    ) -> None:
        self._feeds = {feed.table.name: feed for feed in feeds}
        self._clock = clock
        self._app = app
        self._every: Nanos = int(seconds * SECOND)
        self._rows = rows
        self._compact_every = compact_every
        self._commits: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._last: dict[str, int] = {}  # the table's own last transaction; 0 for none
        self._turn: dict[str, Nanos] = {}
        self._lock = threading.RLock()  # a look from outside never sees half a commit
        self.failures: dict[str, BoucleError] = {}
        """Table → why its last commit failed; empty when all is well."""

    def step(self, force: bool = False) -> int:
        """Commit what is due, all of it with `force`, and return how many rows were committed."""
        return sum(self._attempt(name, force) for name in self._feeds)

    def behind(self) -> dict[str, Behind]:
        """How far each table is behind its log, in rows and in seconds of event time."""
        return {name: self._behind(name) for name in self._feeds}

    def committed(self, name: str) -> int:
        """The log offset up to which table `name` has every row and survives a power cut.

        The log may forget what lies before it. Raises PositionLost when the table holds more than
        its log ever did.
        """
        if (known := self._done.get(name)) is not None:
            return known
        with self._lock:
            feed = self._feeds[name]
            durable = feed.log.durable()
            last = feed.table.transaction(self._app_of(durable))
            done = feed.log.start().offset if last is None else last
            if done > durable.offset:
                raise PositionLost(
                    "B507",
                    f'table "{name}" already holds {done} rows of its log, which has only {durable.offset}',
                    where=durable.partition,
                    why="the log was deleted or replaced while the table was kept",
                    fix="bring the old log back, or start the new one under another name",
                )
            if last:
                feed.table.sync()
            self._done[name], self._last[name] = done, last or 0
            return done

    def released(self, name: str) -> int | None:
        """What `committed` says; None when the table cannot be asked now, and `failures` says why."""
        try:
            return None if name in self.failures else self.committed(name)
        except BoucleError as error:
            self.failures[name] = error
            return None

    def _app_of(self, position: Position) -> str:
        return f"{self._app}/{position.partition}"

    def _attempt(self, name: str, force: bool) -> int:
        total = 0
        try:
            while (ready := self._ready(name)) and (force or ready >= self._rows or self._due(name)):
                with self._lock:
                    total += self._commit(name)
                self._turn[name] = self._clock.now()
            self.failures.pop(name, None)
        except BoucleError as error:
            # the table itself says where to resume: ask it again
            self._done.pop(name, None)
            self._turn[name] = self._clock.now()
            self.failures[name] = error
            log.warning("table %s is not written, tried again later: %s", name, error)
        return total

    def _ready(self, name: str) -> int:
        return self._feeds[name].log.durable().offset - self.committed(name)

    def _due(self, name: str) -> bool:
        since = self._turn.setdefault(name, self._clock.now())
        return (self._clock.now() - since) / self._clock.speed >= self._every

    def _commit(self, name: str) -> int:
        feed, start = self._feeds[name], self.committed(name)
        durable = feed.log.durable()
        blocks = list(self._slice(feed, start, durable))
        if not blocks:
            raise PositionLost(
                "B508",
                f"the log gives no rows after {start}, though {durable.offset} are durable",
                where=durable.partition,
                fix="boucle doctor checks the log's segments",
            )
        end = blocks[-1].position.offset
        feed.table.append(blocks, app=self._app_of(durable), transaction=end, after=self._last[name])
        self._commits[name] = self._commits.get(name, 0) + 1
        if self._compact_every and self._commits[name] % self._compact_every == 0:
            feed.table.compact()
        feed.table.sync()
        self._done[name] = self._last[name] = end
        return end - start

    def _slice(self, feed: Feed, start: int, durable: Position) -> Iterator[Block]:
        """Durable rows after `start`, at most `rows` of them, in whole or cut Blocks."""
        most = min(durable.offset, start + self._rows)
        for block in feed.log.read(Position(durable.partition, start), most - start):
            first = block.position.offset - len(block)
            begin, end = max(first, start), min(block.position.offset, most)
            if begin < end:
                rows = block.rows.slice(begin - first, end - begin)
                yield Block(block.stream, rows, block.watermark, Position(durable.partition, end))
            if end >= most:
                return

    def _behind(self, name: str) -> Behind:
        feed = self._feeds[name]
        try:
            ready, start = self._ready(name), self.committed(name)
        except BoucleError as error:
            self.failures[name] = error
            return Behind(feed.log.durable().offset, float("nan"))
        if not ready:
            return Behind(0, 0.0)
        oldest = next(self._slice(feed, start, feed.log.durable()), None)
        if oldest is None or feed.table.time not in oldest.rows.schema.names:
            return Behind(ready, float("nan"))  # rows without event time have no age
        at = oldest.rows.column(feed.table.time)[0].cast(pa.timestamp("ns", tz="UTC")).value
        return Behind(ready, max(0.0, (self._clock.now() - at) / SECOND))
