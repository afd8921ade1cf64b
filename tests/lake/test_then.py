"""Time travel in SQL: a table as it was at a version or a moment, beside itself as it is."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql
from boucle.lake.then import as_it_was
from boucle.testing.conformance.table import readings


@pytest.fixture
def sql(tmp_path: Path) -> Sql:
    table = LakeTable(tmp_path / "silver" / "readings")
    table.append(readings(0, 2))
    table.append(readings(2, 3, zone=["A", "B", "C"]))
    return Sql(tmp_path)


def test_a_version_beside_what_is(sql: Sql) -> None:
    text = """
        SELECT (SELECT count(*) FROM readings AT (VERSION => 1)) AS was,
            count(*) AS is_now, 'x AT (VERSION => 1)' AS said
        FROM silver."readings" AT (version=>2) AS now -- readings AT (VERSION => 99)
    """
    assert sql.query(text).to_pylist() == [{"was": 2, "is_now": 5, "said": "x AT (VERSION => 1)"}]
    assert "zone" not in sql.query("SELECT * FROM readings AT (VERSION => 1)").column_names
    assert sql.query("SELECT * FROM readings AT (VERSION => 0)").num_rows == 0


def test_a_moment(sql: Sql) -> None:
    now = datetime.now(UTC).isoformat(sep=" ")
    assert sql.query(f"SELECT count(*) AS n FROM readings AT (TIMESTAMP => '{now}')").to_pylist() == [
        {"n": 5}
    ]


@pytest.mark.parametrize(
    ("clause", "code"),
    [
        ("VERSION => 9", "B505"),
        ("VERSION => 'soon'", "B524"),
        ("TIMESTAMP => '1999-01-01'", "B523"),
        ("TIMESTAMP => 7", "B524"),
        ("TIMESTAMP => 'x'", "B524"),
    ],
)
def test_what_was_never_there(sql: Sql, clause: str, code: str) -> None:
    with pytest.raises(BoucleError, match=code):
        sql.query(f"SELECT * FROM readings AT ({clause})")


def test_an_unknown_table_is_named(sql: Sql) -> None:
    with pytest.raises(BoucleError, match="B511"):
        sql.query("SELECT * FROM reading AT (VERSION => 1)")


@given(st.text(alphabet="at (VERSION=>1)'\"-/*x\n.", max_size=60))
def test_any_text_is_survived(text: str) -> None:
    assert isinstance(as_it_was(text, [], lambda table, version: ""), str)
