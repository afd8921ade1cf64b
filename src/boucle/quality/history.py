"""What earlier runs measured, for rules that compare with them: one checked line a run and table."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from boucle.clock import Nanos
from boucle.quality.ledger import Ledger
from boucle.quality.verdict import Measured, Outcome, Record

__all__ = ["History"]

_FAR = 400
"""Records of a table that are read back; what is older stays in the file."""


class History:
    """The records of a file, made when the first is added. A damaged line costs its run, not the others."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def of(self, table: str) -> list[Record]:
        """The last records of a table, oldest first."""
        if not self.file.exists():
            return []
        ledger = Ledger(self.file)
        try:
            records = [msgspec.json.decode(line, type=Record) for line in ledger.read()]
        finally:
            ledger.close()
        return [one for one in records if one.table == table][-_FAR:]

    def add(self, at: Nanos, table: str, measured: Measured, outcomes: Sequence[Outcome]) -> Record:
        """Keep what a run measured; durable when this returns. B430 when the disk takes nothing."""
        record = Record(
            at=at,
            table=table,
            rows=measured.rows,
            figures=measured.figures,
            buckets=measured.buckets,
            failed={one.rule: one.measured or 0.0 for one in outcomes if one.state == "broken"},
        )
        ledger = Ledger(self.file)
        try:
            ledger.append(msgspec.json.encode(record))
        finally:
            ledger.close()
        return record
