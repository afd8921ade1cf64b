"""Texts as whole numbers: each gets one when it is first seen, found again by compiled code.

Card numbers are texts more often than not; a Python dictionary of ten million of them takes a gigabyte and
150 µs for a Block of 64.
"""

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.compiled import compiled
from boucle.memory import (
    BOOK,
    Page,
    Paged,
    bytes_at,
    copy,
    name_pages,
    pages_of,
    touch,
    touch_all,
    words_at,
)  # fmt: skip
from boucle.stream.columns import BATCH, CALL, ROWS, Columns, column_at, is_null, span_of

__all__ = ["TextIndex", "texts"]

Ints = NDArray[np.int64]

# Of an entry (one text): its hash, where its bytes begin, and how many they are (-1: the entry is free, and then
# where the next free one is).
_HASH, _BEGIN, _LENGTH, _ENTRY = 0, 1, 2, 3
# Of `meta`: entries in use, bytes in use, a free entry, live texts, a sum nobody needs.
_ENTRIES, _BYTES, _SPARE, _LIVE, _NOBODY, _META = 0, 1, 2, 3, 4, 5
# Of a frame.
(_F_ROWS, _F_ROW_COUNT, _F_BYTES, _F_BYTE_COUNT, _F_TABLE, _F_TABLE_SIZE, _F_META, _F_ENTRY_BOOK, _F_TEXT_BOOK,
 _F_COLUMN, _F_WIDTH, _F_INTO, _F_THERE, _FRAME) = range(14)  # fmt: skip


@compiled
def _hashed(at: int, length: int) -> Any:
    mixed = np.uint64(length) * np.uint64(0x9E3779B97F4A7C15)
    for byte in bytes_at(at, length):
        mixed = (mixed ^ np.uint64(byte)) * np.uint64(0x100000001B3)
    return np.int64(mixed ^ (mixed >> np.uint64(29)))


@compiled
def _same(left: int, right: int, length: int) -> bool:
    one, other = bytes_at(left, length), bytes_at(right, length)
    for index in range(length):  # noqa: SIM110 - compiled: there are no generators
        if one[index] != other[index]:
            return False
    return True


@compiled
def texts(frame: Ints, call: Ints) -> int:  # noqa: C901 - one loop after the other, to ask for memory early
    """Number the texts of a column; the rows without one (their flags become 0), or -1 when there is no room.

    `frame` is a `TextIndex`'s, `call` as in `boucle.stream.columns`.
    """
    rows, meta = call[ROWS], words_at(frame[_F_META], _META)
    entries = words_at(frame[_F_ROWS], frame[_F_ROW_COUNT] * _ENTRY).reshape((-1, _ENTRY))
    table = words_at(frame[_F_TABLE], frame[_F_TABLE_SIZE] // 2).view(np.int32)
    entry_book, text_book = words_at(frame[_F_ENTRY_BOOK], BOOK), words_at(frame[_F_TEXT_BOOK], BOOK)
    into, there = words_at(frame[_F_INTO], rows), words_at(frame[_F_THERE], rows)
    column, first = column_at(call[BATCH], frame[_F_COLUMN])
    width = frame[_F_WIDTH]
    begin, end = span_of(column, first, rows, width)
    full = meta[_ENTRIES] + rows >= len(entries) or 2 * (meta[_LIVE] + rows) > len(table)
    if full or meta[_BYTES] + end - begin > frame[_F_BYTE_COUNT]:
        return -1
    mask, nulls, touched = len(table) - 1, 0, 0
    # All memory is asked for before any is used: the processor waits for many texts at once.
    hashes = np.empty(rows, np.int64)
    for row in range(rows):
        start, stop = span_of(column, first + row, 1, width)
        hashes[row] = _hashed(column[2] + start, stop - start)
        touched += table[hashes[row] & mask]
    for row in range(rows):
        touched += entries[table[hashes[row] & mask], _HASH]
    for row in range(rows):
        touched += bytes_at(frame[_F_BYTES] + entries[table[hashes[row] & mask], _BEGIN], 1)[0]
    meta[_NOBODY] = touched
    for row in range(rows):
        if is_null(column, first + row):
            there[row], into[row] = 0, 0
            nulls += 1
            continue
        start, stop = span_of(column, first + row, 1, width)
        at, length = column[2] + start, stop - start
        hashed = hashes[row]
        place = hashed & mask
        while True:
            entry = np.int64(table[place])
            if entry == 0 or (
                entries[entry, _HASH] == hashed
                and entries[entry, _LENGTH] == length
                and _same(frame[_F_BYTES] + entries[entry, _BEGIN], at, length)
            ):
                break
            place = (place + 1) & mask
        if entry == 0:
            entry = meta[_SPARE]
            if entry != 0:
                meta[_SPARE] = entries[entry, _BEGIN]
            else:
                entry = meta[_ENTRIES]
                meta[_ENTRIES] += 1
            meta[_LIVE] += 1
            touch(entry_book, entry)
            entries[entry, _HASH], entries[entry, _BEGIN], entries[entry, _LENGTH] = (
                hashed, meta[_BYTES], length,
            )  # fmt: skip
            touch_all(text_book, meta[_BYTES] >> 3, (meta[_BYTES] + length) >> 3)
            copy(frame[_F_BYTES] + meta[_BYTES], at, length)
            meta[_BYTES] += length
            table[place] = entry
        into[row] = entry
    return nulls


@compiled
def _rehash(table: NDArray[np.int32], entries: Ints, used: int) -> None:
    mask = len(table) - 1
    for entry in range(1, used):
        if entries[entry, _LENGTH] >= 0:
            place = entries[entry, _HASH] & mask
            while table[place] != 0:
                place = (place + 1) & mask
            table[place] = entry


@compiled
def _keep(entries: Ints, alive: NDArray[np.bool_], meta: Ints, source: int, to: int) -> None:
    """Free the entries that are not alive; move the texts of the others together."""
    moved = 0
    for entry in range(1, meta[_ENTRIES]):
        length = entries[entry, _LENGTH]
        if length < 0:
            continue
        if alive[entry]:
            copy(to + moved, source + entries[entry, _BEGIN], length)
            entries[entry, _BEGIN] = moved
            moved += length
        else:
            entries[entry, _LENGTH], entries[entry, _BEGIN] = -1, meta[_SPARE]
            meta[_SPARE] = entry
            meta[_LIVE] -= 1
    meta[_BYTES] = moved


@compiled
def _gathered(entries: Ints, numbers: Ints, source: int, to: int) -> None:
    moved = 0
    for number in numbers:
        copy(to + moved, source + entries[number, _BEGIN], entries[number, _LENGTH])
        moved += entries[number, _LENGTH]


class TextIndex:
    """Numbers from 1 on for the texts of one column."""

    def __init__(self, lock: threading.Lock) -> None:
        self._entries, self._texts, self._lock = Paged(_ENTRY, lock), Paged(1, lock), lock
        self._table = np.zeros(1 << 12, np.int32)
        self._meta = np.zeros(_META, np.int64)
        self._meta[_ENTRIES] = 1
        self.frame = np.zeros(_FRAME, np.int64)
        self._settle()

    @staticmethod
    @cache
    def prepare() -> None:
        """Compile, or load, what is needed: when a step is made, not when its first row waits for it."""
        index, columns, call = TextIndex(threading.Lock()), Columns(), np.zeros(CALL, np.int64)
        call[BATCH], call[ROWS] = columns.address, 1
        into = np.ones((2, 1), np.int64)
        index.point(0, pa.string(), into[0], into[1])
        columns.hold(pa.record_batch({"of": pa.array(["one"])}))
        texts(index.frame, call)
        columns.release()

    def _settle(self) -> None:
        entries, held, frame = self._entries, self._texts, self.frame
        frame[[_F_ROWS, _F_ROW_COUNT]] = entries.address, len(entries.rows)
        frame[[_F_BYTES, _F_BYTE_COUNT]] = held.address, 8 * (len(held.rows) - 1)
        frame[[_F_TABLE, _F_TABLE_SIZE]] = self._table.ctypes.data, len(self._table)
        frame[_F_META] = self._meta.ctypes.data
        frame[[_F_ENTRY_BOOK, _F_TEXT_BOOK]] = entries.book.ctypes.data, held.book.ctypes.data

    def __len__(self) -> int:
        return int(self._meta[_LIVE])

    def point(self, column: int, kind: pa.DataType, into: Ints, there: Ints) -> None:
        """Which column of the rows is numbered, where the numbers go, and the flags that become 0 for a null."""
        width = 8 if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) else 4
        self.frame[[_F_COLUMN, _F_WIDTH]] = column, width
        self.frame[[_F_INTO, _F_THERE]] = into.ctypes.data, there.ctypes.data

    def make_room(self, rows: int, size: int) -> None:
        """Room for so many more texts of so many bytes; `texts` said that there was none."""
        live, used = int(self._meta[_LIVE]), int(self._meta[_ENTRIES])
        self._entries.reach(used + rows + 1)
        self._texts.reach((int(self._meta[_BYTES]) + size) // 8 + 2)
        if 2 * (live + rows) > len(self._table):
            self._hash_anew(live + rows)
        self._settle()

    def _hash_anew(self, texts_: int) -> None:
        """A table with places for so many texts, half of them free."""
        size = len(self._table)
        while 2 * texts_ > size:
            size *= 2
        self._table = np.zeros(size, np.int32)
        _rehash(self._table, self._entries.rows, int(self._meta[_ENTRIES]))

    def forget(self, alive: Callable[[Ints], NDArray[np.bool_]]) -> None:
        """Keep only the texts whose numbers are `alive`."""
        used = int(self._meta[_ENTRIES])
        with self._lock:
            self._entries.touch(used)
            held = self._texts.rows[: -(-int(self._meta[_BYTES]) // 8)].copy()
            self._texts.touch(len(held))
            alive_ones = alive(np.arange(used))
            _keep(self._entries.rows, alive_ones, self._meta, int(held.ctypes.data), self._texts.address)
        self._hash_anew(0)
        self._settle()

    def find(self, text: str) -> int | None:
        """The number of a text; None when it has none."""
        said = np.frombuffer(text.encode(), np.uint8)
        entries = self._entries.rows[: self._meta[_ENTRIES]]
        held = self._texts.rows.reshape(-1).view(np.uint8)
        hashed = _hashed(said.ctypes.data, len(said))
        for number in np.flatnonzero((entries[:, _HASH] == hashed) & (entries[:, _LENGTH] == len(said))):
            begin = int(entries[number, _BEGIN])
            if (held[begin : begin + len(said)] == said).all():
                return int(number)
        return None

    def said(self, numbers: Ints, kind: pa.DataType) -> pa.Array:
        """The texts of these numbers as a column of a type; 0 is null."""
        entries = self._entries.rows
        offsets = np.zeros(len(numbers) + 1, np.int64)
        np.cumsum(entries[numbers, _LENGTH], out=offsets[1:])
        held = np.empty(max(1, int(offsets[-1])), np.uint8)
        _gathered(entries, numbers, self._texts.address, int(held.ctypes.data))
        absent = numbers == 0
        there = pa.array(~absent).buffers()[1] if absent.any() else None
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        large = pa.large_string() if is_text else pa.large_binary()
        buffers = [there, pa.py_buffer(offsets), pa.py_buffer(held)]
        return pa.Array.from_buffers(large, len(numbers), buffers).cast(kind)

    def parts(self, *, everything: bool) -> dict[str, bytes | Page]:
        """State by part: what changed since the last call, or everything; pages are copied when they are read."""
        entries = self._entries.pages(int(self._meta[_ENTRIES]), everything=everything)
        held = self._texts.pages(-(-int(self._meta[_BYTES]) // 8), everything=everything)
        return {"meta": self._meta.tobytes(), **name_pages(entries=entries, texts=held)}

    def snapshot(self) -> dict[str, bytes]:
        """All of it, as `restore_parts` takes it."""
        entries = self._entries.whole(int(self._meta[_ENTRIES]))
        held = self._texts.whole(-(-int(self._meta[_BYTES]) // 8))
        return {"meta": self._meta.tobytes(), **name_pages(entries=entries, texts=held)}

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Continue from parts, on a fresh index."""
        self._meta[:] = np.frombuffer(parts["meta"], np.int64)
        self._entries.load(pages_of(parts, "entries"), int(self._meta[_ENTRIES]))
        self._texts.load(pages_of(parts, "texts"), -(-int(self._meta[_BYTES]) // 8))
        self._hash_anew(int(self._meta[_LIVE]))
        self._settle()
