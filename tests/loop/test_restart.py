"""Killed without warning, several times, at no chosen moment: what was accepted is there, and there once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boucle.bus.broker import find_mosquitto
from boucle.bus.log import EventLog
from boucle.lake.sql import Sql
from boucle.loop.checkpoint import Kept, load_checkpoint
from boucle.loop.plan import build_plan
from boucle.product.project import load_project
from tests.loop.plant import PATIENCE, PRESS, SocketPlant, quiet_line, until

pytestmark = pytest.mark.real

KILLS = 3


class Victim:
    """`boucle run examples/press` as a process, on the servers of a plant."""

    def __init__(self, plant: SocketPlant) -> None:
        settings = {**plant.addresses, "run.checkpoint_every": "1s"}
        variables = {"BOUCLE_" + name.upper().replace(".", "_"): value for name, value in settings.items()}
        self._environment = {**os.environ, **variables}
        self.folder = plant.folder
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "boucle.cli.main", "run", str(PRESS), "--headless", "--json"]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env=self._environment, stdout=pipe, stderr=pipe, text=True)

    def kill(self) -> None:
        assert self.process.poll() is None, self.process.communicate()
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def restart(self) -> None:
        self.process = self._start()

    def end(self) -> dict[str, Any]:
        """Ctrl-C, and what it says at the end."""
        self.process.send_signal(signal.SIGINT)
        out, said = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, said
        assert "Traceback" not in said, said
        told: dict[str, Any] = json.loads(out)
        return told

    def stored(self, stream: str, *columns: str) -> list[tuple[Any, ...]]:
        """The rows of a log, as any other process may read them while it grows."""
        folder = self.folder / "log" / stream
        if not folder.exists():
            return []
        rows: list[tuple[Any, ...]] = []
        for block in EventLog(folder).read():
            rows += zip(*(block.rows.column(name).to_pylist() for name in columns), strict=True)
        return rows

    def checkpoint(self) -> Kept | None:
        return load_checkpoint(self.folder / "checkpoint", build_plan(load_project(PRESS)).fingerprint)


@pytest.fixture(scope="module")
def survived(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[SocketPlant, Victim, dict[str, Any]]]:
    """A loop killed and started again, to the end; one run for all the tests here."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    moments = random.Random(5)
    with SocketPlant(tmp_path_factory.mktemp("plant"), quiet_line(), loop=False) as plant:
        victim = Victim(plant)
        try:
            plant.gateway.start()
            until(victim.checkpoint, "a first checkpoint")
            for _ in range(KILLS):
                time.sleep(moments.uniform(2.0, 5.0))
                victim.kill()
                victim.restart()
            before = len(victim.stored("vibration", "seq"))
            until(lambda: len(victim.stored("vibration", "seq")) > before + 300, "the last life works")
            plant.gateway.pause()
            assert plant.gateway.drain(PATIENCE)
            last = {(f"{machine}-daq", plant.line._ticks - 1) for machine in plant.line.machines}
            until(
                lambda: last <= {*victim.stored("vibration", "producer", "seq")},
                "all that was sent is stored",
            )
            told = victim.end()
        finally:
            victim.process.kill()
            victim.process.communicate()
        yield plant, victim, told


Survived = tuple[SocketPlant, Victim, dict[str, Any]]


def test_every_accepted_row_is_there_once(survived: Survived) -> None:
    plant, victim, _ = survived
    lake = Sql(victim.folder / "lake")
    rows = lake.query("select producer, seq, sensor from vibration_raw").to_pylist()
    counts = Counter((row["producer"], row["seq"], row["sensor"]) for row in rows)
    assert max(counts.values()) == 1
    first = min(row["seq"] for row in rows)
    for machine in plant.line.machines:
        for sensor in ("vib_x", "vib_y", "vib_z"):
            found = {seq for producer, seq, axis in counts if (producer, axis) == (f"{machine}-daq", sensor)}
            # From the first message after the loop had subscribed to the last: no hole.
            assert min(found) - first in {0, 1}
            assert found == set(range(min(found), plant.line._ticks))
    lake.close()


def test_tables_hold_what_their_logs_hold(survived: Survived) -> None:
    _, victim, _ = survived
    lake = Sql(victim.folder / "lake")
    for table, stream in (
        ("vibration_raw", "vibration"),
        ("process_raw", "process"),
        ("vibration_events", "vibration_events"),
        ("features", "features"),
        ("maintenance_summary", "verdicts"),
    ):
        count = lake.query(f"select count(*) as n from {table}").column("n")[0].as_py()
        assert count == len(victim.stored(stream, "at")), table
    lake.close()


def test_no_window_twice_and_none_missing(survived: Survived) -> None:
    plant, victim, _ = survived
    lake = Sql(victim.folder / "lake")
    query = "select machine, sensor, epoch_ns(at) as second, count from vibration_events"
    rows = lake.query(query).to_pylist()
    found = Counter((row["machine"], row["sensor"], row["second"]) for row in rows)
    assert max(found.values()) == 1
    seconds = sorted({row["second"] for row in rows})
    assert seconds == list(range(seconds[0], seconds[-1] + 1, 10**9)), "no second is missing"
    assert seconds[-1] > plant.line.now - 4e9
    counts = {(row["machine"], row["sensor"], row["second"]): row["count"] for row in rows}
    for machine in plant.line.machines:
        for sensor in ("vib_x", "vib_y", "vib_z"):
            for second in seconds[1:-1]:
                assert counts[machine, sensor, second] == 10_000, (machine, sensor, second)
    lake.close()


def z_of(lake: Sql) -> dict[tuple[str, str], list[float | None]]:
    """The z-scores of each sensor, second by second."""
    rows = lake.query(
        "select machine, sensor, z from vibration_events order by machine, sensor, at"
    ).to_pylist()
    found: dict[tuple[str, str], list[float | None]] = {}
    for row in rows:
        found.setdefault((row["machine"], row["sensor"]), []).append(row["z"])
    return found


def since(scores: list[float | None]) -> int:
    """After how many seconds there is a first score."""
    return next((index for index, score in enumerate(scores) if score is not None), len(scores))


SIGNAL = "count, mean, min, max, rms, kurtosis, crest, velocity_mm_s, zone, band_0, band_3, band_7"
"""What follows from the samples alone."""


def test_it_says_the_same_as_an_undisturbed_run(survived: Survived, tmp_path: Path) -> None:
    """The same readings through a loop that nobody kills: bit for bit what the samples say.

    The shaft's speed is the one in force in the middle of a window, if the PLC's value has come by then: that
    depends on which of the two sources was faster, and z and the envelope lines follow in the last digits.
    """
    _, victim, _ = survived
    words = ["replay", str(PRESS), "--lake", str(victim.folder), "--into", str(tmp_path / "again"), "--json"]
    command = [sys.executable, "-m", "boucle.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    killed, whole = Sql(victim.folder / "lake"), Sql(tmp_path / "again" / "lake")
    query = f"select machine, sensor, at, {SIGNAL} from vibration_events order by machine, sensor, at"
    assert killed.query(query).to_pylist() == whole.query(query).to_pylist()
    mine, theirs = z_of(killed), z_of(whole)
    assert mine.keys() == theirs.keys()
    for key, scores in mine.items():
        # The healthy level was learned once, in the first seconds of the first life, and never again.
        learned = max(since(scores), since(theirs[key]))
        assert since(scores) - since(theirs[key]) in {-1, 0, 1}
        assert learned < len(scores)
        assert None not in scores[learned:]
        assert scores[learned:] == pytest.approx(theirs[key][learned:], abs=0.5)
    killed.close()
    whole.close()


def test_the_last_life_ends_well(survived: Survived) -> None:
    """Nobody was commanded anything, and its own accounting balances."""
    plant, _, told = survived
    counts = told["accounting"]
    gone = sum(counts[name] for name in ("stored", "late", "duplicate", "quarantined", "shed"))
    assert counts["in"] == gone > 0
    assert counts["quarantined"] == counts["shed"] == counts["pending"] == 0
    assert told["commands"] == told["work_orders"] == []
    assert plant.orders.all() == []
