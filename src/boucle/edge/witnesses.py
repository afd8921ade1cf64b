"""Many plain ways for a row of a slow signal to be unusual, and how rare each was before: one compiled pass.

The row is seen on two scales, as it is and by the ln of its size. On each, against the rows that came before:

    up, down, apart    the mean of the last w rows above, below, or either side of the mean of the last `train`
    step               that mean from the mean of the w rows before it
    near               the row from the mean of the w rows before it
    wider, narrower    ln of the deviation of the last w rows above or below its own mean over the last `train`
    restless           the mean change from row to row over the last w

with w of 1, 5, 10, 30, 60 and 100 rows where it makes sense: 82 witnesses. A witness votes -log10 of how rare its
distance is among all it ever saw (the conformal p-value of Vovk, Gammerman & Shafer 2005, §2): its largest ever, after
999 rows, votes 3. The row's surprise is the mean of the 12 highest votes, so that no witness speaks alone.
"""

import numpy as np
from numpy.typing import NDArray

from boucle.compiled import compiled

__all__ = ["KEPT", "LONGEST", "SPREADS", "WITNESSES", "surprise"]

Wide = NDArray[np.float64]

_SPANS = (1, 5, 10, 30, 60, 100)
_RESTED = 2
"""Place of the first span that is long enough for a deviation."""
_COUNT = len(_SPANS)
_PER_SCALE = 4 * _COUNT + (_COUNT - 1) + 3 * (_COUNT - _RESTED)
WITNESSES = 2 * _PER_SCALE
LONGEST = 2 * _SPANS[-1]
"""Rows that a witness looks back, its mean of `train` apart."""
SPREADS = 2 * (_COUNT - _RESTED)
"""Deviations whose own mean is followed."""
KEPT = 64
"""Largest distances kept of each witness: one that is not among them is not rare, and votes 0."""
_HEARD = 12
_SOFT = 0.05
_SAME = 1e-12


@compiled
def _look(values: Wide, spreads: Wide, seen: int, scale: int, found: Wide) -> None:
    """The distances of the newest row (number `seen`, already in `values`) on one scale; follows its deviations."""
    room, train = values.shape[1], spreads.shape[1]
    now = values[scale, seen % room]
    total, square, change = np.zeros(LONGEST + 1), np.zeros(LONGEST + 1), np.zeros(LONGEST + 1)
    rows = min(seen + 1, LONGEST)
    for lag in range(rows):
        one = values[scale, (seen - lag) % room]
        total[lag + 1] = total[lag] + one
        square[lag + 1] = square[lag] + one * one
        before = values[scale, (seen - lag - 1) % room] if lag < seen else one
        change[lag + 1] = change[lag] + abs(one - before)
    usual = now
    if seen:
        usual = 0.0
        for lag in range(1, min(seen, train) + 1):
            usual += values[scale, (seen - lag) % room]
        usual /= min(seen, train)
    place = scale * _PER_SCALE
    for number in range(_COUNT):
        span = _SPANS[number]
        known = min(span, rows)
        mean = total[known] / known
        found[place] = max(mean - usual, 0.0)
        found[place + 1] = max(usual - mean, 0.0)
        found[place + 2] = abs(mean - usual)
        found[place + 3] = abs(mean - (total[2 * span] - total[span]) / span) if seen >= 2 * span else 0.0
        place += 4
        if number:
            earlier = min(span, rows - 1)
            found[place] = abs(now - (total[earlier + 1] - now) / earlier) if earlier else 0.0
            place += 1
        if number >= _RESTED:
            spread = np.log(np.sqrt(max(square[known] / known - mean * mean, 0.0)) + _SOFT)
            line = scale * (_COUNT - _RESTED) + number - _RESTED
            normal = spread
            if seen:
                normal = 0.0
                for lag in range(min(seen, train)):
                    normal += spreads[line, lag]
                normal /= min(seen, train)
            found[place] = max(spread - normal, 0.0)
            found[place + 1] = max(normal - spread, 0.0)
            found[place + 2] = change[known] / known
            spreads[line, seen % train] = spread
            place += 3


@compiled
def _vote(largest: Wide, seen: int, distance: float) -> float:
    """-log10 of the share of earlier distances at least as large; then the distance is remembered.

    `largest` rises; the first of it falls out when there is no room.
    """
    room = len(largest)
    kept = min(seen, room)
    low, high = 0, kept
    while low < high:
        middle = (low + high) // 2
        if largest[middle] < distance - _SAME:
            low = middle + 1
        else:
            high = middle
    vote = 0.0 if low == 0 and seen > room else np.log10((1.0 + seen) / (1.0 + kept - low))
    place = low
    if kept < room:
        for other in range(kept, place, -1):
            largest[other] = largest[other - 1]
        largest[place] = distance
    elif place:
        for other in range(place - 1):
            largest[other] = largest[other + 1]
        largest[place - 1] = distance
    return vote


@compiled
def surprise(values: Wide, spreads: Wide, largest: Wide, seen: int, plain: float, relative: float) -> float:
    """How unusual a row is, 0 or more; then all witnesses remember it.

    `seen` rows came before. `plain` and `relative` are the row on the two scales. Memory, changed in place: `values`
    (2, `train` or more, above LONGEST), `spreads` (SPREADS, `train`), `largest` (WITNESSES, KEPT).
    """
    values[0, seen % values.shape[1]] = plain
    values[1, seen % values.shape[1]] = relative
    found = np.empty(WITNESSES)
    _look(values, spreads, seen, 0, found)
    _look(values, spreads, seen, 1, found)
    for place in range(WITNESSES):
        found[place] = _vote(largest[place], seen, found[place])
    found.sort()
    return float(found[WITNESSES - _HEARD :].mean())
