"""The press plant over real sockets: broker, PLC, MES and machines, and a loop in threads of its own.

Every server has its port from the start, so that a test may leave one out, start it late, or pull its cable.
"""

import json
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

import paho.mqtt.client as paho
from msgspec.structs import replace
from paho.mqtt.enums import CallbackAPIVersion

from boucle.bus.broker import Broker
from boucle.clock import Clock, ScaledClock, SystemClock
from boucle.event import Command, Event, Receipt
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.project import load_project
from boucle.testing.gateway import Gateway
from boucle.testing.line import PressLine
from boucle.testing.mes import OrderBook
from boucle.testing.messerver import MesServer
from boucle.testing.plc import PlcLogic
from boucle.testing.plcserver import PlcServer
from boucle.testing.scenario import Scenario, load_scenario

PRESS = Path("examples/press")
PATIENCE = 60.0
"""Seconds after which a condition that has not come true never will."""

Kind = Literal["mosquitto", "amqtt"]


def short_story(seconds: float = 36.0) -> Scenario:
    """The default story told faster: press 2 wears and press 3's sensor loses gain, both from second 14 on."""
    scenario = load_scenario(PRESS / "scenario.yaml")
    wear, gain = scenario.faults
    faults = (
        replace(wear, onset=14.0, severity=0.1, growth=1.5),
        replace(gain, onset=14.0, over=3.0),
    )
    return replace(scenario, duration=seconds, faults=faults)


def quiet_line() -> Scenario:
    """Sound presses and good input."""
    scenario = load_scenario(PRESS / "scenario.yaml")
    return replace(scenario, faults=(), disturbances=())


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    """Wait until something is true; `what` says what never happened."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, f"within {patience:.0f} s never: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SocketPlant:
    """A whole plant; `with SocketPlant(…)` starts what `start` names, and the loop; `play` the machines."""

    def __init__(
        self,
        folder: Path,
        scenario: Scenario | None = None,
        *,
        seed: int = 1,
        speed: float = 1.0,
        kind: Kind = "mosquitto",
        start: Iterable[str] = ("broker", "plc", "mes"),
        loop: bool = True,
    ) -> None:
        self.scenario = scenario or quiet_line()
        self.folder, self.kind = folder / "run", kind
        self.clock: Clock = SystemClock() if speed == 1 else ScaledClock(speed)
        self.line = PressLine(self.scenario, seed)
        self.logic = PlcLogic(self.line.machines, self.clock, self.scenario.speed)
        self.orders = OrderBook(self.clock)
        self.plc, self.mes = PlcServer(self.logic, free_port()), MesServer(self.orders, free_port())
        self.broker: Broker | None = None
        self.broker_port = free_port()
        self.gateway = Gateway(self.line, self.clock, f"127.0.0.1:{self.broker_port}", self.logic)
        self.told: list[Event | tuple[Command, Receipt]] = []
        self._keep = folder / "broker"
        self._start, self._with_loop = set(start), loop
        self._stack = ExitStack()
        self.loop: Loop

    @property
    def addresses(self) -> dict[str, str]:
        """The settings that lead a loop here."""
        return {
            "addresses.broker": f"127.0.0.1:{self.broker_port}",
            "addresses.plc": self.plc.address,
            "addresses.mes": self.mes.address,
            "run.folder": str(self.folder),
            "run.lake_every": "2s",
        }

    def __enter__(self) -> Self:
        self._stack.callback(self.stop_broker)
        self._stack.callback(self.plc.close)
        self._stack.callback(self.mes.stop)
        try:
            if "broker" in self._start:
                self.start_broker()
            if "plc" in self._start:
                self.plc.start()
            if "mes" in self._start:
                self.mes.start()
            self._stack.callback(self.gateway.stop)
            if self._with_loop:
                self.start_loop()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def start_broker(self) -> None:
        """Start the broker on its port; mosquitto finds the messages and sessions it kept."""
        self._keep.mkdir(exist_ok=True)
        keep = self._keep if self.kind == "mosquitto" else None
        self.broker = Broker.start(self.broker_port, kind=self.kind, keep=keep)

    def stop_broker(self) -> None:
        if self.broker is not None:
            self.broker.stop()
            self.broker = None

    def start_loop(self) -> None:
        project = load_project(PRESS, None, self.addresses)
        self.loop = Loop(build_plan(project), self.clock, listener=self.told.append)
        self._stack.callback(self.loop.stop)
        self.loop.open()
        self.loop.start()

    def play(self) -> None:
        """The machines begin to run, once the loop listens wherever it can."""
        if self.broker is not None and self._with_loop:
            until(lambda: self.source("vibration") == "connected", "the loop listens to the broker")
        self.gateway.start()

    def run_until(self, second: float) -> None:
        """Let the story go on to this second of simulated time."""
        until(lambda: self.line.elapsed >= second, f"second {second} of the story", PATIENCE + second)
        assert self.gateway.failure is None
        assert self.loop.failure is None

    def finish(self) -> None:
        """Stop the machines, let everything they measured arrive, and stop the loop in order."""
        self.gateway.pause()
        assert self.gateway.drain(PATIENCE), self.gateway.state()
        until(lambda: self.received() >= self.gateway.sent.readings, "every reading sent was received")
        self.loop.drain(PATIENCE)
        self.loop.stop()
        assert self.loop.failure is None

    def received(self) -> int:
        """Readings of vibration the loop has seen."""
        return self.loop.intakes["vibration"].accounting.received

    def source(self, name: str) -> str:
        return str(self.loop.intakes[name].source.state())

    def events(self, kind: str | None = None) -> list[Event]:
        return [one for one in self.told if isinstance(one, Event) and kind in (None, one.kind)]

    def said(self, kind: str, subject: str) -> bool:
        return any(event.subject == subject for event in self.events(kind))

    def receipts(self, prefix: str = "") -> list[tuple[Command, Receipt]]:
        return [one for one in self.told if isinstance(one, tuple) and one[0].target.startswith(prefix)]


class ControlDesk:
    """Somebody who sends commands to the loop over MQTT, and reads what became of them."""

    def __init__(self, plant: SocketPlant) -> None:
        self._plant = plant
        self.receipts: dict[str, list[dict[str, Any]]] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._message
        self._subscribed = False

    def __enter__(self) -> Self:
        self._client.on_subscribe = self._listening
        self._client.connect("127.0.0.1", self._plant.broker_port)
        self._client.subscribe("press/receipts", 1)
        self._client.loop_start()
        until(lambda: self._subscribed, "the desk listens")
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # paho closes its own pair of sockets when it is deleted, which a circle would put off.
        self._client.on_message = self._client.on_subscribe = None

    def _listening(self, *_: object) -> None:
        self._subscribed = True

    def _message(self, client: object, data: object, message: Any) -> None:
        del client, data
        receipt = json.loads(message.payload)
        self.receipts.setdefault(receipt["command"], []).append(receipt)

    def order(
        self,
        name: str,
        target: str,
        value: Any,
        seconds: float = 30.0,
        *,
        verb: str = "set",
        retain: bool = False,
    ) -> None:
        """Send a command that ends in `seconds` of the plant's clock."""
        not_after = self._plant.clock.now() + int(seconds * 1e9)
        command = {"id": name, "target": target, "verb": verb, "value": value, "not_after": not_after}
        self.send(json.dumps(command).encode(), retain=retain)

    def send(self, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish("press/commands", payload, 1, retain=retain).wait_for_publish(10)

    def receipt(self, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th receipt of a command, waited for."""
        until(lambda: len(self.receipts.get(name, ())) >= count, f"receipt {count} of {name}")
        return self.receipts[name][count - 1]
