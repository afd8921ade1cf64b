"""From rows to rows with features: what the tracks need is copied out of the Block, their answers behind it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.stream.appended import Extended
from boucle.stream.columns import MARK, width_of
from boucle.stream.keys import KeyIndex
from boucle.stream.texts import TextIndex, texts
from boucle.stream.tracks import Track, fold

__all__ = ["Answers", "Group"]

Ints = NDArray[np.int64]


class Group(Protocol):
    """Features that share a key, a value and a memory."""

    column: str
    index: KeyIndex
    texts: TextIndex
    track: Track
    places: list[int]


class Answers:
    """The way of the rows of one schema through the tracks of some groups.

    `take` first; then `rows` tells of the times, `at` and `keys` hold them; `give` last.
    """

    def __init__(
        self, schema: pa.Schema, time: str, groups: Sequence[Group], added: Sequence[pa.Field]
    ) -> None:
        self._schema, self._groups = schema, groups
        # Of each group the key is read at 1, 3, 5 …, the value at 2, 4, 6 … (the time where there is none).
        reads = [(time, False)]
        for group in groups:
            key = group.index.columns[0]
            reads += [(key, False), (group.column or time, True)]
        self.rows = Extended(schema, reads, added)
        if not self.rows.read[0]:
            what = f"{time} is {schema.field(time).type}, not a time"
            raise BoucleError("B221", what, fix="name a timestamp, or a whole number of ns, with time:")
        self._texts = [place for place, group in enumerate(groups) if self._by_text(group)]
        single = [
            len(group.index.columns) == 1 and place not in self._texts for place, group in enumerate(groups)
        ]
        self._numbers = [
            place for place in range(len(groups)) if single[place] and self.rows.read[1 + 2 * place]
        ]
        self._others = [
            place for place in range(len(groups)) if place not in self._texts and place not in self._numbers
        ]
        self._values = [
            place for place, group in enumerate(groups) if group.column and not self.rows.read[2 + 2 * place]
        ]
        self._lowered: set[int] = set()
        """Groups of which a row has no key."""
        self._point()
        for place in range(len(groups)):
            self._show(place, None)  # the flags of other rows' schema are gone

    def _by_text(self, group: Group) -> bool:
        names = group.index.columns
        width = width_of(self._schema.field(names[0]).type)
        return len(names) == 1 and width is not None and width < 0

    def _point(self) -> None:
        """Tell everybody where keys and values lie."""
        for place, group in enumerate(self._groups):
            keys, values, flags = self._keys(place), self.rows.numbers[2 + 2 * place], self._flags(place)
            group.track.point(keys, values)
            if place in self._texts:
                column = self._schema.get_field_index(group.index.columns[0])
                group.texts.point(column, self._schema.field(column).type, keys, flags)

    def _keys(self, place: int) -> Ints:
        keys: Ints = self.rows.numbers[1 + 2 * place]
        return keys

    def _flags(self, place: int) -> Ints:
        flags: Ints = self.rows.flags[1 + 2 * place]
        return flags

    def take(self, rows: pa.RecordBatch) -> None:
        """Copy times, keys and values of rows out of a Block."""
        number = rows.num_rows
        if self.rows.reach(number):
            self._point()
        if self._lowered:
            self._raise()
        self.rows.take(rows)
        self._number = number
        if not self.rows.complete:
            for place in self._numbers:
                self._lower(place, lowered=self.rows.nulls(1 + 2 * place) > 0)
        for place in self._texts:
            index = self._groups[place].texts
            while (nulls := texts(index.frame, self.rows.call)) < 0:
                index.make_room(number, rows.get_total_buffer_size())
            self._lower(place, lowered=nulls > 0)
        for place in self._others:
            keys, there = self._groups[place].index.of(rows)
            self._keys(place)[:number] = keys
            if there is not None:
                self._flags(place)[:number] = there
                self._lower(place, lowered=True)
        for place in self._values:
            values = rows.column(self._groups[place].column).cast(pa.float64())
            self.rows.numbers[2 + 2 * place, :number].view(np.float64)[:] = values.to_numpy(
                zero_copy_only=False
            )

    def _lower(self, place: int, *, lowered: bool) -> None:
        if lowered:
            self._lowered.add(place)
            self._show(place, self._flags(place))

    def _raise(self) -> None:
        for place in self._lowered:
            self._flags(place)[:] = 1
            self._show(place, None)
        self._lowered.clear()

    def _show(self, place: int, flags: Ints | None) -> None:
        group = self._groups[place]
        group.track.miss(flags)
        for column in group.places:
            self.rows.hide(column, flags)

    @property
    def at(self) -> Ints:
        """The times that were taken, in ns."""
        return self.rows.numbers[0, : self._number]

    def keys(self, group: int) -> tuple[Ints, NDArray[np.bool_]]:
        """A number per row, and which rows have a key."""
        return self._keys(group)[: self._number], self._flags(group)[: self._number] != 0

    def give(self, rows: pa.RecordBatch, watermark: Nanos) -> pa.RecordBatch:
        """The rows that were taken (the same again), with what the tracks tell of each."""
        self.rows.call[MARK] = watermark
        self.rows.begin()
        for group in self._groups:
            track = group.track
            while not fold(track.frame, self.rows.call):
                track.make_room(self._number)
        return self.rows.give(rows)
