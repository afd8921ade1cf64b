"""Which log feeds which table of the lake."""

from collections.abc import Iterator

from msgspec import Struct

from boucle.address import adapter, parse_address
from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.lake.whole import Lake
from boucle.lake.writer import FedTable, Feed
from boucle.quality.quarantine import Quarantine

__all__ = ["QUARANTINE_TABLE", "Fed", "feed", "quarantine_feed"]

QUARANTINE_TABLE = "quarantine"
"""The table of refused readings, with their reason and their bytes."""


class Fed(Struct, frozen=True):
    """A table and the folder of its log, as plain values another process can be given."""

    table: str
    zone: str
    partition: list[str]
    columns: list[str]
    log: str
    stream: str
    lake: str
    to: str = ""
    """The address of a table that is not in the lake."""


def feed(fed: Fed, log: EventLog) -> Feed:
    """The log, seen through the table's columns, beside the table."""
    return Feed(_Selected(log, fed.columns) if fed.columns else log, _table(fed))


def _table(fed: Fed) -> FedTable:
    if not fed.to:
        return Lake(fed.lake).table(fed.zone, fed.table, partition_by=tuple(fed.partition))
    address = parse_address(fed.to, "table")
    elsewhere: FedTable = adapter(address, "table")(address, fed.table, fed.zone)
    return elsewhere


def quarantine_feed(quarantine: Quarantine, lake: str) -> Feed:
    """The quarantine beside its table."""
    return Feed(_Rejects(quarantine), Lake(lake).table("raw", QUARANTINE_TABLE, partition_by=("source",)))


class _Rejects:
    """The quarantine as the lake's writer sees a log."""

    def __init__(self, quarantine: Quarantine) -> None:
        self._quarantine = quarantine

    def read(self, start: Position | None, max_rows: int) -> Iterator[Block]:
        yield from self._quarantine.blocks(start.offset if start else 0, max_rows)

    def start(self) -> Position:
        return Position(QUARANTINE_TABLE, 0)

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

    def start(self) -> Position:
        return self._log.start()

    def durable(self) -> Position:
        return self._log.durable()
