"""`boucle init` and `boucle contract`: from data to a product that `boucle check` passes, and to other languages."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from boucle.cli.main import main

ORDERS = "id,at,state,total,email\n" + "".join(
    f"{n},2026-11-{n % 28 + 1:02d}T08:00:00Z,{'paid' if n % 2 else 'open'},{n / 4},a{n}@example.org\n"
    for n in range(60)
)


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    file = tmp_path / "orders.csv"
    file.write_text(ORDERS + "broken\n", encoding="utf-8")
    return file


def test_a_new_product_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "My shop"
    assert main(["init", str(folder), "--json"]) == 0
    assert [Path(file).name for file in told(capsys)["written"]] == ["product.yaml", "boucle.toml"]
    assert main(["check", str(folder)]) == 0
    assert "my-shop: sound" in capsys.readouterr().out
    assert main(["init", str(folder)]) == 1
    assert "B253" in capsys.readouterr().err


def test_a_product_from_data(orders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shop"
    assert main(["init", str(folder), "--from", str(orders)]) == 0
    said = capsys.readouterr()
    assert "To confirm, one by one" in said.out
    assert "line 62: columns are missing" in said.err
    assert (folder / "broken-lines.txt").read_text(
        encoding="utf-8"
    ) == "# line 62: columns are missing\nbroken\n"
    assert "is no promise yet" in (folder / "product.yaml").read_text(encoding="utf-8")
    assert main(["check", str(folder), "--json"]) == 0
    assert told(capsys) == {"ok": True, "problems": []}


def test_accepted_guesses_are_promises(
    orders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shop"
    assert main(["init", str(folder), "--from", str(orders), "--accept", "all", "--json"]) == 0
    accepted = {(one["column"], one["of"]) for one in told(capsys)["guesses"] if one["accepted"]}
    assert {("id", "key"), ("email", "personal"), ("state", "values")} <= accepted
    assert main(["check", str(folder), "--json"]) == 0
    capsys.readouterr()
    assert main(["contract", "show", str(folder), "--json"]) == 0
    found = {one["name"]: one for one in told(capsys)["schema"][0]["properties"]}
    assert (found["id"]["primaryKey"], found["email"]["classification"]) == (True, "restricted")
    assert main(["init", str(tmp_path / "b"), "--from", str(orders), "--accept", "evrything"]) == 1
    assert "B253" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(orders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "shop"), "--from", str(orders), "--dry-run", "--json"]) == 0
    said = told(capsys)
    assert (said["rows"], said["broken_lines"], said["written"]) == (60, 1, [])
    assert not (tmp_path / "shop").exists()


def test_a_product_from_a_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "reading.proto"
    file.write_text(
        'syntax = "proto3"; message Reading { string machine = 1; double value = 2; }', encoding="utf-8"
    )
    assert main(["init", str(tmp_path / "r"), "--from", str(file)]) == 0
    assert main(["check", str(tmp_path / "r")]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    "way", ["arrow", "avro", "duckdb", "jsonschema", "postgresql", "protobuf", "pydantic"]
)
def test_the_press_in_every_language(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "export", "examples/press", "--to", way, "--table", "vibration"]) == 0
    said = capsys.readouterr()
    assert "samples" in said.out
    if way != "arrow":
        assert "unit 'g' is not said" in said.err
    assert (
        main(["contract", "export", "examples/press", "--to", way, "--output", str(tmp_path / "x.out")]) == 0
    )
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [file.name for file in files][:2] == ["x-vibration.out", "x-process.out"]
    if way == "arrow":
        assert pa.ipc.read_schema(pa.py_buffer(files[0].read_bytes())).names[0] == "producer"
    if way != "pydantic":
        assert main(["contract", "import", str(files[0]), "--of", way, "--json"]) == 0
        (table,) = told(capsys)["contract"]["schema"]
        assert [one["name"] for one in table["properties"]][:3] == ["producer", "seq", "machine"]


def test_an_imported_contract_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "orders.sql").write_text(
        "create table orders (id bigint primary key, at timestamptz not null);"
    )
    contract = tmp_path / "orders.odcs.yaml"
    assert main(["contract", "import", str(tmp_path / "orders.sql"), "--output", str(contract)]) == 0
    assert main(["check", str(contract)]) == 0
    assert "orders: sound" in capsys.readouterr().out


def test_what_cannot_be_told_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.odps.yaml").write_text("kind: DataProduct\napiVersion: v1.0.0\nid: a\nstatus: active\n")
    (tmp_path / "a.avsc").write_text("{")
    for words, code in [
        (["export", "examples/press", "--to", "xml"], "B248"),
        (["export", "examples/press", "--to", "avro", "--table", "nothing"], "B248"),
        (["export", str(tmp_path / "a.odps.yaml"), "--to", "avro"], "B242"),
        (["export", str(tmp_path / "none.yaml"), "--to", "avro"], "B201"),
        (["import", str(tmp_path / "a.avsc")], "B247"),
        (["import", str(tmp_path / "b.avsc")], "B247"),
        (["import", str(tmp_path / "a.unknown")], "B248"),
    ]:
        assert main(["contract", *words]) == 1
        assert code in capsys.readouterr().err
