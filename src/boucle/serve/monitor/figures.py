"""From counts to figures, each with its standard error: how far chance alone moves it at this many rows.

Area under the ROC curve and its error: Hanley & McNeil, Radiology 143 (1982). F1 by way of the Jaccard
index, which is a proportion: F = 2J / (1 + J). Estimates without labels: the confusion matrix that the
calibrated scores expect (confidence-based performance estimation, Kivimaeki et al. 2025; sound as long as
the relation of score and truth holds, which is what concept drift breaks).
"""

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.serve.monitor.tally import Binary, Bins, Errors, Tally

__all__ = ["Figure", "calibration", "estimated", "measured"]

Wide = NDArray[np.float64]

_NAN = float("nan")
_POOLS = 20


class Figure(Struct, frozen=True):
    """One figure; `error` is its standard error by sampling, NaN where nobody knows it."""

    value: float
    error: float = _NAN


def measured(tally: Tally, bins: Bins) -> dict[str, Figure]:
    """What labels say; empty without labels."""
    if not tally.known:
        return {}
    if isinstance(tally, Errors):
        return _regression(tally)
    positive = tally.positive.astype(np.float64)
    negative = tally.labelled - positive
    pools = np.add.reduceat(
        np.stack([tally.labelled, positive, tally.labelled * _middles(bins)]), _pools(bins), 1
    )
    off = float(np.abs(pools[1] - pools[2]).sum() / tally.known)
    return {
        **_classifier(positive, negative, bins),
        "brier": Figure(tally.mean_square),
        "calibration_error": Figure(off),
        "base_rate": _share(positive.sum(), tally.known),
    }


def estimated(tally: Tally, bins: Bins, rates: Wide | None) -> dict[str, Figure]:
    """What to expect before labels come, from the `rates` of positives per bin that `calibration` found."""
    if rates is None or not isinstance(tally, Binary) or not tally.rows:
        return {}
    positive = tally.scored * rates
    return _classifier(positive, tally.scored - positive, bins) | {
        "base_rate": _share(positive.sum(), tally.rows)
    }


def calibration(tally: Binary, least: int) -> Wide | None:
    """Positives among labelled rows, per bin, rising with the score (pooled where they would fall).

    None with fewer than `least` labelled rows of either class: there is nothing to learn from.
    """
    positives = int(tally.positive.sum())
    if min(positives, tally.known - positives) < least:
        return None
    blocks: list[list[float]] = []  # pool adjacent violators: positives, rows, bins
    for positive, rows in zip(tally.positive.tolist(), tally.labelled.tolist(), strict=True):
        blocks.append([positive, rows, 1])
        while len(blocks) > 1 and _falls(blocks[-2], blocks[-1]):
            last = blocks.pop()
            blocks[-1] = [one + two for one, two in zip(blocks[-1], last, strict=True)]
    return np.repeat(
        [positive / rows if rows else 0.0 for positive, rows, _ in blocks],
        [int(count) for *_, count in blocks],
    )


def _falls(before: list[float], after: list[float]) -> bool:
    """An empty block joins the one before it; otherwise rates must not fall."""
    return not after[1] or not before[1] or before[0] * after[1] > after[0] * before[1]


def _classifier(positive: Wide, negative: Wide, bins: Bins) -> dict[str, Figure]:
    hits, false = float(positive[bins.above :].sum()), float(negative[bins.above :].sum())
    missed = float(positive[: bins.above].sum())
    jaccard = _share(hits, hits + false + missed)
    f1 = 2 * jaccard.value / (1 + jaccard.value)
    return {
        "auc": _auc(positive, negative),
        "precision": _share(hits, hits + false),
        "recall": _share(hits, hits + missed),
        "f1": Figure(f1, 2 / (1 + jaccard.value) ** 2 * jaccard.error),
    }


def _auc(positive: Wide, negative: Wide) -> Figure:
    ups, downs = float(positive.sum()), float(negative.sum())
    if min(ups, downs) <= 0:
        return Figure(_NAN)
    below = np.cumsum(negative) - negative
    area = float((positive * (below + negative / 2)).sum()) / (ups * downs)
    one, two = area / (2 - area), 2 * area * area / (1 + area)
    own = area * (1 - area)
    spread = own + max(ups - 1, 0) * (one - area**2) + max(downs - 1, 0) * (two - area**2)
    return Figure(area, math.sqrt(max(spread, 0.0) / (ups * downs)))


def _share(part: float, whole: float) -> Figure:
    if whole <= 0:
        return Figure(_NAN)
    share = float(part) / float(whole)
    # Agresti & Coull (1998): two more of each kind, or nothing seen would mean nothing possible.
    shy = (float(part) + 2) / (float(whole) + 4)
    return Figure(share, math.sqrt(shy * (1 - shy) / (float(whole) + 4)))


def _middles(bins: Bins) -> Wide:
    middles: Wide = (bins.edges[1:] + bins.edges[:-1]) / 2
    return middles


def _pools(bins: Bins) -> NDArray[np.int64]:
    """First bins of twenty pools of equal width."""
    return np.searchsorted(bins.edges[:-1], np.arange(_POOLS) / _POOLS)


def _regression(tally: Errors) -> dict[str, Figure]:
    count = tally.known
    bias = tally.total / count
    mean_square = max(tally.square / count, 0.0)
    absolute = tally.absolute / count
    spread = math.sqrt(max(mean_square - bias**2, 0.0) / count)
    return {
        "mae": Figure(absolute, math.sqrt(max(mean_square - absolute**2, 0.0) / count)),
        "rmse": Figure(math.sqrt(mean_square)),
        "bias": Figure(bias, spread),
    }
