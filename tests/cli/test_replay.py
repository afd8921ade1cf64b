"""`boucle replay` of files: a small product of one's own, and recorded data sets beside their labels."""

import csv
import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import ROOT, boucle, told

DATA = ROOT / ".." / "shared" / "data"
ROWS = 600

PRODUCT = """\
apiVersion: v1.0.0
kind: DataProduct
id: boiler
name: Boiler
version: 0.1.0
status: active
---
apiVersion: v3.1.0
kind: DataContract
id: boiler-signals
version: 1.0.0
status: active
schema:
  - name: readings
    physicalType: file
    properties:
      - {name: at, logicalType: timestamp, physicalType: timestamp_ns, required: true}
      - {name: boiler, logicalType: string, required: true}
      - {name: pressure, logicalType: number, required: true, logicalTypeOptions: {minimum: 0, maximum: 20}}
      - {name: faulty, logicalType: boolean}
---
kind: Loop
apiVersion: boucle/v1
id: boiler-loop
product: boiler
contract: boiler-signals
sources:
  readings: {from: "file://{data}/boiler.csv?time=when", schema: readings, partition: [boiler], lateness: 10s}
steps:
  - id: scores
    use: boucle.edge.outlier:Outlier
    from: [readings]
    with: {columns: [pressure], by: [boiler], carry: [pressure, faulty], train: 200, smooth: 0.3, margin: 1.5}
tables:
  boiler_readings: {from: readings, zone: raw, partition: [boiler]}
  boiler_scores: {from: scores, zone: silver, partition: [boiler]}
rules:
  - id: outlier
    on: scores
    when: {alert: true}
    per: [boiler]
    once: episode
    rearm: 60s
    event:
      kind: outlier
      severity: warning
      says: {en: "Boiler {boiler}: {pressure:.1f} bar.", fr: "Chaudière {boiler} : {pressure:.1f} bar."}
view:
  title: {en: Boiler, fr: Chaudière}
  labels: {stream: scores, label: faulty, by: boiler}
"""


@pytest.fixture
def boiler(tmp_path: Path) -> Path:
    """A product over a CSV file: ten minutes of pressure, too high from row 400 to 500, two rows of nonsense."""
    noise, start = random.Random(1), datetime(2026, 3, 1, tzinfo=UTC)
    folder = tmp_path / "boiler"
    folder.mkdir()
    (folder / "product.yaml").write_text(PRODUCT)
    (folder / "boucle.toml").write_text(f'[addresses]\ndata = "{folder}"\n\n[run]\nfolder = "run/boiler"\n')
    with (folder / "boiler.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["when", "boiler", "pressure", "faulty"])
        for row in range(ROWS):
            faulty = 400 <= row < 500
            pressure = 5 + 0.3 * math.sin(row / 9) + noise.gauss(0, 0.1) + 4 * faulty
            if row in {50, 60}:
                pressure = 99
            moment = (start + timedelta(seconds=row)).isoformat()
            writer.writerow([moment, "B1", f"{pressure:.4f}", str(faulty).lower()])
    return folder


def test_a_product_of_ones_own_over_a_csv_file(boiler: Path) -> None:
    answer = told(boucle("replay", boiler, "--json", cwd=boiler.parent))
    counts = answer["accounting"]
    assert (counts["in"], counts["stored"], counts["quarantined"]) == (ROWS, ROWS - 2, 2)
    assert counts["reasons"] == {"out_of_range": 2}
    (event,) = answer["events"]
    assert event["kind"] == "outlier"
    found = answer["labels"]["all"]
    assert found["f1"] > 0.9
    assert answer["labels"]["recordings"]["B1"]["labels"][0][0] == "2026-03-01T00:06:40+00:00"
    folder = boiler.parent / "run" / "replay-boiler"
    query = "select count(*) as n, min(at) as first from boiler_readings"
    (row,) = told(boucle("sql", "--folder", folder, "--json", query, cwd=boiler.parent))
    assert row["n"] == ROWS - 2
    assert row["first"].startswith("2026-03-01 00:00:00")


def test_replay_speaks_french_to_people(boiler: Path) -> None:
    done = boucle("replay", boiler, "--lang", "fr", cwd=boiler.parent)
    assert done.returncode == 0
    assert "Chaudière B1 : " in done.stderr
    assert f"reçues {ROWS} = stockées {ROWS - 2}" in done.stdout
    assert "," in done.stderr.partition("Chaudière B1 : ")[2].partition(" bar")[0]


def test_what_cannot_be_replayed_says_why(boiler: Path) -> None:
    def error(*words: str) -> dict[str, Any]:
        done = boucle("replay", *words, "--json", cwd=boiler.parent)
        assert done.returncode == 1, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["error"]
        assert found["fix"]
        return found

    assert error(str(ROOT / "examples" / "press"))["code"] == "B804"
    assert error(str(boiler), "--file", "reading=file://x.csv")["code"] == "B802"
    assert error(str(boiler), "--file", f"readings=file://{boiler}/nothing.csv?time=when")["code"] == "B330"
    assert error(str(boiler), "--lake", str(boiler), "--since", "yesterday")["code"] == "B805"
    (boiler / "mine").mkdir()
    (boiler / "mine" / "letter.txt").write_text("keep me")
    assert error(str(boiler), "--into", str(boiler / "mine"))["code"] == "B801"
    assert (boiler / "mine" / "letter.txt").read_text() == "keep me"


def test_another_file_and_a_pace(boiler: Path) -> None:
    head = (boiler / "boiler.csv").read_text().splitlines()[:41]
    (boiler / "short.csv").write_text("\n".join(head) + "\n")
    words = ["--file", f"readings=file://{boiler}/short.csv?time=when", "--speed", "200"]
    answer = told(boucle("replay", boiler, *words, "--json", cwd=boiler.parent))
    assert answer["accounting"]["in"] == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("product", "file", "rows"), [("skab", "skab.parquet", 1000), ("nab", "nab.parquet", 1000)]
)
def test_recorded_input_beside_its_labels(tmp_path: Path, product: str, file: str, rows: int) -> None:
    if not (DATA / product / file).exists():
        pytest.skip(f"the recorded data is not beside this checkout (../shared/data/{product}/{file})")
    into = tmp_path / "run"
    words = ["replay", f"examples/{product}", "--into", str(into), "--json"]
    answer = told(boucle(*words, cwd=ROOT))
    counts = answer["accounting"]
    assert counts["in"] > rows
    assert counts["in"] == sum(counts[k] for k in ("stored", "late", "duplicate", "quarantined", "shed"))
    assert answer["events"], "something is found"
    figures = answer["labels"]["all"]
    assert 0 < figures["f1"] <= 1
    assert answer["labels"]["recordings"]
    query = f"select count(*) as n from {product}_readings"
    (row,) = told(boucle("sql", "--folder", into, "--json", query, cwd=ROOT))
    assert row["n"] == counts["stored"]
