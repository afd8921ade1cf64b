"""The durable log's appends, beside the disk's own synced writes of the same bytes.

`log_append_MB_per_s` is group commit: one thread appends Blocks of 1 MB, another flushes without end,
with the defaults of EventLog. Its peer writes chunks of the size that the flushes had on average
(`os.write` and `os.fdatasync` to one file), in turns with it. `log_acknowledged_*` is one append and
its flush with nothing else going on, at four sizes; the peer is one write and its fdatasync of the same
bytes. The disk of the temporary folder is what is measured: TMPDIR chooses another. What many segments
cost stands in `bench.growth`.
"""

import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.figures import Figure, figure, options, percentile, publish
from boucle.block import Block, Position
from boucle.bus.log import EventLog

MB = 1_000_000
PEER = "os.write + fdatasync"
SIZES = [("4_kB", 4_000), ("64_kB", 64_000), ("1_MB", MB), ("8_MB", 8 * MB)]


def block(size: int, number: int) -> Block:
    """About `size` bytes that no disk can compress."""
    values = np.random.default_rng(number).random(max(1, size // 16))
    rows = pa.record_batch({"at": np.arange(len(values)), "value": values})
    return Block("readings", rows, number, Position("bench", number))


def plain_writes(file: Path, chunk: bytes, count: int) -> list[float]:
    """Seconds of each write and its fdatasync."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        took = []
        for _ in range(count):
            begun = time.perf_counter()
            os.write(handle, chunk)
            os.fdatasync(handle)
            took.append(time.perf_counter() - begun)
        return took
    finally:
        os.close(handle)
        file.unlink()


def group_commit(folder: Path, megabytes: int) -> tuple[float, int]:
    """MB/s from the first append to the last durable row, and the bytes of an average flush."""
    blocks = [block(MB, number) for number in range(8)]
    log = EventLog(folder)
    log.open()
    done = threading.Event()

    def flush() -> None:
        while not done.is_set():
            log.flush()
            time.sleep(0.0005)

    flusher = threading.Thread(target=flush)
    flusher.start()
    begun = time.perf_counter()
    for number in range(megabytes):
        log.append(blocks[number % len(blocks)])
    log.flush()
    took = time.perf_counter() - begun
    done.set()
    flusher.join()
    size, syncs = stored(folder), log.syncs
    log.close()
    empty(folder)
    return size / MB / took, size // syncs


def stored(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.seg"))


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def throughput(folder: Path, rounds: int, megabytes: int) -> list[Figure]:
    ours, theirs = [], []
    for number in range(rounds):
        rate, chunk = group_commit(folder / "throughput", megabytes)
        ours.append(rate)
        count = max(1, megabytes * MB // chunk)
        took = plain_writes(folder / "plain", os.urandom(chunk), count)
        theirs.append(count * chunk / MB / sum(took))
        if number == 0 and rounds > 1:  # the first finds the disk cold
            ours.clear()
            theirs.clear()
    value, peer = percentile(ours, 0.5), percentile(theirs, 0.5)
    # The goal is the lesser of the two: no log is faster than its disk.
    goal = f">= {min(200.0, 0.8 * peer):.0f}"
    return [figure("log_append_MB_per_s", value, "MB/s", goal=goal, peer=PEER, peer_value=peer)]


def acknowledged(folder: Path, quick: bool) -> list[Figure]:
    figures = []
    for name, size in SIZES:
        count = max(10, min(400, 200 * MB // size)) // (4 if quick else 1)
        log = EventLog(folder / name, fsync_interval=0)
        blocks = [block(size, number) for number in range(4)]
        log.append(blocks[0])
        log.flush()
        chunk = os.urandom(stored(folder / name))
        plain = os.open(folder / f"plain-{name}", os.O_WRONLY | os.O_CREAT)
        ours, theirs = [], []
        for number in range(count):
            begun = time.perf_counter()
            log.append(blocks[number % 4])
            log.flush()
            middle = time.perf_counter()
            os.write(plain, chunk)
            os.fdatasync(plain)
            theirs.append(time.perf_counter() - middle)
            ours.append(middle - begun)
        os.close(plain)
        log.close()
        empty(folder / name)
        (folder / f"plain-{name}").unlink()
        for share, text in ((0.5, "p50"), (0.99, "p99")):
            figures.append(
                figure(
                    f"log_acknowledged_{name}_{text}_ms",
                    1000 * percentile(ours, share),
                    "ms",
                    peer=PEER,
                    peer_value=1000 * percentile(theirs, share),
                )
            )
    return figures


def main() -> None:
    asked = options(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = throughput(folder, 3 if asked.quick else 6, 150 if asked.quick else 500)
        figures += acknowledged(folder, asked.quick)
    publish(figures, asked)


if __name__ == "__main__":
    main()
