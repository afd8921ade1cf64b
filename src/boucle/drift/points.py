"""Operating points: which one a second belongs to, and whether the machine has ever been there.

A point is a speed under a load. A speed can be read; a load shows in pressure and current, which move together. A move
to a point whose normal is known needs no more patience than the windows do; a point never seen (`new_regime`) is
learned first, and nothing that rests on levels is judged until then.
"""

import math

from boucle.drift.course import Course
from boucle.drift.evidence import SMOOTH, Evidence, weigh
from boucle.drift.heat import Heat, arrived
from boucle.drift.hypothesis import mesh_shift
from boucle.drift.reading import Reading, Reference, learn
from boucle.drift.shares import MESH, Shares, follow

__all__ = ["KNOWN_POINT", "MOST_POINTS", "NEW_REGIME", "learn_first", "locate", "watch_load"]

NEW_REGIME, KNOWN_POINT = "new_regime", "known_point"
MOST_POINTS = 24
"""Points that are remembered; the one not visited for longest is forgotten."""

_BY_LOAD = ("hydraulic_pressure", "motor_current")


def learn_first(course: Course, reading: Reading, baseline: int, calm: int, shares: Shares) -> None:
    """Take one second of a point that nothing can be compared with yet; after `baseline` of them it is known."""
    if not all(reading.count):
        return
    if abs(reading.speed - reading.setpoint) > 0.03 * reading.setpoint:
        course.learning = []
        return
    alike = [one for one in course.learning if not abs(one.setpoint - reading.setpoint) > 0.01 * one.setpoint]
    course.learning = [*alike, reading]
    if len(course.learning) < baseline:
        return
    before = course.points[course.point] if course.points else None
    made = learn(course.learning, load=course.load)
    if before is not None and _same_speed(before, made):
        course.shares = follow(shares, _moved(course, before))
    still = arrived([(one.slow[0], one.slow[1]) for one in course.learning], SMOOTH)
    _visit(course, made)
    course.steady = SMOOTH
    course.calm = calm if still and not course.relearning else 0
    course.relearning, course.regime = False, ""


def locate(course: Course, reading: Reading, baseline: int) -> None:
    """Find the point of this second; a new one is learned once the speed has settled."""
    if math.isnan(reading.speed) or math.isnan(reading.setpoint):
        course.steady = min(course.steady, SMOOTH - 1)
        return
    near = [
        index
        for index, point in enumerate(course.points)
        if point.load == course.load and _at(point, reading)
    ]
    if course.point in near:
        course.steady += 1
        course.learning = []
        if course.steady >= SMOOTH:
            course.regime = ""
        return
    if near:
        _visit(course, course.points[near[-1]])
        course.steady, course.calm, course.regime, course.heat = 1, 0, KNOWN_POINT, Heat()
        return
    if course.steady:
        course.onset = reading.at
    course.steady = course.calm = 0
    ordered = any(point.load == course.load and _ordered(point, reading) for point in course.points)
    course.regime = KNOWN_POINT if ordered else NEW_REGIME
    settled = abs(reading.speed - reading.setpoint) <= 0.02 * reading.setpoint
    course.learning = [*course.learning, reading] if settled and all(reading.count) else []
    if not course.learning:
        course.heat = Heat()
    if len(course.learning) >= baseline:
        standing = course.verdict is not None or any(item.held > 1 for item in course.pending)
        _visit(course, learn(course.learning, tainted=standing, load=course.load))
        course.steady, course.regime = SMOOTH, ""


def watch_load(course: Course, evidence: Evidence) -> bool:
    """Pressure and current moved together: another load. True when it was never seen, and has to be learned."""
    pressure, current = (evidence.slow[name] for name in _BY_LOAD)
    both = evidence.moved(_BY_LOAD[0]) and evidence.moved(_BY_LOAD[1])
    course.loaded = course.loaded + 1 if both and pressure * current > 0 else 0
    if course.loaded < SMOOTH or not course.steady or course.verdict is not None:
        return False
    course.onset, course.loaded, course.heat = course.history[-1].at, 0, Heat()
    course.unexplained, course.alone, course.pending = 0, "", []
    known = [
        point for point in course.points if point is not course.points[course.point] and _seen(course, point)
    ]
    if known:
        course.load = known[-1].load
        _visit(course, known[-1])
        course.steady, course.calm, course.regime = 1, 0, KNOWN_POINT
        return False
    course.load = 1 + max(point.load for point in course.points)
    course.learning, course.relearning, course.regime = [], True, NEW_REGIME
    return True


def _visit(course: Course, point: Reference) -> None:
    """Go on at this point; the last of the list is always the one visited last."""
    kept = [one for one in course.points if one is not point]
    course.points = [*kept[-(MOST_POINTS - 1) :], point]
    course.point, course.learning = len(course.points) - 1, []


def _moved(course: Course, before: Reference) -> dict[str, tuple[float, float]]:
    """How far the witnesses of the load moved from one normal to the next, each relative to what it was."""
    evidence = weigh(course.history, before)
    mesh, chance = mesh_shift(evidence)
    moved = {MESH: (mesh, chance)}
    for name in _BY_LOAD:
        level = evidence.slow_before[name]
        if level > 0:
            moved[name] = evidence.slow[name] / level, evidence.slow_chance[name] / level
    return moved


def _seen(course: Course, point: Reference) -> bool:
    """Whether this is where the machine runs now: the speed, and pressure and current both as they were there."""
    if point.tainted or not _at(point, course.history[-1]):
        return False
    evidence = weigh(course.history, point)
    return all(math.isfinite(evidence.slow[name]) and not evidence.moved(name) for name in _BY_LOAD)


def _same_speed(one: Reference, other: Reference) -> bool:
    return abs(one.speed - other.speed) <= 0.03 * one.speed


def _ordered(point: Reference, reading: Reading) -> bool:
    return abs(reading.setpoint - point.setpoint) <= 0.01 * point.setpoint


def _at(point: Reference, reading: Reading) -> bool:
    if math.isnan(point.speed):
        return True
    return _ordered(point, reading) and abs(reading.speed - point.speed) <= 0.03 * point.speed
