"""Refused readings judged by the present contract; what is good goes into its source's log, exactly once.

The loop stands still: its logs are taken for the time of the work (B450 while it runs; then `boucle.loop.again` does
the same within it). Rows that are good are
appended after all others, and the next start works through them as it does with all a log holds beyond its
checkpoint: tables get them, and a window whose time is over counts them as late. A row whose identity the log
knows already is a duplicate and is not stored again.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import Clock
from boucle.errors import BoucleError, Unavailable
from boucle.loop.checkpoint import read_checkpoint
from boucle.loop.rejudge import AT_ONCE, PRODUCER, Good, Judge, identities_in, sorted_out
from boucle.loop.retention import kept_log
from boucle.product.document import SourceSpec
from boucle.product.project import Project
from boucle.quality.outcomes import Became, Intent, Outcomes
from boucle.quality.quarantine import Reject

__all__ = ["retry"]


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
                judge = Judge(spec, project.contracts[spec.schema], clock, mended or {})
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


def _retry_source(
    source: str,
    log: EventLog,
    folder: Path,
    entries: Sequence[tuple[str, Reject]],
    judge: Judge,
    outcomes: Outcomes,
) -> list[Became]:
    told: list[Became] = []
    good: list[Good] = []
    for name, entry in entries:
        known = outcomes.known.get(name)
        if known is not None and known.outcome != "refused":
            continue
        rows, rejects = judge.judge(name, entry)
        if rows is None:
            told.append(judge.refused(name, entry, rejects))
        else:
            good.append((name, rows))
    outcomes.note(told)
    seen = identities_in(log, good, judge)
    for begin in range(0, len(good), AT_ONCE):
        told += _store_some(source, log, folder, good[begin : begin + AT_ONCE], seen, judge, outcomes)
    return told


def _store_some(
    source: str,
    log: EventLog,
    folder: Path,
    good: Sequence[Good],
    seen: set[tuple[Any, ...]],
    judge: Judge,
    outcomes: Outcomes,
) -> list[Became]:
    batches, then, doubles = sorted_out(good, seen, judge)
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
    log.append(block, producer=PRODUCER, sequence=intent.sequence)
    log.flush()
    outcomes.note(intent.then)
    return list(intent.then)


def _last(log: EventLog) -> Iterable[Block]:
    end, start = log.end(), log.start()
    return (
        log.read(Position(log.stream, max(start.offset, end.offset - 1))) if end.offset > start.offset else ()
    )
