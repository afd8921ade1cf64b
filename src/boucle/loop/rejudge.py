"""What becomes of refused readings when the present contract judges them again: good rows, new ones among them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from boucle.block import Position, in_nanos
from boucle.bus.log import EventLog
from boucle.clock import Clock
from boucle.product.contract import StreamContract
from boucle.product.document import SourceSpec
from boucle.quality.check import Checker
from boucle.quality.decode import Decoder
from boucle.quality.outcomes import Became
from boucle.quality.quarantine import Reject, judge_again

__all__ = ["AT_ONCE", "PRODUCER", "Good", "Judge", "identities_in", "sorted_out"]

PRODUCER = "quarantine"
"""Who appends to a log, beside its source."""
AT_ONCE = 500
"""Readings that are stored together."""

Good = tuple[str, pa.RecordBatch]
"""A reading's name, and its rows."""


class Judge:
    """The present contract of one source."""

    def __init__(
        self, spec: SourceSpec, contract: StreamContract, clock: Clock, mended: Mapping[str, bytes]
    ) -> None:
        self.identity, self.time = spec.dedupe, contract.time
        self._contract, self.clock, self._mended = contract, clock, mended
        self._decoder = Decoder(contract, spec.format or "arrow")
        self._checker = Checker(contract, clock=clock, future=spec.future)

    def judge(self, name: str, entry: Reject) -> tuple[pa.RecordBatch | None, list[Reject]]:
        """The rows when all of them are good, else why not."""
        if name in self._mended:
            entry = msgspec.structs.replace(entry, payload=self._mended[name], format="json", sha256="")
        block, rejects = judge_again(entry, self._decoder, self._checker)
        if rejects or block is None:
            return None, rejects
        return block.rows, []

    def mended(self, name: str) -> bool:
        """Whether somebody changed it."""
        return name in self._mended

    def refused(self, name: str, entry: Reject, rejects: Sequence[Reject]) -> Became:
        """What is to be noted of one that is still refused."""
        last = rejects[0] if rejects else entry
        return Became(
            name=name, outcome="refused", at=self.clock.now(), reason=last.reason, detail=last.detail,
            mended=self.mended(name),
        )  # fmt: skip


def sorted_out(
    good: Sequence[Good], seen: set[tuple[Any, ...]], judge: Judge
) -> tuple[list[pa.RecordBatch], list[Became], list[Became]]:
    """The rows nobody stored before, what to note once they are stored, and the readings that were there already.

    `seen` learns their identities.
    """
    batches: list[pa.RecordBatch] = []
    then: list[Became] = []
    doubles: list[Became] = []
    for name, rows in good:
        kept = rows.filter(pa.array(_new(rows, judge.identity, seen)))
        outcome = Became(
            name=name, outcome="stored" if kept.num_rows else "duplicate", at=judge.clock.now(),
            rows=kept.num_rows or rows.num_rows, mended=judge.mended(name),
        )  # fmt: skip
        (then if kept.num_rows else doubles).append(outcome)
        if kept.num_rows:
            batches.append(kept)
    return batches, then, doubles


def _keys(rows: pa.RecordBatch, identity: Sequence[str]) -> list[tuple[Any, ...]]:
    columns = [in_nanos(rows.column(name)).to_pylist() for name in identity]
    return list(zip(*columns, strict=True))


def _new(rows: pa.RecordBatch, identity: Sequence[str], seen: set[tuple[Any, ...]]) -> list[bool]:
    if not identity:
        return [True] * rows.num_rows
    new = []
    for key in _keys(rows, identity):
        new.append(key not in seen)
        seen.add(key)
    return new


def identities_in(
    log: EventLog, good: Sequence[Good], judge: Judge, after: Position | None = None
) -> set[tuple[Any, ...]]:
    """The identities the log holds of the time the rows are of, all of them or those `after` a position."""
    if not judge.identity or not good:
        return set()
    spans = [pc.min_max(in_nanos(rows.column(judge.time))).as_py() for _, rows in good]
    low, high = min(span["min"] for span in spans), max(span["max"] for span in spans)
    seen: set[tuple[Any, ...]] = set()
    for block in log.read(after):
        at = in_nanos(block.rows.column(judge.time))
        inside = pc.and_(pc.greater_equal(at, low), pc.less_equal(at, high))
        if pc.any(inside).as_py():
            seen |= set(_keys(block.rows.filter(inside), judge.identity))
    return seen
