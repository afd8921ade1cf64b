"""Evaluation zones of vibration severity (ISO 20816-3) from velocity in mm/s r.m.s., 10-1000 Hz.

A: as new · B: fit for unrestricted long-term running · C: unfit for long-term running · D: damaging.
The limits depend on the machine's group and support; the default is group 2 (15-300 kW) on a rigid
support, 1.4 / 2.8 / 4.5 mm/s. They suit motor and flywheel bearings, not the shock of the stroke itself.
"""

import bisect
from collections.abc import Sequence

from boucle.errors import BoucleError

__all__ = ["GROUP_2_RIGID", "check_zones", "zone"]

GROUP_2_RIGID = (1.4, 2.8, 4.5)
"""Limits A/B, B/C and C/D, mm/s r.m.s."""


def zone(velocity: float, limits: Sequence[float] = GROUP_2_RIGID) -> str:
    """The zone of a velocity; a value on a limit belongs to the better zone.

    >>> zone(1.4), zone(2.0), zone(5.0)
    ('A', 'B', 'D')
    """
    return "ABCD"[bisect.bisect_left(limits, velocity)]


def check_zones(limits: Sequence[float]) -> tuple[float, ...]:
    """The three limits, or B220 when they are not three rising positive numbers."""
    given = tuple(float(limit) for limit in limits)
    if len(given) != 3 or not 0 < given[0] < given[1] < given[2]:
        raise BoucleError(
            "B220",
            f"zones: {list(limits)} are not the limits A/B, B/C, C/D",
            fix="give three rising velocities in mm/s, for example [1.4, 2.8, 4.5]",
        )
    return given
