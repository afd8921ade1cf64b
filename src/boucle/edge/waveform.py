"""Waveforms described: one row per sensor and window of event time.

    use: boucle.edge.waveform:Waveform
    from: [vibration]
    with:
      by: [machine, sensor]
      size: 1s
      rate_hz: 10000
      values: {rms: rms, kurtosis: kurtosis, mesh: "band(300, 600)"}

A window is given as soon as its last sample is there, without waiting for lateness; a window with gaps is
given when the watermark passes its end, with `complete` false. Chunks may straddle windows and arrive in any
order. `boucle.edge.describe` lists the values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from boucle.edge.describe import Description
from boucle.edge.grid import Grid
from boucle.edge.pool import Ready
from boucle.edge.windowed import Windowed, traced_samples
from boucle.ports import Traced
from boucle.stream.origin import Inputs

__all__ = ["Waveform"]


class Waveform(Windowed):
    """Windows of `size` of each sensor, one beginning at every `every` (none given: side by side).

    Rows carry a chunk each: the time of its first sample, and its samples as a list of numbers, `rate_hz` a
    second. What is given has the `by` columns, `at` (the start of the window), `complete` and the values.
    Late chunks go to `<step>/late`, see `Windowed`. B220 for settings that cannot work, B221 for columns that
    are not there.
    """

    def __init__(
        self,
        stream: str,
        *,
        size: str | float,
        rate_hz: float,
        values: Mapping[str, str],
        by: Sequence[str] | str = (),
        every: str | float | None = None,
        samples: str = "samples",
        time: str = "at",
    ) -> None:
        grid = Grid.of(rate_hz, size, every)
        self._description = Description(values, grid, stream)
        super().__init__(stream, grid, self._description.fields, by=by, samples=samples, time=time)

    @classmethod
    def trace(
        cls, inputs: Inputs, *, size: str | float, values: Mapping[str, str], **declared: Any
    ) -> Traced:
        """Keys and time of the waveform, and each value from its samples."""
        return traced_samples(inputs, dict(values), f"window: {size}", **declared)

    def _told(self, ready: Ready) -> list[pa.Array]:
        return self._description.columns(self._pool, ready)
