"""What a run has stored, as sources: its lake by event time, its logs in the order in which rows came."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.ports import Facts
from boucle.stream.sequence import instants

__all__ = ["Blocks", "Recorded", "from_lake", "from_log", "late_rows", "with_late"]

Blocks = Iterator[tuple[pa.RecordBatch, Nanos]]
"""Rows, and the watermark as it was behind them."""

_ROWS = 64
"""Rows of a Block out of the lake: few, so that several sources interleave as they did live."""


class Recorded:
    """Stored rows as a source; `blocks` begins again at each `open`."""

    facts = Facts(ordered=True, replayable=True, delivery="exactly-once")

    def __init__(self, stream: str, blocks: Callable[[], Blocks]) -> None:
        self._stream, self._begin = stream, blocks
        self._blocks: Blocks = iter(())
        self._offset = 0
        self._finished = False

    def open(self, resume: Position | None = None) -> None:
        """Start at the beginning of the span, or after `resume`."""
        self._blocks, self._offset = self._begin(), 0
        while resume is not None and self._offset < resume.offset:
            if self.poll(0) is None:
                return

    def poll(self, wait: float) -> Block | None:
        """The next rows; None at the end."""
        del wait
        found = next(self._blocks, None)
        self._finished = found is None
        if found is None:
            return None
        self._offset += found[0].num_rows
        return Block(self._stream, found[0], found[1], Position(self._stream, self._offset))

    def commit(self, upto: Position) -> None:
        """Nothing to give back: what is stored stays."""

    def state(self) -> str:
        """`connected` or `finished`."""
        return "finished" if self._finished else "connected"

    def close(self) -> None:
        """Forget the scan."""
        self._blocks = iter(())


def from_lake(table: LakeTable, schema: pa.Schema, since: Nanos | None, until: Nanos | None) -> Blocks:
    """The rows of a table, in order of event time."""
    for block in table.scan(since, until):
        whole = _fitting(block.rows, schema, str(table.folder))
        for start in range(0, len(block), _ROWS):
            yield whole.slice(start, _ROWS), block.watermark


def from_log(folder: Path, schema: pa.Schema, time: str, since: Nanos | None, until: Nanos | None) -> Blocks:
    """The rows of a log as they came, from the first Block with one of `since` on.

    It ends behind the Block whose watermark has passed `until`: what lies before it has then been decided.
    """
    begun = since is None
    for block in EventLog(folder).read():
        rows = _fitting(block.rows, schema, str(folder))
        if since is not None:
            recent = instants(rows, time) >= since
            if not (begun := begun or bool(recent.any())):
                continue
            rows = rows if recent.all() else rows.filter(pa.array(recent))
        if rows.num_rows:
            yield rows, block.watermark
        if until is not None and block.watermark >= until:
            return


def late_rows(
    folder: Path, schema: pa.Schema, time: str, since: Nanos | None, until: Nanos | None
) -> pa.RecordBatch:
    """What came too late, by event time; `folder` is the log of it."""
    kept = EventLog(folder).read() if folder.exists() else ()
    batches = [_fitting(block.rows, schema, str(folder)) for block in kept]
    if not batches:
        return pa.RecordBatch.from_pylist([], schema)
    rows = pa.concat_batches(batches)
    rows = rows.take(pc.array_sort_indices(pa.array(instants(rows, time))))
    at = instants(rows, time)
    first = 0 if since is None else int(at.searchsorted(since))
    return rows.slice(first, (len(at) if until is None else int(at.searchsorted(until))) - first)


def with_late(blocks: Blocks, late: pa.RecordBatch, time: str) -> Blocks:
    """Blocks with the late rows among them, each where it would have been in time.

    A row goes into the first Block that reaches up to it: no Block before has a row as new, so none moved the
    watermark past it. What lies ahead of the first Block, or behind the last, goes with these.
    """
    at = instants(late, time)
    given = 0
    held: tuple[pa.RecordBatch, Nanos] | None = None
    for rows, watermark in blocks:
        if held is not None:
            yield held
        moments = instants(rows, time)
        upto = int(at.searchsorted(moments.max(), side="right"))
        if upto > given:
            both = pa.concat_batches([late.slice(given, upto - given), rows])
            held = both.take(pc.array_sort_indices(pa.array(instants(both, time)))), watermark
            given = upto
        else:
            held = rows, watermark
    if held is None:
        if late.num_rows:
            yield late, 0
        return
    rest = late.slice(given)
    yield (pa.concat_batches([held[0], rest]) if rest.num_rows else held[0]), held[1]


def _fitting(rows: pa.RecordBatch, schema: pa.Schema, where: str) -> pa.RecordBatch:
    """Stored rows in the columns that are promised today."""
    columns = []
    for field in schema:
        if field.name in rows.schema.names:
            columns.append(rows.column(field.name).cast(field.type))
        elif field.nullable:
            columns.append(pa.nulls(rows.num_rows, field.type))
        else:
            raise BoucleError(
                "B812",
                f"what was stored has no column {field.name}, which the contract requires",
                where=where,
                why=f"it has: {', '.join(rows.schema.names)}",
                fix="declare the column as not required, or replay what was stored under the new contract",
            )
    return pa.RecordBatch.from_arrays(columns, schema=schema)
