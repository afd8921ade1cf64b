"""Streams that end in tables: each has a durable log, and the lake follows the logs.

Derived streams (edge output, verdicts, events) are deduplicated by their declared key before they
are logged, so that what a restart works through again adds no row twice.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import Clock
from boucle.event import Event
from boucle.lake.delta import LakeTable
from boucle.lake.writer import Feed, LakeWriter
from boucle.loop.view import TablesView
from boucle.product.document import LoopDocument, TableSpec
from boucle.quality.quarantine import Quarantine
from boucle.stream.dedupe import Dedupe

__all__ = ["EVENTS", "QUARANTINE_TABLE", "Tables", "event_block"]

EVENTS = "events"
"""The stream, and the table, of everything the loop said."""

QUARANTINE_TABLE = "quarantine"
"""The table of refused readings, with their reason and their bytes."""

_HORIZON = 3600.0
_PRIME_ROWS = 10_000

_EVENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("product", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("severity", pa.string()),
        pa.field("says_en", pa.string()),
        pa.field("says_fr", pa.string()),
        pa.field("evidence", pa.string()),
    ]
)


def event_block(event: Event) -> Block:
    """An Event as a Block of one row."""
    says = event.says
    row = {
        "id": event.id, "at": event.at, "product": event.product, "subject": event.subject, "kind": event.kind,
        "severity": event.severity.value, "says_en": says.get("en"), "says_fr": says.get("fr"),
        "evidence": json.dumps(event.evidence, ensure_ascii=False, default=str),
    }  # fmt: skip
    return Block(EVENTS, pa.RecordBatch.from_pylist([row], _EVENT_SCHEMA), event.at, Position(EVENTS, 0))


class _Derived(Struct):
    log: EventLog
    seen: Dedupe | None
    rows: int = 0


class Tables:
    """The logs of derived streams and the tables of all streams."""

    def __init__(
        self,
        loop: LoopDocument,
        folder: Path,
        sources: dict[str, EventLog],
        late: dict[str, EventLog],
        quarantine: Quarantine,
        clock: Clock,
        every: float,
    ) -> None:
        declared = {
            **loop.tables,
            EVENTS: TableSpec(from_=EVENTS, zone="gold", partition=["day"], key=["id"]),
        }
        declared |= {
            f"{name}_late": TableSpec(from_=f"{name}/late", zone="raw", partition=["day"]) for name in late
        }
        logs = {**sources, **{f"{name}/late": log for name, log in late.items()}}
        self._derived: dict[str, _Derived] = {}
        for spec in declared.values():
            if spec.from_ not in logs and spec.from_ not in self._derived:
                log = EventLog(folder / "log" / spec.from_)
                seen = Dedupe("at", spec.key, _HORIZON) if spec.key else None
                self._derived[spec.from_] = _Derived(log, seen)
        self._specs = declared
        self._tables = {
            name: LakeTable(folder / "lake" / spec.zone / name, partition_by=tuple(spec.partition))
            for name, spec in declared.items()
        }
        feeds = [
            Feed(self._log(spec.from_, logs, spec.columns), self._tables[name])
            for name, spec in declared.items()
        ]
        bad = LakeTable(folder / "lake" / "raw" / QUARANTINE_TABLE, partition_by=("source",))
        self._tables[QUARANTINE_TABLE] = bad
        self._specs[QUARANTINE_TABLE] = TableSpec(from_=QUARANTINE_TABLE, zone="raw", partition=["source"])
        feeds.append(Feed(_Rejects(quarantine), bad))
        self._writer = LakeWriter(feeds, clock, seconds=every)

    def _log(self, stream: str, logs: dict[str, EventLog], columns: list[str]) -> "EventLog | _Selected":
        log = logs[stream] if stream in logs else self._derived[stream].log
        return _Selected(log, columns) if columns else log

    @property
    def derived(self) -> set[str]:
        """The streams of the path that must be given to `write`."""
        return set(self._derived)

    def open(self) -> None:
        """Open the derived logs and learn from their tails what they already hold."""
        for derived in self._derived.values():
            derived.log.open()
            if derived.seen is not None:
                end = derived.log.end()
                for block in derived.log.read(Position(end.partition, max(0, end.offset - _PRIME_ROWS))):
                    derived.seen.duplicates(block.rows)

    def write(self, block: Block) -> None:
        """Log a Block of a derived stream; durable after `flush`."""
        derived = self._derived[block.stream]
        rows = block.rows
        if derived.seen is not None:
            repeated = derived.seen.duplicates(rows)
            if repeated.any():
                rows = rows.filter(pa.array(~repeated))
        if rows.num_rows:
            derived.log.append(Block(block.stream, rows, block.watermark, block.position))

    def read(self, stream: str) -> Iterator[Block]:
        """Everything a derived stream's log holds."""
        return self._derived[stream].log.read()

    def flush(self) -> None:
        """Make every derived row durable."""
        for derived in self._derived.values():
            derived.log.flush()

    def commit(self, force: bool = False) -> int:
        """Let the lake follow; returns the rows committed. What failed is in `failures`, tried again later."""
        return self._writer.step(force)

    @property
    def failures(self) -> dict[str, str]:
        """Table → why it could not be written at the last turn."""
        return {name: str(error) for name, error in self._writer.failures.items()}

    def view(self) -> tuple[TablesView, ...]:
        """Each table with its rows, version and how far it is behind the log."""
        behind = self._writer.behind()
        return tuple(
            TablesView(name, self._specs[name].zone, table.rows, table.version, behind[name].seconds)
            for name, table in self._tables.items()
        )

    def close(self) -> None:
        """Flush and close the derived logs."""
        for derived in self._derived.values():
            derived.log.close()


class _Rejects:
    """The quarantine as the lake's writer sees a log."""

    def __init__(self, quarantine: Quarantine) -> None:
        self._quarantine = quarantine

    def read(self, start: Position | None, max_rows: int) -> Iterator[Block]:
        yield from self._quarantine.blocks(start.offset if start else 0, max_rows)

    def durable(self) -> Position:
        self._quarantine.flush()
        return Position(QUARANTINE_TABLE, sum(self._quarantine.counts().values()))


class _Selected:
    """A log seen through some of its columns."""

    def __init__(self, log: EventLog, columns: list[str]) -> None:
        self._log, self._columns = log, columns

    def read(self, start: Position | None, max_rows: int) -> Iterator[Block]:
        for block in self._log.read(start, max_rows):
            yield Block(block.stream, block.rows.select(self._columns), block.watermark, block.position)

    def durable(self) -> Position:
        return self._log.durable()
