"""Blocks of one stream for the tests of data and concept drift."""

import itertools
from typing import Any

import pyarrow as pa

from boucle.block import Block, Position
from boucle.clock import SECOND

START = 1_700_000_000 * SECOND
_TIME = pa.timestamp("ns", "UTC")


def block(columns: dict[str, Any], first: int = 0) -> Block:
    """One row a second, beginning with row `first` of the stream."""
    count = len(next(iter(columns.values())))
    times = pa.array([START + (first + place) * SECOND for place in range(count)], _TIME)
    rows = pa.record_batch({"at": times, **columns})
    return Block("rows", rows, 0, Position("rows", first + count))


def told(operator: Any, *blocks: Block) -> list[dict[str, Any]]:
    """The rows a step gives for some Blocks."""
    return [row for one in blocks for out in operator.step(one) for row in out.rows.to_pylist()]


def cut(whole: Block, places: list[int]) -> list[Block]:
    """The same rows in several Blocks."""
    edges = [0, *sorted(places), len(whole)]
    parts = [whole.rows.slice(first, last - first) for first, last in itertools.pairwise(edges)]
    return [Block(whole.stream, part, 0, whole.position) for part in parts]
