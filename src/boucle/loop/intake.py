"""One source, from bytes on the wire to rows the path may trust, with every reading accounted for.

    poll → decode → contract → duplicate? → late? → durable log → path

Whatever does not go on is written to quarantine or to the late log before anything is acknowledged:
the source's position is committed only when the log, the late log and the quarantine are durable.

The log of accepted rows remembers the source's position, and a restart goes on from there. So what a
replayable source gave besides is durable, and counted, before the rows beside it are logged (else they would be
lost), and what is read again is not put aside again (else it would be there twice).
"""

import heapq
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boucle.address import Address, adapter
from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import SECOND, Clock, Nanos
from boucle.errors import Unavailable
from boucle.loop.checkpoint import Aside, Counts
from boucle.loop.measure import Meter
from boucle.loop.trace import Trace, Tracer
from boucle.loop.view import Accounting
from boucle.ports import WIRE, Source
from boucle.product.contract import StreamContract
from boucle.product.document import SourceSpec
from boucle.product.duration import seconds
from boucle.quality.check import Checker
from boucle.quality.decode import Decoder
from boucle.quality.quarantine import Quarantine, Reject
from boucle.stream.dedupe import Dedupe
from boucle.stream.watermark import Watermarks, late_rows

__all__ = ["Intake", "lookback", "newest_sample", "open_source", "recent"]

_PRIME_ROWS = 10_000
"""How many of the log's last rows a restart reads at least to know what it has already seen."""


_T = TypeVar("_T")


def open_source(
    address: Address, stream: str, clock: Clock, product: str, arguments: Mapping[str, Any]
) -> Source:
    """The adapter of an address; one that needs a lasting identity at its server gets `boucle-<product>-<stream>`."""
    factory = adapter(address, "source")
    taken = inspect.signature(factory).parameters
    given = {"client_id": f"boucle-{product}-{stream}", "clock": clock}
    wanted = {name: value for name, value in given.items() if name in taken}
    source: Source = factory(address, stream, **{**wanted, **arguments})
    return source


def _never() -> bool:
    return False


class Stores(Protocol):
    """Rows that did not come from the source, on their way into its log."""

    def store(self, intake: "Intake") -> Block | None:
        """Append them; the Block for the path, None when they were there already."""
        ...


class Intake:
    """Takes Blocks from a source until they are accepted, durable and accounted for."""

    def __init__(
        self,
        id: str,  # noqa: A002 - the name it has in product.yaml
        spec: SourceSpec,
        contract: StreamContract,
        source: Source,
        log: EventLog,
        late: EventLog,
        quarantine: Quarantine,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self.id, self.spec, self.source, self.log = id, spec, source, log
        self.contract = contract
        self.accounting = Accounting()
        """Written only by whole Blocks: what `counted` gives always adds up."""
        self._tally = Accounting()
        self.horizon = seconds(spec.horizon) + seconds(spec.lateness)
        """Seconds of event time a restart looks back to know duplicates."""
        self.meter = Meter()
        self.tracer = tracer or Tracer(0)
        self.trace: Trace | None = None
        """Of the Block taken last, when it was sampled."""
        self.last_seen: Nanos = 0
        """Clock time of the last reading of any kind."""
        self.committed: Position | None = None
        self.handed: deque[Stores] = deque()
        """Readings from quarantine that are good now; `take` stores them."""
        self.watermark: Nanos = 0
        """Of the rows taken last."""
        self.late = late
        self._quarantine, self._clock = quarantine, clock
        self._decoder = Decoder(contract, spec.format) if spec.format else None
        self._checker = Checker(contract, clock=clock, future=spec.future)
        self.refused = self._checker.failed
        """Rule of the contract → readings refused for it since the start."""
        self._watermarks = Watermarks(
            contract.time, spec.partition, seconds(spec.lateness), seconds(spec.idle)
        )
        self._dedupe = Dedupe(contract.time, spec.dedupe, seconds(spec.horizon))
        # A source that cannot repeat itself gives again what it was not told about, in no fixed order; and one
        # that sheds need not shed the same again. Their late rows are known by identity alone.
        counts = source.facts.replayable and spec.shed is None
        self._aside = Aside(late.folder / "aside") if counts else None
        self._counts = Counts("", -1, 0, 0)
        self._known_late = self._known_refused = 0
        """How many of the next late and refused readings are put aside already."""
        self._waiting: Position | None = None
        self._shed_seen = 0
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._closing = threading.Event()

    def open(self, resume: Position | None) -> None:
        """Learn from the logs' tails what was already taken, then start the source."""
        self.log.open()
        self.late.open()
        # The log remembers for each row where its source was: it may know of more than the last checkpoint.
        logged = self.log.source_position()
        known = [one for one in (resume, logged) if one is not None]
        self.committed = max(known, key=lambda one: one.offset, default=None)
        late = self.late.end()
        if self._aside is not None:
            self._learn(self._aside, self.committed)
            late = Position(late.partition, self._counts.late)
        moment = self.contract.time
        taken = ((True, block) for block in recent(self.log, moment, self.horizon))
        aside = ((False, block) for block in recent(self.late, moment, self.horizon, late))
        # In the order they came in, so that each identity is forgotten when it would have been.
        for accepted, block in heapq.merge(taken, aside, key=lambda one: one[1].watermark):
            self._dedupe.duplicates(block.rows)
            if accepted:
                self._watermarks.observe(block.rows)
                self.watermark = max(self.watermark, block.watermark)
        self.source.open(self.committed)

    def _learn(self, aside: Aside, resume: Position | None) -> None:
        late = self.late.end().offset
        refused = sum(one.source == self.id for one in self._quarantine.read())
        begun = resume or Position("", -1)
        self._counts = aside.open(resume, Counts(begun.partition, begun.offset, late, refused))
        self._known_late = max(0, late - self._counts.late)
        self._known_refused = max(0, refused - self._counts.refused)

    def take(self, wait: float, shed: Callable[[], bool] = _never) -> Block | None:
        """The next accepted rows, appended to the log (durable after `flush`); None when there are none.

        While `shed` says so, rows that kept their contract are counted as shed and go no further.
        """
        if self.handed:
            return self._take_handed(self.handed.popleft())
        begun = time.perf_counter_ns()
        polled = self.source.poll(wait)
        self._tally = Accounting()
        self._count_shed()
        if polled is None:
            self._book(None)
            return None
        self.trace = trace = self.tracer.begin(self.id, begun)
        self._mark("source", rows=len(polled))
        started = time.perf_counter()
        self.last_seen = self._clock.now()
        taken = self._accept(polled, shed())
        if taken is None and trace is not None:
            self.tracer.keep(trace)  # it ends here
        self._tally.pending = len(taken) if taken else 0
        self._book(polled.position)
        self.meter.add(len(polled), len(taken) if taken else 0, time.perf_counter() - started)
        return taken

    def _take_handed(self, handed: Stores) -> Block | None:
        self.trace = None
        block = self._patiently(partial(handed.store, self))
        if block is not None:
            self.know(block.rows)
            self._tally = Accounting(received=len(block), stored=len(block))
            self._book(None)
        return block

    def know(self, rows: pa.RecordBatch) -> None:
        """These identities were stored: the source giving them again is a duplicate."""
        self._dedupe.duplicates(rows)

    def resume(self) -> Position | None:
        """Where the source is; rows from elsewhere carry it, so that they do not move it. None: not known yet."""
        with self._lock:
            return self._waiting or self.committed

    def counted(self) -> Accounting:
        """The counters at one moment; safe from any thread."""
        with self._lock:
            return msgspec.structs.replace(self.accounting, reasons=dict(self.accounting.reasons))

    def _book(self, position: Position | None) -> None:
        with self._lock:
            self.accounting.add(self._tally)
            self._waiting = position or self._waiting

    def _accept(self, polled: Block, shed: bool) -> Block | None:
        good, rejects = self._decode(polled)
        self._mark("decode")
        late: Block | None = None
        watermark: Nanos = 0
        if good is not None:
            good, broken = self._checker.check(good)
            rejects = rejects + broken
        self._count_rejects(rejects)
        if shed and good is not None:
            # Before duplicates and watermarks are looked at: a reading sent again later is as good as new.
            self._tally.shed += len(good)
            good = None
        if good is not None and len(good):
            repeated = self._dedupe.duplicates(good.rows)
            if repeated.any():
                self._tally.duplicate += int(repeated.sum())
                good = _only(good, ~repeated)
            observed = self._watermarks.observe(good.rows)
            watermark = observed.watermark
            if observed.late.any():
                self._tally.late += int(observed.late.sum())
                late = Block(self.id, late_rows(good, observed), watermark, good.position)
                good = _only(good, ~observed.late)
        self._put_aside(rejects, late, polled.position)
        self._mark("contract", taken=0 if good is None else len(good))
        if good is None or len(good) == 0:
            return None
        self.watermark = watermark
        kept = Block(self.id, good.rows, watermark, good.position)
        position = self._append(self.log, kept)
        self._mark("log")
        return Block(self.id, kept.rows, kept.watermark, position)

    def _mark(self, name: str, **told: Any) -> None:
        if self.trace is not None:
            self.trace.mark(name, **told)

    def _put_aside(self, rejects: list[Reject], late: Block | None, position: Position) -> None:
        """Keep what does not go on, once, whatever was read again."""
        if not rejects and late is None:
            return
        counted = Counts(
            position.partition,
            position.offset,
            self._counts.late + (len(late) if late else 0),
            self._counts.refused + len(rejects),
        )
        self._counts = counted
        known = min(self._known_refused, len(rejects))
        self._known_refused -= known
        for reject in rejects[known:]:
            self._patiently(partial(self._quarantine.add, [reject]))
        if late is not None:
            known = min(self._known_late, len(late))
            self._known_late -= known
            rows = late.rows.slice(known)
            if rows.num_rows:
                self._append(self.late, Block(late.stream, rows, late.watermark, late.position))
        if self.source.facts.replayable:
            self._patiently(self.late.flush)
            self._patiently(self._quarantine.flush)
        if self._aside is not None:
            aside = self._aside
            self._patiently(lambda: aside.note(counted))

    def _append(self, log: EventLog, block: Block) -> Position:
        return self._patiently(lambda: log.append(block))

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """While the disk takes nothing, wait: the source is held back, nothing is lost."""
        while True:
            try:
                return call()
            except Unavailable:
                if self._closing.wait(0.2):
                    raise

    def _decode(self, polled: Block) -> tuple[Block | None, list[Reject]]:
        # A replay gives the rows as they were stored: typed already, whatever they came in as.
        if self._decoder is None or polled.rows.schema.names != WIRE.names:
            self._tally.received += len(polled)
            return polled, []
        rows, rejects = self._decoder.decode(polled)
        self._tally.received += (len(rows) if rows else 0) + len(rejects)
        return rows, rejects

    def _count_rejects(self, rejects: list[Reject]) -> None:
        reasons = self._tally.reasons
        for reject in rejects:
            self._tally.quarantined += 1
            reasons[reject.reason] = reasons.get(reject.reason, 0) + 1

    def _count_shed(self) -> None:
        shed = int(getattr(self.source, "shed", 0))
        if shed > self._shed_seen:
            self._tally.received += shed - self._shed_seen
            self._tally.shed += shed - self._shed_seen
            self._shed_seen = shed

    def flush(self) -> bool:
        """Make everything taken so far durable, then tell the source; False when the disk is full."""
        with self._flushing:
            return self._flush()

    def _flush(self) -> bool:
        with self._lock:
            waiting, pending = self._waiting, self.accounting.pending
        if waiting is None or waiting == self.committed:
            return True
        try:
            self.log.flush()
            self.late.flush()
            self._quarantine.flush()
        except Unavailable:
            return False
        with self._lock:
            self.accounting.pending -= pending
            self.accounting.stored += pending
        self.source.commit(waiting)
        self.committed = waiting
        return True

    def close(self) -> None:
        """Flush, then close the source and the logs."""
        self._closing.set()
        self.flush()
        self.source.close()
        self.log.close()
        self.late.close()
        if self._aside is not None:
            self._aside.close()


def recent(
    log: EventLog, time_column: str, horizon: float, upto: Position | None = None, least: int = _PRIME_ROWS
) -> Iterator[Block]:
    """The last rows of a log, or of its part before `upto`: at least as far back as `horizon` seconds of event time."""
    start, end = lookback(log, time_column, horizon, upto, least), (upto or log.end()).offset
    if start < end:
        yield from log.read(Position(log.stream, start), end - start)


def lookback(
    log: EventLog, time_column: str, horizon: float, upto: Position | None = None, least: int = _PRIME_ROWS
) -> int:
    """The number of the first row that `recent` gives."""
    end, first = (upto or log.end()).offset, log.start().offset
    if end <= first:
        return first
    start = max(first, end - least)
    edge = max(_newest(block, time_column) for block in log.read(Position(log.stream, start), end - start))
    edge -= int(horizon * SECOND)
    while start > first:
        oldest = next(log.read(Position(log.stream, start), 1), None)
        if oldest is None or _newest(oldest, time_column) < edge:
            break
        start = max(first, end - 4 * (end - start))
    return start


def _newest(block: Block, time_column: str) -> Nanos:
    return int(pc.max(pc.cast(block.rows.column(time_column), pa.int64())).as_py() or 0)


def _only(block: Block, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> Block:
    return Block(block.stream, block.rows.filter(pa.array(keep)), block.watermark, block.position)


def newest_sample(block: Block, time_column: str) -> Nanos:
    """Event time of the newest sample of a Block: a waveform's row ends `samples / rate_hz` after it begins."""
    at = pc.cast(block.rows.column(time_column), pa.int64()).to_numpy(zero_copy_only=False)
    names = block.rows.schema.names
    if "samples" in names and "rate_hz" in names:
        counts = pc.list_value_length(block.rows.column("samples")).to_numpy(zero_copy_only=False)
        rates = block.rows.column("rate_hz").to_numpy(zero_copy_only=False)
        at = at + (counts / rates * SECOND).astype(np.int64)
    return int(at.max())
