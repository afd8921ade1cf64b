r"""What can be told of a window of waveform, and only what was asked is computed.

    values: {n: count, level: rms, shape: kurtosis, mesh: "band(300, 600)", lines: "envelope(2000, 4500)"}

| value | of the samples x that are there, c = x less their mean; the signal's unit |
|---|---|
| `count` | samples that came: more than the window holds where chunks overlap |
| `mean`, `min`, `max` | of x |
| `rms`, `peak`, `crest` | √mean(c²), largest magnitude of c, peak/rms (0 for a constant) |
| `skewness`, `kurtosis` | mean(c³)/rms³, mean(c⁴)/rms⁴ (3 for Gaussian noise; 0 for a constant) |
| `band(low, high)` | energy of low ≤ f < high Hz, unit²: 2·Σ\|C[k]\|²/N², so that all bands add up to rms² |
| `spectrum` | amplitudes (peak) 2·\|C[k]\|/N, list of float32 from 0 to half the rate |
| `psd(n)` | power spectral density, unit²/Hz, by Welch: Hann segments of n samples, half overlapping |
| `envelope(low, high)` | amplitude spectrum of the squared envelope of that band, unit², by Hann |

The gaps of a window that is not complete hold its mean; energies are scaled up by what is missing.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.fft
import scipy.signal
from msgspec import Struct
from numpy.typing import NDArray

from boucle.edge.grid import Grid
from boucle.edge.kernels import centre, energies
from boucle.edge.pool import Pool, Ready
from boucle.edge.spectrum import Envelope
from boucle.errors import BoucleError

__all__ = ["Description", "call_of"]

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

_BATCH = 16
"""Windows transformed together: SciPy's vector code wants several, and 16 of a second at 10 kHz stay in cache."""
_LANES = 4
"""SciPy transforms four rows in little more than the time of one; rows that are left over it does one by one."""
_MOMENTS = ("mean", "min", "max", "second", "third", "fourth", "peak")
_PLAIN = ("count", "mean", "min", "max", "rms", "peak", "crest", "skewness", "kurtosis", "spectrum")
_ARGUMENTS = {**dict.fromkeys(_PLAIN, 0), "band": 2, "psd": 1, "envelope": 2}
_LISTS = ("spectrum", "psd", "envelope")
_CALL = re.compile(r"\s*(?P<kind>[a-z]+)\s*(?:\(\s*(?P<arguments>[-\d.,\s]*)\))?\s*")


class _Value(Struct, frozen=True):
    name: str
    kind: str
    arguments: tuple[float, ...]


class Description:
    """The declared values of windows on one grid; B220 for a value that is unknown or out of range."""

    def __init__(self, values: Mapping[str, str], grid: Grid, stream: str) -> None:
        if not values:
            raise BoucleError(
                "B220", f"{stream}: no values", fix='values: {level: rms, mesh: "band(300, 600)"}'
            )
        self._values = [_Value(name, *call_of(name, told, _ARGUMENTS)) for name, told in values.items()]
        self._grid = grid
        self._bin_hz = grid.num / grid.den / grid.size
        kinds = {value.kind for value in self._values}
        self._higher = bool(kinds & {"rms", "peak", "crest", "skewness", "kurtosis"})
        self._spectral = bool(kinds & {"band", "spectrum", "envelope"})
        self._centred = self._higher or self._spectral or "psd" in kinds
        bands = [self._bins(value) for value in self._values if value.kind == "band"]
        self._lows = np.array([low for low, _ in bands], np.int64)
        self._highs = np.array([high for _, high in bands], np.int64)
        self._envelopes = {
            value.name: Envelope(grid.size, self._bins(value))
            for value in self._values
            if value.kind == "envelope"
        }
        for value in self._values:
            if value.kind == "psd" and not 8 <= value.arguments[0] <= grid.size:
                raise BoucleError(
                    "B220",
                    f"{value.name}: there are no segments of {value.arguments[0]:g} samples",
                    fix=f"give 8 to {grid.size} samples, the window",
                )
        self.fields = [pa.field(value.name, _type(value.kind), nullable=False) for value in self._values]
        # Kept: memory that the system hands out anew for every batch costs as much as a transform.
        self._room = np.zeros((_BATCH, grid.size), np.float32)
        # Compile, or load what was compiled, now: not when the first window is due.
        idle, none = np.zeros((1, grid.size), np.float32), np.zeros(1, np.int64)
        self._compute(idle, idle.view(np.uint8)[:, : grid.size], none, none + grid.size)

    def columns(self, pool: Pool, ready: Ready) -> list[pa.Array]:
        """One column per value, one row per window."""
        moments, bands, lists = self._compute(pool.samples, pool.filled, ready.rows, ready.covered)
        told = np.empty((len(self._values), len(ready.rows)))
        buffer, width = pa.py_buffer(told), 8 * len(ready.rows)
        columns, band = [], 0
        for place, (value, field) in enumerate(zip(self._values, self.fields, strict=True)):
            if value.kind in _LISTS:
                columns.append(_list_array(np.concatenate(lists[value.name]), field.type))
                continue
            if value.kind == "count":
                told[place].view(np.int64)[:] = ready.counts
            elif value.kind == "band":
                told[place], band = bands[:, band], band + 1
            else:
                told[place] = _moment(value.kind, moments)
            # Straight from the buffer: pa.array spends ten times as long on finding out what it was given.
            parts = [None, buffer.slice(place * width, width)]
            columns.append(pa.Array.from_buffers(field.type, len(ready.rows), parts))
        return columns

    def _compute(
        self, samples: Array, filled: NDArray[np.uint8], rows: NDArray[np.int64], covered: NDArray[np.int64]
    ) -> tuple[Doubles, Doubles, dict[str, list[Array]]]:
        size = self._grid.size
        moments = np.empty((len(rows), len(_MOMENTS)))
        bands = np.empty((len(rows), len(self._lows)))
        lists: dict[str, list[Array]] = {value.name: [] for value in self._values if value.kind in _LISTS}
        for first in range(0, len(rows), _BATCH):
            some = slice(first, first + _BATCH)
            present = covered[some]
            centred = self._room[: len(present)]
            centre(samples, filled, rows[some], present, self._centred, self._higher, centred, moments[some])
            full = self._room[: -(-len(present) // _LANES) * _LANES]
            spectrum = scipy.fft.rfft(full, axis=1)[: len(present)] if self._spectral else None
            scale = size / present
            if len(self._lows):
                energies(spectrum, self._lows, self._highs, scale * (2 / size**2), bands[some])
            for value in self._values:
                if value.kind in _LISTS:
                    lists[value.name].append(self._list(value, centred, spectrum, scale))
        return moments, bands, lists

    def _list(self, value: _Value, centred: Array, spectrum: Any, scale: Doubles) -> Array:
        told: Array
        if value.kind == "psd":
            rate, length = self._grid.num / self._grid.den, int(value.arguments[0])
            _, density = scipy.signal.welch(centred, rate, nperseg=length, detrend=False, axis=1)
            told = density * scale[:, None].astype(np.float32)
        elif value.kind == "spectrum":
            told = np.abs(spectrum) * (np.sqrt(scale) * (2 / self._grid.size)).astype(np.float32)[:, None]
            if self._grid.size % 2 == 0:
                told[:, -1] /= 2  # half the rate stands alone, as 0 Hz does, which is 0 here
        else:
            told = self._envelopes[value.name].spectrum(spectrum) * scale[:, None].astype(np.float32)
        return told

    def _bins(self, value: _Value) -> tuple[int, int]:
        low, high = value.arguments
        if not 0 <= low < high <= self._bin_hz * self._grid.size / 2:
            raise BoucleError(
                "B220",
                f"{value.name}: {low:g} to {high:g} Hz is no band here",
                why="a band rises and ends by half the sampling rate",
                fix=f"give edges from 0 to {self._bin_hz * self._grid.size / 2:g} Hz",
            )
        return round(low / self._bin_hz), round(high / self._bin_hz)


def call_of(name: str, told: str, known: Mapping[str, int]) -> tuple[str, tuple[float, ...]]:
    """`band(300, 600)` as its word and numbers; B220 unless it is `known`, with so many numbers."""
    match = _CALL.fullmatch(str(told))
    kind = match["kind"] if match else ""
    given = [part.strip() for part in (match["arguments"] or "").split(",")] if match else []
    try:
        arguments = tuple(float(part) for part in given if part)
    except ValueError:
        arguments = (np.nan,) * 9
    if len(arguments) != known.get(kind, -1):
        written = [f"{word}({', '.join('number' for _ in range(count))})" for word, count in known.items()]
        listed = ", ".join(written).replace("()", "")
        raise BoucleError("B220", f"{name}: {told!r} is not understood", fix=f"give one of {listed}")
    return kind, arguments


def _list_array(told: Array, kind: pa.DataType) -> pa.Array:
    offsets = pa.array(np.arange(len(told) + 1, dtype=np.int32) * told.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(told.ravel()), type=kind)


def _type(kind: str) -> pa.DataType:
    if kind in _LISTS:
        return pa.list_(pa.float32())
    return pa.int64() if kind == "count" else pa.float64()


def _moment(kind: str, moments: Doubles) -> Doubles:
    second = moments[:, _MOMENTS.index("second")]
    if kind == "rms":
        return np.sqrt(second)
    found = {"crest": "peak", "skewness": "third", "kurtosis": "fourth"}.get(kind, kind)
    told = moments[:, _MOMENTS.index(found)]
    power = {"crest": 0.5, "skewness": 1.5, "kurtosis": 2.0}.get(kind)
    if power is None:
        return told
    ratio: Doubles = told / np.where(second > 0, second**power, np.inf)
    return ratio
