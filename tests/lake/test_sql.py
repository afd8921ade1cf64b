"""SQL over the lake: what it answers, what it refuses, and what it says to a typo."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql
from boucle.testing.conformance.table import readings


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a lake"
    LakeTable(folder / "raw" / "vibration").append(readings(0, 6))
    LakeTable(folder / "silver" / "features").append(readings(0, 4, zone=["A", "A", "B", "B"]))
    (tmp_path / "secret.csv").write_text("password\n1234\n")
    return folder


@pytest.fixture
def sql(lake: Path) -> Iterator[Sql]:
    opened = Sql(lake)
    yield opened
    opened.close()


def only(table: pa.Table) -> object:
    (row,) = table.to_pylist()
    (value,) = row.values()
    return value


def test_a_table_is_known_by_its_name_and_by_its_zone(sql: Sql) -> None:
    assert only(sql.query("select count(*) from vibration")) == 6
    assert only(sql.query("select count(*) from raw.vibration where machine = 'press-1'")) == 3
    assert [(table.zone, table.name) for table in sql.tables()] == [
        ("raw", "vibration"),
        ("silver", "features"),
    ]


def test_a_bare_name_means_the_most_refined_zone(lake: Path, sql: Sql) -> None:
    assert only(sql.query("select count(*) from features")) == 4
    LakeTable(lake / "gold" / "features").append(readings(0, 1))
    assert only(sql.query("select count(*) from features")) == 1
    assert only(sql.query("select count(*) from silver.features")) == 4


def test_new_commits_and_new_tables_are_seen(lake: Path, sql: Sql) -> None:
    assert only(sql.query("select count(*) from vibration")) == 6
    LakeTable(lake / "raw" / "vibration").append(readings(6, 2, zone=["C", "D"]))
    assert only(sql.query("select count(*) from vibration")) == 8
    assert sql.query("select distinct zone from vibration order by zone").column(0).to_pylist() == [
        "C",
        "D",
        None,
    ]
    LakeTable(lake / "gold" / "later").append(readings(0, 1))
    assert only(sql.query("select count(*) from later")) == 1


def test_columns_are_those_people_know(sql: Sql) -> None:
    answer = sql.query("select * from vibration order by at")
    assert answer.column_names == ["machine", "sensor", "at", "value", "samples", "day"]
    assert answer.column("day").to_pylist()[:2] == ["2025-12-31", "2026-01-01"]
    assert answer.column("samples").to_pylist()[1] == [1.5, 1.5, 1.5]
    assert answer.schema.field("at").type == pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    "text",
    [
        "select min(at) from vibration",
        "select at from vibration where at > '2000-01-01' group by at, machine order by at limit 1",
        "select v.at from vibration v order by v.at limit 1",
        "select 'é at', at from vibration -- at the end, at\n order by at limit 1",
        "select date_trunc('day', at)::date, /* at */ \"at\" from vibration limit 1",
        "select at at time zone 'Europe/Paris' from vibration limit 1",
        "select AT from vibration limit 1",
    ],
)
def test_the_time_column_needs_no_quotes(sql: Sql, text: str) -> None:
    assert len(sql.query(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "show tables",
        "describe vibration",
        "summarize vibration",
        "explain select * from vibration",
        "explain analyze select count(*) from vibration",
        "with v as (select * from vibration) select count(*) from v",
        "from vibration limit 1;",
        "pivot vibration on machine in ('press-1', 'press-2') using avg(value)",
        "select table_name from information_schema.tables",
    ],
)
def test_everything_that_reads_is_answered(sql: Sql, text: str) -> None:
    assert len(sql.query(text)) > 0


@pytest.mark.parametrize(
    "text",
    [
        "create table x as select 1",
        "insert into vibration values (1)",
        "update vibration set value = 1",
        "delete from vibration",
        "drop view vibration",
        "attach 'x.db'",
        "install httpfs",
        "load httpfs",
        "set threads = 1",
        "pragma database_list",
        "copy vibration to 'x.csv'",
        "export database 'x'",
        "explain analyze copy (select 1) to '{lake}/x.csv'",
        "EXPLAIN (ANALYZE) copy (select 1) to '{lake}/x.csv'",
        "/* hidden */ explain /* hidden */ analyze copy (select 1) to '{lake}/x.csv'",
        "explain explain analyze copy (select 1) to '{lake}/x.csv'",
        "select * from read_csv('{lake}/../secret.csv')",
        "select * from '{lake}/../secret.csv'",
        "select * from read_text('/etc/hostname')",
        "select * from glob('/etc/*')",
        "call pragma_version()",
        "use raw",
        "begin",
        "checkpoint",
    ],
)
def test_nothing_is_written_and_nothing_else_is_read(lake: Path, sql: Sql, text: str) -> None:
    quoted = str(lake).replace("'", "''")
    before = sorted(lake.rglob("*"))
    with pytest.raises(BoucleError, match=r"B51\d") as refused:
        sql.query(text.format(lake=quoted))
    assert "1234" not in str(refused.value)
    assert sorted(lake.rglob("*")) == before


def test_python_variables_are_not_tables(sql: Sql) -> None:
    hidden = pa.table({"password": [1234]})
    with pytest.raises(BoucleError, match=r"B511"):
        sql.query("select * from hidden")
    assert len(hidden) == 1


def test_one_statement_at_a_time(sql: Sql) -> None:
    for text in ("select 1; select 2", "", "-- nothing"):
        with pytest.raises(BoucleError, match=r"B513"):
            sql.query(text)


def test_an_unknown_table_is_told_the_likely_one(sql: Sql) -> None:
    with pytest.raises(BoucleError) as error:
        sql.query("select * from vibrations")
    assert error.value.code == "B511"
    assert 'Did you mean "vibration"?' in error.value.fix
    assert "silver.features" in error.value.fix
    with pytest.raises(BoucleError, match=r'B511.*Did you mean "raw.vibration"'):
        sql.query("select * from rwa.vibration")


def test_an_unknown_column_is_told_the_likely_one(sql: Sql) -> None:
    with pytest.raises(BoucleError, match=r'B512.*"machin".*Did you mean "machine"'):
        sql.query("select machin from vibration")
    with pytest.raises(BoucleError, match=r'B512.*"valeu".*Did you mean "value"'):
        sql.query("select v.valeu from vibration v")


def test_other_mistakes_are_told_with_the_place(sql: Sql) -> None:
    with pytest.raises(BoucleError, match=r"B513") as error:
        sql.query("selec machine from vibration")
    assert "selec" in error.value.why


def test_an_empty_lake_says_so(tmp_path: Path) -> None:
    empty = Sql(tmp_path / "nothing")
    assert empty.tables() == []
    with pytest.raises(BoucleError, match="run the loop first"):
        empty.query("select * from vibration")


def test_a_table_that_vanished_is_unknown_again(lake: Path, sql: Sql) -> None:
    import shutil

    assert only(sql.query("select count(*) from features")) == 4
    shutil.rmtree(lake / "silver" / "features")
    with pytest.raises(BoucleError, match=r"B511"):
        sql.query("select count(*) from features")


def test_a_table_without_rows_has_its_columns(lake: Path, sql: Sql) -> None:
    from deltalake import DeltaTable

    schema = pa.schema(
        [("machine", pa.string()), ("at", pa.timestamp("us", tz="UTC")), ("at_ns", pa.int16())]
    )
    DeltaTable.create(lake / "gold" / "empty", schema=schema)
    answer = sql.query("select * from empty")
    assert (answer.column_names, len(answer)) == (["machine", "at"], 0)
