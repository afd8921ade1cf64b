"""Commits a second to a lake table, beside delta-rs with its defaults, on the same 1000 rows.

Both append the same Arrow rows with the same partitions, in turns, so that a busy moment of the
machine hits both. `lake_commits_per_s` is LakeTable with its transaction, nanoseconds and
checkpoint every 10 commits; the peer is `write_deltalake(path, rows, mode="append")`.
`lake_synced_commits_per_s` adds the fsync that delta-rs never does. `late` figures are the last
tenth of the run, where a log without checkpoints has grown.
"""

import tempfile
import time
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from bench.figures import Figure, figure, options, percentile, publish
from boucle.block import Block, Position
from boucle.lake.delta import PARTITIONS, LakeTable
from boucle.lake.stored import stored_schema, to_stored

ROWS = 1000
START = 1_767_225_600_000_000_000


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
    return Block("process", batch, 0, Position("process", number))


def measure(commits: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of each commit, of LakeTable, of LakeTable with sync, and of the peer."""
    plain, synced = LakeTable(folder / "plain"), LakeTable(folder / "synced")
    took: dict[str, list[float]] = {"plain": [], "synced": [], "peer": []}
    for number in range(commits + 1):
        one = block(number)
        rows = to_stored([one.rows], stored_schema(one.rows.schema, "at", PARTITIONS), "at")
        begun = time.perf_counter()
        plain.append(one, app="bench", transaction=number)
        done = time.perf_counter()
        synced.append(one, app="bench", transaction=number)
        synced.sync()
        safe = time.perf_counter()
        write_deltalake(folder / "peer", rows, mode="append", partition_by=list(PARTITIONS))
        end = time.perf_counter()
        if number:  # the first makes the table
            took["plain"].append(done - begun)
            took["synced"].append(safe - done)
            took["peer"].append(end - safe)
    return took


def rate(seconds: list[float]) -> float:
    return len(seconds) / sum(seconds)


def figures(took: dict[str, list[float]]) -> list[Figure]:
    """The rates, and the times of a commit in milliseconds."""
    late = {name: seconds[-max(1, len(seconds) // 10) :] for name, seconds in took.items()}
    peer = "delta-rs defaults"
    pairs = [("p50", 0.5), ("p99", 0.99)]
    return [
        figure(
            "lake_commits_per_s",
            rate(took["plain"]),
            "1/s",
            goal=">= 50",
            peer=peer,
            peer_value=rate(took["peer"]),
        ),
        figure(
            "lake_commits_per_s_late", rate(late["plain"]), "1/s", peer=peer, peer_value=rate(late["peer"])
        ),
        figure(
            "lake_synced_commits_per_s", rate(took["synced"]), "1/s", peer=peer, peer_value=rate(took["peer"])
        ),
        *(
            figure(
                f"lake_commit_{name}_ms",
                1000 * percentile(took["plain"], share),
                "ms",
                peer=peer,
                peer_value=1000 * percentile(took["peer"], share),
            )
            for name, share in pairs
        ),
    ]


def main() -> None:
    asked = options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        publish(figures(measure(100 if asked.quick else 500, Path(folder))), asked)


if __name__ == "__main__":
    main()
