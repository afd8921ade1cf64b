"""A process with a dispatcher that is killed at a chosen moment: `python -m tests.act.victim …`."""

import os
import signal
import sys
import time
from pathlib import Path

from boucle.act.dispatch import Dispatcher
from boucle.act.guard import read_limits
from boucle.act.journal import Journal
from boucle.act.plc import PlcActuator
from boucle.bus.opcua import OpcUaConnection, Value
from boucle.clock import SystemClock
from boucle.event import Command, Receipt
from tests.act.plant import SPEED

LIMITS = {
    "plc/speed_setpoint": read_limits(
        {"min": 24, "max": 40, "max_step": 16, "interlock": ["interlock"], "tolerance": 0.001}
    )
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Fatal(OpcUaConnection):
    """A connection that kills its process before or after a write."""

    moment = ""

    def write(self, node: str, value: float | bool | str) -> Value | None:
        if self.moment == "before the write":
            die()
        told = super().write(node, value)
        if self.moment == "after the write":
            die()
        return told

    def read(self, nodes: object) -> list[Value]:
        values = super().read(nodes)  # type: ignore[arg-type]
        if self.moment == "before the intent":
            die()
        return values


class DoomedJournal(Journal):
    moment = ""

    def intend(self, command: Command, at: int) -> None:
        if self.moment == "before the intent":
            die()
        super().intend(command, at)
        if self.moment == "after the intent":
            die()

    def settle(self, command: Command, receipt: Receipt) -> bool:
        if self.moment == "before the receipt":
            die()
        done = super().settle(command, receipt)
        if self.moment == "after the receipt":
            die()
        return done


def main(url: str, folder: str, moment: str, count: str, not_after: str) -> None:
    clock = SystemClock()
    journal = DoomedJournal(Path(folder) / "journal.ndjson")
    line = Fatal(url, ns_uri="urn:boucle:press-line", clock=clock)
    plc = PlcActuator(url, clock=clock, connection=line)
    dispatcher = Dispatcher({"plc": plc}, LIMITS, journal, clock, lambda *_: None)
    dispatcher.open()
    while plc.state() != "connected":
        time.sleep(0.005)
    line.moment = journal.moment = moment
    for number in range(int(count)):
        value = 25.0 + 0.1 * number
        dispatcher.submit(Command(f"c{number}", SPEED, "set", value, not_after=int(not_after)))
        while dispatcher.waiting():
            dispatcher.step(0.01)
    dispatcher.close()
    journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
