"""Commits a second to a lake table that is read meanwhile, beside delta-rs with its defaults, on the same 1000 rows.

`commits_per_s` is LakeTable with its transaction, its nanoseconds and its small files joined every hundred commits,
over 10 000 commits (`--quick`: 200); `commits_per_s_last` is the last tenth of them beside the first tenth, where a log
that grows would tell. The peer is `write_deltalake(path, rows, mode="append")`, in turns with it, for a tenth of them.
`lake_synced_commits_per_s` adds the fsync that delta-rs never does. `grouped_commits_per_s` are batches that were
acknowledged by the log (fsync'ed, each on its own) and reached the table meanwhile, in groups. `reader_*_ms` is another
process that opens the newest version and counts its rows, over and over, while the commits go on and when they rest.
"""

import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from bench.figures import Figure, figure, options, percentile, publish
from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import SystemClock
from boucle.lake.delta import PARTITIONS, LakeTable
from boucle.lake.stored import stored_schema, to_stored
from boucle.lake.writer import Feed, LakeWriter

ROWS = 1000
START = 1_767_225_600_000_000_000
JOINED = 100
PEER = "delta-rs defaults"

READER = """
import sys, time
from boucle.lake.delta import LakeTable
took = []
print("ready", flush=True)
while not took or time.monotonic() < until:
    if not took:
        until = time.monotonic() + float(sys.stdin.readline())
    begun = time.perf_counter()
    table = LakeTable(sys.argv[1])
    sum(block.rows.num_rows for block in table.scan(since=int(sys.argv[2])))
    took.append(time.perf_counter() - begun)
    time.sleep(0.02)
print(*took)
"""


def block(number: int) -> Block:
    """Slow values of one machine, as the PLC gives them."""
    batch = pa.RecordBatch.from_pydict(
        {
            "machine": ["press-1"] * ROWS,
            "sensor": ["oil_temperature"] * ROWS,
            "at": pa.array(
                [START + (number * ROWS + row) * 1_000_000 for row in range(ROWS)],
                pa.timestamp("ns", tz="UTC"),
            ),
            "value": [40.0 + row % 7 for row in range(ROWS)],
            "status": ["Good"] * ROWS,
        }
    )
    return Block("process", batch, 0, Position("process", (number + 1) * ROWS))


def measure(commits: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of each commit: LakeTable alone for the whole run, then in turns with sync and with the peer."""
    plain = LakeTable(folder / "plain")
    took: dict[str, list[float]] = {"plain": [], "turn": [], "synced": [], "peer": []}
    for number in range(commits + 1):
        one = block(number)
        begun = time.perf_counter()
        plain.append(one, app="bench", transaction=number)
        if number and number % JOINED == 0:
            plain.compact()
        if number:  # the first makes the table
            took["plain"].append(time.perf_counter() - begun)
    turned, synced = LakeTable(folder / "turned"), LakeTable(folder / "synced")
    for number in range(commits // 10 + 1):
        one = block(number)
        rows = to_stored([one.rows], stored_schema(one.rows.schema, "at", PARTITIONS), "at")
        begun = time.perf_counter()
        turned.append(one, app="bench", transaction=number)
        done = time.perf_counter()
        synced.append(one, app="bench", transaction=number)
        synced.sync()
        safe = time.perf_counter()
        write_deltalake(folder / "peer", rows, mode="append", partition_by=list(PARTITIONS))
        end = time.perf_counter()
        if number:
            took["turn"].append(done - begun)
            took["synced"].append(safe - done)
            took["peer"].append(end - safe)
    return took


def grouped(commits: int, folder: Path) -> float:
    """Batches a second that were each made durable by the log and are in the table at the end."""
    log = EventLog(folder / "log", stream="process")
    log.open()
    table = LakeTable(folder / "grouped")
    writer = LakeWriter([Feed(log, table)], SystemClock(), seconds=0.5)
    blocks = [block(number) for number in range(commits)]
    begun = time.perf_counter()
    for one in blocks:
        log.append(one)
        log.flush()
        writer.step()
    writer.step(force=True)
    took = time.perf_counter() - begun
    assert table.rows == commits * ROWS
    log.close()
    return commits / took


def readers(seconds: float, folder: Path) -> dict[str, list[float]]:
    """Seconds of each read of the newest minute, in a process of its own: while commits go on, and at rest."""
    table = LakeTable(folder / "plain")
    since = START + (table.rows - 60 * ROWS) * 1_000_000
    took: dict[str, list[float]] = {}
    for name in ("busy", "rest"):
        words = [sys.executable, "-c", READER, str(table.folder), str(since)]
        reader = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdout.readline()
        reader.stdin.write(f"{seconds}\n")
        reader.stdin.flush()
        if name == "busy":
            until = time.monotonic() + seconds
            for number in count(table.rows // ROWS):
                if time.monotonic() > until:
                    break
                table.append(block(number), app="bench", transaction=number)
                if number % JOINED == 0:
                    table.compact()
        took[name] = [float(word) for word in reader.communicate()[0].split()]
        assert reader.returncode == 0
    return took


def rate(seconds: list[float]) -> float:
    return len(seconds) / sum(seconds)


def figures(took: dict[str, list[float]], read: dict[str, list[float]], together: float) -> list[Figure]:
    """The rates, and the times of a commit and of a read in milliseconds."""
    tenth = max(1, len(took["plain"]) // 10)
    first, last = rate(took["plain"][:tenth]), rate(took["plain"][-tenth:])
    peer = rate(took["peer"])
    at_rest = 1000 * percentile(read["rest"], 0.99)
    times = [
        figure(
            f"lake_commit_{name}_ms",
            1000 * percentile(took["turn"], share),
            "ms",
            peer=PEER,
            peer_value=1000 * percentile(took["peer"], share),
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    busy = [1000 * percentile(read["busy"], share) for share in (0.5, 0.99)]
    return [
        figure("commits_per_s", rate(took["plain"]), "1/s", goal=">= 100", peer=PEER, peer_value=peer),
        figure("commits_per_s_last", last, "1/s", goal=">= 100", peer="the first tenth", peer_value=first),
        figure("grouped_commits_per_s", together, "1/s", goal=">= 100", peer=PEER, peer_value=peer),
        figure("lake_synced_commits_per_s", rate(took["synced"]), "1/s", peer=PEER, peer_value=peer),
        *times,
        figure(
            "reader_p50_ms", busy[0], "ms", peer="at rest", peer_value=1000 * percentile(read["rest"], 0.5)
        ),
        figure("reader_p99_ms", busy[1], "ms", peer="at rest", peer_value=at_rest),
    ]


def main() -> None:
    asked = options(__doc__)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        took = measure(200 if asked.quick else 10_000, folder)
        read = readers(5.0 if asked.quick else 20.0, folder)
        together = grouped(300 if asked.quick else 3000, folder)
        publish(figures(took, read, together), asked)


if __name__ == "__main__":
    main()
