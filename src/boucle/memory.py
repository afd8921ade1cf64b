"""Memory that compiled code reaches by address, and arenas that grow without moving.

A compiled function that takes an address costs a microsecond to call, one that takes a dozen arrays ten.
"""

import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["Arena", "Paged", "bytes_at", "copy", "words_at"]

Ints = NDArray[np.int64]

_SMALL = 1 << 22
"""Bytes of an arena in ordinary pages: below it huge pages would waste more than they save."""
_LEAST = 1 << 26
PAGE = 1 << 18
"""Bytes of a page: what a checkpoint takes anew when something in it changed."""


_memmove: Any = cgutils.raw_memmove
_carray: Any = numba.carray  # type: ignore[attr-defined]


def _to_pointer(_context: Any, address: Any) -> Any:
    signature = types.voidptr(types.int64)

    def build(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        return builder.inttoptr(given[0], cgutils.voidptr_t)

    del address
    return signature, build


_pointer: Any = intrinsic(_to_pointer)


@numba.njit(inline="always")
def words_at(address: int, count: int) -> Ints:
    """`count` whole numbers (int64) that lie at `address`; only for compiled code."""
    words: Ints = _carray(_pointer(address), count, np.int64)
    return words


@numba.njit(inline="always")
def bytes_at(address: int, count: int) -> NDArray[np.uint8]:
    """`count` bytes that lie at `address`; only for compiled code."""
    found: NDArray[np.uint8] = _carray(_pointer(address), count, np.uint8)
    return found


def _to_move(_context: Any, to: Any, source: Any, count: Any) -> Any:
    signature = types.void(types.int64, types.int64, types.int64)

    def build(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        into, out = (builder.inttoptr(address, cgutils.voidptr_t) for address in given[:2])
        _memmove(builder, into, out, given[2], 1)

    del to, source, count
    return signature, build


_move: Any = intrinsic(_to_move)


@numba.njit(inline="always")
def copy(to: int, source: int, count: int) -> None:
    """Copy `count` bytes from one address to another; only for compiled code."""
    _move(to, source, count)


class Arena:
    """Rows of `width` int64 that start at zero and do not move while they grow.

    Half of the machine's memory is reserved as addresses, which costs nothing until it is written to; so
    nobody waits while rows are copied into a larger place. Beyond the first few megabytes the system is asked
    for huge pages: keys are found at random, and with small pages each look-up would also miss the processor's
    table of pages.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows: Ints = _reserved(width, _memory() // 2)

    @property
    def address(self) -> int:
        """Where the first row lies."""
        return int(self.rows.ctypes.data)

    def reach(self, rows: int) -> None:
        """Make room for at least so many rows; they move only when more was asked for than was reserved."""
        if rows > len(self.rows):
            more = _reserved(self.width, 2 * 8 * self.width * rows)
            more[: len(self.rows)] = self.rows
            self.rows = more


class Paged(Arena):
    """An arena that knows which of its pages changed: compiled code writes 1 into `flags[row // rows_a_page]`."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.rows_a_page = PAGE // (8 * width)
        self._all_changed()

    def _all_changed(self) -> None:
        self.flags = np.ones(1 + len(self.rows) // self.rows_a_page, np.int64)

    def reach(self, rows: int) -> None:
        """Make room for at least so many rows; they move only when more was asked for than was reserved."""
        if rows > len(self.rows):
            super().reach(rows)
            self._all_changed()

    def pages(self, used: int, *, everything: bool) -> dict[int, bytes]:
        """The pages of the first `used` rows that changed since `settled`, or all."""
        number = -(-used // self.rows_a_page)
        which = range(number) if everything else np.flatnonzero(self.flags[:number]).tolist()
        return {
            page: self.rows[page * self.rows_a_page : min((page + 1) * self.rows_a_page, used)].tobytes()
            for page in which
        }

    def settled(self) -> None:
        """From now on nothing has changed."""
        self.flags[:] = 0

    def load(self, pages: Iterable[tuple[int, bytes]], used: int) -> None:
        """Continue from stored pages of the first `used` rows, taken one after the other."""
        self.reach(used)
        for page, stored in pages:
            if page * self.rows_a_page >= used:
                continue  # of a longer past
            held = np.frombuffer(stored, np.int64).reshape(-1, self.width)
            self.rows[page * self.rows_a_page : page * self.rows_a_page + len(held)] = held


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _reserved(width: int, size: int) -> Ints:
    while True:
        try:
            held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            break
        except OSError:  # a limit on addresses: less will do for now
            if size <= _LEAST:
                raise
            size //= 2
    if hasattr(mmap, "MADV_HUGEPAGE") and size > _SMALL:
        with suppress(OSError):  # a kernel without them: only slower
            held.madvise(mmap.MADV_HUGEPAGE, _SMALL, size - _SMALL)
    words = size // 8 // width * width
    return np.frombuffer(held, np.int64, words).reshape(-1, width)
