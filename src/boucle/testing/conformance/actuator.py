"""What every Actuator must do; run it on yours: `for check in ACTUATOR_CHECKS: check(bench)`.

A bench makes actuators for one machine (or MES), Commands it takes, and counts what moved. Give each
check a fresh one, or call `check_actuator(make_bench)`, which does.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from boucle.act.lane import IN_DOUBT, Recovers
from boucle.errors import Unavailable
from boucle.event import Command, Outcome
from boucle.ports import Actuator

__all__ = ["ACTUATOR_CHECKS", "ActuatorBench", "check_actuator"]

_PATIENCE = 20.0


class ActuatorBench:
    """One machine, and what stands between it and the actuator."""

    def make(self) -> Actuator:
        """A new actuator for this machine, not yet opened."""
        raise NotImplementedError

    def command(self, number: int) -> Command:
        """A Command the machine takes; each number another one, the same number the same one."""
        raise NotImplementedError

    def forbidden(self) -> Command:
        """A Command the machine refuses."""
        raise NotImplementedError

    def moves(self) -> int:
        """How often the machine was moved from outside so far."""
        raise NotImplementedError

    def outage(self) -> AbstractContextManager[object] | None:
        """Takes the machine away while it is entered; None when it cannot be taken away."""
        return None


def _wait(actuator: Actuator, *, connected: bool) -> None:
    until = time.monotonic() + _PATIENCE
    while (actuator.state() == "connected") is not connected:
        assert time.monotonic() < until, f"still {actuator.state()!r} after {_PATIENCE:g} s"
        time.sleep(0.01)


@contextmanager
def _opened(bench: ActuatorBench) -> Iterator[Actuator]:
    actuator = bench.make()
    try:
        actuator.open()
        _wait(actuator, connected=True)
        yield actuator
    finally:
        actuator.close()


def _is_away(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except Unavailable:
        return True
    return False


def is_an_actuator(bench: ActuatorBench) -> None:
    """It has the methods of the port, and is not connected before it is opened."""
    actuator = bench.make()
    assert isinstance(actuator, Actuator)
    assert actuator.state() != "connected"
    actuator.close()


def does_as_told(bench: ActuatorBench) -> None:
    """A Command is carried out once and read back, and its Receipt names it."""
    with _opened(bench) as actuator:
        command = bench.command(1)
        receipt = actuator.send(command)
        assert receipt.outcome is Outcome.applied, receipt
        assert (receipt.command, receipt.target) == (command.id, command.target)
        assert receipt.code == ""
        assert receipt.read_back is not None
        assert receipt.at > 0
        assert bench.moves() == 1


def the_same_command_moves_once(bench: ActuatorBench) -> None:
    """The same id again is a duplicate, also after another Command."""
    with _opened(bench) as actuator:
        actuator.send(bench.command(1))
        again = actuator.send(bench.command(1))
        assert again.outcome is Outcome.duplicate, again
        actuator.send(bench.command(2))
        assert actuator.send(bench.command(1)).outcome is Outcome.duplicate
        assert bench.moves() == 2


def a_refusal_is_a_receipt(bench: ActuatorBench) -> None:
    """What the machine refuses comes back as a Receipt with code and reason, and nothing moves."""
    with _opened(bench) as actuator:
        receipt = actuator.send(bench.forbidden())
        assert receipt.outcome is Outcome.refused, receipt
        assert receipt.code
        assert receipt.why
        assert bench.moves() == 0


def shows_the_present_value(bench: ActuatorBench) -> None:
    """`read` gives what the machine has, after a Command what it has become."""
    with _opened(bench) as actuator:
        before = actuator.read(bench.command(1).target)
        actuator.send(bench.command(1))
        assert actuator.read(bench.command(1).target) != before


def an_absent_machine_is_unavailable(bench: ActuatorBench) -> None:
    """While the machine is away `send` and `read` raise Unavailable and `state` says so; then all is well."""
    with _opened(bench) as actuator:
        away = bench.outage()
        if away is None:
            return
        with away:
            assert _is_away(lambda: actuator.send(bench.command(1)))
            assert _is_away(lambda: actuator.read(bench.command(1).target))
            _wait(actuator, connected=False)
        assert bench.moves() == 0
        until = time.monotonic() + _PATIENCE
        while _is_away(lambda: actuator.read(bench.command(1).target)):
            assert time.monotonic() < until, f"still {actuator.state()!r} after {_PATIENCE:g} s"
            time.sleep(0.02)
        receipt = actuator.send(bench.command(1))
        assert receipt.outcome is Outcome.applied, receipt
        assert bench.moves() == 1
        assert actuator.state() == "connected"


def an_absent_machine_does_not_hold_up_opening(bench: ActuatorBench) -> None:
    """`open` returns at once when the machine is away, and it connects by itself when it is back."""
    away = bench.outage()
    if away is None:
        return
    actuator = bench.make()
    try:
        with away:
            actuator.open()
            assert _is_away(lambda: actuator.read(bench.command(1).target))
        until = time.monotonic() + _PATIENCE
        while _is_away(lambda: actuator.read(bench.command(1).target)):
            assert time.monotonic() < until, f"still {actuator.state()!r} after {_PATIENCE:g} s"
            time.sleep(0.02)
    finally:
        actuator.close()


def knows_what_became_of_a_command(bench: ActuatorBench) -> None:
    """Where it can recover: applied when the machine has it, in doubt when it has it not."""
    with _opened(bench) as actuator:
        if not isinstance(actuator, Recovers):
            return
        unknown = actuator.recover(bench.command(1))
        assert (unknown.outcome, unknown.code) == (Outcome.failed, IN_DOUBT), unknown
        actuator.send(bench.command(1))
        assert actuator.recover(bench.command(1)).outcome is Outcome.applied
        assert bench.moves() == 1


def closes_twice(bench: ActuatorBench) -> None:
    """`close` may be called twice, and before `open`."""
    actuator = bench.make()
    actuator.close()
    actuator.open()
    actuator.close()
    actuator.close()
    assert actuator.state() != "connected"


ACTUATOR_CHECKS: tuple[Callable[[ActuatorBench], None], ...] = (
    is_an_actuator,
    does_as_told,
    the_same_command_moves_once,
    a_refusal_is_a_receipt,
    shows_the_present_value,
    an_absent_machine_is_unavailable,
    an_absent_machine_does_not_hold_up_opening,
    knows_what_became_of_a_command,
    closes_twice,
)


def check_actuator(make: Callable[[], AbstractContextManager[ActuatorBench]]) -> None:
    """Run every check, each on a bench of its own."""
    for check in ACTUATOR_CHECKS:
        with make() as bench:
            check(bench)
