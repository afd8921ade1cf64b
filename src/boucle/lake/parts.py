"""Rows as the data files of a table: one part per partition, named, with what the log says of its values.

delta-rs writes rows, too, but an append of a thousand rows takes it three times as long, it cannot exchange files
of our choice in one commit, and it never says which files it is about to write.
"""

import json
import math
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Part", "folder_of", "new_name", "parts", "statistics"]

Part = tuple[dict[str, str | None], pa.Table]

_NOTHING = "__HIVE_DEFAULT_PARTITION__"
_DESCRIBED = 32
"""Columns whose statistics the log holds, as other writers of Delta do."""
_SHORT = 32


def parts(rows: pa.Table, partition_by: Sequence[str]) -> Iterator[Part]:
    """The rows of each combination of partition values, without these columns."""
    names = [name for name in partition_by if name in rows.column_names]
    rest = rows.drop_columns(names)
    if not len(rows):
        return
    if not names:
        yield {}, rest
        return
    codes, values = np.zeros(len(rows), np.int64), []
    for name in names:
        coded = rows.column(name).combine_chunks().dictionary_encode()
        words = _texts(coded.dictionary)
        which = pc.fill_null(coded.indices, len(words)).to_numpy().astype(np.int64)
        values.append((name, [*words, None]))
        codes = codes * (len(words) + 1) + which
    if (codes == codes[0]).all():
        yield _named(int(codes[0]), values), rest
        return
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rest = rest.take(pa.array(order))
    for begin, end in zip(starts, [*starts[1:], len(ordered)], strict=True):
        yield _named(int(ordered[begin]), values), rest.slice(int(begin), int(end - begin))


def _texts(values: pa.Array) -> list[str]:
    if pa.types.is_boolean(values.type):
        return ["true" if value else "false" for value in values.to_pylist()]
    return [str(value) for value in values.to_pylist()]


def _named(code: int, values: list[tuple[str, list[str | None]]]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name, words in reversed(values):
        code, which = divmod(code, len(words))
        found[name] = words[which]
    return {name: found[name] for name, _ in values}


def folder_of(partition: dict[str, str | None]) -> str:
    """`machine=press%201/day=2026-11-21`: any value makes one folder name."""
    return "/".join(
        f"{quote(name, safe='')}={_NOTHING if value is None else quote(value, safe='')}"
        for name, value in partition.items()
    )


def new_name(partition: dict[str, str | None]) -> str:
    """The path of a new data file of a partition."""
    folder = folder_of(partition)
    return f"{folder}/{uuid.uuid4()}.parquet" if folder else f"{uuid.uuid4()}.parquet"


def statistics(rows: pa.Table) -> str:
    """What the log says of a file's values: rows, nulls, smallest and largest (Delta protocol, per-file statistics)."""
    least: dict[str, Any] = {}
    most: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name in rows.column_names[:_DESCRIBED]:
        column = rows.column(name)
        if pa.types.is_nested(column.type):
            continue
        nulls[name] = column.null_count
        bounds = None if column.null_count == len(column) else _bounds(column)
        if bounds is not None:
            least[name], most[name] = bounds
    return json.dumps({"numRecords": len(rows), "minValues": least, "maxValues": most, "nullCount": nulls})


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any] | None:
    """Smallest and largest value as JSON; None where a reader could be misled: NaN, infinity, long text."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        ends = pc.min_max(column.cast(pa.int64())).as_py()
        return tuple(f"{np.datetime64(ends[end], 'us')}Z" for end in ("min", "max"))  # type: ignore[return-value]
    if pa.types.is_floating(kind):
        ends = pc.min_max(column).as_py()
        sound = math.isfinite(ends["min"]) and math.isfinite(ends["max"])
        return (ends["min"], ends["max"]) if sound and not pc.any(pc.is_nan(column)).as_py() else None
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date32(kind):
        ends = pc.min_max(column).as_py()
        if pa.types.is_date32(kind):
            return ends["min"].isoformat(), ends["max"].isoformat()
        if pa.types.is_string(kind) and max(len(ends["min"]), len(ends["max"])) > _SHORT:
            return None
        return ends["min"], ends["max"]
    return None
