"""Division by time: what trains is older than what measures, with a gap as wide as a label takes to be known."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from boucle.clock import Nanos
from boucle.errors import BoucleError

__all__ = ["folds", "split"]

_LEAST = 10

Rows = NDArray[np.int64]


def split(at: Rows, share: float, gap: Nanos) -> tuple[Rows, Rows]:
    """Indices of the training and the test rows; `at` ascends. B628 when either has fewer than ten.

    A row trains when it is older than the first test row by more than `gap`; rows of one moment stay together.
    """
    cut = len(at) - max(1, round(len(at) * share))
    start = int(np.searchsorted(at, at[cut], side="left")) if len(at) else 0
    return _apart(at, start, len(at), gap)


def folds(at: Rows, count: int, gap: Nanos) -> Iterator[tuple[Rows, Rows]]:
    """Time-series cross-validation: each fold trains on all before it and measures on the next part.

    A fold that the gap leaves nothing to train on is left out; B628 when that is so of all of them.
    """
    edges = [
        int(np.searchsorted(at, at[len(at) * part // (count + 1)], side="left"))
        for part in range(1, count + 1)
    ]
    edges.append(len(at))
    parts = [(start, end) for start, end in pairwise(edges) if end > start]
    whole = [one for one in parts if _before(at, one[0], gap) >= _LEAST and one[1] - one[0] >= _LEAST]
    for start, end in whole or parts[-1:]:
        yield _apart(at, start, end, gap)


def _before(at: Rows, start: int, gap: Nanos) -> int:
    return int(np.searchsorted(at, at[start] - gap, side="left")) if gap else start


def _apart(at: Rows, start: int, end: int, gap: Nanos) -> tuple[Rows, Rows]:
    last = _before(at, start, gap) if len(at) else 0
    if last < _LEAST or end - start < _LEAST:
        raise BoucleError(
            "B628",
            "there are too few rows to train and to measure",
            why=f"{last} before the gap, {end - start} after it; at least {_LEAST} of each",
            fix="wait for more labels, or lessen split.gap, split.test or split.folds",
        )
    return np.arange(last), np.arange(start, end)
