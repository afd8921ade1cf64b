"""Chunks of waveform put together into event-time windows, in whatever order they arrive.

Samples lie on one grid per sensor: sample number = round(time × rate). A chunk is placed by the time
of its first sample, so the timestamps must be good to half a sample; a clock that runs fast or slow
leaves gaps or overlaps, which show as a count below or above the full one. Where chunks overlap, the one
that starts later is kept; NaN and infinite samples count as missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import Nanos
from boucle.edge.chunks import Chunks, Sensors
from boucle.edge.grid import Grid
from boucle.edge.placing import FREE_PIECE, FREE_ROWS, FREE_WINDOW, PIECE, WINDOW, due, forget, give, place

__all__ = ["Pool", "Ready"]

Samples = NDArray[np.float32]
Ints = NDArray[np.int64]
_NEVER, _EVER = -(2**62), 2**62


class Ready(Struct, frozen=True):
    """Windows to be given, oldest first and by sensor; entries of the pool."""

    entries: Ints
    rows: Ints
    """Of the pool's `samples` and `filled`."""
    keys: Ints
    numbers: Ints
    covered: Ints
    """Samples that are there."""
    counts: Ints
    """Samples that came: more than `covered` where chunks overlap."""


_NOTHING = Ready(*[np.zeros(0, np.int64)] * 6)


class Pool:
    """The windows of all sensors that are not complete yet."""

    def __init__(self, grid: Grid, by: Sequence[str]) -> None:
        self.grid, self.sensors = grid, Sensors(by)
        self.samples: Samples
        """A window's samples, one row each; what is not `filled` is anything."""
        self.filled: NDArray[np.uint8]
        self.watermark: Nanos
        self.promise: Nanos
        """Windows that start before this have all been given."""
        self._windows: Any
        self._pieces: Any
        self._heads: Ints
        """The first window of each sensor."""
        self._rows: Ints
        """A stack of the rows that are free."""
        self._free: Ints
        self._floor: int
        """Every window before this number is closed."""
        self._forgot: int
        """Of those no window is kept any more."""
        self._empty()
        self._warm()

    def add(self, chunks: Chunks) -> NDArray[np.bool_]:
        """Take chunks; says which belonged, or any part of them, to a window that was already given away."""
        late = np.zeros(len(chunks.keys), np.bool_)
        sensors = len(self.sensors.known)
        if sensors > len(self._heads):
            fresh = np.full(2 * sensors, -1, np.int64)
            fresh[: len(self._heads)] = self._heads
            self._heads = fresh
        done = 0
        while done < len(late):
            done = self._place(chunks, done, late)
            if done < len(late):
                self._make_room(int(chunks.ends[done] - chunks.begins[done]))
        return late

    def _place(self, chunks: Chunks, begin: int, late: NDArray[np.bool_]) -> int:
        grid = self.grid
        reached: int = place(
            chunks.keys, chunks.at, chunks.begins, chunks.ends, chunks.values.view(np.int32), begin, late,
            self._windows, self._heads, self._pieces, self.samples.view(np.int32), self.filled, self._rows,
            self._free, grid.num, grid.den, grid.hop, self._floor,
        )  # fmt: skip
        return reached

    def _warm(self) -> None:
        """Compile, or load what was compiled, now: not when the first chunk comes."""
        wide, narrow = np.zeros(0, np.int64), np.zeros(0, np.int32)
        values = np.zeros(0, np.float32)
        for column in (wide, narrow, values):
            column.flags.writeable = False  # as Arrow gives them
        self._place(Chunks(np.zeros(0, np.int64), wide, narrow, narrow, values), 0, np.zeros(0, np.bool_))
        nothing = due(self._windows, -1, _NEVER)
        give(nothing, self._windows, self._pieces, self.filled, self._rows, self._free)
        forget(_NEVER, self._windows, self._heads, self._free)

    def ready(self, watermark: Nanos, *, wait: bool = False) -> "Ready":
        """The windows whose samples are all there, and those that end by the watermark, oldest first.

        With `wait` those that end by the watermark only. Whoever takes them hands them back by `give`.
        """
        if watermark > self.watermark:
            self._advance(watermark)
        entries = due(self._windows, -1 if wait else self.grid.size, self._floor)
        if not len(entries):
            return _NOTHING
        windows = self._windows[entries]
        if len(entries) > 1:
            order = np.lexsort((self.sensors.ranks(windows["key"]), windows["number"]))
            windows, entries = windows[order], entries[order]
        return Ready(
            entries, *(windows[name].copy() for name in ("row", "key", "number", "covered", "count"))
        )

    def _advance(self, watermark: Nanos) -> None:
        self.watermark, self._floor = watermark, self.grid.first_open(watermark)
        self.promise = max(0, self.grid.start(self._floor))

    def give(self, ready: "Ready") -> None:
        """The rows of these windows are no longer needed; more of them is late."""
        if len(ready.entries):
            give(ready.entries, self._windows, self._pieces, self.filled, self._rows, self._free)
        if self._floor > self._forgot:
            forget(self._floor, self._windows, self._heads, self._free)
            self._forgot = self._floor

    def describe(self, key: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Sensors and windows in the making; of one sensor (columns as text) how full each of its windows is."""
        windows = self._windows[due(self._windows, -1, _EVER)]
        windows = windows[np.lexsort((windows["key"], windows["number"]))]
        starts, ends = (self.grid.starts(windows["number"] + later) for later in (0, 1))
        told = {"keys": len(self.sensors.known), "open_windows": len(windows)}
        if len(windows):
            told |= {"oldest": int(starts.min()), "newest": int(ends.max())}
        if key is None:
            return told
        names = [dict(zip(self.sensors.by, known, strict=True)) for known in self.sensors.known]
        rows = [
            {**names[window["key"]], "at": start, "covered": int(window["covered"]), "of": self.grid.size}
            for window, start in zip(windows, starts.tolist(), strict=True)
        ]
        mine = [row for row in rows if all(str(row.get(name)) == said for name, said in key.items())]
        return {**told, "remembered": mine}

    def snapshot(self) -> bytes:
        """Sensors, watermark, windows in the making and those given early, bit for bit."""
        windows = self._windows[self._windows["used"] == 1]
        windows = windows[np.lexsort((windows["number"], windows["key"]))]
        chains = [np.sort(self._pieces[_chain(int(first), self._pieces)]) for first in windows["pieces"]]
        samples = [
            self.samples[row][self.filled[row] == 1].tobytes() for row in windows["row"].tolist() if row >= 0
        ]
        lengths = np.array([len(chain) for chain in chains], np.int64)
        windows["row"] = np.minimum(windows["row"], 0)
        windows["pieces"], windows["next"] = lengths, -1
        pieces = np.concatenate([np.zeros(0, PIECE), *chains])
        pieces["next"] = -1
        parts = (windows.tobytes(), pieces.tobytes(), b"".join(samples))
        return msgspec.msgpack.encode((self.sensors.known, self.watermark, *parts))

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot."""
        self._empty()
        kind = tuple[list[Any], int, bytes, bytes, bytes]
        known, watermark, told, chains, held = msgspec.msgpack.decode(state, type=kind)
        self.sensors.restore(known)
        if watermark:
            self._advance(watermark)
        windows, pieces = np.frombuffer(told, WINDOW), np.frombuffer(chains, PIECE)
        samples = np.frombuffer(held, np.float32)
        self._heads = np.full(int(windows["key"].max(initial=-1)) + 1, -1, np.int64)
        self._grow_rows(len(windows))
        self._windows = self._longer(self._windows, len(windows), FREE_WINDOW)
        self._pieces = self._longer(self._pieces, len(pieces), FREE_PIECE)
        for window in windows:
            row, own = -1, pieces[: window["pieces"]]
            pieces = pieces[len(own) :]
            if window["row"] >= 0:
                self._free[FREE_ROWS] -= 1
                row = int(self._rows[self._free[FREE_ROWS]])
                for piece in own:
                    self.filled[row, piece["offset"] : piece["offset"] + piece["length"]] = 1
                self.samples[row, self.filled[row] == 1] = samples[: window["covered"]]
                samples = samples[window["covered"] :]
            chain = -1
            for piece in own[::-1]:
                place = int(self._free[FREE_PIECE])
                self._free[FREE_PIECE] = self._pieces[place]["next"]
                self._pieces[place] = piece
                self._pieces[place]["next"], chain = chain, place
            entry, key = int(self._free[FREE_WINDOW]), int(window["key"])
            self._free[FREE_WINDOW] = self._windows[entry]["next"]
            self._windows[entry] = window
            self._windows[entry]["row"], self._windows[entry]["pieces"] = row, chain
            self._windows[entry]["next"], self._heads[key] = self._heads[key], entry

    def _empty(self) -> None:
        self.samples, self.filled = (np.zeros((0, self.grid.size), kind) for kind in (np.float32, np.uint8))
        self._windows, self._pieces = np.zeros(0, WINDOW), np.zeros(0, PIECE)
        self._heads, self._rows = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._free = np.array([-1, -1, 0], np.int64)
        self._floor, self._forgot, self.watermark, self.promise = _NEVER, _NEVER, 0, 0

    def _make_room(self, length: int) -> None:
        """Room for a chunk of so many samples that did not fit; never for more than one such chunk too many."""
        touched = (length + self.grid.size) // self.grid.hop + 2
        if self._free[FREE_ROWS] < touched:
            self._grow_rows(touched)
        elif np.count_nonzero(self._windows["used"] == 0) < touched:
            self._windows = self._longer(self._windows, touched, FREE_WINDOW)
        else:
            self._pieces = self._longer(self._pieces, length, FREE_PIECE)

    def _grow_rows(self, least: int) -> None:
        old, count = len(self.samples), int(self._free[FREE_ROWS])
        rows = old + max(least, old)
        for name, kind in (("samples", np.float32), ("filled", np.uint8)):
            longer = np.zeros((rows, self.grid.size), kind)
            longer[:old] = getattr(self, name)
            setattr(self, name, longer)
        stack = np.zeros(rows, np.int64)
        stack[: count + rows - old] = np.concatenate([self._rows[:count], np.arange(old, rows)])
        self._rows, self._free[FREE_ROWS] = stack, count + rows - old

    def _longer(self, table: Any, least: int, free: int) -> Any:
        """A table with room for `least` more entries, those chained before what was free."""
        old = len(table)
        longer = np.concatenate([table, np.zeros(max(least, old), table.dtype)])
        longer["next"][old:] = np.arange(old + 1, len(longer) + 1)
        if len(longer) > old:
            longer["next"][-1] = self._free[free]
            self._free[free] = old
        return longer


def _chain(first: int, pieces: Any) -> list[int]:
    chain = []
    while first >= 0:
        chain.append(first)
        first = int(pieces[first]["next"])
    return chain
