"""What is left of an error budget, how fast it burns, and when that is worth waking somebody.

The alerts are those of the Site Reliability Workbook (ch. 5, "Multiwindow, Multi-Burn-Rate Alerts") for a window of
30 days, and in proportion for another: 2 % of the budget within an hour, 5 % within six hours, 10 % within three
days; each must also burn in a window a twelfth as long, so that the alert ends soon after its cause.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from boucle.event import Severity
from boucle.quality.slo.counts import Minutes

__all__ = ["Burn", "Rule", "Standing", "rules_for", "standing"]

_MONTH = 30 * 86400.0
_FEW = 3
"""Bad rows, or commands, in the long window without which nobody is woken: one of one is no pattern (ch. 5,
"Low-Traffic Services")."""
_HOPELESS = 0.9
"""Of the burn rate that is possible at all: an objective of 90 % cannot burn 14.4 times too fast."""


class Rule(Struct, frozen=True):
    """An alert: the budget burns `burn` times as fast as it may, over `long` and over `short` minutes."""

    name: str
    burn: float
    long: int
    short: int
    severity: Severity


def rules_for(target: float, window: float) -> tuple[Rule, ...]:
    """The alerts of an objective with this target, over `window` seconds."""
    possible = _HOPELESS / (1 - target)

    def rule(name: str, burn: float, long: float, short: float, severity: Severity) -> Rule:
        brief = max(1, round(short * window / _MONTH / 60))
        return Rule(
            name, min(burn, possible), max(2 * brief, round(long * window / _MONTH / 60)), brief, severity
        )

    return (
        rule("fast", 14.4, 3600, 300, Severity.alarm),
        rule("slow", 6.0, 6 * 3600, 1800, Severity.alarm),
        rule("lasting", 1.0, 72 * 3600, 6 * 3600, Severity.warning),
    )


class Burn(Struct, frozen=True):
    """How many times too fast the budget burns, over both windows of a rule."""

    rule: Rule
    long: float
    short: float
    bad: int
    """What was bad in the long one."""

    @property
    def fires(self) -> bool:
        """Whether both are too much."""
        return min(self.long, self.short) >= self.rule.burn and self.bad >= _FEW


class Standing(Struct, frozen=True):
    """Where an objective stands. `compliance` is NaN while nothing was counted."""

    good: int
    total: int
    compliance: float
    left: float
    """The share of the error budget of the whole window that is left; below 0: overspent."""
    burns: tuple[Burn, ...]
    exhausts: float
    """Seconds until nothing is left at the present rate; infinite where that is no faster than allowed."""


def standing(minutes: Minutes, target: float, window: float, now: int, rules: Sequence[Rule]) -> Standing:
    """Where an objective stands in the minute `now`.

    The budget is that of the whole window: where less time was counted, as much more is expected at the same rate.
    So the first bad second of a new objective does not spend everything.
    """
    size = round(window / 60)
    good, total = minutes.between(now - size + 1, now)
    if not total:
        return Standing(0, 0, math.nan, 1.0, tuple(Burn(rule, 0.0, 0.0, 0) for rule in rules), math.inf)
    covered = min(size, max(1, now - minutes.first + 1))
    left = 1 - (total - good) * covered / size / ((1 - target) * total)

    def burnt(span: int) -> tuple[float, int]:
        some, all_ = minutes.between(now - span + 1, now)
        return ((all_ - some) / all_ / (1 - target) if all_ else 0.0), all_ - some

    burns = []
    for rule in rules:
        long, bad = burnt(rule.long)
        burns.append(Burn(rule, long, burnt(rule.short)[0], bad))
    present = max((one.long for one in burns[:2]), default=0.0)
    exhausts = 0.0 if left <= 0 else math.inf if present <= 1 else left * window / present
    return Standing(good, total, good / total, left, tuple(burns), exhausts)
