"""Streams that end in tables: each has a durable log, and the lake follows the logs.

Derived streams (edge output, verdicts, events) are deduplicated by their declared key before they
are logged. A restart works through again what came after its checkpoint: the rows logged since then
are known, by key or as a whole, and each is dropped once when it comes again.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import Struct, field

from boucle.block import Block, Position, as_dicts, as_rows
from boucle.bus.log import EventLog
from boucle.clock import Clock
from boucle.event import Event
from boucle.lake.writer import Feed, LakeWriter
from boucle.loop.feeds import QUARANTINE_TABLE, Fed, feed, quarantine_feed
from boucle.loop.intake import lookback, recent
from boucle.loop.lakekeeper import LakeKeeper
from boucle.loop.outputs import Port
from boucle.loop.path import Closes
from boucle.loop.retention import kept_log
from boucle.loop.upkeep import Care
from boucle.loop.view import TablesView
from boucle.product.document import LoopDocument, TableSpec
from boucle.quality.quarantine import Quarantine
from boucle.stream.dedupe import Dedupe

__all__ = ["EVENTS", "Tables", "event_block"]

EVENTS = "events"
"""The stream, and the table, of everything the loop said."""

_NOBODY = 2**62
"""Where a log that feeds no table is done with."""
_HORIZON = 3600.0
"""Seconds of event time for which the keys of a derived stream are remembered."""

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
    return Block(EVENTS, as_rows([row], _EVENT_SCHEMA), event.at, Position(EVENTS, 0))


class _Derived(Struct):
    log: EventLog
    seen: Dedupe | None
    key: Sequence[str]
    again: Counter[Any] = field(default_factory=Counter)
    """Rows that were logged after the last checkpoint and have not come again yet."""


def _identities(rows: pa.RecordBatch, key: Sequence[str]) -> list[Any]:
    if key:
        return [tuple(row[name] for name in key) for row in as_dicts(rows.select(list(dict.fromkeys(key))))]
    return [repr(row) for row in as_dicts(rows)]


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
        fill: Callable[[str], str] = str,
        lake: str = "",
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
                step = next((one for one in loop.steps if one.id == spec.from_.partition("/")[0]), None)
                place = folder / "log" / spec.from_
                log = EventLog(place) if step is None else kept_log(place, step, clock)
                seen = Dedupe("at", spec.key, _HORIZON) if spec.key else None
                self._derived[spec.from_] = _Derived(log, seen, spec.key)
        logs |= {stream: derived.log for stream, derived in self._derived.items()}
        self._folder, self._lock = folder, folder / "lake.lock"
        self.lake = lake or str(folder / "lake")
        """The folder or address of the lake."""
        self.zones: dict[str, str] = {name: spec.zone for name, spec in declared.items()}
        """Table → its zone."""
        self.zones[QUARANTINE_TABLE] = "raw"
        self._fed = [
            Fed(
                name,
                spec.zone,
                spec.partition,
                spec.columns,
                str(log.folder),
                log.stream,
                self.lake,
                fill(spec.to),
            )
            for name, spec in declared.items()
            for log in [logs[spec.from_]]
        ]
        own = [quarantine_feed(quarantine, self.lake)]
        self._feeds = [feed(fed, logs[declared[fed.table].from_]) for fed in self._fed] + own
        self._clock, self.every = clock, every
        self._writer = LakeWriter(self._feeds, clock, seconds=every)
        self._refused = LakeWriter(own, clock, seconds=every)
        self._keeper: LakeKeeper | None = None

    @property
    def derived(self) -> set[str]:
        """The streams of the path that must be given to `write`."""
        return set(self._derived)

    def open(self, since: Mapping[str, Position] | None = None) -> None:
        """Open the derived logs and learn what they already hold.

        `since` are the `ends` that belong to the checkpoint a restart goes on from: whatever the path gives
        again after it, it gives no row twice. None: only the keys of the logs' last rows are known.
        """
        for stream, derived in self._derived.items():
            derived.log.open()
            if derived.seen is not None:
                for block in recent(derived.log, "at", _HORIZON):
                    derived.seen.duplicates(block.rows)
            if since is not None:
                start = since.get(stream) or derived.log.start()
                for block in derived.log.read(start):
                    derived.again.update(_identities(block.rows, derived.key))

    def ends(self) -> dict[str, Position]:
        """Where each derived log ends now; a checkpoint taken in the path's thread keeps them for `open`."""
        return {stream: derived.log.end() for stream, derived in self._derived.items()}

    def write(self, block: Block) -> None:
        """Log a Block of a derived stream; durable after `flush`."""
        derived = self._derived[block.stream]
        rows = _once(derived, block.rows)
        if derived.seen is not None:
            repeated = derived.seen.duplicates(rows)
            if repeated.any():
                rows = rows.filter(pa.array(~repeated))
        if rows.num_rows:
            derived.log.append(Block(block.stream, rows, block.watermark, block.position))

    def logs(self) -> Iterable[EventLog]:
        """The log of each derived stream."""
        return [derived.log for derived in self._derived.values()]

    def lookback(self, stream: str) -> int:
        """The first row of a derived log that a restart reads to know its duplicates."""
        derived = self._derived[stream]
        return _NOBODY if derived.seen is None else lookback(derived.log, "at", _HORIZON)

    def read(self, stream: str) -> Iterator[Block]:
        """Everything a derived stream's log holds."""
        return self._derived[stream].log.read()

    def flush(self) -> None:
        """Make every derived row durable."""
        for derived in self._derived.values():
            derived.log.flush()

    def start_keeper(self, product: Path | None = None, outputs: Sequence[Port] = ()) -> None:
        """From now on a process of its own commits to the lake; `commit` does what is left to this one.

        It also refines and keeps in order what the product in the folder `product` declares, and runs its `outputs`.
        """
        care = None if product is None else Care(self.lake, str(self._folder / "refine"), str(product))
        clock = self._clock
        self._keeper = LakeKeeper(
            self._fed, self._lock, self.every, clock.speed, clock.now(), care, list(outputs), self.lake
        )

    def commit(self, force: bool = False) -> int:
        """Let the lake follow; returns the rows committed here. What failed is in `failures`, tried again later.

        With `force` everything is committed, and a process started for it has ended.
        """
        if self._keeper is not None and not force and self._keeper.alive():
            return self._refused.step()
        if self._keeper is not None:
            # Forced, or it died (out of memory, killed by somebody): this process takes over.
            self._keeper.finish()
            self._keeper = None
            self._writer = LakeWriter(self._feeds, self._clock, seconds=self.every)
        return self._writer.step(force)

    @property
    def failures(self) -> dict[str, str]:
        """Table → why it could not be written at the last turn."""
        if self._keeper is not None:
            return {name: told.failure for name, told in self._keeper.told.items() if told.failure}
        return {name: str(error) for name, error in self._writer.failures.items()}

    @property
    def troubles(self) -> dict[tuple[str, str], str]:
        """(table, what: `write`, `upkeep` or `held`) → why, for what does not work now or is held back."""
        told = {(name, "write"): why for name, why in self.failures.items()}
        if self._keeper is not None:
            told |= {(name, "upkeep"): why for name, why in self._keeper.upkeep.items()}
            told |= {(name, "held"): why for name, why in self._keeper.held.items()}
        return told

    def view(self) -> tuple[TablesView, ...]:
        """Each table with its rows, version and how far it is behind the log."""
        if self._keeper is not None:
            told = dict(self._keeper.told)
            return tuple(
                TablesView(name, self.zones[name], one.rows, one.version, _seconds(one.behind_s))
                for name, one in told.items()
            ) + self._views(self._refused, self._feeds[-1:])
        return self._views(self._writer, self._feeds)

    def _views(self, writer: LakeWriter, feeds: list[Feed]) -> tuple[TablesView, ...]:
        behind = writer.behind()
        views = []
        for one in feeds:
            table = one.table
            zone, late = self.zones[table.name], behind[table.name].seconds
            views.append(TablesView(table.name, zone, table.rows, table.version, late))
        return tuple(views)

    def committed(self, stream: str) -> int | None:
        """The row of a log before which every table it feeds has everything, for good; None when one cannot say."""
        done: list[int] = []
        for fed in self._fed:
            if fed.stream != stream:
                continue
            if self._keeper is not None:
                told = self._keeper.told.get(fed.table)
                one = None if told is None else told.committed
            else:
                one = self._writer.released(fed.table)
            if one is None:
                return None
            done.append(one)
        return min(done, default=_NOBODY)

    def close(self) -> None:
        """Flush and close the derived logs, and give back what tables hold."""
        for derived in self._derived.values():
            derived.log.close()
        for one in self._feeds:
            if isinstance(one.table, Closes):
                one.table.close()


def _seconds(behind: float | None) -> float:
    return math.nan if behind is None else behind


def _once(derived: _Derived, rows: pa.RecordBatch) -> pa.RecordBatch:
    if not derived.again:
        return rows
    new = []
    for row in _identities(rows, derived.key):
        new.append(row not in derived.again)
        if not new[-1]:
            derived.again[row] -= 1
            if not derived.again[row]:
                del derived.again[row]
    return rows if all(new) else rows.filter(pa.array(new))
