"""Faults that nobody wrote a rule for: what a verdict is worth where the right answer is `unknown`.

The sound episodes of a set, with something done to their feature rows from a moment on that no rule knows: the rows say
how it would look, no waveform is simulated. `family` is whose fault it really is.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from msgspec import Struct, structs

from bench.attribution.episodes import Episode, draw
from bench.attribution.page import in_table
from bench.attribution.rows import START, rows_of
from bench.attribution.score import Outcome, judge
from boucle.block import as_dicts
from boucle.clock import SECOND

__all__ = ["STRANGE", "Strange", "judged", "rows", "strange", "table"]

_AXES = "xyz"
_ONSET = 18.0
_TOOTH, _HOUSE, _MIDDLE = (3, 4, 5), 6, 2

Row = dict[str, float]
Change = Callable[[Row, float, str, float], None]


class Strange(Struct, frozen=True):
    """An episode with a fault of its own kind. `axis` and `size` are drawn from the episode's seed."""

    episode: Episode
    kind: str
    family: str
    axis: str
    size: float


def _louder(row: Row, axis: str, bands: Sequence[int], factor: float) -> None:
    for band in bands:
        row[f"{axis}_band_{band}"] *= factor**2


def _hum(row: Row, size: float, axis: str, ramp: float) -> None:
    """Mains hum on one cable: 50 Hz, where only the shaft's harmonics are."""
    row[f"{axis}_band_1"] += ramp * (size * 0.04) ** 2


def _swapped(row: Row, size: float, axis: str, ramp: float) -> None:
    """Two plugs were exchanged."""
    del size, ramp
    other = _AXES[(_AXES.index(axis) + 1) % 3]
    for name in [name.removeprefix(f"{axis}_") for name in row if name.startswith(f"{axis}_")]:
        row[f"{axis}_{name}"], row[f"{other}_{name}"] = row[f"{other}_{name}"], row[f"{axis}_{name}"]


def _clipped(row: Row, size: float, axis: str, ramp: float) -> None:
    """An amplifier that saturates: what is loud gets weaker, and its distortion lies everywhere."""
    _louder(row, axis, (3, 4), 1 - 0.3 * size * ramp)
    for band in (1, 2, 5, 6, 7):
        row[f"{axis}_band_{band}"] += ramp * (0.01 * size) ** 2 * (band + 1)


def _teeth(row: Row, size: float, axis: str, ramp: float) -> None:
    """Worn teeth: the gear mesh on every axis."""
    del axis
    for one in _AXES:
        _louder(row, one, _TOOTH, 1 + 0.8 * size * ramp)


def _crack(row: Row, size: float, axis: str, ramp: float) -> None:
    """A crack: the housing rings lower than it did."""
    del axis
    for one in _AXES:
        _louder(row, one, (_HOUSE,), 1 - 0.25 * size * ramp)
        _louder(row, one, (5,), 1 + 0.6 * size * ramp)


def _foundation(row: Row, size: float, axis: str, ramp: float) -> None:
    """Loose bolts of the foundation: everything slow, mostly on one axis."""
    for one in _AXES:
        _louder(row, one, (0, 1, _MIDDLE), 1 + (1.0 if one == axis else 0.4) * size * ramp)


def _leak(row: Row, size: float, axis: str, ramp: float) -> None:
    """A pump that leaks: pressure falls, and its motor works harder for it."""
    del axis
    row["hydraulic_pressure"] *= 1 - 0.12 * size * ramp
    row["motor_current"] *= 1 + 0.08 * size * ramp


def _cooling(row: Row, size: float, axis: str, ramp: float) -> None:
    """The oil cooler is clogged: the oil gets hot, and the bearing with it by half."""
    del axis
    row["oil_temperature"] += 8 * size * ramp
    row["bearing_temperature"] += 4 * size * ramp


STRANGE: dict[str, tuple[str, Change]] = {
    "hum": ("sensor", _hum),
    "swapped": ("sensor", _swapped),
    "clipped": ("sensor", _clipped),
    "teeth": ("machine", _teeth),
    "crack": ("machine", _crack),
    "foundation": ("machine", _foundation),
    "leak": ("machine", _leak),
    "cooling": ("machine", _cooling),
}
"""Kind → whose fault it is, and what it does to a row."""


def strange(which: str, share: float = 1.0) -> Iterator[Strange]:
    """Every kind on every sound episode of a set; a `share` of them for a quick run."""
    sound = [episode for episode in draw(which, share) if episode.group == "none"]
    for number, (kind, (family, _)) in enumerate(STRANGE.items()):
        for episode in sound:
            rng = np.random.default_rng([episode.seed, number])
            yield Strange(episode, kind, family, str(rng.choice(list(_AXES))), float(rng.uniform(0.6, 2.0)))


def rows(one: Strange) -> pa.Table:
    """The rows of an episode with what is wrong with it."""
    (batch,) = rows_of(one.episode).combine_chunks().to_batches()
    changed = []
    for row in as_dicts(batch):
        since = (row["at"] - START) / SECOND - _ONSET
        if since >= 0:
            STRANGE[one.kind][1](row, one.size, one.axis, min(1.0, (since + 1) / 8))
        changed.append(row)
    return pa.Table.from_pylist(changed, schema=batch.schema)


def judged(one: Strange) -> Outcome:
    """What is said of it."""
    outcome = judge(one.episode, rows(one))
    episode = structs.replace(one.episode, name=f"{one.kind}-{one.episode.name}", group=f"strange/{one.kind}")
    return Outcome(episode, outcome.said, outcome.seconds)


def table(outcomes: Sequence[Outcome]) -> str:
    """What was said of each kind: `unknown`, its family, or the wrong one at any moment."""
    body = []
    for kind, (family, _) in STRANGE.items():
        of = [one for one in outcomes if one.episode.group == f"strange/{kind}"]
        wrong = [one for one in of if any(said.family not in (family, "unknown") for said in one.said)]
        right = [one for one in of if one not in wrong and any(said.family == family for said in one.said)]
        unknown = [one for one in of if one not in wrong and one not in right and one.said]
        silent = len(of) - len(wrong) - len(right) - len(unknown)
        body.append(
            [kind, family, *(str(len(part) or "") for part in (unknown, right, wrong)), str(silent or "")]
        )
    return in_table(["what", "whose fault", "unknown", "right family", "wrong family", "nothing said"], body)
