"""Tennessee Eastman: which faults are seen, how soon, and how often nothing is called a fault.

    python -m bench.public_tep --data DIR      # DIR holds tep.parquet

Every method learns from the fault-free training run (500 rows, 3 minutes apart) and no other; its limits
leave out 1 % of that run's rows, judged five times by a model of the other four fifths. A fault begins after eight
hours of its test run. Per fault: detection rate (share of rows called after it began) and delay (minutes until the
first of three rows called in a row; `-` when never). False alarms: the share of rows called before, and on the
fault-free test run.

    PCA             T² and SPE of the components that hold 85 % of the variance (Chiang, Russell & Braatz 2001, ch. 4)
    dynamic PCA     the same of each row beside the two before it (Ku, Storer & Georgakis 1995)
    CVA             T² and SPE of the 28 canonical variates between the three rows before and the three after (Larimore
                    1983; Russell, Chiang & Braatz 2000)
    agreement       ours, the charts of the step `boucle.edge.agreement:Agreement`

Beside each method's own limits, all are also held to the same false alarms: limits are stretched until 1 % of the
fault-free test run is called.

The classical methods are computed here, not quoted: the tables per fault in Chiang, Russell & Braatz (2001) and Yin et
al. (2012) could not be read when this was written, and their limits are not held to unseen rows. One published figure
that was read stands below the table: the average over all 21 faults of a deep PCA-ICA (Kong & Ge 2021, its authors'
README). Faults 3, 9 and 15 are those that published methods hardly see: their rates are near the false alarms.

The three smoothings and the kinds of charts of ours were chosen among some fifty on the odd faults and their fault-free
run: these figures flatter; the even faults, 14 among them, were never looked at.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from msgspec import Struct
from numpy.typing import NDArray

from bench.figures import Figure, figure, publish
from bench.judged.data import beside, options
from boucle.edge.redundancy import learn, scores

Wide = NDArray[np.float64]
Score = Callable[[Wide], Wide]
"""Of each row; above 1 is called."""
Statistics = Callable[[Wide], Wide]
Fit = Callable[[Wide], Statistics]
Data = dict[tuple[int, str], tuple[Wide, NDArray[np.bool_]]]
"""(fault, split) → rows of the 52 variables, and whether the fault has begun."""

LIMIT = 0.99
MINUTES = 3
SAME = 0.01
"""False alarms to which all methods are held."""
HARD = (3, 9, 15)
KONG_GE = "github.com/kxytim/DLVM_for_process_monitoring, README; doi 10.1109/TII.2021.3134251"
PUBLISHED = {"its T² over all layers": (100 - 18.786, 2.887), "its best, fused": (100 - 16.702, 3.333)}
_HELD = 3
_FOLDS = 5


def runs(folder: Path) -> Data:
    """Every run in the folder, its rows by time."""
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


def judged(train: Wide, fit: Fit) -> Score:
    """The largest statistic over its limit: the quantile of rows that the model had not seen.

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
    return lambda rows: (statistics(rows) / limits).max(axis=1)


def agreement(train: Wide) -> Score:
    """The charts of our step; it learns its own limits in the same way."""
    model = learn(train)
    return lambda rows: scores(model, rows)


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


def cva(train: Wide, past: int = 3, kept: int = 28) -> Statistics:
    """T² of the canonical variates of the past that tell most of the future, and of what they leave over."""
    scale = scaled(train)
    known = scale(train)
    lagged = _lagged(past - 1)
    before = lagged(known)[past - 1 : -past]
    after = np.hstack([known[past + lead : len(known) - past + 1 + lead] for lead in range(past)])[
        : len(before)
    ]

    def root(rows: Wide) -> Wide:
        values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False) + 0.05 * np.eye(rows.shape[1]))
        found: Wide = (vectors / np.sqrt(values)) @ vectors.T
        return found

    whitened = root(before)
    _, _, turned = np.linalg.svd(root(after) @ (after.T @ before / len(before)) @ whitened)
    states = turned[:kept] @ whitened
    rest = whitened - turned[:kept].T @ states

    def statistics(rows: Wide) -> Wide:
        past_rows = lagged(scale(rows))
        return np.column_stack([((past_rows @ one.T) ** 2).sum(axis=1) for one in (states, rest)])

    return statistics


def delay(called: NDArray[np.bool_]) -> float:
    """Minutes until the first of three rows called in a row; NaN when there are none."""
    held = np.convolve(called, np.ones(_HELD), "valid") == _HELD
    return float(np.argmax(held)) * MINUTES if held.any() else float("nan")


class Called(Struct):
    """What one method calls, all limits stretched by the same factor."""

    rates: dict[int, float]
    delays: dict[int, float]
    early: float
    """Share of rows called before a fault began."""
    run: float
    """Share of the fault-free run."""


def called(score: Score, data: Data, stretch: float) -> Called:
    """Rates in %, delays in minutes."""
    found = Called({}, {}, 0.0, 100 * float((score(data[0, "test"][0]) > stretch).mean()))
    early = []
    for fault in sorted(fault for fault, split in data if split == "test" and fault):
        rows, faulty = data[fault, "test"]
        told = score(rows) > stretch
        found.rates[fault] = 100 * float(told[faulty].mean())
        found.delays[fault] = delay(told[faulty])
        early.append(told[~faulty])
    found.early = 100 * float(np.concatenate(early).mean())
    return found


def figures(short: str, found: Called) -> list[Figure]:
    """Of one method."""
    mean = [
        float(np.mean([found.rates[one] for one in found.rates if (one in HARD) == hard])) for hard in (0, 1)
    ]
    return [
        figure(f"tep_{short}_detected", mean[0], "%"),
        figure(f"tep_{short}_detected_3_9_15", mean[1], "%"),
        *(
            figure(f"tep_{short}_fault_{one}", found.rates[one], "%")
            for one in (13, 14, 15)
            if one in found.rates
        ),
        figure(f"tep_{short}_false_alarms", found.early, "%"),
        figure(f"tep_{short}_false_alarms_run", found.run, "%"),
    ]


def main() -> None:
    folder, asked = options(__doc__, "tennessee_eastman")
    data = runs(folder)
    train, _ = data[0, "train"]
    fits: dict[str, Fit] = {"PCA": pca, "dynamic PCA": lambda rows: pca(rows, 2), "CVA": cva}
    methods = {name: judged(train, fit) for name, fit in fits.items()} | {"agreement": agreement(train)}
    said: list[Figure] = []
    for same in (False, True):
        found = {}
        for name, score in methods.items():
            stretch = float(np.quantile(score(data[0, "test"][0]), 1 - SAME)) if same else 1.0
            found[name] = called(score, data, stretch)
            said += figures(name.replace(" ", "_").lower() + ("_same" if same else ""), found[name])
        if asked.json:
            continue
        columns = [f"{name}, {what}" for name in found for what in ("detected %", "delay min")]
        table: dict[str, list[float | str]] = {}
        for fault in next(iter(found.values())).rates:
            table[f"fault {fault}"] = []
            for one in found.values():
                later = one.delays[fault]
                table[f"fault {fault}"] += [one.rates[fault], "-" if np.isnan(later) else later]
        limits = "limits that call 1 % of the fault-free run" if same else "own limits"
        print(beside(f"Tennessee Eastman, {limits}", "computed here, see --help", columns, table))
    if not asked.json:
        print(beside("Deep PCA-ICA, all 21 faults", KONG_GE, ("detected %", "false alarms %"), PUBLISHED))
    publish(said, asked)


if __name__ == "__main__":
    main()
