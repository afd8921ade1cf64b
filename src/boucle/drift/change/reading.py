"""What both steps ask of a Block before they look at it."""

from collections.abc import Iterable

import pyarrow as pa

from boucle.block import in_nanos
from boucle.errors import BoucleError

__all__ = ["nanos", "need", "other_state"]


def need(rows: pa.RecordBatch, names: Iterable[str], stream: str) -> None:
    """B762 unless every named column is there."""
    for name in names:
        if name not in rows.schema.names:
            fix = f"columns of this stream: {', '.join(rows.schema.names)}"
            raise BoucleError("B762", f"there is no column {name!r}", where=stream, fix=fix)


def nanos(rows: pa.RecordBatch, name: str, stream: str) -> list[int]:
    """A column of times in ns; B762 when it holds something else, or nothing in places."""
    column = rows.column(name)
    if not pa.types.is_timestamp(column.type) or column.null_count:
        what = f"column {name!r} does not tell the time of every row"
        fix = "name a required column of timestamps in `time`"
        raise BoucleError("B762", what, where=stream, why=f"{column.type}, {column.null_count} null", fix=fix)
    times: list[int] = in_nanos(column).to_pylist()
    return times


def other_state(stream: str, why: str) -> BoucleError:
    """B763: a snapshot that can be read, but is not of what is declared now."""
    what = f"the state of {stream} cannot be continued"
    return BoucleError("B763", what, why=why, fix="remove the checkpoint to start afresh")
