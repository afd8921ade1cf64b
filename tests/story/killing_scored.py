"""One product that scores, killed again and again while its roles change, and held against a run nobody disturbed."""

import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from tests.house.tree import ROOT
from tests.loop.killed_product.victim import Life
from tests.loop.killing import Killer, Recorded
from tests.story.scored import TABLES, Judged, judge, product, recorded, tables

__all__ = ["MOMENTS", "Killed", "kill", "killer"]

MOMENTS = {
    "score: before a switch": 2, "score: switch recorded": 2, "score: Block scored": 30, "path: step done": 40,
    "tables: flushed": 1, "checkpoint: parts there, manifest not": 1, "log: written, not synced": 20,
    "lake: after the commit": 1, "restart: state restored": 0, "restart: while catching up": 3,
}  # fmt: skip
"""Moment → how often a life may pass it at most."""


class Killed(Struct, frozen=True):
    """What a round of kills came to."""

    kills: Counter[str]
    judged: Judged
    failures: list[str]
    differing: list[str]
    """Tables that are not those of the undisturbed run with the same versions from the same rows on."""

    @property
    def sound(self) -> bool:
        """Whether nothing went wrong."""
        return self.judged.sound and not self.failures and not self.differing


def killer() -> Killer:
    """The process whose victims have all they need imported."""
    return Killer("tests.story.warm")


def kill(by: Killer, folder: Path, seed: int, *, rows: int, kills: int) -> Killed:
    """Kill a product `kills` times, let it end, and run it again undisturbed."""
    home, run, whole = folder / "product", folder / "run", folder / "whole"
    with _promoter(home, run, seed):
        product(home)
        given = recorded(folder / "input", rows, seed)
        killed = [by.live(life) for life in _lives(given, home, run, seed, kills)]
    ended = [by.live(Life(str(run), str(given.file), str(home)))]
    # The same versions from the same rows on, in a run that nobody disturbs.
    shutil.copytree(run / "steps", whole / "steps")
    ended.append(by.live(Life(str(whole), str(given.file), str(home))))
    failures = [one.failure or f"status {one.status}" for one in ended if one.failure or one.status]
    ours, theirs = tables(run), tables(whole)
    return Killed(
        Counter(one.killed or f"ended: {one.failure}" for one in killed),
        judge(home, run, rows),
        failures,
        [name for name in TABLES if ours[name] != theirs[name]],
    )


def _lives(given: Recorded, home: Path, run: Path, seed: int, kills: int) -> Iterator[Life]:
    """Each takes its share of the payments, slowly enough that roles change meanwhile, and dies."""
    chance = random.Random(seed)
    for number in range(kills):
        moment = chance.choice(list(MOMENTS)) if number % 2 else ""
        yield Life(
            str(run),
            str(given.file),
            str(home),
            upto=given.blocks * (number + 1) // (kills + 1),
            after=2.0 if moment else chance.uniform(0.5, 1.2),
            moment=moment,
            skip=chance.randint(0, MOMENTS.get(moment, 0)),
            pause=0.02,
        )


@contextmanager
def _promoter(home: Path, run: Path, seed: int) -> Iterator[None]:
    """Roles change meanwhile, from a process that is killed too."""
    words = [sys.executable, "-m", "tests.story.promoter", str(home), str(run), str(seed)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    try:
        yield
    finally:
        said, _ = process.communicate("", timeout=30)
    assert process.returncode == 0
    assert int(said) > 0
