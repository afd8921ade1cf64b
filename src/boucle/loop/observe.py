"""Watches a running loop from beside the path and paints the LoopView that screens show.

Taps only keep references to what flowed by; the picture is put together when somebody looks.
"""

import math
import threading
from collections import deque
from typing import Any

import numpy as np
import pyarrow as pa

from boucle.block import Block, as_dicts
from boucle.clock import SECOND, Clock, Nanos
from boucle.event import Command, Event, Outcome, Receipt
from boucle.loop.measure import Percentiles
from boucle.loop.path import Step
from boucle.loop.trace import Tracer
from boucle.loop.view import Live, LiveSignal, MachineView
from boucle.product.document import ViewSpec

__all__ = ["Observer"]

_KEPT = 300
"""Points of a trend, events and commands kept for the screens; the tables keep everything."""
_STATUS = {"none": "normal", "machine": "alarm"}


class Observer:
    """What was last seen of every machine, and the last events, commands and receipts."""

    def __init__(self, view: ViewSpec, live: Step | None, clock: Clock, tracer: Tracer) -> None:
        self.decision_ms = Percentiles()
        self.action_ms = Percentiles()
        self._view, self._live, self._clock, self._tracer = view, live, clock, tracer
        self._machines: dict[str, dict[str, Any]] = {}
        self._values: dict[str, dict[str, float]] = {}
        self._trends: dict[tuple[str, str], deque[tuple[Nanos, float]]] = {}
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._commands: dict[str, tuple[Command, Receipt | None]] = {}
        self._lock = threading.Lock()
        self._columns: dict[str, list[tuple[str, str, bool]]] = {}
        for name, spec in view.values.items():
            stream, _, column = spec.of.partition(".")
            self._columns.setdefault(stream, []).append((name, column, spec.trend))

    @property
    def streams(self) -> set[str]:
        """The streams whose Blocks it wants to see."""
        return {*self._columns, *([self._view.machines] if self._view.machines else [])}

    def see(self, block: Block) -> None:
        """A Block flowed by."""
        rows = block.rows
        if nested := [field.name for field in rows.schema if pa.types.is_nested(field.type)]:
            rows = rows.drop_columns(nested)
        with self._lock:
            for row in as_dicts(rows):
                machine, at = row.get("machine"), row["at"]
                if machine is None:
                    continue
                if block.stream == self._view.machines:
                    self._machines[machine] = row
                for name, column, trend in self._columns.get(block.stream, ()):
                    self._value(machine, name, row.get(column), at, trend)

    def _value(self, machine: str, name: str, value: Any, at: Nanos, trend: bool) -> None:
        if value is None:
            return
        self._values.setdefault(machine, {})[name] = float(value)
        if trend:
            self._trends.setdefault((machine, name), deque(maxlen=_KEPT)).append((at, float(value)))

    def event(self, event: Event) -> None:
        """An Event was raised."""
        with self._lock:
            self._events.append(event)

    def command(self, command: Command, receipt: Receipt | None) -> None:
        """A Command was issued, or its Receipt came."""
        if receipt is None:
            self._tracer.sent(command)
        else:
            self._tracer.answered(command, receipt)
        with self._lock:
            _, known = self._commands.pop(command.id, (command, None))
            if receipt is None or receipt.outcome is Outcome.duplicate:
                receipt = known or receipt  # what became of it the first time still holds
            self._commands[command.id] = (command, receipt)
            while len(self._commands) > _KEPT:
                self._commands.pop(next(iter(self._commands)))
        if receipt is None or receipt.outcome is not Outcome.applied or receipt.latency_ms is None:
            return
        if command.caused_at and isinstance(receipt.read_back, int | float):
            self.action_ms.add(receipt.latency_ms)

    def events(self) -> tuple[Event, ...]:
        """The last Events, newest first."""
        with self._lock:
            return tuple(reversed(self._events))

    def commands(self) -> tuple[tuple[Command, Receipt | None], ...]:
        """The last Commands with their Receipts, newest first."""
        with self._lock:
            return tuple(reversed(self._commands.values()))

    def machines(self) -> tuple[MachineView, ...]:
        """Every machine seen so far, by name."""
        now = self._clock.now()
        with self._lock:
            names = sorted({*self._machines, *self._values})
            return tuple(self._machine(name, now) for name in names)

    def _machine(self, name: str, now: Nanos) -> MachineView:
        row = self._machines.get(name, {})
        age = (now - row["at"]) / SECOND if row else math.nan
        family = row.get("family") or "unknown"
        units = {value: spec.unit for value, spec in self._view.values.items()}
        return MachineView(
            id=name,
            status=_STATUS.get(family, "attention") if row else "unknown",
            age_s=age,
            health=_float(row.get("health")),
            rul_h=_float(row.get("rul_h")),
            zone=row.get("zone") or "",
            family=family,
            cause=row.get("cause") or "",
            subject=row.get("subject") or name,
            confidence=_float(row.get("confidence")),
            says={"en": row.get("says_en") or "", "fr": row.get("says_fr") or ""},
            values=dict(self._values.get(name, {})),
            units=units,
        )

    def live(self, machine: str) -> Live | None:
        """The live signals and trends of a machine; None for one never seen."""
        now = self._clock.now()
        with self._lock:
            if machine not in self._machines and machine not in self._values:
                return None
            trends = {
                name: _trend(list(points), now)
                for (owner, name), points in self._trends.items()
                if owner == machine
            }
            row = self._machines.get(machine)
        signals = []
        if self._live is not None:
            latest: dict[str, Any] = self._live.operator.latest(machine)  # type: ignore[attr-defined]
            for sensor, (waveform, spectrum, bin_hz) in sorted(latest.items()):
                age = (now - row["at"]) / SECOND if row else math.nan
                signals.append(LiveSignal(sensor, "g", waveform, spectrum, bin_hz, age))
        return Live(
            machine=machine,
            at=now,
            signals=tuple(signals),
            trends=trends,
            bands={name: spec.band for name, spec in self._view.values.items() if spec.band},
            units={name: spec.unit for name, spec in self._view.values.items()},
        )


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _trend(points: list[tuple[Nanos, float]], now: Nanos) -> tuple[Any, Any]:
    ages = np.array([(now - at) / SECOND for at, _ in points], dtype=np.float32)
    return ages, np.array([value for _, value in points], dtype=np.float32)
