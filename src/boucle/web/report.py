"""What a run gave, as one HTML file: no script, no external request, readable for years."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jinja2

from boucle.loop.view import Live
from boucle.web.speech import Speech

__all__ = ["render_report"]

_WIDTH, _HEIGHT = 420, 90
_SHOWN = ("speed", "rms_x", "velocity", "bearing_temperature", "motor_current", "health")


def render_report(told: Mapping[str, Any], lives: Mapping[str, Live | None], language: str) -> str:
    """The report of a demo's result (as `--json` gives it) and the last trends of each machine."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("boucle.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    charts = {
        machine: [_chart(live, name) for name in _SHOWN if name in live.trends]
        for machine, live in lives.items()
        if live is not None
    }
    return environment.get_template("report.html").render(
        told=told, charts=charts, t=Speech(language), when=_when, height=_HEIGHT, width=_WIDTH
    )


def _when(nanos: int) -> str:
    return datetime.fromtimestamp(nanos / 1e9, UTC).strftime("%H:%M:%S")


def _chart(live: Live, name: str) -> dict[str, Any]:
    ages, values = live.trends[name]
    low, high = float(values.min()), float(values.max())
    pad = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    low, high = low - pad, high + pad
    span = float(ages.max()) or 1.0

    def height(value: float) -> float:
        return _HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low))

    points = " ".join(
        f"{_WIDTH * (1 - float(age) / span):.1f},{height(float(value)):.1f}"
        for age, value in zip(ages, values, strict=True)
    )
    band = live.bands.get(name)
    box = None if band is None else (height(band[1]), max(0.0, height(band[0]) - height(band[1])))
    return {
        "name": name, "unit": live.units.get(name, ""), "points": points, "band": box,
        "last": float(values[-1]), "span": span,
    }  # fmt: skip
