"""A line of presses with its instruments: what the plant would send, and the truth behind it.

line = PressLine(load_scenario(file), seed=7, start=clock.now())
tick = line.step()                     # 0.1 s later, for every machine
line.messages(tick)                    # what goes to the broker, bad input included
line.set_speed("press-2", 30)          # what the PLC's set-point does
line.truth()                           # what really is wrong
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError, DeclarationError
from boucle.ports import WIRE
from boucle.testing.disturbance import VIBRATION, Disturber, Injection, Message, Wire
from boucle.testing.instrument import Instrument, Reading
from boucle.testing.machine import RATE, Machine
from boucle.testing.resonance import Array
from boucle.testing.scenario import AXES, PROCESS, Scenario, check_scenario
from boucle.testing.truth import HISTORY, MachineState, truth_of

__all__ = ["PROCESS_SCHEMA", "VIBRATION", "PressLine", "Tick"]

PROCESS_SCHEMA = pa.schema(
    [
        pa.field("machine", pa.string(), nullable=False),
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
    ]
)
"""One row per slow value and PLC scan; `at` is the source timestamp."""


class Tick(Struct, frozen=True):
    """One chunk of the whole line."""

    at: Nanos
    """Time of the first sample."""
    last: Nanos
    """Time of the last sample, and of the slow values: when the chunk can be known at the earliest."""
    vibration: tuple[tuple[str, pa.RecordBatch], ...]
    """One batch per machine that sent something (schema VIBRATION)."""
    process: pa.RecordBatch
    """The slow values of every machine (PROCESS_SCHEMA)."""


class PressLine:
    """A simulated press line: the same scenario, seed and start give the same bytes.

    DeclarationError when the scenario makes no sense. Not thread-safe, `set_speed` included.
    """

    def __init__(self, scenario: Scenario, seed: int = 1, start: Nanos = 0) -> None:
        if problems := check_scenario(scenario):
            raise DeclarationError(problems)
        self.scenario, self.seed, self.start = scenario, seed, start
        self.machines = scenario.machines
        self._presses = {
            name: Machine(name, index, scenario, seed) for index, name in enumerate(scenario.machines)
        }
        self._instruments = {
            (name, sensor): Instrument(
                [f for f in scenario.faults if f.machine == name and sensor in f.sensors],
                np.random.default_rng(np.random.SeedSequence([seed, index, 1 + number])),
            )
            for index, name in enumerate(scenario.machines)
            for number, sensor in enumerate((*AXES, *PROCESS))
        }
        self._operations = sorted(scenario.operation, key=lambda operation: operation.at)
        self._disturber = Disturber(scenario, seed, start)
        self._chunk = round(scenario.chunk * SECOND)
        self._count = round(scenario.chunk * RATE)
        self._ticks = 0
        self._offsets = {"vibration": 0, "process": 0}
        self._history: list[dict[str, Any]] = []

    @property
    def now(self) -> Nanos:
        """Where the next chunk starts."""
        return self.start + self._ticks * self._chunk

    @property
    def elapsed(self) -> float:
        """Simulated seconds since the start."""
        return self._ticks * self._chunk / SECOND

    def begin(self, at: Nanos) -> None:
        """Move the start, so that a line made early does not have to catch up; ValueError once it runs."""
        if self._ticks:
            raise ValueError("the line already runs")
        self.start = self._disturber.start = at

    def step(self) -> Tick:
        """Everything advances by one chunk."""
        at = self.now
        last = at + self._chunk - round(SECOND / RATE)
        self._operate()
        vibration: list[tuple[str, pa.RecordBatch]] = []
        process: list[tuple[str, str, Nanos, float]] = []
        for name, press in self._presses.items():
            waves, values = press.step(self._count)
            batch = self._chunk_of(name, waves, at)
            if batch.num_rows:
                vibration.append((name, batch))
            process += self._scan_of(name, values, last)
        self._ticks += 1
        if self.elapsed.is_integer():
            self._history += [self._note(name, last) for name in self.machines]
        return Tick(at, last, tuple(vibration), _process_batch(process))

    def set_speed(self, machine: str, speed: float) -> None:
        """The set-point of a press, strokes/min; the press follows it within seconds."""
        if not speed >= 0:
            raise ValueError(f"a press does not run at {speed} strokes/min")
        self.press(machine).setpoint = speed

    def press(self, machine: str) -> Machine:
        """One press, as it truly is; B233 when there is none of that name."""
        if machine not in self._presses:
            raise BoucleError(
                "B233", f"there is no press {machine!r}", fix=f"one of: {', '.join(self.machines)}"
            )
        return self._presses[machine]

    def state(self, machine: str) -> MachineState:
        """What is true of a press now."""
        press = self.press(machine)
        gains = {sensor: self._instruments[machine, sensor].gain(press.time) for sensor in (*AXES, *PROCESS)}
        return MachineState(
            machine=machine,
            damage=press.damage,
            rul_h=press.rul_h,
            speed=press.speed,
            setpoint=press.setpoint,
            load=press.load,
            severities=dict(press.severities),
            gains=gains,
        )

    def truth(self) -> list[dict[str, Any]]:
        """Every fault of the scenario, with its onset (ns) and how far it has come, ready for JSON."""
        states = {name: press.severities for name, press in self._presses.items()}
        return [truth_of(fault, self.start, self.elapsed, states) for fault in self.scenario.faults]

    def history(self) -> pa.Table:
        """Damage, remaining life and operating point of every press at every whole second so far."""
        return pa.Table.from_pylist(self._history, schema=HISTORY)

    @property
    def injections(self) -> Sequence[Injection]:
        """The bad input that went out so far."""
        return tuple(self._disturber.injections)

    def messages(self, tick: Tick, wire: Wire = "arrow") -> list[Message]:
        """What goes to the broker for this tick, bad input included; once per tick, in order."""
        return self._disturber.messages(tick.at, tick.vibration, wire)

    def wire_block(self, messages: Sequence[Message], received: Nanos) -> Block:
        """The messages as an MQTT source would hand them over, for a loop on the manual clock."""
        columns = [
            pa.array([message.topic for message in messages], pa.string()),
            pa.array([message.payload for message in messages], pa.binary()),
            pa.array([received] * len(messages), pa.timestamp("ns", tz="UTC")),
            pa.array([False] * len(messages), pa.bool_()),
        ]
        return self._block("vibration", pa.record_batch(columns, schema=WIRE))

    def process_block(self, tick: Tick) -> Block:
        """The slow values as an OPC UA source would hand them over."""
        return self._block("process", tick.process)

    def record(self, folder: Path, seconds: float | None = None) -> None:
        """Run for `seconds` (default: the scenario's) and write what was measured beside what was true.

        `vibration.parquet`, `process.parquet`, `history.parquet` (the truth second by second) and
        `truth.json`. Bad input is left out: it is about the wire, not about the machines.
        """
        from boucle.testing.record import record

        record(self, folder, self.scenario.duration if seconds is None else seconds)

    def _block(self, stream: str, rows: pa.RecordBatch) -> Block:
        self._offsets[stream] += rows.num_rows
        return Block(stream, rows, 0, Position(stream, self._offsets[stream]))

    def _operate(self) -> None:
        while self._operations and self._operations[0].at <= self.elapsed + 1e-9:
            operation = self._operations.pop(0)
            press = self._presses[operation.machine]
            press.setpoint = press.setpoint if operation.speed is None else operation.speed
            press.load = press.load if operation.load is None else operation.load
            press.warmer = press.warmer if operation.ambient is None else operation.ambient

    def _chunk_of(self, name: str, waves: Array, at: Nanos) -> pa.RecordBatch:
        read: list[tuple[str, Reading]] = []
        for sensor, wave in zip(AXES, waves, strict=True):
            reading = self._instruments[name, sensor].measure(self.elapsed, self.scenario.chunk, wave)
            if reading is not None:
                read.append((sensor, reading))
        rows = len(read)
        samples = np.concatenate([r.values for _, r in read]) if read else np.empty(0, np.float32)
        offsets = np.arange(rows + 1, dtype=np.int32) * self._count
        columns = [
            pa.array([f"{name}-daq"] * rows, pa.string()),
            pa.array([self._ticks] * rows, pa.int64()),
            pa.array([name] * rows, pa.string()),
            pa.array([sensor for sensor, _ in read], pa.string()),
            pa.array([at + reading.shift for _, reading in read], pa.timestamp("ns", tz="UTC")),
            pa.array([RATE] * rows, pa.float64()),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(samples)),
        ]
        return pa.record_batch(columns, schema=VIBRATION)

    def _scan_of(
        self, name: str, values: dict[str, float], last: Nanos
    ) -> list[tuple[str, str, Nanos, float]]:
        rows = []
        for sensor in PROCESS:
            value = np.array([values[sensor]])
            reading = self._instruments[name, sensor].measure(self.elapsed, self.scenario.chunk, value)
            if reading is not None:
                rows.append((name, sensor, last + reading.shift, float(reading.values[0])))
        return rows

    def _note(self, name: str, at: Nanos) -> dict[str, Any]:
        state = self.state(name)
        kind = max(state.severities, key=lambda cause: state.severities[cause], default="")
        return {
            "machine": name,
            "at": at,
            "damage": state.damage,
            "rul_h": state.rul_h,
            "cause": kind,
            "speed": state.speed,
            "setpoint": state.setpoint,
            "load": state.load,
        }


def _process_batch(rows: list[tuple[str, str, Nanos, float]]) -> pa.RecordBatch:
    machine, sensor, at, value = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = [machine, sensor, at, value, ["Good"] * len(rows)]
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, PROCESS_SCHEMA, strict=True)],
        schema=PROCESS_SCHEMA,
    )
