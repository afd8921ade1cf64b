"""A product whose model renews itself, as `boucle run` beside a broker, and the payments that come to it."""

import datetime as dt
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from boucle.block import as_dicts
from boucle.bus.broker import Broker
from boucle.bus.log import EventLog
from boucle.lake.whole import Lake
from boucle.models.algorithms import fit, to_onnx, trees
from boucle.models.file import Column, ModelFile
from boucle.models.registry import Change, Registry, registry_of
from tests.loop.plant import until

__all__ = ["Concept", "Renewed"]

PRODUCT = Path(__file__).parent / "renewed_product"
_STEP = 100_000_000
"""Nanoseconds between two payments."""
_LATER = 2_000_000_000
"""Between a payment and what became of it."""
_AT_ONCE = 20

Concept = Callable[[float, float], bool]
"""What is fraud now."""


class Renewed:
    """The running product; every row of `send` is a payment whose label comes after it."""

    def __init__(self, folder: Path, concept: Concept) -> None:
        self.folder = folder / "product"
        self.run = folder / "run"
        self.sent = 0
        self._chance = random.Random(1)
        shutil.copytree(PRODUCT, self.folder)
        self.registry: Registry = registry_of(self.folder)
        self.registry.add(*_first(concept), by="tests")
        self.registry.promote("fraud", 1, by="tests")
        self._broker = Broker.start()
        self._begun = time.time_ns() - 600 * 10**9
        variables = {
            "BOUCLE_ADDRESSES_BROKER": f"127.0.0.1:{self._broker.port}", "BOUCLE_RUN_FOLDER": str(self.run),
        }  # fmt: skip
        self._environment = {**os.environ, **variables}
        self._client = paho.Client(CallbackAPIVersion.VERSION2)

    def __enter__(self) -> Self:
        self.start()
        self._client.connect("127.0.0.1", self._broker.port)
        self._client.loop_start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()
        self._client.disconnect()
        self._client.loop_stop()
        self._broker.stop()

    def start(self) -> None:
        """Run it, and wait until it listens."""
        words = [
            sys.executable,
            "-m",
            "boucle.cli.main",
            "run",
            str(self.folder),
            "--headless",
            "--json",
            "--lang",
            "en",
        ]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, env=self._environment, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stderr is not None
        while "runs" not in (line := self.process.stderr.readline()):
            assert line, self.process.communicate()

    def end(self) -> None:
        """Ctrl-C; everything it took is in its tables then."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, said
        assert "Traceback" not in said, said

    def send(self, concept: Concept, rows: int) -> None:
        """Payments, and their labels after them."""
        for _ in range(rows // _AT_ONCE):
            payments, labels = [], []
            for number in range(self.sent, self.sent + _AT_ONCE):
                a, b, at = self._chance.random(), self._chance.random(), self._begun + number * _STEP
                payments.append(
                    {"payment": number, "card": f"card-{number % 97}", "at": _text(at), "a": a, "b": b}
                )
                labels.append({"payment": number, "at": _text(at + _LATER), "fraud": int(concept(a, b))})
            for topic, told in (("payments", payments), ("labels", labels)):
                self._client.publish(f"bank/{topic}", json.dumps(told), qos=1).wait_for_publish(20)
            self.sent += _AT_ONCE

    def send_until(self, concept: Concept, true: Callable[[], Any], what: str, pause: float = 0.02) -> None:
        """Go on sending until something is true."""

        def sent() -> Any:
            self.send(concept, _AT_ONCE)
            time.sleep(pause)
            return true()

        until(sent, what)

    def rows(self, stream: str) -> list[dict[str, Any]]:
        """The durable rows of a table, as any other process may read them while it grows."""
        folder = self.run / "log" / stream
        if not folder.exists():
            return []
        return [row for block in EventLog(folder).read() for row in as_dicts(block.rows)]

    def stored(self, table: str) -> int:
        """Rows of a table in the lake."""
        found = [one for one in Lake(str(self.run / "lake")).tables() if one.name == table]
        return sum(len(block) for one in found for block in one.scan())

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Those of one kind, with their evidence."""
        found = [row for row in self.rows("events") if row["kind"] == kind]
        return [{**row, "evidence": json.loads(row["evidence"])} for row in found]

    def roles(self) -> dict[str, int]:
        """Who plays which role now."""
        return self.registry.roles("fraud").roles

    def history(self) -> list[Change]:
        """Every change of a role."""
        return list(self.registry.roles("fraud").history)

    def journal(self) -> list[dict[str, Any]]:
        """What became of every command: intents and receipts."""
        lines = (self.run / "journal.ndjson").read_bytes().splitlines()
        return [json.loads(line.partition(b" ")[2]) for line in lines]


def _text(at: int) -> str:
    whole, part = divmod(at, 10**9)
    return f"{dt.datetime.fromtimestamp(whole, dt.UTC):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"


def _first(concept: Concept) -> tuple[ModelFile]:
    """A model that knows today's concept."""
    inputs = np.random.default_rng(1).random((600, 2)).astype(np.float32)
    truth = np.array([concept(a, b) for a, b in inputs.tolist()], np.float64)
    made = fit("lightgbm", "classification", {"n_estimators": 30, "num_leaves": 7}, inputs, truth, 1)
    assert trees(made, "lightgbm")
    content = to_onnx(made, "lightgbm", "classification", 2, "probability")
    told = {"created": "2026-11-22T00:00:00Z", "trained_on": {}, "metrics": {}}
    inputs_, outputs = (Column("a"), Column("b")), (Column("probability"),)
    return (ModelFile.build(content, name="fraud", inputs=inputs_, outputs=outputs, **told),)
