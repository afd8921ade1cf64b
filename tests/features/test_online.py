"""Online is what offline says: features looked up at a moment are those that training joins as of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.errors import BoucleError, Unavailable
from boucle.features import FeatureView, as_of
from boucle.features.online import STATES, FeatureReader, Online
from boucle.features.records import WORD, decoded, encoded, merged, moments, numbers
from boucle.features.redis_store import RedisStore
from boucle.features.store import MemoryStore, OnlineStore, open_store
from boucle.ports import Operator
from tests.features.redis_server import Server, redis_server

MS = 1_000_000
"""A moment of these tests, in nanoseconds."""
VIEW = {"entity": ["card"], "columns": ["sum", "count"], "ttl": "50ms"}
SPEC = FeatureView(name="v", table="spent", entity=("card",), columns=("sum", "count"), ttl=50 * MS)

cards = st.sampled_from(["a", "b", None])
numbers_ = st.none() | st.sampled_from([0.0, -0.0, 1.5, -2.0, float("nan"), float("inf"), float("-inf")])
kept = st.tuples(cards, st.none() | st.integers(0, 100), numbers_, numbers_)
asked = st.tuples(cards, st.none() | st.integers(0, 150))


def features(rows: list[Any]) -> pa.RecordBatch:
    card, at, total, count = zip(*rows, strict=True) if rows else ((), (), (), ())
    told = {"card": pa.array(card, pa.string()), "at": milliseconds(at)}
    return pa.record_batch(
        {**told, "sum": pa.array(total, pa.float64()), "count": pa.array(count, pa.float64())}
    )


def decisions(rows: list[Any]) -> pa.RecordBatch:
    card, at = zip(*rows, strict=True) if rows else ((), ())
    return pa.record_batch({"card": pa.array(card, pa.string()), "at": milliseconds(at)})


def milliseconds(at: Sequence[int | None]) -> pa.Array:
    return pa.array([None if one is None else one * MS for one in at], pa.int64())


def joined(rows: list[Any], given_rows: list[Any]) -> list[tuple[Any, Any]]:
    """What training would see."""
    spine = decisions(rows)
    table = pa.table({"card": spine["card"], "_at": spine["at"]})
    found = as_of(table, [(SPEC, pa.Table.from_batches([features(given_rows)]))], 2**62)
    return list(zip(found["sum"].to_pylist(), found["count"].to_pylist(), strict=True))


def served(step: Online, rows: list[Any]) -> list[tuple[Any, Any]]:
    (block,) = step.step(Block("payments", decisions(rows), 0, Position("p", 0)))
    return list(zip(block.rows["sum"].to_pylist(), block.rows["count"].to_pylist(), strict=True))


def keep(step: Online, rows: list[Any], watermark: int = 0) -> None:
    assert step.step(Block("spent", features(rows), watermark, Position("p", 0))) == ()


def online(**declared: Any) -> Online:
    return Online("enriched", view={**VIEW, "name": "v"}, keep="spent", **declared)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_server(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(params=["memory", "redis"])
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[[], OnlineStore]]:
    """An empty store, as often as it is called."""
    made: list[OnlineStore] = []

    def one() -> OnlineStore:
        if request.param == "memory":
            made.append(MemoryStore())
        else:
            store = RedisStore(request.getfixturevalue("server").address, 5.0)
            store._client.flushall()
            made.append(store)
        return made[-1]

    yield one
    for store in made:
        store.close()


def test_online_is_offline_at_every_moment(fresh: Callable[[], OnlineStore]) -> None:
    store = fresh()

    @settings(max_examples=15, deadline=None)
    @given(st.lists(kept, max_size=12), st.lists(asked, max_size=8), st.randoms(), st.integers(1, 4))
    def law(rows: list[Any], wanted: list[Any], chance: Any, blocks: int) -> None:
        if isinstance(store, RedisStore):
            store._client.flushdb()
        else:
            assert isinstance(store, MemoryStore)
            store.held = {}
        step = online(depth=12)
        step.reader.store = store
        told = list(rows)
        chance.shuffle(told)  # in any order, cut anywhere, some of it twice
        for place in range(blocks):
            keep(step, told[place::blocks])
        keep(step, told[: len(told) // 2])
        assert repr(served(step, wanted)) == repr(joined(wanted, rows)).replace("-0.0", "0.0")

    law()


def test_the_newest_is_enough_for_now() -> None:
    """With one row of each key: what is served at a moment at which nothing newer is known is the join as of it."""
    step = online(depth=1)
    rows: list[Any] = []
    chance = np.random.default_rng(3)
    for now in range(12):
        new = [("a" if chance.random() < 0.5 else "b", now, float(chance.integers(9)), None)]
        rows += new
        keep(step, new)
        wanted = [("a", now), ("b", now), ("c", now)]
        assert served(step, wanted) == joined(wanted, rows)


def test_what_became_of_each_row(fresh: Callable[[], OnlineStore]) -> None:
    step = online(default={"count": -1.0}, state="known", depth=2)
    step.reader.store = fresh()
    keep(step, [("a", 100, 1.0, None), ("a", 110, 2.0, 5.0), ("a", 105, 3.0, 6.0)])
    rows = decisions([("a", 107), ("a", 112), ("a", 161), ("a", 50), ("z", 100), (None, 100), ("a", None)])
    (block,) = step.step(Block("payments", rows, 7, Position("p", 1)))
    assert block.watermark == 7
    states = ["found", "found", "stale", "ahead", "missing", "missing", "missing"]
    assert block.rows["known"].to_pylist() == states
    assert block.rows["sum"].to_pylist() == [3.0, 2.0, *[None] * 5]
    assert block.rows["count"].to_pylist() == [6.0, 5.0, *[-1.0] * 5]
    assert step.counts == {"found": 2, "missing": 3, "stale": 1, "ahead": 1, "unreachable": 0, "kept": 3,
                           "waiting": 0}  # fmt: skip
    assert isinstance(step, Operator)


def test_a_store_that_is_away_costs_no_row_and_loses_none(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        step = online(store=server.address, default={"sum": 0.0}, timeout="200ms", state="known")
        events: list[str] = []
        step.attach(tmp_path, lambda kind, *_: events.append(kind))
        step.live()
        keep(step, [("a", 1, 1.0, 1.0)])
        assert served(step, [("a", 1)]) == [(1.0, 1.0)]
        server.stop()
        for number in range(2, 6):
            keep(step, [("a", number, float(number), 0.0), ("b", number, 1.0, 1.0)])
            assert served(step, [("a", number)]) == [(0.0, None)]
        assert (step.counts["unreachable"], step.counts["waiting"]) == (4, 2)
        assert events == ["features_trouble"]
        again = online(store=server.address, timeout="200ms")  # the process is killed meanwhile
        again.restore(step.snapshot())
        step.close()
        server.start()
        end = time.monotonic() + 20
        while served(again, [("a", 9), ("b", 9)]) != [(5.0, 0.0), (1.0, 1.0)]:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert served(again, [("a", 3)]) == [(3.0, 0.0)]
        assert again.counts["waiting"] == 0
        again.close()


def test_an_event_says_when_it_is_back(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        step = online(store=server.address, timeout="200ms")
        told: list[tuple[str, str, str]] = []
        step.attach(tmp_path, lambda kind, severity, says, _: told.append((kind, severity, says["fr"])))
        server.stop()
        served(step, [("a", 1)])
        server.start()
        end = time.monotonic() + 20
        while len(told) < 2:
            assert time.monotonic() < end
            served(step, [("a", 1)])
            time.sleep(0.05)
        assert [kind for kind, _, _ in told] == ["features_trouble", "features_well"]
        step.close()


def test_two_writers_agree_whoever_is_last(server: Server) -> None:
    one, other = (online(store=server.address, depth=2) for _ in range(2))
    keep(one, [("w", 30, 3.0, 3.0)])
    keep(other, [("w", 10, 1.0, 1.0)])
    keep(one, [("w", 20, 2.0, 2.0)])
    keep(other, [("w", 30, 3.0, 2.0)])
    assert served(other, [("w", 40), ("w", 25), ("w", 15)]) == [(3.0, 3.0), (2.0, 2.0), (None, None)]
    one.close()
    other.close()


def test_a_key_expires_in_redis_once_it_is_of_no_use(server: Server) -> None:
    store = RedisStore(server.address, 5.0)
    store.put({b"short": b"x" * 16}, 16, 1, 0.05)
    assert store.get([b"short"]) == [b"x" * 16]
    time.sleep(0.1)
    assert store.get([b"short"]) == [None]
    many = {f"m{number}".encode(): b"y" * 16 for number in range(2_500)}
    store.put(many, 16, 1, 0)
    assert store.get(list(many)) == [b"y" * 16] * 2_500
    store.close()


def test_after_a_restart_memory_is_as_it_was() -> None:
    step = online()
    keep(step, [("a", 1_000, 1.0, 1.0), ("b", 850, 2.0, 2.0)], watermark=1_000 * MS)
    again = online()
    again.restore(step.snapshot())
    assert served(again, [("a", 1_000), ("b", 860)]) == [(1.0, 1.0), (None, None)]  # b is of no use any more
    assert again.counts["kept"] == 2
    with pytest.raises(BoucleError, match="B602"):
        again.restore(b"\xc1")


def test_wrong_declarations_are_told(tmp_path: Path) -> None:
    for code, declared in (
        ("B696", {"default": {"nothing": 1.0}}),
        ("B696", {"depth": 0}),
        ("B696", {"timeout": "0s"}),
        ("B694", {"store": "mongodb://x"}),
        ("B694", {"store": "redis://host:notaport"}),
    ):
        with pytest.raises(BoucleError) as caught:
            online(**declared)
        assert caught.value.code == code
    for view in ("nobody", {"entity": "card"}, [1], {**VIEW, "colums": []}):
        with pytest.raises(BoucleError) as caught:
            Online("enriched", view=view, folder=tmp_path)
        assert caught.value.code == "B696"
    step = online()
    rows = pa.record_batch({"card": ["a"], "at": [1], "sum": [1.0]})
    with pytest.raises(BoucleError) as caught:
        step.step(Block("payments", rows, 0, Position("p", 0)))
    assert caught.value.code == "B697"
    with pytest.raises(BoucleError) as caught:
        step.step(Block("payments", rows.select(["at"]), 0, Position("p", 0)))
    assert caught.value.code == "B221"
    with pytest.raises(Unavailable):
        open_store("redis://127.0.0.1:1/0", 0.2).get([b"x"])


def test_columns_are_traced_to_the_rows_that_are_kept() -> None:
    inputs = {"payments": ["card", "at"], "spent": ["card", "at", "sum", "count"]}
    traced = Online.trace(inputs, view=VIEW, keep="spent", state="known")
    assert list(traced.columns) == ["card", "at", "sum", "count", "known"]
    assert [(one.stream, one.column) for one in traced.columns["sum"]] == [("spent", "sum")]


@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=6),
    st.lists(st.none() | st.floats(), min_size=1, max_size=6),
)
def test_records_sort_as_their_rows_and_come_back(at: list[int], values: list[float | None]) -> None:
    count = min(len(at), len(values))
    moments_, column = np.array(at[:count], np.int64), pa.array(values[:count], pa.float64())
    records = encoded(moments_, [column])
    codes = decoded(records, 1, 1)[:, 0]
    assert moments(codes[:, 0]).tolist() == moments_.tolist()
    found, null = numbers(codes[:, 1])
    assert null.tolist() == column.is_null().to_pylist()
    np.testing.assert_array_equal(found[~null], column.drop_null().to_numpy())
    order = sorted(range(count), key=lambda place: records[place])
    assert [at[place] for place in order] == sorted(at[:count])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=10),
    st.integers(1, 4),
    st.integers(0, 10),
)
def test_merging_does_not_depend_on_how(rows: list[tuple[int, int]], depth: int, cut: int) -> None:
    records = [at.to_bytes(WORD, "big") + value.to_bytes(WORD, "big") for at, value in rows]
    held = b""
    for record in records[:cut]:
        held = merged(held, record, 16, depth)
    later = b""
    for record in records[cut:]:
        later = merged(later, record, 16, depth)
    newest = {record[:WORD]: record for record in sorted(records)}
    assert merged(held, later, 16, depth) == b"".join(sorted(newest.values(), reverse=True)[:depth])


@given(st.lists(st.none() | st.binary(max_size=100), max_size=4))
def test_any_bytes_in_the_store_are_features_or_none(held: list[bytes | None]) -> None:
    store = MemoryStore()
    reader = FeatureReader(SPEC, store, depth=2)
    keys = [b"%d" % place for place in range(len(held))]
    store.held = {reader._prefix + key: one for key, one in zip(keys, held, strict=True) if one is not None}
    values, null, states = reader.read(keys, np.full(len(held), 10, np.int64))
    assert values.shape == null.shape == (len(held), 2)
    assert {STATES[one] for one in states.tolist()} <= set(STATES)
