"""How pressure, current and gear mesh follow the load: learned from the machine, as its load is changed.

Nobody measures the load of a press. It shows in three channels at once, each by a share of its own: `share` times the
relative change of the load is the relative change of the channel (the change of ln amplitude of the gear mesh). So a
channel can be held against the others: a model of each from the others, with one hidden cause (Dunia & Qin 1998 call
it the principal direction of normal operation).

Before the load has ever changed, nothing but its order of magnitude is known, and a witness contradicts only what no
plausible share explains. Every change that pressure and current agree on teaches: logarithms of the shares, each with
its variance, are corrected recursively (a Kalman filter without motion, which is recursive least squares). Only their
ratios matter, and only changes teach them: a thousand seconds at one load hold nothing but noise.
"""

import math
from collections.abc import Mapping

__all__ = ["MESH", "UNKNOWN", "Shares", "declared", "follow", "margin"]

MESH = "mesh"
UNKNOWN = {
    "hydraulic_pressure": (math.log(0.5), 0.1),
    "motor_current": (math.log(0.5), 0.1),
    MESH: (math.log(0.5), 0.1),
}
"""Channel → ln of its share and the variance of that. Two shares of an unknown machine lie within a factor of 2.4 of
each other, at two standard deviations: between no-load losses of a half and none."""

_LEAST = 0.05**2
"""No share is known better: channels follow the load along curves."""
_BLIND = 1.0
"""Variance of what a channel says that did not move: less than its noise, and how much less nobody knows."""

Shares = Mapping[str, tuple[float, float]]


def declared(shares: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Shares that somebody knows: taken at their word."""
    return {name: (math.log(share), 0.0) for name, share in shares.items()}


def margin(shares: Shares, one: str, other: str) -> float:
    """The factor by which the ratio of two shares may be off; 1 where it is known exactly."""
    return math.exp(2 * math.sqrt(shares[one][1] + shares[other][1]))


def follow(shares: Shares, moved: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The shares after the load changed; unchanged where what moved is no change of load.

    `moved`: channel → relative change and its standard deviation; only those that are known.
    """
    known = {name: told for name, told in moved.items() if name in shares and math.isfinite(told[0])}
    up = sum(change / chance for change, chance in known.values()) > 0
    seen: dict[str, tuple[float, float]] = {}
    for name, (change, chance) in known.items():
        towards = change if up else -change
        if towards < -3 * chance:
            return dict(shares)  # against the others: no load does that
        if towards > 3 * chance:
            seen[name] = math.log(towards), (chance / towards) ** 2 + _LEAST
        else:
            seen[name] = math.log(chance), _BLIND
    weights = {name: 1 / (shares[name][1] + variance) for name, (_, variance) in seen.items()}
    if len(weights) < 2:
        return dict(shares)
    load = sum(weights[name] * (said - shares[name][0]) for name, (said, _) in seen.items()) / sum(
        weights.values()
    )
    learned = dict(shares)
    for name, (said, variance) in seen.items():
        share, doubt = shares[name]
        if not doubt:
            continue
        gain = doubt / (doubt + variance)
        learned[name] = share + gain * (said - load - share), max(_LEAST, (1 - gain) * doubt)
    return learned
