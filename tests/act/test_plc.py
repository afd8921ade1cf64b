"""The PLC's slowness, bad values and refusals, seen through the actuator."""

import pytest

from boucle.act.plc import PlcActuator
from boucle.bus.opcua import Value
from boucle.clock import SECOND
from boucle.errors import BoucleError, Unavailable
from boucle.event import Command, Outcome
from boucle.testing.clock import ManualClock
from tests.act.plant import SPEED, START, Wire, guard


class SlowWire(Wire):
    """Shows a written value only after some reads, as a PLC does after its next scan."""

    def __init__(self, scans: int) -> None:
        super().__init__()
        self.left = scans
        self.reads: list[list[str]] = []

    def read(self, nodes: list[str]) -> list[Value]:
        self.reads.append(nodes)
        if self.writes:
            self.left -= 1
            self.stuck = self.left > 0
            if not self.stuck:
                self.values[self.writes[-1][0]] = self.writes[-1][1]
        return super().read(nodes)


def actuator(wire: Wire, **settings: float) -> PlcActuator:
    clock = ManualClock(START)
    return PlcActuator("opc.tcp://x:1", guard=guard(), clock=clock, connection=wire, **settings)  # type: ignore[arg-type]


def command(value: float = 30.0) -> Command:
    return Command("c", SPEED, "set", value, START + 60 * SECOND)


def test_everything_is_asked_in_one_read_right_before_the_write() -> None:
    wire = SlowWire(0)
    assert actuator(wire).send(command()).outcome is Outcome.applied
    assert wire.reads == [
        ["press-1.speed_setpoint", "press-1.interlock", "press-1.emergency_stop", "press-1.mode"],
        ["press-1.speed_setpoint"],
    ]


def test_a_slow_scan_is_waited_for() -> None:
    wire = SlowWire(5)
    wire.stuck = True
    assert actuator(wire, settle=0.5).send(command()).outcome is Outcome.applied
    wire = SlowWire(500)
    wire.stuck = True
    receipt = actuator(wire, settle=0.5).send(command())
    assert (receipt.outcome, receipt.code, receipt.read_back) == (Outcome.failed, "read_back", 36.0)


def test_a_value_within_the_tolerance_was_taken() -> None:
    wire = Wire()
    wire.before_write = lambda: setattr(wire, "stuck", True)
    plc = actuator(wire, settle=0)
    wire.values["press-1.speed_setpoint"] = 30.04
    assert plc.send(command(30.0)).outcome is Outcome.applied
    wire.values["press-1.speed_setpoint"] = 30.06
    assert plc.send(Command("d", SPEED, "set", 30.0, START + SECOND)).code == "read_back"


def test_a_bad_value_cannot_be_known() -> None:
    wire = Wire()
    wire.status["press-1.speed_setpoint"] = "BadSensorFailure"
    with pytest.raises(Unavailable, match="BadSensorFailure"):
        actuator(wire).read(SPEED)
    assert actuator(wire).send(command()).code == "unreadable"


def test_without_a_guard_everything_is_refused() -> None:
    wire = Wire()
    plc = PlcActuator("opc.tcp://x:1", clock=ManualClock(START), connection=wire)
    assert plc.send(command()).code == "unknown_target"
    assert wire.writes == []


def test_a_node_template_that_cannot_be_filled_in_is_said_at_once() -> None:
    with pytest.raises(BoucleError, match="B207"):
        PlcActuator("opc.tcp://x:1", nodes="{machine}.{sensor}")
