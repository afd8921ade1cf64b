"""How sure a verdict is: the share of causes that were right among those that had fitted for so long and so strongly.

A logistic curve per family over ln of the seconds held and ln of the strength, fitted to the tuning episodes of the
bench with one fault in ten of a kind that no rule knows (Platt 1999; `bench/attribution/calibrate.py` has it).
A verdict that an hour has not contradicted is no surer than one that a minute has not: both stop counting early.
"""

import math

from boucle.drift.hypothesis import Hypothesis

__all__ = ["confidence"]

_CURVES = {
    "machine": (0.14, 2.11, 7.62),
    "sensor": (0.28, 1.19, 1.39),
}
"""Family → constant, weight of ln of the seconds held, weight of ln of the strength."""
_LONGEST, _STRONGEST = 30, 20.0
_MOST = 0.99


def confidence(cause: Hypothesis, held: int) -> float:
    """0-0.99."""
    constant, by_time, by_strength = _CURVES[cause.family]
    logit = constant + by_time * math.log(min(held, _LONGEST))
    logit += by_strength * math.log(min(max(cause.strength, 1.0), _STRONGEST))
    return min(_MOST, 1 / (1 + math.exp(-logit)))
