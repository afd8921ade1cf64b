"""One change between two versions of a promise, and the verdict over all of them.

Consumers read by the old promise what is made by the new one: they break when the new one allows what
the old one ruled out. Producers make by the old promise what is checked by the new one: they break when
the new one rules out what the old one allowed. *Backward* looks at consumers, *forward* at producers,
*full* at both.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from boucle.product.version import LEVELS, Level, Version

__all__ = ["BOTH", "CONSUMERS", "NOBODY", "PRODUCERS", "Change", "Changes", "Mode", "Party", "Verdict"]

Party: TypeAlias = Literal["consumers", "producers"]
Mode: TypeAlias = Literal["backward", "forward", "full"]

CONSUMERS: tuple[Party, ...] = ("consumers",)
PRODUCERS: tuple[Party, ...] = ("producers",)
BOTH: tuple[Party, ...] = ("consumers", "producers")
NOBODY: tuple[Party, ...] = ()

_LOOKED_AT: dict[Mode, tuple[Party, ...]] = {"backward": CONSUMERS, "forward": PRODUCERS, "full": BOTH}


class Change(Struct, frozen=True):
    """One change: where, what, and for whom it breaks."""

    document: Literal["contract", "product"]
    path: str
    """`orders.amount`, `sla.availability`, `status` …"""
    kind: str
    """`column-removed`, `range-widened` …"""
    what: str
    breaks: tuple[Party, ...] = NOBODY
    least: Level = "minor"
    """What it asks of the version where it breaks nobody who is looked at."""
    why: str = ""

    def level(self, mode: Mode = "full") -> Level:
        """What the change asks of the version."""
        return "major" if set(self.breaks) & set(_LOOKED_AT[mode]) else self.least


class Changes:
    """Collects the changes of one document."""

    def __init__(self, document: Literal["contract", "product"]) -> None:
        self.found: list[Change] = []
        self._document = document

    def add(
        self,
        path: str,
        kind: str,
        what: str,
        breaks: tuple[Party, ...] = NOBODY,
        why: str = "",
        least: Level = "minor",
    ) -> None:
        """One more change."""
        self.found.append(Change(self._document, path, kind, what, breaks, least, why))

    def text(self, path: str, kind: str, old: Any, new: Any) -> None:
        """Words for people changed: nothing that a program reads."""
        if old != new:
            verb = "added" if old in (None, "", []) else "removed" if new in (None, "", []) else "changed"
            self.add(path, f"{kind}-{verb}", f"{kind} {verb}", least="patch")


class Verdict(Struct, frozen=True):
    """What all changes together ask of a document's version, and whether it was raised so."""

    document: Literal["contract", "product"]
    id: str
    mode: Mode
    changes: tuple[Change, ...]
    old: str
    new: str
    """The versions the two documents name; empty where a document is missing or names none."""
    against: str = ""
    """Which older version this is about, where there are several."""

    @property
    def level(self) -> Level:
        """The largest level any change asks for."""
        return max((change.level(self.mode) for change in self.changes), key=LEVELS.index, default="none")

    @property
    def breaking(self) -> tuple[Change, ...]:
        """The changes that break somebody who is looked at."""
        return tuple(change for change in self.changes if change.level(self.mode) == "major")

    @property
    def needed(self) -> str:
        """The version that says what changed; empty where the old one is not a semantic version."""
        old = Version.read(self.old)
        return "" if old is None else str(old.raised(self.level))

    @property
    def enough(self) -> bool:
        """Whether the new version says what changed. A document that comes or goes has nothing to raise."""
        if not self.old or not self.new:
            return True
        old, new = Version.read(self.old), Version.read(self.new)
        if old is None or new is None:
            # Labels that are no versions cannot be ordered; another label is all that can be asked for.
            return self.level == "none" or self.old != self.new
        return new.follows(old, self.level)


def of_mode(changes: Sequence[Change], mode: Mode) -> list[Change]:
    """The changes that break somebody, then the others, each as they were found."""
    return sorted(changes, key=lambda change: -LEVELS.index(change.level(mode)))
