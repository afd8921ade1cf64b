"""A small machine and what stands around it, for tests of the act room."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from boucle.act.dispatch import Dispatcher
from boucle.act.guard import Guard, Limits, read_limits
from boucle.act.journal import Journal
from boucle.act.lane import IN_DOUBT
from boucle.act.plc import PlcActuator
from boucle.bus.opcua import Value
from boucle.clock import SECOND
from boucle.errors import CommandRefused, Unavailable
from boucle.event import Command, Outcome, Receipt
from boucle.testing.clock import ManualClock

START = 1_767_225_600 * SECOND
SPEED = "plc/press-1/speed_setpoint"
ORDER = "mes/press-1/job_order"
LIMITS: dict[str, Limits] = {
    "plc/speed_setpoint": read_limits(
        {
            "unit": "strokes/min",
            "min": 24,
            "max": 40,
            "max_step": 12,
            "rate": {"count": 2, "per": "60s"},
            "expires": "5s",
            "interlock": ["interlock", "emergency_stop"],
            "require": {"mode": "auto"},
            "tolerance": 0.05,
            "safe": 24,
        }
    ),
    "mes/job_order": read_limits({"rate": {"count": 10, "per": "60s"}, "expires": "1h"}),
}


class Wire:
    """The PLC's nodes behind a cable that can be cut, lose an answer, or hold a value back."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {
            f"{machine}.{name}": value
            for machine in ("press-1", "press-2")
            for name, value in {
                "speed_setpoint": 36.0,
                "interlock": False,
                "emergency_stop": False,
                "mode": "auto",
            }.items()
        }
        self.status: dict[str, str] = {}
        self.writes: list[tuple[str, float]] = []
        self.cut = False
        self.lose_answer = False
        self.stuck = False
        self.refuse = ""
        self.before_write: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def state(self) -> str:
        return "the cable is cut" if self.cut else "connected"

    def read(self, nodes: list[str]) -> list[Value]:
        if self.cut:
            raise Unavailable("B321", "the server is not connected", why="the cable is cut")
        return [Value(node, self.values.get(node), self._status(node), 0) for node in nodes]

    def _status(self, node: str) -> str:
        return self.status.get(node, "Good" if node in self.values else "BadNodeIdUnknown")

    def write(self, node: str, value: float) -> None:
        self.before_write()
        if self.cut:
            raise Unavailable("B321", "the server is not connected", why="the cable is cut")
        if self.refuse:
            raise CommandRefused("B320", "refused", why=self.refuse)
        self.writes.append((node, value))
        if not self.stuck:
            self.values[node] = value
        if self.lose_answer:
            self.cut = True
            raise Unavailable("B322", "writing failed", why="no answer within 1 s")


class Book:
    """An MES's orders; sending again is always safe."""

    idempotent = True

    def __init__(self, clock: ManualClock) -> None:
        self.orders: dict[str, Any] = {}
        self.sent = 0
        self.cut = False
        self.lose_answer = False
        self._clock = clock

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def state(self) -> str:
        return "connected"

    def read(self, target: str) -> Any:
        return list(self.orders.values())

    def send(self, command: Command) -> Receipt:
        if self.cut:
            raise Unavailable("B711", "the MES does not answer", why="no route")
        self.sent += 1
        there = command.id in self.orders
        self.orders[command.id] = command.value
        if self.lose_answer:
            self.lose_answer = False
            return self._receipt(command, Outcome.failed, IN_DOUBT)
        return self._receipt(command, Outcome.duplicate if there else Outcome.applied, "")

    def recover(self, command: Command) -> Receipt:
        if self.cut:
            raise Unavailable("B711", "the MES does not answer", why="no route")
        if command.id in self.orders:
            return self._receipt(command, Outcome.applied, "")
        return self._receipt(command, Outcome.failed, IN_DOUBT)

    def _receipt(self, command: Command, outcome: Outcome, code: str) -> Receipt:
        return Receipt(command.id, command.target, outcome, self._clock.now(), code=code)


class Plant:
    """A dispatcher over a PLC and an MES, on the manual clock; `restart` is a new life of the same folder."""

    def __init__(self, folder: Path, limits: dict[str, Limits] | None = None) -> None:
        self.folder = folder
        self.limits = limits or LIMITS
        self.clock = ManualClock(START)
        self.wire, self.book = Wire(), Book(self.clock)
        self.receipts: list[tuple[Command, Receipt]] = []
        self.start()

    def start(self) -> None:
        self.journal = Journal(self.folder / "journal.ndjson")
        self.plc = PlcActuator("opc.tcp://nowhere:4840", clock=self.clock, connection=self.wire)
        self.dispatcher = Dispatcher(
            {"plc": self.plc, "mes": self.book}, self.limits, self.journal, self.clock, self._told
        )
        self.dispatcher.open()

    def _told(self, command: Command, receipt: Receipt) -> None:
        self.receipts.append((command, receipt))

    def restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        self.dispatcher.close()
        self.journal.close()

    def command(self, value: Any = 30.0, **other: Any) -> Command:
        told = {
            "id": f"c-{len(self.receipts)}-{self.dispatcher.waiting()}",
            "target": SPEED,
            "verb": "set",
            "not_after": self.clock.now() + 5 * SECOND,
            **other,
        }
        return Command(value=value, **told)

    def order(self, **other: Any) -> Command:
        hour = self.clock.now() + 3600 * SECOND
        return self.command(
            {"WorkType": "Maintenance"}, target=ORDER, verb="order", **{"not_after": hour, **other}
        )

    def do(self, command: Command, **how: Any) -> Receipt:
        """Submit and step once; the Receipt that came."""
        before = len(self.receipts)
        self.dispatcher.submit(command, **how)
        self.dispatcher.step(0)
        assert len(self.receipts) > before, "no receipt yet"
        return self.receipts[before][1]

    def last(self) -> Receipt:
        return self.receipts[-1][1]

    def settle(self, seconds: float, every: float = 0.1) -> None:
        """Let time pass."""
        for _ in range(round(seconds / every)):
            self.clock.advance(every)
            self.dispatcher.step(0)


def guard() -> Guard:
    return Guard(LIMITS)
