"""Is a window other than its reference: one test and one effect a column, and the false discoveries of many columns.

    ks           largest distance of the two distribution functions at the bins' edges (Kolmogorov-Smirnov); between
                 the edges it can only be larger, so the test on bins is conservative
    psi          population stability index, Σ(p-q)·ln(p/q) over tenths of the reference; when nothing changed it is
                 about (1/n + 1/m)·χ² with one degree of freedom less than bins (Yurdakul & Naranjo 2020)
    wasserstein  area between the two distribution functions, in standard deviations of the reference; an effect only
    chi2         homogeneity of two rows of counts (Pearson); its effect is the total variation, ½·Σ|p-q|
    missing      the same of values that are there or not

Sample sizes are divided by what dependence costs (`dependence`); for chi2 that is the first-order correction of
Rao & Scott (1981). p-values of one window become q-values by Benjamini-Yekutieli (2001), which holds whatever the
dependence between columns, or Benjamini-Hochberg (1995), which asks for positive dependence and finds more.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.special import chdtrc, kolmogorov
from scipy.stats import false_discovery_control

from boucle.features.sketch import Reference, Tally, centres

__all__ = ["Found", "compare", "discoveries", "missing"]

Wide = NDArray[np.float64]

_TENTHS = 10


class Found(Struct):
    """What a comparison gave. `effect` 0 means alike; `p` is the chance of as much when nothing changed."""

    kind: str
    effect: float
    p: float
    psi: float | None = None
    wasserstein: float | None = None
    shift: float | None = None
    """Of a number: mean of the window less mean of the reference, in the column's unit."""


def compare(reference: Reference, window: Tally, test: str, effect: str) -> Found:
    """The window against the reference; p 1 and effect 0 when either is empty."""
    before, after = np.array(reference.tally.counts, np.float64), np.array(window.counts, np.float64)
    kind = "chi2" if reference.words else test
    if not before.sum() or not after.sum():
        return Found(kind, 0.0, 1.0)
    if reference.words:
        return Found(kind, _total_variation(before, after), _chi2(before, after, reference.inflation))
    n, m = before.sum() / reference.inflation, after.sum() / reference.inflation
    distance = float(np.abs(np.cumsum(before) / before.sum() - np.cumsum(after) / after.sum()).max())
    stability, cells = _psi(before, after)
    here, there = centres(window), centres(reference.tally)
    area = _area(here, there)
    if test == "ks":
        size = np.sqrt(n * m / (n + m))
        p = float(
            kolmogorov((size + 0.12 + 0.11 / size) * distance)
        )  # Stephens 1970: good for small samples too
    else:
        p = float(chdtrc(max(cells - 1, 1), stability / (1 / n + 1 / m)))
    moved = (
        np.average(here[0], weights=here[1]) - np.average(there[0], weights=there[1])
    ) * reference.deviation
    measured = {"ks": distance, "psi": stability, "wasserstein": area}[effect]
    return Found(kind, measured, p, stability, area, float(moved))


def missing(reference: Reference, window: Tally) -> Found:
    """Whether values are missing more often, or less."""
    before = np.array([reference.tally.missing, reference.tally.present], np.float64)
    after = np.array([window.missing, window.present], np.float64)
    if not before[0] and not after[0]:  # the common case, and most of the time spent here
        return Found("missing", 0.0, 1.0)
    p = _chi2(before, after, reference.missing_inflation)
    return Found("missing", _total_variation(before, after), p)


def discoveries(p: Sequence[float], method: str) -> list[float]:
    """q-values of the p-values of one window; `method` is by or bh."""
    adjusted: list[float] = false_discovery_control(p, method=method).tolist() if len(p) else []
    return adjusted


def _area(one: tuple[Wide, Wide], other: tuple[Wide, Wide]) -> float:
    """Wasserstein's distance of two weighted sets of points; SciPy's is ten times as slow on so few."""
    points = np.concatenate([one[0], other[0]])
    weights = np.concatenate([one[1] / one[1].sum(), -other[1] / other[1].sum()])
    order = np.argsort(points)
    apart = np.abs(np.cumsum(weights[order]))[:-1]
    return float((apart * np.diff(points[order])).sum())


def _total_variation(before: Wide, after: Wide) -> float:
    return float(np.abs(before / before.sum() - after / after.sum()).sum() / 2)


def _chi2(before: Wide, after: Wide, inflation: float) -> float:
    """The p-value of Pearson's homogeneity; cells that are expected fewer than five times are taken together."""
    share = min(before.sum(), after.sum()) / (before.sum() + after.sum())
    rare = (before + after) * share < 5
    table = np.array([[*one[~rare], one[rare].sum()] for one in (before, after)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return float(chdtrc(table.shape[1] - 1, statistic / inflation))


def _psi(before: Wide, after: Wide) -> tuple[float, int]:
    """The index over about ten bins of equal weight in the reference, and how many they were."""
    tenth = np.minimum((np.cumsum(before) - before / 2) / before.sum() * _TENTHS, _TENTHS - 1).astype(
        np.int64
    )
    both = np.array([np.bincount(tenth, one, minlength=_TENTHS) for one in (before, after)])
    both = both[:, both.sum(axis=0) > 0]
    # Half a row in every bin keeps an empty one from being infinitely far.
    p, q = (both + 0.5) / (both + 0.5).sum(axis=1, keepdims=True)
    return float(((p - q) * np.log(p / q)).sum()), both.shape[1]
