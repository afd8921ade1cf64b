"""Waveforms at another rate: the same signal, with what the new rate cannot carry filtered out before.

    use: boucle.edge.resample:Resample
    from: [vibration]
    with: {by: [machine, sensor], rate_hz: 48000, to_hz: 10000}

Polyphase filtering by SciPy (`scipy.signal.resample_poly`, Kaiser window, β = 5). A sample is computed from
its own neighbourhood only, frame by frame, so the result does not depend on how the signal was cut into
chunks or Blocks, and equals that of SciPy over the whole recording.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.signal
from numpy.typing import NDArray

from boucle.clock import SECOND
from boucle.edge.grid import Grid
from boucle.edge.pool import Ready
from boucle.edge.windowed import Windowed, traced_samples
from boucle.errors import BoucleError
from boucle.ports import Traced
from boucle.stream.origin import Inputs

__all__ = ["Resample"]

_ZEROS = 10
"""Half the length of SciPy's filter, in periods of the slower of the two rates."""
_LARGEST = 1000


class Resample(Windowed):
    """Chunks of `rate_hz` in, one of `to_hz` for every `frame` out, as soon as its samples are there.

    What is given has the `by` columns, `at` (of its first sample), `complete`, `rate_hz` and `samples`; a new
    sample n lies at n / `to_hz` seconds. A frame begins a filter's length after a multiple of `frame`. A new
    sample is exact, or NaN (missing, for every step of the edge) where any old one that it needs is missing.
    Late chunks go to `<step>/late`, see `Windowed`. B220 for rates or a frame that cannot work.
    """

    def __init__(
        self,
        stream: str,
        *,
        rate_hz: float,
        to_hz: float,
        by: Sequence[str] | str = (),
        frame: str | float = "1s",
        samples: str = "samples",
        time: str = "at",
    ) -> None:
        side_by_side = Grid.of(rate_hz, frame)
        ratio = Fraction(to_hz).limit_denominator(1000) / Fraction(side_by_side.num, side_by_side.den)
        up, down = ratio.numerator, ratio.denominator
        if up <= 0 or max(up, down) > _LARGEST or side_by_side.size % down:
            raise BoucleError(
                "B220",
                f"{stream}: {rate_hz:g} Hz cannot become {to_hz:g} Hz in frames of {side_by_side.size} samples",
                why=f"their ratio is {ratio}: whole numbers up to {_LARGEST}, the lower one a divisor of the frame",
                fix="choose rates with a simple ratio, and a frame that holds whole numbers of both samples",
            )
        self._up, self._down, self._to = up, down, to_hz
        reach = -(-_ZEROS * max(up, down) // up) + 1
        self._margin = -(-reach // down) * down
        hop = side_by_side.size
        grid = Grid(side_by_side.num, side_by_side.den, hop + 2 * self._margin, hop)
        # As resample_poly makes it, once; it leaves a signal alone that keeps its rate.
        slower = max(up, down)
        self._filter = np.ones(1)
        if slower > 1:
            self._filter = scipy.signal.firwin(2 * _ZEROS * slower + 1, 1 / slower, window=("kaiser", 5.0))
        fields = [
            pa.field("rate_hz", pa.float64(), nullable=False),
            pa.field(samples, pa.list_(pa.float32()), nullable=False),
        ]
        super().__init__(stream, grid, fields, by=by, samples=samples, time=time)

    @classmethod
    def trace(
        cls, inputs: Inputs, *, rate_hz: float, to_hz: float, frame: str | float = "1s", **declared: Any
    ) -> Traced:
        """Keys, time and samples of the waveform, at the new rate."""
        samples = declared.get("samples", "samples")
        values = {"rate_hz": f"{to_hz:g} Hz", samples: f"{rate_hz:g} Hz resampled to {to_hz:g} Hz"}
        return traced_samples(inputs, values, f"frame: {frame}", **declared)

    def _rows(self, ready: Ready) -> pa.RecordBatch:
        # Where only the margins hold something there is no signal to give; the frames beside have it.
        hop = self._pool.grid.hop
        body = self._pool.filled[ready.rows, self._margin : self._margin + hop].any(axis=1)
        names = ("entries", "rows", "keys", "numbers", "covered", "counts")
        return super()._rows(Ready(*(getattr(ready, name)[body] for name in names)))

    def _begin(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        grid = self._pool.grid
        begun = [number * grid.hop + self._margin for number in numbers.tolist()]
        return np.array(
            [(2 * one * grid.den * SECOND + grid.num) // (2 * grid.num) for one in begun], np.int64
        )

    def _told(self, ready: Ready) -> list[pa.Array]:
        pool, hop = self._pool, self._pool.grid.hop
        length, first = hop * self._up // self._down, self._margin * self._up // self._down
        given = np.empty((len(ready.rows), length), np.float32)
        for place, (row, covered) in enumerate(zip(ready.rows.tolist(), ready.covered.tolist(), strict=True)):
            held = pool.samples[row].astype(np.float64)
            if covered < pool.grid.size:
                held[pool.filled[row] == 0] = 0
            made = scipy.signal.resample_poly(held, self._up, self._down, window=self._filter)
            given[place] = made[first : first + length]
            if covered < pool.grid.size:
                given[place, self._lacking(pool.filled[row])] = np.nan
        offsets = pa.array(np.arange(len(given) + 1, dtype=np.int32) * length)
        lists = pa.ListArray.from_arrays(offsets, pa.array(given.ravel()))
        return [pa.array(np.full(len(given), self._to)), lists]

    def _lacking(self, filled: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of a frame's new samples reach for one that is not there."""
        hop, up, down = self._pool.grid.hop, self._up, self._down
        reach = _ZEROS * max(up, down)  # in steps of the rate both divide
        middle = self._margin * up + np.arange(hop * up // down) * down
        missing = np.concatenate([[0], np.cumsum(filled == 0)])
        lacking: NDArray[np.bool_] = missing[(middle + reach) // up + 1] > missing[-(-(middle - reach) // up)]
        return lacking
