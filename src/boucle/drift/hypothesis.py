"""What could explain the evidence: one rule per cause, each asking the witnesses that tell it from others.

A fault of the machine shakes the whole housing, so every axis feels it; a fault of a sensor is felt by
that sensor only, or, when the whole accelerometer is at fault, in a way no machine does (every
frequency by the same factor). So each rule has a shape, and witnesses that must *not* have moved.

    cause         what moves                                     what must stand still
    outer_race    its envelope line on two axes or more          -
    inner_race    its envelope line on two axes or more          -
    imbalance     1 × shaft band, two axes or more               their gear and resonance bands
    lubrication   resonance band, two axes; current or heat      envelope lines
    gain          all bands of one axis by one factor            another axis
    offset        the mean                                       the bands
    noise         each band of one axis by what its width holds  the other axes
    loose         high bands of one axis fall, or its mesh swells  its shaft bands, the other axes
    stuck         nothing any more                               -
    dropout       samples are missing                            -
    clock         steadily too many or too few samples           -

`strength` is 1 where a rule begins to hold. Bands by frequency: 0 holds 1 × shaft, 1 its harmonics,
3-5 the gear mesh (by speed), 6 the housing's resonance, 7 only the floor.
"""

from collections.abc import Iterator

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from boucle.drift.evidence import Evidence
from boucle.drift.kernels import alone

__all__ = ["LEAST_GAIN", "Hypothesis", "hypotheses", "mesh_band", "mesh_shift"]

Wide = NDArray[np.float64]

_SHAFT, _HARMONICS, _MESH, _RESONANCE, _FLOOR = 0, 1, (3, 4, 5), 6, 7
_WIDTH = np.diff([10.0, 27.0, 80.0, 300.0, 600.0, 1000.0, 2000.0, 3600.0, 4500.0])
"""Hz; the default bands of `boucle.edge.Reduce`."""
LEAST_GAIN = 0.10
_LEAST_SHIFT = 0.15
_LEAST_LINE = 4.0
"""Times the envelope's noise floor."""
_STILL = 0.25
"""A witness that moves less than this share of the suspect stands still."""


class Hypothesis(Struct, frozen=True):
    """A cause that fits. `axis` is the index of the suspect axis; None for the machine or all axes."""

    family: str
    cause: str
    axis: int | None
    strength: float
    size: float
    """How big, in the cause's own unit: factor, g, share, ppm, line ratio."""
    sensor: str = ""
    """The slow value that is suspected, when no axis is."""
    candidates: tuple[str, ...] = ()
    """Sensors that cannot be told from the suspect by the witnesses at hand; empty: no other."""
    either: bool = False
    """Whether it may as well be the gain as the zero: the machine has not shown two levels since."""
    needs_operation: bool = False
    """Rests on shifts of level, which only mean something at a known operating point."""


def hypotheses(evidence: Evidence) -> list[Hypothesis]:
    """The causes that fit, strongest witness first; empty when nothing has moved."""
    found = [*_races(evidence)]
    for rule in (_stuck, _dropout, _clock, _offset):
        found += rule(evidence)
    if not (np.abs(evidence.shift) >= LEAST_GAIN).any():
        return found  # every rule below asks for at least this shift somewhere
    dead = evidence.level < 1e-3
    if dead.any():  # an axis that is stuck is no witness of any level
        evidence = structs.replace(evidence, shift=np.where(dead[:, None], np.nan, evidence.shift))
    worn = any(hypothesis.family == "machine" for hypothesis in found)
    shapes = () if worn else (_gain, _imbalance, _lubrication, _noise, _loose, _floor)
    for shape in shapes:
        if shown := list(shape(evidence)):
            return found + shown
    return found


def _races(e: Evidence) -> Iterator[Hypothesis]:
    if not (e.lines >= _LEAST_LINE).any():
        return
    for index, cause in enumerate(("outer_race", "inner_race")):
        lines = e.lines[:, index]
        known = np.flatnonzero(np.isfinite(lines) & (e.level > 0.01))
        if not len(known):
            continue
        # The second strongest axis: what only one of several sensors says is not the machine.
        second = known[np.argsort(lines[known])[-min(2, len(known))]]
        # Twice the line of the reference, but a bearing that was worn from the start is told as well.
        limit = float(np.fmax(_LEAST_LINE, np.fmin(2 * e.lines_before[second, index], 6.0)))
        strength = min(lines[second] / limit, lines[second] / (1.5 * e.lines[second, 1 - index]))
        if strength >= 1:
            yield Hypothesis("machine", cause, None, float(strength), float(lines[second]))


def _axes(cause: str, fits: NDArray[np.bool_], strength: Wide, size: Wide) -> list[Hypothesis]:
    """One axis fits → that axis; all fit → the whole accelerometer; two → both are told."""
    if not fits.any():
        return []
    which = np.flatnonzero(fits)
    if len(which) == len(fits) and len(fits) > 1:
        worst = int(np.argmin(strength))
        return [Hypothesis("sensor", cause, None, float(strength[worst]), float(size[worst]))]
    return [Hypothesis("sensor", cause, int(i), float(strength[i]), float(size[i])) for i in which]


def _stuck(e: Evidence) -> list[Hypothesis]:
    fits = e.level < 1e-3
    return _axes("stuck", fits, np.where(fits, 3.0, 0.0), np.zeros_like(e.level))


def _dropout(e: Evidence) -> list[Hypothesis]:
    strength = e.missing / 0.025
    return _axes("dropout", (strength >= 1) & (e.gaps >= 2), strength, e.missing)


def _clock(e: Evidence) -> list[Hypothesis]:
    strength = np.abs(e.skew) / 8e-5
    return _axes("clock", strength >= 1, strength, 1e6 * e.skew)


def _offset(e: Evidence) -> list[Hypothesis]:
    strength = np.abs(e.mean) / e.mean_limit
    if not (strength >= 1).any():
        return []
    bands_still = np.abs(_weighted(e)[0]) < LEAST_GAIN
    return _axes("offset", (strength >= 1) & bands_still, strength, e.mean)


def _weighted(e: Evidence) -> tuple[Wide, Wide]:
    """The one shift per axis that fits its bands best, and how badly the bands agree with it (r.m.s.)."""
    weight = 1 / e.noise**2
    weight /= weight.sum(axis=1, keepdims=True)
    common = (weight * e.shift).sum(axis=1)
    # Bands that are noisy by nature (the stroke's) may differ by what chance explains.
    excess = np.maximum(0, np.abs(e.shift - common[:, None]) - 2 * e.noise)
    return common, np.sqrt((excess**2).mean(axis=1))


def _alone(e: Evidence) -> int | None:
    """The one axis that moved while the others stood still, in the bands where it moved."""
    suspect = alone(e.shift, e.noise, LEAST_GAIN, _STILL)
    return None if suspect < 0 else int(suspect)


def _gain(e: Evidence) -> list[Hypothesis]:
    common, misfit = _weighted(e)
    fits = (np.abs(common) > LEAST_GAIN) & (misfit < np.maximum(0.05, 0.2 * np.abs(common)))
    strength = np.abs(common) / LEAST_GAIN
    factor = np.exp(common)
    if fits.all() and np.ptp(common) < 0.25 * np.abs(common).max() and not _heat_or_current(e):
        worst = int(np.argmin(strength))
        return [
            Hypothesis(
                "sensor", "gain", None, float(strength[worst]), float(factor[worst]), needs_operation=True
            )
        ]
    # No machine moves every band of one axis by one factor and leaves another axis where it was.
    still = _still(e)
    suspect = _alone(e)
    chosen = (
        np.flatnonzero(fits)
        if still.any()
        else np.array([suspect] if suspect is not None and fits[suspect] else [])
    )
    return [
        Hypothesis("sensor", "gain", int(i), float(strength[i]), float(factor[i]), needs_operation=True)
        for i in chosen
    ]


def _still(e: Evidence) -> NDArray[np.bool_]:
    """The axes of which no band moved."""
    still: NDArray[np.bool_] = (np.abs(e.shift) <= np.maximum(4 * e.noise, 0.06)).all(axis=1)
    return still


def _second(values: Wide) -> float:
    """The second largest that is known: what two axes say, or the only one there is; 0 when fewer do.

    An axis whose sensor lies beside a fault of the machine does not hide it.
    """
    known = np.sort(values[np.isfinite(values)])
    enough = min(2, len(values))
    return float(known[-enough]) if len(known) >= enough else 0.0


def _imbalance(e: Evidence) -> list[Hypothesis]:
    shaft, others = e.shift[:, _SHAFT], np.abs(e.shift[:, [*_MESH, _RESONANCE, _FLOOR]]).max(axis=1)
    least = _second(np.where(others < _STILL * shaft, shaft, np.nan))
    if not least > _LEAST_SHIFT:
        return []
    strength, size = least / _LEAST_SHIFT, float(np.exp(least))
    return [Hypothesis("machine", "imbalance", None, strength, size, needs_operation=True)]


def _heat_or_current(e: Evidence) -> bool:
    return e.moved("motor_current") or e.moved("bearing_temperature")


def _lubrication(e: Evidence) -> list[Hypothesis]:
    least = _second(e.shift[:, _RESONANCE])
    hotter = e.slow["motor_current"] > e.slow_limit["motor_current"]
    hotter = hotter or e.slow["bearing_temperature"] > e.slow_limit["bearing_temperature"]
    if not (least > _LEAST_SHIFT and hotter):
        return []
    strength, size = least / _LEAST_SHIFT, float(np.exp(least))
    return [Hypothesis("machine", "lubrication", None, strength, size, needs_operation=True)]


def _suspects(e: Evidence, fits: NDArray[np.bool_]) -> list[int | None]:
    """All axes at once (None), or the one that moved alone."""
    if fits.all() and not _heat_or_current(e):
        return [None]
    suspect = _alone(e)
    return [suspect] if suspect is not None and fits[suspect] else []


def _shape(
    e: Evidence, cause: str, fits: NDArray[np.bool_], strength: Wide, size: Wide
) -> Iterator[Hypothesis]:
    for suspect in _suspects(e, fits):
        index = int(np.argmin(strength)) if suspect is None else suspect
        yield Hypothesis(
            "sensor", cause, suspect, float(strength[index]), float(size[index]), needs_operation=True
        )


def _loose(e: Evidence) -> Iterator[Hypothesis]:
    """Above the mounting's resonance the sensor no longer follows; machines never get quieter there.

    When the gear mesh lies near that resonance it is amplified instead, and the mounting rattles above it, where no
    machine reaches. One axis shows it alone, or the whole accelerometer while neither current nor heat moved.
    """
    high = e.shift[:, [5, _RESONANCE, _FLOOR]].copy()
    # A line of the gear mesh that crossed from band 5 into band 4, as the speed wandered, did not fall.
    high[:, 0] = np.maximum(high[:, 0], _together(e, 4, 6))
    falls = np.max(np.minimum(-high / LEAST_GAIN, -high / (4 * e.noise[:, [5, _RESONANCE, _FLOOR]])), axis=1)
    shaft_still = np.abs(e.shift[:, _SHAFT]) < _STILL * np.abs(e.shift).max(axis=1)
    fell = (falls >= 1) & shaft_still
    if fell.all() and not (np.abs(e.shift[:, _FLOOR]) >= LEAST_GAIN).all():
        # A housing that rings lower than it did: the floor, where no machine reaches, says that it is not the mounting.
        fell = fell & (np.abs(e.shift[:, _FLOOR]) >= LEAST_GAIN)
    if fell.any():
        return _shape(e, "loose", fell, falls, np.exp(high.min(axis=1)))
    amplified = _mesh(e) / _LEAST_SHIFT
    fits = (amplified >= 1) & shaft_still & (e.shift[:, _FLOOR] > LEAST_GAIN)
    return _shape(e, "loose", fits, amplified, np.exp(_mesh(e)))


def _together(e: Evidence, first: int, last: int) -> Wide:
    """The shift per axis of some neighbouring bands taken as one."""
    before = np.exp(2 * e.before[:, first:last])
    now = before * np.exp(2 * e.shift[:, first:last])
    shift: Wide = 0.5 * np.log(now.sum(axis=1) / before.sum(axis=1))
    return shift


def _noise(e: Evidence) -> Iterator[Hypothesis]:
    """White noise adds to every band what its width holds: the floor band says how much, the others have to agree."""
    energy = np.exp(2 * e.before)
    added = (
        np.maximum(np.exp(2 * e.shift[:, [_FLOOR]]) - 1, 0) * energy[:, [_FLOOR]] * _WIDTH / _WIDTH[_FLOOR]
    )
    expected = 0.5 * np.log1p(added / energy)
    with np.errstate(invalid="ignore"):
        excess = np.maximum(0, np.abs(e.shift - expected) - 3 * e.noise)
    strength = e.shift[:, _FLOOR] / _LEAST_SHIFT
    fits = (strength >= 1) & (excess.max(axis=1) < np.maximum(0.06, 0.1 * e.shift[:, _FLOOR]))
    size = np.exp(e.shift[:, _FLOOR])
    if fits.sum() > 1 and _still(e).any():  # what is white on two axes and absent on a third is two faults
        return (
            Hypothesis("sensor", "noise", int(i), float(strength[i]), float(size[i]), needs_operation=True)
            for i in np.flatnonzero(fits)
        )
    return _shape(e, "noise", fits, strength, size)


def _floor(e: Evidence) -> Iterator[Hypothesis]:
    """Noise that is not white: it lifts what is quiet and leaves what is loud; a resonance lifts its own band most."""
    floor, resonance = e.shift[:, _FLOOR], e.shift[:, _RESONANCE]
    strength = floor / _LEAST_SHIFT
    flat = np.abs(resonance - floor) < 0.25 * np.maximum(floor, resonance)
    loud_still = (_mesh(e) < _LEAST_SHIFT) & (np.min(e.shift, axis=1) > -_LEAST_SHIFT)
    return _shape(e, "noise", (strength >= 1) & flat & loud_still, strength, np.exp(floor))


def mesh_band(e: Evidence) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Per axis the band that holds most of the gear mesh at this speed, as an index into the shifts."""
    loudest = np.argmax(e.before[:, list(_MESH)], axis=1)
    return np.arange(len(loudest)), np.array(_MESH)[loudest]


def _mesh(e: Evidence) -> Wide:
    """How far the gear mesh moved."""
    moved: Wide = np.abs(e.shift[mesh_band(e)])
    return moved


def mesh_shift(e: Evidence) -> tuple[float, float]:
    """How far the gear mesh moved on the middle axis, and its standard deviation; one lying axis changes nothing."""
    band = mesh_band(e)
    moved = e.shift[band]
    known = np.isfinite(moved)
    if not known.any():
        return float("nan"), float("nan")
    return float(np.median(moved[known])), float(np.median(e.noise[band][known]))
