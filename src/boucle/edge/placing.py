"""Samples put into their windows: the compiled half of `boucle.edge.window`.

Three tables hold what is known: `windows` (one entry per window in the making or lately given), `pieces`
(which samples of a window one chunk brought) and a pool of sample rows, `held` as the bits of float32 beside
`filled`, a byte per sample. Entries are chained by index, -1 ends a chain; freed entries form a chain of
their own. Samples are moved as bits: one integer comparison finds NaN and infinity, and ties have an order.
"""

from typing import Any

import numpy as np

from boucle.clock import SECOND
from boucle.compiled import compiled

__all__ = ["FREE_PIECE", "FREE_ROWS", "FREE_WINDOW", "PIECE", "WINDOW", "due", "forget", "give", "place"]

WINDOW = np.dtype(
    [
        ("key", np.int64),
        ("number", np.int64),
        ("row", np.int64),  # of the pool; -1: the window was given, and is kept so that more of it is late
        ("covered", np.int64),
        ("count", np.int64),
        ("reach", np.int64),  # no sample from here on is there
        ("pieces", np.int64),
        ("next", np.int64),  # window of the same key, or next free entry
        ("used", np.int64),
    ]
)
PIECE = np.dtype(
    [("start", np.int64), ("offset", np.int64), ("length", np.int64), ("next", np.int64)],
)
"""`start` is the number of the chunk's first sample: where chunks overlap, the one that starts later is kept."""

FREE_WINDOW, FREE_PIECE, FREE_ROWS = 0, 1, 2
"""Places in `free`: first free window, first free piece, number of free rows."""

_EXPONENT = np.int32(0x7F800000)


@compiled
def place(
    keys: Any,
    at: Any,
    begins: Any,
    ends: Any,
    bits: Any,
    begin: int,
    late: Any,
    windows: Any,
    heads: Any,
    pieces: Any,
    held: Any,
    filled: Any,
    rows: Any,
    free: Any,
    num: int,
    den: int,
    hop: int,
    floor: int,
) -> int:
    """Place chunks from number `begin` on; the number of the first one there was no room for.

    `begins` and `ends` lie in `bits`, the samples of all chunks; `num`/`den` a second begin at `at` (ns). `late`
    is set where any of a chunk belonged to a window before `floor` or to one that was given.
    """
    size = held.shape[1]
    for chunk in range(begin, len(keys)):
        low, high = begins[chunk], ends[chunk]
        whole = _finite(bits, low, high)
        runs = 1 if whole else _runs(bits, low, high)
        if low == high or runs == 0:
            continue
        first = _sample(at[chunk], num, den)
        oldest = (first - size) // hop + 1
        newest = (first + high - low - 1) // hop
        if not _room(newest - oldest + 1, runs, windows, pieces, free):
            return chunk
        for number in range(oldest, newest + 1):
            # sample i of the chunk lies at i + shift of the window
            shift = first - number * hop
            begun, ended = low + max(0, -shift), min(high, low + size - shift)
            if not whole:
                begun = _first(bits, begun, ended)
                if begun == ended:
                    continue
            entry = _entry(keys[chunk], number, windows, heads, rows, free) if number >= floor else -1
            if entry < 0:
                late[chunk] = True
                continue
            while begun < ended:
                stop, offset = ended if whole else _run(bits, begun, ended), begun - low + shift
                _add(windows, entry, begun, offset, stop - begun, first, bits, pieces, held, filled, free)
                begun = ended if whole else _first(bits, stop, ended)
    return len(keys)


@compiled
def _sample(at: int, num: int, den: int) -> int:
    """round(at × num / den seconds); whole seconds apart, so that nothing exceeds 63 bits."""
    second, rest = at // SECOND, at % SECOND
    whole, left = second * num // den, second * num % den
    return whole + (2 * (rest * num + left * SECOND) + den * SECOND) // (2 * den * SECOND)


@compiled
def _finite(bits: Any, low: int, high: int) -> Any:
    some, most = bits[low:high], np.int32(0)
    for k in range(len(some)):
        most = max(np.int32(some[k] & _EXPONENT), most)
    return most < _EXPONENT


@compiled
def _first(bits: Any, begin: int, end: int) -> int:
    """The first finite sample from `begin` on; `end` when there is none."""
    while begin < end and (bits[begin] & _EXPONENT) == _EXPONENT:
        begin += 1
    return begin


@compiled
def _run(bits: Any, begin: int, end: int) -> int:
    """Where the finite samples from `begin` on end."""
    while begin < end and (bits[begin] & _EXPONENT) != _EXPONENT:
        begin += 1
    return begin


@compiled
def _runs(bits: Any, low: int, high: int) -> int:
    """Stretches of finite samples."""
    runs, inside = 0, False
    for k in range(low, high):
        finite = (bits[k] & _EXPONENT) != _EXPONENT
        runs += finite and not inside
        inside = finite
    return runs


@compiled
def _room(touched: int, runs: int, windows: Any, pieces: Any, free: Any) -> bool:
    if free[FREE_ROWS] < touched:
        return False
    entry = free[FREE_WINDOW]
    for _ in range(touched):
        if entry < 0:
            return False
        entry = windows[entry].next
    piece = free[FREE_PIECE]
    for _ in range(touched * runs):
        if piece < 0:
            return False
        piece = pieces[piece].next
    return True


@compiled
def _entry(key: int, number: int, windows: Any, heads: Any, rows: Any, free: Any) -> Any:
    """The window in the making, a new one if there was none; -1 if it was given."""
    entry = heads[key]
    while entry >= 0 and windows[entry].number != number:
        entry = windows[entry].next
    if entry >= 0:
        return entry if windows[entry].row >= 0 else -1
    entry = free[FREE_WINDOW]
    window = windows[entry]
    free[FREE_WINDOW] = window.next
    free[FREE_ROWS] -= 1
    window.key, window.number, window.row = key, number, rows[free[FREE_ROWS]]
    window.covered, window.count, window.pieces, window.reach, window.used = 0, 0, -1, 0, 1
    window.next = heads[key]
    heads[key] = entry
    return entry


@compiled
def _add(
    windows: Any, entry: int, source: int, offset: int, length: int, start: int,
    bits: Any, pieces: Any, held: Any, filled: Any, free: Any,
) -> None:  # fmt: skip
    window = windows[entry]
    end = offset + length
    there, marks = held[window.row, offset:end], filled[window.row, offset:end]
    fresh = bits[source : source + length]
    known = 0
    if offset < window.reach:  # in order of time nothing can be there yet
        for k in range(length):
            known += marks[k]
    window.reach = max(window.reach, end)
    for k in range(length):
        if known and marks[k]:
            owner = _owner(window.pieces, offset + k, pieces)
            if owner > start or (owner == start and there[k] >= fresh[k]):
                continue
        there[k] = fresh[k]
    marks[:] = 1
    window.covered += length - known
    window.count += length
    place = free[FREE_PIECE]
    piece = pieces[place]
    free[FREE_PIECE] = piece.next
    piece.start, piece.offset, piece.length, piece.next = start, offset, length, window.pieces
    window.pieces = place


@compiled
def _owner(piece: int, at: int, pieces: Any) -> Any:
    """The latest start of the chunks that brought sample `at`."""
    owner = np.int64(-(2**62))
    while piece >= 0:
        one = pieces[piece]
        if one.offset <= at < one.offset + one.length:
            owner = max(owner, one.start)
        piece = one.next
    return owner


@compiled
def due(windows: Any, full: int, floor: int) -> Any:
    """Entries of windows in the making that hold `full` samples or lie before `floor`."""
    found = np.empty(len(windows), np.int64)
    count = 0
    for entry in range(len(windows)):
        window = windows[entry]
        if window.used and window.row >= 0 and (window.covered == full or window.number < floor):
            found[count] = entry
            count += 1
    return found[:count]


@compiled
def give(entries: Any, windows: Any, pieces: Any, filled: Any, rows: Any, free: Any) -> None:
    """Free the rows and pieces of windows that were given; what still comes for them is late."""
    for entry in entries:
        window = windows[entry]
        filled[window.row] = 0
        rows[free[FREE_ROWS]] = window.row
        free[FREE_ROWS] += 1
        window.row = -1
        piece = window.pieces
        while piece >= 0:
            after = pieces[piece].next
            pieces[piece].next = free[FREE_PIECE]
            free[FREE_PIECE] = piece
            piece = after
        window.pieces = -1


@compiled
def forget(floor: int, windows: Any, heads: Any, free: Any) -> None:
    """Forget that windows before `floor` were given: all of them are late now."""
    for key in range(len(heads)):
        before, entry = -1, heads[key]
        while entry >= 0:
            after = windows[entry].next
            if windows[entry].number >= floor:
                before = entry
            else:
                if before < 0:
                    heads[key] = after
                else:
                    windows[before].next = after
                windows[entry].used = 0
                windows[entry].next = free[FREE_WINDOW]
                free[FREE_WINDOW] = entry
            entry = after
