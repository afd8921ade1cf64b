"""The one thing that flows: a Block of rows with its event-time watermark and source position.

A 10 kHz waveform and a lone card payment are both Blocks (the payment is a Block of one row),
so there is one engine for both.
"""

from typing import TYPE_CHECKING

from msgspec import Struct

from boucle.clock import Nanos

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Block", "Position"]


class Position(Struct, frozen=True, order=True):
    """Where a source can resume: everything of `partition` before `offset` was delivered.

    `offset` only ever grows within a partition. What it counts is the source's own affair
    (messages for MQTT, rows for a file, frames for the log); comparing positions of two
    partitions means nothing.
    """

    partition: str
    offset: int


class Block(Struct, frozen=True):
    """Rows of one stream.

    `watermark` promises that no row older than it is still on its way (0: no promise yet);
    `position` is where the source resumes once this Block, and all before it, were committed.
    """

    stream: str
    rows: "pa.RecordBatch"
    watermark: Nanos
    position: Position

    def __len__(self) -> int:
        return int(self.rows.num_rows)
