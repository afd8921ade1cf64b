"""What a step that scores shows beside its counts: who plays, how well, on what evidence, and what was told of it."""

import math
from typing import Any

from msgspec import Struct

from boucle.clock import Nanos

__all__ = ["ArmView", "ChangeView", "DriftView", "FigureView", "ReasonView", "TrialView", "number"]


class ArmView(Struct, frozen=True):
    """A version in its arm; `since` is 0 where no registry says since when it has the role."""

    arm: str
    name: str
    version: str
    since: Nanos = 0
    by: str = ""


class ChangeView(Struct, frozen=True):
    """A change of roles, as the registry remembers it."""

    at: Nanos
    verb: str
    role: str
    version: str
    before: str
    by: str
    why: str


class FigureView(Struct, frozen=True):
    """A figure of a window of predictions, measured or estimated (`serve.monitor.Performance`)."""

    version: str
    group: str
    figure: str
    value: float
    error: float
    low: float
    high: float
    unusual: bool
    estimated: bool
    complete: bool
    rows: int
    labelled: int
    window_start: Nanos


class TrialView(Struct, frozen=True):
    """How a canary's trial stands: losses, their difference (above 0: the challenger is better), and the evidence."""

    champion: str
    challenger: str
    pairs: int
    champion_loss: float
    challenger_loss: float
    difference: float
    low: float
    high: float
    better: float
    """Evidence that it is better, of what is needed: 0 to 1."""
    worse: float
    alpha: float
    decision: str = ""
    least: int = 0
    """Pairs before anything is decided."""


class DriftView(Struct, frozen=True):
    """The last word on a column: `data` (its values) or `concept` (errors)."""

    about: str
    column: str
    kind: str
    effect: float
    drifted: bool
    at: Nanos
    since: Nanos
    says: dict[str, str]


class ReasonView(Struct, frozen=True):
    """What an input added to the score of the last decision that was explained."""

    feature: str
    value: float
    contribution: float
    of: dict[str, Any] = {}
    """Which decision: the columns that were kept."""
    at: Nanos = 0


def number(value: Any) -> float:
    """NaN for null."""
    return math.nan if value is None else float(value)
