"""Bad input on the wire: what a scenario injects beside (never instead of) the good messages.

    kind             what comes                                              what a sound loop does with it
    malformed        bytes that are no Arrow                                  quarantined, 1 reading
    wrong_type       one row whose seq is a text                              quarantined, 1 reading
    nan, inf         one row with NaN or Inf among its samples                quarantined, 1 reading
    unknown_sensor   one row of vib_w                                         quarantined, 1 reading
    out_of_range     one row with a sample of 500 g                           quarantined, 1 reading
    future           one row dated an hour ahead                              quarantined, 1 reading
    late             one row dated ten seconds ago                            late, 1 reading
    duplicate        a message sent twice                                     duplicate, its rows (3)
    out_of_order     a message held back and sent after its successor         stored, if it waits for lateness

Added rows come from a producer of their own (`press-1-bench`), so that they leave no hole in the good
data and their identity clashes with none of it.
"""

import bisect
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.clock import SECOND, Nanos
from boucle.testing.machine import RATE
from boucle.testing.scenario import Scenario

__all__ = ["EXPECTED", "VIBRATION", "Disturber", "Injection", "Message", "encode"]

VIBRATION = pa.schema(
    [
        pa.field("producer", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("machine", pa.string(), nullable=False),
        pa.field("sensor", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("rate_hz", pa.float64(), nullable=False),
        pa.field("samples", pa.list_(pa.float32()), nullable=False),
    ]
)
"""One row per axis and chunk; `at` is the time of the first sample, samples in g."""

Wire = Literal["arrow", "json"]

EXPECTED = {
    "malformed": "quarantined",
    "wrong_type": "quarantined",
    "nan": "quarantined",
    "inf": "quarantined",
    "unknown_sensor": "quarantined",
    "out_of_range": "quarantined",
    "future": "quarantined",
    "late": "late",
    "duplicate": "duplicate",
    "out_of_order": "stored",
}
"""Kind of disturbance → where its readings must end."""


class Message(Struct, frozen=True):
    """One message for the broker. `injected` is the kind of disturbance it is, empty for a good one."""

    topic: str
    payload: bytes
    readings: int
    """Rows inside; a payload that cannot be read counts as one."""
    injected: str = ""


class Injection(Struct, frozen=True):
    """One disturbance that really went out, for the accounting: `expected` is where it must end."""

    at: Nanos
    kind: str
    machine: str
    readings: int
    expected: str


def encode(batch: pa.RecordBatch, wire: Wire = "arrow") -> bytes:
    """A batch as an Arrow IPC stream, or as a JSON array of objects with `at` in integer nanoseconds."""
    if wire == "json":
        rows = batch.set_column(batch.schema.get_field_index("at"), "at", batch.column("at").cast(pa.int64()))
        return json.dumps(rows.to_pylist()).encode()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


class Disturber:
    """Turns the line's good messages into what really comes over the wire, and keeps the record."""

    def __init__(self, scenario: Scenario, seed: int, start: Nanos) -> None:
        self.injections: list[Injection] = []
        self._chunk = round(scenario.chunk * SECOND)
        self.start = start
        self._held: list[Message] = []
        self._sequence = 0
        self._plan = list(_schedule(scenario, seed))

    def messages(
        self, at: Nanos, good: Sequence[tuple[str, pa.RecordBatch]], wire: Wire = "arrow"
    ) -> list[Message]:
        """The messages of the chunk that starts `at`; called once per chunk, in order."""
        due: dict[str, list[str]] = {}
        until = (at - self.start + self._chunk) / SECOND
        while self._plan and self._plan[0][0] < until - 1e-9:
            _, kind, machine = self._plan.pop(0)
            due.setdefault(machine, []).append(kind)
        held, self._held = self._held, []
        out: list[Message] = []
        for machine, batch in good:
            message = Message(_topic(machine), encode(batch, wire), batch.num_rows)
            kinds = due.pop(machine, [])
            if "out_of_order" in kinds:
                self._note(at, "out_of_order", machine, message.readings)
                self._held.append(message)
            else:
                out.append(message)
            for kind in kinds:
                out.extend(self._extra(at, kind, machine, message, wire))
        for machine, kinds in due.items():  # machines whose own message was lost on the way
            for kind in kinds:
                out.extend(self._extra(at, kind, machine, None, wire))
        return out + held

    def _extra(
        self, at: Nanos, kind: str, machine: str, message: Message | None, wire: Wire
    ) -> Iterator[Message]:
        if kind == "out_of_order" or (kind == "duplicate" and message is None):
            return
        if kind == "duplicate" and message is not None:
            payload, readings = message.payload, message.readings
        elif kind == "malformed":
            payload, readings = b"\xff\xff\xff\xff\x10 not an Arrow stream", 1
        else:
            self._sequence += 1
            payload, readings = encode(_bad_row(at, kind, machine, self._sequence, self._chunk), wire), 1
        self._note(at, kind, machine, readings)
        yield Message(_topic(machine), payload, readings, kind)

    def _note(self, at: Nanos, kind: str, machine: str, readings: int) -> None:
        self.injections.append(Injection(at, kind, machine, readings, EXPECTED[kind]))


def _topic(machine: str) -> str:
    return f"press/{machine}/vibration"


def _schedule(scenario: Scenario, seed: int) -> Sequence[tuple[float, str, str]]:
    """(seconds, kind, machine), in order; random moments keep away from the very start and end."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xD157]))
    plan: list[tuple[float, str, str]] = []
    for disturbance in scenario.disturbances:
        times = list(disturbance.times)
        if not times:
            count = disturbance.count or int(rng.poisson(disturbance.rate * scenario.duration))
            times = rng.uniform(0.05, 0.95, count).tolist()
            times = [share * scenario.duration for share in times]
        for time in times:
            machine = disturbance.machine or scenario.machines[int(rng.integers(len(scenario.machines)))]
            bisect.insort(plan, (time, disturbance.kind, machine))
    return plan


def _bad_row(at: Nanos, kind: str, machine: str, sequence: int, chunk: Nanos) -> pa.RecordBatch:
    samples = np.full(round(chunk * RATE / SECOND), 0.1, dtype=np.float32)
    spoiled = {"nan": np.nan, "inf": np.inf, "out_of_range": 500.0}.get(kind)
    if spoiled is not None:
        samples[len(samples) // 2] = spoiled
    shift = {"future": 3600 * SECOND, "late": -10 * SECOND}.get(kind, 0)
    columns: dict[str, Any] = {
        "producer": [f"{machine}-bench"],
        "seq": [sequence],
        "machine": [machine],
        "sensor": ["vib_w" if kind == "unknown_sensor" else "vib_x"],
        "at": [at + shift],
        "rate_hz": [RATE],
        "samples": [samples],
    }
    schema = VIBRATION
    if kind == "wrong_type":
        columns["seq"] = ["twelve"]
        schema = schema.set(1, pa.field("seq", pa.string()))
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
