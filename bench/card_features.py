"""How many card transactions a second get their sliding-window features, beside peers on the same events.

2 M transactions of 50 k cards at 10 k terminals, in order of event time; per event count and sum of the card
over 10 min, 1 h and 24 h, count and mean of the terminal over 24 h, the event included (`bench.workloads`,
W2). Each engine runs in a process of its own on the same events; its answer is checked against a self-join
in SQL: a wrong one has no goal and says by how much. Our row is `boucle.stream.sliding:Sliding` on Blocks of
64 rows, one thread, keys as whole numbers. The bare limit is an incremental loop in numba over whole arrays.

`paced_*_us`: events that come at 100 000 a second, from when each was due until its features are there;
`one_row_*_us`: Blocks of one row from the source through features, a forest of 100 trees and rules.
`*_cpu_s` and `*_peak_mb` are of the whole process with its children.
"""

import gc
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from bench.figures import Figure, figure, options, percentile, publish
from bench.peers.engine import Engine, measure_all, rows
from bench.peers.shared import tell
from bench.workloads import (
    CARD_WINDOWS_MS,
    CARDS,
    TERMINAL_WINDOW_MS,
    TERMINALS,
    check_cards,
    expected_cards,
    make_cards,
)
from boucle.block import Block, Position
from boucle.compiled import compiled

COLUMNS = ("at", "card", "terminal", "amount")
FEATURES = {
    "card_count_10m": {"of": "count(amount)", "by": "card", "over": "10min"},
    "card_sum_10m": {"of": "sum(amount)", "by": "card", "over": "10min"},
    "card_count_1h": {"of": "count(amount)", "by": "card", "over": "1h"},
    "card_sum_1h": {"of": "sum(amount)", "by": "card", "over": "1h"},
    "card_count_24h": {"of": "count(amount)", "by": "card", "over": "24h"},
    "card_sum_24h": {"of": "sum(amount)", "by": "card", "over": "24h"},
    "terminal_count_24h": {"of": "count(amount)", "by": "terminal", "over": "24h"},
    "terminal_mean_24h": {"of": "mean(amount)", "by": "terminal", "over": "24h"},
}
PACE = 100_000
"""Events a second of the paced measure."""
GOALS = {"paced": ("<= 1000", "<= 15000"), "one_row": ("<= 200", "")}
"""p99 and maximum, in µs."""


def load(folder: str) -> list[Any]:
    """at, card, terminal, amount."""
    return [np.load(Path(folder) / f"{name}.npy") for name in COLUMNS]


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, list[float]]:
    """What the work gives, and how long each repetition took."""
    result, seconds = None, []
    for _ in range(repeats):
        result = None
        begun = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begun)
    return result, seconds


def transactions(folder: str, size: int, *, text: bool = False, lateness_ms: int = 0) -> list[Block]:
    """W2 as Blocks of `size` rows; keys as numbers or as text."""
    at, card, terminal, amount = load(folder)
    keys = {"card": pa.array(card.astype(np.int64)), "terminal": pa.array(terminal.astype(np.int64))}
    if text:
        keys = {
            name: pa.array([f"{name}-{key:06}" for key in held.to_pylist()]) for name, held in keys.items()
        }
    instants = pa.array(at * 1_000_000).cast(pa.timestamp("ns", tz="UTC"))
    whole = pa.record_batch({"at": instants, **keys, "amount": pa.array(amount)})
    return [
        Block(
            "payments",
            whole.slice(first, size),
            int(at[min(first + size, len(at)) - 1] - lateness_ms) * 1_000_000,
            Position("payments", first + size),
        )
        for first in range(0, len(at), size)
    ]


def boucle(folder: str, answer: str, size: str = "64", order: str = "arrival", keys: str = "numbers") -> None:
    """Our rows."""
    from boucle.stream.sliding import Sliding

    blocks = transactions(folder, int(size), text=keys == "text")
    if order == "time":  # one more, without rows, that closes the stream
        last = blocks[-1]
        blocks.append(Block("payments", last.rows.slice(0, 0), last.watermark + 1, last.position))

    def work(some: list[Block]) -> list[Block]:
        sliding = Sliding("features", features=FEATURES, order=order)  # type: ignore[arg-type]
        told: list[Block] = []
        for block in some:
            told.extend(sliding.step(block))
        assert sliding.late_rows == 0
        return told

    work(blocks[:100])
    gc.freeze()
    told, seconds = timed(lambda: work(blocks), 3)
    table = pa.Table.from_batches([block.rows for block in told])
    out = np.column_stack([table[name].to_numpy().astype(np.float64) for name in FEATURES])
    tell(answer, out, len(out), seconds)


def paced(folder: str, answer: str, seconds: str = "20") -> None:
    """Events that come at a fixed pace, taken up to 64 at a time, with the memory of the day before.

    How long each waits for its features, from when it was due; every second a checkpoint takes what changed, read by
    another thread as in a running loop.
    """
    from boucle.stream.sliding import Sliding

    blocks = transactions(folder, 64)
    whole = pa.Table.from_batches([block.rows for block in blocks]).combine_chunks().to_batches()[0]
    number = min(int(float(seconds) * PACE), whole.num_rows // 2)
    first = whole.num_rows - number
    sliding = Sliding("features", features=FEATURES, order="arrival")
    for block in blocks[: first // 64]:
        sliding.step(block)
    sliding.step(Block("payments", whole.slice(first // 64 * 64, first % 64), 0, Position("payments", 0)))

    def keep(parts: Any) -> int:
        return sum(len(bytes(part)) for part in parts.values())

    keep(sliding.parts(everything=True))
    sys.setswitchinterval(0.0001)  # as the loop does
    gc.collect()
    gc.freeze()
    keeper = ThreadPoolExecutor(1)
    took = np.empty(number)
    position = Position("payments", 0)
    given, begun = 0, time.perf_counter() + 0.01
    kept = begun
    while given < number:
        now = time.perf_counter()
        due = min(int((now - begun) * PACE), number)
        if due <= given:
            if now - kept >= 1:
                keeper.submit(keep, sliding.parts(everything=False))
                kept = now
            continue
        size = min(due - given, 64)
        rows = whole.slice(first + given, size)
        told = sliding.step(Block("payments", rows, 0, position))
        assert len(told[0]) == size
        done = time.perf_counter()
        took[given : given + size] = done - begun - np.arange(given, given + size) / PACE
        given += size
    keeper.shutdown()
    np.save(answer, took * 1e6)
    print(json.dumps({"items": number, "seconds": [number / PACE]}), flush=True)


def one_row(folder: str, answer: str, seconds: str = "10") -> None:
    """One payment at a time through source, features, score and rules: how long from the source to the decision.

    A boosted forest of 100 trees, by ONNX Runtime; two rules, one of which speaks for about one payment in 200.
    """
    from boucle.act.policy import Policy, read_rules
    from boucle.bus.memory import MemorySource
    from boucle.serve.score import Score
    from boucle.stream.sliding import Sliding

    model = Path(folder) / "model"
    blocks = transactions(folder, 64)
    half = len(blocks) // 2
    sliding = Sliding("features", features=FEATURES, order="arrival")
    for block in blocks[: half - 100]:
        sliding.step(block)
    told = [one for block in blocks[half - 100 : half] for one in sliding.step(block)]
    _forest(told, model)
    score = Score("scores", model=model)
    risks = [score.step(block)[0].rows["risk"].to_numpy() for block in told]
    limit = float(np.quantile(np.concatenate(risks), 0.995))
    declared = [
        {"id": "block", "on": "scores", "when": {"risk": f"> {limit:.9f}"}, "per": ["card"], "once": "row",
         "event": {"kind": "block", "severity": "alarm", "says": {"en": "{card}", "fr": "{card}"}}},
        {"id": "watch", "on": "scores", "when": {"card_count_10m": "> 20"}, "per": ["card"], "once": "episode",
         "rearm": "10min",
         "event": {"kind": "watch", "severity": "warning", "says": {"en": "{card}", "fr": "{card}"}}},
    ]  # fmt: skip
    rules, wrong = read_rules(declared, streams=["scores"], limits={})
    assert not wrong, wrong
    source, policy = MemorySource(stream="payments"), Policy(rules, "cards")
    source.open()
    number = min(int(float(seconds) * 2000), half * 64)
    for block in transactions(folder, 1)[half * 64 :][:number]:
        source.put(block)
    took, spoken = [], 0
    gc.collect()
    gc.freeze()
    for _ in range(number):
        begun = time.perf_counter_ns()
        polled = source.poll(0)
        assert polled is not None
        for featured in sliding.step(polled):
            for scored in score.step(featured):
                events, _rules = policy.decide(scored)
                spoken += len(events)
        took.append((time.perf_counter_ns() - begun) / 1e3)
        source.commit(polled.position)
    assert spoken > 0
    np.save(answer, np.array(took[200:]))
    print(json.dumps({"items": len(took), "seconds": [sum(took) / 1e6]}), flush=True)


def _forest(told: list[Block], into: Path) -> None:
    """Train and store a forest that knows the payments of cards that spent much within an hour."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import GradientBoostingRegressor

    from boucle.models.file import Column, ModelFile

    table = pa.Table.from_batches([block.rows for block in told])
    rows = np.column_stack([table[name].to_numpy() for name in FEATURES]).astype(np.float32)
    truth = (rows[:, 3] > np.quantile(rows[:, 3], 0.98)).astype(float)
    forest = GradientBoostingRegressor(n_estimators=100, max_depth=3, subsample=0.5, random_state=0)
    forest.fit(rows, truth)
    made = convert_sklearn(forest, initial_types=[("input", FloatTensorType([None, len(FEATURES)]))])
    inputs = tuple(Column(name, "int64" if "count" in name else "double") for name in FEATURES)
    ModelFile.build(
        made.SerializeToString(), name="risk", inputs=inputs, outputs=(Column("risk"),), created="",
        trained_on={}, metrics={},
    ).save(into)  # fmt: skip


@compiled
def _incremental(
    at: Any, key: Any, amount: Any, sizes: Any, first: int, last: int, following: Any, newest: Any, tails: Any,
    counts: Any, sums: Any, out: Any
) -> None:  # fmt: skip
    for event in range(first, last):
        one = key[event]
        if newest[one] >= 0:
            following[newest[one]] = event
        newest[one] = event
        for window in range(len(sizes)):
            tail = tails[one, window]
            if tail < 0:
                tail = event
            counts[one, window] += 1
            sums[one, window] += amount[event]
            while at[tail] <= at[event] - sizes[window]:
                counts[one, window] -= 1
                sums[one, window] -= amount[tail]
                tail = following[tail]
            tails[one, window] = tail
            out[event, 2 * window] = counts[one, window]
            out[event, 2 * window + 1] = sums[one, window]


def bare(folder: str, answer: str, size: str = "0") -> None:
    """An incremental loop over arrays; `size` 0: all at once."""
    at, card, terminal, amount = load(folder)

    def group(key: Any, keys: int, sizes: Any, step: int) -> Any:
        windows = len(sizes)
        out = np.empty((len(at), 2 * windows))
        held = (
            np.full(len(at), -1, np.int64),
            np.full(keys, -1, np.int64),
            np.full((keys, windows), -1, np.int64),
            np.zeros((keys, windows), np.int64),
            np.zeros((keys, windows)),
        )
        for first in range(0, len(at), step):
            _incremental(at, key, amount, sizes, first, min(first + step, len(at)), *held, out)
        return out

    def work() -> Any:
        step = int(size) or len(at)
        cards = group(card, CARDS, np.array(CARD_WINDOWS_MS), step)
        terminals = group(terminal, TERMINALS, np.array([TERMINAL_WINDOW_MS]), step)
        terminals[:, 1] /= terminals[:, 0]
        return np.hstack([cards, terminals])

    work()
    out, seconds = timed(work, 5)
    tell(answer, out, len(at), seconds)


def duckdb_sql(folder: str, answer: str) -> None:
    """SQL window functions over the whole table, two threads."""
    columns = dict(zip(COLUMNS, load(folder), strict=True))
    columns["number"] = np.arange(len(columns["at"]))
    database = duckdb.connect()
    database.execute("SET threads = 2; SET enable_progress_bar = false")
    database.register("given", columns)
    database.execute('CREATE TABLE events AS SELECT number, "at" AS ms, card, terminal, amount FROM given')
    over = {
        f"w{index}": f"(PARTITION BY card ORDER BY ms RANGE BETWEEN {size - 1} PRECEDING AND CURRENT ROW)"
        for index, size in enumerate(CARD_WINDOWS_MS)
    }
    over["w3"] = (
        f"(PARTITION BY terminal ORDER BY ms RANGE BETWEEN {TERMINAL_WINDOW_MS - 1} PRECEDING AND CURRENT ROW)"
    )
    sums = ", ".join(f"count(*) OVER w{n} AS c{n}, sum(amount) OVER w{n} AS s{n}" for n in range(3))
    windows = ", ".join(f"{name} AS {said}" for name, said in over.items())
    query = f"SELECT number, {sums}, count(*) OVER w3 AS c3, avg(amount) OVER w3 AS s3 FROM events WINDOW {windows}"

    def work() -> Any:
        told = database.execute(query).fetchnumpy()
        out = np.empty((len(columns["at"]), 8))
        for place, name in enumerate(list(told)[1:]):
            out[told["number"], place] = told[name]
        return out

    out, seconds = timed(work, 3)
    tell(answer, out, len(out), seconds)


def python(folder: str, answer: str) -> None:
    """Deques and running sums, event by event; a subset of the events, the rate is of it."""
    columns = load(folder)
    events = min(200_000, len(columns[0]) // 3)
    at, card, terminal, amount = (column[:events].tolist() for column in columns)

    def work() -> list[list[float]]:
        cards: dict[int, list[Any]] = {}
        terminals: dict[int, list[Any]] = {}
        out = []
        for moment, who, where, value in zip(at, card, terminal, amount, strict=True):
            line: list[float] = []
            for held, key, sizes in (
                (cards, who, CARD_WINDOWS_MS),
                (terminals, where, (TERMINAL_WINDOW_MS,)),
            ):
                windows = held.get(key)
                if windows is None:
                    windows = held[key] = [[deque(), 0.0] for _ in sizes]
                for window, size in zip(windows, sizes, strict=True):
                    inside = window[0]
                    inside.append((moment, value))
                    window[1] += value
                    while inside[0][0] <= moment - size:
                        window[1] -= inside.popleft()[1]
                    line += (len(inside), window[1])
            line[7] /= line[6]
            out.append(line)
        return out

    out, seconds = timed(work, 1)
    tell(answer, out, len(out), seconds)


ENGINES = [
    Engine("boucle", "boucle, Blocks of 64 rows", "boucle", goal=1e6),
    Engine("boucle_time", "boucle, Blocks of 64 rows, order: time", "boucle", ("64", "time"), quick=False),
    Engine("boucle_1024", "boucle, Blocks of 1024 rows", "boucle", ("1024",)),
    Engine("boucle_text", "boucle, Blocks of 64 rows, keys as text", "boucle", ("64", "arrival", "text"), quick=False),
    Engine("bare", "bare limit, numba over whole arrays", "bare"),
    Engine("bare_64", "numba, called for 64 events at a time", "bare", ("64",)),
    Engine("duckdb", "DuckDB 2 threads, window functions, all at once", "duckdb_sql"),
    Engine("python", "plain Python, deques, subset", "python"),
    Engine("bytewax", "Bytewax, two keyed branches, subset", "bytewax/w2", ("branches",), goal=40),
    Engine("bytewax_rekeyed", "Bytewax, re-keyed card → terminal, subset", "bytewax/w2", ("rekeyed",), quick=False),
    Engine("quix", "Quix Streams, two topics, mock Kafka, subset", "quix/w2", quick=False),
    Engine("spark", "PySpark transformWithStateInPandas, shards, local[2], subset", "spark/w2", goal=25, quick=False,
           timeout=420),
    Engine("flink", "Flink SQL over windows, subset", "flink/w2", quick=False, timeout=420),
]  # fmt: skip


def latencies(folder: Path, quick: bool) -> list[Figure]:
    """Our latencies per event, each measured in a process of its own."""
    told = []
    for name, what, length in (
        ("paced", f"boucle, {PACE} events/s in Blocks of at most 64", "3" if quick else "10"),
        ("one_row", "boucle, one row at a time: source, features, score, rules", "2" if quick else "10"),
    ):
        took: list[float] = []

        def keep(_told: dict[str, Any], given: Any, into: list[float] = took) -> Any:
            into.extend(given.tolist())
            return None

        measure_all([Engine(name, what, name, (length,))], "bench.card_features", folder, keep, quick=quick)
        if not took:
            continue
        told += [
            figure(f"{name}_p50_us", percentile(took, 0.5), "µs"),
            figure(f"{name}_p99_us", percentile(took, 0.99), "µs", goal=GOALS[name][0]),
            figure(f"{name}_max_us", max(took), "µs", goal=GOALS[name][1]),
        ]
    return told


def main() -> None:
    """Measure and tell."""
    asked = options(__doc__)
    with tempfile.TemporaryDirectory(prefix="boucle-bench-") as name:
        folder = Path(name)
        make_cards(folder, 250_000 if asked.quick else 2_000_000)
        expected = expected_cards(folder)
        measured = measure_all(
            ENGINES,
            "bench.card_features",
            folder,
            lambda _told, given: check_cards(expected, given),
            quick=asked.quick,
        )
        latency = latencies(folder, asked.quick)
    publish([*rows(measured, "boucle", "events/s"), *latency], asked)


if __name__ == "__main__":
    main()
