"""Durations as people write them: `500ms`, `10s`, `5min`, `2h`, `7d`."""

import re

from boucle.errors import BoucleError

__all__ = ["seconds"]

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)\s*")


def seconds(text: str | float) -> float:
    """The duration in seconds; a bare number already is. B203 says what can be written.

    >>> seconds("500ms"), seconds("2h"), seconds(3)
    (0.5, 7200.0, 3.0)
    """
    if isinstance(text, int | float):
        return float(text)
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise BoucleError(
            "B203", f"{text!r} is not a duration", fix="write a number and a unit: 500ms, 10s, 5min, 2h, 7d"
        )
    return float(match[1]) * _UNITS[match[2]]
