"""Refused readings judged again while the loop runs: stored once by the thread that owns the log, whoever is killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boucle.cli.main import main
from boucle.clock import SystemClock
from boucle.loop.again import ask, became_of, unanswered
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.project import load_project
from boucle.quality.outcomes import Outcomes
from boucle.quality.quarantine import named_rejects
from tests.cli.test_quarantine import ROWS, plant, stored, told, turn, widen
from tests.house.tree import ROOT

__all__ = ["plant"]


def running(plant: Path) -> Loop:
    loop = Loop(build_plan(load_project(plant)), SystemClock(), folder=plant / "run")
    loop.open()
    loop.start()
    return loop


def counted(plant: Path, capsys: pytest.CaptureFixture[str]) -> int:
    capsys.readouterr()
    words = ["sql", "--folder", str(plant / "run"), "--json", "select count(*) as n from pump_readings"]
    assert main(words) == 0
    (row,) = json.loads(capsys.readouterr().out)
    return int(row["n"])


def test_a_running_loop_stores_them_once_and_its_tables_get_them(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widen(plant, 50)
    loop = running(plant)
    try:
        first = told(capsys, "retry", "--product", plant)
        assert (first["stored"], first["refused"], first["rows_stored"], first["waiting"]) == (1, 2, 1, 0)
        again = told(capsys, "retry", "--product", plant)
        assert (again["stored"], again["refused"]) == (0, 2)
        loop.drain()
        assert loop.intakes["readings"].counted().balanced()
        assert loop.intakes["readings"].counted().stored == 1
    finally:
        loop.stop()
    assert loop.failure is None
    assert stored(plant).count(12.0) == 1
    assert not unanswered(plant / "run")
    assert counted(plant, capsys) == ROWS - 2
    turn(plant)
    assert counted(plant, capsys) == ROWS - 2


def pumped(plant: Path, times: int = 3) -> None:
    loop = Loop(build_plan(load_project(plant)), SystemClock(), folder=plant / "run")
    loop.open()
    for _ in range(times):
        loop.pump()
    loop.close()


def test_mended_readings_of_one_identity_go_in_once(plant: Path) -> None:
    run = plant / "run"
    names = [name for name, _ in named_rejects(run / "quarantine")]
    row = {"at": "2026-03-01T00:00:07Z", "pump": "p1", "value": 1.25}
    other = json.dumps({**row, "pump": "p0"}).encode()
    mended = dict(zip(names, [json.dumps(row).encode()] * 2 + [other], strict=True))
    ask(run, names, mended, SystemClock().now())
    pumped(plant)
    assert stored(plant).count(1.25) == 2
    assert [one.outcome for one in became_of(run, names)] == ["stored", "duplicate", "stored"]
    assert all(one.mended for one in became_of(run, names))


def test_a_loop_that_does_not_answer_is_not_waited_for_for_ever(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widen(plant, 50)
    loop = Loop(build_plan(load_project(plant)), SystemClock(), folder=plant / "run")
    loop.open()  # its threads do not run
    try:
        capsys.readouterr()
        assert main(["quarantine", "retry", "--product", str(plant), "--wait", "0.1"]) == 1
        assert "3 wait" in capsys.readouterr().out
        for _ in range(3):
            loop.pump()
    finally:
        loop.close()
    assert stored(plant).count(12.0) == 1
    assert not unanswered(plant / "run")


KILLED = """
import os, signal, sys
from pathlib import Path
from boucle.bus.log import EventLog
from boucle.clock import SystemClock
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.project import load_project
from boucle.quality.outcomes import Outcomes

def dies(owner, name):
    real = getattr(owner, name)
    def instead(*given, **named):
        done = real(*given, **named)
        if name != "append" or named.get("producer"):
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    setattr(owner, name, instead)

where = {"intended": (Outcomes, "intend"), "appended": (EventLog, "append")}
folder = Path(sys.argv[1])
loop = Loop(build_plan(load_project(folder)), SystemClock(), folder=folder / "run")
loop.open()
dies(*where[sys.argv[2]])
for _ in range(3):
    loop.pump()
"""


@pytest.mark.parametrize("moment", ["intended", "appended"])
def test_killed_at_any_moment_each_is_stored_once(
    plant: Path, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    widen(plant, 100)  # two of the three are good now
    run = plant / "run"
    names = [name for name, _ in named_rejects(run / "quarantine")]
    ask(run, names, {}, SystemClock().now())
    words = [sys.executable, "-c", KILLED, str(plant), moment]
    assert subprocess.run(words, cwd=ROOT, check=False, timeout=60).returncode == -9
    pumped(plant)
    pumped(plant)
    values = stored(plant)
    assert (values.count(99.0), values.count(12.0), len(values)) == (1, 1, ROWS - 1)
    assert sorted(one.outcome for one in became_of(run, names)) == ["refused", "stored", "stored"]
    assert not unanswered(run)
    assert counted(plant, capsys) == ROWS - 1


@given(content=st.binary(max_size=100))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_nobody_can_read_asks_for_nothing(plant: Path, content: bytes) -> None:
    folder = plant / "run" / "quarantine" / "asked"
    folder.mkdir(exist_ok=True)
    (folder / "1-a.json").write_bytes(content)
    turn(plant)
    assert not unanswered(plant / "run")
    assert not Outcomes.of(plant / "run" / "quarantine")
