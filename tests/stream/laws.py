"""The laws every event-time operator must keep, as checks that a test runs on its own operator and rows."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.ports import Operator

FOREVER = 2**62
"""A watermark after everything."""


def block(stream: str, rows: pa.RecordBatch, watermark: int) -> Block:
    return Block(stream, rows, watermark, Position(stream, 0))


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[int]:
    """Where to cut `size` rows: from whole to row by row."""
    inner = draw(st.lists(st.integers(0, size), max_size=12))
    return sorted({0, size, *inner})


def shuffled(rows: pa.RecordBatch, jitter: Sequence[int]) -> pa.RecordBatch:
    """The rows as they would arrive when each was held up by `jitter` ns."""
    at = rows.column("at").cast(pa.int64()).to_pylist()
    order = sorted(range(len(at)), key=lambda i: (at[i] + jitter[i % len(jitter)], i))
    return rows.take(pa.array(order, pa.int64()))


def feed(
    operator: Operator,
    stream: str,
    rows: pa.RecordBatch,
    cut: Sequence[int],
    lateness: int,
    crash: Callable[[], Operator] | None = None,
    crash_after: int = 0,
) -> list[Block]:
    """Give the rows cut as told; with `crash` go on in a new operator from a snapshot after that many Blocks."""
    given: list[Block] = []
    at = rows.column("at").cast(pa.int64()).to_pylist()
    newest = 0
    for number, (begin, end) in enumerate(pairwise(cut)):
        newest = max([newest, *at[begin:end]])
        given += operator.step(block(stream, rows.slice(begin, end - begin), max(0, newest - lateness)))
        if crash is not None and number == crash_after:
            state = operator.snapshot()
            operator = crash()
            operator.restore(state)
    given += operator.step(block(stream, rows.slice(0, 0), FOREVER))
    return given


def table(blocks: Sequence[Block], stream: str) -> list[dict[str, Any]]:
    """All rows of a stream, in order, times as ns; NaN as text so that it equals itself."""
    rows: list[dict[str, Any]] = []
    for one in blocks:
        if one.stream == stream:
            plain = pa.Table.from_batches([one.rows])
            for index, field in enumerate(plain.schema):
                if pa.types.is_timestamp(field.type):
                    plain = plain.set_column(index, field.name, plain.column(index).cast(pa.int64()))
            rows += plain.to_pylist()
    return [{k: "nan" if v != v else v for k, v in row.items()} for row in rows]


def any_way(
    data: st.DataObject, make: Callable[[], Operator], stream: str, rows: pa.RecordBatch, late_ms: int
) -> list[Block]:
    """What comes of rows held up by at most `late_ms` ms, cut anywhere, with a crash anywhere."""
    jitter = data.draw(st.lists(st.integers(0, late_ms), min_size=1, max_size=20))
    arrived = shuffled(rows, [one * 1_000_000 for one in jitter])
    cut = data.draw(cuts(arrived.num_rows))
    crash = data.draw(st.integers(0, len(cut)))
    return feed(make(), stream, arrived, cut, late_ms * 1_000_000, make, crash)
