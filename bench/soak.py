"""Kill a running product a thousand times, and count the rows lost and doubled: `python -m bench.soak --kills 1000`.

Two loops at a time, each killed some forty times (at a named moment, or by the clock) until its input ends,
then held row for row against a run nobody disturbed. Progress goes to standard error.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.loop.killing import Killer, Recorded, Round, compare, read_tables, record

from bench.figures import Figure, Options, figure, publish

ROWS = 6000
ROUND = 40
LONGEST = 0.6


class Soak:
    """Rounds of kills until there were enough, and what they showed."""

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self.kills: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.doubled: Counter[str] = Counter()
        self.failures: list[str] = []
        self.rows = 0
        self.unaccounted = 0
        self._folder, self._wanted = folder, kills
        self._seeds = iter(range(seed, seed + 10**6))
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._recorded: Recorded = record(folder / "input.arrow", ROWS, seed)
        with Killer() as killer:
            Round(killer, folder / "whole", self._recorded, seed=0, kills=0).run()
        self._whole = read_tables(folder / "whole")

    def work(self) -> None:
        """One of the workers."""
        with Killer() as killer:
            while (seed := self._next()) is not None:
                keeper = 0.3 if seed % 2 else 0.0
                folder = self._folder / f"round-{seed}"
                one = Round(
                    killer, folder, self._recorded, seed=seed, kills=ROUND, keeper=keeper, longest=LONGEST
                )
                failure = one.run().failure
                self._book(seed, one, failure)

    def _next(self) -> int | None:
        with self._lock:
            return next(self._seeds) if self.kills.total() < self._wanted else None

    def _book(self, seed: int, one: Round, failure: str) -> None:
        tables = read_tables(one.folder)
        found = compare(tables, self._whole)
        there = sum(tables[name].total() for name in ("readings_raw", "readings_late", "quarantine"))
        with self._lock:
            self.kills += one.by_moment
            self.lost.update(found.lost)
            self.doubled.update(found.doubled)
            self.rows += sum(rows.total() for rows in tables.values())
            self.unaccounted += abs(self._recorded.rows - there - self._recorded.duplicates)
            self.failures += [f"seed {seed}: {failure}"] if failure else []
            said = f"{self.kills.total()} kills, {self.rows} rows compared, {self.lost.total()} lost"
            said += f", {self.doubled.total()} doubled, {self.seconds:.0f} s"
            sys.stderr.write(f"{said}{f', seed {seed}: {found}' if found else ''}\n")

    @property
    def seconds(self) -> float:
        """Since the soak began."""
        return time.monotonic() - self._begun

    def figures(self) -> list[Figure]:
        """What to publish."""
        return [
            figure("soak_kills", self.kills.total(), "kills"),
            figure("soak_moments", len(self.kills), "moments"),
            figure("soak_rows_compared", self.rows, "rows"),
            figure("soak_rows_lost", self.lost.total(), "rows", goal="<= 0"),
            figure("soak_rows_doubled", self.doubled.total(), "rows", goal="<= 0"),
            figure("soak_rows_unaccounted", self.unaccounted, "rows", goal="<= 0"),
            figure("soak_seconds", self.seconds, "s"),
        ]


def main() -> int:
    """Soak, publish; 1 when a row was lost or doubled."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="how many at least (1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the recording and of the moments (1)")
    parser.add_argument("--quick", action="store_true", help="end within a minute: 60 kills")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), 60 if asked.quick else asked.kills, asked.seed)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(soak.work) for _ in range(2)]:
                done.result()
    publish(soak.figures(), Options(quick=asked.quick, json=asked.json))
    if not asked.json:
        for moment, count in sorted(soak.kills.items()):
            print(f"{count:6}  {moment}")
    for failure in soak.failures:
        sys.stderr.write(f"{failure}\n")
    return 1 if soak.lost or soak.doubled or soak.unaccounted or soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
