# ruff: noqa: PT017 - rubbish may be refused, or be sound by chance
"""The law of every schema language: what is written reads back the same, or the losses say what does not."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.errors import BoucleError
from boucle.product.columns import Column, Kind, column, columns, property_of, schema_object
from boucle.product.formats import arrow, avro, export, import_text, protobuf, pydantic, sql
from boucle.product.formats import jsonschema as json_schema
from boucle.product.formats.losses import Losses
from boucle.product.lines import Document, read_documents
from tests.lake.server import PostgresServer

STANDARDS = Path(__file__).parents[3] / "shared" / "standards"

WAYS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[str, ...]]] = {
    "arrow": (arrow.write, arrow.read, ()),
    "avro": (avro.write, avro.read, ()),
    "jsonschema": (json_schema.write, json_schema.read, ()),
    "protobuf": (protobuf.write, protobuf.read, ()),
    "duckdb": (sql.write, sql.read, ("duckdb",)),
    "postgresql": (sql.write, sql.read, ("postgresql",)),
}

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True) | st.sampled_from(
    ["Größe", "a b", "select", "2nd", "größe"]
)
words = st.text("abc é'\"\\\n€%", max_size=8)


def kinds(children: st.SearchStrategy[Column]) -> st.SearchStrategy[Kind]:
    unique = st.lists(children, min_size=1, max_size=3, unique_by=lambda one: one.name.lower())
    return st.one_of(
        children.map(lambda one: Kind("array", item=named(one, "item"))),
        children.map(lambda one: Kind("map", item=named(one, "value"))),
        unique.map(lambda found: Kind("object", fields=tuple(found))),
    )


def named(one: Column, name: str) -> Column:
    return Column(name, one.kind, required=one.required)


plain = st.one_of(
    st.sampled_from([Kind("string"), Kind("boolean"), Kind("date"), Kind("binary"), Kind("any"), Kind("binary",
        length=16)]),
    st.sampled_from(["uuid", "json", "email"]).map(lambda word: Kind("string", format=word)),
    st.builds(lambda bits, signed: Kind("integer", bits, signed=signed), st.sampled_from([8, 16, 32, 64]),
        st.booleans()),
    st.sampled_from([16, 32, 64]).map(lambda bits: Kind("number", bits)),
    st.builds(lambda whole, scale: Kind("decimal", precision=whole + scale, scale=scale), st.integers(1, 20),
        st.integers(0, 9)),
    st.builds(lambda unit, zone: Kind("timestamp", unit=unit, zone=zone), st.sampled_from(["s", "ms", "us",
        "ns"]), st.booleans()),
    st.sampled_from(["s", "ms", "us", "ns"]).map(lambda unit: Kind("time", unit=unit)),
)  # fmt: skip


def told(one: Column, data: Any) -> Column:
    """A column that also says what fits its type."""
    options: dict[str, Any] = {}
    values: tuple[Any, ...] = ()
    if one.kind.family in {"integer", "number"}:
        options = data.draw(
            st.sampled_from([{}, {"minimum": 0}, {"minimum": 1, "exclusiveMaximum": 9.5}, {"multipleOf": 2}])
        )
    elif one.kind == Kind("string"):
        options = data.draw(
            st.sampled_from([{}, {"maxLength": 9}, {"minLength": 1, "pattern": "[A-Z]{2}'?"}])
        )
        values = data.draw(st.sampled_from([(), ("new", "it's"), ("a",)]))
    return Column(
        one.name, one.kind, required=one.required, unique=data.draw(st.booleans()),
        description=data.draw(words.map(str.strip)), options=options, values=values,
    )  # fmt: skip


def deep(children: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return kinds(st.builds(Column, names, children, required=st.booleans()))


tables = st.lists(
    st.builds(Column, names, st.recursive(plain, deep, max_leaves=4), required=st.booleans()),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one.name.lower(),
)


@st.composite
def whole_tables(draw: Any) -> tuple[Column, ...]:
    data = draw(st.data())
    found = [told(one, data) for one in draw(tables)]
    keyed = data.draw(st.integers(0, len(found)))
    return tuple(
        Column(one.name, one.kind, required=True, unique=one.unique, key=place, description=one.description,
               options=one.options, values=one.values) if place <= keyed and one.kind.family in {"string", "integer"}
        else one
        for place, one in enumerate(found, 1)
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@given(table=whole_tables())
def test_written_and_read_back(way: str, table: tuple[Column, ...]) -> None:
    write, read, extra = WAYS[way]
    lost = Losses()
    ((name, once),) = read(write("readings", table, lost, *extra), lost, *extra)
    assert name == "readings"
    if not lost.found:
        assert _ordered(once) == _ordered(table)
    again = Losses()
    ((_, twice),) = read(write("readings", once, again, *extra), again, *extra)
    assert _ordered(twice) == _ordered(once), "a second trip changes nothing"


def _ordered(found: tuple[Column, ...]) -> list[Column]:
    """Keys by their order, not their numbers: SQL has no numbers for them."""
    places = sorted(one.key for one in found if one.key)
    return [
        Column(one.name, one.kind, one.required, one.unique, places.index(one.key) + 1 if one.key else 0,
               one.description, dict(sorted(one.options.items())), one.values, one.examples)
        for one in found
    ]  # fmt: skip


@given(whole_tables())
def test_odcs_itself_loses_nothing_but_maps(table: tuple[Column, ...]) -> None:
    for one in table:
        if "map" not in str(one.kind) and "any" not in str(one.kind):
            assert column(property_of(one)) == one


@given(whole_tables())
def test_libraries_accept_what_is_written(table: tuple[Column, ...]) -> None:
    fastavro.parse_schema(json.loads(avro.write("readings", table, Losses())))
    jsonschema.Draft202012Validator.check_schema(json.loads(json_schema.write("readings", table, Losses())))
    space: dict[str, Any] = {}
    exec(compile(pydantic.write("readings", table, Losses()), "readings.py", "exec"), space)
    assert len(space["Readings"].model_fields) == len(table)


@settings(max_examples=30)
@given(whole_tables())
def test_duckdb_makes_the_table(table: tuple[Column, ...]) -> None:
    with duckdb.connect() as connection:
        connection.execute(sql.write("readings", table, Losses(), "duckdb"))
        made = [row[0] for row in connection.execute("describe readings").fetchall()]
    assert made == [one.name for one in table]


@settings(max_examples=15)
@given(table=whole_tables())
def test_postgresql_makes_the_table(postgres: PostgresServer, table: tuple[Column, ...]) -> None:
    import psycopg

    with psycopg.connect(postgres.address) as connection:
        connection.execute("create schema tried")
        connection.execute("set search_path to tried")
        connection.execute(sql.write("readings", table, Losses(), "postgresql").encode())
        connection.rollback()


@settings(max_examples=4)
@given(table=whole_tables())
def test_protoc_compiles_what_is_written(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[Column, ...]
) -> None:
    folder = tmp_path_factory.mktemp("proto")
    (folder / "readings.proto").write_text(protobuf.write("readings", table, Losses()), encoding="utf-8")
    words = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{folder}",
        f"--python_out={folder}",
        "readings.proto",
    ]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_values_are_judged_alike_by_pydantic_and_json_schema() -> None:
    table = (
        Column("id", Kind("integer", 8), required=True, key=1),
        Column("state", Kind("string"), required=True, values=("new", "old")),
        Column("code", Kind("string"), options={"pattern": "[A-Z]{2}", "maxLength": 2}),
        Column("at", Kind("timestamp"), required=True),
        Column(
            "tags", Kind("array", item=Column("item", Kind("string"), required=True)), options={"maxItems": 2}
        ),
        Column(
            "where",
            Kind("object", fields=(Column("lat", Kind("number"), required=True, options={"maximum": 90}),)),
        ),
    )
    good = {
        "id": 1,
        "state": "new",
        "code": "AB",
        "at": "2026-11-21T10:00:00Z",
        "tags": ["a"],
        "where": {"lat": 1.5},
    }
    space: dict[str, Any] = {}
    exec(pydantic.write("order line", table, Losses()), space)
    model = space["OrderLine"]
    schema = json.loads(json_schema.write("order line", table, Losses()))
    validator = jsonschema.Draft202012Validator(schema)
    cases: list[tuple[dict[str, Any], bool]] = [
        ({}, True), ({"code": None}, True), ({"id": 200}, False), ({"state": "odd"}, False), ({"code": "ABC"}, False),
        ({"code": "ab"}, False), ({"tags": ["a", "b", "c"]}, False), ({"where": {"lat": 91}}, False),
            ({"where": {}}, False),
        ({"id": None}, False),
    ]  # fmt: skip
    for changes, sound in cases:
        row = {**good, **changes}
        assert validator.is_valid(row) is sound, row
        if sound:
            assert model.model_validate(row)
        else:
            with pytest.raises(ValueError, match=r"validation error"):
                model.model_validate(row)


def test_arrow_data_fit_the_exported_schema() -> None:
    table = (Column("id", Kind("integer", 32), required=True), Column("at", Kind("timestamp", unit="ns")))
    schema = arrow.to_schema(table)
    assert schema == pa.schema(
        [pa.field("id", pa.int32(), nullable=False), ("at", pa.timestamp("ns", "UTC"))]
    )


PROTO = """
syntax = "proto3";
package shop.v1; // the package
import "google/protobuf/timestamp.proto";
option java_package = "x";
/* An order. */
message Order {
  reserved 4, 6;
  enum State { UNKNOWN = 0; OPEN = 1; }
  message Line { string article = 1; uint32 count = 2 [deprecated = true]; }
  // Who ordered.
  string customer = 1;
  optional double total = 2;
  repeated Line lines = 3;
  map<string, int64> counts = 5;
  State state = 7;
  google.protobuf.Timestamp at = 8;
  oneof paid { string card = 9; bool cash = 10; }
  Order parent = 11;
  other.Thing thing = 12;
}
service Shop { rpc Get(Order) returns (Order) { option x = "y"; } }
"""


def test_a_proto_file_of_others_is_read() -> None:
    lost = Losses()
    ((name, found),) = protobuf.read(PROTO, lost)
    by_name = {one.name: one for one in found}
    assert name == "Order"
    assert by_name["customer"].description == "Who ordered."
    assert by_name["lines"].kind.item is not None
    assert [one.name for one in by_name["lines"].kind.item.kind.fields] == ["article", "count"]
    assert by_name["state"].values == ("UNKNOWN", "OPEN")
    assert not by_name["total"].required
    assert by_name["at"].kind == Kind("timestamp", unit="ns")
    assert [
        one
        for one in ("service", "holds itself", "another file", "only one of")
        if not any(one in t for t in lost.found)
    ] == []


DDL = """
CREATE TABLE shop.orders (
  id bigserial PRIMARY KEY,
  code varchar(12) NOT NULL UNIQUE CHECK (code ~ '^[A-Z]+$'),
  amount numeric(10,2) CHECK (amount BETWEEN 0 AND 1000),
  state text DEFAULT 'new' CHECK (state IN ('new', 'paid')),
  customer integer REFERENCES customers (id),
  tags text[], at timestamptz NOT NULL, day date, point point,
  CHECK (amount > 0 OR state = 'new'), UNIQUE (code, state)
);
COMMENT ON COLUMN shop.orders.code IS 'What stands on the invoice';
CREATE INDEX at_of ON orders (at);
"""


def test_ddl_of_others_is_read() -> None:
    lost = Losses()
    ((name, found),) = sql.read(DDL, lost, "postgresql")
    one = {one.name: one for one in found}
    assert (name, one["id"].key, one["id"].kind) == ("orders", 1, Kind("integer", 64))
    assert (one["code"].unique, one["code"].required, one["code"].options["maxLength"]) == (True, True, 12)
    assert one["code"].description == "What stands on the invoice"
    assert (one["amount"].kind.precision, one["amount"].options) == (10, {"minimum": 0, "maximum": 1000})
    assert one["state"].values == ("new", "paid")
    assert one["tags"].kind.item == Column("item", Kind("string"))
    assert one["at"].kind.zone
    for words in ("DEFAULT", "REFERENCES", "point", "several columns", "code, state", "at_of"):
        assert any(words in text for text in lost.found), (words, lost.found)


AVRO = {
    "type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "id", "type": "long"},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "OLD"]}, "default": "NEW"},
        {"name": "total", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
        {"name": "next", "type": ["null", "Order"]},
        {"name": "any", "type": ["null", "string", "long"]},
    ],
}  # fmt: skip


def test_avro_of_others_is_read() -> None:
    lost = Losses()
    ((name, found),) = avro.read(json.dumps(AVRO), lost)
    one = {one.name: one for one in found}
    assert (name, one["id"].required, one["total"].required) == ("Order", True, False)
    assert one["state"].values == ("NEW", "OLD")
    assert (one["total"].kind.precision, one["total"].kind.scale) == (9, 2)
    assert any("union" in text for text in lost.found)
    assert any("default" in text for text in lost.found)


@pytest.mark.skipif(not STANDARDS.exists(), reason="the official examples are not beside the project")
def test_official_examples_are_told_in_every_language() -> None:
    for file in sorted((STANDARDS / "odcs" / "examples").rglob("*.yaml")):
        (document,), problems = read_documents(file)
        assert problems == []
        if len(document.value.get("schema") or ()) > 5:
            document.value["schema"] = document.value["schema"][:3]
        for way in (*WAYS, "pydantic"):
            for one in export(document, way):
                assert one.content
                if way != "pydantic":
                    content = one.content if isinstance(one.content, bytes) else one.content.encode()
                    (found,), _ = import_text(content, way)
                    assert len(found["properties"]) == len(
                        columns(next(o for o in document.value["schema"] if o["name"] == one.name))
                    )


@pytest.mark.parametrize("way", WAYS)
@given(
    content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))
)
def test_rubbish_is_refused_in_words(way: str, content: bytes) -> None:
    try:
        found, _ = import_text(content, way)
    except BoucleError as error:
        assert error.code == "B247"
        assert error.fix
    else:
        assert isinstance(found, list)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    | st.sampled_from(["record", "array", "object", "string", "int", "enum", "bytes", "decimal", "fixed"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["type", "name", "fields", "items", "values", "symbols", "properties", "required",
        "$ref", "anyOf", "enum", "logicalType", "precision", "size", "x-odcs", "odcs", "title", "minimum"]),
            inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize("way", ["avro", "jsonschema"])
@given(value=json_values)
def test_almost_schemas_are_refused_in_words(way: str, value: Any) -> None:
    try:
        import_text(json.dumps(value).encode(), way)
    except BoucleError as error:
        assert error.code == "B247"


@given(st.lists(st.sampled_from(
    ["message", "A", "{", "}", "string", "x", "=", "1", ";", "repeated", "map", "<", ">", ",", "oneof", "enum",
        "// c\n", "option", "[", "]"]
), max_size=30).map(" ".join))  # fmt: skip
def test_almost_proto_is_refused_in_words(text: str) -> None:
    try:
        import_text(text.encode(), "protobuf")
    except BoucleError as error:
        assert error.code == "B247"


def test_unknown_formats_and_tables_are_named() -> None:
    with pytest.raises(BoucleError, match="no format"):
        import_text(b"", "xml")
    with pytest.raises(BoucleError, match="written, not read"):
        import_text(b"", "pydantic")
    assert schema_object("t", ()) == {"name": "t", "physicalType": "table", "properties": []}


def test_a_guess_nobody_accepted_is_no_loss() -> None:
    guessed = {"property": "guessedRange", "value": [1, 2], "description": "smallest and largest value"}
    said = {"property": "sensor", "value": "S1"}
    prop = {"name": "x", "logicalType": "integer", "customProperties": [guessed, said]}
    contract = Document("c.yaml", {"schema": [{"name": "t", "properties": [prop]}]}, {})
    (told,) = export(contract, "arrow")
    assert told.losses == ("x: sensor 'S1' is not said",)
