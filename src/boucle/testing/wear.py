"""How a fault of the machine grows, and how long the machine has left.

With d the severity (0 sound, 1 failed) and h operating hours:

    dd/dh = growth / LIFE · (n/n0)² · load³ · (1 + K·d)

- load³: ISO 281:2007, basic rating life L10 ∝ (C/P)³ revolutions for ball bearings (p = 3).
- (n/n0)²: one power because L10 is counted in revolutions, so hours ∝ 1/n; a second one because the
  dynamic part of the load P, the stroke's shock, rises with speed.
- (1 + K·d): a spalled race sheds more metal: growth accelerates once it has begun, as run-to-failure
  records show (Nectoux et al. 2012, PRONOSTIA; the exponential form is the usual simplification).

The law is linear in d, so it is integrated exactly over a step. LIFE is chosen for the demonstration.
A machine without a fault has `RATING_LIFE` hours; that a sound bearing wears too, so slowly that nothing
shows within days, is left out.
"""

import math

__all__ = ["ACCELERATION", "LIFE", "RATING_LIFE", "grow", "hours_left", "wear_rate"]

ACCELERATION = 3.0
"""K: a fault of severity 1 grows 1 + K times as fast as one that has just begun."""

LIFE = {"outer_race": 290.0, "inner_race": 290.0, "imbalance": 400.0, "lubrication": 260.0}
"""Operating hours over 1/(1 + K·d) of growth, at nominal speed and load."""

RATING_LIFE = 20_000.0
"""L10h of the sound bearing at nominal speed and load, operating hours."""


def wear_rate(relative_speed: float, load: float) -> float:
    """How fast a machine wears, 1 at nominal speed and load; 0 at standstill."""
    return relative_speed**2 * load**3


def grow(severity: float, kind: str, growth: float, hours: float, rate: float) -> float:
    """Severity after `hours` at a wear `rate`; it ends at 1."""
    exponent = ACCELERATION * growth / LIFE[kind] * hours * rate
    return min(1.0, ((1 + ACCELERATION * severity) * math.exp(exponent) - 1) / ACCELERATION)


def hours_left(severities: dict[str, tuple[float, float]], rate: float) -> float:
    """Operating hours until the first fault (kind → severity, growth) reaches 1, at this wear `rate`.

    A frozen fault (growth 0) is told with the life it would have if it grew: it is there to label
    training data. Infinite at standstill.
    """
    if rate <= 0:
        return math.inf
    left = RATING_LIFE / rate
    for kind, (severity, growth) in severities.items():
        if severity > 0:
            pace = ACCELERATION * (growth or 1.0) / LIFE[kind] * rate
            left = min(left, math.log((1 + ACCELERATION) / (1 + ACCELERATION * severity)) / pace)
    return left
