"""Sliding windows per key, event by event: the compiled part and its memory.

A track keeps, per key, the events that some window still needs, side by side in a ring that doubles when it is
full. Each window knows which event enters next and which leaves next, so an event costs the same however long
the windows are. Sums are kept as double-double numbers (Knuth's TwoSum, TAOCP 4.2.2): what was added and
taken away again leaves nothing behind.

Everything of a key lies in as few cache lines as possible: with tens of thousands of keys an event's price is
how often it waits for memory.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import Nanos
from boucle.compiled import compiled
from boucle.memory import BOOK, Page, Paged, name_pages, pages_of, touch, touch_all, words_at
from boucle.stream.columns import CALL, MARK, ROWS, TIMES, VALUES

__all__ = [
    "AGE", "COUNT", "DISTINCT", "EWMA", "HIGH", "LOW", "MEAN", "PREVIOUS", "QUANTILE", "STD", "SUM", "ZSCORE", "Span",
    "Tell", "Track", "fold",
]  # fmt: skip

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Of an event in a ring.
_AT, _VALUE, _EVENT = 0, 1, 2
# Of a slot (one key): the key, its ring (first row, how many rows; -1: the slot is free), how many events ever
# entered the ring, the newest event time; then per window: the event that leaves next, counted like `_TAIL`, and
# the sum. Where they are wanted follow the event that enters next (delay), the sum of squares, the faded mean.
_KEY, _RING, _ROOM, _TAIL, _NEWEST, _HEADER = 0, 1, 2, 3, 4, 5
_OUT, _HI, _LO, _PLAIN_WIDTH = 0, 1, 2, 3
_EW_SUM, _EW_WEIGHT, _EW_AT, _FADED_WIDTH = 0, 1, 2, 3
_LINE = 8
"""Whole numbers of a cache line: a slot begins with one."""
_LEAST_ROOM = 4
_CLASSES = 40

COUNT, SUM, MEAN, STD, ZSCORE, EWMA, PREVIOUS, AGE, LOW, HIGH, DISTINCT, QUANTILE = range(12)
"""What can be told of a window; AGE in s, EWMA the exponentially weighted mean. COUNT and DISTINCT are int64."""

# Of `meta`: rows of rings in use, slots in use, a free slot, the slot to sweep next, live keys, the watermark,
# a sum nobody needs, and per size a free ring.
_RINGS, _SLOTS, _SPARE, _SWEPT, _LIVE, _MARK, _NOBODY, _RING_SPARE = 0, 1, 2, 3, 4, 5, 6, 7

# Of a frame, what `fold` needs to know of a track.
(_F_RINGS, _F_RING_ROWS, _F_SLOTS, _F_SLOT_ROWS, _F_WIDTH, _F_TABLE, _F_TABLE_SIZE, _F_META, _F_SPANS, _F_WINDOWS,
 _F_TELLS, _F_TELL_COUNT, _F_NUMBERS, _F_HALF_LIFE, _F_DELAYED, _F_SQUARED, _F_FADED, _F_EACH, _F_RING_BOOK,
 _F_SLOT_BOOK, _F_KEYS, _F_VALUES, _F_THERE, _F_COLUMNS, _F_ROW, _FRAME) = range(26)  # fmt: skip

_inlined = partial(compiled, inline=True)

_FREE = -(2**62)


class Span(Struct, frozen=True):
    """A window of event time behind each event: (t - delay - size, t - delay], in ns."""

    size: Nanos
    delay: Nanos = 0


class Tell(Struct, frozen=True):
    """One column of output: a field of a window, in row `into` of the output. `number`: the quantile."""

    field: int
    span: Span
    into: int
    number: float = 0.0


@_inlined
def _mix(key: int, mask: int) -> Any:
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(29))) & np.uint64(mask))


@_inlined
def _find(table: Ints, slots: Ints, key: int) -> Any:
    """Place in the table where the key is, or the empty place where it would be."""
    mask = len(table) - 1
    place = _mix(key, mask)
    while table[place] != 0 and slots[table[place], _KEY] != key:
        place = (place + 1) & mask
    return place


@compiled
def _unhash(table: Ints, slots: Ints, key: int) -> None:
    """Take a key out of the table; what stands behind it moves up, so that no gap is left."""
    mask = len(table) - 1
    place = _find(table, slots, key)
    after = place
    while True:
        after = (after + 1) & mask
        if table[after] == 0:
            break
        home = _mix(slots[table[after], _KEY], mask)
        if ((after - home) & mask) >= ((after - place) & mask):
            table[place] = table[after]
            place = after
    table[place] = 0


@compiled
def _rehash(table: Ints, slots: Ints, used: int) -> None:
    for slot in range(1, used):
        if slots[slot, _ROOM] >= 0:
            table[_find(table, slots, slots[slot, _KEY])] = slot


@_inlined
def _plus(high: float, low: float, value: float) -> tuple[float, float]:
    total = high + value
    part = total - high
    low += (high - (total - part)) + (value - part)
    return total, low


@_inlined
def _add(floats: Floats, slot: int, at: int, value: float) -> None:
    high, low = _plus(floats[slot, at], floats[slot, at + 1], value)
    floats[slot, at], floats[slot, at + 1] = high, low


@compiled
def _ordered(values: Floats, ring: int, room: int, first: int, last: int) -> Floats:
    held = np.empty(last - first)
    for index in range(len(held)):
        held[index] = values[ring + ((first + index) & (room - 1)), _VALUE]
    held.sort()
    return held


@compiled
def _kinds(held: Floats) -> Any:
    other = 0
    for index in range(len(held)):
        other += index == 0 or held[index] != held[index - 1]
    return other


@compiled
def _of_ordered(held: Floats, field: int, number: float) -> Any:
    if len(held) == 0:
        return np.nan
    if field == QUANTILE:
        at = number * (len(held) - 1)
        low = int(at)
        return held[low] + (at - low) * (held[min(low + 1, len(held) - 1)] - held[low])
    return held[0] if field == LOW else held[-1]


@_inlined
def _class_of(room: int) -> Any:
    size = 0
    while room > 1:
        room >>= 1
        size += 1
    return size


@_inlined
def _give_ring(rings: Ints, meta: Ints, book: Ints, ring: int, room: int) -> None:
    size = _class_of(room)
    touch(book, ring)
    rings[ring, 0] = meta[_RING_SPARE + size]
    meta[_RING_SPARE + size] = ring


@_inlined
def _take_ring(rings: Ints, meta: Ints, room: int) -> Any:
    """A ring of so many rows; -1 when the arena is full."""
    size = _class_of(room)
    ring = meta[_RING_SPARE + size]
    if ring != 0:
        meta[_RING_SPARE + size] = rings[ring, 0]
    elif meta[_RINGS] + room > len(rings):
        ring = -1
    else:
        ring = meta[_RINGS]
        meta[_RINGS] += room
    return ring


@compiled
def _widen(rings: Ints, slots: Ints, meta: Ints, book: Ints, slot: int, first: int) -> bool:
    """Move a key's events into a ring of twice the room; False when the arena has none."""
    room, old = slots[slot, _ROOM], slots[slot, _RING]
    wider = max(2 * room, _LEAST_ROOM)
    ring = _take_ring(rings, meta, wider)
    if ring < 0:
        return False
    touch_all(book, ring, ring + wider - 1)
    for event in range(first, slots[slot, _TAIL]):
        into, out = ring + (event & (wider - 1)), old + (event & (room - 1))
        rings[into, _AT], rings[into, _VALUE] = rings[out, _AT], rings[out, _VALUE]
    if room > 0:
        _give_ring(rings, meta, book, old, room)
    slots[slot, _RING], slots[slot, _ROOM] = ring, wider
    return True


@compiled
def _drop(rings: Ints, table: Ints, slots: Ints, meta: Ints, book: Ints, slot: int) -> None:
    """Forget a key: its ring and its slot may be used by others."""
    _unhash(table, slots, slots[slot, _KEY])
    if slots[slot, _ROOM] > 0:
        _give_ring(rings, meta, book, slots[slot, _RING], slots[slot, _ROOM])
    slots[slot, :] = 0
    slots[slot, _ROOM] = -1
    slots[slot, _TAIL] = meta[_SPARE]
    meta[_SPARE] = slot
    meta[_LIVE] -= 1


@_inlined
def _new_slot(slots: Ints, meta: Ints, book: Ints) -> Any:
    slot = meta[_SPARE]
    if slot != 0:
        meta[_SPARE] = slots[slot, _TAIL]
    else:
        slot = meta[_SLOTS]
        meta[_SLOTS] += 1
    touch(book, slot)
    slots[slot, :] = 0
    slots[slot, _NEWEST] = _FREE
    meta[_LIVE] += 1
    return slot


@_inlined
def _look_up(
    rings: Ints,
    slots: Ints,
    table: Any,
    meta: Ints,
    book: Ints,
    keys: Ints,
    there: Any,
    windows: int,
    each: int,
) -> Ints:
    """The slot of each key, made where it is new; 0 for a row that has no key.

    Every key's memory is asked for before any of it is used: the processor fetches what it needs for many
    events at once instead of waiting for one after the other.
    """
    found = np.empty(len(keys), np.int64)
    touched, mask = 0, len(table) - 1
    for row in range(len(keys)):
        touched += table[_mix(keys[row], mask)]
    for row in range(len(keys)):
        if len(there) and there[row] == 0:
            found[row] = 0
            continue
        place = _find(table, slots, keys[row])
        slot = np.int64(table[place])
        if slot == 0:
            slot = _new_slot(slots, meta, book)
            slots[slot, _KEY] = keys[row]
            table[place] = slot
        found[row] = slot
        for field in range(_LINE, slots.shape[1], _LINE):
            touched += slots[slot, field]
    for row in range(len(keys)):
        slot = found[row]
        ring, last = slots[slot, _RING], slots[slot, _ROOM] - 1
        if last > 0:
            touched += rings[ring + (slots[slot, _TAIL] & last), _AT]
            for window in range(windows):
                touched += rings[ring + (slots[slot, _HEADER + window * each + _OUT] & last), _AT]
    meta[_NOBODY] = touched
    return found


@_inlined
def _fade(
    slots: Ints, floats: Floats, slot: int, faded: int, now: int, value: float, half_life: float
) -> None:
    left = 0.0
    if floats[slot, faded + _EW_WEIGHT] > 0:
        left = 0.5 ** ((now - slots[slot, faded + _EW_AT]) / half_life)
    floats[slot, faded + _EW_SUM] = floats[slot, faded + _EW_SUM] * left + value
    floats[slot, faded + _EW_WEIGHT] = floats[slot, faded + _EW_WEIGHT] * left + 1.0
    slots[slot, faded + _EW_AT] = now


@_inlined
def _square(value: float) -> tuple[float, float]:
    """value² and what was rounded off (Dekker's product, Numer. Math. 18, 1971)."""
    square = value * value
    split = 134217729.0 * value
    high = split - (split - value)
    low = value - high
    return square, ((high * high - square) + 2.0 * high * low) + low * low


@_inlined
def _add_square(floats: Floats, slot: int, at: int, value: float, sign: float) -> None:
    square, rest = _square(value)
    _add(floats, slot, at, sign * square)
    floats[slot, at + 1] += sign * rest


@_inlined
def _spread(count: int, high: float, low: float, squares: float, rest: float) -> Any:
    """Sample standard deviation of a window, n - 1; NaN below two events or where a square is not finite.

    n·Σx² - (Σx)² in double-double: the means of a sensor may be a billion times its spread.
    """
    if count < 2:
        return np.nan
    whole, split = _square(high)
    number = np.float64(count)
    scaled = number * squares
    cut = 134217729.0 * squares
    upper = cut - (cut - squares)
    lower = squares - upper
    off = (number * upper - scaled) + number * lower
    apart = (scaled - whole) + ((off + number * rest) - (split + 2.0 * high * low))
    if not np.isfinite(apart):
        return np.nan
    return np.sqrt(max(0.0, apart) / (number * (number - 1.0)))


@_inlined
def _sum_anew(
    values: Floats,
    floats: Floats,
    slot: int,
    base: int,
    squared: int,
    ring: int,
    last: int,
    leaves: int,
    enters: int,
) -> None:
    """A sum that overflowed says nothing any more: it is taken again over what is in the window."""
    floats[slot, base + _HI] = floats[slot, base + _LO] = 0.0
    if squared:
        floats[slot, base + squared] = floats[slot, base + squared + 1] = 0.0
    for event in range(leaves, enters):
        value = values[ring + (event & last), _VALUE]
        _add(floats, slot, base + _HI, value)
        if squared:
            _add_square(floats, slot, base + squared, value, 1.0)


@_inlined
def _sweep(
    rings: Ints, table: Any, slots: Ints, meta: Ints, ring_book: Ints, slot_book: Ints, steps: int, until: int
) -> None:
    for _ in range(min(steps, meta[_SLOTS] - 1)):
        meta[_SWEPT] = meta[_SWEPT] + 1 if meta[_SWEPT] + 1 < meta[_SLOTS] else 1
        old = meta[_SWEPT]
        if slots[old, _ROOM] >= 0 and slots[old, _NEWEST] <= until:
            touch(slot_book, old)
            _drop(rings, table, slots, meta, ring_book, old)


@compiled
def fold(frame: Ints, call: Ints) -> bool:  # noqa: C901, PLR0912, PLR0915 - one loop: each call in it would cost as much as the event
    """Take the events of a call in order, write what is told of each into its values (columns, rows).

    `frame` is a track's, `call` as in `boucle.stream.columns`. False when there is no room for all: call again once
    there is. A row without a key is told NaN, or 0 where whole numbers are told.
    """
    rows, first = call[ROWS], frame[_F_ROW]
    at = words_at(call[TIMES], rows)
    windows, each, width = frame[_F_WINDOWS], frame[_F_EACH], frame[_F_WIDTH]
    delayed, squared, faded = frame[_F_DELAYED], frame[_F_SQUARED], frame[_F_FADED]
    rings = words_at(frame[_F_RINGS], frame[_F_RING_ROWS] * _EVENT).reshape((-1, _EVENT))
    slots = words_at(frame[_F_SLOTS], frame[_F_SLOT_ROWS] * width).reshape((-1, width))
    table = words_at(frame[_F_TABLE], frame[_F_TABLE_SIZE] // 2).view(np.int32)
    meta = words_at(frame[_F_META], _RING_SPARE + _CLASSES)
    spans = words_at(frame[_F_SPANS], 2 * windows).reshape((-1, 2))
    tells = words_at(frame[_F_TELLS], 3 * frame[_F_TELL_COUNT]).reshape((-1, 3))
    numbers = words_at(frame[_F_NUMBERS], frame[_F_TELL_COUNT]).view(np.float64)
    half_life = np.float64(frame[_F_HALF_LIFE])
    ring_book, slot_book = words_at(frame[_F_RING_BOOK], BOOK), words_at(frame[_F_SLOT_BOOK], BOOK)
    keys = words_at(frame[_F_KEYS], rows)
    given = words_at(frame[_F_VALUES], rows).view(np.float64)
    there = words_at(frame[_F_THERE], rows if frame[_F_THERE] else 0)
    whole = words_at(call[VALUES], frame[_F_COLUMNS] * rows).reshape((frame[_F_COLUMNS], rows))
    floats, values, out = slots.view(np.float64), rings.view(np.float64), whole.view(np.float64)
    if meta[_SLOTS] + rows >= len(slots) or 2 * (meta[_LIVE] + rows) > len(table):
        return False
    meta[_MARK] = max(meta[_MARK], call[MARK])
    horizon = spans[windows - 1, 0]
    oldest = _HEADER + (windows - 1) * each + _OUT
    found = _look_up(rings, slots, table, meta, slot_book, keys, there, windows, each)
    held = np.empty(0)
    for row in range(first, rows):
        slot, now, value = found[row], at[row], given[row]
        if slot == 0:
            for tell in range(len(tells)):
                if tells[tell, 0] == COUNT or tells[tell, 0] == DISTINCT:
                    whole[tells[tell, 2], row] = 0
                else:
                    out[tells[tell, 2], row] = np.nan
            continue
        touch(slot_book, slot)
        tail, left = slots[slot, _TAIL], slots[slot, oldest]
        counts = np.isfinite(value)
        if (
            counts
            and tail - left == slots[slot, _ROOM]
            and not _widen(rings, slots, meta, ring_book, slot, left)
        ):
            frame[_F_ROW] = row
            return False
        ring, last = slots[slot, _RING], slots[slot, _ROOM] - 1
        before, before_at = np.nan, _FREE
        if tail > left:
            event = ring + ((tail - 1) & last)
            before, before_at = values[event, _VALUE], rings[event, _AT]
        if faded and slots[slot, _NEWEST] <= now - horizon:
            floats[slot, faded + _EW_SUM] = floats[slot, faded + _EW_WEIGHT] = 0.0
        slots[slot, _NEWEST] = now
        if counts:
            event = ring + (tail & last)
            touch(ring_book, event)
            rings[event, _AT], values[event, _VALUE] = now, value
            tail += 1
            slots[slot, _TAIL] = tail
            if faded:
                _fade(slots, floats, slot, faded, now, value, half_life)
        for window in range(windows):
            base = _HEADER + window * each
            if delayed:
                enters = slots[slot, base + delayed]
                while enters < tail and rings[ring + (enters & last), _AT] <= now - spans[window, 1]:
                    entered = values[ring + (enters & last), _VALUE]
                    _add(floats, slot, base + _HI, entered)
                    if squared:
                        _add_square(floats, slot, base + squared, entered, 1.0)
                    enters += 1
                slots[slot, base + delayed] = enters
            else:
                enters = tail
                if counts:
                    _add(floats, slot, base + _HI, value)
                    if squared:
                        _add_square(floats, slot, base + squared, value, 1.0)
            leaves, until = slots[slot, base + _OUT], now - spans[window, 0]
            while leaves < enters and rings[ring + (leaves & last), _AT] <= until:
                gone = values[ring + (leaves & last), _VALUE]
                _add(floats, slot, base + _HI, -gone)
                if squared:
                    _add_square(floats, slot, base + squared, gone, -1.0)
                leaves += 1
            slots[slot, base + _OUT] = leaves
            sums = floats[slot, base + _HI] + floats[slot, base + _LO]
            if squared:
                sums += floats[slot, base + squared] + floats[slot, base + squared + 1]
            if leaves == enters or not np.isfinite(sums):
                _sum_anew(values, floats, slot, base, squared, ring, last, leaves, enters)
        ordered = -1
        for tell in range(len(tells)):
            field, base, into = tells[tell, 0], _HEADER + tells[tell, 1] * each, tells[tell, 2]
            leaves = slots[slot, base + _OUT]
            enters = slots[slot, base + delayed] if delayed else tail
            count = enters - leaves
            if field == COUNT:
                whole[into, row] = count
                continue
            if field >= LOW:
                if ordered != base:
                    held = _ordered(values, ring, last + 1, leaves, enters)
                    ordered = base
                if field == DISTINCT:
                    whole[into, row] = _kinds(held)
                    continue
                out[into, row] = _of_ordered(held, field, numbers[tell])
                continue
            total = floats[slot, base + _HI] + floats[slot, base + _LO]
            told = np.nan
            if field == SUM:
                told = total
            elif field == MEAN:
                if count:
                    told = total / count
            elif field in (PREVIOUS, AGE):
                if before_at > now - spans[tells[tell, 1], 0]:
                    told = before if field == PREVIOUS else (now - before_at) / 1e9
            elif field == EWMA:
                if floats[slot, faded + _EW_WEIGHT] > 0:
                    told = floats[slot, faded + _EW_SUM] / floats[slot, faded + _EW_WEIGHT]
            elif count > 1:
                told = _spread(
                    count, floats[slot, base + _HI], floats[slot, base + _LO], floats[slot, base + squared],
                    floats[slot, base + squared + 1],
                )  # fmt: skip
                if field == ZSCORE:
                    told = (value - total / count) / told if told > 0 else np.nan
            out[into, row] = told
    _sweep(rings, table, slots, meta, ring_book, slot_book, 1 + rows // 4, meta[_MARK] - horizon)
    frame[_F_ROW] = 0
    return True


@compiled
def _newest(table: Any, slots: Ints, keys: Ints) -> Ints:
    newest = np.full(len(keys), _FREE)
    for row in range(len(keys)):
        slot = table[_find(table, slots, keys[row])]
        if slot != 0:
            newest[row] = slots[slot, _NEWEST]
    return newest


class Track:
    """Windows of one value by one key, for whole-number keys: the memory that `fold` works on.

    LOW, HIGH, DISTINCT and QUANTILE sort the events of their window each time; all else costs the same however
    long the window is. `frame` says where everything lies; whoever calls `fold` writes the addresses of keys and
    values into it; `lock` must be held while it works.
    """

    def __init__(self, tells: Sequence[Tell], half_life: Nanos, lock: threading.Lock) -> None:
        # In the order in which an event leaves them: what has left the last, nobody needs any more.
        spans = sorted({tell.span for tell in tells}, key=lambda span: (span.size + span.delay, span.delay))
        self._spans = np.array([[span.size + span.delay, span.delay] for span in spans], np.int64)
        self._tells = np.array([[tell.field, spans.index(tell.span), tell.into] for tell in tells], np.int64)
        self._numbers = np.array([tell.number for tell in tells])
        fields = {tell.field for tell in tells}
        each, delayed, squared = _PLAIN_WIDTH, 0, 0
        if any(span.delay for span in spans):
            delayed, each = each, each + 1
        if fields & {STD, ZSCORE}:
            squared, each = each, each + 2
        faded = _HEADER + len(spans) * each if half_life else 0
        used = _HEADER + len(spans) * each + (_FADED_WIDTH if half_life else 0)
        width = -(-used // _LINE) * _LINE
        self._rings, self._slots = Paged(_EVENT, lock), Paged(width, lock)
        self._meta = np.zeros(_RING_SPARE + _CLASSES, np.int64)
        self._meta[[_RINGS, _SLOTS, _MARK]] = _LEAST_ROOM, 1, _FREE
        self._table = np.zeros(1 << 12, np.int32)
        self.frame = np.zeros(_FRAME, np.int64)
        self.frame[[_F_DELAYED, _F_SQUARED, _F_FADED, _F_EACH]] = delayed, squared, faded, each
        self.frame[[_F_HALF_LIFE, _F_WINDOWS, _F_TELL_COUNT]] = half_life, len(spans), len(tells)
        self.frame[_F_COLUMNS] = 1 + max(tell.into for tell in tells)
        self._settle()
        # Compiled, or loaded, now: not when the first event waits for it.
        self.newest(np.zeros(0, np.int64))
        nothing = np.zeros(CALL, np.int64)
        nothing[MARK] = _FREE
        fold(self.frame, nothing)

    def _settle(self) -> None:
        """Write down where everything lies."""
        frame = self.frame
        frame[[_F_RINGS, _F_RING_ROWS]] = self._rings.address, len(self._rings.rows)
        frame[[_F_SLOTS, _F_SLOT_ROWS, _F_WIDTH]] = (
            self._slots.address,
            len(self._slots.rows),
            self._slots.width,
        )
        frame[[_F_TABLE, _F_TABLE_SIZE]] = self._table.ctypes.data, len(self._table)
        frame[[_F_META, _F_SPANS]] = self._meta.ctypes.data, self._spans.ctypes.data
        frame[[_F_TELLS, _F_NUMBERS]] = self._tells.ctypes.data, self._numbers.ctypes.data
        frame[[_F_RING_BOOK, _F_SLOT_BOOK]] = self._rings.book.ctypes.data, self._slots.book.ctypes.data

    @property
    def keys(self) -> int:
        """Keys something is known of."""
        return int(self._meta[_LIVE])

    def newest(self, keys: Ints) -> Ints:
        """Per key the newest event time so far; very small for one that is not known."""
        return np.asarray(_newest(self._table, self._slots.rows, np.array(keys)))

    def point(self, keys: Ints, values: Ints) -> None:
        """Where the keys and the values (float64 bit by bit) of events will lie."""
        self.frame[[_F_KEYS, _F_VALUES]] = keys.ctypes.data, values.ctypes.data

    def miss(self, flags: Ints | None) -> None:
        """Where the flags of events lie that are 0 for one without a key; None: all have one."""
        self.frame[_F_THERE] = 0 if flags is None else flags.ctypes.data

    def make_room(self, rows: int) -> None:
        """Room for so many more events; `fold` said that there was none."""
        live, used = int(self._meta[_LIVE]), int(self._meta[_SLOTS])
        if used + rows >= len(self._slots.rows):
            self._slots.reach(used + rows + 1)
            self._settle()
        elif 2 * (live + rows) > len(self._table):
            self._hash_anew(live + rows)
            self._settle()
        else:
            self._rings.reach(2 * len(self._rings.rows))
            self._settle()

    def parts(self, *, everything: bool) -> dict[str, bytes | Page]:
        """State by part: what changed since the last call, or everything; pages are copied when they are read."""
        rings = self._rings.pages(int(self._meta[_RINGS]), everything=everything)
        slots = self._slots.pages(int(self._meta[_SLOTS]), everything=everything)
        return {"meta": self._meta.tobytes(), **name_pages(rings=rings, slots=slots)}

    def snapshot(self) -> dict[str, bytes]:
        """All of it, bit for bit, as `restore_parts` takes it."""
        rings, slots = self._rings.whole(int(self._meta[_RINGS])), self._slots.whole(int(self._meta[_SLOTS]))
        return {"meta": self._meta.tobytes(), **name_pages(rings=rings, slots=slots)}

    def _hash_anew(self, keys: int) -> None:
        """A table with places for so many keys, half of them free."""
        size = len(self._table)
        while 2 * keys > size:
            size *= 2
        self._table = np.zeros(size, np.int32)
        _rehash(self._table, self._slots.rows, int(self._meta[_SLOTS]))

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from parts, on a fresh track."""
        self._meta[:] = np.frombuffer(parts["meta"], np.int64)
        self._rings.load(pages_of(parts, "rings"), int(self._meta[_RINGS]))
        self._slots.load(pages_of(parts, "slots"), int(self._meta[_SLOTS]))
        self._hash_anew(int(self._meta[_LIVE]))
        self._settle()
