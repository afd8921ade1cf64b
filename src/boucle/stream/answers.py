"""From rows to rows with features: what the tracks need is copied out of the Block, their answers behind it.

For columns of numbers, times and texts this is done by compiled code straight on Arrow's memory
(`boucle.stream.columns`); other types (decimals, lists, several key columns) take the way of Arrow objects,
some tens of microseconds slower per Block, with the same answers.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.stream.columns import (
    BATCH,
    CALL,
    FIRST,
    LARGEST,
    MARK,
    RISES,
    ROWS,
    TIMES,
    VALUES,
    Appended,
    Columns,
    gather,
    number_kind,
    write,
)  # fmt: skip
from boucle.stream.keys import KeyIndex
from boucle.stream.texts import TextIndex, texts
from boucle.stream.tracks import Track, fold

__all__ = ["Answers", "Group"]

Ints = NDArray[np.int64]
_ROOM = 1024


class Group(Protocol):
    """Features that share a key, a value and a memory."""

    column: str
    index: KeyIndex
    texts: TextIndex
    track: Track
    places: list[int]


class Answers:
    """The way of the rows of one schema through the tracks of some groups.

    `take` first; then `rises`, `first` and `largest` tell of the times, `at` and `keys` hold them; `give` last.
    """

    def __init__(
        self, schema: pa.Schema, time: str, groups: Sequence[Group], added: Sequence[pa.Field]
    ) -> None:
        self._groups, self._time, self._added = groups, time, list(added)
        self._whole_schema = pa.schema([*schema, *added], schema.metadata)
        self._columns = Columns()
        self._held = False
        self._schema = schema
        self._by_objects: list[tuple[int, str]] = []
        self._texts: list[int] = []
        jobs: list[list[int]] = []
        self._into: list[tuple[int, int]] = []  # per job: which copy, which flags
        if not self._job(jobs, schema, time, copy=0, flags=0):
            what = f"{time} is {schema.field(time).type}, not a time"
            raise BoucleError("B221", what, fix="name a timestamp, or a whole number of ns, with time:")
        for place, group in enumerate(groups):
            by = group.index.columns
            if len(by) == 1 and _is_text(schema.field(by[0]).type):
                self._texts.append(place)
            elif len(by) > 1 or not self._job(jobs, schema, by[0], copy=1 + 2 * place, flags=1 + place):
                self._by_objects.append((place, "keys"))
            if group.column and not self._job(
                jobs, schema, group.column, copy=2 + 2 * place, flags=0, floating=True
            ):
                self._by_objects.append((place, "values"))
        self._key_jobs = [(job, flags - 1) for job, (_, flags) in enumerate(self._into) if flags]
        self._jobs = np.array(jobs, np.int64).reshape(-1, 7)
        self._message = Appended(schema, added) if Appended.can(schema) else None
        kinds = self._message.kinds if self._message else np.zeros(0, np.int64)
        self._plan = np.array([self._jobs.ctypes.data, len(jobs), kinds.ctypes.data, len(kinds)], np.int64)
        self._call = np.zeros(CALL, np.int64)
        self._call[BATCH] = self._columns.address
        self._keyless = [False] * len(groups)
        self._room = 0
        self._rows = 0
        self._reach(_ROOM)

    def _job(
        self,
        jobs: list[list[int]],
        schema: pa.Schema,
        name: str,
        *,
        copy: int,
        flags: int,
        floating: bool = False,
    ) -> bool:
        kind = number_kind(schema.field(name).type, floating=floating)
        if kind is None:
            return False
        self._into.append((copy, flags))
        jobs.append([schema.get_field_index(name), *kind, floating, 0, 0, 0])
        return True

    def _reach(self, rows: int) -> None:
        """Room for the copies of so many rows."""
        if rows <= self._room:
            return
        self._room = rows
        self._copies = np.zeros((1 + 2 * len(self._groups), rows), np.int64)
        self._flags = np.ones((1 + len(self._groups), rows), np.int64)
        for job, (copy, flags) in zip(self._jobs, self._into, strict=True):
            job[4], job[5] = self._copies[copy].ctypes.data, self._flags[flags].ctypes.data
        for place, group in enumerate(self._groups):
            group.track.point(self._copies[1 + 2 * place], self._copies[2 + 2 * place])
        for place in self._texts:
            group = self._groups[place]
            column = self._schema.get_field_index(group.index.columns[0])
            copies, flags = self._copies[1 + 2 * place], self._flags[1 + place]
            group.texts.point(column, self._schema.field(column).type, copies, flags)
        self._call[TIMES] = self._copies.ctypes.data

    # ── in ────────────────────────────────────────────────────────────────────────────────────

    def take(self, rows: pa.RecordBatch) -> None:
        """Copy times, keys and values of rows out of a Block."""
        self.drop()
        self._rows = number = rows.num_rows
        self._reach(number)
        self._call[ROWS] = number
        self._flags_up()
        self._columns.hold(rows)
        self._held = True
        gather(self._plan, self._call)
        for job, place in self._key_jobs:
            if self._jobs[job, 6]:
                self._keyless[place] = True
        for place in self._texts:
            index = self._groups[place].texts
            while (nulls := texts(index.frame, self._call)) < 0:
                index.make_room(number, rows.get_total_buffer_size())
            self._keyless[place] = nulls > 0
        for place, what in self._by_objects:
            self._objects(rows, place, what)

    def _flags_up(self) -> None:
        for place, keyless in enumerate(self._keyless):
            if keyless:
                self._flags[1 + place] = 1
                self._keyless[place] = False

    def _objects(self, rows: pa.RecordBatch, place: int, what: str) -> None:
        group, number = self._groups[place], rows.num_rows
        if what == "values":
            values = rows.column(group.column).cast(pa.float64()).to_numpy(zero_copy_only=False)
            self._copies[2 + 2 * place, :number].view(np.float64)[:] = values
            return
        keys, there = group.index.of(rows)
        self._copies[1 + 2 * place, :number] = keys
        if there is not None:
            self._flags[1 + place, :number] = there
            self._keyless[place] = True

    @property
    def at(self) -> Ints:
        """The times that were taken, in ns."""
        return self._copies[0, : self._rows]

    def keys(self, group: int) -> tuple[Ints, NDArray[np.bool_]]:
        """A number per row, and which rows have a key."""
        return self._copies[1 + 2 * group, : self._rows], self._flags[1 + group, : self._rows] != 0

    @property
    def rises(self) -> bool:
        """Whether no time is before the one above it."""
        return bool(self._call[RISES])

    @property
    def first(self) -> Nanos:
        """The time of the first row."""
        return int(self._call[FIRST])

    @property
    def largest(self) -> Nanos:
        """The latest time."""
        return int(self._call[LARGEST])

    # ── out ───────────────────────────────────────────────────────────────────────────────────

    def give(self, rows: pa.RecordBatch, watermark: Nanos) -> pa.RecordBatch:
        """The rows that were taken (the same again), with what the tracks tell of each."""
        call, message = self._call, self._message
        call[MARK] = watermark
        if message is None:
            out = np.empty((len(self._added), self._rows))
            call[VALUES] = out.ctypes.data
            self._fold()
            told = self._by_arrays(rows, out)
        else:
            message.begin(call, self._rows)
            self._fold()
            write(message.plan, call)
            told = message.read(call)
        self.drop()
        return told

    def _fold(self) -> None:
        for place, group in enumerate(self._groups):
            track = group.track
            if self._keyless[place] or track.keyless:
                flags = self._flags[1 + place] if self._keyless[place] else None
                track.miss(flags)
                if self._message is not None:
                    self._message.flags[group.places, 1] = 0 if flags is None else flags.ctypes.data
            while not fold(track.frame, self._call):
                track.make_room(self._rows)

    def _by_arrays(self, rows: pa.RecordBatch, out: NDArray[np.float64]) -> pa.RecordBatch:
        told: list[pa.Array] = [None] * len(self._added)
        for place, group in enumerate(self._groups):
            absent = self._flags[1 + place, : self._rows] == 0 if self._keyless[place] else None
            for into in group.places:
                field, values = self._added[into], out[into]
                if pa.types.is_integer(field.type):
                    told[into] = pa.array(values.view(np.int64), field.type, mask=absent)
                else:
                    told[into] = pa.array(values, field.type, mask=np.isnan(values))
        return pa.RecordBatch.from_arrays([*rows.columns, *told], schema=self._whole_schema)

    def drop(self) -> None:
        """Give the Block's memory back."""
        if self._held:
            self._held = False
            self._columns.release()


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )
