"""Blocks kept in memory: the first source and sink of every test and notebook."""

import threading
from collections import deque

import pyarrow as pa

from boucle.address import Address
from boucle.block import Block, Position
from boucle.errors import PositionLost
from boucle.ports import Facts

__all__ = ["MemorySink", "MemorySource"]


class MemorySource:
    """Delivers the Blocks that were `put`, in that order, numbered by row.

    It keeps what was not committed, so that a new `open` delivers it again; the Position given to
    `put` is replaced by the source's own. Thread-safe. PositionLost when what `open` asks for was
    committed, or was never put.
    """

    facts = Facts(ordered=True, replayable=True, delivery="at-least-once")

    def __init__(self, address: Address | None = None, stream: str = "memory") -> None:
        self.address = address
        self.stream = stream
        self.partition = stream
        self._kept: deque[Block] = deque()
        self._next = 0  # of those kept, the next to deliver
        self._start = 0  # rows committed
        self._end = 0  # rows put
        self._finished = False
        self._opened = False
        self._ready = threading.Condition()

    def put(self, block: Block) -> Position:
        """Add a Block; returns the Position it ends at."""
        with self._ready:
            self._end += len(block)
            position = Position(self.partition, self._end)
            self._kept.append(Block(self.stream, block.rows, block.watermark, position))
            self._ready.notify_all()
            return position

    def put_rows(self, rows: pa.RecordBatch, watermark: int = 0) -> Position:
        """Add rows as one Block."""
        return self.put(Block(self.stream, rows, watermark, Position(self.partition, 0)))

    def finish(self) -> None:
        """No more will be put; `state` says `finished` once all was delivered."""
        with self._ready:
            self._finished = True
            self._ready.notify_all()

    def open(self, resume: Position | None = None) -> None:
        """Deliver what was put after `resume` (None: everything not committed)."""
        with self._ready:
            wanted = self._start if resume is None else resume.offset
            if not self._start <= wanted <= self._end:
                raise PositionLost(
                    "B310",
                    f"row {wanted} is not in memory",
                    where=f"memory:{self.stream}",
                    why=f"rows {self._start} to {self._end} are",
                    fix="open without a position to read what there is",
                )
            self._opened = True
            self._next = next(
                (i for i, block in enumerate(self._kept) if block.position.offset > wanted), len(self._kept)
            )
            if self._next < len(self._kept):
                self._cut(wanted)

    def _cut(self, wanted: int) -> None:
        block = self._kept[self._next]
        done = len(block) - (block.position.offset - wanted)
        if done > 0:
            head, rest = block.rows.slice(0, done), block.rows.slice(done)
            self._kept[self._next] = Block(
                self.stream, head, block.watermark, Position(self.partition, wanted)
            )
            self._next += 1
            self._kept.insert(self._next, Block(self.stream, rest, block.watermark, block.position))

    def poll(self, wait: float) -> Block | None:
        """The next Block, or None when none came within `wait` seconds."""
        with self._ready:
            if not self._opened:
                return None
            if self._next >= len(self._kept):
                self._ready.wait_for(lambda: self._next < len(self._kept) or not self._opened, wait)
            if not self._opened or self._next >= len(self._kept):
                return None
            self._next += 1
            return self._kept[self._next - 1]

    def commit(self, upto: Position) -> None:
        """Forget everything up to `upto`."""
        with self._ready:
            while self._kept and self._kept[0].position.offset <= upto.offset and self._next > 0:
                self._start = self._kept.popleft().position.offset
                self._next -= 1

    def state(self) -> str:
        """`connected`, `finished` or `closed`."""
        with self._ready:
            if not self._opened:
                return "closed"
            return "finished" if self._finished and self._next >= len(self._kept) else "connected"

    def close(self) -> None:
        """Stop delivering; what was put stays for the next `open`."""
        with self._ready:
            self._opened = False
            self._ready.notify_all()


class MemorySink:
    """Keeps what was written in `blocks`, and counts the flushes. Thread-safe."""

    facts = Facts(ordered=True, replayable=False, delivery="at-least-once")

    def __init__(self, address: Address | None = None) -> None:
        self.address = address
        self.blocks: list[Block] = []
        self.flushes = 0
        self._lock = threading.Lock()

    def open(self) -> None:
        """Nothing to prepare."""

    def write(self, block: Block) -> None:
        """Keep a Block."""
        with self._lock:
            self.blocks.append(block)

    def flush(self) -> None:
        """Count it: memory is as durable as it gets."""
        with self._lock:
            self.flushes += 1

    def close(self) -> None:
        """Flush; what was written stays readable."""
        self.flush()
