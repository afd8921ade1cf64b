"""Where the time of single Blocks went: one trace for each sampled Block, the last of them kept in memory.

    source → decode → contract → log → queue → each step → decision → command (until it was read back)

A trace is written down as OpenTelemetry's OTLP/JSON has it (opentelemetry-proto 1.x: hexadecimal ids, 64-bit
numbers as strings), so that whatever reads a collector's file exporter reads it. A span costs about a
microsecond, and a Block that is not sampled one comparison.
"""

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from boucle.event import Command, Outcome, Receipt

__all__ = ["Span", "Trace", "Tracer", "otlp"]

_KEPT = 200
"""Traces kept; the oldest goes."""
_COMMANDS = 1000
"""Commands whose receipts are waited for."""
_INTERNAL, _CLIENT, _CONSUMER = 1, 3, 5
_FAILED = 2
_SAID = {Outcome.refused, Outcome.failed, Outcome.expired}


class Span(Struct):
    """One thing that was done, from `start` to `end` (nanoseconds since the epoch)."""

    name: str
    start: int
    end: int
    told: dict[str, Any] = {}
    kind: int = _INTERNAL
    failed: bool = False


class Trace:
    """The spans of one Block; written by one thread after the other."""

    def __init__(self, source: str, offset: int, since: int) -> None:
        self.source = source
        self.id = os.urandom(16)
        self.spans: list[Span] = []
        # The wall is read once: spans of one trace must not be torn by a clock that is set.
        self._offset = offset
        self._last = since

    def mark(self, name: str, **told: Any) -> None:
        """What was done since the last mark."""
        now = time.perf_counter_ns()
        self.add(name, self._last, now, told)

    def add(self, name: str, start: int, end: int, told: dict[str, Any]) -> None:
        """Something done between two readings of `time.perf_counter_ns`."""
        self._last = max(self._last, end)
        self.spans.append(Span(name, start + self._offset, end + self._offset, told))


class Tracer:
    """Chooses the Blocks that are traced, one in `every` (0: none), and keeps the last traces."""

    def __init__(self, every: int, kept: int = _KEPT) -> None:
        self.every = every
        self.deciding: Trace | None = None
        """The trace whose Block the rules look at right now."""
        self._seen: dict[str, int] = defaultdict(int)  # each counted by its own thread
        self._offset = time.time_ns() - time.perf_counter_ns()
        self._kept: deque[Trace] = deque(maxlen=kept)
        self._commands: dict[str, tuple[Trace, int]] = {}
        self._lock = threading.Lock()

    def begin(self, source: str, since: int) -> Trace | None:
        """A trace for the Block a source gave, asked `since` (perf_counter_ns); None when it is not sampled."""
        if not self.every:
            return None
        seen = self._seen[source]
        self._seen[source] = seen + 1
        return None if seen % self.every else Trace(source, self._offset, since)

    def keep(self, trace: Trace) -> None:
        """Its Block is worked through. What becomes of its Commands is added when it is known."""
        with self._lock:
            self._kept.append(trace)

    def sent(self, command: Command) -> None:
        """A Command was handed over; it is traced when it follows from a Block that is."""
        trace = self.deciding
        if trace is None or not command.caused_at:  # one from outside has no Block
            return
        with self._lock:
            self._commands[command.id] = (trace, time.perf_counter_ns())
            while len(self._commands) > _COMMANDS:
                self._commands.pop(next(iter(self._commands)))

    def answered(self, command: Command, receipt: Receipt) -> None:
        """Its Receipt came: what was written was read back, or why not."""
        with self._lock:
            trace, start = self._commands.pop(command.id, (None, 0))
        if trace is None:
            return
        told: dict[str, Any] = {
            "target": command.target,
            "outcome": receipt.outcome.value,
            "code": receipt.code,
        }
        if isinstance(receipt.read_back, bool | int | float | str):
            told["read_back"] = receipt.read_back
        ends = (start + self._offset, time.perf_counter_ns() + self._offset)
        trace.spans.append(Span("command", *ends, told, _CLIENT, receipt.outcome in _SAID))

    def last(self) -> list[Trace]:
        """The traces kept, oldest first."""
        with self._lock:
            return list(self._kept)


def otlp(trace: Trace, product: str) -> dict[str, Any]:
    """A trace as one `TracesData` of OTLP/JSON: a root span for the Block, and below it what was done."""
    spans = list(trace.spans)
    root = trace.id[:8].hex()
    whole = {
        "traceId": trace.id.hex(),
        "spanId": root,
        "name": f"Block {trace.source}",
        "kind": _CONSUMER,
        "startTimeUnixNano": str(min((one.start for one in spans), default=0)),
        "endTimeUnixNano": str(max((one.end for one in spans), default=0)),
        "attributes": _attributes({"boucle.source": trace.source}),
    }
    below = [
        {
            "traceId": trace.id.hex(),
            "spanId": (int.from_bytes(trace.id[8:]) ^ number).to_bytes(8).hex(),
            "parentSpanId": root,
            "name": one.name,
            "kind": one.kind,
            "startTimeUnixNano": str(one.start),
            "endTimeUnixNano": str(one.end),
            "attributes": _attributes({f"boucle.{name}": value for name, value in one.told.items()}),
            **({"status": {"code": _FAILED}} if one.failed else {}),
        }
        for number, one in enumerate(spans)
    ]
    resource = {"attributes": _attributes({"service.name": "boucle", "boucle.product": product})}
    scoped = [{"scope": {"name": "boucle.loop"}, "spans": [whole, *below]}]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": scoped}]}


def _attributes(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in told.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}
