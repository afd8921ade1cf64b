"""Two runs' tables held against each other, row by row and to the last bit.

Rows are paired by the key of their table and their event time; the second row of one key and time with the
second, and so on. A table without a key has no row that "changed": a row is there in both, or in one.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import as_dicts
from boucle.bus.log import EventLog
from boucle.clock import Nanos
from boucle.stream.sequence import instants

__all__ = ["Compared", "Unequal", "compare", "derived_rows", "moment"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
_TIME = "at"


class Unequal(Struct, frozen=True):
    """One row that is not the same: what identifies it, and its other columns in each run; None: it has none."""

    key: dict[str, Any]
    live: dict[str, Any] | None
    replay: dict[str, Any] | None


class Compared(Struct, frozen=True):
    """What became of one table. `equal + different + only_live` are the live rows."""

    table: str
    equal: int
    different: int
    only_live: int
    only_replay: int
    columns: dict[str, int]
    """Column → in how many rows it differs."""
    columns_only_live: list[str]
    columns_only_replay: list[str]
    first: list[Unequal]
    """The first rows that are not the same, by event time."""

    @property
    def same(self) -> bool:
        """Whether nothing differs, columns included."""
        return not (
            self.different
            or self.only_live
            or self.only_replay
            or self.columns_only_live
            or self.columns_only_replay
        )


def derived_rows(
    folder: Path, columns: Sequence[str], since: Nanos | None, until: Nanos | None
) -> pa.Table | None:
    """The durable rows of a derived stream's log with `since` ≤ at < `until`; None when it has none at all."""
    if not folder.exists():
        return None
    batches = []
    for block in EventLog(folder).read():
        rows = block.rows
        names = [name for name in columns if name in rows.schema.names]
        rows = rows.select(names) if columns else rows
        at = instants(rows, _TIME)
        inside = (at >= (since if since is not None else at)) & (
            at < (until if until is not None else at + 1)
        )
        batches.append(rows if inside.all() else rows.filter(pa.array(inside)))
    if not batches:
        return None
    # A stream may have gained a column in the middle of its life: those that lack it get nulls.
    return pa.concat_tables([pa.Table.from_batches([one]) for one in batches], promote_options="permissive")


def compare(
    table: str, key: Sequence[str], live: pa.Table | None, replay: pa.Table | None, first: int = 5
) -> Compared:
    """Every row of both; `key` are the table's key columns, none where a row is only known by all it says."""
    if live is None or replay is None:
        have = live if live is not None else replay
        live = have.slice(0, 0) if live is None and have is not None else live
        replay = have.slice(0, 0) if replay is None and have is not None else replay
    if live is None or replay is None:
        return Compared(table, 0, 0, 0, 0, {}, [], [], [])
    names = [name for name in live.column_names if name in replay.column_names]
    plain = [name for name in names if _plain(live, name) and _plain(replay, name)]
    wanted = list(dict.fromkeys([*key, _TIME])) if key else plain
    identity = [name for name in wanted if name in plain]
    mine, theirs = _identities(live, replay, identity)
    _, left, right = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    order = np.argsort(left, kind="stable")
    left, right = left[order], right[order]
    same = np.ones(len(left), np.bool_)
    columns = {}
    for name in names:
        if name in identity:
            continue
        equal = _equal(_array(live, name).take(pa.array(left)), _array(replay, name).take(pa.array(right)))
        if not equal.all():
            columns[name] = int((~equal).sum())
            same &= equal
    gone = np.setdiff1d(np.arange(len(mine)), left)
    new = np.setdiff1d(np.arange(len(theirs)), right)
    other = [name for name in names if name in columns]
    shown = [
        *_shown(live, replay, left[~same], right[~same], identity, other, first),
        *_shown(live, None, gone, gone, identity, names, first),
        *_shown(None, replay, new, new, identity, names, first),
    ]
    shown.sort(key=lambda one: one[0])
    return Compared(
        table,
        int(same.sum()),
        int((~same).sum()),
        len(gone),
        len(new),
        columns,
        [name for name in live.column_names if name not in names],
        [name for name in replay.column_names if name not in names],
        [one for _, one in shown[:first]],
    )


def _array(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _plain(table: pa.Table, name: str) -> bool:
    return _plain_type(table.schema.field(name).type)


def _plain_type(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind)


def _bits(values: pa.Array) -> pa.Array:
    """Floating-point numbers as what they are made of, so that equal means to the last bit."""
    if pa.types.is_float64(values.type):
        return values.view(pa.int64())
    return values.view(pa.int32()) if pa.types.is_float32(values.type) else values


def _identities(live: pa.Table, replay: pa.Table, names: Sequence[str]) -> tuple[Ints, Ints]:
    """A number per row that only the rows of one identity share, counted through: none comes twice in a table."""
    split = live.num_rows
    codes = np.zeros(split + replay.num_rows, np.int64)
    for name in names:
        mine, theirs = _bits(_array(live, name)), _bits(_array(replay, name))
        if mine.type != theirs.type:
            mine, theirs = mine.cast(pa.string()), theirs.cast(pa.string())
        column = pa.concat_arrays([mine, theirs]).dictionary_encode()
        found = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
        codes = np.unique(codes * (len(column.dictionary) + 1) + found, return_inverse=True)[1]
    most = max(len(codes), 1)
    return codes[:split] * most + _counted(codes[:split]), codes[split:] * most + _counted(codes[split:])


def _counted(codes: Ints) -> Ints:
    """Of each row, how many of its code came before."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(codes) else order
    lengths = np.diff([*begins, len(codes)])
    counted = np.empty(len(codes), np.int64)
    counted[order] = np.arange(len(codes)) - np.repeat(begins, lengths)
    return counted


def _equal(mine: pa.Array, theirs: pa.Array) -> Mask:
    if _quickly_equal(mine, theirs):
        return np.ones(len(mine), np.bool_)
    if mine.type != theirs.type or pa.types.is_nested(mine.type):
        pairs = zip(mine.to_pylist(), theirs.to_pylist(), strict=True)
        # repr tells 0.0 from -0.0 and finds a NaN equal to itself.
        return np.array([repr(one) == repr(other) for one, other in pairs], np.bool_)
    both = pc.and_(mine.is_null(), theirs.is_null())
    equal = pc.equal(_bits(mine), _bits(theirs)).fill_null(False)
    told: Mask = pc.or_(equal, both).to_numpy(zero_copy_only=False)
    return told


def _quickly_equal(mine: pa.Array, theirs: pa.Array) -> bool:
    """Whether all is surely the same, seen without looking row by row."""
    if mine.type != theirs.type:
        return False
    if pa.types.is_list(mine.type) and _plain_type(mine.type.value_type):
        lengths = pc.list_value_length(mine).equals(pc.list_value_length(theirs))
        return bool(lengths and _bits(mine.flatten()).equals(_bits(theirs.flatten())))
    return bool(_plain_type(mine.type) and _bits(mine).equals(_bits(theirs)))


def _shown(
    live: pa.Table | None,
    replay: pa.Table | None,
    left: Ints,
    right: Ints,
    identity: Sequence[str],
    names: Sequence[str],
    most: int,
) -> list[tuple[Nanos, Unequal]]:
    """The earliest of some rows, side by side."""
    one = live if live is not None else replay
    places = left if live is not None else right
    if one is None or not len(places):
        return []
    order = np.argsort(_instants_of(one)[places], kind="stable")[:most]
    keys = _rows(one, places[order], [*identity, *([] if _TIME in identity else [_TIME])])
    mine = _rows(live, left[order], names) if live is not None else [None] * len(keys)
    theirs = _rows(replay, right[order], names) if replay is not None else [None] * len(keys)
    moments = _instants_of(one)[places[order]].tolist()
    found = []
    for at, key, one_row, other_row in zip(moments, keys, mine, theirs, strict=True):
        found.append((at, Unequal(key, *_apart(one_row, other_row))))
    return found


def _apart(live: dict[str, Any] | None, replay: dict[str, Any] | None) -> tuple[Any, Any]:
    """Two rows without what they have in common."""
    if live is None or replay is None:
        return live, replay
    other = [name for name in live if repr(live[name]) != repr(replay[name])]
    return {name: live[name] for name in other}, {name: replay[name] for name in other}


def _instants_of(table: pa.Table) -> Ints:
    """The event times of a table, in ns."""
    at: Ints = instants(pa.record_batch({_TIME: _array(table, _TIME)}), _TIME)
    return at


def _rows(table: pa.Table, places: Ints, names: Sequence[str]) -> list[dict[str, Any]]:
    some = pa.record_batch({name: _array(table, name).take(pa.array(places)) for name in names})
    times = [name for name in names if pa.types.is_timestamp(some.schema.field(name).type)]
    rows = as_dicts(some)
    for row in rows:
        row.update({name: moment(row[name]) for name in times if row[name] is not None})
    return rows


def moment(at: Nanos) -> str:
    """An event time as text, to the nanosecond.

    >>> moment(1_767_225_600_500_000_000)
    '2026-01-01T00:00:00.5Z'
    """
    whole, nanos = divmod(at, 10**9)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{nanos:09d}".rstrip("0").rstrip(".") + "Z"
