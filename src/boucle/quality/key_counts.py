"""How often each key was seen: exact, whatever the order and the cut, in bounded memory.

The newest keys are in a hash table. Once there are `memory_keys` of them another table is begun, and a thread makes a
sorted run on disk of the full one; runs of like size are merged beside (a log-structured merge tree: O'Neil et al.,
"The log-structured merge-tree", 1996). So whoever counts waits for neither disk nor sorting, unless two tables are
full before one is written. Two states are merged by counting the runs of one into the other. So uniqueness holds
across Blocks, files and restarts. What a key is, and how two may be taken for one: `key_hash`.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from boucle.quality.key_hash import Keys
from boucle.quality.key_runs import Run, map_run, merge, remove, table_run, write_run
from boucle.quality.key_table import accumulate, find, find_or_insert, rehash

__all__ = ["MEMORY_KEYS", "KeyCounts"]

MEMORY_KEYS = 300_000
"""Keys in a table before it goes to disk: 16 MB, and three tables at most. Small enough for a processor's caches,
which is what makes counting fast."""
_FEW_SLOTS = 1 << 14
_OWN, _BASE = 2, 3
"""Columns of a slot: see `key_table`."""
_PIECE = 1 << 16
_GROWS = 4
"""How much larger each older run is: few runs to ask, for as many bytes written as with 2."""
_WAITING = 2
"""Full tables that wait to be written, before whoever counts waits."""


class _Job:
    """Work of another thread. Nothing that it reads is changed meanwhile."""

    def __init__(self, work: Callable[[], Run]) -> None:
        self._work = work
        self._run: Run | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._do, name="boucle-keys", daemon=True)
        self._thread.start()

    def _do(self) -> None:
        try:
            self._run = self._work()
        except (OSError, MemoryError, ValueError) as error:
            self._error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Run:
        """Wait for it; what went wrong is raised here."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._run is not None
        return self._run


class KeyCounts:
    """A multiset of keys. `folder` is where it spills to, made when needed; without one all stays in memory."""

    def __init__(self, folder: Path | None = None, memory_keys: int = MEMORY_KEYS) -> None:
        self._folder, self._memory_keys = folder, memory_keys
        self._table = _slots(_FEW_SLOTS)
        self._used = 0
        self._full: list[Any] = []
        """Tables that are not on disk yet, oldest first."""
        self._old: list[Any] = []
        """What is read no more; the next job gives its memory back, which takes milliseconds."""
        self._runs: list[Run] = []
        self._writing: _Job | None = None
        self._merging: tuple[_Job, Run] | None = None
        self._files = 0
        self._named: set[str] = set()
        """Runs that the last `save` or `load` tells of: not to be removed."""
        self._told = np.zeros(3, np.int64)

    @property
    def distinct(self) -> int:
        """Different keys."""
        return int(self._told[0])

    @property
    def repeated(self) -> int:
        """Keys seen more than once."""
        return int(self._told[1])

    @property
    def total(self) -> int:
        """All of them together."""
        return int(self._told[2])

    def add(self, keys: Keys, weights: Any = None) -> Any:
        """Count keys in; True for each that had been seen before, in an earlier call or earlier in this one."""
        first, second = (np.ascontiguousarray(part) for part in keys)
        if weights is None:
            weights = np.ones(len(first), np.int64)
        before = np.empty(len(first), np.int64)
        if not len(first):
            return before > 0
        self._collect()
        self._reserve(len(first))
        slots = np.empty(len(first), np.int64)
        self._used += find_or_insert(self._table, first, second, slots)
        new = np.flatnonzero(slots < 0)
        slots[new] = -1 - slots[new]
        if (self._runs or self._full) and len(new):
            self._table[slots[new], _BASE] = self._elsewhere(first[new], second[new])
        accumulate(self._table, slots, weights, before, self._told)
        if self._folder is not None and self._used > self._memory_keys:
            self._begin_table()
        return before > 0

    def merge(self, other: "KeyCounts") -> None:
        """Count in everything `other` has seen."""
        for first, second, count in other.pieces():
            self.add((first, second), count)

    def count(self, keys: Keys) -> Any:
        """How often each was seen."""
        first, second = (np.ascontiguousarray(part) for part in keys)
        found = self._elsewhere(first, second)
        find(self._table, first, second, found)
        return found

    def missing(self, other: "KeyCounts") -> int:
        """How many of all the keys counted here `other` has never seen."""
        return sum(
            int(count[other.count((first, second)) == 0].sum()) for first, second, count in self.pieces()
        )

    def pieces(self) -> Iterator[tuple[Any, Any, Any]]:
        """Keys and counts, some at a time; a key may come in several pieces, its counts then add up."""
        self.settle()
        for run in [*self._runs, table_run(self._table)]:
            for begin in range(0, len(run.first), _PIECE):
                part = slice(begin, begin + _PIECE)
                yield run.first[part], run.second[part], run.count[part]

    def _reserve(self, rows: int) -> None:
        if (self._used + rows) * 5 > len(self._table) * 3:
            size = len(self._table)
            while (self._used + rows) * 5 > size * 3:
                size *= 2
            wider = _slots(size)
            rehash(self._table, wider)
            self._table = wider

    def _elsewhere(self, first: Any, second: Any) -> Any:
        """How often each key was seen before the table of now."""
        found = np.zeros(len(first), np.int64)
        for table in self._full:
            find(table, first, second, found)
        for run in self._runs:
            run.count_into(first, second, found)
        return found

    # ── to disk, beside ───────────────────────────────────────────────────────────────────────

    def _begin_table(self) -> None:
        self._full.append(self._table)
        self._table, self._used = _slots(len(self._table)), 0
        self._collect()
        while len(self._full) > _WAITING:
            self._written()

    def _collect(self) -> None:
        """Take over what other threads have finished, and give them what there is to do next."""
        if self._writing is not None and self._writing.done:
            self._written()
        if self._merging is not None and self._merging[0].done:
            self._merged()
        if self._folder is None:
            return
        if self._full and self._writing is None:
            folder, name, table = self._folder, self._name(), self._full[0]
            old, self._old = self._old, []
            self._writing = _Job(lambda: _written_run(folder, name, table, old))
        if self._merging is None and (pair := self._like()) is not None:
            folder, name, (one, other) = self._folder, self._name(), pair
            gone = [run.name for run in pair if run.name not in self._named]
            self._merging = _Job(lambda: _merged_run(folder, name, one, other, gone)), one

    def _like(self) -> tuple[Run, Run] | None:
        """Two neighbours of which the older is not much the larger."""
        for one, other in zip(self._runs[-2::-1], self._runs[:0:-1], strict=True):
            if len(one.first) < _GROWS * len(other.first):
                return one, other
        return None

    def _written(self) -> None:
        job, self._writing = self._writing, None
        if job is not None:  # where it failed, the table is still there, to be written anew
            self._runs.append(job.result())
            self._old.append(self._full.pop(0))
        if self._full:
            self._collect()

    def _merged(self) -> None:
        assert self._merging is not None
        (job, one), self._merging = self._merging, None
        at = next(place for place, run in enumerate(self._runs) if run is one)
        merged = job.result()
        self._old += self._runs[at : at + 2]
        self._runs[at : at + 2] = [merged]

    def settle(self) -> None:
        """Wait until no other thread works, and every full table is a run."""
        while self._full:
            self._collect()
            self._written()
        if self._merging is not None:
            self._merged()

    def _name(self) -> str:
        self._files += 1
        return f"{self._files:08d}"

    # ── kept across restarts ──────────────────────────────────────────────────────────────────

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what is in memory into `folder`, where it spills to; the answer is what `load` needs.

        Files of before are still there, so that a crash before the answer is kept loses nothing: `sweep` removes them.
        """
        self.settle()
        held = write_run(folder, self._name(), table_run(self._table)).name
        runs = [run.name for run in self._runs]
        self._named |= {held, *runs}
        return {"held": held, "runs": runs, "files": self._files, "told": self._told.tolist()}

    def load(self, folder: Path, told: dict[str, Any]) -> None:
        """Go on from what `save` told."""
        self._runs = [map_run(folder, name) for name in told["runs"]]
        self._named = {told["held"], *told["runs"]}
        self._files = told["files"]
        held = map_run(folder, told["held"])
        self.add((np.array(held.first), np.array(held.second)), np.array(held.count))
        self._told = np.array(told["told"], np.int64)

    def sweep(self, folder: Path, told: dict[str, Any]) -> None:
        """Remove the runs that `told` does not name, where no thread writes any."""
        self.settle()
        kept = {told["held"], *told["runs"]}
        for found in folder.iterdir():
            if found.name not in kept and found.is_dir():
                remove(folder, found.name)
        self._named = kept


def _written_run(folder: Path, name: str, table: Any, old: list[Any]) -> Run:
    old.clear()
    return write_run(folder, name, table_run(table))


def _merged_run(folder: Path, name: str, one: Run, other: Run, gone: list[str]) -> Run:
    made = merge(folder, name, one, other)
    for old in gone:  # still mapped, and read until the merged one takes their place
        remove(folder, old)
    return made


def _slots(size: int) -> Any:
    return np.zeros((size, 4), np.uint64)
