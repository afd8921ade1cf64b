"""Refused readings judged by the present contract; what is good goes into its source's log, exactly once.

The loop must stand still: its logs are taken for the time of the work (B450 while it runs). Rows that are good are
appended after all others, and the next start works through them as it does with all a log holds beyond its
checkpoint: tables get them, and a window whose time is over counts them as late. A row whose identity the log
knows already is a duplicate and is not stored again.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from boucle.block import Block, Position, in_nanos
from boucle.bus.log import EventLog
from boucle.clock import Clock
from boucle.errors import BoucleError, Unavailable
from boucle.loop.checkpoint import read_checkpoint
from boucle.loop.retention import kept_log
from boucle.product.contract import StreamContract
from boucle.product.document import SourceSpec
from boucle.product.project import Project
from boucle.quality.check import Checker
from boucle.quality.decode import Decoder
from boucle.quality.outcomes import Became, Intent, Outcomes
from boucle.quality.quarantine import Reject, judge_again

__all__ = ["retry"]

_PRODUCER = "quarantine"
_AT_ONCE = 500
"""Readings that are stored together."""


def retry(
    project: Project,
    folder: Path,
    wanted: Iterable[tuple[str, Reject]],
    clock: Clock,
    mended: Mapping[str, bytes] | None = None,
) -> list[Became]:
    """Judge refused readings again, and store those that are good now; what became of each.

    `mended` are readings that somebody repaired, by name, as JSON. What was stored, or was a duplicate, before is
    left out. B450 while a loop runs on the folder, B451 where a source has no log to store in.
    """
    quarantine = folder / "quarantine"
    chosen: dict[str, list[tuple[str, Reject]]] = {}
    for name, entry in wanted:
        chosen.setdefault(entry.source, []).append((name, entry))
    told: list[Became] = []
    outcomes: Outcomes | None = None
    logs: dict[str, EventLog] = {}
    try:
        for source in project.loop.sources:
            logs[source] = _taken(folder, source, project.loop.sources[source], clock)
        outcomes = Outcomes(quarantine)
        for intent in outcomes.pending:
            told += _store(
                logs[intent.source], outcomes, intent, _resume(logs[intent.source], folder, intent.source)
            )
        for source, entries in chosen.items():
            if source in logs:
                spec = project.loop.sources[source]
                judge = _Judge(spec, project.contracts[spec.schema], clock, mended or {})
                told += _retry_source(source, logs[source], folder, entries, judge, outcomes)
            else:  # a command, or a reading of a source that is no longer declared
                why = f"{source} is no source of this product"
                told += [
                    Became(name=name, outcome="refused", at=clock.now(), reason=entry.reason, detail=why)
                    for name, entry in entries
                ]
    finally:
        for log in logs.values():
            log.close()
        if outcomes is not None:
            outcomes.close()
    return told


def _taken(folder: Path, source: str, spec: SourceSpec, clock: Clock) -> EventLog:
    log = kept_log(folder / "log" / source, spec, clock)
    try:
        log.open()
    except Unavailable as error:
        if error.code != "B313":
            raise
        raise BoucleError(
            "B450",
            "a loop is running on this folder",
            where=str(folder),
            why=f"it has the log of {source}",
            fix="stop it, judge again, and start it: it goes on from where it was",
        ) from None
    return log


def _resume(log: EventLog, folder: Path, source: str) -> Position:
    """Where the source is: the rows that are stored now must not move it."""
    known = log.source_position()
    if known is None:
        kept = read_checkpoint(folder / "checkpoint")
        known = None if kept is None else kept.checkpoint.resume.get(source)
    if known is None:
        raise BoucleError(
            "B451",
            f"nothing says how far {source} had come",
            where=str(folder),
            why="its log is empty and there is no checkpoint",
            fix="run the loop once and stop it in order, then judge again",
        )
    return known


class _Judge:
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


def _retry_source(
    source: str,
    log: EventLog,
    folder: Path,
    entries: Sequence[tuple[str, Reject]],
    judge: _Judge,
    outcomes: Outcomes,
) -> list[Became]:
    told: list[Became] = []
    good: list[tuple[str, pa.RecordBatch]] = []
    for name, entry in entries:
        known = outcomes.known.get(name)
        if known is not None and known.outcome != "refused":
            continue
        rows, rejects = judge.judge(name, entry)
        if rows is None:
            last = rejects[0] if rejects else entry
            told.append(
                Became(name=name, outcome="refused", at=judge.clock.now(), reason=last.reason, detail=last.detail,
                       mended=judge.mended(name))
            )  # fmt: skip
        else:
            good.append((name, rows))
    outcomes.note(told)
    seen = _identities_in(log, good, judge)
    for begin in range(0, len(good), _AT_ONCE):
        told += _store_some(source, log, folder, good[begin : begin + _AT_ONCE], seen, judge, outcomes)
    return told


def _store_some(
    source: str,
    log: EventLog,
    folder: Path,
    good: Sequence[tuple[str, pa.RecordBatch]],
    seen: set[tuple[Any, ...]],
    judge: _Judge,
    outcomes: Outcomes,
) -> list[Became]:
    batches: list[pa.RecordBatch] = []
    then: list[Became] = []
    doubles: list[Became] = []
    for name, rows in good:
        new = _new(rows, judge.identity, seen)
        kept = rows.filter(pa.array(new))
        outcome = Became(
            name=name, outcome="stored" if kept.num_rows else "duplicate", at=judge.clock.now(),
            rows=kept.num_rows or rows.num_rows, mended=judge.mended(name),
        )  # fmt: skip
        (then if kept.num_rows else doubles).append(outcome)
        if kept.num_rows:
            batches.append(kept)
    outcomes.note(doubles)
    if not batches:
        return doubles
    resume = _resume(log, folder, source)
    intent = Intent.of(source, outcomes.next(source), pa.concat_batches(batches), then)
    outcomes.intend(intent)
    return doubles + _store(log, outcomes, intent, resume)


def _store(log: EventLog, outcomes: Outcomes, intent: Intent, resume: Position) -> list[Became]:
    watermark = max((block.watermark for block in _last(log)), default=0)
    block = Block(intent.source, intent.batch(), watermark, resume)
    log.append(block, producer=_PRODUCER, sequence=intent.sequence)
    log.flush()
    outcomes.note(intent.then)
    return list(intent.then)


def _last(log: EventLog) -> Iterable[Block]:
    end, start = log.end(), log.start()
    return (
        log.read(Position(log.stream, max(start.offset, end.offset - 1))) if end.offset > start.offset else ()
    )


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


def _identities_in(
    log: EventLog, good: Sequence[tuple[str, pa.RecordBatch]], judge: _Judge
) -> set[tuple[Any, ...]]:
    """The identities the log holds of the time the rows are of."""
    if not judge.identity or not good:
        return set()
    spans = [pc.min_max(in_nanos(rows.column(judge.time))).as_py() for _, rows in good]
    low, high = min(span["min"] for span in spans), max(span["max"] for span in spans)
    seen: set[tuple[Any, ...]] = set()
    for block in log.read():
        at = in_nanos(block.rows.column(judge.time))
        inside = pc.and_(pc.greater_equal(at, low), pc.less_equal(at, high))
        if pc.any(inside).as_py():
            seen |= set(_keys(block.rows.filter(inside), judge.identity))
    return seen
