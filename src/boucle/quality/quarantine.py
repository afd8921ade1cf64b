"""Where refused readings are kept, so that each can be looked at, counted and judged again."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa

from boucle.block import Block, Position
from boucle.quality.check import Checker
from boucle.quality.decode import Decoder
from boucle.quality.ledger import Ledger, lines_of
from boucle.quality.reject import QUARANTINE, Reject, rejects_as_rows

__all__ = ["QUARANTINE", "Quarantine", "Reject", "judge_again", "named_rejects"]

_log = logging.getLogger("boucle.quality.quarantine")


class _Reason(msgspec.Struct):
    reason: str


class Quarantine:
    """A durable list of Rejects in `folder`.

    `add` never waits for the disk; after `flush` everything added survives a power cut. Of a payload
    at most `keep` bytes are kept, and none once the file has grown to `room` bytes: a producer gone
    mad must not fill the disk. Counts, reasons and fingerprints are always kept.
    """

    def __init__(self, folder: Path, *, keep: int = 1 << 20, room: int = 1 << 30) -> None:
        self._ledger = Ledger(folder / "quarantine.ndjson")
        self._keep, self._room = keep, room
        reasons = msgspec.json.Decoder(_Reason)
        self._counts = Counter(reasons.decode(line).reason for line in self._ledger.read())
        self._full = False

    def add(self, rejects: Iterable[Reject]) -> None:
        """Put Rejects away; they may still be in memory when this returns."""
        keep = self._keep
        if self._ledger.size() >= self._room:
            keep = 0
            if not self._full:
                self._full = True
                _log.warning("%s is full: payloads are no longer kept", self._ledger.file)
        for one in rejects:
            self._ledger.append(msgspec.json.encode(one.cut(keep)))
            self._counts[one.reason] += 1

    def flush(self) -> None:
        """Return when everything added so far is on disk."""
        self._ledger.flush()

    def counts(self) -> dict[str, int]:
        """Reason → readings, over the whole life of the folder."""
        return dict(self._counts)

    def read(self) -> Iterator[Reject]:
        """Every Reject, oldest first."""
        for line in self._ledger.read():
            yield msgspec.json.decode(line, type=Reject)

    def blocks(self, since: int = 0, size: int = 1000) -> Iterator[Block]:
        """Rows for a `quarantine` table, from Reject number `since` on; `position` says how far."""
        rows: list[Reject] = []
        number = 0
        for number, entry in enumerate(self.read(), start=1):
            if number > since:
                rows.append(entry)
            if len(rows) == size:
                yield _block(rows, number)
                rows = []
        if rows:
            yield _block(rows, number)

    def close(self) -> None:
        """Sync and give back the file. Safe to call twice."""
        self._ledger.close()


def _block(rows: list[Reject], number: int) -> Block:
    batch: pa.RecordBatch = rejects_as_rows(rows)
    return Block("quarantine", batch, 0, Position("quarantine", number))


def named_rejects(folder: Path) -> Iterator[tuple[str, Reject]]:
    """Every Reject of a quarantine's folder with its name, oldest first; safe beside the loop that writes it.

    The name is made of what was refused, when and why: it stays the same whatever else is damaged or added. The
    second of two that are alike to the last byte is called `…-2`.
    """
    file = folder / "quarantine.ndjson"
    if not file.exists():
        return
    seen: Counter[str] = Counter()
    for line in lines_of(file):
        if line is None:
            continue
        name = hashlib.sha256(line).hexdigest()[:12]
        seen[name] += 1
        number = seen[name]
        yield (name if number == 1 else f"{name}-{number}"), msgspec.json.decode(line, type=Reject)


def judge_again(entry: Reject, decoder: Decoder, checker: Checker) -> tuple[Block | None, list[Reject]]:
    """What a refused reading is worth under a contract that may have changed since.

    One that was not kept whole cannot be judged and stays as it is. The payload decides the
    format: a row refused by the Checker is kept as Arrow whatever its message was.
    """
    if not entry.whole():
        return None, [entry]
    if entry.format and entry.format != decoder.format:
        decoder = Decoder(decoder.contract, "json" if entry.format == "json" else "arrow")
    block, rejects = decoder.decode(entry.wire())
    if block is None:
        return None, rejects
    good, more = checker.check(block)
    return (good if len(good) else None), rejects + more
