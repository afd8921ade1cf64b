"""The same checks for the fakes, for our own actuators over a pretended wire, and over real sockets."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from boucle.act.mes import MesActuator
from boucle.act.plc import PlcActuator
from boucle.clock import SECOND, SystemClock
from boucle.event import Command
from boucle.ports import Actuator
from boucle.testing.clock import ManualClock
from boucle.testing.conformance.actuator import ACTUATOR_CHECKS, ActuatorBench, check_actuator
from boucle.testing.mes import FakeMes, OrderBook
from boucle.testing.messerver import MesServer
from boucle.testing.plc import FakePlc, PlcLogic, Tag
from boucle.testing.plcserver import NAMESPACE, PlcServer
from tests.act.plant import ORDER, SPEED, START, Book, Wire, guard


def set_point(number: int, now: int = START) -> Command:
    return Command(f"c/{number}", SPEED, "set", 36.0 - number, now + 60 * SECOND)


def job_order(number: int, **change: Any) -> Command:
    value = {"WorkType": "Maintenance", "Description": "outer race", "HierarchyScope": "press-1", "Priority": 2,
             "Parameters": {"Health": 0.5, "Hours": None}, **change}  # fmt: skip
    return Command(f"wear/press-1/{number}", ORDER, "order", value, START + 60 * SECOND)


class PressBench(ActuatorBench):
    """A PlcLogic; `moves` counts the changes of its set-point."""

    def __init__(self) -> None:
        self.now = SystemClock().now()
        self.logic = PlcLogic(["press-1"], speed=36.0)
        self.changes = 0
        self.logic.listen(self._changed)

    def _changed(self, tags: Any) -> None:
        self.changes += sum(isinstance(tag, Tag) and tag.signal == "speed_setpoint" for tag in tags)

    def command(self, number: int) -> Command:
        return set_point(number, self.now)

    def forbidden(self) -> Command:
        return Command("c/forbidden", SPEED, "set", 99.0, self.now + 60 * SECOND)

    def moves(self) -> int:
        return self.changes


class FakePlcBench(PressBench):
    def __init__(self) -> None:
        super().__init__()
        self.fakes: list[FakePlc] = []

    def make(self) -> Actuator:
        self.fakes.append(FakePlc(self.logic))
        return self.fakes[-1]

    @contextmanager
    def outage(self) -> Iterator[None]:
        for fake in self.fakes:
            fake.reachable = False
        before, self.make = self.make, self._away  # type: ignore[method-assign]
        yield
        self.make = before  # type: ignore[method-assign]
        for fake in self.fakes:
            fake.reachable = True

    def _away(self) -> Actuator:
        self.fakes.append(FakePlc(self.logic))
        self.fakes[-1].reachable = False
        return self.fakes[-1]


class PlcServerBench(PressBench):
    def __init__(self) -> None:
        super().__init__()
        self.server = PlcServer(self.logic)
        self.server.start()

    def make(self) -> Actuator:
        return PlcActuator(self.server.url, guard=guard(), ns_uri=NAMESPACE, settle="100ms")

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.server.stop()
        yield
        self.server.start()


class WireBench(ActuatorBench):
    def __init__(self) -> None:
        self.wire = Wire()

    def make(self) -> Actuator:
        opened = _Opened(self.wire)
        return PlcActuator("opc.tcp://x:1", guard=guard(), clock=ManualClock(START), connection=opened)

    def command(self, number: int) -> Command:
        return set_point(number)

    def forbidden(self) -> Command:
        return Command("c/forbidden", SPEED, "set", 99.0, START + 60 * SECOND)

    def moves(self) -> int:
        return len(self.wire.writes)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.wire.cut = True
        yield
        self.wire.cut = False


class _Opened(Wire):
    """A wire that is not connected before it is opened."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._open = wire, False

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        self._open = False

    def state(self) -> str:
        return self._wire.state() if self._open else "not opened"

    def read(self, nodes: list[str]) -> Any:
        return self._wire.read(nodes)

    def write(self, node: str, value: float) -> None:
        self._wire.write(node, value)


class OrdersBench(ActuatorBench):
    def __init__(self) -> None:
        self.book = OrderBook()

    def command(self, number: int) -> Command:
        return job_order(number)

    def forbidden(self) -> Command:
        return job_order(9, WorkType="Holiday")

    def moves(self) -> int:
        return len(self.book.all())


class FakeMesBench(OrdersBench):
    def make(self) -> Actuator:
        return FakeMes(self.book)


class MesServerBench(OrdersBench):
    def __init__(self) -> None:
        super().__init__()
        self.server = MesServer(self.book)
        self.server.start()

    def make(self) -> Actuator:
        return MesActuator(f"{self.server.url}/job-orders")

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.server.stop()
        yield
        self.server.start()


BENCHES: dict[str, Callable[[], Any]] = {
    "fake plc": FakePlcBench,
    "fake mes": FakeMesBench,
    "plc on a pretended wire": WireBench,
    "plc over opc ua": PlcServerBench,
    "mes over http": MesServerBench,
}


@contextmanager
def bench(name: str) -> Iterator[ActuatorBench]:
    made = BENCHES[name]()
    try:
        yield made
    finally:
        if isinstance(made, PlcServerBench):
            made.server.close()
        elif isinstance(made, MesServerBench):
            made.server.stop()


@pytest.mark.parametrize("name", BENCHES)
@pytest.mark.parametrize("check", ACTUATOR_CHECKS, ids=lambda check: check.__name__)
def test_actuator(check: Callable[[ActuatorBench], None], name: str) -> None:
    with bench(name) as made:
        check(made)


def test_the_whole_suite_in_one_call() -> None:
    def make() -> AbstractContextManager[ActuatorBench]:
        return bench("fake plc")

    check_actuator(make)


def test_the_suite_finds_an_actuator_that_moves_twice() -> None:
    class Twice(FakePlc):
        def send(self, command: Command) -> Any:
            self._done.clear()
            return super().send(command)

    class TwiceBench(FakePlcBench):
        def make(self) -> Actuator:
            return Twice(self.logic)

    with pytest.raises(AssertionError):
        next(check for check in ACTUATOR_CHECKS if check.__name__ == "the_same_command_moves_once")(
            TwiceBench()
        )


def test_a_book_of_the_tests_is_an_actuator_too() -> None:
    assert isinstance(Book(ManualClock(START)), Actuator)
