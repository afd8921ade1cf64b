"""State per key and timers: the same rows for any cut, shuffle and restart."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from boucle.block import Block, Position, as_dicts, as_rows
from boucle.errors import BoucleError
from boucle.ports import Operator
from boucle.stream.stateful import Context, Stateful

SCHEMA = pa.schema([("at", pa.timestamp("ns", tz="UTC")), ("card", pa.string()), ("amount", pa.float64())])
OUTPUT = pa.schema([("what", pa.string()), ("total", pa.float64())])
LATENESS = 5
Row = dict[str, Any]


class Spent(Struct):
    total: float = 0.0
    quiet: int = 0


def on_row(context: Context, row: Row) -> list[Row]:
    context.cancel(context.state.quiet, "quiet")
    context.state.total += row["amount"]
    context.state.quiet = context.at + 7
    context.timer(context.state.quiet, "quiet")
    return [{"what": "paid", "total": context.state.total}]


def on_timer(context: Context, tag: str) -> list[Row]:
    if tag == "again":
        return [{"what": "again", "total": context.state.total}]
    context.timer(context.at + 2, "again")
    return [{"what": tag, "total": context.state.total}]


def spending(ttl: float | None = None) -> Stateful:
    return Stateful("out", by=["card"], on_row=on_row, on_timer=on_timer, state=Spent, output=OUTPUT, ttl=ttl)


def block(rows: list[Row], watermark: int) -> Block:
    return Block("in", as_rows(rows, SCHEMA), watermark, Position("in", watermark))


def play(
    make: Callable[[], Operator], rows: list[Row], cuts: list[int], *, restart: bool = False
) -> tuple[list[Row], list[Row]]:
    """Rows in Blocks, each under the newest time less the lateness; what was given, and what was late."""
    out: list[Row] = []
    late: list[Row] = []
    operator = make()
    newest = 0
    edges = [0, *sorted({min(cut, len(rows)) for cut in cuts} - {0, len(rows)}), len(rows)]
    pieces = [rows[start:end] for start, end in pairwise(edges)]
    for piece in [*pieces, None]:
        newest = max([newest, *(row["at"] for row in piece)]) if piece is not None else 10_000
        if restart:
            state = operator.snapshot()
            operator = make()
            operator.restore(state)
            assert operator.snapshot() == state
        for given_block in operator.step(block(piece or [], max(0, newest - LATENESS))):
            told = as_dicts(given_block.rows)
            (late if given_block.stream.endswith("/late") else out).extend(told)
    return out, late


def test_a_timer_goes_off_when_the_watermark_passes_it() -> None:
    step = spending()
    first = step.step(block([{"at": 10, "card": "a", "amount": 3.0}], 11))
    assert as_dicts(first[0].rows) == [{"at": 10, "card": "a", "what": "paid", "total": 3.0}]
    assert as_dicts(step.step(block([], 16))[0].rows) == []
    (gone,) = step.step(block([], 17))
    assert as_dicts(gone.rows) == [{"at": 17, "card": "a", "what": "quiet", "total": 3.0}]
    assert gone.watermark == 17
    (again,) = step.step(block([], 100))
    assert as_dicts(again.rows) == [{"at": 19, "card": "a", "what": "again", "total": 3.0}]


def test_timers_and_rows_go_by_time_and_a_timer_before_the_row_of_its_instant() -> None:
    rows = [{"at": at, "card": card, "amount": 1.0} for at, card in [(1, "a"), (8, "b"), (8, "a"), (30, "a")]]
    out, _ = play(spending, rows, [])
    told = [(row["at"], row["card"], row["what"]) for row in out]
    assert told == [
        (1, "a", "paid"),
        (8, "a", "quiet"),
        (8, "a", "paid"),
        (8, "b", "paid"),
        (10, "a", "again"),
        (15, "a", "quiet"),
        (15, "b", "quiet"),
        (17, "a", "again"),
        (17, "b", "again"),
        (30, "a", "paid"),
        (37, "a", "quiet"),
        (39, "a", "again"),
    ]


def test_a_key_not_seen_for_its_ttl_is_forgotten() -> None:
    rows = [{"at": at, "card": "a", "amount": 1.0} for at in (1, 5, 15, 16)]
    step = Stateful("out", by=["card"], on_row=on_row, state=Spent, output=OUTPUT, ttl=1e-8)
    out = as_dicts(step.step(block(rows, 100))[0].rows)
    assert [row["total"] for row in out] == [1.0, 2.0, 1.0, 2.0], "at 15, 10 ns after the last row"
    assert step.save() == spending().save(), "nothing is left"


def test_a_function_may_give_its_rows_one_by_one_and_replace_its_state() -> None:
    def each(context: Context, _: Row) -> Iterator[Row]:
        context.state = Spent(total=context.state.total + 1)
        yield {"total": context.state.total}
        context.state = Spent(total=context.state.total + 10)

    step = Stateful("out", by="card", on_row=each, state=Spent, output=OUTPUT)
    given = step.step(block([{"at": at, "card": card} for at, card in ((1, "a"), (2, "a"), (3, "b"))], 9))
    assert [(row["card"], row["total"]) for one in given for row in as_dicts(one.rows)] == [
        ("a", 1),
        ("a", 12),
        ("b", 1),
    ]


def test_late_rows_are_told_and_counted() -> None:
    step = spending()
    step.step(block([{"at": 50, "card": "a", "amount": 1.0}], 60))
    late = step.step(block([{"at": 40, "card": "a", "amount": 1.0}], 61))
    assert late[0].stream == "out/late"
    assert late[0].rows.column("late_by_ns").to_pylist() == [20]
    assert step.late_rows == 1


def test_numpy_state_and_what_is_refused() -> None:
    dtype = np.dtype([("total", "f8"), ("n", "i8")])

    def count(context: Context, row: Row) -> list[Row]:
        context.state["total"] += row["amount"]
        context.state["n"] += 1
        return [{"what": str(context.state["n"]), "total": float(context.state["total"])}]

    def make() -> Stateful:
        return Stateful("out", by=["card"], on_row=count, state=dtype, output=OUTPUT)

    rows = [{"at": at, "card": "ab"[at % 2], "amount": 0.1 * at} for at in range(20)]
    assert play(make, rows, [3, 9, 12], restart=True) == play(make, rows, [])
    with pytest.raises(BoucleError, match="no type"):
        Stateful("out", by=["card"], on_row=count, state=dict, output=OUTPUT)
    with pytest.raises(BoucleError, match="B221"):
        Stateful("out", by=["nothing"], on_row=count, state=dtype, output=OUTPUT).step(block([], 0))
    with pytest.raises(BoucleError, match="not after"):
        Stateful("out", by=["card"], on_row=lambda c, _: c.timer(c.at), state=Spent, output=OUTPUT).step(
            block(rows, 99)
        )
    with pytest.raises(BoucleError, match="not of its output"):
        Stateful("out", by=["card"], on_row=lambda *_: [{"total": "much"}], state=Spent, output=OUTPUT).step(
            block(rows, 99)
        )
    other = spending()
    with pytest.raises(BoucleError, match="B602"):
        other.restore(b"\x93\x01")


drawn = st.lists(
    st.fixed_dictionaries(
        {"at": st.integers(1, 60), "card": st.sampled_from(["a", "b", None]), "amount": st.floats(0, 9)}
    ),
    max_size=25,
)


def shuffled(rows: list[Row], shifts: list[int]) -> list[Row]:
    """Rows out of order by less than the lateness."""
    late = [row["at"] + shift for row, shift in zip(rows, shifts, strict=False)]
    return [rows[index] for index in sorted(range(len(rows)), key=late.__getitem__)]


@settings(max_examples=60, deadline=None)
@given(
    drawn,
    st.lists(st.integers(0, LATENESS), min_size=25, max_size=25),
    st.lists(st.integers(0, 25), max_size=6),
    st.sampled_from([None, 1.1e-8]),
    st.booleans(),
)
def test_cut_shuffle_and_restart_change_nothing(
    rows: list[Row], shifts: list[int], cuts: list[int], ttl: float | None, restart: bool
) -> None:
    rows.sort(key=lambda row: row["at"])
    expected = play(lambda: spending(ttl), rows, [])
    assert play(lambda: spending(ttl), shuffled(rows, shifts), cuts, restart=restart) == expected
    assert [row["at"] for row in expected[0]] == sorted(row["at"] for row in expected[0])


@settings(max_examples=30, deadline=None)
@given(drawn, st.lists(st.integers(0, 25), max_size=6), st.booleans())
def test_in_arrival_order_a_key_does_not_depend_on_the_cut(
    rows: list[Row], cuts: list[int], restart: bool
) -> None:
    rows.sort(key=lambda row: row["at"])

    def make() -> Stateful:
        return Stateful(
            "out",
            by=["card"],
            on_row=on_row,
            on_timer=on_timer,
            state=Spent,
            output=OUTPUT,
            order="arrival",
        )

    def by_key(told: tuple[list[Row], list[Row]]) -> dict[str, list[Row]]:
        return {str(card): [row for row in told[0] if row["card"] == card] for card in ("a", "b", None)}

    assert by_key(play(make, rows, cuts, restart=restart)) == by_key(play(make, rows, []))
