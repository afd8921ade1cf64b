"""Shipped with boucle to test with: a simulated press line, a PLC, an MES, a clock by hand.

Everything is imported when it is first asked for, so that the clock does not cost an OPC UA stack.

>>> from boucle.testing import ManualClock
>>> clock = ManualClock(0)
>>> clock.sleep(2)
>>> clock.now()
2000000000
"""

from typing import TYPE_CHECKING

from boucle.lazily import lazily

if TYPE_CHECKING:
    from boucle.testing.clock import ManualClock
    from boucle.testing.disturbance import Injection, Message
    from boucle.testing.gateway import Gateway
    from boucle.testing.line import PressLine, Tick
    from boucle.testing.machine import Machine
    from boucle.testing.mes import FakeMes, OrderBook
    from boucle.testing.messerver import MesServer
    from boucle.testing.plc import FakePlc, PlcLogic
    from boucle.testing.plcserver import PlcServer
    from boucle.testing.scenario import Disturbance, Fault, Operation, Scenario, load_scenario

__all__ = [
    "Disturbance",
    "FakeMes",
    "FakePlc",
    "Fault",
    "Gateway",
    "Injection",
    "Machine",
    "ManualClock",
    "MesServer",
    "Message",
    "Operation",
    "OrderBook",
    "PlcLogic",
    "PlcServer",
    "PressLine",
    "Scenario",
    "Tick",
    "load_scenario",
]

_FILES = {
    "Disturbance": "scenario",
    "FakeMes": "mes",
    "FakePlc": "plc",
    "Fault": "scenario",
    "Gateway": "gateway",
    "Injection": "disturbance",
    "Machine": "machine",
    "ManualClock": "clock",
    "MesServer": "messerver",
    "Message": "disturbance",
    "Operation": "scenario",
    "OrderBook": "mes",
    "PlcLogic": "plc",
    "PlcServer": "plcserver",
    "PressLine": "line",
    "Scenario": "scenario",
    "Tick": "line",
    "load_scenario": "scenario",
}


__getattr__ = lazily(__name__, _FILES)


def __dir__() -> list[str]:
    return sorted(__all__)
