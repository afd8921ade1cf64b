"""Windows that rows may still come for: found by their key, and ended by the watermark, however many are open.

A window has a slot, a row of whole numbers: first what is known of the window, then what the aggregates hold for
it (`cells`). It is found in a hash table with open addressing (linear probing; what is taken out leaves no gap),
and it waits for its end in a heap: windows that a Block opened for the same end stand in it once, as a chain. So a
step costs what its rows and the windows that end cost, and nothing for those that stay open.

The rows lie in pages of which a checkpoint takes those that changed. A window that a row joins is touched when its
slot is found, one that ends when it is given: whoever folds or gives needs not do it again. Where a window stands in
its chain is not touched: that follows from the times when the state is loaded.
"""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.clock import Nanos
from boucle.compiled import compiled
from boucle.memory import Page, Paged, name_pages, pages_of, touch

__all__ = ["OpenWindows"]

Ints = NDArray[np.int64]

# Of a slot; behind them lie the cells.
_KEY, _START, _END, _REVISION, _FLAGS, _SEEN, _NEXT, _DUE = range(8)
_WIDTH = 8
# Flags: changed since it was given; the table leads to it.
_TOUCHED, _FOUND = 1, 2
# Of `meta`: slots ever used, first free slot, open windows, entries of the heap, a sum nobody needs.
_USED, _FREE, _OPEN, _HEAP, _NOBODY = range(5)
_NONE = -1
_NO_TIME = -(2**63)
_SLOT = 2**32 - 1
_AHEAD = 512
_RECENT = 16
_SLACK = 1024

_inlined = partial(compiled, inline=True)


@_inlined
def _tag(key: int, start: int) -> Any:
    """31 bits of a hash."""
    mixed = key * -7046029254386353131 ^ start * -4417276706812531889
    mixed ^= (mixed >> 29) & (2**35 - 1)
    mixed *= -49064778989728563
    return (mixed >> 32) & (2**31 - 1)


@_inlined
def _place_of(table: Ints, held: Ints, tag: int, key: int, start: int, alone: bool) -> Any:
    """Where the table leads to the window, or where it would. An entry is its tag and, below, its slot + 1."""
    mask = len(table) - 1
    place = tag & mask
    while table[place] != 0:
        if table[place] >> 32 == tag:
            slot = (table[place] & _SLOT) - 1
            if held[slot, _KEY] == key and (alone or held[slot, _START] == start):
                break
        place = (place + 1) & mask
    return place


@compiled
def _take_out(table: Ints, tag: int, slot: int) -> None:
    mask = len(table) - 1
    hole = tag & mask
    while table[hole] & _SLOT != slot + 1:
        hole = (hole + 1) & mask
    after = (hole + 1) & mask
    while table[after] != 0:
        home = (table[after] >> 32) & mask
        if ((after - home) & mask) >= ((after - hole) & mask):
            table[hole] = table[after]
            hole = after
        after = (after + 1) & mask
    table[hole] = 0


@compiled
def _push(heap: Ints, meta: Ints, due: int, slot: int) -> None:
    place = meta[_HEAP]
    meta[_HEAP] += 1
    while place > 0 and heap[(place - 1) >> 2, 0] > due:
        above = (place - 1) >> 2
        heap[place, 0], heap[place, 1] = heap[above, 0], heap[above, 1]
        place = above
    heap[place, 0], heap[place, 1] = due, slot


@compiled
def _pop(heap: Ints, meta: Ints) -> None:
    meta[_HEAP] -= 1
    size = meta[_HEAP]
    due, slot = heap[size, 0], heap[size, 1]
    place = 0
    while 4 * place + 1 < size:
        least = 4 * place + 1
        for other in range(least + 1, min(least + 4, size)):
            if heap[other, 0] < heap[least, 0]:
                least = other
        if heap[least, 0] >= due:
            break
        heap[place, 0], heap[place, 1] = heap[least, 0], heap[least, 1]
        place = least
    heap[place, 0], heap[place, 1] = due, slot


@_inlined
def _wait(held: Ints, heap: Ints, meta: Ints, recent: Ints, due: int, slot: int) -> None:
    """Put a window into the heap, or into the chain of one that is due at the same time."""
    held[slot, _DUE] = due
    held[slot, _NEXT] = _NONE
    near = (due * -7046029254386353131 >> 59) & (_RECENT - 1)
    if len(recent) and recent[near, 1] != _NONE and recent[near, 0] == due:
        head = recent[near, 1]
        held[slot, _NEXT] = held[head, _NEXT]
        held[head, _NEXT] = slot
    else:
        _push(heap, meta, due, slot)
        if len(recent):
            recent[near, 0], recent[near, 1] = due, slot


@_inlined
def _opened(held: Ints, book: Ints, meta: Ints, key: int, start: int, end: int) -> Any:
    slot = meta[_FREE]
    if slot != _NONE:
        meta[_FREE] = held[slot, _NEXT]
    else:
        slot = meta[_USED]
        meta[_USED] += 1
    touch(book, slot)
    meta[_OPEN] += 1
    held[slot, _KEY], held[slot, _START], held[slot, _END] = key, start, end
    held[slot, _REVISION], held[slot, _FLAGS], held[slot, _SEEN] = -1, _FOUND, 0
    return slot


@_inlined
def _look_ahead(table: Ints, held: Ints, meta: Ints, tags: Ints) -> None:
    """Ask for the memory of many rows at once, instead of waiting for one after the other."""
    mask = len(table) - 1
    touched = 0
    for row in range(len(tags)):
        touched += table[tags[row] & mask]
    for row in range(len(tags)):
        entry = table[tags[row] & mask]
        if entry != 0:
            touched += held[(entry & _SLOT) - 1, _KEY]
    meta[_NOBODY] = touched


@compiled
def _fixed(
    table: Ints,
    held: Ints,
    book: Ints,
    heap: Ints,
    meta: Ints,
    keys: Ints,
    starts: Ints,
    ends: Ints,
    slots: Ints,
) -> None:
    recent = np.full((_RECENT, 2), _NONE)
    tags = np.empty(_AHEAD, np.int64)
    for begin in range(0, len(keys), _AHEAD):
        size = min(_AHEAD, len(keys) - begin)
        for row in range(size):
            tags[row] = _tag(keys[begin + row], starts[begin + row])
        _look_ahead(table, held, meta, tags[:size])
        for row in range(begin, begin + size):
            tag = tags[row - begin]
            place = _place_of(table, held, tag, keys[row], starts[row], False)
            if table[place] == 0:
                slot = _opened(held, book, meta, keys[row], starts[row], ends[row])
                table[place] = tag << 32 | (slot + 1)
                _wait(held, heap, meta, recent, ends[row], slot)
            slot = (table[place] & _SLOT) - 1
            touch(book, slot)
            held[slot, _FLAGS] |= _TOUCHED
            slots[row] = slot


@compiled
def _following(
    table: Ints,
    held: Ints,
    book: Ints,
    heap: Ints,
    meta: Ints,
    keys: Ints,
    at: Ints,
    gap: int,
    most: int,
    slots: Ints,
) -> None:
    # Where a full window gives up its place in the heap, a chain would be torn.
    recent = np.full((_RECENT if most == 0 else 0, 2), _NONE)
    tags = np.empty(_AHEAD, np.int64)
    for begin in range(0, len(keys), _AHEAD):
        size = min(_AHEAD, len(keys) - begin)
        for row in range(size):
            tags[row] = _tag(keys[begin + row], 0)
        _look_ahead(table, held, meta, tags[:size])
        for row in range(begin, begin + size):
            tag, now = tags[row - begin], at[row]
            place = _place_of(table, held, tag, keys[row], 0, True)
            slot = (table[place] & _SLOT) - 1
            full = slot != _NONE and most > 0 and held[slot, _SEEN] == most
            if slot == _NONE or full or now >= held[slot, _END]:
                start = now
                if slot != _NONE:
                    touch(book, slot)
                    held[slot, _FLAGS] &= ~_FOUND
                    if full:
                        # Two windows of one key may begin in one instant: the later one by a nanosecond more.
                        start = max(start, held[slot, _START] + 1)
                slot = _opened(held, book, meta, keys[row], start, now + gap)
                table[place] = tag << 32 | (slot + 1)
                _wait(held, heap, meta, recent, now + gap, slot)
            touch(book, slot)
            held[slot, _END] = now + gap
            held[slot, _FLAGS] |= _TOUCHED
            held[slot, _SEEN] += 1
            if held[slot, _SEEN] == most:
                held[slot, _END] = now + 1
                _wait(held, heap, meta, recent, now + 1, slot)
            slots[row] = slot


@compiled
def _ended(
    held: Ints, book: Ints, heap: Ints, meta: Ints, watermark: int, allowed: int, given: Ints, gone: Ints
) -> tuple[int, int]:
    recent = np.full((_RECENT if allowed > 0 else 0, 2), _NONE)
    told, left = 0, 0
    while meta[_HEAP] > 0 and heap[0, 0] <= watermark:
        due, slot = heap[0, 0], heap[0, 1]
        _pop(heap, meta)
        # An entry that another one has replaced says nothing any more.
        while slot != _NONE and held[slot, _DUE] == due:
            following = held[slot, _NEXT]
            touch(book, slot)
            end = held[slot, _END]
            if end <= watermark and held[slot, _FLAGS] & _TOUCHED:
                held[slot, _FLAGS] &= ~_TOUCHED
                held[slot, _REVISION] += 1
                given[told] = slot
                told += 1
            if end + allowed <= watermark:
                held[slot, _DUE] = _NO_TIME
                gone[left] = slot
                left += 1
            else:
                _wait(held, heap, meta, recent, end + allowed if end <= watermark else end, slot)
            slot = following
    return told, left


@compiled
def _corrected(held: Ints, book: Ints, slots: Ints, upto: int, given: Ints) -> int:
    told = 0
    for slot in slots:
        if held[slot, _END] <= upto and held[slot, _FLAGS] & _TOUCHED:
            touch(book, slot)
            held[slot, _FLAGS] &= ~_TOUCHED
            # Even where nothing was given in time: it corrects that.
            held[slot, _REVISION] = max(held[slot, _REVISION], 0) + 1
            given[told] = slot
            told += 1
    return told


@compiled
def _freed(table: Ints, held: Ints, book: Ints, meta: Ints, gone: Ints, alone: bool) -> None:
    for index in range(len(gone) - 1, -1, -1):
        slot = gone[index]
        if held[slot, _FLAGS] & _FOUND:
            _take_out(table, _tag(held[slot, _KEY], 0 if alone else held[slot, _START]), slot)
        touch(book, slot)
        held[slot, _WIDTH:] = 0
        held[slot, _FLAGS] = 0
        held[slot, _DUE] = _NO_TIME
        held[slot, _NEXT] = meta[_FREE]
        meta[_FREE] = slot
    meta[_OPEN] -= len(gone)


@compiled
def _found_again(table: Ints, held: Ints, meta: Ints, alone: bool) -> None:
    mask = len(table) - 1
    for slot in range(meta[_USED]):
        if held[slot, _FLAGS] & _FOUND:
            tag = _tag(held[slot, _KEY], 0 if alone else held[slot, _START])
            place = tag & mask
            while table[place] != 0:
                place = (place + 1) & mask
            table[place] = tag << 32 | (slot + 1)


@compiled
def _waiting_again(held: Ints, heap: Ints, meta: Ints, chained: bool) -> None:
    recent = np.full((_RECENT if chained else 0, 2), _NONE)
    meta[_HEAP] = 0
    for slot in range(meta[_USED]):
        if held[slot, _DUE] != _NO_TIME:
            _wait(held, heap, meta, recent, held[slot, _DUE], slot)


class OpenWindows:
    """The open windows of one step. `allowed` (ns): how long one is kept after it was given.

    With `alone` a key has one window that rows can join, the newest; without, a window is its key and start. Each has
    `words` cells, which are 0 when it is opened. `lock` must be held while windows change.
    """

    def __init__(
        self,
        lock: threading.Lock,
        words: int = 0,
        *,
        allowed: Nanos = 0,
        alone: bool = False,
    ) -> None:
        self._allowed, self._alone = allowed, alone
        self._chained = True
        self._meta = np.array([0, _NONE, 0, 0, 0], np.int64)
        self._held = Paged(_WIDTH + words, lock)
        self._table = np.zeros(128, np.int64)
        self._heap = np.zeros((64, 2), np.int64)

    def __len__(self) -> int:
        return int(self._meta[_OPEN])

    @property
    def cells(self) -> Ints:
        """What is held of each slot; to be asked for again after rows came."""
        return self._held.rows[:, _WIDTH:]

    @property
    def keys(self) -> Ints:
        """The key numbers of all open windows, and some of windows that are not any more."""
        return self._held.rows[: self._meta[_USED], _KEY]

    @property
    def open(self) -> Ints:
        """The slots of all open windows."""
        held = self._held.rows[: self._meta[_USED]]
        return np.flatnonzero((held[:, _DUE] != _NO_TIME) | (held[:, _FLAGS] & _FOUND != 0))

    def fixed(self, keys: Ints, starts: Ints, ends: Ints) -> Ints:
        """The slot of each (key, start), opened where it is new."""
        slots = np.empty(len(keys), np.int64)
        self._grow(len(keys))
        _fixed(
            self._table, self._held.rows, self._held.book, self._heap, self._meta, keys, starts, ends, slots
        )
        return slots

    def following(self, keys: Ints, at: Ints, gap: Nanos, most: int = 0) -> Ints:
        """The slot of each row of rows in order; a key's window ends `gap` after its last row, or with `most` rows."""
        self._chained = most == 0
        slots = np.empty(len(keys), np.int64)
        self._grow(len(keys))
        _following(
            self._table, self._held.rows, self._held.book, self._heap, self._meta, keys, at, gap, most, slots
        )
        return slots

    def ended(self, watermark: Nanos) -> tuple[Ints, Ints]:
        """Windows to be given now, and those that nobody needs after that (see `free`), in no certain order."""
        if not self._meta[_HEAP] or self._heap[0, 0] > watermark:
            nothing = np.zeros(0, np.int64)
            return nothing, nothing
        given, gone = np.empty((2, len(self)), np.int64)
        held = self._held
        told, left = _ended(
            held.rows, held.book, self._heap, self._meta, watermark, self._allowed, given, gone
        )
        return given[:told], np.sort(gone[:left])

    def corrected(self, slots: Ints, upto: Nanos) -> Ints:
        """Those of these windows that had ended by `upto` and have changed: to be given again."""
        given = np.empty(len(slots), np.int64)
        return given[: _corrected(self._held.rows, self._held.book, slots, upto, given)]

    def free(self, gone: Ints) -> None:
        """Forget windows, and what their cells hold."""
        _freed(self._table, self._held.rows, self._held.book, self._meta, gone, self._alone)

    def said(self, slots: Ints) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Key number, start, end, revision and number of rows (of windows that follow) of each."""
        held = self._held.rows
        return (
            held[slots, _KEY],
            held[slots, _START],
            held[slots, _END],
            held[slots, _REVISION],
            held[slots, _SEEN],
        )

    def _grow(self, rows: int) -> None:
        used, live, waiting = int(self._meta[_USED]), len(self), int(self._meta[_HEAP])
        self._held.reach(used + rows)
        if 2 * (live + rows) > len(self._table):
            self._rehash(2 * (live + rows))
        if waiting > 2 * live + _SLACK:  # entries that were replaced are not kept until their time
            _waiting_again(self._held.rows, self._heap, self._meta, self._chained)
            waiting = int(self._meta[_HEAP])
        if waiting + 2 * rows > len(self._heap):
            self._heap = _roomier(self._heap, waiting, waiting + 2 * rows)

    def _rehash(self, least: int) -> None:
        size = 1 << (max(128, 2 * len(self), least) - 1).bit_length()
        self._table = np.zeros(size, np.int64)
        _found_again(self._table, self._held.rows, self._meta, self._alone)

    def parts(self, *, everything: bool) -> dict[str, bytes | Page]:
        """State by part: what changed since the last call, or everything; pages are copied when they are read."""
        pages = self._held.pages(int(self._meta[_USED]), everything=everything)
        return {"meta": self._said(), **name_pages(windows=pages)}

    def snapshot(self) -> dict[str, bytes]:
        """All of it, as `restore_parts` takes it; the table and the heap follow from it."""
        return {"meta": self._said(), **name_pages(windows=self._held.whole(int(self._meta[_USED])))}

    def _said(self) -> bytes:
        return np.array([*self._meta[:_HEAP], self._chained], np.int64).tobytes()

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from parts, with as many cells as they were taken with."""
        *meta, chained = np.frombuffer(parts["meta"], np.int64).tolist()
        self._meta[:_HEAP], self._chained = meta, bool(chained)
        self._held.load(pages_of(parts, "windows"), int(self._meta[_USED]))
        self._heap = np.zeros((len(self) + 64, 2), np.int64)
        _waiting_again(self._held.rows, self._heap, self._meta, self._chained)
        self._rehash(128)


def _roomier(rows: Ints, used: int, wanted: int) -> Ints:
    """The rows with room for more, at least twice as many; what lies behind is zero."""
    more = np.zeros((max(64, 2 * used, wanted + wanted // 4), rows.shape[1]), np.int64)
    more[:used] = rows[:used]
    return more
