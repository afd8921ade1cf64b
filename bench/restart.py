"""How soon a killed product answers again, and what its checkpoints cost while it runs.

A step of sliding features holds ten million cards (`--quick`: one million). It is checkpointed, one in a hundred
cards pays again and it is checkpointed once more; then the process is killed with SIGKILL. A new process imports
the step, restores it from the checkpoint's folder, put out of the page cache before, and takes one payment of a
card known from before the kill: its answer is checked. `restart_first_row_s` is from the start of that process
to its answer; `restart_disk_MB` is what the kernel fetched from the disk for it, `restart_cpu_s` what it computed,
whatever else the machine did meanwhile.

Beside it, in the same run: the same files read once, cold, and nothing done with them (the physical limit); a
peer's way, state in SQLite with a row per key, as many bytes a key, read into a dictionary (so Bytewax recovers).

`path_pause_ms` is how long the path stands still for a checkpoint: `full` all state, `changed` the hundredth
part of the cards that came last, `scattered` as many chosen at random, which touches nearly every page.
`checkpoint_*_s` is from there until it is durable, with the path free to go on.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.figures import ROOT, Figure, figure, options, publish
from boucle.block import Block, Position
from boucle.loop.checkpoint import Checkpoint, Checkpoints
from boucle.loop.path import Path as LoopPath
from boucle.loop.path import Step

KEYS = 10_000_000
QUICK_KEYS = 1_000_000
MB = 1e6
ROWS = 1 << 16
START = 1_767_225_600_000_000_000
STEP = 1_000
"""Nanoseconds between two payments."""
OVER = ("10min", "1h", "24h")
FEATURES = {
    f"{kind}_{over}": {"of": f"{kind}(amount)", "by": "card", "over": over}
    for over in OVER
    for kind in ("count", "sum")
}
PLAN = "bench"


def path() -> LoopPath:
    """The step whose state it is."""
    from boucle.stream.sliding import Sliding

    step = Sliding("features", features=FEATURES, order="arrival")
    return LoopPath([Step("features", "boucle.stream.sliding:Sliding", ("payments",), step)], {})


def payments(cards: Any, first: int) -> Iterator[Block]:
    """One payment of each card, in Blocks; `first` counts the payments before."""
    for begin in range(0, len(cards), ROWS):
        some = cards[begin : begin + ROWS]
        at = START + (first + begin + np.arange(len(some))) * STEP
        rows = pa.record_batch(
            {"at": pa.array(at, pa.timestamp("ns", "UTC")), "card": some, "amount": np.full(len(some), 2.5)}
        )
        yield Block("payments", rows, int(at[-1]), Position("payments", first + begin + len(some)))


def checkpoint(checkpoints: Checkpoints, running: LoopPath) -> tuple[float, float]:
    """Seconds the path stood still, and seconds until all was durable."""
    begun = time.perf_counter()
    everything = checkpoints.everything
    none: dict[str, Position] = {}
    taken = Checkpoint(PLAN, none, none, b"", None)
    checkpoints.hold(taken, running.snapshot(everything=everything), everything=everything)
    paused = time.perf_counter() - begun
    checkpoints.write()
    return paused, time.perf_counter() - begun


def live(folder: str, keys: int) -> None:
    """The life that is killed: says what its checkpoints cost, and waits for its end."""
    running, checkpoints = path(), Checkpoints(Path(folder))
    assert checkpoints.load(PLAN) is None
    told: dict[str, float] = {}
    seen = 0
    chance = np.random.default_rng(1)
    rounds = {
        "full": np.arange(keys),
        "changed": np.arange(keys - keys // 100, keys),
        "scattered": chance.choice(keys, keys // 100, replace=False),
    }
    for name, cards in rounds.items():
        for block in payments(cards, seen):
            running.push(block)
        seen += len(cards)
        told[f"{name}_pause"], told[name] = checkpoint(checkpoints, running)
    told["bytes"] = sum(checkpoints.store.sizes.values())
    print(json.dumps(told), flush=True)
    signal.pause()


class Timed(Mapping[str, bytes]):
    """Parts as a checkpoint gives them, and the seconds it took to read them."""

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        self._parts, self.seconds = parts, 0.0

    def __getitem__(self, name: str) -> bytes:
        begun = time.perf_counter()
        part = self._parts[name]
        self.seconds += time.perf_counter() - begun
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def again(folder: str, keys: int, started: float) -> None:
    """The life after: says when what was done, in seconds since it was started."""
    running = path()
    imported = time.monotonic()
    kept = Checkpoints(Path(folder)).load(PLAN)
    assert kept is not None
    state = {step: Timed(parts) for step, parts in kept.state.items()}
    running.restore(state)
    restored = time.monotonic()
    given: list[Block] = []
    running.tap("features", given.append)
    (block,) = payments(np.array([keys - 1]), 2 * keys)
    running.push(block)
    running.settle()
    answered = time.monotonic()
    (row,) = given[0].rows.to_pylist()
    reading = sum(parts.seconds for parts in state.values())
    times = {
        "import": imported - started,
        "read": reading,
        "restore": restored - imported - reading,
        "row": answered - restored,
        "first_row": answered - started,
        "count": row["count_24h"],
        "disk": _from_disk(),
        "cpu": time.process_time(),
    }
    print(json.dumps(times))


def _from_disk() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def fill_peer(file: Path, keys: int, size: int) -> None:
    """The peer's file: a row per key with `size` bytes that differ."""
    chance = random.Random(1)
    with sqlite3.connect(file) as store:
        store.execute("pragma synchronous = off")
        store.execute("create table state (card integer primary key, held blob)")
        body = chance.randbytes(size - 8)
        store.executemany(
            "insert into state values (?, ?)",
            ((key, key.to_bytes(8, "little") + body) for key in range(keys)),
        )
    store.close()


def peer(file: str, keys: int, started: float) -> None:
    """A new process of the peer, until one card's state is at hand."""
    store = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    held = dict(store.execute("select card, held from state"))
    assert held[keys - 1][:8] == (keys - 1).to_bytes(8, "little")
    print(json.dumps({"first_row": time.monotonic() - started}))


def cool(files: list[Path]) -> None:
    """Put files out of the page cache; what is not yet written is written first."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_plainly(files: list[Path]) -> float:
    """Seconds to read them, cold, into one buffer."""
    cool(files)
    buffer = bytearray(8 << 20)
    begun = time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass
    return time.perf_counter() - begun


def started(call: str) -> "subprocess.Popen[str]":
    """A function of this module in a process of its own."""
    words = [sys.executable, "-c", f"import bench.restart; bench.restart.{call}"]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The line it says."""
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said, "it ended without a word"
    answer: dict[str, Any] = json.loads(said)
    return answer


def measure(folder: Path, keys: int) -> list[Figure]:
    checkpoints = folder / "checkpoint"
    victim = started(f"live({str(checkpoints)!r}, {keys})")
    costs = told(victim)
    victim.kill()
    victim.wait()
    files = sorted(checkpoints.iterdir())
    size = sum(file.stat().st_size for file in files)
    limit = read_plainly(files)
    cool(files)
    life = started(f"again({str(checkpoints)!r}, {keys}, {time.monotonic()})")
    times = told(life)
    assert life.wait() == 0
    assert times["count"] in {3, 4}, "the card is not known from before the kill"
    file = folder / "peer.sqlite"
    fill_peer(file, keys, round(costs["bytes"] / keys))
    cool([file])
    other = started(f"peer({str(file)!r}, {keys}, {time.monotonic()})")
    peers = told(other)["first_row"]
    assert other.wait() == 0
    full = keys == KEYS
    plain, sqlite = "the same files read, cold", "SQLite, a row per key, into a dict"
    return [
        figure(
            "restart_first_row_s",
            times["first_row"],
            "s",
            goal="<= 10" if full else "",
            peer=sqlite,
            peer_value=peers,
        ),
        figure("restart_import_s", times["import"], "s"),
        figure("restart_read_s", times["read"], "s", peer=plain, peer_value=limit),
        figure("restart_restore_s", times["restore"], "s"),
        figure("restart_row_ms", 1000 * times["row"], "ms"),
        figure("restart_cpu_s", times["cpu"], "s"),
        figure("restart_disk_MB", times["disk"] / MB, "MB"),
        figure("checkpoint_keys", keys, "keys"),
        figure("checkpoint_state_MB", costs["bytes"] / MB, "MB"),
        figure("checkpoint_disk_MB", size / MB, "MB"),
        *(figure(f"checkpoint_{name}_s", costs[name], "s") for name in ("full", "changed", "scattered")),
        *(
            figure(f"path_pause_{name}_ms", 1000 * costs[f"{name}_pause"], "ms")
            for name in ("full", "changed", "scattered")
        ),
    ]


def main() -> None:
    asked = options(__doc__)
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), QUICK_KEYS if asked.quick else KEYS)
    publish(figures, asked)


if __name__ == "__main__":
    main()
