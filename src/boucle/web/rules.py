"""What the product's page shows of quality rules and output ports: state, counts in words, and their course."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from boucle.loop.outcomes import RuleCourse
from boucle.outlet.courier import Delivered
from boucle.outlet.exporter import Exported
from boucle.outlet.ports import OutputPort
from boucle.web.slo import COURSE_HEIGHT, COURSE_WIDTH
from boucle.web.speech import NONE, Speech

__all__ = ["PortRow", "RuleRow", "rows_of_ports", "rows_of_rules"]

_LIMITS = ("exactly", "anything but", "more than", "at least", "less than", "at most", "not from", "from")
_WIDTH, _HEIGHT = COURSE_WIDTH // 2, COURSE_HEIGHT


class RuleRow(Struct, frozen=True):
    """A rule, ready to be shown; `state` is normal, attention, alarm or unknown."""

    rule: str
    table: str
    state: str
    severity: str
    checked: str
    failed: str
    recent: str
    """Since the point before the last; empty when there were none."""
    measured: str
    wanted: str
    course: str
    """Points of an SVG polyline: rows that broke it, so far."""
    why: str
    quiet: bool
    """It follows from the columns, nothing breaks it, and nobody gave it a name: it need not be read first."""


class PortRow(Struct, frozen=True):
    """An output port, ready to be shown."""

    name: str
    kind: str
    table: str
    state: str
    said: str
    failure: str


def rows_of_rules(rules: Sequence[RuleCourse], speech: Speech) -> list[RuleRow]:
    """Every rule, the worst first."""
    order = ("alarm", "attention", "unknown", "normal")
    rows = [_rule(one, speech) for one in rules]
    return sorted(rows, key=lambda row: (order.index(row.state), row.table, row.rule))


def _rule(one: RuleCourse, speech: Speech) -> RuleRow:
    last = one.last
    return RuleRow(
        rule=last.rule,
        table=last.table,
        state=_state(one),
        severity=speech.name("severity", "alarm" if last.severity == "error" else last.severity),
        checked=speech.number(last.checked, 0),
        failed=speech.number(last.failed, 0),
        recent=speech.number(one.recent, 0) if one.recent > 0 else "",
        measured=NONE if last.measured is None else speech.number(last.measured, 2),
        wanted=_wanted(last.wanted, speech),
        course=_course(one.course),
        why=last.why,
        quiet="." in last.rule and not last.failed and last.state != "unknown",
    )


def _wanted(said: str, speech: Speech) -> str:
    """A limit in the reader's words; as it is when it is not one of ODCS's comparisons."""
    for words in _LIMITS:
        if said.startswith(f"{words} "):
            rest = said.removeprefix(f"{words} ").replace(" to ", f" {speech('limit.to')} ")
            return speech(f"limit.{words.replace(' ', '_')}", rest=rest)
    return said


def _state(one: RuleCourse) -> str:
    if one.last.state == "unknown":
        return "unknown"
    if one.last.state == "broken":
        return "alarm" if one.last.severity == "error" else "attention"
    # A rule that refuses readings keeps them out: worth a look while it still does, no harm.
    return "attention" if one.last.state == "refuses" and one.recent > 0 else "normal"


def _course(points: Sequence[tuple[int, int, int]]) -> str:
    if len(points) < 2 or points[-1][2] == points[0][2]:
        return ""
    begin, span = points[0][0], max(1, points[-1][0] - points[0][0])
    least, most = points[0][2], max(1, points[-1][2])
    return " ".join(
        f"{_WIDTH * (at - begin) / span:.1f},{_HEIGHT * (1 - (failed - least) / max(1, most - least)):.1f}"
        for at, _, failed in points
    )


def rows_of_ports(
    ports: Sequence[OutputPort], states: Mapping[str, Delivered | Exported], speech: Speech
) -> list[PortRow]:
    """The declared interfaces in their order, with what the loop did for them."""
    return [_port(one, states.get(one.name), speech) for one in ports]


def _port(one: OutputPort, state: Delivered | Exported | None, speech: Speech) -> PortRow:
    said, failure, level = "", "", "normal"
    if isinstance(state, Delivered):
        counts = {"delivered": state.delivered, "pending": state.pending, "dead": state.dead}
        said = speech("port.events", **{name: speech.number(count, 0) for name, count in counts.items()})
        level = "attention" if state.failure or state.dead or state.gone else "normal"
        failure = state.failure
    elif isinstance(state, Exported):
        rows, version = speech.number(state.rows, 0), speech.number(state.version, 0)
        said = speech("port.files", rows=rows, version=version) if state.times else ""
        failure, level = state.failure, "attention" if state.failure else "normal"
    elif one.kind not in {"files", "events"} or not one.settings.get(
        "to", "" if one.kind == "events" else "-"
    ):
        said = speech("port.served")
    return PortRow(one.name, one.kind, one.table, level, said or speech("port.never"), failure)
