"""Gain or zero: which of the two an instrument has lost, once the machine ran at two levels.

At one operating point a reading that is ten too high may be ten off everywhere or five percent off. At a second point
whose normal is known the two part: a zero is off by the same, a gain by the same share. Deviations are kept per level,
once they have stopped growing, and both lines are fitted to them; the one that fits is named when the other does not.
"""

from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Level", "gain_or_zero", "note"]

_SETTLED = 8
"""Seconds a deviation has to stand before it counts: a drift that still grows is smaller at the level it had first."""
_LEAST_APART = 0.05
"""Levels that differ by less, as a share, are one."""
_MOST = 12
_CERTAIN = 16.0
"""Difference of the squared misfits (four standard deviations) from which one line is preferred."""
_FITS = 9.0
"""Squared misfit a level that a line still fits."""


class Level(Struct):
    """How far an instrument was off at one level, in its unit."""

    level: float
    off: float
    chance: float
    stood: int = 0
    """Seconds it has been off by as much."""


def note(levels: Sequence[Level], level: float, off: float, chance: float) -> list[Level]:
    """The levels with one more second at this one."""
    near = next((one for one in levels if abs(one.level - level) < _LEAST_APART * abs(level)), None)
    kept = [one for one in levels if one is not near]
    if near is None or abs(off - near.off) > 3 * chance:
        return [*kept[-(_MOST - 1) :], Level(level, off, chance)]
    return [*kept, Level(near.level, near.off, min(near.chance, chance), near.stood + 1)]


def gain_or_zero(levels: Sequence[Level]) -> tuple[str, float] | None:
    """`gain` and its factor, or `offset` and its size; None as long as both or neither explain what was seen."""
    known = [one for one in levels if one.stood >= _SETTLED]
    if len(known) < 2:
        return None
    weights = [1 / one.chance**2 for one in known]
    zero = sum(w * one.off for w, one in zip(weights, known, strict=True)) / sum(weights)
    share = sum(w * one.off * one.level for w, one in zip(weights, known, strict=True)) / sum(
        w * one.level**2 for w, one in zip(weights, known, strict=True)
    )
    by_zero = sum(w * (one.off - zero) ** 2 for w, one in zip(weights, known, strict=True))
    by_gain = sum(w * (one.off - share * one.level) ** 2 for w, one in zip(weights, known, strict=True))
    if min(by_zero, by_gain) > _FITS * (len(known) - 1) or abs(by_zero - by_gain) < _CERTAIN:
        return None
    return ("gain", 1 + share) if by_gain < by_zero else ("offset", zero)
