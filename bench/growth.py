"""What an event costs when there are many keys, and an append when there are many segments.

`growth_sliding_*`, `growth_tumbling_*`, `growth_stateful_*`: processor time (ns) of one event in Blocks of 1024
rows with 10 thousand to 10 million whole-number keys, each event of a key drawn at random, in steady state: on
average two events of each key lie in its window. Sliding tells count, sum and mean of the window; Tumbling
counts and sums, and the price includes opening and closing the windows; Stateful is a Python function per row.
Each size runs in a process of its own.

`growth_*_ratio` is the most keys over the fewest, the goal 1.5. Its peer is the physical limit: plain numba
that adds to one cache line per key in an array, without any look-up, on the same keys in the same Blocks;
caches and the processor's table of pages make even that one grow. DuckDB groups all events of a window at
once on one thread; a plain Python dictionary holds a state of the same kind.

`log_grown_*` compares a log of 1 000 segments with one of a single segment.
"""

import gc
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from bench.figures import Figure, figure, options, percentile, publish
from bench.log_append import block
from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.compiled import compiled
from boucle.ports import Operator

KEYS = {"10k": 10_000, "100k": 100_000, "1M": 1_000_000, "10M": 10_000_000}
ROWS = 1024
CHUNK = 64
"""Blocks that are made, and then measured, at a time."""
EVENTS = 400_000
"""At least so many are measured."""
HOUR = 3600 * 10**9
START = 400_000 * HOUR
GOAL = 1.5


class Total(Struct):
    """The state of `Stateful`, and of its peer."""

    count: int = 0
    total: float = 0.0


def events(keys: int, number: int, seed: int, rows: int = ROWS) -> Iterator[Block]:
    """Events of random keys, so often that a key has two in an hour, from the hour `seed` on."""
    rng = np.random.default_rng(seed)
    for first in range(0, number, rows):
        size = min(rows, number - first)
        at = START + seed * HOUR + np.arange(first, first + size) * (HOUR // (2 * keys))
        columns = {
            "at": pa.array(at, pa.timestamp("ns", "UTC")),
            "key": pa.array(rng.integers(0, keys, size)),
            "value": pa.array(np.ones(size)),
        }
        yield Block("events", pa.record_batch(columns), int(at[-1]), Position("events", first + size))


def parts(work: Callable[[Block], Any], given: Iterator[Block]) -> list[float]:
    """Processor time per event, ns, of one part of the stream after another."""
    spent: list[float] = []
    while chunk := [one for one, _ in zip(given, range(CHUNK), strict=False)]:
        begun = time.process_time_ns()
        for one in chunk:
            work(one)
        spent.append((time.process_time_ns() - begun) / sum(len(one) for one in chunk))
    return spent


def measured(work: Callable[[Block], Any], given: Iterator[Block]) -> float:
    """Processor time per event, ns: the median over the parts of the stream."""
    return float(np.median(parts(work, given)))


def sliding(keys: int) -> float:
    """Features over the last hour, told with each event."""
    from boucle.stream.sliding import Sliding

    told = ("count(value)", "sum(value)", "mean(value)")
    features = {of[:4]: {"of": of, "by": "key", "over": "1h"} for of in told}
    operator = Sliding("features", features=features, order="arrival")
    for one in events(keys, 2 * keys, 0):
        operator.step(one)
    gc.freeze()
    return measured(operator.step, events(keys, EVENTS, 1))


def tumbling(keys: int) -> float:
    """Windows of an hour: a whole number of them."""
    from boucle.stream.window import Tumbling

    operator: Operator = Tumbling("hours", size="1h", by="key", values={"n": "count", "sum": "sum(value)"})
    for one in events(keys, 2 * keys, 0):
        operator.step(one)
    gc.freeze()
    hours = -(-EVENTS // (2 * keys))
    spent = [np.mean(parts(operator.step, events(keys, 2 * keys, hour))) for hour in range(1, hours + 1)]
    return float(np.median(spent))


def grouped(keys: int) -> float:
    """DuckDB over the events of one hour, ns per event."""
    import duckdb

    rows = pa.Table.from_batches([one.rows for one in events(keys, 2 * keys, 1, 65_536)])
    with duckdb.connect(config={"threads": 1}) as database:
        database.execute("SET enable_progress_bar = false")
        spent = []
        for _ in range(1 if keys > 1_000_000 else 5):
            begun = time.process_time_ns()
            told = database.sql("SELECT key, count(*), sum(value) FROM rows GROUP BY key").to_arrow_table()
            spent.append((time.process_time_ns() - begun) / len(rows))
            assert 0 < len(told) <= keys
    return float(np.median(spent))


def stateful(keys: int) -> float:
    """A count and a sum per key, in Python."""
    from boucle.stream.stateful import Stateful

    def on_row(context: Any, row: dict[str, Any]) -> None:
        context.state.count += 1
        context.state.total += row["value"]

    output = pa.schema([("n", pa.int64())])
    operator = Stateful("totals", by=["key"], on_row=on_row, state=Total, output=output, order="arrival")
    for one in every(keys):
        operator.step(one)
    gc.freeze()
    return measured(operator.step, events(keys, EVENTS, 1))


def dictionary(keys: int) -> float:
    """The same in a plain dictionary."""
    states = {key: Total() for key in range(keys)}
    gc.freeze()

    def add(one: Block) -> None:
        for key, value in zip(one.rows["key"].to_pylist(), one.rows["value"].to_pylist(), strict=True):
            state = states[key]
            state.count += 1
            state.total += value

    return measured(add, events(keys, EVENTS, 2))


def every(keys: int) -> Iterator[Block]:
    """An event of each key, in no order."""
    order = np.random.default_rng(0).permutation(keys)
    for first in range(0, keys, 65_536):
        some = order[first : first + 65_536]
        at = START + np.arange(first, first + len(some))
        columns = {
            "at": pa.array(at, pa.timestamp("ns", "UTC")),
            "key": pa.array(some),
            "value": pa.array(np.ones(len(some))),
        }
        yield Block("events", pa.record_batch(columns), int(at[-1]), Position("events", first + len(some)))


@compiled
def _add(state: Any, keys: Any, values: Any) -> None:
    for row in range(len(keys)):
        state[keys[row], 0] += 1
        state[keys[row], 1] += values[row]


def memory(keys: int) -> float:
    """The same random keys, straight into an array of one cache line a key."""
    state = np.ones((keys, 8))

    def work(one: Block) -> None:
        _add(state, one.rows["key"].to_numpy(), one.rows["value"].to_numpy())

    measured(work, events(keys, EVENTS, 0))
    return measured(work, events(keys, EVENTS, 1))


def apart(work: Callable[[int], Any], keys: int) -> tuple[Any, float]:
    """What a measure says in a process of its own, and how much memory (GB) that took."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        told = process.submit(work, keys).result()
        return told, process.submit(peak).result()


def peak() -> float:
    """The most memory this process ever had, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def per_key(sizes: dict[str, int]) -> list[Figure]:
    """Every operator with every number of keys."""
    figures: list[Figure] = []
    least, *_, most = sizes
    alone = {name: apart(memory, keys)[0] for name, keys in sizes.items()}
    peers = {
        "sliding": ("numba, one cache line a key", alone),
        "tumbling": ("DuckDB GROUP BY, all at once", {name: grouped(keys) for name, keys in sizes.items()}),
        "stateful": ("Python dict", {name: apart(dictionary, keys)[0] for name, keys in sizes.items()}),
    }
    limit = alone[most] / alone[least]
    for work in (sliding, tumbling, stateful):
        operator, (peer, other) = work.__name__, peers[work.__name__]
        spent: dict[str, float] = {}
        held = 0.0
        for name, keys in sizes.items():
            spent[name], held = apart(work, keys)
            told = f"growth_{operator}_{name}_ns"
            figures.append(figure(told, spent[name], "ns", peer=peer, peer_value=other[name]))
        grown, told = spent[most] / spent[least], f"growth_{operator}_ratio"
        peer = peers["sliding"][0]
        figures.append(figure(told, grown, "×", goal=f"<= {GOAL}", peer=peer, peer_value=limit))
        figures.append(figure(f"growth_{operator}_{most}_memory_GB", held, "GB"))
    return figures


def grown(folder: Path, segments: int) -> EventLog:
    """A log whose last segment holds 100 Blocks, whatever lies before it."""
    log = EventLog(folder, segment_bytes=1, fsync_interval=0)
    one = block(4_000, 0)
    for _ in range(segments - 1):
        log.append(one)
    log.close()
    log = EventLog(folder, fsync_interval=0)
    other = pa.record_batch({"of": ["another schema"]})
    log.append(Block("readings", other, 0, Position("bench", 0)))
    for _ in range(100):
        log.append(one)
        log.flush()
    assert len(list(folder.glob("*.seg"))) >= segments
    return log


def segments(folder: Path, quick: bool) -> list[Figure]:
    """The same work on a log of one segment and of a thousand, one after the other each time."""
    logs = [grown(folder / "1", 1), grown(folder / "1000", 1000)]
    readers = [EventLog(log.folder, stream=log.stream) for log in logs]
    one, count = block(4_000, 0), 100 if quick else 600

    def append(which: int) -> None:
        logs[which].append(one)
        logs[which].flush()

    def reopen(which: int) -> None:
        logs[which].close()
        logs[which].open()

    def tail(which: int) -> None:
        reader = readers[which]
        assert len(list(reader.read(Position(reader.stream, reader.durable().offset - 1)))) == 1

    figures = []
    for name, work in (("append", append), ("open", reopen), ("tail_read", tail)):
        took: tuple[list[float], list[float]] = ([], [])
        for number in range(2 * count):
            begun = time.perf_counter()
            work(number % 2)
            took[number % 2].append(1000 * (time.perf_counter() - begun))
        single, thousand = (percentile(some, 0.5) for some in took)
        goal = f"<= {1.25 * single:.4g}"
        peer = "the same with 1 segment"
        figures.append(
            figure(f"log_grown_{name}_ms", thousand, "ms", goal=goal, peer=peer, peer_value=single)
        )
    for log in logs:
        log.close()
    return figures


def main() -> None:
    """Measure and tell."""
    asked = options(__doc__)
    sizes = {name: keys for name, keys in KEYS.items() if keys <= 1_000_000 or not asked.quick}
    figures = per_key(sizes)
    with tempfile.TemporaryDirectory() as name:
        figures += segments(Path(name), asked.quick)
    publish(figures, asked)


if __name__ == "__main__":
    main()
