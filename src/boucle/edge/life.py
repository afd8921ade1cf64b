"""How long a machine will live on, from one level that rises as it wears; by its age alone while nothing rises.

The level is one that failures are told by, such as the r.m.s. vibration of the worse of two directions (ISO 20816-1
judges by the greatest value measured). It is taken to grow exponentially once damage feeds on itself (Gebraeel et al.
2005): a straight line through ln(level) over the last third of the life so far, up to the level at which machines of
the kind failed. Where the level has not risen by half on that line, or hardly follows it, only the age speaks: the
median life of the kind, and a fifth of its age for a machine that has outlived it.

Told too late costs more than too early, so the answer is multiplied by 0.8. On the six training bearings of the PHM
2012 challenge: docs/why/public-data.md.
"""

import math
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["CAUTION", "Remaining", "by_age", "remaining", "smoothed"]

Wide = NDArray[np.float64]

CAUTION = 0.8
_PART = 1 / 3
"""Of the life so far: the stretch a trend is looked for in."""
_RISEN = 1.5
"""Times: a trend that rose by less may be a change of load."""
_FOLLOWS = 0.7
"""Least correlation of ln(level) with time."""
_LEAST_ROWS = 10
_OUTLIVED = 0.2
_LEAST = 0.02
"""Of the age: what is left at least, for a machine that is worn and still runs."""


class Remaining(Struct, frozen=True):
    """Seconds left, and what they were told by."""

    seconds: float
    by: Literal["trend", "age"]


def smoothed(level: Wide, rows: int) -> Wide:
    """The median of the last `rows` rows, or of those there are: a knock is no wear."""
    return np.array([np.median(level[max(0, place + 1 - rows) : place + 1]) for place in range(len(level))])


def by_age(age: float, life: float) -> float:
    """Seconds left to `life`, the median life of the kind in s, for a machine `age` s old."""
    return CAUTION * max(life - age, _OUTLIVED * age)


def remaining(age: Wide, level: Wide, *, worn: float, life: float) -> Remaining:
    """What is left after the last row.

    `age` (n,) rises, in s since the machine was new; `level` (n,) is above 0 and smoothed, in the unit of `worn`, the
    level at which the kind fails; `life` is its median life in s.
    """
    now = float(age[-1])
    begin = int(np.searchsorted(age, (1 - _PART) * now))
    at, logs = age[begin:], np.log(level[begin:])
    if len(at) >= _LEAST_ROWS and at[-1] > at[0] and logs.std() > 0:
        slope, start = np.polyfit(at, logs, 1)
        risen = slope * (at[-1] - at[0])
        if risen > math.log(_RISEN) and np.corrcoef(at, logs)[0, 1] > _FOLLOWS:
            left = (math.log(worn) - (slope * now + start)) / slope
            return Remaining(max(CAUTION * float(left), _LEAST * now), "trend")
    return Remaining(by_age(now, life), "age")
