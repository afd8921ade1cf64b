"""What is remembered of one machine from second to second; all of it goes into the checkpoint, none of it grows."""

import msgspec
from msgspec import Struct

from boucle.clock import Nanos
from boucle.drift.charts import Sum
from boucle.drift.fleet import Shown
from boucle.drift.heat import Heat
from boucle.drift.hypothesis import Hypothesis
from boucle.drift.reading import Reading, Reference
from boucle.drift.scale import Level

__all__ = ["Course", "Standing"]


class Standing(Struct):
    """A cause that fits, since when and for how many seconds; `gone` seconds it no longer did."""

    hypothesis: Hypothesis
    onset: Nanos
    held: int = 1
    gone: int = 0


class Course(Struct):
    """What is remembered of one machine."""

    history: list[Reading]
    learning: list[Reading]
    points: list[Reference]
    """Operating points whose normal is known, of every load that was seen."""
    point: int = -1
    steady: int = 0
    """Seconds in a row at this point."""
    load: int = 0
    """Which load it runs with: only points learned under it are compared with."""
    regime: str = ""
    """Why the family is `operation`, as long as it is: new_regime, known_point or calibrated."""
    shares: dict[str, tuple[float, float]] = {}
    """How the witnesses follow the load, as far as its changes have shown (`boucle.drift.shares`)."""
    sums: dict[str, Sum] = {}
    """Cumulative sums of the residuals, since this point was reached (`boucle.drift.charts`)."""
    pending: list[Standing] = []
    verdict: Standing | None = None
    levels: list[Level] = []
    """How far the slow value of the verdict is off, per level that was visited since (`boucle.drift.scale`)."""
    unexplained: int = 0
    alone: str = ""
    """The slow value that moved while no other witness did."""
    onset: Nanos = 0
    """When the present family began, where no Standing says it."""
    loaded: int = 0
    """Seconds in a row with pressure and current both off: another load."""
    calm: int = 0
    """Seconds since the operating point last moved; temperatures follow it slowly."""
    heat: Heat = msgspec.field(default_factory=Heat)
    """Their way since then."""
    outside: int = 0
    """Seconds in a row in which the hall moved both temperatures, or the same values moved on other machines."""
    common: str = ""
    """Which of the two it was: hall or common."""
    adopted: dict[str, float] = {}
    """What moved from outside lately and is normal since; see `boucle.drift.fleet.Shown`."""
    adopted_at: Nanos = 0
    shown: Shown | None = None
    """What its peers see of it."""
    calibrated: dict[str, Nanos] = {}
    """Sensor → when it was calibrated last, as far as anybody told."""
    drifted: dict[str, int] = {}
    """Sensor → how often it was calibrated while the verdict was about it."""
    relearning: bool = False
    """Normal is learned again, because the load changed or a sensor was calibrated."""
