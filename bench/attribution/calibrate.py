"""The scale of confidence: how often a cause was right that had fitted for so long and so strongly.

Every second of every tuning episode, each cause that fits is held against the truth. An episode counts once, however
long; strange faults count so much that they are one fault in ten; and one wrong second is added to each family, so that
what was never wrong is not taken for certain (Platt 1999). A logistic curve per family over the logarithms of how long
it held and how strong the evidence was gives the numbers of `boucle.drift.confidence`, which this prints:

    python -m bench.attribution.calibrate
"""

import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression

from bench.attribution.episodes import MACHINE, TUNING, Episode, draw
from bench.attribution.rows import START, rows_of
from bench.attribution.score import sensors
from bench.attribution.strange import Strange, rows, strange
from boucle.block import as_dicts
from boucle.clock import SECOND
from boucle.drift.course import Course
from boucle.drift.hypothesis import Hypothesis
from boucle.drift.judge import Judge
from boucle.drift.reading import Reading

AXES = ("x", "y", "z")
ONE_IN = 10
"""One fault in so many is one that nobody wrote a rule for: an assumption, there are no statistics of it."""

Seen = tuple[str, float, float, bool]
"""Family, seconds held, strength, whether it was right."""


def named(cause: Hypothesis) -> str:
    """The sensor a cause is about; `all`, or the machine."""
    if cause.family == "machine":
        return MACHINE
    return cause.sensor or ("all" if cause.axis is None else f"vib_{AXES[cause.axis]}")


def seen(table: pa.Table, right: dict[str, float]) -> Iterator[Seen]:
    """What fitted in every second; `right`: sensor (or `machine`) → from when on it is at fault."""
    judge, course = Judge(12, 4, 10, 60), Course([], [], [])
    (batch,) = table.combine_chunks().to_batches()
    for row in as_dicts(batch):
        judge.hear(course, Reading.of(row["at"], row, AXES))
        now = (row["at"] - START) / SECOND + 1
        for item in course.pending:
            of = {named(item.hypothesis)} if item.hypothesis.family == "machine" else {
                one for name in (item.hypothesis.candidates or (named(item.hypothesis),)) for one in sensors(name)
            }  # fmt: skip
            yield (
                item.hypothesis.family,
                item.held,
                item.hypothesis.strength,
                any(right.get(one, math.inf) <= now for one in of),
            )


def of_episode(episode: Episode) -> list[Seen]:
    right: dict[str, float] = {}
    for fault in episode.faults:
        for name in fault.sensors or (MACHINE,):
            right[name] = min(fault.onset, right.get(name, math.inf))
    return list(seen(rows_of(episode), right))


def of_strange(one: Strange) -> list[Seen]:
    name = f"vib_{one.axis}" if one.family == "sensor" else MACHINE
    right = {name: 18.0}
    if one.kind == "swapped":
        right[f"vib_{AXES[(AXES.index(one.axis) + 1) % 3]}"] = 18.0
    return list(seen(rows(one), right))


def main() -> None:
    with ProcessPoolExecutor(1) as pool:
        usual = list(pool.map(of_episode, draw(TUNING), chunksize=8))
        odd = list(pool.map(of_strange, strange(TUNING), chunksize=8))
    share = len(usual) / len(odd) / (ONE_IN - 1)
    for family in ("machine", "sensor"):
        told: list[Seen] = [(family, 1.0, 1.0, False)]
        weights = [1.0]
        for group, weight in ((usual, 1.0), (odd, share)):
            for episode in group:
                mine = [one for one in episode if one[0] == family]
                told += mine
                weights += [weight / max(1, len(mine))] * len(mine)
        x = np.array([[math.log(held), math.log(strength)] for _, held, strength, _ in told])
        y = np.array([right for *_, right in told])
        fit = LogisticRegression(C=100.0).fit(x, y, sample_weight=weights)
        held, strength = (float(round(one, 2)) for one in fit.coef_[0])
        print(f'"{family}": ({float(round(fit.intercept_[0], 2))}, {held}, {strength}),  # of {len(told) - 1} seconds, '
              f"{np.average(y, weights=weights):.3f} right")  # fmt: skip
        for low, high in ((1, 1), (2, 2), (3, 3), (4, 4), (5, 8), (9, 16), (17, 99)):
            part = (np.exp(x[:, 0]) > low - 0.5) & (np.exp(x[:, 0]) < high + 0.5)
            if part.any():
                w = np.array(weights)[part]
                print(f"    held {low}-{high}: said {np.average(fit.predict_proba(x[part])[:, 1], weights=w):.3f}, "
                      f"right {np.average(y[part], weights=w):.3f}, {part.sum()} seconds")  # fmt: skip


if __name__ == "__main__":
    main()
