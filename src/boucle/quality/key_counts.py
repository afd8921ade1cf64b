"""How often each key was seen: exact, whatever the order and the cut, in bounded memory.

The newest keys are in a hash table; once there are `memory_keys` of them they become a sorted run on disk, and runs
of like size are merged (a log-structured merge tree: O'Neil et al., "The log-structured merge-tree", 1996), streamed
through memory-mapped files. Two states are merged by counting the runs of one into the other. So uniqueness holds
across Blocks, files and restarts. What a key is, and how two may be taken for one: `key_hash`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boucle.quality.key_hash import Keys
from boucle.quality.key_table import accumulate, find_or_insert, look_up, merge_runs, rehash, union_size

__all__ = ["MEMORY_KEYS", "KeyCounts"]

MEMORY_KEYS = 2_000_000
"""Keys kept in memory before they go to disk: about 100 MB at most."""
_FEW_SLOTS = 1 << 14
_OWN, _BASE = 2, 3
"""Columns of a slot: see `key_table`."""
_FENCE_BITS = 16
_PIECE = 1 << 16
_HEADER = 128
"""Bytes of an array file before its values."""


class _Run(NamedTuple):
    """Sorted by `first`, then `second`; each key once, with how often it was seen."""

    first: Any
    second: Any
    count: Any
    fences: Any
    """Where the keys of each first bits begin, and the end."""
    name: str


class KeyCounts:
    """A multiset of keys. `folder` is where it spills to, made when needed; without one all stays in memory."""

    def __init__(self, folder: Path | None = None, memory_keys: int = MEMORY_KEYS) -> None:
        self._folder, self._memory_keys = folder, memory_keys
        self._table = _slots(_FEW_SLOTS)
        self._used = 0
        self._runs: list[_Run] = []
        self._files = 0
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
        self._reserve(len(first))
        slots = np.empty(len(first), np.int64)
        self._used += find_or_insert(self._table, first, second, slots)
        new = np.flatnonzero(slots < 0)
        slots[new] = -1 - slots[new]
        if self._runs and len(new):
            self._table[slots[new], _BASE] = self._on_disk(first[new], second[new])
        accumulate(self._table, slots, weights, before, self._told)
        if self._folder is not None and self._used > self._memory_keys:
            self._spill(self._folder)
        return before > 0

    def merge(self, other: "KeyCounts") -> None:
        """Count in everything `other` has seen."""
        for first, second, count in other.pieces():
            self.add((first, second), count)

    def count(self, keys: Keys) -> Any:
        """How often each was seen."""
        first, second = (np.ascontiguousarray(part) for part in keys)
        return self._counted(first, second, _run(*self._held(), ""))

    def _counted(self, first: Any, second: Any, held: _Run) -> Any:
        found = self._on_disk(first, second)
        look_up(held.first, held.second, held.count, held.fences, first, second, found)
        return found

    def missing(self, other: "KeyCounts") -> int:
        """How many of all the keys counted here `other` has never seen."""
        held = _run(*other._held(), "")  # noqa: SLF001 - another of the same kind; sorted once for all pieces
        return sum(
            int(count[other._counted(first, second, held) == 0].sum())  # noqa: SLF001
            for first, second, count in self.pieces()
        )

    def pieces(self) -> Iterator[tuple[Any, Any, Any]]:
        """Keys and counts, some at a time; a key may come in several pieces, its counts then add up."""
        for run in [*self._runs, _run(*self._held(), "")]:
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

    def _on_disk(self, first: Any, second: Any) -> Any:
        found = np.zeros(len(first), np.int64)
        for run in self._runs:
            look_up(run.first, run.second, run.count, run.fences, first, second, found)
        return found

    def _held(self) -> tuple[Any, Any, Any]:
        """What is in the table, sorted."""
        taken = self._table[self._table[:, _OWN] != 0]
        first, second, count = taken[:, 0], taken[:, 1], taken[:, _OWN].astype(np.int64)
        order = np.argsort(first)
        ordered = first[order]
        if (ordered[1:] == ordered[:-1]).any():
            order = np.lexsort((second, first))
        return first[order], second[order], count[order]

    def _spill(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._runs.append(self._written(folder, *self._held()))
        self._table, self._used = _slots(_FEW_SLOTS), 0
        while len(self._runs) > 1 and len(self._runs[-2].first) < 2 * len(self._runs[-1].first):
            one, other = self._runs.pop(), self._runs.pop()
            self._runs.append(self._joined(folder, one, other))

    def _joined(self, folder: Path, one: _Run, other: _Run) -> _Run:
        size = union_size(one.first, one.second, other.first, other.second)
        name = self._name()
        (folder / name).mkdir()
        parts = [
            np.lib.format.open_memmap(folder / name / f"{part}.npy", "w+", kind, (size,))
            for part, kind in (("first", np.uint64), ("second", np.uint64), ("count", np.int64))
        ]
        merge_runs(one.first, one.second, one.count, (other.first, other.second, other.count),
                   tuple(np.asarray(part) for part in parts))  # fmt: skip
        for part in parts:
            part.flush()
        del parts
        return _mapped(folder, name)

    def _written(self, folder: Path, first: Any, second: Any, count: Any) -> _Run:
        name = self._name()
        (folder / name).mkdir()
        for part, values in (("first", first), ("second", second), ("count", count)):
            np.save(folder / name / f"{part}.npy", values)
        return _mapped(folder, name)

    def _name(self) -> str:
        self._files += 1
        return f"{self._files:08d}"

    # ── kept across restarts ──────────────────────────────────────────────────────────────────

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what is in memory into `folder`, where it spills to; the answer is what `load` needs.

        Files of before are still there, so that a crash before the answer is kept loses nothing: `sweep` removes them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        held = self._written(folder, *self._held()).name
        runs = [run.name for run in self._runs]
        return {"held": held, "runs": runs, "files": self._files, "told": self._told.tolist()}

    def load(self, folder: Path, told: dict[str, Any]) -> None:
        """Go on from what `save` told."""
        self._runs = [_mapped(folder, name) for name in told["runs"]]
        self._files = told["files"]
        held = _mapped(folder, told["held"])
        self.add((np.array(held.first), np.array(held.second)), np.array(held.count))
        self._told = np.array(told["told"], np.int64)

    @staticmethod
    def sweep(folder: Path, told: dict[str, Any]) -> None:
        """Remove the runs that `told` does not name."""
        kept = {told["held"], *told["runs"]}
        for found in folder.iterdir():
            if found.name not in kept and found.is_dir():
                shutil.rmtree(found)


def _slots(size: int) -> Any:
    return np.zeros((size, 4), np.uint64)


def _run(first: Any, second: Any, count: Any, name: str) -> _Run:
    bits = max(1, min(_FENCE_BITS, len(first).bit_length() - 6))
    edges = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    fences = np.append(np.searchsorted(first, edges), len(first))
    return _Run(first, second, count, fences, name)


def _mapped(folder: Path, name: str) -> _Run:
    files = [folder / name / f"{part}.npy" for part in ("first", "second", "count")]
    # Never written to; but what is read-only is another type to the compiler, and would be compiled for anew.
    empty = files[0].stat().st_size <= _HEADER
    parts = [np.asarray(np.load(file, mmap_mode=None if empty else "c")) for file in files]
    return _run(parts[0], parts[1], parts[2], name)
