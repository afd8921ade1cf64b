"""A step over several processes: the same tables as in one, whatever their number, also after a restart on others."""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from boucle.block import Block
from boucle.errors import BoucleError, Unavailable
from boucle.loop.shards import Make, Sharded, group_of, stored_groups
from boucle.stream.sliding import Sliding
from boucle.stream.window import Session, Tumbling
from tests.stream.laws import FOREVER, block, shuffled, table

SECOND = 1_000_000_000
VALUES = {"n": "count", "total": "sum(value)", "p": "quantile(value, 0.5)"}
MAKES: dict[str, Make] = {
    "tumbling": partial(Tumbling, "w", size="5s", by=["machine"], values=VALUES),
    "session": partial(Session, "w", gap="900ms", by=["machine"], values=VALUES),
    "sliding": partial(Sliding, "w", features={"m": {"of": "mean(value)", "by": "machine", "over": "10s"}}),
}


def readings(size: int = 1500) -> pa.RecordBatch:
    rng = np.random.default_rng(4)
    return pa.record_batch(
        {
            "at": pa.array(
                100 * SECOND + np.sort(rng.integers(0, 60 * SECOND, size)), pa.timestamp("ns", "UTC")
            ),
            "machine": pa.array([f"press-{n}" for n in rng.zipf(1.6, size) % 40]),
            "value": pa.array(rng.normal(0, 1e6, size)),
        }
    )


def pieces(rows: pa.RecordBatch, number: int, seed: int) -> list[Block]:
    rng = np.random.default_rng(seed)
    mixed = shuffled(rows, rng.integers(0, SECOND, 97).tolist())
    at = mixed.column("at").cast(pa.int64()).to_numpy()
    edges = np.unique([0, len(rows), *rng.integers(0, len(rows), number)]).tolist()
    cut = [
        block("in", mixed.slice(begin, end - begin), int(at[:end].max()) - SECOND)
        for begin, end in pairwise(edges)
    ]
    return [*cut, block("in", rows.slice(0, 0), FOREVER)]


def told(blocks: list[Block]) -> list[dict[str, Any]]:
    assert table(blocks, "w/late") == []
    return sorted(table(blocks, "w"), key=lambda row: (row["at"], str(row)))


@pytest.mark.parametrize("kind", MAKES)
def test_as_many_processes_as_you_like_say_the_same(kind: str) -> None:
    rows = readings()
    alone = MAKES[kind]()
    expected = told([one for piece in pieces(rows, 3, 1) for one in alone.step(piece)])
    for workers in (1, 2, 3):
        sharded = Sharded("w", MAKES[kind], by=["machine"], groups=6, workers=workers)
        try:
            given = [one for piece in pieces(rows, 20, workers) for one in sharded.step(piece)]
        finally:
            sharded.close()
        assert told(given) == expected, f"{workers} workers"


@pytest.mark.parametrize(("kind", "workers"), [("sliding", (1, 2, 1)), ("tumbling", (1, 1, 1))])
def test_parts_go_to_other_workers(kind: str, workers: tuple[int, int, int]) -> None:
    """Only what changed is taken each time; the newest of every part makes the whole state."""
    rows = readings()
    alone = MAKES[kind]()
    cut = pieces(rows, 30, 5)
    expected = told([one for piece in cut for one in alone.step(piece)])
    given: list[Block] = []
    newest: dict[str, bytes] = {}
    for part, count in zip((cut[:9], cut[9:17], cut[17:]), workers, strict=True):
        sharded = Sharded("w", MAKES[kind], by=["machine"], groups=7, workers=count)
        if newest:
            sharded.restore_parts(newest)
        for piece in part:
            given += sharded.step(piece)
            newest |= {name: bytes(one) for name, one in sharded.parts(everything=False).items()}
        sharded.close()
    assert told(given) == expected
    assert sum(stored_groups({name: len(one) for name, one in newest.items()}).values()) > 100


def test_a_restart_goes_on_with_other_workers() -> None:
    rows = readings()
    alone = MAKES["sliding"]()
    expected = told([one for piece in pieces(rows, 30, 5) for one in alone.step(piece)])
    cut = pieces(rows, 30, 5)
    given: list[Block] = []
    state = b""
    for part, workers in ((cut[:9], 2), (cut[9:17], 3), (cut[17:], 1)):
        sharded = Sharded("w", MAKES["sliding"], by=["machine"], groups=7, workers=workers)
        if state:
            sharded.restore(state)
        given += [one for piece in part for one in sharded.step(piece)]
        state = sharded.snapshot()
        sharded.close()
    assert told(given) == expected


def test_only_groups_that_changed_are_saved_anew() -> None:
    sharded = Sharded("w", MAKES["tumbling"], by=["machine"], groups=8)
    rows = readings(200)
    sharded.step(block("in", rows, 0))
    first = sharded.parts(everything=False)
    assert stored(first) == {"groups", "marks", *map(str, range(8))}
    assert set(sharded.parts(everything=False)) == {"marks"}
    one = rows.filter(pa.array(np.array(rows.column("machine")) == "press-1"))
    sharded.step(block("in", one, 0))
    (group,) = set(group_of(one, ["machine"], 8).tolist())
    changed = sharded.parts(everything=False)
    assert stored(changed) == {"marks", str(group)}
    assert changed[f"{group}/rest"] != first[f"{group}/rest"]
    assert {*first, *changed} <= set(sharded.parts(everything=True))


def stored(parts: Mapping[str, Any]) -> set[str]:
    """The groups that parts are of."""
    return {name.partition("/")[0] for name in parts}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_group_without_rows_knows_how_far_its_input_has_come(restarted: bool) -> None:
    """What is late for a run that went on is late after a restart, though nothing of that group was stored since."""
    rows = readings(400)
    sharded = Sharded("w", MAKES["tumbling"], by=["machine"], groups=8)
    sharded.step(block("in", rows, FOREVER // 4))
    newest = dict(sharded.parts(everything=False))
    sharded.step(block("in", rows.slice(0, 0), FOREVER // 2))
    newest |= sharded.parts(everything=False)
    if restarted:
        sharded = Sharded("w", MAKES["tumbling"], by=["machine"], groups=8)
        sharded.restore_parts({name: bytes(part) for name, part in newest.items()})
    at = pa.array([FOREVER // 3], pa.timestamp("ns", "UTC"))
    late = rows.slice(0, 1).set_column(0, "at", at)
    given = sharded.step(block("in", late, FOREVER // 2))
    assert [len(one) for one in given if one.stream == "w/late"] == [1]


def test_skew_is_shown() -> None:
    sharded = Sharded("w", MAKES["tumbling"], by=["machine"], groups=8)
    rows = readings()
    sharded.step(block("in", rows, 0))
    assert sum(sharded.load.values()) == len(rows)
    (key, number), *_ = sharded.heavy.most_common(1)
    assert number == rows.column("machine").to_pylist().count(key[0]) > len(rows) / 10


def test_a_key_has_one_group_whatever_stands_beside_it() -> None:
    rows = readings()
    groups = group_of(rows, ["machine"], 16)
    for begin in (0, 700, 1400):
        assert (group_of(rows.slice(begin, 100), ["machine"], 16) == groups[begin : begin + 100]).all()


def test_a_dead_worker_is_told() -> None:
    sharded = Sharded("w", MAKES["tumbling"], by=["machine"], groups=4, workers=2)
    try:
        sharded.step(block("in", readings(50), 0))
        sharded._workers[0]._process.kill()
        sharded._workers[0]._process.join()
        with pytest.raises(Unavailable, match="B316 a worker of w is gone"):
            sharded.step(block("in", readings(50), 0))
    finally:
        sharded.close()


def test_what_a_worker_refuses_is_told_here() -> None:
    sharded = Sharded("w", MAKES["tumbling"], by=["machine"], groups=4, workers=2)
    try:
        with pytest.raises(BoucleError, match="in has no column value"):
            sharded.step(block("in", readings(50).drop_columns(["value"]), 0))
    finally:
        sharded.close()


def test_other_groups_are_refused() -> None:
    sharded = Sharded("w", MAKES["tumbling"], by=["machine"], groups=4)
    with pytest.raises(BoucleError, match="B602 w: its state is of 4 key groups, 8 are declared"):
        Sharded("w", MAKES["tumbling"], by=["machine"], groups=8).restore(sharded.snapshot())
    parts = {name: bytes(part) for name, part in sharded.parts(everything=True).items()}
    with pytest.raises(BoucleError, match="B602 w: its state is of 4 key groups, 8 are declared"):
        Sharded("w", MAKES["tumbling"], by=["machine"], groups=8).restore_parts(parts)
