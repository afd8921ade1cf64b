"""Kills a running product again and again, and holds what is left against a run nobody disturbed.

    with Killer() as killer:
        Round(killer, folder, recorded, seed=1, kills=20).run()

The recording holds what a plant really sends: readings twice, readings far too late, messages that are none.
Each life is given a share of it, so that every life has something to do when it is killed.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.bus.log import EventLog
from boucle.lake.sql import Sql
from boucle.ports import WIRE
from tests.loop.killed_product.victim import HERE, MOMENTS, Ended, Life

__all__ = ["TABLES", "Difference", "Killer", "Recorded", "Round", "compare", "read_tables", "record"]

START = 1_790_000_000_000_000_000
STEP = 200_000_000
"""Nanoseconds between two readings."""
_BLOCK = 20
_MACHINES = ("pump-1", "pump-2", "pump-3")

LOGGED = {
    "readings_raw": "readings", "readings_late": "readings.late", "sums": "sums", "trend": "trend",
    "events": "events",
}  # fmt: skip
"""Table → the folder of its log."""
TABLES = (*LOGGED, "quarantine")
_WALL_CLOCK = {"quarantine": {"at"}}
_ONLY = {"events": "where kind = 'high'"}
"""Not what is said of disks and connections, which each life has its own of."""

Rows = Mapping[str, Counter[tuple[Any, ...]]]


class Recorded(Struct, frozen=True):
    """A recording, and what its maker knows of it."""

    file: Path
    blocks: int
    rows: int
    duplicates: int


def record(file: Path, rows: int, seed: int = 1, step: int = STEP) -> Recorded:
    """Write `rows` messages as an Arrow file; one in ten is a duplicate, late, or no reading at all."""
    chance = random.Random(seed)
    sent: list[bytes] = []
    good: list[tuple[int, bytes]] = []
    late: list[bytes] = []
    duplicates = 0
    for number in range(rows):
        told: dict[str, Any] = {
            "machine": _MACHINES[number % 3],
            "seq": number,
            "at": START + number * step,
            "value": round(chance.gauss(10, 3), 3),
        }
        lot = chance.random()
        if number > 300 and lot < 0.04:
            # Twice: mostly soon after, sometimes minutes later.
            back = 200 if lot < 0.03 else 4000
            text = good[-chance.randint(1, min(back, len(good)))][1]
            duplicates += 1
        elif number > 300 and lot < 0.06:
            told["at"] -= chance.randint(60, 300) * 5 * step
            text = _text(told)
            late.append(text)
        elif late and lot < 0.065:
            text = chance.choice(late[-5:])
            duplicates += 1
        elif lot < 0.08:
            text = chance.choice((b"{", b"[1,", b'{"machine": "pump-1"}', b"\xff\xfe", b"[]"))
        elif lot < 0.10:
            told["value"] = chance.choice((1e6, -999.0, "much"))
            text = _text(told)
        else:
            text = _text(told)
            good.append((number, text))
        sent.append(text)
    columns = {
        "topic": [f"pumps/{number % 3}" for number in range(rows)],
        "payload": sent,
        "received": [START + number * step for number in range(rows)],
        "retained": [False] * rows,
    }
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_file(out, WIRE) as writer:
        writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=WIRE))
    return Recorded(file, -(-rows // _BLOCK), rows, duplicates)


def _text(told: dict[str, Any]) -> bytes:
    seconds, nanos = divmod(told["at"], 10**9)
    at = f"{_utc(seconds)}.{nanos:09d}Z"
    return json.dumps({**told, "at": at}).encode()


def _utc(seconds: int) -> str:
    import datetime as dt

    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


class Killer:
    """The process that forks the victims; `modules` are imported once, before the first."""

    def __init__(self, *modules: str) -> None:
        words = [sys.executable, "-m", "tests.loop.killed_product.victim", *modules]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def live(self, life: Life) -> Ended:
        """One life, to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(life).decode() + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        assert said, "the parent of the victims is gone"
        return msgspec.json.decode(said, type=Ended)


def read_tables(folder: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """Every row of every table, through SQL as anybody would read it; times of the wall clock left out."""
    lake = Sql(folder / "lake")
    found = {}
    there = {table.name for table in lake.tables()}
    for name in TABLES:
        rows = lake.query(f"select * from {name} {_ONLY.get(name, '')}") if name in there else pa.table({})
        names = sorted(set(rows.column_names) - _WALL_CLOCK.get(name, set()))
        columns = [rows.column(one).to_pylist() for one in names]
        found[name] = Counter(zip(*columns, strict=True))
    lake.close()
    return found


class Difference(Struct, frozen=True):
    """Rows of an undisturbed run that are missing, and rows it does not have, or not so often."""

    lost: dict[str, int]
    doubled: dict[str, int]

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled)


def compare(ours: Rows, undisturbed: Rows) -> Difference:
    """Row for row, as often as each is there."""
    lost = {name: (undisturbed[name] - ours[name]).total() for name in TABLES}
    doubled = {name: (ours[name] - undisturbed[name]).total() for name in TABLES}
    return Difference(
        {name: count for name, count in lost.items() if count},
        {name: count for name, count in doubled.items() if count},
    )


def logged(folder: Path) -> dict[str, int]:
    """How many durable rows the log of each table holds."""
    return {
        name: sum(len(block) for block in EventLog(folder / "log" / log).read())
        for name, log in LOGGED.items()
        if (folder / "log" / log).exists()
    }


class Round:
    """One folder, its lives and deaths, and its last life, which nobody disturbs."""

    def __init__(
        self,
        killer: Killer,
        folder: Path,
        recorded: Recorded,
        *,
        seed: int,
        kills: int,
        moments: list[str] | None = None,
        keeper: float = 0.0,
        longest: float = 0.8,
        product: Path = HERE,
    ) -> None:
        self.folder, self.recorded, self.kills = folder, recorded, kills
        self.ended: list[Ended] = []
        self._killer, self._keeper, self._longest, self._product = killer, keeper, longest, str(product)
        self._chance = random.Random(seed)
        self._moments = (
            [one for one in MOMENTS if not one.startswith("score")] if moments is None else moments
        )

    @property
    def by_moment(self) -> Counter[str]:
        """Kills by the moment they met."""
        found = Counter(one.killed for one in self.ended if one.killed)
        found["keeper"] = sum(one.keepers_killed for one in self.ended)
        return +found

    def life(self, number: int) -> Life:
        """The next life: most of them die at a moment, the others by the clock."""
        chance = self._chance
        moment = chance.choice(self._moments) if self._moments and chance.random() < 0.8 else ""
        keeper = chance.random() < self._keeper
        # What happens a few times a second is not met in the shortest lives.
        rare = moment.startswith(("lake", "tables", "checkpoint"))
        longest = self._longest * (4 if rare else 2 if moment or keeper else 1)
        share = self.recorded.blocks * (number + 1) // (self.kills + 1)
        return Life(
            str(self.folder),
            str(self.recorded.file),
            self._product,
            upto=max(1, share),
            after=longest if moment else chance.uniform(0.02, longest),
            moment=moment,
            skip=chance.randrange(MOMENTS[moment][1]) if moment else 0,
            keeper=keeper and not rare,
            keeper_after=chance.uniform(0.2, longest) if keeper and chance.random() < 0.5 else None,
            pause=chance.choice((0.0, 0.002, 0.01)),
        )

    def run(self) -> Ended:
        """All deaths, then the last life to the end; gives what it said."""
        for number in range(self.kills):
            self.ended.append(self._killer.live(self.life(number)))
            if not self.ended[-1].killed:
                return self.ended[-1]
        return self.last()

    def last(self) -> Ended:
        """One life that nobody disturbs."""
        ended = self._killer.live(Life(str(self.folder), str(self.recorded.file), self._product))
        self.ended.append(ended)
        return ended
