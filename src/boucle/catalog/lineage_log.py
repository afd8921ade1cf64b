"""The lineage journal as rows: what a table of the lake is fed with, so that SQL can ask where data came from.

One row an event, the event itself beside it as it was told; `edges` says which column was made from which, as the
events that begin and end a run tell it. The journal of lines stays what survives a crash: the table follows it.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from boucle.block import Block, Position
from boucle.clock import Nanos

__all__ = ["LINEAGE_TABLE", "LineageLog"]

LINEAGE_TABLE = "lineage_events"
"""The name that is kept for the table of these rows."""
_BATCH = 500

_END = pa.struct([("namespace", pa.string()), ("name", pa.string()), ("field", pa.string())])
_SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("ns", tz="UTC")),
        pa.field("kind", pa.string()),
        pa.field("run", pa.string()),
        pa.field("namespace", pa.string()),
        pa.field("job", pa.string()),
        pa.field("inputs", pa.list_(pa.string())),
        pa.field("outputs", pa.list_(pa.string())),
        pa.field(
            "edges",
            pa.list_(pa.struct([("from", _END), ("to", _END), ("how", pa.string()), ("says", pa.string())])),
        ),
        pa.field("event", pa.string()),
    ]
)
"""`edges[].to.field` is null where a column decides which rows there are, and is part of no value."""


class LineageLog:
    """The journal of a folder as the lake's writer sees a log; an offset counts events from the first."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._counted: dict[str, tuple[int, int]] = {}
        self._name = ""

    def start(self) -> Position:
        """Before the first event."""
        return Position(self._partition(), 0)

    def durable(self) -> Position:
        """After the last event: each is on disk before anybody hears of it."""
        total = 0
        for path in self._files():
            lines, read = self._counted.get(path.name, (0, 0))
            if path.stat().st_size > read:
                with path.open("rb") as file:
                    file.seek(read)
                    new = file.read()
                whole = new.rfind(b"\n") + 1
                lines, read = lines + new.count(b"\n"), read + whole
                self._counted[path.name] = lines, read
            total += lines
        return Position(self._partition(), total)

    def read(self, start: Position | None, max_rows: int) -> Iterator[Block]:
        """Events after `start`, at most `max_rows` of them."""
        first = start.offset if start else 0
        last, number, held = first + max_rows, 0, list[dict[str, Any]]()
        for path in self._files():
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n") or number >= last:
                        break
                    number += 1
                    if number > first:
                        held.append(_row(line))
                    if len(held) == _BATCH:
                        yield self._block(held, number)
                        held = []
        if held:
            yield self._block(held, number)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.ndjson"))

    def _partition(self) -> str:
        """The journal's own name, from its first run: a lake in a bucket may hold those of several folders."""
        if not self._name and (first := next(iter(self.read(None, 1)), None)) is not None:
            self._name = f"{LINEAGE_TABLE}/{first.rows.column('run')[0]}"
        return self._name or LINEAGE_TABLE

    def _block(self, rows: list[dict[str, Any]], upto: int) -> Block:
        batch = pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)
        return Block(LINEAGE_TABLE, batch, max(row["at"] for row in rows), Position(self._name, upto))


def _row(line: bytes) -> dict[str, Any]:
    event = json.loads(line)
    run, job = event.get("run", {}), event.get("job", {})
    return {
        "at": _nanos(event["eventTime"]),
        "kind": event.get("eventType"),
        "run": run.get("runId"),
        "namespace": job.get("namespace"),
        "job": job.get("name"),
        "inputs": [f"{one['namespace']}/{one['name']}" for one in event.get("inputs", [])],
        "outputs": [f"{one['namespace']}/{one['name']}" for one in event.get("outputs", [])],
        "edges": [edge for one in event.get("outputs", []) for edge in _edges(one)],
        "event": line.decode().strip(),
    }


def _edges(output: dict[str, Any]) -> Iterator[dict[str, Any]]:
    facet = output.get("facets", {}).get("columnLineage", {})
    told = [(name, field["inputFields"]) for name, field in facet.get("fields", {}).items()]
    for name, fields in [*told, (None, facet.get("dataset", []))]:
        to = {"namespace": output["namespace"], "name": output["name"], "field": name}
        for one in fields:
            came = {key: one[key] for key in ("namespace", "name", "field")}
            for step in one.get("transformations") or [{}]:
                how, says = step.get("subtype") or "UNKNOWN", step.get("description", "")
                yield {"from": came, "to": to, "how": how, "says": says}


def _nanos(moment: str) -> Nanos:
    """A moment as the journal writes it: UTC, whole microseconds."""
    told = datetime.fromisoformat(moment)
    return int(pa.scalar(told, pa.timestamp("us", tz="UTC")).value) * 1000
