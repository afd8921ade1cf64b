"""Two presses beside each other: what the second one is worth as a witness for the first.

    hall      the same hall around both gets warmer or colder: nobody's fault
    alone     the bearing thermometer of one drifts; neither press has one for its oil
    together  both thermometers of one press drift by the same (one faulty input card)

Each is judged with `fleet` and without it. `hall` is simulated; the other two are done to rows of sound presses.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from msgspec import Struct

from bench.attribution.episodes import SETS, Episode
from bench.attribution.page import in_table
from bench.attribution.rows import START, rows_of
from boucle.block import Block, Position, as_dicts
from boucle.clock import SECOND
from boucle.drift import Attribute
from boucle.testing.scenario import Operation, Scenario

__all__ = ["KINDS", "Fleet", "fleets", "judged", "table"]

PRESSES = ("press-1", "press-2")
_ONSET = 18.0
_SECONDS = 58.0
_RIGHT = {"hall": ("none", "operation"), "alone": ("sensor",), "together": ("sensor", "unknown")}
"""What the first press may be told; the second is sound."""


KINDS = tuple(_RIGHT)


class Fleet(Struct, frozen=True):
    """Two presses and what happens to them, by `size` in °C."""

    kind: str
    episode: Episode
    size: float


def fleets(which: str, count: int) -> Iterator[Fleet]:
    """So many of each kind; `alone` and `together` share their sound rows."""
    for number in range(2 * count):
        seed = SETS[which] + 80_000 + number
        rng = np.random.default_rng(seed)
        size = float(rng.choice([-1.0, 1.0]) * rng.uniform(3, 9))
        hall = number < count
        changes = tuple(Operation(machine=one, at=_ONSET, ambient=size) for one in PRESSES) if hall else ()
        speed, load = float(rng.uniform(26, 41)), float(rng.uniform(0.85, 1.15))
        scenario = Scenario(machines=PRESSES, speed=speed, load=load, duration=_SECONDS, operation=changes)
        kinds = ("hall",) if hall else ("alone", "together")
        episode = Episode(f"{which}-fleet-{number:03d}", f"fleet/{kinds[0]}", seed, scenario)
        for kind in kinds:
            yield Fleet(kind, episode, size)


def rows(one: Fleet) -> pa.Table:
    """The rows of both presses, in the order they come."""
    (batch,) = rows_of(one.episode).combine_chunks().to_batches()
    changed = []
    for row in as_dicts(batch):
        drifted = row["machine"] == PRESSES[0] and (row["at"] - START) / SECOND >= _ONSET
        if drifted and one.kind != "hall":
            row["bearing_temperature"] += one.size
        if drifted and one.kind == "together":
            row["oil_temperature"] += one.size
        if one.kind == "alone":
            row.update(dict.fromkeys(name for name in row if name.startswith("oil_")))
        changed.append(row)
    return pa.Table.from_pylist(changed, schema=batch.schema)


def judged(one: Fleet) -> tuple[bool, bool]:
    """Whether what is said of both presses is right: without the fleet, and with it."""
    (batch,) = rows(one).combine_chunks().to_batches()
    found = []
    for fleet in (False, True):
        (out,) = Attribute("verdicts", fleet=fleet).step(Block("health", batch, 0, Position("rows", 0)))
        said: dict[str, list[str]] = {}
        for row in out.rows.to_pylist():
            said.setdefault(row["machine"], []).append(row["family"])
        calm = {"none", "operation"}
        first = set(said[PRESSES[0]]) - calm
        right = first <= set(_RIGHT[one.kind]) and bool(first) == (one.kind != "hall")
        found.append(right and set(said[PRESSES[1]]) <= calm)
    return found[0], found[1]


def table(told: Mapping[str, Sequence[tuple[bool, bool]]]) -> str:
    """How often both presses were told what is right."""
    shown = {"hall": "the hall, for both", "alone": "one thermometer, no other on the press",
             "together": "both thermometers of one press"}  # fmt: skip
    body = [
        [shown[kind], str(len(of)), *(f"{sum(one[index] for one in of)}" for index in (0, 1))]
        for kind, of in told.items()
    ]
    return in_table(["what moved", "episodes", "right, each press by itself", "right, as a fleet"], body)
