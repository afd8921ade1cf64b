"""SKAB, a real water-circulation testbed: outliers and change points, judged as its authors do.

    python -m bench.public_skab --data DIR      # DIR holds skab.parquet

Each file is an experiment of its own: the first 400 rows teach, the others are judged, row by row and causally, by the
step `boucle.edge.departure:Departure` with one setting for all files. The two temperatures are not used: they drift
with the room for longer than an experiment lasts. The constants of the step were chosen on one half of the files (even
valve files, odd others), in the middle of a plateau; the other half is the test.

The change-point score rewards alarming often: an alarm every 15 s, blind to the data, is printed as a line of its own,
and so is the share of our alarms that fall into a window.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from msgspec import Struct

from bench.figures import figure, publish
from bench.judged.data import beside, options
from bench.judged.skab import Outliers, change_points, outliers, windows
from boucle.block import Block, Position
from boucle.edge.departure import Departure

SIGNALS = ("Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure", "Voltage", "Volume Flow RateRMS")
TRAIN = 400
SOURCE = (
    "waico/SKAB, README at commit 80bac4a; the second Conv-AE is its later figure, the best of that table"
)
PUBLISHED = {
    "Conv-AE": (0.79, 13.69, 17.77),
    "Conv-AE, later table": (0.78, 13.6, 28.0),
    "MSET": (0.73, 20.82, 20.08),
    "LSTM-AE": (0.68, 14.24, 35.56),
    "T-squared + Q (PCA)": (0.67, 13.95, 36.32),
    "Vanilla LSTM": (0.64, 15.4, 39.93),
    "MSCRED": (0.64, 13.56, 41.16),
    "T-squared": (0.56, 12.14, 52.56),
    "Isolation forest": (0.4, 6.86, 72.09),
}
POINTS = {
    "best of the later table": ("60 s", 32.42),
    "Isolation forest": ("30 s", 37.53),
    "MSCRED": ("30 s", 28.74),
    "T-squared + Q (PCA)": ("30 s", 26.71),
    "ruptures, told how many": ("30 s", 24.1),
}


class Told(Struct):
    """One file after its training rows."""

    anomaly: list[bool]
    alert: list[bool]
    points: list[float]
    """Times of the true change points, s."""
    changes: list[float]
    first: float
    last: float


def judge(folder: Path) -> dict[str, Told]:
    """Every file with labels, through the step."""
    rows = pq.read_table(folder / "skab.parquet")
    names = np.array(rows["file"].to_pylist())
    found = {}
    for name in dict.fromkeys(names.tolist()):
        part = rows.filter(names == name)
        if part["anomaly"].null_count == len(part):
            continue
        batch = part.combine_chunks().to_batches()[0]
        batch = batch.rename_columns(["at" if one == "datetime" else one for one in batch.schema.names])
        (out,) = Departure("scores", columns=SIGNALS, train=TRAIN).step(
            Block("rows", batch, 0, Position(name, 0))
        )
        at = (part["datetime"].to_numpy().astype("datetime64[ms]").astype(np.int64) / 1000)[TRAIN:]
        anomaly, point = (
            np.array(part[label].to_pylist())[TRAIN:] == 1 for label in ("anomaly", "changepoint")
        )
        alert, changed = (
            np.array(out.rows.column(label).to_pylist())[TRAIN:] for label in ("alert", "changed")
        )
        found[name] = Told(
            anomaly.tolist(),
            alert.tolist(),
            sorted(at[point].tolist()),
            sorted(at[changed].tolist()),
            at.min(),
            at.max(),
        )
    return found


def in_a_window(told: dict[str, Told], width: float) -> float:
    """The share of alarms that fall into a window of a change point."""
    inside = [
        any(low <= at <= high for low, high in windows(one.points, width))
        for one in told.values()
        for at in one.changes
    ]
    return sum(inside) / max(1, len(inside))


def main() -> None:
    folder, asked = options(__doc__, "skab")
    told = judge(folder)
    result: Outliers = outliers([one.anomaly for one in told.values()], [one.alert for one in told.values()])
    points, changes = [one.points for one in told.values()], [one.changes for one in told.values()]
    blind = [list(np.arange(one.first, one.last, 15.0)) for one in told.values()]
    scores = {
        profile: change_points(points, changes, profile) for profile in ("standard", "low_fp", "low_fn")
    }
    figures = [
        figure("skab_files", len(told), ""),
        figure("skab_f1", result.f1, "", goal=">= 0.78", peer="Conv-AE", peer_value=0.78),
        figure("skab_far", 100 * result.far, "%", goal="<= 13.6", peer="Conv-AE", peer_value=13.6),
        figure("skab_mar", 100 * result.mar, "%", goal="<= 28.0", peer="Conv-AE", peer_value=28.0),
        figure(
            "skab_nab_standard",
            scores["standard"],
            "",
            goal=">= 32.42",
            peer="best published",
            peer_value=32.42,
        ),
        figure("skab_nab_low_fp", scores["low_fp"], ""),
        figure("skab_nab_low_fn", scores["low_fn"], ""),
        figure("skab_nab_standard_30s", change_points(points, changes, "standard", 30.0), ""),
        figure("skab_alarms_in_a_window", in_a_window(told, 60.0), ""),
        figure("skab_alarms_per_file", sum(map(len, changes)) / max(1, len(told)), ""),
        figure("skab_nab_blind_15s", change_points(points, blind, "standard"), ""),
    ]
    if not asked.json:
        ours = (result.f1, 100 * result.far, 100 * result.mar)
        print(
            beside(
                "SKAB outliers",
                SOURCE,
                ("F1", "FAR, %", "MAR, %"),
                {"boucle, these files": ours, **PUBLISHED},
            )
        )
        thirty = change_points(points, changes, "standard", 30.0)
        told_points = {"boucle": ("60 s", scores["standard"]), "boucle ": ("30 s", thirty), **POINTS}
        print(beside("SKAB change points", SOURCE, ("window", "NAB standard"), told_points))
        for name, one in told.items():
            alone = outliers([one.anomaly], [one.alert])
            print(f"  {name:15} F1 {alone.f1:.2f}  FAR {alone.far:6.1%}  MAR {alone.mar:6.1%}")
    publish(figures, asked)


if __name__ == "__main__":
    main()
