"""What the page of objectives shows, made from ObjectiveViews: state, promise in words, budget, and its course."""

import math
from collections.abc import Sequence

from msgspec import Struct

from boucle.event import Event
from boucle.loop.view import ObjectiveView
from boucle.web.speech import NONE, Speech

__all__ = ["COURSE_HEIGHT", "COURSE_WIDTH", "Row", "events_of_objectives", "rows_of_objectives"]

COURSE_WIDTH, COURSE_HEIGHT = 180, 28
_LITTLE = 0.25
"""Of the error budget: below it a person should know."""


class Row(Struct, frozen=True):
    """An objective, ready to be shown; `state` is normal, attention, alarm or unknown."""

    id: str
    state: str
    promise: str
    target: str
    window: str
    good: str
    left: str
    share: float | None
    """Of the bar that shows what is left: 0 to 1; None: nothing was counted."""
    burn: str
    spent: str
    alert: str
    course: str
    """Points of an SVG polyline: share that was good since the first count, from the floor that it shows to 100 %."""
    floor: str
    since: str
    """How far back it goes."""
    why: str
    description: str


def rows_of_objectives(objectives: Sequence[ObjectiveView], speech: Speech) -> list[Row]:
    """Every objective, the worst first."""
    order = ("alarm", "attention", "unknown", "normal")
    rows = [_row(one, speech) for one in objectives]
    return sorted(rows, key=lambda row: (order.index(row.state), row.id))


def events_of_objectives(events: Sequence[Event]) -> list[Event]:
    """What was told of objectives."""
    return [event for event in events if event.kind.startswith("slo_")]


def _row(one: ObjectiveView, speech: Speech) -> Row:
    alerts = tuple(burn.name for burn in one.burns if burn.fires)
    floor = min([share for _, share in one.history] + [one.target - 2 * (1 - one.target)])
    return Row(
        id=one.id,
        state=_state(one, alerts),
        promise=_promise(one, speech),
        target=_percent(one.target, speech),
        window=speech.span(one.window_s),
        good=_percent(one.compliance, speech),
        left=speech.quantity(100 * one.left, "%", 0) if one.total else NONE,
        share=min(1.0, max(0.0, one.left)) if one.total else None,
        burn="\u202f".join((speech.number(one.burns[0].long, 1), "×")) if one.burns and one.total else NONE,
        spent=speech.span(one.exhausts_s) if one.left > 0 else speech("slo.now"),
        alert=speech.name("slo.alert", alerts[0]) if alerts else "",
        course=_course(one, max(0.0, floor)),
        floor=_percent(max(0.0, floor), speech),
        since=speech.span(max((ago for ago, _ in one.history), default=0.0)),
        why=one.why,
        description=one.description,
    )


def _state(one: ObjectiveView, alerts: Sequence[str]) -> str:
    if not one.total or one.why:
        return "unknown"
    if set(alerts) & {"fast", "slow"} or one.left <= 0:
        return "alarm"
    return "attention" if alerts or one.left < _LITTLE else "normal"


def _promise(one: ObjectiveView, speech: Speech) -> str:
    key = f"slo.promise.{one.measure}"
    if one.measure == "latency" and not one.element:
        key = "slo.promise.latency_of_commands"
    bound = _exact_span(one.bound, speech) if one.measure != "throughput" else speech.number(one.bound)
    return speech(key, element=one.element or speech("slo.product"), bound=bound)


def _exact_span(seconds: float, speech: Speech) -> str:
    if seconds < 1:
        return speech.quantity(1000 * seconds, "ms", 0)
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size and seconds % size == 0:
            return speech.quantity(seconds / size, unit, 0)
    return speech.quantity(seconds, "s", 0 if seconds == round(seconds) else 1)


def _percent(share: float, speech: Speech) -> str:
    if math.isnan(share):
        return NONE
    digits = 0 if share == 1 else 1 if round(1000 * share, 9).is_integer() else 2
    return speech.quantity(math.floor(10_000 * share + 1e-6) / 100, "%", digits)


def _course(one: ObjectiveView, floor: float) -> str:
    span = max((ago for ago, _ in one.history), default=0.0)
    points = []
    for ago, share in one.history if span else ():
        across = COURSE_WIDTH * (1 - ago / span)
        up = (share - floor) / (1 - floor) if floor < 1 else 1.0
        points.append(f"{across:.1f},{COURSE_HEIGHT * (1 - up):.1f}")
    return " ".join(points)
