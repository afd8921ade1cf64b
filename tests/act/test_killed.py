"""Killed with SIGKILL anywhere: the machine moves at most once a Command, and each gets one Receipt."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boucle.act.journal import Journal
from boucle.clock import SECOND, SystemClock
from boucle.event import Outcome, Receipt
from boucle.testing.plc import PlcLogic
from boucle.testing.plcserver import PlcServer


class Press:
    """A PLC in this process that outlives the process under test."""

    def __init__(self) -> None:
        self.written: list[float] = []
        self.logic = PlcLogic(["press-1"], speed=36.0)
        self.logic.listen(self._changed)
        self.server = PlcServer(self.logic)
        self.server.start()

    def _changed(self, tags: Any) -> None:
        self.written += [tag.value for tag in tags if tag.signal == "speed_setpoint"]


@pytest.fixture
def press() -> Iterator[Press]:
    made = Press()
    yield made
    made.server.close()


def start(press: Press, folder: Path, moment: str, count: int) -> "subprocess.Popen[bytes]":
    ends = SystemClock().now() + 120 * SECOND
    told = [press.server.url, str(folder), moment, str(count), str(ends)]
    return subprocess.Popen([sys.executable, "-m", "tests.act.victim", *told])


def receipts(folder: Path) -> list[Receipt]:
    journal = Journal(folder / "journal.ndjson")
    found = [entry.receipt for entry in journal.read() if entry.receipt is not None]
    assert journal.unresolved() == []
    journal.close()
    return found


@pytest.mark.parametrize(
    ("moment", "outcome", "moves"),
    [
        ("before the intent", Outcome.applied, 1),
        ("after the intent", Outcome.failed, 0),
        ("before the write", Outcome.failed, 0),
        ("after the write", Outcome.applied, 1),
        ("before the receipt", Outcome.applied, 1),
        ("after the receipt", Outcome.applied, 1),
    ],
)
def test_killed_at_a_moment_and_started_again(
    press: Press, tmp_path: Path, moment: str, outcome: Outcome, moves: int
) -> None:
    assert start(press, tmp_path, moment, 1).wait(60) == -9
    assert start(press, tmp_path, "never", 1).wait(60) == 0
    [receipt] = receipts(tmp_path)
    assert (receipt.command, receipt.outcome) == ("c0", outcome)
    assert len(press.written) == moves


@pytest.mark.slow
def test_killed_again_and_again_at_any_moment(press: Press, tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(6):
        process = start(press, tmp_path, "never", 100)
        try:
            process.wait(1.0 + chance.random())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert start(press, tmp_path, "never", 100).wait(60) == 0
    found = receipts(tmp_path)
    assert Counter(receipt.command for receipt in found) == {f"c{number}": 1 for number in range(100)}
    assert max(Counter(press.written).values()) == 1
    applied = sum(receipt.outcome is Outcome.applied for receipt in found)
    assert applied <= len(press.written) <= 100
    assert applied >= 90
