"""A statement on its way to an answer: what it is, what was bound to it, and its rows as they go out."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from boucle.lake.sql import Answer, Bound, SqlSession
from boucle.outlet.columns import Values, encode, values_of
from boucle.outlet.commands import Command
from boucle.outlet.pgtype import TYPES, as_binary, as_text, modifier, pg_type
from boucle.outlet.wire import Column

__all__ = ["Portal", "Prepared", "asked", "described", "projected", "text_columns"]

PIECE_BYTES = 4 << 20
"""About how much of an answer is encoded at once."""
_ROWS, _WIDE_ROWS = 65_536, 2_048
_OURS = re.compile(r'^boucle_\w+_(?:catalog|schema)\."?(\w+?)(?:_in|_out)?"?\(')


class Prepared:
    """A statement as Parse left it: either a command of the session, or a question with its shape."""

    def __init__(
        self, text: str, command: Command | None, sql: str, bound: Bound | None, parameters: Sequence[int]
    ) -> None:
        self.text, self.command, self.sql, self.bound = text, command, sql, bound
        self.parameters = tuple(parameters)
        """Type OIDs of `$1`, `$2`, …"""


def described(bound: Bound, formats: Sequence[int]) -> list[Column]:
    """The columns of an answer in the formats a Bind asked for (none: all text; one: all so)."""
    columns = []
    for index, (name, kind) in enumerate(zip(bound.names, bound.types, strict=True)):
        told = pg_type(kind)
        ours = _OURS.match(name)
        columns.append(
            Column(ours[1] if ours else name, told.oid, told.size, modifier(kind), asked(formats, index))
        )
    return columns


def asked(formats: Sequence[int], index: int) -> int:
    """The format of one value: the protocol lets one code, or none, stand for all."""
    if not formats:
        return 0
    return formats[index] if len(formats) > 1 else formats[0]


def projected(sql: str, bound: Bound, columns: Sequence[Column]) -> str:
    """The question, giving each column in a form `boucle.outlet.columns` can write."""
    names = [f"c{index}" for index in range(1, len(columns) + 1)]
    told = [
        (as_binary if column.format else as_text)(kind, name)
        for name, kind, column in zip(names, bound.types, columns, strict=True)
    ]
    if told == names:
        return sql
    return f"SELECT {', '.join(told)} FROM (\n{sql}\n) AS r({', '.join(names)})"  # noqa: S608 - checked before and after


class Portal:
    """A bound statement. `rows` gives encoded rows; what a limit left over waits for the next call."""

    def __init__(
        self,
        statement: Prepared,
        values: Sequence[Any],
        formats: Sequence[int],
        place: SqlSession | None = None,
    ) -> None:
        self.statement, self.values, self.formats = statement, values, tuple(formats)
        self.columns = described(statement.bound, formats) if statement.bound else []
        self.place = place
        """A reader of its own, for an answer that is read in several goes."""
        self.held = False
        """Whether it outlives its transaction."""
        self.done = False
        self._types = statement.bound.types if statement.bound else ()
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._rest: list[pa.RecordBatch] = []
        """What was read and not given yet, the next last."""

    def open(self, place: SqlSession) -> None:
        """Begin to answer, unless it was begun."""
        if self._batches is None:
            assert self.statement.bound is not None
            wide = any(
                "[" in kind or kind.startswith(("STRUCT", "MAP", "BLOB", "JSON")) for kind in self._types
            )
            sql = projected(self.statement.sql, self.statement.bound, self.columns)
            answer: Answer = place.read(sql, self.values, _WIDE_ROWS if wide else _ROWS)
            self._batches = answer.rows

    def rows(self, limit: int, tag: bytes = b"D") -> Iterator[tuple[int, memoryview]]:
        """At most `limit` rows (0: all) in pieces: how many, and their bytes. `done` says whether any are left."""
        given = 0
        for piece in self._pieces():
            take = piece.num_rows if not limit else min(piece.num_rows, limit - given)
            if take < piece.num_rows:
                self._rest.append(piece.slice(take))
            if take:
                given += take
                yield take, encode(self._values(piece.slice(0, take)), take, tag)
            if limit and given >= limit:
                return
        self.done = True

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What is left, as it is."""
        yield from self._pieces()
        self.done = True

    def _pieces(self) -> Iterator[pa.RecordBatch]:
        while True:
            batch = self._rest.pop() if self._rest else next(self._batches or iter(()), None)
            if batch is None:
                return
            if batch.nbytes > PIECE_BYTES and batch.num_rows > 1:
                few = max(1, batch.num_rows * PIECE_BYTES // batch.nbytes)
                if few < batch.num_rows:
                    self._rest.append(batch.slice(few))
                    batch = batch.slice(0, few)
            yield batch

    def _values(self, batch: pa.RecordBatch) -> list[Values]:
        return [
            values_of(values, kind, bool(column.format))
            for values, kind, column in zip(batch.columns, self._types, self.columns, strict=True)
        ]

    def close(self) -> None:
        """Forget the rest."""
        self._batches, self._rest = None, []
        if self.place is not None:
            self.place.close()
            self.place = None


def text_columns(named: Sequence[tuple[str, int]]) -> list[Column]:
    """Columns of an answer that is made here, in text."""
    return [Column(name, oid, TYPES[oid].size) for name, oid in named]
