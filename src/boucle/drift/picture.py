"""The evidence of a verdict as one picture (SVG): what moved on which axis, and what stood still."""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

__all__ = ["picture"]

_WORDS = {
    "bands": ("Change per band (ln of amplitude)", "Variation par bande (ln de l'amplitude)"),
    "lines": ("Bearing lines (times the noise)", "Raies du roulement (fois le bruit)"),
    "slow": ("Slow values (times their limit)", "Grandeurs lentes (fois leur limite)"),
    "left": (
        "Unexplained (times its limit), of all and without each sensor",
        "Inexpliqué (fois sa limite), en tout et sans chaque capteur",
    ),
    "all": ("of all", "en tout"),
    "bearing_temperature": ("bearing °C", "palier °C"),
    "oil_temperature": ("oil °C", "huile °C"),
    "hydraulic_pressure": ("pressure", "pression"),
    "motor_current": ("current", "courant"),
    "outer": ("outer", "externe"),
    "inner": ("inner", "interne"),
}
_WIDTH, _ROW, _LEFT = 560, 18, 92
_SCALE = 1.2
"""Change of ln amplitude that fills a bar: a factor of 3.3."""
_MOVED, _LINE = 0.1, 4.0
"""Where a band has moved, and where a line is one: as the rules have it (`boucle.drift.hypothesis`)."""

_Row = tuple[str, Sequence[tuple[float | None, bool]]]
"""A label, and its bars: how much of its room each fills (negative: to the left), and if it is beyond its limit."""


def picture(evidence: Mapping[str, Any], title: str, *, language: str = "en") -> str:
    """Bars of the evidence JSON of a verdict, as an SVG of its own; what was not measured is left out.

    A bar to the right rose, to the left fell; hatched is beyond its limit, so that no colour is needed to read it.
    `language`: en or fr.
    """
    said = int(language == "fr")
    parts = [f'<text x="8" y="14" font-weight="bold">{escape(title)}</text>']
    y = 38
    for heading, rows in (
        ("bands", _bands(evidence)),
        ("lines", _lines(evidence)),
        ("slow", _slow(evidence)),
        ("left", _left(evidence)),
    ):
        if rows:
            parts.append(f'<text x="8" y="{y}" font-style="italic">{escape(_WORDS[heading][said])}</text>')
            y += _ROW
        for label, bars in rows:
            parts.append(f'<text x="8" y="{y + 4}">{escape(_WORDS.get(label, (label, label))[said])}</text>')
            parts += _drawn(bars, y)
            y += _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'font-family="sans-serif" font-size="11"><title>{escape(title)}</title>'
        '<defs><pattern id="beyond" width="4" height="4" patternUnits="userSpaceOnUse">'
        '<path d="M0 4 4 0" stroke="currentColor" stroke-width="1.6"/></pattern></defs>'
        f"{''.join(parts)}</svg>"
    )


def _bands(evidence: Mapping[str, Any]) -> list[_Row]:
    rows: list[_Row] = []
    for axis, values in _mapping(evidence.get("shift")).items():
        known = [_number(value) for value in values] if isinstance(values, list | tuple) else []
        rows.append(
            (str(axis), [(v if v is None else v / _SCALE, v is not None and abs(v) >= _MOVED) for v in known])
        )
    return rows


def _lines(evidence: Mapping[str, Any]) -> list[_Row]:
    rows: list[_Row] = []
    for name in ("outer", "inner"):
        known = [_number(value) for value in _mapping(evidence.get(f"{name}_line")).values()]
        if any(value is not None for value in known):
            rows.append((name, [(v if v is None else v / 20, v is not None and v >= _LINE) for v in known]))
    return rows


def _slow(evidence: Mapping[str, Any]) -> list[_Row]:
    slow, limits = _mapping(evidence.get("slow")), _mapping(evidence.get("slow_limit"))
    rows: list[_Row] = []
    for name, value in slow.items():
        moved, limit = _number(value), _number(limits.get(name))
        if moved is not None and limit:
            rows.append((str(name), [(moved / limit / 8, abs(moved) >= limit)]))
    return rows


def _left(evidence: Mapping[str, Any]) -> list[_Row]:
    """What is left unexplained, on a logarithmic scale: half the room is the limit, all of it a hundred times that."""
    told = _mapping(evidence.get("left"))
    rows: list[_Row] = []
    for name, value in (("all", told.get("all")), *_mapping(told.get("without")).items()):
        number = _number(value)
        if number is not None:
            share = 0.5 + 0.25 * math.log10(max(number, 0.01))
            rows.append((str(name), [(share, number > 1)]))
    return rows


def _drawn(bars: Sequence[tuple[float | None, bool]], y: int) -> list[str]:
    """The bars of a row, each from the middle of its room."""
    room = (_WIDTH - _LEFT - 16) / max(1, len(bars))
    parts = []
    for index, (share, beyond) in enumerate(bars):
        middle = _LEFT + (index + 0.5) * room
        if share is not None:
            length = min(1.0, abs(share)) * (room / 2 - 3)
            left = middle if share >= 0 else middle - length
            parts.append(
                f'<rect x="{left:.1f}" y="{y - 6}" width="{length:.1f}" height="10" '
                f'fill="{"url(#beyond)" if beyond else "none"}" stroke="currentColor" stroke-width="0.8"/>'
            )
        parts.append(f'<path d="M{middle:.1f} {y - 8}v14" stroke="currentColor" stroke-width="0.4"/>')
    return parts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None
