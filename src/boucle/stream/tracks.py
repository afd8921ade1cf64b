"""Sliding windows per key, event by event: the compiled part and its memory.

A track keeps, per key, the events that some window still needs, in a chain through one pool of nodes.
Each window holds a place in the chain where the next event enters and one where the next leaves, so an
event costs the same however long the windows are. Sums are kept as double-double numbers (Knuth's TwoSum,
TAOCP 4.2.2): what was added and taken away again leaves nothing behind.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boucle.clock import Nanos
from boucle.compiled import compiled

__all__ = [
    "AGE", "COUNT", "DISTINCT", "EWMA", "HIGH", "LOW", "MEAN", "PREVIOUS", "QUANTILE", "STD", "SUM", "ZSCORE", "Span",
    "Tell", "Track",
]  # fmt: skip

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Of a node: event time, value, next node of the key. Node 0 is nobody.
_AT, _VALUE, _NEXT, _NODE = 0, 1, 2, 3
# Of a slot (one key): the key, its first and last node, the newest event time; then per window:
_KEY, _FIRST, _LAST, _NEWEST, _EW_SUM, _EW_WEIGHT, _EW_AT, _HEADER = 0, 1, 2, 3, 4, 5, 6, 7
_IN, _OUT, _N, _SUM_HI, _SUM_LO, _SQ_HI, _SQ_LO = 0, 1, 2, 3, 4, 5, 6
_PLAIN_WIDTH, _SQUARED = 5, 7

COUNT, SUM, MEAN, STD, ZSCORE, EWMA, PREVIOUS, AGE, LOW, HIGH, DISTINCT, QUANTILE = range(12)
"""What can be told of a window; AGE in s, EWMA the exponentially weighted mean. COUNT and DISTINCT are int64."""

_inlined = partial(compiled, inline=True)

_VERSION = 1
_FREE = -(2**62)
_STEP_NODES, _STEP_SLOTS = 1 << 17, 1 << 14


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
        if slots[slot, _FIRST] >= 0:
            table[_find(table, slots, slots[slot, _KEY])] = slot


@_inlined
def _plus(high: float, low: float, value: float) -> tuple[float, float]:
    total = high + value
    part = total - high
    low += (high - (total - part)) + (value - part)
    return total, low


@_inlined
def _enter(
    nodes: Ints, values: Floats, slots: Ints, floats: Floats, slot: int, base: int, until: int, squares: bool
) -> None:
    node = slots[slot, base + _IN]
    while node != 0 and nodes[node, _AT] <= until:
        value = values[node, _VALUE]
        if slots[slot, base + _N] == 0:
            slots[slot, base + _OUT] = node
        slots[slot, base + _N] += 1
        high, low = _plus(floats[slot, base + _SUM_HI], floats[slot, base + _SUM_LO], value)
        floats[slot, base + _SUM_HI], floats[slot, base + _SUM_LO] = high, low
        if squares:
            high, low = _plus(floats[slot, base + _SQ_HI], floats[slot, base + _SQ_LO], value * value)
            floats[slot, base + _SQ_HI], floats[slot, base + _SQ_LO] = high, low
        node = nodes[node, _NEXT]
    slots[slot, base + _IN] = node


@_inlined
def _leave(
    nodes: Ints, values: Floats, slots: Ints, floats: Floats, slot: int, base: int, until: int, squares: bool
) -> None:
    node = slots[slot, base + _OUT]
    while slots[slot, base + _N] > 0 and nodes[node, _AT] <= until:
        value = values[node, _VALUE]
        slots[slot, base + _N] -= 1
        high, low = _plus(floats[slot, base + _SUM_HI], floats[slot, base + _SUM_LO], -value)
        floats[slot, base + _SUM_HI], floats[slot, base + _SUM_LO] = high, low
        if squares:
            high, low = _plus(floats[slot, base + _SQ_HI], floats[slot, base + _SQ_LO], -value * value)
            floats[slot, base + _SQ_HI], floats[slot, base + _SQ_LO] = high, low
        node = nodes[node, _NEXT]
    slots[slot, base + _OUT] = node
    if slots[slot, base + _N] == 0:
        floats[slot, base + _SUM_HI] = floats[slot, base + _SUM_LO] = 0.0
        if squares:
            floats[slot, base + _SQ_HI] = floats[slot, base + _SQ_LO] = 0.0


@_inlined
def _spread(slots: Ints, floats: Floats, slot: int, base: int) -> Any:
    """Sample standard deviation of a window, n - 1; NaN below two events."""
    count = slots[slot, base + _N]
    if count < 2:
        return np.nan
    total = floats[slot, base + _SUM_HI] + floats[slot, base + _SUM_LO]
    squares = floats[slot, base + _SQ_HI] + floats[slot, base + _SQ_LO]
    return np.sqrt(max(0.0, (squares - total * total / count) / (count - 1)))


@compiled
def _ordered(nodes: Ints, values: Floats, slots: Ints, slot: int, base: int) -> Floats:
    held = np.empty(slots[slot, base + _N])
    node = slots[slot, base + _OUT]
    for index in range(len(held)):
        held[index] = values[node, _VALUE]
        node = nodes[node, _NEXT]
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


@compiled
def _drop(nodes: Ints, table: Ints, slots: Ints, meta: Ints, slot: int) -> None:
    """Forget a key: its whole chain goes back to the pool at once."""
    _unhash(table, slots, slots[slot, _KEY])
    if slots[slot, _FIRST] != 0:
        nodes[slots[slot, _LAST], _NEXT] = meta[1]
        meta[1] = slots[slot, _FIRST]
    slots[slot, :] = 0
    slots[slot, _FIRST] = -1
    slots[slot, _LAST] = meta[3]
    meta[3] = slot
    meta[5] -= 1


@_inlined
def _look_up(nodes: Ints, slots: Ints, table: Ints, meta: Ints, keys: Ints, windows: int, width: int) -> Ints:
    """The slot of each key, made where it is new.

    Every key's memory is asked for before any of it is used: the processor fetches what it needs for many
    events at once instead of waiting for one after the other.
    """
    found = np.empty(len(keys), np.int64)
    touched = 0
    for row in range(len(keys)):
        place = _find(table, slots, keys[row])
        slot = table[place]
        if slot == 0:
            slot = _new_slot(slots, meta)
            slots[slot, _KEY] = keys[row]
            table[place] = slot
        found[row] = slot
        for field in range(0, slots.shape[1], 8):
            touched += slots[slot, field]
    for row in range(len(keys)):
        slot = found[row]
        touched += nodes[slots[slot, _LAST], _AT]
        for window in range(windows):
            touched += nodes[slots[slot, _HEADER + window * width + _OUT], _AT]
    meta[7] = touched
    return found


@_inlined
def _fade(slots: Ints, floats: Floats, slot: int, now: int, value: float, half_life: float) -> None:
    faded = 0.0
    if floats[slot, _EW_WEIGHT] > 0:
        faded = 0.5 ** ((now - slots[slot, _EW_AT]) / half_life)
    floats[slot, _EW_SUM] = floats[slot, _EW_SUM] * faded + value
    floats[slot, _EW_WEIGHT] = floats[slot, _EW_WEIGHT] * faded + 1.0
    slots[slot, _EW_AT] = now


@_inlined
def _plain(slots: Ints, floats: Floats, slot: int, base: int, field: int, value: float) -> Any:
    """SUM, MEAN, STD, ZSCORE and EWMA: what is kept up to date and only read here."""
    count = slots[slot, base + _N]
    total = floats[slot, base + _SUM_HI] + floats[slot, base + _SUM_LO]
    told = np.nan
    if field == SUM:
        told = total
    elif field == MEAN:
        if count:
            told = total / count
    elif field == EWMA:
        if floats[slot, _EW_WEIGHT] > 0:
            told = floats[slot, _EW_SUM] / floats[slot, _EW_WEIGHT]
    elif count > 1:
        told = _spread(slots, floats, slot, base)
        if field == ZSCORE:
            told = (value - total / count) / told if told > 0 else np.nan
    return told


@_inlined
def _trim(nodes: Ints, slots: Ints, meta: Ints, slot: int, until: int) -> None:
    """What has left the window that reaches back furthest, nobody needs any more."""
    while slots[slot, _FIRST] != 0 and nodes[slots[slot, _FIRST], _AT] <= until:
        node = slots[slot, _FIRST]
        slots[slot, _FIRST] = nodes[node, _NEXT]
        if slots[slot, _FIRST] == 0:
            slots[slot, _LAST] = 0
        nodes[node, _NEXT] = meta[1]
        meta[1] = node


@_inlined
def _sweep(nodes: Ints, table: Ints, slots: Ints, meta: Ints, steps: int, until: int) -> None:
    for _ in range(min(steps, meta[2] - 1)):
        meta[4] = meta[4] + 1 if meta[4] + 1 < meta[2] else 1
        old = meta[4]
        if slots[old, _FIRST] >= 0 and slots[old, _NEWEST] <= until:
            _drop(nodes, table, slots, meta, old)


@compiled
def _fold(  # noqa: C901 - one loop: each call in it would cost as much as the event
    nodes: Ints,
    values: Floats,
    slots: Ints,
    floats: Floats,
    table: Ints,
    meta: Ints,
    spans: Ints,
    tells: Ints,
    numbers: Floats,
    keeps: tuple[bool, float],
    keys: Ints,
    at: Ints,
    given: Floats,
    out: Floats,
    whole: Ints,
) -> bool:
    """Take events in order; True when a NaN was told.

    meta: nodes used, free node, slots used, free slot, slot to sweep next, live keys, watermark, and a sum nobody
    needs. `whole` is `out` (columns, rows) seen as whole numbers. keeps: squares; half-life in ns.
    """
    windows = len(spans)
    horizon = spans[windows - 1, 0]
    squares, half_life = keeps
    width = _SQUARED if squares else _PLAIN_WIDTH
    found = _look_up(nodes, slots, table, meta, keys, windows, width)
    missing = False
    held = np.empty(0)
    for row in range(len(keys)):
        now, slot, value = at[row], found[row], given[row]
        last = slots[slot, _LAST]
        known = last != 0 and nodes[last, _AT] > now - horizon
        before = values[last, _VALUE] if known else np.nan
        age = (now - nodes[last, _AT]) / 1e9 if known else np.nan
        slots[slot, _NEWEST] = now
        if np.isfinite(value):
            _append(nodes, values, slots, meta, slot, now, value, windows, width)
            if half_life > 0:
                _fade(slots, floats, slot, now, value, half_life)
        for window in range(windows):
            base = _HEADER + window * width
            _enter(nodes, values, slots, floats, slot, base, now - spans[window, 1], squares)
            _leave(nodes, values, slots, floats, slot, base, now - spans[window, 0], squares)
        ordered = -1
        for tell in range(len(tells)):
            field, base, into = tells[tell, 0], _HEADER + tells[tell, 1] * width, tells[tell, 2]
            if field == COUNT:
                whole[into, row] = slots[slot, base + _N]
                continue
            if field >= LOW:
                if ordered != base:
                    held = _ordered(nodes, values, slots, slot, base)
                    ordered = base
                if field == DISTINCT:
                    whole[into, row] = _kinds(held)
                    continue
                told = _of_ordered(held, field, numbers[tell])
            elif field == PREVIOUS:
                told = before
            elif field == AGE:
                told = age
            else:
                told = _plain(slots, floats, slot, base, field, value)
            out[into, row] = told
            missing |= np.isnan(told)
        _trim(nodes, slots, meta, slot, now - horizon)
    _sweep(nodes, table, slots, meta, len(keys), meta[6] - horizon)
    return missing


@_inlined
def _new_slot(slots: Ints, meta: Ints) -> Any:
    slot = meta[3]
    if slot != 0:
        meta[3] = slots[slot, _LAST]
    else:
        slot = meta[2]
        meta[2] += 1
    slots[slot, :] = 0
    meta[5] += 1
    return slot


@_inlined
def _append(
    nodes: Ints,
    values: Floats,
    slots: Ints,
    meta: Ints,
    slot: int,
    now: int,
    value: float,
    windows: int,
    width: int,
) -> None:
    node = meta[1]
    if node != 0:
        meta[1] = nodes[node, _NEXT]
    else:
        node = meta[0]
        meta[0] += 1
    nodes[node, _AT], values[node, _VALUE], nodes[node, _NEXT] = now, value, 0
    if slots[slot, _FIRST] == 0:
        slots[slot, _FIRST] = node
    else:
        nodes[slots[slot, _LAST], _NEXT] = node
    slots[slot, _LAST] = node
    for window in range(windows):
        base = _HEADER + window * width
        if slots[slot, base + _IN] == 0:
            slots[slot, base + _IN] = node


class Track:
    """Windows of one value by one key, for whole-number keys.

    LOW, HIGH, DISTINCT and QUANTILE sort the events of their window each time; all else costs the same however
    long the window is.
    """

    def __init__(self, tells: Sequence[Tell], half_life: Nanos = 0) -> None:
        # In the order in which an event leaves them: the chain is cut behind the last.
        spans = sorted({tell.span for tell in tells}, key=lambda span: (span.size + span.delay, span.delay))
        self._spans = np.array([[span.size + span.delay, span.delay] for span in spans], np.int64)
        self._tells = np.array([[tell.field, spans.index(tell.span), tell.into] for tell in tells], np.int64)
        self._numbers = np.array([tell.number for tell in tells])
        fields = {tell.field for tell in tells}
        squares = bool(fields & {STD, ZSCORE})
        self._keeps = (squares, float(half_life))
        self._nodes = np.zeros((_STEP_NODES, _NODE), np.int64)
        width = _HEADER + len(spans) * (_SQUARED if squares else _PLAIN_WIDTH)
        self._slots = np.zeros((_STEP_SLOTS, width), np.int64)
        self._table = np.zeros(2 * _STEP_SLOTS, np.int64)
        self._meta = np.array([1, 0, 1, 0, 0, 0, _FREE, 0], np.int64)
        # Compiled, or loaded, now: not when the first event waits for it.
        nobody = np.zeros(0, np.int64)
        self.fold(nobody, nobody, np.zeros(0), np.zeros((1, 0)))
        self.newest(nobody)

    @property
    def keys(self) -> int:
        """Keys something is known of."""
        return int(self._meta[5])

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return self._nodes.nbytes + self._slots.nbytes + self._table.nbytes

    def newest(self, keys: Ints) -> Ints:
        """Per key the newest event time so far; very small for one that is not known."""
        return np.asarray(_newest(self._table, self._slots, _frozen(keys)))

    def fold(self, keys: Ints, at: Ints, values: Floats, out: Floats, watermark: Nanos = _FREE) -> bool:
        """Write into `out` (columns, rows) what is told of each event; True when a NaN is among it.

        `at` must not fall per key; a key that no event from `watermark` on can see is forgotten. An event whose
        value is not finite is told of but does not count. COUNT and DISTINCT are written as int64 into the same
        memory.
        """
        self._grow(len(keys))
        self._meta[6] = max(self._meta[6], watermark)
        nodes, slots = self._nodes, self._slots
        missing = _fold(
            nodes, nodes.view(np.float64), slots, slots.view(np.float64), self._table, self._meta, self._spans,
            self._tells, self._numbers, self._keeps, _frozen(keys), _frozen(at), _frozen(values), out,
            out.view(np.int64),
        )  # fmt: skip
        return bool(missing)

    def _grow(self, rows: int) -> None:
        # In steps rather than by doubling: the system moves pages instead of copying, nobody waits.
        if self._meta[0] + rows >= len(self._nodes):
            self._nodes.resize((len(self._nodes) + max(rows, _STEP_NODES), _NODE), refcheck=False)
        if self._meta[2] + rows >= len(self._slots):
            width = self._slots.shape[1]
            self._slots.resize((len(self._slots) + max(rows, _STEP_SLOTS), width), refcheck=False)
        if 2 * (self._meta[5] + rows) > len(self._table):
            size = len(self._table)
            while 2 * (self._meta[5] + rows) > size:
                size *= 2
            self._table = np.zeros(size, np.int64)
            _rehash(self._table, self._slots, int(self._meta[2]))

    def snapshot(self) -> bytes:
        """All of it, bit for bit."""
        nodes, slots = self._nodes[: self._meta[0]], self._slots[: self._meta[2]]
        state = (_VERSION, self._meta.tobytes(), nodes.tobytes(), slots.tobytes(), len(self._table))
        return msgspec.msgpack.encode(state)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot."""
        kind: Any = tuple[int, bytes, memoryview, memoryview, int]
        _, meta, nodes, slots, size = msgspec.msgpack.decode(state, type=kind)
        self._meta = np.frombuffer(meta, np.int64).copy()
        self._nodes = _filled(self._nodes.shape[1], nodes, _STEP_NODES)
        self._slots = _filled(self._slots.shape[1], slots, _STEP_SLOTS)
        self._table = np.zeros(size, np.int64)
        _rehash(self._table, self._slots, int(self._meta[2]))


@compiled
def _newest(table: Ints, slots: Ints, keys: Ints) -> Ints:
    newest = np.full(len(keys), _FREE)
    for row in range(len(keys)):
        slot = table[_find(table, slots, keys[row])]
        if slot != 0:
            newest[row] = slots[slot, _NEWEST]
    return newest


def _filled(width: int, stored: memoryview, spare: int) -> Ints:
    held = np.frombuffer(stored, np.int64).reshape(-1, width)
    array = np.zeros((len(held) + spare, width), np.int64)
    array[: len(held)] = held
    return array


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    # What comes from Arrow may not be written to, which to the compiler is another type: let there be only one.
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
