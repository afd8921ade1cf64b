"""Rows one by one: what expressions say, what they refuse, and that the cut of a stream changes nothing."""

import math
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position, as_dicts, as_rows
from boucle.errors import BoucleError
from boucle.stream.expression import AGGREGATES, FUNCTIONS, Expression, column_of, scalar_of
from boucle.stream.rows import Filter, FlatMap, Map, Select, Union

SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("ns", tz="UTC")),
        ("machine", pa.string()),
        ("n", pa.int64()),
        ("x", pa.float64()),
        ("ok", pa.bool_()),
        ("samples", pa.list_(pa.float64())),
    ]
)
ROWS: list[dict[str, Any]] = [
    {"at": 1, "machine": "Press-1", "n": 3, "x": 2.5, "ok": True, "samples": [1.0, 2.0]},
    {"at": 2, "machine": None, "n": None, "x": None, "ok": None, "samples": None},
    {"at": 3, "machine": "press-2", "n": -4, "x": 0.0, "ok": False, "samples": []},
]


def block(rows: list[dict[str, Any]], watermark: int = 0, stream: str = "in") -> Block:
    return Block(stream, as_rows(rows, SCHEMA), watermark, Position(stream, len(rows)))


def values(text: str) -> list[Any]:
    rows = as_rows(ROWS, SCHEMA)
    typed = Expression(text).bind(SCHEMA)
    told: list[Any] = column_of(typed, rows).to_pylist()
    plain = as_dicts(rows)
    one = scalar_of(typed, lambda node: lambda row: row[node.value])
    assert repr([one(row) for row in plain]) == repr(told), "row by row and column by column are the same"
    return told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n + 1", [4, None, -3]),
        ("n / 2", [1.5, None, -2.0]),
        ("x / 0", [math.inf, None, math.nan]),
        ("-n * 2.0", [-6.0, None, 8.0]),
        ("x ** 2", [6.25, None, 0.0]),
        ("1 < n <= 3", [True, None, False]),
        ("n > 0 or ok is None", [True, True, False]),
        ("not ok and n < 0", [False, None, True]),
        ("machine in ('Press-1', 'b')", [True, None, False]),
        ("machine not in ('Press-1', 'b')", [False, None, True]),
        ("lower(machine) == 'press-1'", [True, None, False]),
        ("upper(machine)", ["PRESS-1", None, "PRESS-2"]),
        ("concat(machine, '/', 'x')", ["Press-1/x", None, "press-2/x"]),
        ("matches(machine, '^P')", [True, None, False]),
        ("starts_with(machine, 'P') or ends_with(machine, '2')", [True, None, True]),
        ("length(trim(machine))", [7, None, 7]),
        ("coalesce(n, 7)", [3, 7, -4]),
        ("if_else(ok, n, 0)", [3, None, 0]),
        ("n if ok else x", [3.0, None, 0.0]),
        ("abs(n)", [3, None, 4]),
        ("round(x)", [2.0, None, 0.0]),
        ("round(x + 0.126, 2)", [2.63, None, 0.13]),
        ("log(exp(x))", [2.5, None, 0.0]),
        ("floor(x) + ceil(x) + sqrt(x)", [2 + 3 + math.sqrt(2.5), None, 0.0]),
        ("greatest(n, x, 1)", [3.0, None, 1.0]),
        ("least(n, 0)", [0, None, -4]),
        ("at - 1", [0, 1, 2]),
        ("n // 2", [1, None, -2]),
        ("n % 2 * 10 + n // 5", [10, None, -1]),
        ("n % 5", [3, None, 1]),
        ("x % 1 == 0.5", [True, None, False]),
        ("n // 0 is None and x % 0 is None", [True, True, True]),
        ("seconds(at)", [1e-9, 2e-9, 3e-9]),
        ("col('n') is not None", [True, False, True]),
        ("None == n", [None, None, None]),
    ],
)
def test_an_expression_means_what_it_says(text: str, expected: list[Any]) -> None:
    assert repr(values(text)) == repr(expected)


@pytest.mark.parametrize(
    ("text", "said", "near"),
    [
        ("temprature > 3", "there is no column 'temprature'", "character 1"),
        ("n > machine", "> of int64 and string", "character 1"),
        ("n + 'a'", "+ of string", "wants numbers"),
        ("n and ok", "and of int64", "bool"),
        ("lowr(machine)", "unknown function 'lowr'", 'did you mean "lower"'),
        ("n > (3", "cannot be read", "character 5"),
        ("hot.n > 3", "no step 'hot'", "character 1"),
        ("matches(machine, '(')", "missing", "RE2"),
        ("__import__('os')", "unknown function", ""),
        ("n.real", "no step", ""),
        ("[n for n in x]", "ListComp", ""),
        ("(lambda: 1)()", "Call", ""),
        ("99999999999999999999", "64 bits", ""),
        ("round(x, n)", "digits", ""),
        ("samples > 1", "> of", ""),
    ],
)
def test_a_refusal_says_where(text: str, said: str, near: str) -> None:
    with pytest.raises(BoucleError) as refused:
        Expression(text).bind(SCHEMA)
    assert refused.value.code in ("B220", "B221")
    assert said in str(refused.value)
    assert near in str(refused.value)
    assert "at character" in str(refused.value)


def test_a_number_that_leaves_64_bits_is_refused_both_ways() -> None:
    typed = Expression("n * 9223372036854775807").bind(SCHEMA)
    with pytest.raises(BoucleError, match="B221"):
        column_of(typed, as_rows(ROWS, SCHEMA))
    with pytest.raises(BoucleError, match="B221"):
        scalar_of(typed, lambda node: lambda row: row[node.value])(ROWS[0])


wholes = st.one_of(st.integers(-9, 9), st.sampled_from([-(2**63), 2**63 - 1]), st.none())
floats = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 2.5, -7.0, 1e308, 5e-324]), st.none())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(wholes, wholes, floats, floats), min_size=1, max_size=8),
    st.sampled_from(["//", "%"]),
    st.sampled_from(
        [("n", "m"), ("x", "y"), ("n", "y"), ("x", "m"), ("n", "3"), ("7.5", "y"), ("n", "0"), ("-7", "2")]
    ),
)
def test_floor_and_remainder_are_those_of_python(rows: Any, sign: str, sides: tuple[str, str]) -> None:
    kinds = {"n": pa.int64(), "m": pa.int64(), "x": pa.float64(), "y": pa.float64()}
    batch = as_rows([dict(zip(kinds, row, strict=True)) for row in rows], pa.schema(list(kinds.items())))
    typed = Expression(f"{sides[0]} {sign} {sides[1]}").bind(batch.schema)
    whole = typed.type == pa.int64()
    expected: list[float | None] = []
    for row in batch.to_pylist():
        a, b = (row[one] if one in row else (int(one) if whole else float(one)) for one in sides)
        if a is None or b is None or b == 0:
            expected.append(None)
        elif whole:
            expected.append(a // b if sign == "//" else a % b)
        else:
            expected.append(float(a) // float(b) if sign == "//" else float(a) % float(b))
    single = scalar_of(typed, lambda node: lambda row: row[node.value])
    if whole and 2**63 in expected:  # a float may be as large
        with pytest.raises(BoucleError, match="B221"):
            column_of(typed, batch)
        with pytest.raises(BoucleError, match="B221"):
            [single(row) for row in batch.to_pylist()]
        return
    assert repr(column_of(typed, batch).to_pylist()) == repr(expected)
    assert repr([single(row) for row in batch.to_pylist()]) == repr(expected)


words = [
    *FUNCTIONS,
    *AGGREGATES,
    *SCHEMA.names,
    "col",
    "prev",
    "hot",
    ".",
    "(",
    ")",
    ",",
    " and ",
    " or ",
    "not ",
]
words += [
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "<",
    "==",
    " is ",
    " in ",
    "None",
    "True",
    "1",
    "2.5",
    "1e999",
    "'a'",
    " if ",
    " else ",
]


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(words), max_size=14).map("".join)))
def test_any_text_is_understood_or_refused(text: str) -> None:
    rows = as_rows(ROWS, SCHEMA)
    try:
        typed = Expression(text).bind(SCHEMA)
        told = column_of(typed, rows)
    except BoucleError:
        return
    assert len(told) == len(ROWS)
    one = scalar_of(typed, lambda node: lambda row: row[node.value])
    if typed.op != "column":
        assert repr([one(row) for row in as_dicts(rows)]) == repr(told.to_pylist())


@pytest.mark.parametrize(
    "text", ["(" * 300 + "n" + ")" * 300, "-" * 3000 + "n", " and ".join(["ok"] * 500), "n" + "+n" * 90]
)
def test_depth_is_bounded(text: str) -> None:
    with suppress(BoucleError):
        column_of(Expression(text).bind(SCHEMA), as_rows(ROWS, SCHEMA))


def test_map_adds_and_replaces() -> None:
    step = Map("out", columns={"x": "x * 2", "y": "x + n", "z": lambda rows: rows.column("n")})
    (out,) = step.step(block(ROWS, 9))
    assert out.stream == "out"
    assert out.watermark == 9
    assert out.rows.schema.names == [*SCHEMA.names, "y", "z"]
    assert out.rows.column("x").to_pylist() == [5.0, None, 0.0]
    assert out.rows.column("y").to_pylist() == [5.5, None, -4.0], "all see the rows as they came"


def test_filter_keeps_what_is_true_and_passes_the_watermark_of_nothing() -> None:
    step = Filter("out", where="n > 100")
    (out,) = step.step(block(ROWS, 9))
    assert (len(out), out.watermark) == (0, 9)
    assert out.rows.schema == SCHEMA
    (out,) = Filter("out", where="ok or n < 0").step(block(ROWS))
    assert out.rows.column("n").to_pylist() == [3, -4]
    with pytest.raises(BoucleError, match="where gives int64"):
        Filter("out", where="n + 1").step(block(ROWS))


def test_select_picks_and_renames() -> None:
    (out,) = Select("out", columns={"asset": "machine", "at": "at"}).step(block(ROWS))
    assert out.rows.schema.names == ["asset", "at"]
    (out,) = Select("out", columns=["at", "n"]).step(block(ROWS))
    assert out.rows.schema.names == ["at", "n"]
    with pytest.raises(BoucleError, match="B221"):
        Select("out", columns=["nothing"]).step(block(ROWS))
    with pytest.raises(BoucleError, match="B220"):
        Select("out", columns=[])


def test_flat_map_explodes_a_list_or_asks_a_function() -> None:
    (out,) = FlatMap("out", explode="samples").step(block(ROWS))
    assert out.rows.column("samples").to_pylist() == [1.0, 2.0]
    assert out.rows.column("n").to_pylist() == [3, 3]
    schema = pa.schema([("n", pa.int64())])
    step = FlatMap("out", function=lambda row: [{"n": row["at"]}] * (row["n"] or 0), schema=schema)
    (out,) = step.step(block(ROWS))
    assert out.rows.column("n").to_pylist() == [1, 1, 1]
    with pytest.raises(BoucleError, match="B221"):
        FlatMap("out", explode="x").step(block(ROWS))
    with pytest.raises(BoucleError, match="B220"):
        FlatMap("out")


def test_union_goes_with_the_slowest_and_puts_columns_in_order() -> None:
    step = Union("out", inputs=["a", "b"])
    (one,) = step.step(block(ROWS, 9, "a"))
    assert one.watermark == 0, "b has promised nothing"
    names = SCHEMA.names[::-1]
    turned = Block("b", as_rows(ROWS, SCHEMA).select(names), 5, Position("b", 1))
    again = Union("out", inputs=["a", "b"])
    again.restore(step.snapshot())
    for union in (step, again):
        (two,) = union.step(turned)
        assert two.watermark == 5
        assert two.rows.schema.names == SCHEMA.names
        with pytest.raises(BoucleError, match="they differ in n"):
            union.step(Block("b", turned.rows.drop_columns(["n"]), 6, Position("b", 2)))
        with pytest.raises(BoucleError, match="no input"):
            union.step(block(ROWS, 1, "c"))


rows_drawn = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(0, 99),
            "machine": st.sampled_from(["a", "b", None]),
            "n": st.integers(-9, 9) | st.none(),
            "x": st.floats(allow_nan=False) | st.none(),
            "ok": st.booleans() | st.none(),
            "samples": st.lists(st.floats(0, 1), max_size=2) | st.none(),
        }
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(rows_drawn, st.lists(st.integers(0, 12), max_size=4))
def test_the_cut_changes_nothing(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    def steps() -> list[Any]:
        return [
            Filter("f", where="n > -5 and (ok or x < 1)"),
            Map("m", columns={"y": "coalesce(x, 0.0) / 3 + n"}),
            FlatMap("e", explode="samples"),
            Select("s", columns=["at", "y", "samples"]),
        ]

    def run(edges: list[int]) -> list[dict[str, Any]]:
        chain, given_rows = steps(), []
        for start, end in pairwise(edges):
            now = block(rows[start:end])
            for step in chain:
                step.restore(step.snapshot())
                (now,) = step.step(now)
            given_rows += as_dicts(now.rows)
        return given_rows

    assert run([0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]) == run([0, len(rows)])
