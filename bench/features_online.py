"""Features of a Block of 64 looked up while it passes, beside bare redis-py asking for the same keys.

A view of five features of 100 000 cards is kept in a real Redis of its own (redis-server on the PATH, no persistence,
loopback) and in memory. `Online` appends the features of 64 payments as of their moments: keys, one MGET, the newest
row of each that was true by then, age against the `ttl`, columns. The peer is `MGET` alone for the same 64 keys and
bytes, by redis-py on one connection, in turns with ours. `kept` is what writing costs: merging within the server.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import redis

from bench.figures import Figure, figure, options, percentile, publish
from boucle.block import Block, Position
from boucle.features.online import Online
from boucle.features.records import keys_of_rows

CARDS, BLOCK = 100_000, 64
START = 1_790_000_000_000_000_000
COLUMNS = ["count_1h", "count_24h", "sum_24h", "mean", "ratio"]
VIEW = {"name": "cards", "entity": ["card"], "columns": COLUMNS, "ttl": "1h"}


@contextmanager
def server() -> Iterator[str]:
    """A Redis on a free port, ended by its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 20
            while time.monotonic() < end:
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def fill(step: Online, versions: int) -> float:
    """Keep some rows of every card; keys written in a second."""
    chance = np.random.default_rng(1)
    begun = time.perf_counter()
    for version in range(versions):
        for first in range(0, CARDS, 1_000):
            rows = {name: chance.random(1_000) for name in COLUMNS}
            card = [f"card-{number}" for number in range(first, first + 1_000)]
            at = pa.array(np.full(1_000, START + version), pa.timestamp("ns", "UTC"))
            block = pa.record_batch({"card": card, "at": at, **rows})
            step.step(Block("features", block, 0, Position("p", 0)))
    return CARDS * versions / (time.perf_counter() - begun)


def payments(count: int) -> list[Block]:
    """Blocks of 64 payments, of cards at random."""
    chance = np.random.default_rng(2)
    at = pa.array(np.full(BLOCK, START + 10**9), pa.timestamp("ns", "UTC"))
    return [
        Block(
            "payments",
            pa.record_batch(
                {"card": [f"card-{one}" for one in chance.integers(0, CARDS, BLOCK)], "at": at}
            ),
            0,
            Position("p", 0),
        )
        for _ in range(count)
    ]  # fmt: skip


def turns(blocks: list[Block], *works: Callable[[Block], object]) -> list[list[float]]:
    """Milliseconds of each work on each Block, in turns."""
    took: list[list[float]] = [[] for _ in works]
    for block in blocks:
        for times, work in zip(took, works, strict=True):
            begun = time.perf_counter_ns()
            work(block)
            times.append((time.perf_counter_ns() - begun) / 1e6)
    return [times[len(times) // 20 :] for times in took]


def main() -> None:
    asked = options(__doc__)
    if shutil.which("redis-server") is None:
        sys.stderr.write("skipped: there is no redis-server on the PATH\n")
        publish([], asked)
        return
    blocks = payments(1_000 if asked.quick else 10_000)
    figures: list[Figure] = []
    with server() as address:
        # A time-out that a busy moment of the machine does not meet.
        kept = Online("kept", view=VIEW, keep="features", store=address, depth=4, timeout="5s")
        figures.append(figure("features_kept_per_s", fill(kept, 2), "keys/s"))
        bare = redis.Redis.from_url(address)
        names = {key.rpartition(b":")[2]: key for key in bare.scan_iter(count=10_000)}
        ready = {id(one): [names[key or b""] for key in keys_of_rows(one.rows, ["card"])] for one in blocks}
        ours, theirs = turns(blocks, kept.step, lambda one: bare.mget(ready[id(one)]))
        assert kept.counts["found"] == len(blocks) * BLOCK
        for name, share, goal in (("p50", 0.5, "<= 2"), ("p99", 0.99, "")):
            mine, peer = percentile(ours, share), percentile(theirs, share)
            figures.append(
                figure(f"features_redis_64_{name}_ms", mine, "ms", peer="redis-py MGET", peer_value=peer)
            )
            figures.append(figure(f"features_redis_64_{name}_of_mget", mine / peer, "×", goal=goal))
        kept.close()
        bare.close()
    memory = Online("kept", view=VIEW, keep="features", depth=4, folder=Path(tempfile.gettempdir()))
    fill(memory, 2)
    (alone,) = turns(blocks, memory.step)
    figures += [
        figure(f"features_memory_64_{name}_ms", percentile(alone, share), "ms")
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    publish(figures, asked)


if __name__ == "__main__":
    main()
