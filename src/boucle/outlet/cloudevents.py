"""Rows as CloudEvents 1.0 in JSON: live over Server-Sent Events, or to a topic through the sinks of the bus.

The id of an event is the table's version and the row's place in what that version added: the same row always has
the same one, so that a receiver can drop what it has seen.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.history import changes
from boucle.ports import Sink

__all__ = ["events", "live", "publish"]

_LOOKS_EVERY_S = 0.5
_ALIVE_EVERY = 30
"""Looks without news until a comment keeps the line open."""


def events(
    table: LakeTable, product: str, since: int, until: int | None = None
) -> Iterator[tuple[str, bytes]]:
    """Id and JSON of each row added after version `since`, in the order of the versions.

    Raises B525 when the table's log no longer goes back so far.
    """
    for change in changes(table, since, until):
        committed = datetime.fromtimestamp(change.at_ms / 1000, UTC).isoformat()
        for number, row in enumerate(_to_the_nanosecond(table.in_flight(change.inserted)).to_pylist()):
            name = f"{change.version}.{number}"
            told: dict[str, Any] = {
                "specversion": "1.0",
                "id": name,
                "source": f"/products/{product}/tables/{table.name}",
                "type": f"boucle.{product}.{table.name}.row",
                "time": row.get(table.time) or committed,
                "datacontenttype": "application/json",
                "data": row,
            }
            yield name, json.dumps(told, default=str, allow_nan=False, ensure_ascii=False).encode()


def _to_the_nanosecond(rows: pa.Table) -> pa.Table:
    """Times as text (RFC 3339): Python's own end at the microsecond."""
    columns = [
        pc.replace_substring(column.cast(pa.string()), " ", "T")
        if pa.types.is_timestamp(column.type)
        else column
        for column in rows.columns
    ]
    return pa.table(columns, names=rows.column_names)


async def live(
    table: LakeTable, product: str, since: int, gone: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Server-Sent Events until the client is gone; `Last-Event-ID` is the event's id, so that nothing is missed."""
    quiet = 0
    while not await gone():
        newest = await asyncio.to_thread(lambda: table.version)
        if newest > since:
            try:
                found = await asyncio.to_thread(lambda: list(events(table, product, since, newest)))  # noqa: B023
            except BoucleError as error:
                yield (
                    b"event: error\ndata: "
                    + msgspec.json.encode({"code": error.code, "what": error.what})
                    + b"\n\n"
                )
                return
            for name, told in found:
                yield b"id: " + name.encode() + b"\ndata: " + told + b"\n\n"
            since, quiet = newest, 0
        else:
            quiet += 1
            if quiet % _ALIVE_EVERY == 1:
                yield b": here\n\n"
            await asyncio.sleep(_LOOKS_EVERY_S)


def publish(table: LakeTable, product: str, topic: str, sink: Sink, since: int) -> int:
    """Send the rows added after version `since` to a topic; gives the version up to which all is durable there.

    Sent again after a failure, an event has the same id. Raises `Unavailable` when the sink is away.
    """
    newest = table.version
    told = list(events(table, product, since, newest))
    if told:
        now = pa.array([int(datetime.now(UTC).timestamp() * 1e9)] * len(told), pa.timestamp("ns", "UTC"))
        rows = pa.record_batch(
            {
                "topic": pa.array([topic] * len(told)),
                "payload": pa.array([payload for _, payload in told], pa.binary()),
                "received": now,
                "retained": pa.array([False] * len(told)),
            }
        )
        sink.write(Block(table.name, rows, 0, Position(table.name, newest)))
        sink.flush()
    return newest
