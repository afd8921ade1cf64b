"""From evidence to a verdict that waits: nothing is said until the same cause has held for a while.

At the moment an alarm is raised, a wear that one axis feels before the others looks exactly like a
fault of that axis's sensor. So a cause must fit `hold` seconds in a row before it becomes the verdict,
and must have been gone for `clear` seconds before it is dropped.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from boucle.clock import SECOND, Nanos
from boucle.drift.charts import cumulate, onset
from boucle.drift.course import Course, Standing
from boucle.drift.evidence import SMOOTH, Evidence, weigh
from boucle.drift.fleet import Shown, beside, shown
from boucle.drift.heat import HEAT, Heat, arrived, foretold, on_curves
from boucle.drift.hypothesis import Hypothesis, hypotheses
from boucle.drift.points import NEW_REGIME, learn_first, locate, watch_load
from boucle.drift.reading import SLOW, Reading
from boucle.drift.scale import gain_or_zero, note
from boucle.drift.shares import UNKNOWN
from boucle.drift.slow import Account, account

__all__ = ["Course", "Judge", "Standing"]

_MEMORY = 12
"""Seconds remembered; dropouts and clocks need more than the levels do."""
_UNKNOWN_AFTER = 3
"""Times `hold`: how long something unexplained must last before it is called unknown."""

_LONGEST = 8
"""Times `thermal`: how long temperatures are waited for that go on moving."""
_TOGETHER = 3 * SECOND

CALIBRATED, HALL, COMMON = "calibrated", "hall", "common"
"""Causes of the family `operation`, besides those of `boucle.drift.points`."""

_Key = tuple[str, str, int | None, str]


class Judge(Struct, frozen=True):
    """The rules of patience; all durations in seconds (rows)."""

    baseline: int
    hold: int
    clear: int
    thermal: int
    """How long temperatures take to follow a new operating point."""
    shares: dict[str, tuple[float, float]] = msgspec.field(default_factory=lambda: dict(UNKNOWN))
    """What is known beforehand of how pressure, current and gear mesh follow the load (`boucle.drift.shares`)."""

    every: dict[str, Nanos] = {}
    """Sensor → how long a calibration of it is good for, where anybody declared it."""

    def hear(self, course: Course, reading: Reading, peers: Sequence[Shown] | None = None) -> Evidence | None:
        """Take one second; None while a first reference is being learned. `peers`: what identical machines show."""
        course.history = [*course.history[-(_MEMORY - 1) :], reading]
        course.shares = course.shares or dict(self.shares)
        if course.relearning or not course.points:
            course.heat.note(reading)
            learn_first(course, reading, self.baseline, self.thermal, course.shares)
            return None
        locate(course, reading, self.baseline)
        course.heat.note(reading)
        evidence = weigh(course.history, course.points[course.point])
        if watch_load(course, evidence):
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
        warm, evidence = self._by_curves(course, evidence, comparable=comparable)
        if comparable:
            cumulate(course.sums, reading, course.points[course.point])
        else:
            course.sums = {}
        fleet = {}
        if peers is not None:
            fleet = self._beside(
                course, evidence, peers, [n for n in SLOW if comparable and (warm or n not in HEAT)]
            )
        told = account(evidence, comparable=comparable, warm=warm, shares=course.shares, fleet=fleet)
        found += [self._scaled(course, evidence, one) for one in self._apart(course, told.found)]
        self._wait(course, found, reading.at)
        self._settle(course, comparable)
        self._follow_outside(course, evidence, told)
        self._unexplained(course, evidence, told, comparable and not found, reading.at)
        return evidence

    def overdue(self, course: Course, sensor: str) -> Nanos:
        """For how long a sensor should have been calibrated; 0 when it is not due, or nobody said."""
        if sensor not in self.every or sensor not in course.calibrated:
            return 0
        return max(0, course.history[-1].at - course.calibrated[sensor] - self.every[sensor])

    def _likeliest(self, course: Course, ready: list[Standing]) -> Standing:
        """The strongest; or, of those the witnesses cannot tell from it, one with a history: overdue, or off before."""
        best = _strongest(ready)
        prone = [
            one
            for one in ready
            if one.hypothesis.sensor in best.hypothesis.candidates
            and (self.overdue(course, one.hypothesis.sensor) or one.hypothesis.sensor in course.drifted)
        ]
        return _strongest(prone) if prone else best

    def operation(self, course: Course) -> str:
        """Why levels cannot be compared just now: new_regime, known_point, calibrated, hall, common; empty when
        they can.
        """
        return course.regime or (course.common if course.outside >= self.hold else "")

    def calibrated(self, course: Course, sensor: str, at: Nanos) -> None:
        """A sensor was calibrated: what was learned with it as it was says nothing of it as it is."""
        course.calibrated = {**course.calibrated, sensor: at}
        standing = course.verdict
        if standing is not None and standing.hypothesis.sensor == sensor:
            course.drifted = {**course.drifted, sensor: course.drifted.get(sensor, 0) + 1}
        if standing is not None and standing.hypothesis.family == "machine":
            return
        course.verdict, course.pending, course.unexplained, course.alone = None, [], 0, ""
        course.levels = []
        course.points, course.point, course.learning, course.onset = [], -1, [], at
        course.relearning, course.regime, course.heat = True, CALIBRATED, Heat()

    def family(self, course: Course) -> str:
        """none, machine, sensor, operation or unknown."""
        if course.verdict is not None:
            return course.verdict.hypothesis.family
        if self.operation(course):
            return "operation"
        return "unknown" if course.unexplained >= _UNKNOWN_AFTER * self.hold else "none"

    def _watch_heat(self, course: Course, evidence: Evidence) -> None:
        """Once the temperatures have followed a new operating point, they are its normal."""
        course.calm += 1
        if course.calm != self.thermal + 1:
            return
        if not arrived(course.heat.seen) and course.heat.age < _LONGEST * self.thermal:
            course.calm = self.thermal  # not there yet: what is on its way is nobody's normal
            return
        if course.points[course.point].tainted:
            return
        suspected = course.verdict is not None or bool(course.pending)
        off = foretold(course.heat, evidence, self.thermal) if suspected else {}
        if not suspected or off:  # what lies off its curve goes on lying off what it should have come to
            self._adopt(course, evidence, HEAT, off)

    def _by_curves(self, course: Course, evidence: Evidence, *, comparable: bool) -> tuple[bool, Evidence]:
        """Whether the temperatures are witnesses: at their level, or both on a curve that is known."""
        if course.calm > self.thermal:
            return True, evidence
        off = foretold(course.heat, evidence, self.thermal) if comparable else {}
        return (True, on_curves(evidence, off)) if len(off) == len(HEAT) else (False, evidence)

    def _apart(self, course: Course, found: list[Hypothesis]) -> list[Hypothesis]:
        """Without the slow values that began to drift together: two instruments do not, whatever it is."""
        begun = {one.sensor: onset(course.sums, [one.sensor], 0) for one in found if one.either}
        together = {
            name
            for name, at in begun.items()
            if any(
                abs(at - other) <= _TOGETHER for one, other in begun.items() if one != name and at and other
            )
        }
        standing = course.verdict.hypothesis.sensor if course.verdict is not None else ""
        return [one for one in found if not one.either or one.sensor not in together - {standing}]

    def _scaled(self, course: Course, evidence: Evidence, found: Hypothesis) -> Hypothesis:
        """A slow drift with its gain or zero named, where the levels that were visited tell which of them it is."""
        standing = course.verdict.hypothesis.sensor if course.verdict is not None else ""
        if not found.either or found.sensor != standing:
            return found
        off, level = evidence.slow[standing], evidence.slow_before[standing]
        course.levels = note(course.levels, level, off, evidence.slow_chance[standing])
        named = gain_or_zero(course.levels)
        if named is None:
            return found
        return msgspec.structs.replace(found, cause=named[0], size=named[1], either=False)

    def _adopt(
        self,
        course: Course,
        evidence: Evidence,
        names: Sequence[str],
        off: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Where these slow values are now is normal, but for what they are `off`."""
        point = course.points[course.point]
        by = {name: evidence.slow[name] - (off or {}).get(name, (0.0,))[0] for name in names}
        slow = [
            level + by[name] if math.isfinite(by.get(name, math.nan)) else level
            for name, level in zip(SLOW, point.slow, strict=True)
        ]
        course.points[course.point] = msgspec.structs.replace(point, slow=slow)

    def _wait(self, course: Course, found: list[Hypothesis], at: Nanos) -> None:
        before = {_key(item.hypothesis): item for item in course.pending}
        course.pending = []
        for hypothesis in found:
            earlier = before.get(_key(hypothesis))
            if earlier:
                course.pending.append(Standing(hypothesis, earlier.onset, earlier.held + 1))
            else:
                course.pending.append(Standing(hypothesis, onset(course.sums, _residuals(hypothesis), at)))

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
            course.verdict, course.levels = _strongest(machine), []
        elif ready and (course.verdict is None or _fading_sensor(course.verdict, self.hold)):
            course.verdict, course.levels = self._likeliest(course, ready), []

    def _drop(self, course: Course) -> None:
        """The verdict no longer holds, nor does what was learned while it stood."""
        course.verdict, course.levels = None, []
        if course.points[course.point].tainted:
            course.steady, course.learning, course.regime = 0, [], NEW_REGIME
        here = course.points[course.point]
        course.points = [point for point in course.points if not point.tainted]
        course.point = next((i for i, point in enumerate(course.points) if point is here), 0)

    def _follow_outside(self, course: Course, evidence: Evidence, told: Account) -> None:
        """What moved from outside moved for good: it becomes normal, and the temperatures will follow in a while."""
        quiet = course.verdict is None and not course.pending
        course.outside = course.outside + 1 if quiet and (told.hall or told.common) else 0
        if course.outside != self.hold:
            return
        course.onset, course.common = course.history[-1].at, HALL if told.hall else COMMON
        names = HEAT if told.hall else tuple(told.common)
        course.adopted = shown(evidence, course.onset, names, self._adopted(course)).moved
        course.adopted_at = course.onset
        if told.hall:
            course.calm, course.heat = 0, Heat(lawful=False)
        self._adopt(course, evidence, names)

    def _adopted(self, course: Course) -> dict[str, float]:
        """What was adopted lately: peers may still be on their way."""
        lately = course.history[-1].at - course.adopted_at <= 2 * self.thermal * SECOND
        return course.adopted if lately else {}

    def _beside(
        self, course: Course, evidence: Evidence, peers: Sequence[Shown], names: Sequence[str]
    ) -> dict[str, str]:
        """What peers say of what moved; and what this one shows to them, as far as it knows its normal."""
        at = course.history[-1].at
        course.shown = shown(evidence, at, names, self._adopted(course))
        return beside(evidence, at, peers)

    def _unexplained(
        self, course: Course, evidence: Evidence, told: Account, unexplained: bool, at: Nanos
    ) -> None:
        following = course.calm <= self.thermal
        alone = [
            name
            for name in evidence.slow
            if evidence.moved(name) and name not in told.explained and not (following and name in HEAT)
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
    # The gain and the zero of a slow value are one drift, of which more is known later.
    drift = hypothesis.sensor and hypothesis.cause in ("gain", "offset")
    return hypothesis.family, "drift" if drift else hypothesis.cause, hypothesis.axis, hypothesis.sensor


def _residuals(hypothesis: Hypothesis) -> list[str]:
    """The residuals whose sums tell when it began; none for what has no slow beginning or no chart."""
    lost = " lost" if hypothesis.cause == "dropout" else ""
    if not lost and hypothesis.cause not in ("gain", "offset", "loose", "noise"):
        return []
    if hypothesis.sensor:
        return [f"{hypothesis.sensor}{lost}"] if lost or hypothesis.cause == "offset" else []
    if hypothesis.cause == "offset":
        return []
    return (
        [f"{hypothesis.axis}{lost}"]
        if hypothesis.axis is not None
        else [f"{axis}{lost}" for axis in range(3)]
    )


def _fading_sensor(verdict: Standing, hold: int) -> bool:
    return verdict.hypothesis.family == "sensor" and verdict.gone >= hold


def _strongest(standings: list[Standing]) -> Standing:
    best = max(standings, key=lambda item: item.hypothesis.strength)
    return Standing(best.hypothesis, best.onset, best.held)
