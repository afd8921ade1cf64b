"""The plant of `bench.loop_latency`, a process of its own: broker, PLC and machines; not a benchmark itself.

Says its addresses as one JSON line on standard output, then does what each line on standard input asks:
`live SECONDS` plays the machines in real time; `recorded SECONDS` does so with signals made before, so that many
machines cost no more than being sent; `flood SECONDS` sends that much recorded waveform as fast as the broker
takes it. Each answers with one JSON line when done.
"""

import argparse
import gc
import json
import logging
import sys
import time
from typing import Any

from boucle.bus.broker import Broker
from boucle.clock import SECOND, SystemClock
from boucle.testing import Gateway, Message, PlcLogic, PlcServer, PressLine, Scenario
from boucle.testing.line import Tick
from boucle.testing.sender import Sender

TRIAL = 5
"""Chunks made to see how long making one takes."""
SCAN_PHASE = 0.7
"""When in a chunk the PLC scans: not in phase with the acquisition units."""


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--machines", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    names = tuple(f"press-{number}" for number in range(1, options.machines + 1))
    scenario = Scenario(machines=names, duration=3600.0)
    clock = SystemClock()
    logic = PlcLogic(names, clock, scenario.speed)
    broker = Broker.start()
    try:
        with PlcServer(logic) as plc:
            say({"broker": f"127.0.0.1:{broker.port}", "kind": broker.kind, "plc": plc.address})
            # A PLC does not stop for a tenth of a second to collect garbage; nor may this one.
            gc.collect()
            gc.freeze()
            gc.disable()
            for line in sys.stdin:
                verb, _, seconds = line.strip().partition(" ")
                serve = {"live": live, "recorded": recorded, "flood": flood}[verb]
                say(serve(scenario, logic, f"127.0.0.1:{broker.port}", float(seconds)))
    finally:
        broker.stop()


def say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)


def live(scenario: Scenario, logic: PlcLogic, broker: str, seconds: float) -> dict[str, Any]:
    """Real time: each chunk when its last sample is due."""
    gateway = Gateway(PressLine(scenario, 5), SystemClock(), broker, logic)
    gateway.start()
    time.sleep(seconds)
    gateway.pause()
    gateway.drain(10)
    sent = gateway.sent
    gateway.stop()
    return {"readings": sent.readings, "process": gateway.process_rows, "behind_s": gateway.behind_s}


def recorded(scenario: Scenario, logic: PlcLogic, broker: str, seconds: float) -> dict[str, Any]:
    """Real time, of signals that were made before: each chunk when its last sample is due, slow values after it."""
    clock, chunks = SystemClock(), round(seconds / scenario.chunk)
    trial, begun = PressLine(scenario, 5, clock.now()), time.monotonic()
    for _ in range(TRIAL):
        trial.messages(trial.step())
    lead = 2 * chunks * (time.monotonic() - begun) / TRIAL
    line = PressLine(scenario, 5, clock.now() + round((1 + lead) * SECOND) // SECOND * SECOND)
    played = []
    for _ in range(chunks):
        tick = line.step()
        played.append((tick.last, line.messages(tick), scanned(tick)))
    gc.collect()
    gc.freeze()
    sender = Sender(broker, "bench-recorded")
    sender.start()
    behind = 0.0
    for last, messages, values in played:
        clock.sleep(max(0, last - clock.now()) / SECOND)
        behind = max(behind, (clock.now() - last) / SECOND)
        sender.give(messages)
        clock.sleep(scenario.chunk * SCAN_PHASE)
        logic.scan(values)
    sender.drain(10)
    sent = sender.sent
    sender.stop()
    rows = sum(len(values) for _, _, values in played)
    return {"readings": sent.readings, "process": rows, "behind_s": behind}


def scanned(tick: Tick) -> list[tuple[int, str, str, float]]:
    """The slow values of a chunk as the PLC takes them."""
    columns = (tick.process.column(name).to_pylist() for name in ("machine", "sensor", "value"))
    return list(zip(tick.process.column("at").cast("int64").to_pylist(), *columns, strict=True))


def flood(scenario: Scenario, logic: PlcLogic, broker: str, seconds: float) -> dict[str, Any]:
    """As fast as the broker takes it; the slow values are scanned once, so that the speed is known."""
    line = PressLine(scenario, 6, SystemClock().now())
    messages: list[Message] = []
    for chunk in range(round(seconds / scenario.chunk)):
        tick = line.step()
        if chunk == 0:
            logic.scan(scanned(tick))
        messages += line.messages(tick)
    sender = Sender(broker, "bench-flood", limit=len(messages) + 1)
    sender.start()
    begun = time.time()
    sender.give(messages)
    sender.drain(120)
    sent = sender.sent
    sender.stop()
    return {"readings": sent.readings, "begun": begun, "seconds": time.time() - begun}


if __name__ == "__main__":
    main()
