"""NEXMark's queries in boucle, each equal to DuckDB's SQL over the same events: cut and shuffled at random."""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from msgspec import Struct

from boucle.block import Block
from boucle.loop.flow import Flow, Stream
from tests.stream.laws import block, shuffled, table
from tests.stream.nexmark import SECOND, nexmark

EVENTS = nexmark(8_000)
LATENESS = 2 * SECOND
EVER = "36500d"
"""One window for all of time: these queries know no end."""


def arriving(seed: int) -> Iterator[Block]:
    """The three streams, each shuffled within the lateness, cut at random and interleaved by time."""
    rng = np.random.default_rng(seed)
    cut: list[tuple[int, Block]] = []
    for stream, rows in EVENTS.items():
        mixed = shuffled(rows, rng.integers(0, LATENESS, 997).tolist())
        at = mixed.column("at").cast(pa.int64()).to_numpy()
        edges = np.unique(np.concatenate([[0, len(mixed)], rng.integers(0, len(mixed), 40)]))
        for begin, end in pairwise(edges.tolist()):
            newest = int(at[:end].max())
            piece = mixed.slice(begin, end - begin)
            cut.append((newest, block(stream, piece, newest - LATENESS)))
    yield from (one for _, one in sorted(cut, key=lambda item: item[0]))


def modulo(column: str, by: int) -> Callable[[pa.RecordBatch], pa.Array]:
    def rest(rows: pa.RecordBatch) -> pa.Array:
        values = rows.column(column)
        return pc.subtract(values, pc.multiply(pc.divide(values, by), by))

    return rest


def winning(flow: Flow) -> Stream:
    """Bids with their auction, made while it ran."""
    auctions, bids = flow.source("auctions"), flow.source("bids")
    pairs = auctions.interval_join(bids, by={"id": "auction"}, lower=0, upper="20s")
    return pairs.filter("seconds(right_at) * 1e9 <= expires")


def q0(flow: Flow) -> Stream:
    return flow.source("bids").select("auction", "bidder", "price")


def q1(flow: Flow) -> Stream:
    return flow.source("bids").map(price="0.908 * price").select("auction", "bidder", "price")


def q2(flow: Flow) -> Stream:
    rest = flow.source("bids").map(rest=modulo("auction", 123)).filter("rest == 0")
    return rest.select("auction", "price")


def q3(flow: Flow) -> Stream:
    persons = flow.source("persons").filter("state in ('OR', 'ID', 'CA')")
    auctions = flow.source("auctions").filter("category == 10")
    found = auctions.interval_join(persons, by={"seller": "id"}, lower=-86400 * 365.0, upper="365d")
    return found.select("name", "city", "state", "id")


def q4(flow: Flow) -> Stream:
    final = winning(flow).tumbling(size=EVER, by=["id", "category"], values={"final": "max(price)"})
    return final.tumbling(size=EVER, by="category", values={"price": "mean(final)"}).select(
        "category", "price"
    )


def q5(flow: Flow) -> Stream:
    counts = flow.source("bids").hopping(
        "counts", size="10s", every="2s", by="auction", values={"n": "count"}
    )
    most = counts.map(window="seconds(window_start)").hopping(
        "most", size="2s", every="2s", by="window", values={"most": "max(n)"}
    )
    counted = counts.map("counted", window="seconds(window_start)")
    hot = counted.interval_join(most, by={"window": "window"}, lower=0, upper="2s").filter("n == most")
    return hot.select("window", "auction", "n")


SOLD = pa.schema([pa.field("id", pa.int64()), pa.field("price", pa.float64())])


class Prices(Struct):
    last: list[int] = []


def q6(flow: Flow) -> Stream:
    closing = winning(flow).map(
        "closing", at=lambda rows: rows.column("expires").cast(pa.timestamp("ns", "UTC"))
    )
    final = closing.tumbling("final", size=0.000001, by=["id", "seller"], values={"price": "max(price)"})

    def ten(context: Any, row: dict[str, Any]) -> list[dict[str, Any]]:
        context.state.last = [*context.state.last[-9:], row["price"]]
        return [{"id": row["id"], "price": sum(context.state.last) / len(context.state.last)}]

    return final.stateful("ten", by=["seller"], on_row=ten, state=Prices, output=SOLD).select(
        "seller", "id", "price"
    )


def q7(flow: Flow) -> Stream:
    bids = flow.source("bids")
    highest = bids.tumbling("highest", size="10s", values={"price": "max(price)"})
    found = highest.interval_join(bids, by=["price"], lower=-9.999999999, upper=0.0)
    return found.select("auction", "price", "bidder")


def q8(flow: Flow) -> Stream:
    persons = flow.source("persons").tumbling("new", size="10s", by=["id", "name"], values={"n": "count"})
    sellers = flow.source("auctions").tumbling("sellers", size="10s", by="seller", values={"n": "count"})
    return persons.interval_join(sellers, by={"id": "seller"}, lower=0, upper=0).select("id", "name")


def q11(flow: Flow) -> Stream:
    sessions = flow.source("bids").session(gap="2s", by="bidder", values={"n": "count"})
    return sessions.map(start="seconds(window_start)").select("bidder", "n", "start")


def q12(flow: Flow) -> Stream:
    counts = flow.source("bids").tumbling(size="10s", by="bidder", values={"n": "count"})
    return counts.map(start="seconds(window_start)").select("bidder", "n", "start")


SIDE = [{"key": key, "label": f"label {key}"} for key in range(5)]


def q13(flow: Flow) -> Stream:
    keyed = flow.source("bids").map(key=modulo("auction", 7))
    return keyed.to("boucle.stream.join:Enrich", by=["key"], table=SIDE).select("auction", "price", "label")


def q14(flow: Flow) -> Stream:
    priced = flow.source("bids").map(price="0.908 * price").filter("1000000 < price and price < 50000000")
    priced = priced.map(
        cs=lambda rows: pc.count_substring(rows.column("extra"), "c"),
        hour=lambda rows: pc.hour(rows.column("at")),
    )
    kind = "if_else(hour >= 8 and hour <= 18, 'day', if_else(hour <= 6 or hour >= 20, 'night', 'other'))"
    return priced.map(kind=kind).select("auction", "price", "kind", "cs")


def q16(flow: Flow) -> Stream:
    ranked = flow.source("bids").map(
        low="if_else(price < 10000, bidder, None)",
        mid="if_else(price >= 10000 and price < 1000000, bidder, None)",
    )
    values = {
        "total": "count", "low_bids": "count(low)", "mid_bids": "count(mid)", "bidders": "distinct(bidder)",
        "low_bidders": "distinct(low)", "mid_bidders": "distinct(mid)", "auctions": "distinct(auction)",
    }  # fmt: skip
    return ranked.tumbling(size="1d", by="channel", values=values).select("channel", *values)


def q17(flow: Flow) -> Stream:
    ranked = flow.source("bids").map(
        low="if_else(price < 10000, 1, None)", high="if_else(price >= 1000000, 1, None)"
    )
    values = {
        "total": "count", "low_bids": "count(low)", "high_bids": "count(high)", "least": "min(price)",
        "most": "max(price)", "mean": "mean(price)", "amount": "sum(price)",
    }  # fmt: skip
    return ranked.tumbling(size="1d", by="auction", values=values).select("auction", *values)


def q18(flow: Flow) -> Stream:
    values = {"price": "last(price)", "channel": "last(channel)"}
    return (
        flow.source("bids")
        .tumbling(size=EVER, by=["bidder", "auction"], values=values)
        .select("bidder", "auction", *values)
    )


QUERIES = {
    make.__name__: make for make in (q0, q1, q2, q3, q4, q5, q6, q7, q8, q11, q12, q13, q14, q16, q17, q18)
}
SQL = Path(__file__).with_name("nexmark.sql").read_text(encoding="utf-8")
ORACLE = dict(re.findall(r"^-- (q\d+)\n(.*?)(?=^-- q|\Z)", SQL, re.MULTILINE | re.DOTALL))


def rounded(values: Any) -> tuple[Any, ...]:
    return tuple(float(f"{value:.12g}") if isinstance(value, float) else value for value in values)


@pytest.mark.parametrize("query", QUERIES)
def test_it_says_what_sql_says(query: str) -> None:
    make, sql = QUERIES[query], ORACLE[query]
    answers = []
    for seed in (1, 2):
        flow = Flow()
        wanted = make(flow)
        needed = set(flow.sources)
        given = flow.run((one for one in arriving(seed) if one.stream in needed), wanted)
        answers.append([tuple(row.values()) for row in table(given[wanted.name], wanted.name)])
    assert sorted(answers[0], key=str) == sorted(answers[1], key=str), "to the last bit, however it arrived"
    connection = duckdb.connect()
    for name, rows in EVENTS.items():
        plain = pa.table([rows.column("at").cast(pa.int64()), *rows.columns[1:]], names=rows.schema.names)
        connection.register(name, plain)
    expected = connection.execute(sql).fetchall()
    assert len(expected) >= 5, "a query that finds nothing proves nothing"
    assert sorted(map(rounded, answers[0]), key=str) == sorted(map(rounded, expected), key=str)
