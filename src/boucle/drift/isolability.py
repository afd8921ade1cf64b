"""What the witnesses of a machine can tell apart: found from its own healthy seconds, before anything breaks.

A drift must be this big to be seen at all, and this big before another explanation is contradicted. In between the
verdict stays `unknown` or says nothing, and it should: no arithmetic replaces a missing witness.
"""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from boucle.drift.evidence import SMOOTH, chance_slow, least_slow
from boucle.drift.hypothesis import LEAST_GAIN
from boucle.drift.reading import SLOW, Reference
from boucle.drift.shares import MESH, UNKNOWN, Shares, margin
from boucle.drift.slow import CONTRADICTED

__all__ = ["Isolable", "isolability"]

_BY_LOAD = ("hydraulic_pressure", "motor_current")


class Isolable(Struct, frozen=True):
    """A drift of one sensor, in its own unit; `gain` as a share (0.1: ten percent)."""

    sensor: str
    cause: str
    seen_from: float
    told_from: float
    """Below it `confused_with` explains the same readings; infinite: always."""
    confused_with: tuple[str, ...]


def isolability(
    reference: Reference,
    axes: Sequence[str] = ("x", "y", "z"),
    prefix: str = "vib_",
    shares: Shares = UNKNOWN,
) -> list[Isolable]:
    """The table of a machine at one operating point, with what is known of its `shares` of the load."""
    found: list[Isolable] = []
    noise = np.maximum(np.array(reference.level_spread) / np.sqrt(SMOOTH), 0.012) * np.sqrt(1.5)
    for index, axis in enumerate(axes):
        # The common factor of eight bands is known better than any of them.
        gain = max(LEAST_GAIN, 5 * float(1 / np.sqrt((1 / noise[index] ** 2).sum())))
        zero = max(8 * reference.mean_spread[index], math.exp(max(reference.level[index])) / 6)
        found.append(Isolable(prefix + axis, "gain", gain, gain, ()))
        found.append(Isolable(prefix + axis, "offset", zero, zero, ()))
    known = [name for name, level in zip(SLOW, reference.slow, strict=True) if math.isfinite(level)]
    limits = least_slow(reference)
    for name in known:
        told, rivals = _told_from(name, known, reference, shares)
        found.append(
            Isolable(name, "offset", limits[name], max(limits[name], told), (f"{name} gain", *rivals))
        )
    return found


def _told_from(
    name: str, known: Sequence[str], reference: Reference, shares: Shares
) -> tuple[float, tuple[str, ...]]:
    """The drift from which the witnesses contradict, and what is confused with it below."""
    chance = chance_slow(reference)
    if name in ("bearing_temperature", "oil_temperature"):
        other = "oil_temperature" if name == "bearing_temperature" else "bearing_temperature"
        return (3 * chance[name] / CONTRADICTED if other in known else math.inf), ("hall temperature",)
    level = {one: reference.slow[SLOW.index(one)] * math.exp(shares[one][0]) for one in _BY_LOAD}
    witnesses = [
        chance[witness] / level[witness] * margin(shares, name, witness)
        for witness in _BY_LOAD
        if witness != name and witness in known
    ]
    mesh = np.array(reference.level_spread)[:, [4, 5]] / np.sqrt(SMOOTH)
    quietest = max(0.012, float(np.nanmin(mesh))) * math.sqrt(1.5)
    witnesses.append(quietest / math.exp(shares[MESH][0]) * margin(shares, name, MESH))
    unsure = 3 / math.sqrt(sum(1 / witness**2 for witness in witnesses))
    return unsure / (1 - CONTRADICTED) * level[name], ("load",)
