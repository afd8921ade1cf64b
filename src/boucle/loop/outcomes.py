"""How each quality rule came out, kept in the run's folder for those who look at it without the loop.

`quality/outcomes.json` holds the last outcome of every rule and its course: now and then the time, the rows looked at
and those that broke it, so far. A course that grows too long loses every second point, never its first or its last.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from boucle.clock import Nanos
from boucle.loop.parts import replace_file
from boucle.loop.view import QualityView

__all__ = ["OutcomeBook", "RuleCourse", "read_outcomes"]

_LONGEST = 120
_FILE = "outcomes.json"


class RuleCourse(Struct):
    """A rule's last outcome, and how it came there: (time, rows looked at, rows that broke it), oldest first."""

    last: QualityView
    course: list[tuple[Nanos, int, int]] = []

    @property
    def recent(self) -> int:
        """Rows that broke the rule since the point before the last."""
        return self.course[-1][2] - self.course[-2][2] if len(self.course) > 1 else self.last.failed


def read_outcomes(run: Path) -> list[RuleCourse]:
    """The rules of a run; none when nothing was judged yet, or the file cannot be read."""
    try:
        return msgspec.json.decode((run / "quality" / _FILE).read_bytes(), type=list[RuleCourse])
    except (OSError, msgspec.MsgspecError):
        return []


class OutcomeBook:
    """Writes the file of one run, and goes on with what an earlier life wrote."""

    def __init__(self, run: Path) -> None:
        self._file = run / "quality" / _FILE
        self._rules = {(one.last.table, one.last.rule): one for one in read_outcomes(run)}

    def add(self, now: Nanos, views: Sequence[QualityView]) -> None:
        """Keep how the rules stand. Raises OSError when the disk takes nothing."""
        rules = {}
        for view in views:
            key = (view.table, view.rule)
            course = [*self._rules[key].course] if key in self._rules else []
            if course and (view.checked < course[-1][1] or view.failed < course[-1][2]):
                course = []  # counted anew: another rule under the same name, or its state was lost
            course.append((now, view.checked, view.failed))
            if len(course) > _LONGEST:
                course = [*course[:-1:2], course[-1]]
            rules[key] = RuleCourse(view, course)
        self._rules = rules
        if rules:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._file, msgspec.json.encode(list(rules.values())))
