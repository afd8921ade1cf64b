"""`boucle quarantine`: what was refused is listed, shown, mended, judged again, and stored exactly once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from boucle.bus.log import EventLog
from boucle.cli.main import main
from boucle.clock import SystemClock
from boucle.loop.plan import build_plan
from boucle.loop.retry import retry
from boucle.loop.run import Loop
from boucle.product.project import load_project
from boucle.quality.outcomes import Intent, Outcomes
from boucle.quality.quarantine import Quarantine, named_rejects
from boucle.quality.reject import Reject

PRODUCT = """\
apiVersion: v1.0.0
kind: DataProduct
id: pumps
name: Pumps
version: 0.1.0
status: active
---
apiVersion: v3.1.0
kind: DataContract
id: pump-signals
version: 1.0.0
status: active
schema:
  - name: readings
    physicalType: file
    properties:
      - {name: at, logicalType: timestamp, physicalType: timestamp_ns, required: true}
      - {name: pump, logicalType: string, required: true}
      - {name: value, logicalType: number, required: true, logicalTypeOptions: {minimum: 0, maximum: 10}}
---
kind: Loop
apiVersion: boucle/v1
id: pump-loop
product: pumps
contract: pump-signals
sources:
  readings:
    from: "file://{data}/readings.csv?time=when"
    schema: readings
    partition: [pump]
    dedupe: [pump, at]
    lateness: 5s
    idle: 60s
    with: {rows: 25}
tables:
  pump_readings: {from: readings, zone: raw, partition: [pump], key: [pump, at]}
"""
BAD = {7: 99.0, 20: -1.0, 33: 12.0}
ROWS = 60


@pytest.fixture
def plant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A product, and the folder `run` of a run of it that refused three of sixty readings."""
    folder = tmp_path / "pumps"
    folder.mkdir()
    (folder / "product.yaml").write_text(PRODUCT)
    toml = f'[addresses]\ndata = "{folder}"\n\n[run]\nfolder = "{folder}/run"\n'
    (folder / "boucle.toml").write_text(toml)
    lines = [f"2026-03-01T00:00:{n:02d}+00:00,p{n % 2},{BAD.get(n, 5.0)}" for n in range(ROWS)]
    (folder / "readings.csv").write_text("when,pump,value\n" + "\n".join(lines) + "\n")
    turn(folder)
    capsys.readouterr()
    return folder


def turn(folder: Path) -> dict[str, Any]:
    """The loop, until there is nothing more; its accounting."""
    loop = Loop(build_plan(load_project(folder)), SystemClock(), folder=folder / "run")
    loop.open()
    loop.pump()
    loop.close()
    return structs.asdict(loop.picture.accounting())


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    capsys.readouterr()
    assert main(["quarantine", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def stored(folder: Path) -> list[float]:
    log = EventLog(folder / "run" / "log" / "readings")
    return [value for block in log.read() for value in block.rows.column("value").to_pylist()]


def widen(folder: Path, most: int) -> None:
    text = (folder / "product.yaml").read_text()
    (folder / "product.yaml").write_text(text.replace("maximum: 10}", f"maximum: {most}}}"))


def test_listed_by_reason_source_rule_and_time(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = told(capsys, "list", "--product", plant)
    assert answer["readings"] == 3
    assert answer["groups"] == [
        {"source": "readings", "reason": "out_of_range", "rule": "value.range", "readings": 3}
    ]
    assert told(capsys, "list", "--product", plant, "--reason", "missing")["readings"] == 0
    assert told(capsys, "list", "--product", plant, "--until", "2020-01-01")["readings"] == 0
    assert told(capsys, "list", "--product", plant, "--rule", "value.range", "--limit", "1")["readings"] == 3
    assert main(["quarantine", "--product", str(plant)]) == 0
    assert "value is 99.0: at least 0 at most 10 was promised" in capsys.readouterr().out


def test_one_is_shown_with_its_row_and_its_promise(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = told(capsys, "list", "--product", plant)["rejects"][0]["name"]
    (one,) = told(capsys, "show", name[:6], "--product", plant)["rejects"]
    assert one["payload"]["rows"][0] | {"at": 0} == {"at": 0, "pump": "p1", "value": 99.0}
    assert one["promise"]["severity"] == "error"
    assert one["promise"]["given"] == {"minimum": 0, "maximum": 10}
    assert one["promise"]["line"] == 19


def test_a_wider_contract_takes_them_once(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    widen(plant, 50)
    first = told(capsys, "retry", "--product", plant)
    assert (first["stored"], first["refused"], first["rows_stored"]) == (1, 2, 1)
    assert max(stored(plant)) == 12.0
    again = told(capsys, "retry", "--product", plant)
    assert (again["stored"], again["refused"]) == (0, 2)
    assert len(stored(plant)) == ROWS - 2
    listed = told(capsys, "list", "--product", plant)
    assert (listed["readings"], listed["judged_again"]) == (2, {"refused": 2, "stored": 1})
    assert told(capsys, "list", "--product", plant, "--all")["readings"] == 3
    # Every reading refused is either stored since, or still there.
    assert listed["readings"] + listed["judged_again"]["stored"] == len(BAD)


def test_a_mended_file_goes_in_and_the_next_start_brings_it_to_the_table(
    plant: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "bad.ndjson"
    assert told(capsys, "export", "--product", plant, "--to", file)["written"] == 3
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["rows"][0]["value"] = 1.25
    lines[2]["rows"][0]["value"] = 1000.0
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = told(capsys, "retry", "--product", plant, "--from", file)
    assert (answer["stored"], answer["refused"]) == (2, 1)
    accounting = turn(plant)
    assert accounting["received"] == 0  # the source is where it was: nothing is read again
    assert stored(plant).count(1.25) == 2
    capsys.readouterr()
    assert (
        main(["sql", "--folder", str(plant / "run"), "--json", "select count(*) as n from pump_readings"])
        == 0
    )
    assert json.loads(capsys.readouterr().out) == [{"n": ROWS - 1}]


def test_what_came_again_meanwhile_is_a_duplicate(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (plant / "readings.csv").open("a") as out:
        out.write("2026-03-01T00:00:33+00:00,p1,3.0\n")
    os.utime(plant / "readings.csv")
    widen(plant, 50)
    turn(plant)
    before = len(stored(plant))
    late = EventLog(plant / "run" / "log" / "readings.late").end()
    answer = told(capsys, "retry", "--product", plant)
    if before > ROWS - 3:
        assert (answer["stored"], answer["duplicates"]) == (0, 1)
        assert len(stored(plant)) == before
    else:  # it was late, and is not in the log
        assert late.offset == 1
        assert answer["stored"] == 1


def test_a_stop_between_intent_and_append_loses_and_doubles_nothing(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widen(plant, 100)
    project, run = load_project(plant), plant / "run"
    wanted = list(named_rejects(run / "quarantine"))
    assert [one.outcome for one in retry(project, run, wanted[:1], SystemClock())] == ["stored"]
    # As a process that was killed before it appended: the intent alone is durable.
    outcomes = Outcomes(run / "quarantine")
    (intent,) = [one for one in _intents(run / "quarantine" / "outcomes.ndjson") if one.sequence == 0]
    other = structs.replace(intent, sequence=1, then=(structs.replace(intent.then[0], name="f00"),))
    outcomes.intend(other)
    outcomes.close()
    before = len(stored(plant))
    assert {one.name for one in retry(project, run, (), SystemClock())} == {"f00"}
    assert len(stored(plant)) == before + 1
    assert retry(project, run, (), SystemClock()) == []
    # As one that was killed after it appended and before it noted so: the number is known, nothing is added.
    kept = (run / "quarantine" / "outcomes.ndjson").read_bytes().splitlines(keepends=True)
    (run / "quarantine" / "outcomes.ndjson").write_bytes(b"".join(kept[:-1]))
    assert {one.name for one in retry(project, run, (), SystemClock())} == {"f00"}
    assert len(stored(plant)) == before + 1


def _intents(file: Path) -> list[Intent]:
    import msgspec

    lines = [line[9:] for line in file.read_bytes().splitlines()]
    return [msgspec.json.decode(line, type=Intent) for line in lines if b'"type":"intent"' in line]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["show", "nobody"], "B453"),
        (["show"], "B453"),
        (["list", "--since", "yesterday"], "B454"),
        (["export"], "B454"),
        (["retry", "--from", "nowhere.ndjson"], "B455"),
    ],
)
def test_mistakes_are_told(
    plant: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    assert main(["quarantine", *words, "--product", str(plant)]) == 1
    assert code in capsys.readouterr().err


def test_no_quarantine_and_no_product(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine", "--run", str(tmp_path), "--product", str(tmp_path)]) == 1
    assert "B452" in capsys.readouterr().err
    kept = Quarantine(tmp_path / "quarantine")
    kept.add(
        [Reject("s", "malformed", "torn", 1, b"\xff\xfe"), Reject("s", "malformed", "torn", 1, b"\xff\xfe")]
    )
    kept.close()
    answer = told(capsys, "list", "--run", tmp_path, "--product", tmp_path)
    names = [one["name"] for one in answer["rejects"]]
    assert names[1] == f"{names[0]}-2"
    shown = told(capsys, "show", names[0], "--run", tmp_path, "--product", tmp_path)
    assert shown["rejects"][0]["payload"] == {"base64": "//4="}
    assert main(["quarantine", "retry", "--run", str(tmp_path), "--product", str(tmp_path)]) == 1
    assert "B454" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"rows": []}', '{"name": "x"}', '{"name": "x", "base64": "é"}']
)
def test_a_broken_mended_file(
    plant: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str
) -> None:
    (tmp_path / "mended").write_text(line)
    assert main(["quarantine", "retry", "--product", str(plant), "--from", str(tmp_path / "mended")]) == 1
    assert "B455" in capsys.readouterr().err
