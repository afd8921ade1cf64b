"""Declared output ports: what check says of them, and tables that are not what was promised."""

import pyarrow as pa
import pytest

from boucle.errors import ContractBroken
from boucle.outlet.notes import ColumnNote, TableNote, notes
from boucle.outlet.ports import check_contract, output_ports, port_problems
from boucle.product.lines import Document, read_documents

PRODUCT = """\
apiVersion: v1.0.0
kind: DataProduct
id: press
status: active
outputPorts:
  - {name: features, type: sql, version: 1.0.0}
  - name: pages
    type: rest
    version: 1.0.0
    customProperties: [{property: table, value: features}]
  - {name: old, version: 1.0.0}
"""
ABOUT = {"features": TableNote()}


def document(text: str, tmp_path: object) -> Document:
    from pathlib import Path

    path = Path(str(tmp_path)) / "product.yaml"
    path.write_text(text)
    (found,), problems = read_documents(path)
    assert problems == []
    return found


def test_ports_are_read(tmp_path: object) -> None:
    product = document(PRODUCT, tmp_path)
    assert [(one.name, one.kind, one.table) for one in output_ports(product.value)] == [
        ("features", "sql", "features"), ("pages", "rest", "features"), ("old", "tables", "old"),
    ]  # fmt: skip
    assert list(port_problems(product, ABOUT)) == []


@pytest.mark.parametrize(
    ("port", "what", "fix"),
    [
        ("{name: features, type: sqll, version: 1.0.0}", "no interface 'sqll'", 'did you mean "sql"?'),
        (
            "{name: features, type: carrier pigeon, version: 1.0.0}",
            "no interface",
            "one of tables, sql, flight",
        ),
        (
            "{name: featurs, type: flight, version: 1.0.0}",
            "nothing of a table 'featurs'",
            'did you mean "features"?',
        ),
        (
            "{name: features, type: rest, version: 1.0.0, customProperties: [{property: colour, value: red}]}",
            "no setting 'colour'",
            "known: table",
        ),
        (
            "{name: features, type: files, version: 1.0.0, customProperties: [{property: format, value: xls}]}",
            "cannot be 'xls'",
            "one of parquet, csv",
        ),
        (
            "{name: features, type: events, version: 1.0.0, customProperties: [{property: to, value: 'mqt://b/x'}]}",
            "unknown sink scheme",
            "mqtt",
        ),
    ],
)
def test_what_cannot_be_is_told_with_its_line(tmp_path: object, port: str, what: str, fix: str) -> None:
    product = document(PRODUCT.replace("{name: features, type: sql, version: 1.0.0}", port), tmp_path)
    (problem,) = port_problems(product, ABOUT)
    assert what in problem.what
    assert fix in problem.fix
    assert problem.line in {5, 6}


def test_a_contract_is_read_for_its_words_and_key() -> None:
    contract = {
        "schema": [
            {
                "name": "features",
                "description": "all",
                "properties": [
                    {"name": "at", "logicalType": "timestamp", "primaryKey": True, "primaryKeyPosition": 2},
                    {
                        "name": "machine",
                        "logicalType": "string",
                        "primaryKey": True,
                        "primaryKeyPosition": 1,
                        "required": True,
                    },
                    {
                        "name": "value",
                        "description": "x",
                        "customProperties": [{"property": "unit", "value": "mm/s"}],
                    },
                ],
            }
        ]
    }
    note = notes(contract)["features"]
    assert (note.key, note.columns["machine"].required, note.columns["value"].unit) == (
        ("machine", "at"),
        True,
        "mm/s",
    )


def test_a_table_that_broke_its_promise_is_not_served() -> None:
    note = TableNote(
        columns={
            "machine": ColumnNote("string"),
            "value": ColumnNote("number"),
            "tags": ColumnNote("array"),
            "free": ColumnNote(),
        }
    )
    good = pa.schema(
        [
            ("machine", pa.string()),
            ("value", pa.float32()),
            ("tags", pa.list_(pa.string())),
            ("free", pa.int8()),
            ("more", pa.int8()),
        ]
    )
    check_contract("t", good, note)
    check_contract("t", pa.schema([]), note)
    with pytest.raises(ContractBroken, match=r'B845.*"machine" is int64, not string; "tags" is missing'):
        check_contract(
            "t", pa.schema([("machine", pa.int64()), ("value", pa.int64()), ("free", pa.int8())]), note
        )
