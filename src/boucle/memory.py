"""Memory that compiled code reaches by address, and arenas that grow without moving.

A compiled function that takes an address costs a microsecond to call, one that takes a dozen arrays ten.
"""

import mmap
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from boucle.compiled import compiled

__all__ = [
    "BOOK",
    "Arena",
    "Page",
    "Paged",
    "Under",
    "below",
    "bytes_at",
    "copy",
    "name_pages",
    "pages_of",
    "touch",
    "touch_all",
    "words_at",
]

_T = TypeVar("_T")
Ints = NDArray[np.int64]

_SMALL = 1 << 22
"""Bytes of an arena in ordinary pages: below it huge pages would waste more than they save."""
_LEAST = 1 << 26
PAGE = 1 << 17
"""Bytes of a page: what a checkpoint takes anew when something in it changed."""
_HALVINGS = 4
"""A page is copied in sixteen pieces, each when it is about to change: no event pays for a whole page."""


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
        self.rows: Ints = _reserved(width, _memory() // 2, _LEAST)

    @property
    def address(self) -> int:
        """Where the first row lies."""
        return int(self.rows.ctypes.data)

    def reach(self, rows: int) -> None:
        """Make room for at least so many rows; they move only when more was asked for than was reserved."""
        if rows > len(self.rows):
            bytes_of = 8 * self.width * rows
            more = _reserved(self.width, 2 * bytes_of, bytes_of)
            more[: len(self.rows)] = self.rows
            self.rows = more


# Of a book: addresses of the flags (one a page), of the claims (one a piece of a page), of the rows and of their
# copies; bytes of a piece; how many times a row's number is halved to get its page's, and its piece's.
_FLAGS, _CLAIMS, _LIVE, _COPIES, _BYTES, _PAGE_SHIFT, _PIECE_SHIFT, BOOK = 0, 1, 2, 3, 4, 5, 6, 7
_FREE, _ASKED, _COPIED = 0, 1, 2


@compiled
def _save(book: Ints, piece: int) -> None:
    at = book[_BYTES] * piece
    copy(book[_COPIES] + at, book[_LIVE] + at, book[_BYTES])
    words_at(book[_CLAIMS] + 8 * piece, 1)[0] = _COPIED


@numba.njit(inline="always")
def touch(book: Ints, row: int) -> None:
    """A row of a `Paged` is about to change; to be called before it does. Only for compiled code."""
    words_at(book[_FLAGS] + 8 * (row >> book[_PAGE_SHIFT]), 1)[0] = 1
    piece = row >> book[_PIECE_SHIFT]
    if words_at(book[_CLAIMS] + 8 * piece, 1)[0] == _ASKED:
        _save(book, piece)


@compiled
def touch_all(book: Ints, first: int, last: int) -> None:
    """Rows from `first` to `last` are about to change."""
    for piece in range(first >> book[_PIECE_SHIFT], (last >> book[_PIECE_SHIFT]) + 1):
        touch(book, piece << book[_PIECE_SHIFT])


@compiled
def _taken(book: Ints, first: int, count: int, into: int, room: int) -> None:
    """Copy pieces as they were when they were asked for; they are free then."""
    size = book[_BYTES]
    for index in range(count):
        piece = first + index
        claim = words_at(book[_CLAIMS] + 8 * piece, 1)
        source = book[_COPIES] if claim[0] == _COPIED else book[_LIVE]
        copy(into + size * index, source + size * piece, max(0, min(size, room - size * index)))
        claim[0] = _FREE


class Paged(Arena):
    """An arena whose changed pages can be taken as they are at one moment while it goes on changing.

    `pages` costs no copy: it gives a Page each, and whoever changes rows first calls `touch`, which copies a page
    that was asked for and not yet read. So a checkpoint of gigabytes holds nobody up. `lock` must be held by
    whoever changes rows; a Page takes it while it is read.
    """

    def __init__(self, width: int, lock: threading.Lock) -> None:
        super().__init__(width)
        self.lock = lock
        self._shift = max(_HALVINGS, (PAGE // (8 * width)).bit_length() - 1)
        self.rows_a_page = 1 << self._shift
        self._asked: dict[int, Page] = {}
        self._flags = np.zeros(0, np.int64)
        self.book = np.zeros(BOOK, np.int64)
        self._lay_out()

    def _lay_out(self) -> None:
        self._copies = _reserved(self.width, self.rows.nbytes, _LEAST)
        # Whole pages, and no row without a place for its copy.
        pages = min(len(self.rows), len(self._copies)) // self.rows_a_page
        self.rows = self.rows[: pages * self.rows_a_page]
        # What moved has not changed: its pages are known as they are.
        known, self._flags = self._flags, np.zeros(pages, np.int64)
        self._flags[: len(known)] = known[:pages]
        self._claims = np.zeros(pages << _HALVINGS, np.int64)
        piece = self._shift - _HALVINGS
        self.book[:] = (
            self._flags.ctypes.data, self._claims.ctypes.data, self.address, self._copies.ctypes.data,
            8 * self.width << piece, self._shift, piece,
        )  # fmt: skip

    def reach(self, rows: int) -> None:
        """Make room for at least so many rows; they move only when more was asked for than was reserved."""
        if rows > len(self.rows):
            for page in list(self._asked.values()):
                page.take()
            super().reach(rows + self.rows_a_page)
            self._lay_out()
            if rows > len(self.rows):
                raise MemoryError(f"room for {rows} rows and their copies")

    def pages(self, used: int, *, everything: bool) -> dict[int, "Page"]:
        """The pages of the first `used` rows that changed since the last call, or all, as they are now."""
        number = -(-used // self.rows_a_page)
        which = range(number) if everything else np.flatnonzero(self._flags[:number]).tolist()
        self._flags[:number] = 0
        given = {}
        for page in which:
            if page in self._asked:
                self._asked[page].take()  # of an earlier moment
            rows = min(self.rows_a_page, used - page * self.rows_a_page)
            given[page] = self._asked[page] = Page(self, page, 8 * self.width * rows)
            self._claims[page << _HALVINGS : (page + 1) << _HALVINGS] = _ASKED
        return given

    def touch(self, used: int) -> None:
        """The first `used` rows are about to change, all of them."""
        if used:
            touch_all(self.book, 0, used - 1)

    def read(self, page: int, size: int) -> memoryview:
        """A page that was asked for, as it was then."""
        held = np.empty(size, np.uint8)
        _taken(self.book, page << _HALVINGS, 1 << _HALVINGS, int(held.ctypes.data), size)
        del self._asked[page]
        return held.data

    def whole(self, used: int) -> dict[int, bytes]:
        """All pages of the first `used` rows, copied now."""
        number, step = -(-used // self.rows_a_page), self.rows_a_page
        return {
            page: self.rows[page * step : min((page + 1) * step, used)].tobytes() for page in range(number)
        }

    def load(self, pages: Iterable[tuple[int, bytes]], used: int) -> None:
        """Continue from stored pages of the first `used` rows, taken one after the other."""
        self.reach(used)
        for page, stored in pages:
            if page * self.rows_a_page >= used:
                continue  # of a longer past
            held = np.frombuffer(stored, np.int64).reshape(-1, self.width)
            self.rows[page * self.rows_a_page : page * self.rows_a_page + len(held)] = held
        self._flags[:] = 0


class Page:
    """A page as it was when it was asked for; `bytes` of it may be taken later, by another thread."""

    def __init__(self, arena: Paged, page: int, size: int) -> None:
        self._arena, self._page, self._size = arena, page, size
        self._bytes: memoryview | None = None

    def __len__(self) -> int:
        return self._size

    def take(self) -> memoryview:
        """The bytes; the lock of the arena must be held."""
        if self._bytes is None:
            self._bytes = self._arena.read(self._page, self._size)
        return self._bytes

    def __bytes__(self) -> bytes:
        with self._arena.lock:
            held = self.take()
        return bytes(held)


def name_pages(**kinds: Mapping[int, _T]) -> dict[str, _T]:
    """Pages of several arenas under one roof: `rings/17`."""
    return {f"{kind}/{page}": stored for kind, pages in kinds.items() for page, stored in pages.items()}


def pages_of(parts: Mapping[str, bytes], kind: str) -> Iterator[tuple[int, bytes]]:
    """The pages of one arena, by number; each is read when its turn comes."""
    for name in parts:
        if name.startswith(f"{kind}/"):
            yield int(name.removeprefix(f"{kind}/")), parts[name]


class Under(Mapping[str, bytes]):
    """The parts below a name; each is still read when it is asked for, so that one is held at a time."""

    def __init__(self, parts: Mapping[str, bytes], above: str) -> None:
        self._parts, self._above = parts, above
        self._names = [name.removeprefix(above) for name in parts if name.startswith(above)]

    def __getitem__(self, name: str) -> bytes:
        return self._parts[self._above + name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def below(name: str, parts: Mapping[str, _T]) -> dict[str, _T]:
    """Parts under a name, as `Under` finds them."""
    return {f"{name}/{inner}": part for inner, part in parts.items()}


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _reserved(width: int, size: int, least: int) -> Ints:
    """Rows of 0 in `size` bytes, or fewer but not less than `least`; MemoryError when there are none."""
    while True:
        try:
            held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            break
        except OSError as error:  # a limit on addresses: less will do for now
            if size <= least:
                raise MemoryError(f"{size} bytes of addresses: {error}") from error
            size = max(size // 2, least)
    if hasattr(mmap, "MADV_HUGEPAGE") and size > _SMALL:
        with suppress(OSError):  # a kernel without them: only slower
            held.madvise(mmap.MADV_HUGEPAGE, _SMALL, size - _SMALL)
    words = size // 8 // width * width
    return np.frombuffer(held, np.int64, words).reshape(-1, width)
