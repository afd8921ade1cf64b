"""What became of refused readings that were judged again, and what was about to be stored when something stopped.

A reading goes into its source's log exactly once: the rows and the number they are appended under are durable here
before they are appended, the log stores one number once (`EventLog.append`), and only then is the outcome noted.
Whoever is stopped in between appends the same rows under the same number again.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.clock import Nanos
from boucle.quality.ledger import Ledger, lines_of

__all__ = ["Became", "Intent", "Outcomes"]


class Became(Struct, frozen=True, kw_only=True, tag="became"):
    """The last that is known of one refused reading."""

    name: str
    outcome: Literal["stored", "duplicate", "refused"]
    """`refused` is not the end: it may be judged again."""
    at: Nanos
    rows: int = 0
    """Rows that were stored, or were there already."""
    reason: str = ""
    detail: str = ""
    mended: bool = False
    """Somebody changed it before it was judged."""


class Intent(Struct, frozen=True, kw_only=True, tag="intent"):
    """Rows that are to be appended to a source's log under a number."""

    source: str
    sequence: int
    rows: bytes
    """An Arrow stream."""
    then: tuple[Became, ...]
    """What is to be noted once they are."""

    @classmethod
    def of(cls, source: str, sequence: int, rows: pa.RecordBatch, then: Sequence[Became]) -> "Intent":
        """Of a batch."""
        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, rows.schema) as writer:
            writer.write_batch(rows)
        return cls(source=source, sequence=sequence, rows=bytes(out.getvalue()), then=tuple(then))

    def batch(self) -> pa.RecordBatch:
        """The rows."""
        return pa.ipc.open_stream(self.rows).read_next_batch()


class Outcomes:
    """The outcomes of a quarantine's folder. One process writes; `of` reads beside it."""

    def __init__(self, folder: Path) -> None:
        self._ledger = Ledger(folder / "outcomes.ndjson")
        lines = list(_lines(self._ledger.read()))
        self.known = {one.name: one for one in lines if isinstance(one, Became)}
        """Refused reading → what became of it last."""
        intents = [one for one in lines if isinstance(one, Intent)]
        self.pending = [one for one in intents if any(then.name not in self._ended() for then in one.then)]
        """What was about to be stored."""
        self._sequences: dict[str, int] = {}
        for one in intents:
            self._sequences[one.source] = max(one.sequence, self._sequences.get(one.source, -1))

    def _ended(self) -> set[str]:
        return {name for name, one in self.known.items() if one.outcome != "refused"}

    def next(self, source: str) -> int:
        """The number of the next Block for a source."""
        return self._sequences.get(source, -1) + 1

    def intend(self, intent: Intent) -> None:
        """Durable when this returns."""
        self._ledger.append(msgspec.json.encode(intent))
        self._ledger.flush()
        self._sequences[intent.source] = intent.sequence

    def note(self, became: Sequence[Became]) -> None:
        """Durable when this returns."""
        for one in became:
            self._ledger.append(msgspec.json.encode(one))
            self.known[one.name] = one
        self._ledger.flush()

    def close(self) -> None:
        """Give back the file. Safe to call twice."""
        self._ledger.close()

    @staticmethod
    def of(folder: Path) -> dict[str, Became]:
        """Refused reading → what became of it last, also while another process judges."""
        file = folder / "outcomes.ndjson"
        if not file.exists():
            return {}
        whole = (line for line in lines_of(file) if line is not None)
        return {one.name: one for one in _lines(whole) if isinstance(one, Became)}


def _lines(lines: Iterator[bytes]) -> Iterator[Became | Intent]:
    for line in lines:
        yield msgspec.json.decode(line, type=Became | Intent)
