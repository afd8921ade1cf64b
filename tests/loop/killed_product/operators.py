"""Two steps with state: what a restart gets wrong shows in every row after it."""

from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa

from boucle.block import Block, as_dicts, as_rows
from boucle.clock import SECOND, Nanos
from boucle.product.duration import seconds

_KEY = [
    pa.field("machine", pa.string(), nullable=False),
    pa.field("at", pa.timestamp("ns", tz="UTC"), nullable=False),
]
SUMS = pa.schema([*_KEY, pa.field("rows", pa.int64()), pa.field("total", pa.float64())])
TREND = pa.schema([*_KEY, pa.field("ever", pa.int64()), pa.field("rise", pa.float64())])


class Sums:
    """Rows and total per machine and window, given when the watermark has passed the window's end."""

    def __init__(self, stream: str, *, window: str = "10s") -> None:
        self._stream = stream
        self._window = round(seconds(window) * SECOND)
        self._open: dict[tuple[Nanos, str], tuple[int, float]] = {}
        self._watermark: Nanos = 0

    def step(self, block: Block) -> Sequence[Block]:
        """Add the rows; give the windows this closed."""
        for row in as_dicts(block.rows):
            key = (row["at"] // self._window * self._window, row["machine"])
            rows, total = self._open.get(key, (0, 0.0))
            self._open[key] = (rows + 1, total + row["value"])
        self._watermark = max(self._watermark, block.watermark)
        closed = sorted(key for key in self._open if key[0] + self._window <= self._watermark)
        if not closed:
            return ()
        given = [
            {"machine": machine, "at": at, "rows": rows, "total": total}
            for at, machine in closed
            for rows, total in [self._open.pop((at, machine))]
        ]
        return (Block(self._stream, as_rows(given, SUMS), self._watermark, block.position),)

    def snapshot(self) -> bytes:
        """The open windows."""
        return msgspec.msgpack.encode((sorted(self._open.items()), self._watermark))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot."""
        form = tuple[list[tuple[tuple[int, str], tuple[int, float]]], int]
        held, self._watermark = msgspec.msgpack.decode(state, type=form)
        self._open = dict(held)


class Trend:
    """Each window beside the one before it, and how many rows its machine ever gave; its state is taken by machine."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._last: dict[str, tuple[int, float]] = {}
        self._changed: set[str] = set()

    def step(self, block: Block) -> Sequence[Block]:
        """One row for each row."""
        given = []
        for row in as_dicts(block.rows):
            ever, total = self._last.get(row["machine"], (0, 0.0))
            self._last[row["machine"]] = (ever + row["rows"], row["total"])
            self._changed.add(row["machine"])
            rise = row["total"] - total
            given.append(
                {"machine": row["machine"], "at": row["at"], "ever": ever + row["rows"], "rise": rise}
            )
        return (Block(self._stream, as_rows(given, TREND), block.watermark, block.position),)

    def snapshot(self) -> bytes:
        """The last window of each machine."""
        return msgspec.msgpack.encode(self._last)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot."""
        self._last = msgspec.msgpack.decode(state, type=dict[str, tuple[int, float]])

    def parts(self, *, everything: bool) -> dict[str, bytes | memoryview]:
        """The last window of each machine that had one since."""
        told, self._changed = self._changed if not everything else set(self._last), set()
        return {machine: msgspec.msgpack.encode(self._last[machine]) for machine in sorted(told)}

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from them."""
        self._last = {
            machine: msgspec.msgpack.decode(part, type=tuple[int, float]) for machine, part in parts.items()
        }
