"""Lineage of SQL: what the query says is told, what it leaves open is said, and no text breaks it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.catalog.sql import TracedSql, trace_sql
from boucle.errors import BoucleError

TABLES = {
    "orders": ["id", "card", "amount", "at"],
    "gold.cards": ["card", "owner", "Limit"],
    "x": ["a", "b"],
}
Told = dict[str, set[tuple[str, str, str]]]


def one(text: str) -> TracedSql:
    (told,) = trace_sql(text, TABLES)
    return told


def columns(told: TracedSql) -> Told:
    return {name: {(f.stream, f.column, f.how) for f in made} for name, made in told.columns.items()}


def rows(told: TracedSql) -> set[tuple[str, str, str]]:
    return {(f.stream, f.column, f.how) for f in told.rows}


def same(table: str, *names: str) -> Told:
    return {name: {(table, name, "IDENTITY")} for name in names}


CASES: list[tuple[str, Told, set[tuple[str, str, str]]]] = [
    ("select * from orders", same("orders", "id", "card", "amount", "at"), set()),
    ("from orders select amount", same("orders", "amount"), set()),
    ("select * exclude (id, at) from orders", same("orders", "card", "amount"), set()),
    (
        'select o.id, c.owner from orders o join gold.cards c on o.card = c.card where c."Limit" > 3',
        {"id": {("orders", "id", "IDENTITY")}, "owner": {("gold.cards", "owner", "IDENTITY")}},
        {("gold.cards", "Limit", "FILTER"), ("orders", "card", "JOIN"), ("gold.cards", "card", "JOIN")},
    ),
    (
        "with s as (select card, sum(amount) as total from orders group by 1) select card, total * 2 as twice from s",
        {"card": {("orders", "card", "IDENTITY")}, "twice": {("orders", "amount", "AGGREGATION")}},
        {("orders", "card", "GROUP_BY")},
    ),
    (
        "select amount + 1 as b, b * 2 as c from orders",
        {"b": {("orders", "amount", "TRANSFORMATION")}, "c": {("orders", "amount", "TRANSFORMATION")}},
        set(),
    ),
    (
        "select case when card = 'x' then amount else 0 end as z from orders",
        {"z": {("orders", "amount", "TRANSFORMATION"), ("orders", "card", "CONDITIONAL")}},
        set(),
    ),
    (
        "select a from x union all select id from orders",
        {"a": {("x", "a", "IDENTITY"), ("orders", "id", "IDENTITY")}},
        set(),
    ),
    (
        "select a, row_number() over (partition by b order by a) as r from x qualify r = 1",
        {"a": {("x", "a", "IDENTITY")}, "r": {("x", "b", "WINDOW"), ("x", "a", "WINDOW")}},
        {("x", "b", "FILTER"), ("x", "a", "FILTER")},
    ),
    (
        "select a from x where a in (select id from orders where amount > 3) order by b",
        {"a": {("x", "a", "IDENTITY")}},
        {
            ("x", "a", "FILTER"),
            ("orders", "id", "FILTER"),
            ("orders", "amount", "FILTER"),
            ("x", "b", "SORT"),
        },
    ),
    (
        "select (select max(amount) from orders o where o.card = x.b) as m from x",
        {"m": {("orders", "amount", "AGGREGATION"), ("orders", "card", "FILTER"), ("x", "b", "FILTER")}},
        set(),
    ),
    (
        "with recursive t as (select a from x union all select a + 1 from t where a < 10) select a from t",
        {"a": {("x", "a", "IDENTITY"), ("x", "a", "TRANSFORMATION")}},
        {("x", "a", "FILTER")},
    ),
    (
        "select count(*) as n, sum(amount) filter (where card = 'x') as s from orders",
        {"n": set(), "s": {("orders", "amount", "AGGREGATION"), ("orders", "card", "CONDITIONAL")}},
        set(),
    ),
    (
        "insert into x select id, amount from orders",
        {"a": {("orders", "id", "IDENTITY")}, "b": {("orders", "amount", "IDENTITY")}},
        set(),
    ),
    (
        "select p.a from (select a from (select a, b from x) q where b = 1) p",
        {"a": {("x", "a", "IDENTITY")}},
        {("x", "b", "FILTER")},
    ),
]


@pytest.mark.parametrize(("text", "made", "chosen"), CASES)
def test_columns_and_rows(text: str, made: Told, chosen: set[tuple[str, str, str]]) -> None:
    told = one(text)
    assert columns(told) == made
    assert rows(told) == chosen
    assert told.problems == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("select * from nowhere", "* of nowhere: its columns are not known"),
        ("select foo from nowhere, orders", "column foo may be of any of: nowhere, orders"),
        ("select nosuch from x", "column nosuch is in none of: x"),
        ("select x.nosuch from x", "x has no column nosuch"),
        ("select * from read_csv('a.csv')", "* of READ_CSV('a.csv'): its columns are not known"),
        ("pivot orders on card using sum(amount)", "PIVOT is not followed column by column"),
        ("update x set a = 1", "UPDATE is not followed column by column"),
        ("select a from x union select id, card from orders", "the branches of a set operation"),
    ],
)
def test_what_cannot_be_resolved_is_said(text: str, problem: str) -> None:
    assert any(said.startswith(problem) for said in one(text).problems)


def test_a_later_statement_reads_what_an_earlier_one_made() -> None:
    made, read = trace_sql(
        "create table gold.t as select card, amount as sum from orders; select sum from gold.t", TABLES
    )
    assert (made.target, read.target) == ("gold.t", "")
    assert columns(read) == {"sum": {("gold.t", "sum", "IDENTITY")}}


def test_names_keep_their_case_and_tables_may_be_named_with_their_zone() -> None:
    assert columns(one('select "Limit" as MyLimit from cards')) == {
        "MyLimit": {("cards", "Limit", "IDENTITY")}
    }
    assert one("select amount from raw.orders").reads == ("raw.orders",)


@pytest.mark.parametrize(
    "text", ["select from where", "select (((", "select 'open", "with a as (", "select " * 3]
)
def test_what_is_no_sql_is_refused_with_its_reason(text: str) -> None:
    with pytest.raises(BoucleError) as caught:
        trace_sql(text, TABLES)
    assert (caught.value.code, bool(caught.value.why)) == ("B560", True)


def test_too_deep_or_too_long_is_refused() -> None:
    deep = "select a from x"
    for _ in range(200):
        deep = f"select a from ({deep})"
    for text in (deep, "select " + "(" * 5000 + "1" + ")" * 5000, "--" + "x" * 500_000):
        with pytest.raises(BoucleError) as caught:
            trace_sql(text, TABLES)
        assert caught.value.code == "B560"


VOCABULARY = (
    "select from where group by order a b x orders gold.cards card amount ( ) , * with as union all join on = "
    "case when then end over partition sum count 1 'q' \" ; using exists in not null lateral unnest values"
)
WORDS = st.lists(st.sampled_from(VOCABULARY.split(" ")) | st.text(max_size=6), max_size=40)


@given(WORDS)
def test_any_text_is_traced_or_refused(words: list[str]) -> None:
    try:
        told = trace_sql(" ".join(words), TABLES)
    except BoucleError:
        return
    for statement in told:
        for made in statement.columns.values():
            assert all(source.column for source in made)
