"""A replay held against the run it repeats: the same plan gives the same bits, another plan says what changed."""

import csv
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from boucle.cli.main import main
from boucle.clock import SystemClock
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.project import load_project

ROWS = 600
START = datetime(2026, 3, 1, tzinfo=UTC)
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
      - {name: value, logicalType: number, required: true}
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
    lateness: 5s
    idle: 60s
    with: {rows: 25}
steps:
  - id: sums
    use: boucle.stream.window:Tumbling
    from: [readings]
    with: {by: [pump], size: 10s, values: {rows: count, total: sum(value)}}
  - id: features
    use: boucle.stream.sliding:Sliding
    from: [readings]
    with: {features: {mean_30s: {of: mean(value), by: pump, over: 30s}}}
tables:
  pump_readings: {from: readings, zone: raw, partition: [pump]}
  sums: {from: sums, zone: silver, partition: [pump], key: [pump, at]}
  features: {from: features, zone: silver, partition: [pump]}
rules:
  - id: much
    on: sums
    when: {total: "> 18"}
    per: [pump]
    once: row
    event: {kind: much, severity: info, says: {en: "{pump}: {total:.1f}", fr: "{pump} : {total:.1f}"}}
"""


def product(folder: Path, text: str = PRODUCT) -> Path:
    folder.mkdir()
    (folder / "product.yaml").write_text(text)
    (folder / "boucle.toml").write_text(f'[addresses]\ndata = "{folder}"\n\n[run]\nfolder = "run"\n')
    return folder


def readings(file: Path, *, in_time: bool) -> None:
    """A reading a second of three pumps in turn; unless `in_time` every fortieth comes a minute late."""
    chance = random.Random(3)
    rows = [
        ((START + timedelta(seconds=n, milliseconds=n % 7)).isoformat(), f"p{n % 3}", chance.gauss(5, 2))
        for n in range(ROWS)
    ]
    order = list(range(ROWS))
    if not in_time:
        order.sort(key=lambda n: n + 60.5 * (n % 40 == 39))
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["when", "pump", "value"])
        writer.writerows(rows[n] for n in order)


def live(folder: Path, into: Path) -> None:
    """A run to the end of its file."""
    loop = Loop(build_plan(load_project(folder)), SystemClock(), folder=into)
    loop.open()
    assert loop.pump() > ROWS / 2
    loop.close()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pumps` and the folders of two runs of it: `late`, with late rows, and `timely`, the same rows in time."""
    folder = tmp_path_factory.mktemp("plant")
    pumps = product(folder / "pumps")
    for name in ("late", "timely"):
        readings(pumps / "readings.csv", in_time=name == "timely")
        live(pumps, folder / name)
    return folder


Told = tuple[int, dict[str, Any]]


def replayed(capsys: pytest.CaptureFixture[str], plant: Path, into: Path, *words: str | Path) -> Told:
    """Exit code, and what it says of each table."""
    code = main(["replay", *map(str, words), "--into", str(into), "--json"])
    told = json.loads(capsys.readouterr().out)["against"]
    return code, {**told, "tables": {one["table"]: one for one in told["tables"]}}


def test_the_same_plan_gives_the_same_bits(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = replayed(capsys, plant, tmp_path / "again", plant / "pumps", "--against", plant / "late")
    assert (code, told["same"], told["from_its_beginning"], told["goes_on"]) == (0, True, True, False)
    counts = {name: one["equal"] for name, one in told["tables"].items()}
    assert set(counts) == {"sums", "features", "events"}
    assert min(counts.values()) > 20
    assert counts["features"] > 500
    assert all(one["first"] == [] for one in told["tables"].values())


def test_another_plan_says_what_changed(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PRODUCT.replace("total: sum(value)", "total: max(value)").replace("> 18", "> 9.5")
    other = product(tmp_path / "other", text)
    code, told = replayed(capsys, plant, tmp_path / "again", other, "--against", plant / "late")
    assert (code, told["same"]) == (1, False)
    sums = told["tables"]["sums"]
    assert (sums["equal"], sums["only_live"], sums["only_replay"]) == (0, 0, 0)
    assert sums["columns"] == {"total": sums["different"]}
    first = sums["first"][0]
    assert first["key"]["at"] == "2026-03-01T00:00:09.999999999Z"
    assert set(first["live"]) == set(first["replay"]) == {"total"}
    assert first["live"]["total"] > first["replay"]["total"]
    assert told["tables"]["features"]["different"] == told["tables"]["features"]["only_replay"] == 0
    assert told["tables"]["events"]["only_live"] > 0


def test_other_windows_are_other_rows(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = product(tmp_path / "other", PRODUCT.replace("size: 10s", "size: 15s"))
    words = ["replay", str(other), "--against", str(plant / "late"), "--into", str(tmp_path / "again")]
    assert main([*words, "--lang", "fr"]) == 1
    told = capsys.readouterr().out
    assert "pas identiques" in told
    assert "    rejeu  pas de telle ligne" in told
    code, told_again = replayed(capsys, plant, tmp_path / "once_more", *words[1:4])
    sums = told_again["tables"]["sums"]
    assert code == 1
    assert sums["only_live"] > sums["only_replay"] > 0
    assert sums["first"][0]["replay"] is None


def test_late_rows_merged_are_rows_in_time(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (plant / "pumps", "--log", plant / "late", "--against", plant / "timely")
    code, told = replayed(capsys, plant, tmp_path / "merged", *words, "--late", "merge")
    assert (code, told["same"]) == (0, True), told["tables"]
    code, told = replayed(capsys, plant, tmp_path / "apart", *words)
    assert code == 1
    assert told["tables"]["features"]["only_live"] > 10, "the late rows"


def test_a_span_says_what_it_does_not_know(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    span = ("--since", "2026-03-01T00:04:05Z", "--until", "2026-03-01T00:06:00Z")
    words = (plant / "pumps", "--against", plant / "late", *span)
    code, cold = replayed(capsys, plant, tmp_path / "cold", *words)
    assert (code, cold["from_its_beginning"]) == (1, False)
    assert cold["tables"]["features"]["equal"] > 0
    code, warm = replayed(capsys, plant, tmp_path / "warm", *words, "--warm", "1min")
    assert (code, warm["same"], warm["warm"]) == (0, True, 60.0)
    assert warm["compared_from"] == "2026-03-01T00:04:05Z"
    assert 100 < warm["tables"]["features"]["equal"] <= 115
    assert warm["tables"]["sums"]["equal"] in {33, 34, 35, 36}


def test_what_was_not_stored_cannot_be_asked_for(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: str | Path) -> str:
        assert main(["replay", str(plant / "pumps"), *map(str, words), "--json"]) == 1
        code: str = json.loads(capsys.readouterr().out)["error"]["code"]
        return code

    assert error("--late", "merge") == "B813"
    assert error("--against", tmp_path) == "B814"


def test_a_run_that_goes_on_is_compared_as_far_as_it_has_decided(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(build_plan(load_project(plant / "pumps")), SystemClock(), folder=tmp_path / "going_on")
    loop.open()
    for _ in range(12):
        assert loop.advance("readings") > 0
    loop.settle()
    words = (plant / "pumps", "--against", tmp_path / "going_on")
    code, told = replayed(capsys, plant, tmp_path / "again", *words)
    loop.close()
    assert (code, told["goes_on"], told["same"]) == (0, True, True)
    assert "2026-03-01T00:04:00Z" < told["compared_to"] < "2026-03-01T00:05:00Z"
    assert told["tables"]["features"]["equal"] > 200
