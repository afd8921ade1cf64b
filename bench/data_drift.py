"""Data drift over many columns: what a Block costs, and how often nothing is called drift.

A hundred columns of independent numbers, Blocks of 1 000 rows. `block_ms` is a Block that only counts; `window_ms` one
that completes a window of 1 000 rows. Beside it SciPy's two-sample KS test of every column against the same reference,
which keeps all rows. False alarms: windows with any column drifted at a declared rate of 5 %, no least effect, nothing
changed; SciPy's test without control beside it. Power: the windows found in which one column of the hundred moved by
0.3 deviations.
"""

import time
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import ks_2samp

from bench.figures import figure, options, publish
from boucle.block import Block, Position
from boucle.drift.change import DataDrift

COLUMNS, REFERENCE, WINDOW = 100, 2000, 1000


def block(wide: Any) -> Block:
    """Rows of COLUMNS numbers."""
    times = pa.array(np.arange(len(wide)) * 1000, pa.timestamp("ns", "UTC"))
    rows = pa.record_batch({"at": times, **{f"c{place}": wide[:, place] for place in range(COLUMNS)}})
    return Block("rows", rows, 0, Position("rows", len(wide)))


def cost(window: int, wide: Any, rounds: int) -> float:
    """Milliseconds a Block, the best of some rounds."""
    step = DataDrift(
        "drift", columns=[f"c{place}" for place in range(COLUMNS)], reference=REFERENCE, window=window
    )
    step.step(block(wide[:REFERENCE]))
    one, took = block(wide[REFERENCE : REFERENCE + WINDOW]), []
    for _ in range(rounds):
        begun = time.perf_counter()
        step.step(one)
        took.append(1000 * (time.perf_counter() - begun))
    return min(took)


def main() -> None:
    asked = options(__doc__)
    draw = np.random.default_rng(1)
    wide = draw.normal(size=(REFERENCE + WINDOW, COLUMNS))
    rounds = 5 if asked.quick else 20
    begun = time.perf_counter()
    for place in range(COLUMNS):
        ks_2samp(wide[:REFERENCE, place], wide[REFERENCE:, place])
    scipy_ms = 1000 * (time.perf_counter() - begun)
    windows = alarms = plain = hits = 0
    for _ in range(2 if asked.quick else 10):
        step = DataDrift("drift", columns=[f"c{place}" for place in range(COLUMNS)], reference=REFERENCE,
                         window=WINDOW, rate=0.05, least=0.0)  # fmt: skip
        known = draw.normal(size=(REFERENCE, COLUMNS))
        step.step(block(known))
        for moved in [False] * 5 + [True] * 5:
            later = draw.normal(size=(WINDOW, COLUMNS))
            later[:, 7] += 0.3 * moved
            (out,) = step.step(block(later))
            drifted = [row["column"] for row in out.rows.to_pylist() if row["drifted"]]
            if moved:
                hits += "c7" in drifted
            else:
                windows += 1
                alarms += bool(drifted)
                plain += any(ks_2samp(known[:, one], later[:, one]).pvalue < 0.05 for one in range(COLUMNS))
    publish(
        [
            figure("data_drift_block_ms", cost(1_000_000, wide, rounds), "ms", peer="SciPy KS", peer_value=scipy_ms),
            figure("data_drift_window_ms", cost(WINDOW, wide, rounds), "ms", peer="SciPy KS", peer_value=scipy_ms),
            figure("data_drift_false_alarms", 100 * alarms / windows, "% of windows", goal="<= 5",
                   peer="SciPy KS, p < 0.05", peer_value=100 * plain / windows),
            figure("data_drift_power", 100 * hits / windows, "% of windows"),
        ],
        asked,
    )  # fmt: skip


if __name__ == "__main__":
    main()
