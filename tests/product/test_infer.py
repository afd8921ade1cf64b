# ruff: noqa: PT017 - rubbish may be refused, or be sound by chance
"""Contracts out of data that are there: every kind of source, dirty ones too; guesses, never promises."""

import datetime as dt
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boucle.errors import BoucleError
from boucle.product.infer import Inferred, infer
from boucle.product.infer.delimited import encoding_of
from boucle.product.infer.personal import luhn, personal
from tests.lake.server import PostgresServer

ROWS = 200
HEADER = ["id", "at", "machine", "value", "email", "ok", "day"]


def row(number: int) -> list[Any]:
    return [
        number, f"2026-11-{number % 28 + 1:02d}T10:00:{number % 60:02d}Z", f"press-{number % 3}", number * 0.25 - 7,
        f"user{number}@example.org", str(number % 2 == 0).lower(), f"2026-01-{number % 28 + 1:02d}",
    ]  # fmt: skip


def table() -> pa.Table:
    columns = dict(zip(HEADER, zip(*map(row, range(ROWS)), strict=True), strict=True))
    return pa.table({
        "id": pa.array(columns["id"], pa.int32()),
        "at": pa.array([dt.datetime.fromisoformat(one) for one in columns["at"]], pa.timestamp("us", "UTC")),
        "machine": pa.array(columns["machine"]),
        "value": pa.array(columns["value"], pa.float64()),
        "email": pa.array(columns["email"]),
        "ok": pa.array([one == "true" for one in columns["ok"]]),
        "day": pa.array([dt.date.fromisoformat(one) for one in columns["day"]]),
    })  # fmt: skip


def lines(delimiter: str = ",") -> str:
    return "\n".join(delimiter.join(map(str, one)) for one in [HEADER, *map(row, range(ROWS))]) + "\n"


def guessed(found: Inferred) -> dict[tuple[str, str], Any]:
    return {(one.column, one.of): one.value for one in found.guesses}


def expect_the_same(found: Inferred) -> None:
    """What every source of these rows must lead to."""
    told = guessed(found)
    assert found.rows == ROWS
    assert told["id", "type"].startswith("integer")
    assert told["id", "range"] == [0, ROWS - 1]
    assert told["id", "key"] == 1
    assert told["at", "type"] == "timestamp timestamp_ns"
    assert told["at", "time"] is True
    assert told["at", "range"][0] == "2026-11-01T10:00:00Z"
    assert told["machine", "values"] == ["press-0", "press-1", "press-2"]
    assert told["value", "type"] == "number float64"
    assert told["value", "range"] == [-7.0, (ROWS - 1) * 0.25 - 7]
    assert told["email", "personal"] == "email"
    assert told["ok", "type"] == "boolean"
    assert told["day", "type"] == "date"
    assert ("machine", "required") in told
    assert ("machine", "personal") not in told


def write_csv(folder: Path) -> str:
    (folder / "readings.csv").write_text(lines(), encoding="utf-8")
    return str(folder / "readings.csv")


def write_semicolons(folder: Path) -> str:
    (folder / "readings.csv").write_text(lines(";"), encoding="utf-16")
    return str(folder / "readings.csv")


def write_parquet(folder: Path) -> str:
    pq.write_table(table(), folder / "readings.parquet")
    return str(folder / "readings.parquet")


def write_json_lines(folder: Path) -> str:
    import json

    rows = [dict(zip(HEADER, row(number), strict=True)) for number in range(ROWS)]
    text = "".join(json.dumps({**one, "ok": one["ok"] == "true"}) + "\n" for one in rows)
    (folder / "readings.jsonl").write_text(text, encoding="utf-8")
    return str(folder / "readings.jsonl")


def write_avro(folder: Path) -> str:
    schema = {"type": "record", "name": "readings", "fields": [
        {"name": "id", "type": "int"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "machine", "type": ["null", "string"]}, {"name": "value", "type": "double"},
        {"name": "email", "type": "string"}, {"name": "ok", "type": "boolean"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    ]}  # fmt: skip
    with (folder / "readings.avro").open("wb") as file:
        fastavro.writer(file, schema, table().to_pylist())
    return str(folder / "readings.avro")


def write_sqlite(folder: Path) -> str:
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute(
            "create table readings (id integer primary key, at, machine text, value real, email, ok, day)"
        )
        connection.executemany("insert into readings values (?, ?, ?, ?, ?, ?, ?)", map(row, range(ROWS)))
    connection.close()
    return str(folder / "shop.db")


def write_duckdb(folder: Path) -> str:
    with duckdb.connect(str(folder / "shop.duckdb")) as connection:
        rows = table()
        connection.register("given", rows)
        connection.execute('create table readings (id integer primary key, "at" timestamptz, machine varchar not null,'
                           " value double, email varchar, ok boolean, day date)")  # fmt: skip
        connection.execute("insert into readings select * from given")
    return str(folder / "shop.duckdb")


def write_xlsx(folder: Path) -> str:
    book = openpyxl.Workbook()
    for one in [HEADER, *map(row, range(ROWS))]:
        book.active.append(one)
    book.save(folder / "readings.xlsx")
    return str(folder / "readings.xlsx")


@pytest.mark.parametrize(
    "write",
    [
        write_csv,
        write_semicolons,
        write_parquet,
        write_json_lines,
        write_avro,
        write_sqlite,
        write_duckdb,
        write_xlsx,
    ],
    ids=lambda write: write.__name__.removeprefix("write_"),
)
def test_every_source_leads_to_the_same_guesses(write: Any, tmp_path: Path) -> None:
    found = infer(write(tmp_path))
    expect_the_same(found)
    assert found.name == "readings"
    assert found.broken_lines == 0


def test_a_table_of_postgresql(postgres: PostgresServer) -> None:
    import psycopg

    with psycopg.connect(postgres.address) as connection:
        connection.execute("create schema if not exists guessing")
        connection.execute("drop table if exists guessing.readings")
        connection.execute(
            "create table guessing.readings (id integer primary key, at timestamptz not null, machine text,"
            " value float8, email text, ok boolean, day date)"
        )
        connection.cursor().executemany(
            "insert into guessing.readings values (%s, %s, %s, %s, %s, %s, %s)", [row(n) for n in range(ROWS)]
        )
    found = infer(f"{postgres.address}?table=guessing.readings")
    expect_the_same(found)
    why = {(one.column, one.of): one.why for one in found.guesses}
    assert why["id", "key"] == "the database says so"
    assert "boucle@" not in found.address
    with pytest.raises(BoucleError, match="no table") as caught:
        infer(postgres.address, table="nothing")
    assert "guessing.readings" in caught.value.fix


def test_nothing_guessed_is_a_promise(tmp_path: Path) -> None:
    found = infer(write_csv(tmp_path))
    promises = {"required", "unique", "primaryKey", "logicalTypeOptions", "quality", "classification"}
    for prop in found.schema_object()["properties"]:
        assert not promises & prop.keys()
        assert all(
            one["property"].startswith("guessed") and one["description"] for one in prop["customProperties"]
        )
    one, *_ = found.schema_object(accepted=("required", "key", "range"))["properties"]
    assert (one["required"], one["primaryKey"], one["logicalTypeOptions"]) == (
        True,
        True,
        {"minimum": 0, "maximum": 199},
    )
    assert [custom["property"] for custom in one["customProperties"]] == ["guessedType", "guessedUnique"]


def test_broken_lines_are_told_kept_and_passed_over(tmp_path: Path) -> None:
    """A hundred thousand rows, quoted line breaks before the broken ones, four kinds of breakage."""
    bad = {
        400: b"only one column", 500: b"1,2,3,4,5,6,7,8,9",
            600: b"9,2026-11-01T10:00:00Z,m,1,caf\xe9@example.org,true,2026-01-01",
    }  # fmt: skip
    content = [",".join(HEADER).encode()]
    at: dict[int, bytes] = {}
    line = 1
    for number in range(100_000):
        line += 1
        if number in bad:
            content.append(bad[number])
            at[line] = bad[number]
            line += 1
        values = list(map(str, row(number)))
        if number % 50 == 0:
            values[2] = f'"a\né {number % 3}"'
            line += 1
        content.append(",".join(values).encode())
    file = tmp_path / "big.csv"
    file.write_bytes(b"\n".join(content) + b"\n")
    found = infer(str(file), quarantine=tmp_path / "broken.txt")
    assert found.rows == 100_000
    assert found.broken_lines == 3
    assert {one.line: one.content for one in found.broken} == at
    kept = (tmp_path / "broken.txt").read_bytes()
    assert all(one in kept for one in bad.values())
    assert guessed(found)["id", "range"] == [0, 99_999]
    assert any("latin-1" in note for note in found.notes)


def test_latin_1_is_read(tmp_path: Path) -> None:
    file = tmp_path / "villes.csv"
    file.write_bytes("nom;ville\nRenée;Besançon\nZoé;Nîmes\n".encode("latin-1"))
    found = infer(str(file))
    assert [one["name"] for one in found.properties] == ["nom", "ville"]
    assert any("latin-1" in note for note in found.notes)
    assert guessed(found)["nom", "personal"] == "name"


def test_values_that_do_not_fit_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "n,code\n" + "".join(f"{n if n != 300 else 'N/A'},{n:05d}\n" for n in range(1000)), encoding="utf-8"
    )
    found = infer(str(file))
    (why,) = [one.why for one in found.guesses if (one.column, one.of) == ("n", "type")]
    assert "1 do not, e.g. 'N/A'" in why
    told = guessed(found)
    assert told["n", "type"] == "integer int64"
    assert ("n", "required") not in told
    assert told["code", "type"] == "string", "a leading zero makes a label"


def test_a_file_that_changes_its_mind(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    rows = [str(n) for n in range(30_000)] + ["text"] * 30_000
    file.write_text("n,m\n" + "".join(f"{one},1\n" for one in rows), encoding="utf-8")
    told = {(one.column, one.of): one for one in infer(str(file)).guesses}
    assert told["n", "type"].value == "string"
    assert "30000 values are not" in told["n", "type"].why


def test_a_key_of_two_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "machine,shot,v\n" + "".join(f"m{n % 5},{n // 5},{n % 7}\n" for n in range(100)), encoding="utf-8"
    )
    told = guessed(infer(str(file)))
    assert (told["machine", "key"], told["shot", "key"]) == (1, 2)


def sheet(tmp_path: Path, *rows: list[Any], merge: str = "") -> str:
    book = openpyxl.Workbook()
    for one in rows:
        book.active.append(one)
    if merge:
        book.active.merge_cells(merge)
    book.create_sheet("other")
    book.save(tmp_path / "plan.xlsx")
    return str(tmp_path / "plan.xlsx")


def test_a_sheet_with_a_title_merged_cells_and_holes(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["Production 2026", None, None, None], [None] * 4, ["machine", "part", None, "count"],
        ["press-1", "a", None, 1], [None, "b", None, 2], [None] * 4, ["press-2", "c", None, 3],
    ]  # fmt: skip
    book = openpyxl.Workbook()
    for one in rows:
        book.active.append(one)
    book.active.merge_cells("A1:D1")
    book.active.merge_cells("A4:A5")
    book.save(tmp_path / "plan.xlsx")
    found = infer(str(tmp_path / "plan.xlsx"))
    assert [one["name"] for one in found.properties] == ["machine", "part", "count"]
    assert found.rows == 3
    assert ("machine", "required") in guessed(found), "a merged cell stands for all it covers"
    notes = " ".join(found.notes)
    for words in ("2 rows above", "A4:A5", "empty columns were passed over: C", "1 empty rows"):
        assert words in notes


@pytest.mark.parametrize(
    ("rows", "merge", "words"),
    [
        ([["a", "a"], [1, 2]], "", "two columns are called 'a'"),
        ([["north", None, "south"], [1, 2, 3]], "A1:B1", "merged cells"),
        ([[None]], "", "is empty"),
    ],
)
def test_sheets_that_are_no_table(tmp_path: Path, rows: list[list[Any]], merge: str, words: str) -> None:
    with pytest.raises(BoucleError, match=words) as caught:
        infer(sheet(tmp_path, *rows, merge=merge))
    assert caught.value.code == "B250"
    assert caught.value.fix


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "header.csv").write_text("a,b\n", encoding="utf-8")
    (tmp_path / "two.db").write_bytes(b"")
    with sqlite3.connect(tmp_path / "two.db") as connection:
        connection.executescript("create table a (x); create table b (x);")
    connection.close()
    for name in ("a.parquet", "a.avro", "a.duckdb"):
        (tmp_path / name).write_bytes(b"not one")
    (tmp_path / "a.xlsx").write_bytes(b"not one")
    (tmp_path / "a.jsonl").write_text("1\n2\n", encoding="utf-8")
    for name, code in [("empty.csv", "B249"), ("header.csv", "B254"), ("two.db", "B249"), ("a.parquet", "B249"),
                       ("a.avro", "B249"), ("a.duckdb", "B249"), ("a.xlsx", "B250"), ("a.jsonl", "B249"),
                       ("nowhere.csv", "B249"), (".", "B249")]:  # fmt: skip
        with pytest.raises(BoucleError) as caught:
            infer(str(tmp_path / name))
        assert (caught.value.code, bool(caught.value.fix)) == (code, True), name
    with pytest.raises(BoucleError) as caught:
        infer("postgresql://nobody@127.0.0.1:1/none")
    assert caught.value.retryable


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=120) | st.text('a1,;"\n\t\r é', max_size=60).map(str.encode),
    name=st.sampled_from(["a.csv", "a.jsonl"]),
)
def test_rubbish_is_told_in_words(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        found = infer(str(tmp_path / name))
    except BoucleError as error:
        assert error.code in {"B249", "B254"}
        assert error.fix
    else:
        assert found.rows > 0


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("x", ["a@b.fr", "c.d@e.example"], "email"),
        ("x", ["+33 6 12 34 56 78", "06 12 34 56 78"], "phone"),
        ("x", ["FR76 3000 6000 0112 3456 7890 189", "DE89370400440532013000"], "iban"),
        ("x", ["DE89370400440532013001"], None),
        ("x", ["4111 1111 1111 1111", "5500005555555559"], "card"),
        ("x", ["4111111111111112"], None),
        ("x", ["192.168.0.1", "fe80::1"], "ip"),
        ("x", ["10:00:00", "11:30:00"], None),
        ("x", ["1 84 12 76 451 089 46"], "national-id"),
        ("x", ["123-45-6789"], "national-id"),
        ("customerEmail", [], "email"),
        ("N° téléphone", [], "phone"),
        ("telephone", ["?"], "phone"),
        ("Prénom", [], "name"),
        ("date_naissance", [], "birth-date"),
        ("first_name", ["Ada"], "name"),
        ("machine_name", ["press-1"], None),
        ("hostname", ["a"], None),
        ("value", ["1.5", "2.5"], None),
        ("ip", ["1", "2"], None),
    ],
)
def test_personal_data_by_name_and_content(name: str, values: list[str], kind: str | None) -> None:
    found = personal(name, values)
    assert (found.kind if found else None) == kind


def test_luhn() -> None:
    assert luhn("4111111111111111")
    assert not luhn("4111111111111121")


def test_one_odd_byte_is_no_other_encoding(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("é".encode() * 50 + b"\xe9\n")
    assert encoding_of(tmp_path / "a") == "utf-8"


def test_a_file_that_is_torn_is_told(tmp_path: Path) -> None:
    whole = Path(write_parquet(tmp_path)).read_bytes()
    middle = whole[4 : len(whole) // 2]
    (tmp_path / "torn.parquet").write_bytes(whole.replace(middle, b"\xff" * len(middle)))
    with pytest.raises(BoucleError) as caught:
        infer(str(tmp_path / "torn.parquet"))
    assert caught.value.code == "B249"
