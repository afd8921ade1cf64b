"""What a model's inputs were like when it was trained: the sketches recorded with each of its versions."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from boucle.errors import BoucleError
from boucle.features.sketch import Reference
from boucle.models.record import SKETCHES
from boucle.models.registry import SCHEME, Registry, registry_of
from boucle.models.registry import Reference as Meant

__all__ = ["Trained"]


class Trained:
    """The references of some columns by version, read once each.

    B754 when a version was registered without sketches, when they cannot be read, or when it does not read a column.
    """

    def __init__(self, model: str, folder: Path, columns: Sequence[str]) -> None:
        self._meant = Meant.parse(model)
        self._folder, self._columns = folder, tuple(columns)
        self._registry: Registry | None = None
        self._known: dict[str, list[Reference]] = {}
        self._generation = -1
        self._now = ""

    def now(self) -> str:
        """The version that is meant now, as NAME/NUMBER; the last known while the registry cannot be read."""
        try:
            registry = self._open()
            generation = registry.generation(self._meant.name)
            if generation != self._generation or not self._now:
                found = str(registry.resolve(self._meant))
                self.of(found)
                self._generation, self._now = generation, found
        except (BoucleError, OSError):
            if not self._now:
                raise
        return self._now

    def named(self, version: str) -> str:
        """NAME/NUMBER of what a row's mark says: NAME/3, or 3 alone."""
        return f"{self._meant.name}/{version.rpartition('/')[2]}"

    def of(self, version: str) -> list[Reference]:
        """The references of a version, in the order of the columns."""
        known = self._known.get(version)
        if known is None:
            known = self._known[version] = self._read(version)
        return known

    def _open(self) -> Registry:
        if self._registry is None:
            self._registry = registry_of(self._folder)
        return self._registry

    def _read(self, version: str) -> list[Reference]:
        told = self._open().files(f"{SCHEME}{version}").get(SKETCHES)
        if told is None:
            raise _none(version, f"it was registered without {SKETCHES}")
        try:
            found = msgspec.json.decode(told, type=dict[str, Reference])
        except msgspec.DecodeError as error:
            raise _none(version, f"{SKETCHES}: {error}") from error
        if lacking := [one for one in self._columns if one not in found]:
            raise _none(version, f"it does not read {', '.join(lacking)}, but {', '.join(found)}")
        if any(len(one.tally.counts) != len(one.edges) + 1 or one.words for one in found.values()):
            raise _none(version, f"{SKETCHES}: bins and counts are not of one column of numbers")
        return [found[one] for one in self._columns]


def _none(version: str, why: str) -> BoucleError:
    return BoucleError(
        "B754",
        f"{version} does not tell what its training data was like",
        why=why,
        fix="train it with `boucle train`, name columns it reads, or give reference: a number of first rows",
    )
