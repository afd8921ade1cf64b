"""What became of every row, how long scoring took and what it cost: in = scored + fallback + unscored."""

from bisect import bisect_left
from typing import Any

from msgspec import Struct, field

from boucle.serve.declared import Cost
from boucle.serve.ready import Identity

__all__ = ["BOUNDS", "Ledger", "Tally"]

BOUNDS = tuple(one * 10.0**power for power in range(-6, 1) for one in (1, 2, 5))
"""Upper bounds of the latency histogram, in seconds; what is longer is counted in a last class."""


class Tally(Struct):
    """Of one version: rows and Blocks it scored, processor time, and Blocks by how long they took."""

    name: str = ""
    version: str = ""
    arm: str = ""
    rows: int = 0
    blocks: int = 0
    cpu_ns: int = 0
    wall_ns: int = 0
    spread: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def cost(self, tariff: Cost) -> float:
        """What its processor time cost, in the tariff's currency."""
        return self.cpu_ns / 3.6e12 * tariff.per_cpu_hour


class Ledger(Struct):
    """Counts of one step since it was first started."""

    rows: int = 0
    scored: int = 0
    fallback: dict[str, int] = {}
    """Reason → rows that something else than their model answered for."""
    unscored: dict[str, int] = {}
    """Reason → rows that went on with null outputs."""
    versions: dict[str, Tally] = {}
    switches: int = 0

    def balanced(self) -> bool:
        """Whether every row is accounted for."""
        return self.rows == self.scored + sum(self.fallback.values()) + sum(self.unscored.values())

    def tally(self, identity: Identity, arm: str) -> Tally:
        """The counts of a version in an arm."""
        key = f"{identity.name}/{identity.version}/{arm}"
        found = self.versions.get(key)
        if found is None:
            found = self.versions[key] = Tally(identity.name, identity.version, arm)
        return found

    def add(self, tally: Tally, rows: int, wall_ns: int, cpu_ns: int) -> None:
        """A version scored some rows, in their arm or instead of another."""
        tally.rows += rows
        tally.blocks += 1
        tally.cpu_ns += cpu_ns
        tally.wall_ns += wall_ns
        tally.spread[bisect_left(BOUNDS, wall_ns / 1e9)] += 1

    def told(self) -> dict[str, Any]:
        """For a person."""
        return {
            "in": self.rows,
            "scored": self.scored,
            "fallback": dict(self.fallback),
            "unscored": dict(self.unscored),
        }


def count(of: dict[str, int], reason: str, rows: int) -> None:
    """Add to a count by reason."""
    if rows:
        of[reason] = of.get(reason, 0) + rows
