"""Whether rows drawn without a waveform are distributed as rows made from one: column by column, and side by side.

python -m bench.attribution.same      both for the twelve sound runs of the benchmark (made once, and kept)
"""

import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from bench.attribution.episodes import FINAL, Episode, healthy
from bench.attribution.rows import rows_of, simulate
from bench.attribution.sound import sound_rows

__all__ = ["COLUMNS", "Apart", "apart", "compared", "paired", "table"]

_SLOW = ("bearing_temperature", "oil_temperature", "hydraulic_pressure", "motor_current")
_OF_AXIS = ("mean", "bpfo", "bpfi", *(f"band_{band}" for band in range(8)))
COLUMNS = (
    "speed", *_SLOW, *(f"{name}_noise" for name in _SLOW), *(f"{axis}_{name}" for axis in "xyz" for name in _OF_AXIS),
)  # fmt: skip
RUNS, SECONDS = 12, 1800
_SETTLED = 30
"""Seconds after which the temperatures have settled."""

Wide = NDArray[np.float64]


class Apart(Struct, frozen=True):
    """How far two samples of a column are apart."""

    column: str
    mean: float
    """Difference of the means, in standard deviations of a second."""
    spread: float
    """Ln of the ratio of the standard deviations."""
    tail: float
    """Differences of the quantiles 0.1 % and 99.9 % (of small samples: of the third smallest and largest), in
    standard deviations of a second; the larger one."""
    lag: float
    """Difference of the autocorrelation from one second to the next."""
    beside: float
    """Largest difference of the correlation with any other column."""
    p: float
    """Of the two-sample Kolmogorov-Smirnov test, over every third second, as neighbours are not independent."""


def compared(real: pa.Table, drawn: pa.Table) -> list[Apart]:
    """Column by column; band energies as logarithms."""
    one, other = _values(real), _values(drawn)
    correlation = np.abs(np.corrcoef(one.T) - np.corrcoef(other.T)).max(axis=1)
    return [
        _apart(name, one[:, index], other[:, index], float(correlation[index]))
        for index, name in enumerate(COLUMNS)
    ]


def paired(episode: Episode) -> list[Apart]:
    """The same press, from its waveform and drawn; `episode` was simulated before."""
    real = rows_of(episode)
    drawn = sound_rows(episode.scenario, episode.seed, real.num_rows)
    return compared(real, pa.Table.from_batches([drawn]))


def apart(runs: Sequence[Sequence[Apart]]) -> list[Apart]:
    """Column by column the mean over some runs, of the tail and the correlations too; and the least p."""
    found = []
    for of in zip(*runs, strict=True):
        means = {
            name: float(np.mean([getattr(one, name) for one in of]))
            for name in ("mean", "spread", "tail", "lag", "beside")
        }
        found.append(Apart(column=of[0].column, p=min(one.p for one in of), **means))
    return found


def _values(rows: pa.Table) -> Wide:
    columns = []
    for name in COLUMNS:
        values = rows.column(name).to_numpy(zero_copy_only=False)[_SETTLED:].astype(np.float64)
        columns.append(np.log(values) if "_band_" in name else values)
    return np.column_stack(columns)


def _apart(name: str, one: Wide, other: Wide, beside: float) -> Apart:
    spread, spread_other = float(one.std()), float(other.std())
    edge = max(0.001, 3 / min(len(one), len(other)))
    tails = [abs(np.quantile(one, q) - np.quantile(other, q)) for q in (edge, 1 - edge)]
    return Apart(
        column=name,
        mean=float(other.mean() - one.mean()) / spread,
        spread=float(np.log(spread_other / spread)),
        tail=float(max(tails)) / spread,
        lag=_lag(other) - _lag(one),
        beside=beside,
        p=float(ks_2samp(one[::3], other[::3]).pvalue),
    )


def _lag(values: Wide) -> float:
    return float(np.corrcoef(values[:-1], values[1:])[0, 1])


def main() -> None:
    runs = list(healthy(FINAL, RUNS, SECONDS))
    for left in simulate(runs):
        print(f"{left} runs to simulate ...", file=sys.stderr, flush=True)
    print(table(apart([paired(run) for run in runs])))


def table(found: Sequence[Apart]) -> str:
    """As Markdown, the worst last."""
    lines = ["| column | mean | spread | tail | lag | beside | p |", "|---|---|---|---|---|---|---|"]
    for one in found:
        numbers = (one.mean, one.spread, one.tail, one.lag, one.beside, one.p)
        lines.append(f"| {one.column} | {' | '.join(f'{number:.3f}' for number in numbers)} |")
    worst = [
        max(abs(getattr(one, name)) for one in found) for name in ("mean", "spread", "tail", "lag", "beside")
    ]
    lines.append(f"| largest | {' | '.join(f'{number:.3f}' for number in worst)} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
