"""What identical machines beside this one say: what moves on all of them alike comes from outside.

Machines of one kind in one hall, on one supply, are each other's witnesses (peer comparison; Lapira & Lee 2012 call it
fleet-based): a hall that warms moves every thermometer, a mains that sags every current, and no bearing wears on all of
them in the same minute. What moves on one machine alone is that machine, or its instrument.
"""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from boucle.clock import SECOND, Nanos
from boucle.drift.evidence import Evidence
from boucle.drift.heat import HEAT

__all__ = ["ALIKE", "ALONE", "Shown", "beside", "shown"]

ALIKE, ALONE = "alike", "alone"
_FRESH = 5 * SECOND
_STILL = 0.25
"""A peer that moved by less than this share of what moved here stands still."""
_ALIKE = (0.5, 2.0)


class Shown(Struct, frozen=True):
    """How far the slow values of one machine stand from its normal, for its peers to see."""

    at: Nanos
    moved: dict[str, float]
    """°C for temperatures, the share of its level for the others."""


def shown(evidence: Evidence, at: Nanos, names: Sequence[str], adopted: Mapping[str, float]) -> Shown:
    """What a machine shows of `names`; `adopted` is what moved from outside lately and counts as its normal since."""
    moved = {name: _share(evidence, name) + adopted.get(name, 0.0) for name in names}
    return Shown(at, {name: by for name, by in moved.items() if math.isfinite(by)})


def beside(evidence: Evidence, at: Nanos, peers: Sequence[Shown]) -> dict[str, str]:
    """Slow value that moved here → whether half of the peers moved alike, or none did and most stand still."""
    told = {}
    for name in evidence.slow:
        if not evidence.moved(name):
            continue
        own = _share(evidence, name)
        others = [
            peer.moved[name] / own for peer in peers if abs(at - peer.at) <= _FRESH and name in peer.moved
        ]
        alike = sum(_ALIKE[0] <= other <= _ALIKE[1] for other in others)
        still = sum(abs(other) < _STILL for other in others)
        if alike and 2 * alike >= len(others):
            told[name] = ALIKE
        elif still and not alike and 2 * still > len(others):
            told[name] = ALONE
    return told


def _share(evidence: Evidence, name: str) -> float:
    if name in HEAT:
        return evidence.slow[name]
    level = evidence.slow_before[name]
    return evidence.slow[name] / level if level else math.nan
