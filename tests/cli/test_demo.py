"""`boucle demo press` in an empty folder: one JSON object, a clean end; then `sql` and `replay` of it."""

import csv
import io
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import BOUCLE, PATIENCE, PRESS, boucle, children, environment, told
from tests.web.conftest import chromium

__all__ = ["chromium"]

pytestmark = pytest.mark.real


class Recorded:
    """A demo that ran to its end in a folder."""

    def __init__(self, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
        self.folder, self.done = folder, done
        self.run = folder / "run" / "demo-press"
        self.told: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("empty")
    words = "demo press --headless --duration 16 --speed 2 --seed 4 --lang fr --report story.html --json"
    return Recorded(folder, boucle(*words.split(), cwd=folder))


def test_the_demo_tells_one_json_object(recorded: Recorded) -> None:
    assert recorded.done.returncode == 0, recorded.done.stderr
    answer = recorded.told
    keys = {"seed", "truth", "events", "commands", "work_orders", "latency_ms", "accounting"}
    assert keys <= set(answer)
    assert answer["seed"] == 4
    assert {fault["cause"] for fault in answer["truth"]} == {"outer_race", "gain"}
    counts = answer["accounting"]
    assert set(counts) >= {"in", "stored", "late", "duplicate", "quarantined", "shed"}
    assert counts["in"] == sum(counts[k] for k in ("stored", "late", "duplicate", "quarantined", "shed"))
    assert counts["in"] > answer["sent"]["readings"] > 1000, "vibration, and the slow values beside it"
    assert answer["sent"]["dropped_readings"] == answer["sent"]["waiting"] == 0
    assert {"p50", "p99"} <= set(answer["latency_ms"])


def test_it_speaks_french_when_asked(recorded: Recorded) -> None:
    said = recorded.done.stderr
    assert "L'histoire : La presse 2 s'use" in said
    assert "Lectures reçues" in said
    assert "Traceback" not in said
    assert not re.search(r"\b(The story|Readings|readings|None|nan)\b", said)


def test_the_report_stands_alone(recorded: Recorded) -> None:
    page = (recorded.folder / "story.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "url(http" not in page
    assert '<html lang="fr"' in page


@pytest.mark.browser
def test_the_report_opens_without_complaint(recorded: Recorded, chromium: Any) -> None:
    context = chromium.new_context(offline=True)
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((recorded.folder / "story.html").as_uri())
    assert "press-2" in page.inner_text("body")
    assert page.locator("svg").count() >= 3
    assert complaints == []
    assert all(address.startswith("file://") for address in asked)
    context.close()


def sql(recorded: Recorded, *words: str) -> subprocess.CompletedProcess[str]:
    return boucle("sql", "--folder", recorded.run, *words, cwd=recorded.folder)


def test_sql_lists_the_tables(recorded: Recorded) -> None:
    done = sql(recorded)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^vibration_events +silver +\d+", done.stdout, re.MULTILINE)
    assert "maintenance_summary" in done.stdout
    rows = {row["table"]: row for row in told(sql(recorded, "--json"))}
    assert rows["vibration_raw"]["rows"] > 1000


QUERY = "select machine, count(*) as seconds from maintenance_summary group by machine order by machine"


def test_sql_answers_as_table_json_and_csv(recorded: Recorded) -> None:
    rows = told(sql(recorded, "--json", QUERY))
    assert [row["machine"] for row in rows] == ["press-1", "press-2", "press-3"]
    assert all(11 <= row["seconds"] <= 17 for row in rows)
    shown = sql(recorded, QUERY)
    assert shown.returncode == 0
    assert re.search(rf"^press-2 +{rows[1]['seconds']}$", shown.stdout, re.MULTILINE)
    assert "(3 rows)" in shown.stderr
    plain = sql(recorded, "--csv", QUERY)
    assert [row["machine"] for row in csv.DictReader(io.StringIO(plain.stdout))] == [
        row["machine"] for row in rows
    ]


def test_sql_errors_teach(recorded: Recorded) -> None:
    done = sql(recorded, "select * from maintenance_sumary")
    assert done.returncode == 1
    assert done.stdout == ""
    assert 'Did you mean "maintenance_summary"?' in done.stderr
    answer = json.loads(sql(recorded, "--json", "select machin from maintenance_summary").stdout)
    assert answer["error"]["code"] == "B512"
    assert sql(recorded, "drop table events").returncode == 1
    assert sql(recorded, "--json", "--csv", QUERY).returncode == 2


def test_sql_where_there_is_no_lake(tmp_path: Path) -> None:
    done = boucle("sql", "select 1", cwd=tmp_path)
    assert done.returncode == 1
    assert "there is no lake" in done.stderr


def test_what_was_recorded_is_replayed(recorded: Recorded, tmp_path: Path) -> None:
    """The same readings give the same windows, and no machine is moved."""
    answer = told(
        boucle("replay", PRESS, "--lake", recorded.run, "--into", tmp_path / "again", "--json", cwd=tmp_path)
    )
    counts, first = answer["accounting"], recorded.told["accounting"]
    assert counts["in"] == counts["stored"] == first["stored"]
    query = "select machine, sensor, at, count, rms, kurtosis from vibration_events order by all"
    again = told(boucle("sql", "--folder", tmp_path / "again", "--json", query, cwd=tmp_path))
    assert again == told(sql(recorded, "--json", query))
    assert all(one["receipt"]["code"] == "replay" for one in [*answer["commands"], *answer["work_orders"]])


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo in an empty folder, once its machines run."""
    words = [*BOUCLE, "demo", "press", "--headless", "--json", "--lang", "en"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=pipe, stderr=pipe, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "The story" in line:
            break
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c_ends_it_cleanly(running: subprocess.Popen[str]) -> None:
    time.sleep(1)
    born = children(running.pid)
    assert born, "the lake's writer, and mosquitto when it is installed"
    running.send_signal(signal.SIGINT)
    out, said = running.communicate(timeout=PATIENCE)
    assert running.returncode in {0, 130}
    assert "Traceback" not in said
    answer = json.loads(out)
    counts = answer["accounting"]
    assert counts["in"] == sum(counts[k] for k in ("stored", "late", "duplicate", "quarantined", "shed"))
    assert not [one for one in born if alive(one)]


def test_killed_it_leaves_no_process_behind(running: subprocess.Popen[str]) -> None:
    born = children(running.pid)
    running.kill()
    running.communicate()
    end = time.monotonic() + PATIENCE
    while [one for one in born if alive(one)]:
        assert time.monotonic() < end, "its children are still there"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_report_where_none_can_be_written_is_told_before_it_runs(tmp_path: Path) -> None:
    done = boucle(
        "demo", "press", "--headless", "--duration", "1", "--report", "no/such/folder/a.html", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
