"""Chunks of waveform put together into event-time windows, in whatever order they arrive.

Samples lie on one grid per sensor: sample number = round(time × rate). A chunk is placed by the time
of its first sample, so the timestamps must be good to half a sample; a clock that runs fast or slow
leaves gaps or overlaps, which show as a count below or above the full one.
"""

from fractions import Fraction
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError

__all__ = ["Assembler", "Grid", "Waveform", "WindowState"]

Samples = NDArray[np.float32]


class Grid(Struct, frozen=True):
    """Where samples and windows lie on the time axis; windows are aligned to the epoch."""

    num: int
    den: int
    """Samples per second, as a fraction."""
    size: int
    """Samples per window."""
    window: Nanos

    @classmethod
    def of(cls, rate_hz: float, window_s: float) -> "Grid":
        """The grid of a rate and a window; B220 unless the window holds a whole number of samples."""
        rate = Fraction(rate_hz).limit_denominator(1000)
        size = rate * Fraction(window_s).limit_denominator(1_000_000)
        if size.denominator != 1 or size < 16:
            raise BoucleError(
                "B220",
                f"a window of {window_s} s at {rate_hz} Hz holds {float(size)} samples",
                why="every window must hold the same whole number of samples, 16 or more",
                fix="choose a window that is a whole number of sampling periods",
            )
        return cls(rate.numerator, rate.denominator, int(size), round(window_s * SECOND))

    def sample(self, at: Nanos) -> int:
        """The number of the sample nearest to `at`, in whole numbers so that no precision is lost."""
        return (2 * at * self.num + self.den * SECOND) // (2 * self.den * SECOND)


class Waveform(Struct, frozen=True):
    """One window of one sensor; gaps hold the mean of what is there."""

    number: int
    samples: Any
    """float32, full length."""
    covered: int
    """Places of the window that are filled."""
    count: int
    """Samples that came for it: more than `covered` where chunks overlap."""
    mean: float
    low: float
    high: float


class WindowState(Struct, frozen=True):
    """A window in the making, as a snapshot keeps it: (offset, float32 bytes) of each piece."""

    number: int
    pieces: tuple[tuple[int, bytes], ...]


class _Open:
    """A window in the making."""

    __slots__ = ("covered", "filled", "pieces")

    def __init__(self, size: int) -> None:
        self.pieces: list[tuple[int, Samples]] = []
        self.filled = np.zeros(size, dtype=np.bool_)
        self.covered = 0

    def add(self, offset: int, samples: Samples) -> None:
        place = self.filled[offset : offset + len(samples)]
        self.covered += len(samples) - int(np.count_nonzero(place))
        place[:] = True
        self.pieces.append((offset, samples))

    def waveform(self, number: int) -> Waveform:
        """Pieces laid down in order of time: where two overlap, the one that starts later is kept."""
        size = len(self.filled)
        samples = np.zeros(size, dtype=np.float32)
        for offset, piece in sorted(self.pieces, key=lambda item: item[0]):
            samples[offset : offset + len(piece)] = piece
        there = samples if self.covered == size else samples[self.filled]
        mean = there.mean(dtype=np.float64)
        if self.covered < size:
            samples[~self.filled] = mean
        return Waveform(
            number,
            samples,
            self.covered,
            sum(len(piece) for _, piece in self.pieces),
            float(mean),
            float(there.min()),
            float(there.max()),
        )


class Assembler:
    """The windows of one sensor that are not complete yet."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._open: dict[int, _Open] = {}
        self._closed: set[int] = set()
        self._floor: int | None = None
        """Every window before this number is closed."""

    def add(self, at: Nanos, samples: Samples) -> bool:
        """Take a chunk; False when any of it belonged to a window that was already given away.

        NaN and infinite samples count as missing.
        """
        first = self._grid.sample(at)
        finite = np.isfinite(samples)
        if finite.all():
            return self._place(first, samples)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], finite, [False]))))
        placed = [self._place(first + int(a), samples[a:b]) for a, b in edges.reshape(-1, 2)]
        return all(placed)

    def complete(self) -> list[Waveform]:
        """The windows whose samples are all there, oldest first; each is given once."""
        size = self._grid.size
        return [self._take(number) for number in sorted(self._open) if self._open[number].covered == size]

    def close(self, watermark: Nanos) -> list[Waveform]:
        """The incomplete windows that end by `watermark`, oldest first."""
        floor = watermark // self._grid.window
        given = [self._take(number) for number in sorted(self._open) if number < floor]
        self._floor = floor if self._floor is None else max(floor, self._floor)
        self._closed = {number for number in self._closed if number >= self._floor}
        return given

    def snapshot(self) -> tuple[tuple[WindowState, ...], tuple[int, ...], int | None]:
        """Open windows, windows given early, and the number below which all are closed."""
        windows = tuple(
            WindowState(number, tuple((offset, piece.tobytes()) for offset, piece in window.pieces))
            for number, window in sorted(self._open.items())
        )
        return windows, tuple(sorted(self._closed)), self._floor

    def restore(self, state: tuple[tuple[WindowState, ...], tuple[int, ...], int | None]) -> None:
        """Continue from a snapshot."""
        windows, closed, self._floor = state
        self._closed = set(closed)
        self._open = {}
        for window in windows:
            held = self._open[window.number] = _Open(self._grid.size)
            for offset, piece in window.pieces:
                held.add(offset, np.frombuffer(piece, dtype=np.float32))

    def _take(self, number: int) -> Waveform:
        self._closed.add(number)
        return self._open.pop(number).waveform(number)

    def _place(self, first: int, samples: Samples) -> bool:
        size, used, whole = self._grid.size, 0, True
        while used < len(samples):
            number, offset = divmod(first + used, size)
            part = samples[used : used + size - offset]
            used += len(part)
            if number in self._closed or (self._floor is not None and number < self._floor):
                whole = False
                continue
            window = self._open.get(number)
            if window is None:
                window = self._open[number] = _Open(size)
            window.add(offset, part)
        return whole
