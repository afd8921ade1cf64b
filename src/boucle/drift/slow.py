"""Temperature, pressure and current: which of them is an instrument that lies, and which one tells the truth.

No slow value moves alone on a sound or a worn press; each has witnesses that have to follow it:

    what happens     bearing °C   oil °C      pressure   current   gear mesh   other bands
    load changes     follows      -           moves      moves     moves       stroke
    warmer hall      moves        moves       -          -         -           -
    friction         moves        a third     -          moves     -           resonance or lines
    instrument       one of the four moves, and its witnesses contradict it

So a value is called a drifting instrument only when a witness *contradicts* the explanation by the machine: not when
the witness is merely too coarse to say. What is too small for any witness stays unsaid. Noise, standstill and missing
readings are seen within the second and need no witness.

How pressure, current and gear mesh follow the load is learned (`boucle.drift.shares`); the verdict uses that they agree
within a factor of two, and within the factor by which what was learned may be off.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from msgspec import Struct

from boucle.drift.evidence import Evidence
from boucle.drift.fleet import ALIKE, ALONE
from boucle.drift.hypothesis import Hypothesis, mesh_shift
from boucle.drift.reading import SLOW
from boucle.drift.shares import MESH, UNKNOWN, Shares, margin

__all__ = ["CONTRADICTED", "Account", "account"]

_ROUGH = 3.0
"""Times the noise of the reference; the middle of six quartiles scatters by a fifth."""
_UNHEARD = 0.05
CONTRADICTED = 0.45
"""A witness contradicts when what it says lies further away than this share of what is claimed."""


class Account(Struct, frozen=True):
    """What the slow values say: instruments that drift, and what moved for a reason that is no fault."""

    found: list[Hypothesis]
    explained: frozenset[str]
    """Values that moved as load or hall explain it, or by too little for their witnesses."""
    hall: bool = False
    """Both temperatures follow the hall."""
    common: frozenset[str] = frozenset()
    """Values that moved on the machines beside this one as well."""


def account(
    evidence: Evidence,
    *,
    comparable: bool,
    warm: bool,
    shares: Shares = UNKNOWN,
    fleet: Mapping[str, str] | None = None,
) -> Account:
    """Hold every slow value against its witnesses.

    `comparable`: the operating point is one whose normal is known. `warm`: the temperatures have followed it.
    `shares`: what is known of how pressure, current and gear mesh follow the load. `fleet`: which values moved on
    identical machines as well, and which on this one alone (`boucle.drift.fleet`).
    """
    found = [*_faulty_within(evidence)]
    moved = {name for name in SLOW if evidence.moved(name)}
    if not comparable or not moved:
        return Account(found, frozenset())
    broken = {hypothesis.sensor for hypothesis in found}
    if worn(evidence):
        return Account(found, frozenset(moved))
    drifted, explained = _by_load(evidence, moved, shares)
    hall = False
    if warm and not explained:  # a load that changed heats the bearing too
        by_heat, calm, hall = _by_heat(evidence, moved, fleet or {})
        drifted, explained = drifted + by_heat, explained | calm
    else:
        explained |= moved & {"bearing_temperature", "oil_temperature"}
    common = frozenset(one.sensor for one in drifted if (fleet or {}).get(one.sensor) == ALIKE)
    found += [one for one in drifted if one.sensor not in broken | common]
    return Account(found, frozenset(explained | broken | common), hall, common)


def worn(e: Evidence) -> bool:
    """Whether the vibration begins to show friction or a worn race on more than one axis: then heat is no surprise."""
    two = min(2, len(e.shift))
    lines = np.sort(np.nan_to_num(e.lines, nan=0.0), axis=0)[-two]
    before = np.sort(np.nan_to_num(e.lines_before, nan=1.0), axis=0)[-two]
    rises = e.shift[:, 6] > np.maximum(4 * e.noise[:, 6], 0.06)
    return bool((lines > np.maximum(2.5, 1.5 * before)).any() or rises.sum() >= two)


def _faulty_within(e: Evidence) -> Iterator[Hypothesis]:
    """What shows within a second: a value that stands still, is noisy, or does not always come."""
    silent = [name for name in SLOW if e.unheard[name] >= _UNHEARD]
    for name in SLOW:
        if e.rough[name] == 0:
            yield Hypothesis("sensor", "stuck", None, 3.0, 0.0, sensor=name)
        elif math.isfinite(e.rough[name]) and e.rough[name] > _ROUGH:
            yield Hypothesis("sensor", "noise", None, e.rough[name] / _ROUGH, e.rough[name], sensor=name)
        if name in silent and len(silent) < len(SLOW):  # all at once: the PLC is silent, not a sensor
            yield Hypothesis(
                "sensor", "dropout", None, e.unheard[name] / _UNHEARD, e.unheard[name], sensor=name
            )


def _by_load(e: Evidence, moved: set[str], shares: Shares) -> tuple[list[Hypothesis], set[str]]:
    """Pressure and current against each other and against the gear mesh: do they tell of the same load?"""
    says = _loads(e, shares)
    found: list[Hypothesis] = []
    explained: set[str] = set()
    for name in ("hydraulic_pressure", "motor_current"):
        if name not in moved:
            continue
        load = says[name][0]
        others = [
            (told, chance, margin(shares, name, witness))
            for witness, (told, chance) in says.items()
            if witness != name and math.isfinite(told)
        ]
        agree = any(
            told * load > 0 and doubt * (abs(told) - 3 * chance) > CONTRADICTED * abs(load)
            for told, chance, doubt in others
        )
        # What the witnesses say in favour of the load, as far as their shares are in doubt.
        weights = [1 / (chance * doubt) ** 2 for _, chance, doubt in others]
        best = [
            math.copysign(min(max(abs(load), abs(told) / doubt), abs(told) * doubt), told)
            for told, _, doubt in others
        ]
        told = sum(weight * said for weight, said in zip(weights, best, strict=True)) / max(
            sum(weights), 1e-12
        )
        unsure = 3 / math.sqrt(max(sum(weights), 1e-12))
        if not agree and abs(load - told) - unsure > CONTRADICTED * abs(load):
            found.append(_drift(e, name, moved))
        else:
            explained.add(name)
    return found, explained


def _loads(e: Evidence, shares: Shares) -> dict[str, tuple[float, float]]:
    """Channel → the relative change of load it tells of, and the standard deviation of that."""
    mesh, chance = mesh_shift(e)
    share = math.exp(shares[MESH][0])
    says = {MESH: (mesh / share, chance / share)}
    for name in ("hydraulic_pressure", "motor_current"):
        whole = e.slow_before[name] * math.exp(shares[name][0])
        says[name] = (e.slow[name] / whole, e.slow_chance[name] / whole)
    return says


def _by_heat(
    e: Evidence, moved: set[str], fleet: Mapping[str, str]
) -> tuple[list[Hypothesis], set[str], bool]:
    """The temperatures against each other and against the current, which friction raises first."""
    bearing, oil, current = (
        e.slow[name] for name in ("bearing_temperature", "oil_temperature", "motor_current")
    )
    names = {"bearing_temperature": (bearing, oil), "oil_temperature": (oil, bearing)}
    found, explained = [], set()
    hall = False
    for name, (own, other) in names.items():
        if name not in moved:
            continue
        contradicted = abs(other) + 3 * e.slow_chance[name] < CONTRADICTED * abs(own) or own * other < 0
        friction = name == "bearing_temperature" and own > 0 and current > 0.15 * own
        if fleet.get(name) == ALONE and not evidently(e, "motor_current") and not friction:
            # It is not the hall. Without the other thermometer it is this one; both alike may be many things.
            if contradicted or not math.isfinite(other):
                found.append(_drift(e, name, moved))
            continue
        if fleet.get(name) == ALIKE or not math.isfinite(other) or friction or not contradicted:
            explained.add(name)
        else:
            found.append(_drift(e, name, moved))
        follows = own * other > 0 or fleet.get(name) == ALIKE
        hall |= name in explained and follows and not evidently(e, "motor_current")
    return found, explained, hall


def evidently(e: Evidence, name: str) -> bool:
    """Whether a value that can be measured moved."""
    return math.isfinite(e.slow[name]) and e.moved(name)


def _drift(e: Evidence, name: str, moved: set[str]) -> Hypothesis:
    """An instrument that drifts; at one operating point nobody can tell its zero from its gain."""
    rivals = {"hydraulic_pressure": "motor_current", "motor_current": "hydraulic_pressure"}
    rival = rivals.get(name, "")
    candidates = (name, rival) if rival in moved else ()
    strength = abs(e.slow[name]) / e.slow_limit[name]
    return Hypothesis(
        "sensor",
        "offset",
        None,
        strength,
        e.slow[name],
        sensor=name,
        candidates=candidates,
        either=True,
        needs_operation=True,
    )
