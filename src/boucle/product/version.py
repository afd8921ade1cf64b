"""Semantic versions: `1.4.2`, `v2.0.0-rc.1`; what a change raises, and whether it was raised enough."""

import re
from typing import Literal, TypeAlias

from msgspec import Struct

__all__ = ["LEVELS", "Level", "Version"]

Level: TypeAlias = Literal["none", "patch", "minor", "major"]
LEVELS: tuple[Level, ...] = ("none", "patch", "minor", "major")

_PATTERN = re.compile(
    r"v?(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)


class Version(Struct, frozen=True, eq=True):
    """A version by https://semver.org; what stands after `+` says nothing of its order."""

    major: int
    minor: int = 0
    patch: int = 0
    before: str = ""
    """What stands after `-`: a version that comes before the one without."""

    @classmethod
    def read(cls, text: object) -> "Version | None":
        """The version, or None where the text is none.

        >>> str(Version.read("v1.10.0")), Version.read("soon")
        ('1.10.0', None)
        """
        match = _PATTERN.fullmatch(str(text).strip())
        return cls(int(match[1]), int(match[2]), int(match[3]), match[4] or "") if match else None

    def __lt__(self, other: "Version") -> bool:
        return self._order() < other._order()

    def __le__(self, other: "Version") -> bool:
        return self._order() <= other._order()

    def __gt__(self, other: "Version") -> bool:
        return self._order() > other._order()

    def __ge__(self, other: "Version") -> bool:
        return self._order() >= other._order()

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.before}" if self.before else "")

    def _order(self) -> tuple[int, int, int, bool, list[tuple[bool, int, str]]]:
        words = self.before.split(".") if self.before else []
        # Numbers come before words, and are compared as numbers.
        parts = [(not word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words]
        return self.major, self.minor, self.patch, not self.before, parts

    def raised(self, level: Level) -> "Version":
        """The next version after a change of that level.

        >>> str(Version(1, 4, 2).raised("minor")), str(Version(0, 4, 2).raised("major"))
        ('1.5.0', '0.5.0')
        """
        if level == "none":
            return self
        if self.major == 0:
            # Below 1.0.0 the second number says that something breaks, the third everything else.
            return Version(0, self.minor + 1) if level == "major" else Version(0, self.minor, self.patch + 1)
        if level == "major":
            return Version(self.major + 1)
        if level == "minor":
            return Version(self.major, self.minor + 1)
        return Version(self.major, self.minor, self.patch + 1)

    def follows(self, old: "Version", level: Level) -> bool:
        """Whether this version says enough of a change of that level; before a release everything may change.

        >>> Version(1, 5).follows(Version(1, 4, 2), "minor"), Version(1, 5).follows(Version(1, 4, 2), "major")
        (True, False)
        """
        if level == "none":
            return self >= old
        if old.before:
            return self > old
        needed = old.raised(level)
        return (self.major, self.minor, self.patch) >= (needed.major, needed.minor, needed.patch)
