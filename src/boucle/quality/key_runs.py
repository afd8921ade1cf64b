"""Sorted runs of counted keys on disk: written once, mapped into memory, merged with another, never changed.

A run has a filter, read before its keys are: a word of 64 bits for some six keys, in which each key sets four bits
(a blocked Bloom filter: Putze, Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters", 2007). Of keys
that a run does not have about one in fifty is looked for in vain, and the others cost one read of memory.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boucle.quality.key_table import fill_filter, gather, look_up, merge_runs, union_size

__all__ = ["Run", "map_run", "merge", "remove", "table_run", "write_run"]

_FENCE_BITS = 16
_KEYS_PER_WORD = 6
_PARTS = (("first", np.uint64), ("second", np.uint64), ("count", np.int64), ("filter", np.uint64))
_HEADER = 128
"""Bytes of an array file before its values."""
_ALL = np.full(1, 2**64 - 1, np.uint64)
"""A filter that lets every key pass."""


class Run(NamedTuple):
    """Sorted by `first`, then `second`; each key once, with how often it was seen."""

    first: Any
    second: Any
    count: Any
    filter: Any
    fences: Any
    """Where the keys of each first bits begin, and the end."""
    name: str

    def count_into(self, first: Any, second: Any, found: Any) -> None:
        """Add to `found` how often each key is here."""
        look_up(self.first, self.second, self.count, self.fences, self.filter, first, second, found)


def _run(first: Any, second: Any, count: Any, filter_: Any, name: str) -> Run:
    bits = max(1, min(_FENCE_BITS, len(first).bit_length() - 6))
    edges = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    fences = np.append(np.searchsorted(first, edges), len(first))
    return Run(first, second, count, filter_, fences, name)


def table_run(table: Any) -> Run:
    """What a hash table (`key_table`) counted, sorted, in memory."""
    first, second, count = gather(table)
    order = np.argsort(first)
    ordered = first[order]
    if (ordered[1:] == ordered[:-1]).any():  # two keys share a half by chance
        order = np.lexsort((second, first))
        ordered = first[order]
    return _run(ordered, second[order], count[order], _ALL, "")


def write_run(folder: Path, name: str, run: Run) -> Run:
    """A run of memory as one on disk."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    words = _words(len(run.first))
    fill_filter(run.first, words)
    for (part, _), values in zip(_PARTS, (run.first, run.second, run.count, words), strict=True):
        np.save(folder / name / f"{part}.npy", values)
    return map_run(folder, name)


def _words(keys: int) -> Any:
    return np.zeros(1 << max(0, (keys // _KEYS_PER_WORD).bit_length()), np.uint64)


def merge(folder: Path, name: str, one: Run, other: Run) -> Run:
    """Two runs as one on disk, streamed through memory-mapped files."""
    size = union_size(one.first, one.second, other.first, other.second)
    (folder / name).mkdir(exist_ok=True)
    words = _words(size)
    sizes = (size, size, size, len(words))
    parts = [
        np.lib.format.open_memmap(folder / name / f"{part}.npy", "w+", kind, (length,))
        for (part, kind), length in zip(_PARTS, sizes, strict=True)
    ]
    into = tuple(np.asarray(part) for part in parts)
    merge_runs(one.first, one.second, one.count, (other.first, other.second, other.count), into[:3])
    fill_filter(into[0], into[3])
    del into, parts
    return map_run(folder, name)


def map_run(folder: Path, name: str) -> Run:
    """A run that was written."""
    files = [folder / name / f"{part}.npy" for part, _ in _PARTS]
    # Never written to; but what is read-only is another type to the compiler, and would be compiled for anew.
    empty = files[0].stat().st_size <= _HEADER
    parts = [
        np.asarray(np.load(file, mmap_mode=None if empty else "c")) if file.exists() else _ALL
        for file in files
    ]
    return _run(parts[0], parts[1], parts[2], parts[3], name)


def remove(folder: Path, name: str) -> None:
    """A run that nobody asks for any more; who has it mapped keeps it."""
    shutil.rmtree(folder / name, ignore_errors=True)
