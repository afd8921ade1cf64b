"""From evidence to a verdict that waits: nothing is said until the same cause has held for a while.

At the moment an alarm is raised, a wear that one axis feels before the others looks exactly like a
fault of that axis's sensor. So a cause must fit `hold` seconds in a row before it becomes the verdict,
and must have been gone for `clear` seconds before it is dropped.
"""

import math

import msgspec
from msgspec import Struct

from boucle.clock import Nanos
from boucle.drift.evidence import SMOOTH, Evidence, weigh
from boucle.drift.hypothesis import Hypothesis, hypotheses
from boucle.drift.reading import SLOW, Reading, Reference, learn
from boucle.drift.slow import LOAD, Account, account

__all__ = ["Course", "Judge", "Standing"]

_MEMORY = 12
"""Seconds remembered; dropouts and clocks need more than the levels do."""
_UNKNOWN_AFTER = 3
"""Times `hold`: how long something unexplained must last before it is called unknown."""

_HEAT = ("bearing_temperature", "oil_temperature")

_Key = tuple[str, str, int | None, str]


class Standing(Struct):
    """A cause that fits, since when and for how many seconds; `gone` seconds it no longer did."""

    hypothesis: Hypothesis
    onset: Nanos
    held: int = 1
    gone: int = 0


class Course(Struct):
    """What is remembered of one machine."""

    history: list[Reading]
    learning: list[Reading]
    points: list[Reference]
    """Operating points whose normal is known."""
    point: int = -1
    steady: int = 0
    """Seconds in a row at this point."""
    pending: list[Standing] = []
    verdict: Standing | None = None
    unexplained: int = 0
    alone: str = ""
    """The slow value that moved while no other witness did."""
    onset: Nanos = 0
    """When the present family began, where no Standing says it."""
    loaded: int = 0
    """Seconds in a row with pressure and current both off: another load."""
    calm: int = 0
    """Seconds since the operating point last moved; temperatures follow it slowly."""
    hall: int = 0
    """Seconds in a row in which both temperatures moved and nothing else did."""
    calibrated: dict[str, Nanos] = {}
    """Sensor → when it was calibrated last, as far as anybody told."""
    relearning: bool = False
    """A first reference is learned again, because the load was changed."""


class Judge(Struct, frozen=True):
    """The rules of patience; all durations in seconds (rows)."""

    baseline: int
    hold: int
    clear: int
    thermal: int
    """How long temperatures take to follow a new operating point."""
    shares: dict[str, float] = msgspec.field(default_factory=lambda: dict(LOAD))
    """What of pressure, current and gear mesh goes with the load."""

    def hear(self, course: Course, reading: Reading) -> Evidence | None:
        """Take one second; None while a first reference is being learned."""
        course.history = [*course.history[-(_MEMORY - 1) :], reading]
        if not course.points:
            self._learn_first(course, reading)
            return None
        self._locate(course, reading)
        evidence = weigh(course.history, course.points[course.point])
        self._watch_load(course, evidence)
        if course.relearning:
            return None
        self._watch_heat(course, evidence)
        comparable = course.steady >= SMOOTH and not course.points[course.point].tainted
        blind = math.isnan(reading.speed)
        found = [
            h
            for h in hypotheses(evidence)
            # Without a speed, one axis can still be held against the others.
            if comparable or not h.needs_operation or (blind and h.axis is not None)
        ]
        warm = course.calm > self.thermal
        told = account(evidence, comparable=comparable, warm=warm, shares=self.shares)
        found += told.found
        self._wait(course, found, reading.at)
        self._settle(course, comparable)
        self._follow_hall(course, evidence, told)
        self._unexplained(course, evidence, told, comparable and not found, reading.at)
        return evidence

    def confidence(self, standing: Standing) -> float:
        """0.5-0.99: grows with the strength of the evidence and the time it has held."""
        weight = standing.held / self.hold * min(standing.hypothesis.strength, 4.0)
        return min(0.99, 1 - 0.5 * math.exp(-weight / 1.3))

    def follows_hall(self, course: Course) -> bool:
        """Whether the temperatures are just following the hall."""
        return course.hall >= self.hold

    def calibrated(self, course: Course, sensor: str, at: Nanos) -> None:
        """A sensor was calibrated: what was learned with it as it was says nothing of it as it is."""
        course.calibrated = {**course.calibrated, sensor: at}
        standing = course.verdict
        if standing is not None and standing.hypothesis.family == "machine":
            return
        course.verdict, course.pending, course.unexplained, course.alone = None, [], 0, ""
        course.points, course.learning, course.relearning, course.onset = [], [], True, at

    def family(self, course: Course) -> str:
        """none, machine, sensor, operation or unknown."""
        if course.verdict is not None:
            return course.verdict.hypothesis.family
        if course.relearning or (course.points and course.steady == 0) or self.follows_hall(course):
            return "operation"
        return "unknown" if course.unexplained >= _UNKNOWN_AFTER * self.hold else "none"

    def _learn_first(self, course: Course, reading: Reading) -> None:
        if all(reading.count):
            course.learning.append(reading)
        if len(course.learning) >= self.baseline:
            course.points = [learn(course.learning)]
            course.point, course.steady, course.learning = 0, SMOOTH, []
            course.calm = 0 if course.relearning else self.thermal
            course.relearning = False

    def _locate(self, course: Course, reading: Reading) -> None:
        """Which operating point this second belongs to; a new one is learned once the speed has settled."""
        if math.isnan(reading.speed) or math.isnan(reading.setpoint):
            course.steady = min(course.steady, SMOOTH - 1)
            return
        near = [index for index, point in enumerate(course.points) if _at(point, reading)]
        if course.point in near:
            course.steady += 1
            course.learning = []
            return
        if near:
            course.point, course.steady, course.learning = near[-1], 1, []
            course.calm = 0
            return
        if course.steady:
            course.onset = reading.at
        course.steady = course.calm = 0
        settled = abs(reading.speed - reading.setpoint) <= 0.02 * reading.setpoint
        course.learning = [*course.learning, reading] if settled and all(reading.count) else []
        if len(course.learning) >= self.baseline:
            self._new_point(course)

    def _new_point(self, course: Course) -> None:
        standing = course.verdict is not None or any(item.held > 1 for item in course.pending)
        course.points.append(learn(course.learning, tainted=standing))
        course.point, course.steady, course.learning = len(course.points) - 1, SMOOTH, []

    def _watch_load(self, course: Course, evidence: Evidence) -> None:
        """Pressure and current moved together: the load was changed, and normal has to be learned anew."""
        pressure, current = evidence.slow["hydraulic_pressure"], evidence.slow["motor_current"]
        both = evidence.moved("hydraulic_pressure") and evidence.moved("motor_current")
        course.loaded = course.loaded + 1 if both and pressure * current > 0 else 0
        if course.loaded >= SMOOTH and course.steady and course.verdict is None:
            course.points, course.learning, course.loaded = [], [], 0
            course.relearning, course.onset = True, course.history[-1].at
            course.unexplained, course.alone, course.pending = 0, "", []

    def _watch_heat(self, course: Course, evidence: Evidence) -> None:
        """Once the temperatures have followed a new operating point, they are its normal."""
        course.calm += 1
        if course.calm != self.thermal + 1 or course.verdict is not None or course.pending:
            return
        self._learn_heat(course, evidence)

    def _learn_heat(self, course: Course, evidence: Evidence) -> None:
        point = course.points[course.point]
        slow = [
            level + evidence.slow[name] if name in _HEAT and math.isfinite(evidence.slow[name]) else level
            for name, level in zip(SLOW, point.slow, strict=True)
        ]
        course.points[course.point] = msgspec.structs.replace(point, slow=slow)

    def _wait(self, course: Course, found: list[Hypothesis], at: Nanos) -> None:
        before = {_key(item.hypothesis): item for item in course.pending}
        course.pending = []
        for hypothesis in found:
            earlier = before.get(_key(hypothesis))
            held, onset = (earlier.held + 1, earlier.onset) if earlier else (1, at)
            course.pending.append(Standing(hypothesis, onset, held))

    def _settle(self, course: Course, comparable: bool) -> None:
        ready = [item for item in course.pending if item.held >= self.hold]
        current = course.verdict
        if current is not None:
            same = [item for item in course.pending if _key(item.hypothesis) == _key(current.hypothesis)]
            if same:
                current.hypothesis, current.gone = same[0].hypothesis, 0
                current.held += 1
            elif comparable or not current.hypothesis.needs_operation:
                current.gone += 1
            if current.gone >= self.clear:
                self._drop(course)
        machine = [item for item in ready if item.hypothesis.family == "machine"]
        if machine and (course.verdict is None or course.verdict.hypothesis.family == "sensor"):
            course.verdict = _strongest(machine)
        elif ready and (course.verdict is None or _fading_sensor(course.verdict, self.hold)):
            course.verdict = _strongest(ready)

    def _drop(self, course: Course) -> None:
        """The verdict no longer holds, nor does what was learned while it stood."""
        course.verdict = None
        if course.points[course.point].tainted:
            course.steady, course.learning = 0, []
        kept = [point for point in course.points if not point.tainted]
        course.point = next((i for i, point in enumerate(kept) if point is course.points[course.point]), 0)
        course.points = kept

    def _follow_hall(self, course: Course, evidence: Evidence, told: Account) -> None:
        """Both temperatures moved and nothing else did: it was the hall, and in a while they will have followed it."""
        course.hall = course.hall + 1 if told.hall and course.verdict is None and not course.pending else 0
        if course.hall == self.hold:
            course.onset, course.calm = course.history[-1].at, 0
            self._learn_heat(course, evidence)

    def _unexplained(
        self, course: Course, evidence: Evidence, told: Account, unexplained: bool, at: Nanos
    ) -> None:
        following = course.calm <= self.thermal
        alone = [
            name
            for name in evidence.slow
            if evidence.moved(name) and name not in told.explained and not (following and name in _HEAT)
        ]
        moved = evidence.has_moved()
        if course.verdict is not None or not unexplained or not (moved or alone):
            course.unexplained, course.alone = 0, ""
            return
        if course.unexplained == 0:
            course.onset = at
        course.unexplained += 1
        course.alone = alone[0] if len(alone) == 1 and not moved else ""


def _key(hypothesis: Hypothesis) -> _Key:
    return hypothesis.family, hypothesis.cause, hypothesis.axis, hypothesis.sensor


def _fading_sensor(verdict: Standing, hold: int) -> bool:
    return verdict.hypothesis.family == "sensor" and verdict.gone >= hold


def _strongest(standings: list[Standing]) -> Standing:
    best = max(standings, key=lambda item: item.hypothesis.strength)
    return Standing(best.hypothesis, best.onset, best.held)


def _at(point: Reference, reading: Reading) -> bool:
    if math.isnan(point.speed):
        return True
    same_order = abs(reading.setpoint - point.setpoint) <= 0.01 * point.setpoint
    return same_order and abs(reading.speed - point.speed) <= 0.03 * point.speed
