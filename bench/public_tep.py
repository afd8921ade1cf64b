"""Tennessee Eastman: which faults are seen, how soon, and how often nothing is called a fault.

    python -m bench.public_tep --data DIR      # DIR holds tep.parquet

Every method learns from the fault-free training run (500 rows, 3 minutes apart) and no other; its limits
leave out 1 % of that run's rows, judged five times by a model of the other four fifths. A fault begins after eight
hours of its test run. Per fault: detection rate (share of rows called after it began) and delay (minutes until the
first of three rows called in a row; `-` when never). False alarms: the share of rows called before, and on the
fault-free test run.

    PCA             T² and SPE of the components that hold 85 % of the variance (Chiang, Russell & Braatz 2001, ch. 4)
    dynamic PCA     the same of each row beside the two before it (Ku, Storer & Georgakis 1995)
    residuals       every variable predicted from the others by ridge regression: the redundancy that boucle's drift
                    rests on. Its residuals are smoothed (EWMA, 0.1) and weighed together (T²) and one by one (largest)

Faults 3, 9 and 15 are those that published methods hardly see: their rates are near the false alarms.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.figures import Figure, figure, publish
from bench.judged.data import beside, options

Wide = NDArray[np.float64]
Called = Callable[[Wide], NDArray[np.bool_]]
Statistics = Callable[[Wide], Wide]
Fit = Callable[[Wide], Statistics]

LIMIT = 0.99
MINUTES = 3
_SMOOTH = 0.1
_HELD = 3
_FOLDS = 5


def runs(folder: Path) -> dict[tuple[int, str], tuple[Wide, NDArray[np.bool_]]]:
    """(fault, split) → rows of the 52 variables, and whether the fault has begun."""
    table = pq.read_table(folder / "tep.parquet")
    names = [name for name in table.schema.names if name.startswith(("XMEAS", "XMV"))]
    wide = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float64)
    fault, split = table["fault"].to_numpy(), np.array(table["split"].to_pylist())
    minute, faulty = table["minute"].to_numpy(), np.array(table["faulty"].to_pylist(), bool)
    found = {}
    for one, name in sorted(set(zip(fault.tolist(), split.tolist(), strict=True))):
        places = np.flatnonzero((fault == one) & (split == name))
        places = places[np.argsort(minute[places])]
        found[one, name] = (wide[places], faulty[places])
    return found


def scaled(train: Wide) -> Callable[[Wide], Wide]:
    """Mean 0 and deviation 1 as in training."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1.0
    return lambda rows: (rows - mean) / deviation


def judged(train: Wide, fit: Fit) -> Called:
    """A row is called when any statistic passes its limit: the quantile of rows that the model had not seen.

    Five times a fifth of the training run is judged by a model of the rest: with 52 variables and 500 rows, limits of
    the rows a model was fitted to are far too low, and every method here would cry wolf.
    """
    edges = np.linspace(0, len(train), _FOLDS + 1).astype(int)
    unseen = [
        fit(np.vstack([train[:low], train[high:]]))(train[low:high])
        for low, high in itertools.pairwise(edges.tolist())
    ]
    whole = np.vstack(unseen)
    limits = np.quantile(whole, 1 - (1 - LIMIT) / whole.shape[1], axis=0)
    statistics = fit(train)
    return lambda rows: (statistics(rows) > limits).any(axis=1)


def pca(train: Wide, lags: int = 0) -> Statistics:
    """T² and SPE of each row."""
    lagged = _lagged(lags)
    scale = scaled(lagged(train))
    known = scale(lagged(train))
    values, vectors = np.linalg.eigh(np.cov(known, rowvar=False))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.85)) + 1

    def statistics(rows: Wide) -> Wide:
        scores = scale(lagged(rows)) @ vectors[:, :kept]
        rest = scale(lagged(rows)) - scores @ vectors[:, :kept].T
        return np.column_stack([(scores**2 / values[:kept]).sum(axis=1), (rest**2).sum(axis=1)])

    return statistics


def _lagged(lags: int) -> Callable[[Wide], Wide]:
    """Each row beside those before it; the first rows repeat the first one."""
    return lambda rows: np.hstack(
        [np.vstack([rows[:1]] * lag + [rows[: len(rows) - lag]]) for lag in range(lags + 1)]
    )


def residuals(train: Wide) -> Statistics:
    """Every variable less what the others say it is; smoothed, weighed together (T²) and the largest."""
    scale = scaled(train)
    count = train.shape[1]
    precision = np.linalg.inv(np.cov(scale(train), rowvar=False) + 0.05 * np.eye(count))
    # The regression of each on all others is read off the inverse covariance: a row over its diagonal.
    weights = precision / np.diag(precision)[:, None]

    def smoothed(rows: Wide) -> Wide:
        found = scale(rows) @ weights.T
        found[0] *= _SMOOTH  # from rest: a first row taken as it is would be the largest of all
        for place in range(1, len(found)):
            found[place] = found[place - 1] + _SMOOTH * (found[place] - found[place - 1])
        return found

    normal = smoothed(train)
    spread, centre = normal.std(axis=0), normal.mean(axis=0)
    inverse = np.linalg.inv(np.cov((normal - centre) / spread, rowvar=False) + 0.2 * np.eye(count))

    def statistics(rows: Wide) -> Wide:
        apart = (smoothed(rows) - centre) / spread
        return np.column_stack([np.einsum("ij,jk,ik->i", apart, inverse, apart), np.abs(apart).max(axis=1)])

    return statistics


def delay(called: NDArray[np.bool_]) -> float:
    """Minutes until the first of three rows called in a row; NaN when there are none."""
    held = np.convolve(called, np.ones(_HELD), "valid") == _HELD
    return float(np.argmax(held)) * MINUTES if held.any() else float("nan")


def main() -> None:
    folder, asked = options(__doc__, "tennessee_eastman")
    data = runs(folder)
    train, _ = data[0, "train"]
    fits: dict[str, Fit] = {"PCA": pca, "dynamic PCA": lambda rows: pca(rows, 2), "residuals": residuals}
    methods = {name: judged(train, fit) for name, fit in fits.items()}
    faults = [fault for fault, split in data if split == "test" and fault]
    table: dict[str, list[float | str]] = {f"fault {fault}": [] for fault in faults}
    rates: dict[str, dict[int, float]] = {}
    figures: list[Figure] = []
    for name, judge in methods.items():
        rates[name], early = {}, []
        for fault in faults:
            rows, faulty = data[fault, "test"]
            called = judge(rows)
            rates[name][fault] = 100 * float(called[faulty].mean())
            early.append(called[~faulty])
            later = delay(called[faulty])
            table[f"fault {fault}"] += [rates[name][fault], "-" if np.isnan(later) else later]
        short = name.replace(" ", "_").lower()
        hard = [fault for fault in faults if fault in (3, 9, 15)]
        easy = [fault for fault in faults if fault not in (3, 9, 15)]
        figures.append(
            figure(f"tep_{short}_detected", float(np.mean([rates[name][fault] for fault in easy])), "%")
        )
        if hard:
            figures.append(
                figure(
                    f"tep_{short}_detected_3_9_15",
                    float(np.mean([rates[name][fault] for fault in hard])),
                    "%",
                )
            )
        figures += [
            figure(f"tep_{short}_fault_{fault}", rates[name][fault], "%")
            for fault in (13, 14, 15)
            if fault in faults
        ]
        figures.append(figure(f"tep_{short}_false_alarms", 100 * float(np.concatenate(early).mean()), "%"))
        if (0, "test") in data:
            figures.append(
                figure(f"tep_{short}_false_alarms_run", 100 * float(judge(data[0, "test"][0]).mean()), "%")
            )
    if not asked.json:
        columns = [f"{name}, {what}" for name in methods for what in ("detected %", "delay min")]
        print(beside("Tennessee Eastman", "see docs/why/public-data.md", columns, table))
    publish(figures, asked)


if __name__ == "__main__":
    main()
