"""The logic of the line's PLC, without any protocol, and an actuator straight onto it.

Per machine: the slow values of `boucle.testing.scenario.PROCESS`, and speed_min, speed_max (strokes/min),
interlock (true blocks commands), emergency_stop, mode ("auto" or "manual"). From outside only
speed_setpoint can be written, and it is refused with the OPC UA status a real PLC gives:

    NaN, or outside [speed_min, speed_max]     BadOutOfRange
    interlock or emergency stop set            BadUserAccessDenied
    mode is not auto                           BadInvalidState
    not a number                               BadTypeMismatch
    any other signal                           BadNotWritable
    no such machine or signal                  BadNodeIdUnknown
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from boucle.clock import Clock, Nanos, SystemClock
from boucle.errors import BoucleError, Unavailable
from boucle.event import Command, Outcome, Receipt
from boucle.testing.scenario import PROCESS

__all__ = ["SIGNALS", "FakePlc", "PlcLogic", "Refusal", "Tag"]

SIGNALS: dict[str, Any] = {
    **dict.fromkeys(PROCESS, 0.0),
    "speed_setpoint": 40.0,
    "speed_min": 20.0,
    "speed_max": 44.0,
    "interlock": False,
    "emergency_stop": False,
    "mode": "auto",
}
"""The signals of a machine, with the value each starts with."""


class Tag(Struct, frozen=True):
    """A signal's value, its source timestamp, and its quality as an OPC UA status name."""

    machine: str
    signal: str
    value: Any
    at: Nanos
    status: str = "Good"


class Refusal(Struct, frozen=True):
    """Why a write is refused: the OPC UA status, a stable code for a receipt, a sentence."""

    status: str
    code: str
    why: str


Listener = Callable[[Sequence[Tag]], None]


class PlcLogic:
    """What the PLC knows and lets happen. Thread-safe; listeners are told of every change, in order."""

    def __init__(self, machines: Iterable[str], clock: Clock | None = None, speed: float = 40.0) -> None:
        self.clock: Clock = clock or SystemClock()
        self.machines = tuple(machines)
        now = self.clock.now()
        self._lock = threading.RLock()
        self._tags = {
            (machine, signal): Tag(machine, signal, value, now)
            for machine in self.machines
            for signal, value in {**SIGNALS, "speed_setpoint": speed}.items()
        }
        self._faulty: dict[tuple[str, str], str] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call `listener` with the tags that changed, on the thread that changed them."""
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    def tags(self) -> tuple[Tag, ...]:
        """Everything, as it is now."""
        with self._lock:
            return tuple(self._tags.values())

    def tag(self, machine: str, signal: str) -> Tag:
        """One signal; B234 when there is none of that name."""
        with self._lock:
            if (machine, signal) not in self._tags:
                raise BoucleError(
                    "B234",
                    f"the PLC has no signal {machine}.{signal}",
                    fix=f"machines: {', '.join(self.machines)}; signals: {', '.join(SIGNALS)}",
                )
            return self._tags[machine, signal]

    def value(self, machine: str, signal: str) -> Any:
        """The value of one signal."""
        return self.tag(machine, signal).value

    def check(self, machine: str, signal: str, value: Any) -> Refusal | None:
        """Why a write from outside would be refused; None when it would not."""
        with self._lock:
            if (machine, signal) not in self._tags:
                return Refusal("BadNodeIdUnknown", "unknown_target", f"there is no {machine}.{signal}")
            if signal != "speed_setpoint":
                return Refusal("BadNotWritable", "not_writable", f"{signal} is read-only")
            if isinstance(value, bool) or not isinstance(value, int | float):
                return Refusal("BadTypeMismatch", "type", f"{value!r} is not a speed")
            for lock in ("interlock", "emergency_stop"):
                if self.value(machine, lock):
                    return Refusal("BadUserAccessDenied", lock, f"{lock} is set")
            if (mode := self.value(machine, "mode")) != "auto":
                return Refusal("BadInvalidState", "mode", f"the mode is {mode}")
            low, high = self.value(machine, "speed_min"), self.value(machine, "speed_max")
            if math.isnan(value) or not low <= value <= high:
                return Refusal("BadOutOfRange", "out_of_bounds", f"{value} is not in [{low}, {high}]")
            return None

    def write(self, machine: str, signal: str, value: Any) -> Refusal | None:
        """A write from outside: done (None) or refused."""
        with self._lock:
            refusal = self.check(machine, signal, value)
            if refusal is None:
                self.set(machine, signal, float(value))
            return refusal

    def set(self, machine: str, signal: str, value: Any) -> None:
        """What a person at the machine does: no limits apply. B235 when the type is not the signal's."""
        with self._lock:
            before = self.tag(machine, signal)
            kind = type(SIGNALS[signal])
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value) is not kind or (signal == "mode" and value not in {"auto", "manual"}):
                fix = "auto or manual" if signal == "mode" else f"a {kind.__name__}"
                raise BoucleError("B235", f"{machine}.{signal} cannot be {value!r}", fix=f"give {fix}")
            at = max(self.clock.now(), before.at)
            self._change([Tag(machine, signal, value, at, self._faulty.get((machine, signal), "Good"))])

    def scan(self, values: Iterable[tuple[Nanos, str, str, float]]) -> None:
        """A scan of the inputs: (time, machine, sensor, value).

        The set-point is the PLC's own register: a scan renews its time, never its value. A value older than
        the one held is passed over.
        """
        with self._lock:
            tags = []
            for at, machine, sensor, value in values:
                held = self.tag(machine, sensor)
                if at <= held.at:
                    continue  # late: something newer, perhaps a client's write, is already there
                kept = held.value if sensor == "speed_setpoint" else value
                status = self._faulty.get((machine, sensor), "Good")
                tags.append(Tag(machine, sensor, kept, at, status))
            self._change(tags)

    def spoil(self, machine: str, signal: str, status: str = "BadSensorFailure") -> None:
        """From now on the signal carries a bad status (an OPC UA name); `Good` heals it."""
        with self._lock:
            tag = self.tag(machine, signal)
            self._faulty[machine, signal] = status
            self._change([Tag(machine, signal, tag.value, max(self.clock.now(), tag.at), status)])

    def _change(self, tags: Sequence[Tag]) -> None:
        for tag in tags:
            self._tags[tag.machine, tag.signal] = tag
        for listener in list(self._listeners):
            listener(tags)


class FakePlc:
    """An actuator onto a PlcLogic in the same process; targets are `plc/<machine>/<signal>`.

    Set `reachable` to False to pull the network cable: `send` and `read` raise Unavailable.
    """

    def __init__(self, logic: PlcLogic) -> None:
        self.logic = logic
        self.reachable = True
        self._done: dict[str, Receipt] = {}
        self._open = False

    def open(self) -> None:
        """Get ready."""
        self._open = True

    def send(self, command: Command) -> Receipt:
        """Write, read back, say how it ended; the same Command id again moves nothing."""
        self._reach(command.target)
        now = self.logic.clock.now
        if command.id in self._done:
            first = self._done[command.id]
            return Receipt(
                command.id,
                command.target,
                Outcome.duplicate,
                now(),
                why="this command was already sent",
                code="duplicate",
                read_back=first.read_back,
            )
        machine, signal = _place(command.target)
        known = self.logic.check(machine, signal, command.value)
        before = None if known and known.code == "unknown_target" else self.logic.value(machine, signal)
        refusal = self.logic.write(machine, signal, command.value)
        if refusal is None:
            back = self.logic.value(machine, signal)
            receipt = Receipt(
                command.id, command.target, Outcome.applied, now(), before=before, read_back=back
            )
        else:
            receipt = Receipt(
                command.id,
                command.target,
                Outcome.refused,
                now(),
                why=f"{refusal.status}: {refusal.why}",
                code=refusal.code,
                before=before,
                read_back=before,
            )
        self._done[command.id] = receipt
        return receipt

    def read(self, target: str) -> Any:
        """The present value; Unavailable when its quality is bad."""
        self._reach(target)
        tag = self.logic.tag(*_place(target))
        if tag.status != "Good":
            raise Unavailable("B720", f"the quality of {target} is {tag.status}", fix="repair the sensor")
        return tag.value

    def state(self) -> str:
        """`connected`, or why not."""
        if not self._open:
            return "not open"
        return "connected" if self.reachable else "the PLC does not answer"

    def close(self) -> None:
        """Nothing to give back."""
        self._open = False

    def _reach(self, target: str) -> None:
        if self.state() != "connected":
            raise Unavailable("B721", f"{target}: {self.state()}", fix="open it, or wait until it is back")


def _place(target: str) -> tuple[str, str]:
    _, _, rest = target.partition("/")
    machine, _, signal = rest.partition("/")
    return machine, signal
