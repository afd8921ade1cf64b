"""The simulated plant of `boucle demo`: broker, PLC, MES and the machines, on free loopback ports."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from boucle.bus.broker import Broker
from boucle.cli.screen import Screen
from boucle.clock import Clock, ScaledClock, SystemClock
from boucle.testing import Gateway, MesServer, OrderBook, PlcLogic, PlcServer, PressLine, Scenario

__all__ = ["Plant"]


class Plant:
    """Everything a press line has around the loop, speaking the real protocols."""

    def __init__(self, scenario: Scenario, seed: int, clock: Clock) -> None:
        self.scenario, self.clock = scenario, clock
        self._line = PressLine(scenario, seed)
        self._book = OrderBook(clock)
        self._logic = PlcLogic(self._line.machines, clock, scenario.speed)
        self.addresses: dict[str, str] = {}
        self._gateway: Gateway | None = None

    @classmethod
    @contextmanager
    def started(cls, scenario: Scenario, seed: int, speed: float, screen: Screen) -> "Iterator[Plant]":
        """Broker, PLC and MES answer; the machines stand still until `play`."""
        plant = cls(scenario, seed, SystemClock() if speed == 1 else ScaledClock(speed))
        with ExitStack() as stack:
            broker = Broker.start(
                keep=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="boucle-broker-")))
            )
            stack.callback(broker.stop)
            plc = stack.enter_context(PlcServer(plant._logic))
            mes = stack.enter_context(MesServer(plant._book))
            plant.addresses = {
                "addresses.broker": f"127.0.0.1:{broker.port}",
                "addresses.plc": plc.address,
                "addresses.mes": mes.address,
            }
            machines = len(plant._line.machines)
            where = f"PLC {plc.url}, MES {mes.url}, {machines} machines"
            screen.say(
                f"Broker {broker.kind} on {broker.port}, {where}.",
                f"Broker {broker.kind} : {broker.port}, {where}.",
            )
            plant._gateway = Gateway(plant._line, plant.clock, f"127.0.0.1:{broker.port}", plant._logic)
            stack.callback(plant._gateway.stop)
            yield plant

    def play(self) -> None:
        """The machines begin to run."""
        assert self._gateway is not None
        self._gateway.start()

    def pause(self) -> None:
        """The machines stop; what they measured is still delivered."""
        assert self._gateway is not None
        self._gateway.pause()
        self._gateway.drain(5)

    def truth(self) -> list[dict[str, Any]]:
        """What the simulator did to whom, and when."""
        return self._line.truth()

    def orders(self) -> list[dict[str, Any]]:
        """The job orders the MES holds."""
        return self._book.all()

    def sent(self) -> dict[str, Any]:
        """How much the machines sent: what the loop's accounting has to add up to."""
        assert self._gateway is not None
        sent = self._gateway.sent
        return {name: getattr(sent, name) for name in sent.__struct_fields__} | {
            "behind_s": round(self._gateway.behind_s, 3)
        }
