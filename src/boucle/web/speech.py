"""How the page speaks: which language a reader gets, and how numbers, units and times read in it."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from boucle.clock import SECOND, Nanos
from boucle.web.strings import STRINGS

__all__ = ["LANGUAGES", "Speech", "preferred"]

LANGUAGES = ("en", "fr")
NONE = "–"
THIN = "\u202f"
MINUTE, HOUR, DAY = 60, 3600, 86_400


def preferred(header: str) -> str | None:
    """The first of our languages in an Accept-Language header, by its weight; None when none is.

    >>> preferred("de, fr-CH;q=0.8, en;q=0.7")
    'fr'
    """
    wishes: list[tuple[float, int, str]] = []
    for place, part in enumerate(header.split(",")):
        tag, _, weight = part.strip().partition(";q=")
        language = tag.strip().partition("-")[0].lower()
        try:
            share = float(weight or 1)
        except ValueError:
            continue
        if language in LANGUAGES and share > 0:
            wishes.append((-share, place, language))
    return min(wishes)[2] if wishes else None


class Speech:
    """One language. Called with a key it gives the sentence; an unknown name is said as it is."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.separator = "," if language == "fr" else "."
        self.thousands = THIN if language == "fr" else ","

    def __call__(self, key: str, **values: object) -> str:
        """The sentence of a key that must exist."""
        return STRINGS[key][self.language].format(**values)

    def name(self, kind: str, name: str) -> str:
        """The word for a name that may be a stranger's: `bearing_temperature`, or the name itself."""
        known = STRINGS.get(f"{kind}.{name}")
        return known[self.language] if known else name.replace("_", " ")

    def key(self, name: object) -> str:
        """The word for a value's name; a name without one (a sensor's) stays as it is written."""
        known = STRINGS.get(f"value.{name}")
        return known[self.language] if known else str(name)

    def unit(self, unit: str) -> str:
        """A unit in this language."""
        known = STRINGS.get(f"unit.{unit}")
        return known[self.language] if known else unit

    def said(self, says: Mapping[str, str]) -> str:
        """An event's or command's own sentence; the other language rather than nothing."""
        return says.get(self.language) or says.get("en") or next(iter(says.values()), "")

    def number(self, value: float | None, digits: int | None = None) -> str:
        """A number with its decimal sign; three significant digits unless told; a dash for none."""
        if value is None or not math.isfinite(value):
            return NONE
        if digits is None:
            size = abs(value)
            digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
        text = (
            f"{value:,.{digits}f}".replace(",", "\0")
            .replace(".", self.separator)
            .replace("\0", self.thousands)
        )
        return text.replace("-", "\u2212")

    def quantity(self, value: float | None, unit: str = "", digits: int | None = None) -> str:
        """A number with its unit, held together by a no-break space."""
        text = self.number(value, digits)
        return text if text == NONE or not unit else f"{text}\u00a0{self.unit(unit)}"

    def percent(self, share: float) -> str:
        """A share of one, in per cent."""
        return self.quantity(share * 100, "%", 0)

    def life(self, hours: float) -> str:
        """Remaining hours; the model does not tell more than 200."""
        return f">\u00a0{self.quantity(200, 'h')}" if hours >= 200 else self.quantity(hours, "h", 0)

    def micros(self, value: float) -> str:
        """A duration given in microseconds, in the unit a person would choose."""
        return self.quantity(value, "µs", 0) if not value >= 1000 else self.quantity(value / 1000, "ms", 1)

    def span(self, seconds: float) -> str:
        """A duration, coarse: 0.3 s, 12 s, 4 min, 2 h, 3 d."""
        if not math.isfinite(seconds):
            return NONE
        seconds = max(seconds, 0.0)
        if seconds < MINUTE:
            return self.quantity(seconds, "s", 1 if seconds < 10 else 0)
        if seconds < HOUR:
            return self.quantity(seconds // MINUTE, "min", 0)
        return (
            self.quantity(seconds // HOUR, "h", 0)
            if seconds < DAY
            else self.quantity(seconds // DAY, "days", 0)
        )

    def value(self, name: str, value: float, unit: str) -> str:
        """A named value of a machine; health, a share of one, reads in per cent."""
        return self.percent(value) if name == "health" else self.quantity(value, unit)

    def anything(self, value: Any, unit: str = "") -> str:
        """A value of unknown kind, as evidence and commands carry them."""
        if isinstance(value, bool | str) or value is None:
            return str(value) if value is not None else NONE
        if isinstance(value, int | float):
            whole = math.isfinite(value) and float(value).is_integer()
            return self.quantity(float(value), unit, 0 if whole else None)
        if isinstance(value, Mapping):
            return " · ".join(f"{self.key(key)} {self.anything(item)}" for key, item in value.items())
        return ", ".join(self.anything(item) for item in value)

    @staticmethod
    def moment(at: Nanos) -> str:
        """The time of day where the loop runs, to the second."""
        return local(at).strftime("%H:%M:%S")

    @staticmethod
    def exact(at: Nanos) -> str:
        """The instant for machines and tooltips: RFC 3339, UTC, milliseconds."""
        return (
            datetime.fromtimestamp(at / SECOND, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )


def local(at: Nanos) -> datetime:
    """An instant in the time zone of the machine the loop runs on."""
    return datetime.fromtimestamp(at / SECOND, UTC).astimezone()
