"""How long the loop takes from the last sample to the PLC, and how many samples a second it carries.

The plant (mosquitto, an OPC UA server, three presses of three axes at 10 kHz) is a process of its own and
speaks MQTT and OPC UA over loopback sockets. The press product runs unchanged but for its rules: contract,
durable log, edge FFT, features, ONNX model, drift, policy, guard with interlocks read, journal on disk,
write, read back. All nine channels close their window at the same instant, once a second.

`loop_p50_ms`, `loop_p99_ms`: last sample of the deciding block → value on the PLC, read back, with a command
to the second of the three presses at each of its verdicts. `loop_burst_*`: the same with a command to all
three at the same instant, which one PLC connection carries out one after the other. `loop_63_channels_*`: with 21
presses, of which the eleventh is commanded, on signals made beforehand; `plant_behind_s` says how far the plant itself
fell behind its clock, and where that is not near 0 the figure is of two programs that share too few processors.
`loop_max_samples_per_s`: recorded waveforms sent as fast as the broker takes them, until every reading is
decided upon and durable; zero readings lost, or the benchmark fails.
The peer is the least that could be done by hand on the same sockets: one MQTT subscriber that takes the
r.m.s. of each message with NumPy and, once a second and machine, writes and reads back one OPC UA value.
No contract, log, spectrum, model, guard or journal.
"""

import json
import logging
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from bench.figures import Figure, figure, options, percentile, publish
from boucle.address import parse_address
from boucle.bus.mqtt import MqttSource
from boucle.bus.opcua import OpcUaConnection
from boucle.clock import SystemClock
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.lines import read_documents
from boucle.product.project import Project, load_project

PRESS = Path(__file__).resolve().parent.parent / "examples" / "press"
SAMPLES = 1000  # of a reading: 100 ms at 10 kHz
WIDE = 21  # machines of three channels: 63 × 10 kHz


class Plant:
    """The plant's process, and the pipe to ask it."""

    def __init__(self, machines: int) -> None:
        words = [sys.executable, "-m", "bench.plant", "--machines", str(machines)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told = self.answer()
        self.machines = [f"press-{number}" for number in range(1, machines + 1)]

    def ask(self, verb: str, seconds: float) -> None:
        """Begin; the answer comes later."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{verb} {seconds}\n")
        self._process.stdin.flush()

    def done(self) -> bool:
        """Whether the answer has come."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def product(folder: Path, plant: Plant, commanded: list[str]) -> Project:
    """The press product with one rule: a command at every verdict on the `commanded` machines."""
    documents, problems = read_documents(PRESS / "product.yaml")
    assert not problems, problems
    data, contract, loop = (document.value for document in documents)
    for item in contract["schema"]:
        for column in item["properties"]:
            if column["name"] == "machine" and "quality" in column:
                column["quality"][0]["arguments"]["validValues"] = plant.machines
    loop["sources"]["process"]["with"]["machines"] = plant.machines
    loop["sources"]["vibration"]["future"] = "1h"  # a flood runs ahead of the clock
    limits = loop["actuators"]["plc"]["limits"]["speed_setpoint"]
    limits["rate"] = {"count": 1000, "per": "1s"}
    command = {
        "target": "plc/{machine}/speed_setpoint",
        "verb": "set",
        "value": {"of": "setpoint", "times": 1.0, "at_least": 24, "at_most": 40},
        "expires": "5s",
    }
    loop["rules"] = [
        {
            "id": "each",
            "on": "verdicts",
            "when": {"machine": commanded},
            "once": "row",
            "event": {"kind": "each", "severity": "info", "says": {"en": "each", "fr": "chaque"}},
            "commands": [command],
        }
    ]
    shutil.copytree(PRESS, folder, dirs_exist_ok=True)
    text = yaml.safe_dump_all([data, contract, loop], sort_keys=False, allow_unicode=True)
    (folder / "product.yaml").write_text(text, encoding="utf-8")
    overrides = {
        "addresses.broker": plant.told["broker"],
        "addresses.plc": plant.told["plc"],
        "addresses.mes": "127.0.0.1:9",
    }
    return load_project(folder, None, overrides)


def measure_live(
    folder: Path, plant: Plant, seconds: float, commanded: list[str], how: str = "live"
) -> dict[str, Any]:
    """Latencies of the loop in real time, in milliseconds; the first five seconds are for warming up."""
    took: list[float] = []

    def listen(told: Any) -> None:
        if isinstance(told, tuple) and told[1].read_back is not None and told[1].outcome == "applied":
            took.append(told[1].latency_ms)

    project = product(folder / "product", plant, commanded)
    loop = Loop(build_plan(project), SystemClock(), folder=folder / "run", listener=listen)
    loop.open()
    loop.start()
    try:
        plant.ask(how, seconds)
        sent = plant.answer()
        loop.drain()
        view = loop.picture.fresh()
    finally:
        loop.stop()
    lost = sent["readings"] - loop.intakes["vibration"].accounting.stored
    assert lost == 0, f"{lost} readings were lost"
    assert view.accounting.balanced(), view.accounting
    return {"took": took[5 * len(commanded) :], "decision": view.decision_ms, "behind_s": sent["behind_s"]}


def measure_bare(plant: Plant, seconds: float, commanded: list[str], how: str = "live") -> list[float]:
    """The same sockets by hand: r.m.s. of each message, one write and read-back a second and commanded machine."""
    clock = SystemClock()
    address = parse_address(f"mqtt://{plant.told['broker']}/press/+/vibration?qos=1", "source")
    source = MqttSource(address, "bare", client_id="bench-bare", clock=clock)
    plc = OpcUaConnection(f"opc.tcp://{plant.told['plc']}", ns_uri="urn:boucle:press-line")
    source.open()
    plc.open()
    took: list[float] = []
    plant.ask(how, seconds)
    while not plant.done():
        block = source.poll(0.05)
        if block is None:
            continue
        for payload in block.rows.column("payload").to_pylist():
            rows = pa.ipc.open_stream(payload).read_next_batch()
            samples = rows.column("samples").flatten().to_numpy()
            float(np.sqrt(np.mean(samples * samples)))
            at = rows.column("at").cast(pa.int64())[0].as_py() + SAMPLES * 100_000
            machine = rows.column("machine")[0].as_py()
            if at % 1_000_000_000 < 100_000_000 and machine in commanded:
                node = f"{machine}.speed_setpoint"
                plc.write(node, 40.0)
                assert plc.read([node])[0].value == 40.0
                took.append((clock.now() - at) / 1e6)
        source.commit(block.position)
    plant.answer()
    source.close()
    plc.close()
    return took[3:]


def measure_rate(folder: Path, machines: int, seconds: float) -> float:
    """Samples a second, from the first one sent until every reading is decided upon and durable."""
    plant = Plant(machines)
    project = product(folder / "product", plant, ["nobody"])
    loop = Loop(build_plan(project), SystemClock(), folder=folder / "run")
    loop.open()
    loop.start()
    try:
        plant.ask("flood", seconds)
        sent = plant.answer()
        intake = loop.intakes["vibration"]
        until = time.time() + 120
        while (intake.accounting.stored < sent["readings"] or not loop.backlog.idle) and time.time() < until:
            time.sleep(0.01)
        ended = time.time()
    finally:
        loop.stop()
        plant.close()
    lost = sent["readings"] - intake.accounting.stored
    assert lost == 0, f"{lost} readings were lost"
    return float(sent["readings"] * SAMPLES / (ended - sent["begun"]))


def main() -> None:
    """Measure and tell."""
    asked = options(__doc__)
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="boucle-bench-") as name:
        folder = Path(name)
        plant = Plant(3)
        bare = measure_bare(plant, 8 if asked.quick else 30, plant.machines)
        one = measure_live(folder / "one", plant, 17 if asked.quick else 200, ["press-2"])
        burst = measure_live(folder / "burst", plant, 11 if asked.quick else 45, plant.machines)
        plant.close()
        plant = Plant(WIDE)
        wide_bare = measure_bare(plant, 8 if asked.quick else 30, ["press-11"], "recorded")
        wide = measure_live(folder / "wide", plant, 15 if asked.quick else 60, ["press-11"], "recorded")
        plant.close()
        runs, seconds = (1, 5) if asked.quick else (3, 20)
        rates = [measure_rate(folder / str(number), 8, seconds) for number in range(runs)]
    took, hard = one["took"], burst["took"]
    figures: list[Figure] = [
        figure("loop_p50_ms", percentile(took, 0.5), "ms", peer="by hand, no checks, p50",
               peer_value=percentile(bare, 0.5)),
        figure("loop_p99_ms", percentile(took, 0.99), "ms", goal="<= 50", peer="by hand, no checks, p99",
               peer_value=percentile(bare, 0.99)),
        figure("loop_commands", len(took), "commands"),
        figure("decision_p50_ms", one["decision"].p50, "ms"),
        figure("decision_p99_ms", one["decision"].p99, "ms"),
        figure("loop_burst_p50_ms", percentile(hard, 0.5), "ms"),
        figure("loop_burst_p99_ms", percentile(hard, 0.99), "ms"),
        figure(f"loop_{3 * WIDE}_channels_p50_ms", percentile(wide["took"], 0.5), "ms",
               peer="by hand, no checks, p50", peer_value=percentile(wide_bare, 0.5)),
        figure(f"loop_{3 * WIDE}_channels_p99_ms", percentile(wide["took"], 0.99), "ms", goal="<= 10",
               peer="by hand, no checks, p99", peer_value=percentile(wide_bare, 0.99)),
        figure(f"loop_{3 * WIDE}_channels_plant_behind_s", wide["behind_s"], "s"),
        figure("loop_max_samples_per_s", sorted(rates)[len(rates) // 2], "samples/s", goal=">= 90000",
               peer="the live rate, 3 × 3 × 10 kHz", peer_value=90_000),
    ]  # fmt: skip
    publish(figures, asked)


if __name__ == "__main__":
    main()
