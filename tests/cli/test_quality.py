"""`boucle quality`: files and tables held against a contract, for people and for CI."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from boucle.cli.main import main
from tests.cli.test_quarantine import PRODUCT, ROWS, turn

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: shop
version: 1.0.0
status: active
schema:
  - name: orders
    properties:
      - {name: id, logicalType: integer, primaryKey: true}
      - {name: customer, logicalType: integer, relationships: [{to: customers.id}]}
      - name: state
        logicalType: string
        quality:
          - {id: known-state, metric: invalidValues, arguments: {validValues: [open, paid]}, mustBe: 0,
             severity: warning, businessImpact: invoices wait}
    quality:
      - {id: volume, type: custom, engine: boucle, implementation: {check: volume, atLeast: 2}}
      - {id: odd, type: custom, engine: boucle, severity: info,
         implementation: {check: python, use: "checks:odd", columns: [id]}}
  - name: customers
    properties: [{name: id, logicalType: integer}]
"""
CHECKS = "def odd(rows):\n    return [value % 2 == 1 for value in rows.column('id').to_pylist()]\n"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a contract, orders that keep it, customers, and a function of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(CONTRACT)
    (tmp_path / "checks.py").write_text(CHECKS)
    orders(tmp_path)
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "customers.parquet")
    return tmp_path


def orders(
    folder: Path, rows: int = 4, state: str = "open", customer: int = 1, name: str = "orders.parquet"
) -> Path:
    table = pa.table(
        {"id": [2 * n for n in range(rows)], "customer": [customer] * rows, "state": [state] * rows}
    )
    write: Any = {"parquet": pq.write_table, "csv": pa.csv.write_csv, "arrow": pa.feather.write_feather}
    write[name.rpartition(".")[2]](table, folder / name)
    return folder / name


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert (
        main(
            [
                "quality",
                *words,
                "--contract",
                "shop.yaml",
                "--reference",
                "customers=customers.parquet",
                "--json",
            ]
        )
        == code
    )
    return json.loads(capsys.readouterr().out)


def states(answer: Any) -> dict[str, str]:
    return {one["rule"]: one["state"] for one in answer["tables"][0]["outcomes"]}


@pytest.mark.parametrize("name", ["orders.parquet", "orders.csv", "orders.arrow"])
def test_a_file_that_keeps_it(shop: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    answer = told(capsys, str(orders(shop, name=name)))
    assert answer["ok"]
    assert set(states(answer).values()) == {"kept"}


def test_exit_codes_follow_severities(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orders(shop, state="lost")
    answer = told(capsys, "orders.parquet", "--rows", "2")
    assert (answer["ok"], answer["worst"]) == (True, "warning")
    (broken,) = [one for one in answer["tables"][0]["outcomes"] if one["state"] == "broken"]
    assert (broken["rule"], broken["failed"], broken["impact"]) == ("known-state", 4, "invoices wait")
    assert broken["rows"] == [
        {"id": 0, "customer": 1, "state": "lost"},
        {"id": 2, "customer": 1, "state": "lost"},
    ]
    told(capsys, "orders.parquet", "--fail-on", "warning", code=1)
    told(capsys, "orders.parquet", "--fail-on", "never")
    orders(shop, customer=9)
    assert told(capsys, "orders.parquet", code=1)["worst"] == "error"
    told(capsys, "orders.parquet", "--fail-on", "never")


def test_words_for_people_and_failing_rows_in_a_file(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orders(shop, customer=9)
    words = [
        "--contract",
        "shop.yaml",
        "--reference",
        "customers=customers.parquet",
        "--failing",
        "out/bad.ndjson",
    ]
    assert main(["quality", "orders.parquet", *words]) == 1
    said = capsys.readouterr().out
    assert "✗ customer.foreignKey [error] 4, exactly 0 was promised" in said
    assert "customer=9  in" in said
    kept = [json.loads(line) for line in (shop / "out/bad.ndjson").read_text().splitlines()]
    assert len(kept) == 4
    assert (kept[0]["rule"], kept[0]["severity"], kept[0]["values"]) == ("customer.foreignKey", "error", [9])


def test_runs_are_remembered_and_compared(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rows, state in ((100, "kept"), (101, "kept"), (1000, "broken")):
        orders(shop, rows)
        answer = told(capsys, "orders.parquet", "--history", "h.ndjson", code=int(state == "broken"))
        assert states(answer)["volume"] == state
    orders(shop, 1000)
    assert states(told(capsys, "orders.parquet", "--no-history"))["volume"] == "kept"


def test_a_sample_keeps_keys_together_and_is_the_same_again(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [2 * (n // 2) for n in range(4000)]
    pq.write_table(
        pa.table({"id": ids, "customer": [1] * 4000, "state": ["open"] * 4000}), shop / "orders.parquet"
    )
    first = told(capsys, "orders.parquet", "--sample", "10%", code=1)
    rows = first["tables"][0]["rows"]
    duplicates = next(one for one in first["tables"][0]["outcomes"] if one["kind"] == "duplicate")
    assert 200 < rows < 600
    assert duplicates["failed"] == rows / 2
    assert told(capsys, "orders.parquet", "--sample", "10%", code=1) == first
    by_rows = told(capsys, "orders.parquet", "--sample", "400", code=1)
    assert by_rows["tables"][0]["rows"] == rows
    assert not (shop / "quality").exists()


def test_the_lake_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pumps"
    folder.mkdir()
    (folder / "product.yaml").write_text(PRODUCT)
    (folder / "boucle.toml").write_text(f'[addresses]\ndata = "{folder}"\n\n[run]\nfolder = "{folder}/run"\n')
    lines = [f"2026-03-01T00:00:{n:02d}+00:00,p{n % 2},5.0" for n in range(ROWS)]
    (folder / "readings.csv").write_text("when,pump,value\n" + "\n".join(lines) + "\n")
    turn(folder)
    capsys.readouterr()
    for words in ([], ["pump_readings"]):
        assert main(["quality", *words, "--product", str(folder), "--json"]) == 0
        (table,) = json.loads(capsys.readouterr().out)["tables"]
        assert (table["table"], table["rows"]) == ("readings", ROWS)
        assert {one["state"] for one in table["outcomes"]} == {"kept"}
    assert (folder / "run/quality/history.ndjson").exists()
    assert main(["quality", "nothing", "--product", str(folder)]) == 1
    assert "tables: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nowhere.parquet"], "B447"),
        (["checks.py", "--table", "orders"], "B442"),
        (["orders.parquet", "--table", "nobody"], "B447"),
        (["orders.parquet", "--sample", "some"], "B447"),
        (["orders.parquet", "--sample", "101%"], "B447"),
        (["orders.parquet", "--reference", "customers"], "B447"),
        (["torn.parquet", "--table", "orders"], "B443"),
        ([], "B447"),
    ],
)
def test_mistakes_are_told(
    shop: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    (shop / "torn.parquet").write_bytes((shop / "orders.parquet").read_bytes()[:-9])
    assert main(["quality", *words, "--contract", "shop.yaml", "--no-history"]) == 1
    assert code in capsys.readouterr().err


def test_a_contract_that_cannot_be_executed(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = CONTRACT.replace("engine: boucle, severity", "engine: soda, severity").replace(
        "mustBe: 0", "mustBe: many"
    )
    (shop / "shop.yaml").write_text(text)
    assert main(["quality", "orders.parquet", "--contract", "shop.yaml"]) == 1
    said = capsys.readouterr().err
    assert "'soda'" in said
    assert "many" in said
    (shop / "shop.yaml").write_text(CONTRACT.replace("checks:odd", "nowhere:odd"))
    assert main(["quality", "orders.parquet", "--contract", "shop.yaml", "--no-history"]) == 1
    assert "B445" in capsys.readouterr().err
    (shop / "shop.yaml").write_text("kind: Loop\n")
    assert main(["quality", "orders.parquet", "--contract", "shop.yaml"]) == 1
    assert "B447" in capsys.readouterr().err
