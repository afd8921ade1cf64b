"""The SQL endpoint on 1 M-row results and under fifty clients, beside DuckDB in the client's own process.

Two comparisons, on the same query (1 M rows of an integer, a float, a text, a time and a flag out of a Delta table):

- rows as Python tuples: asyncpg over the endpoint, beside DuckDB's `fetchall()` in process (`sql_rows`);
- the answer itself: every byte of PostgreSQL's binary format received and dropped, beside DuckDB streaming the same
  answer as Arrow batches in process (`sql_bytes`); and Arrow tables over Flight SQL beside it (`flight_arrow`).

The server is a process of its own (`boucle serve`), so that client and server share the machine as they do in life.
Each pair is measured in turns, the best of several rounds, so that a busy moment of the machine hits both.
`sql_clients` are fifty threads of short questions (an aggregate over one machine of the table) for some seconds.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import adbc_driver_flightsql.dbapi as flightsql
import asyncpg
import numpy as np
import psycopg
import pyarrow as pa

from bench.figures import Figure, figure, options, percentile, publish
from boucle.block import Block, Position
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql

ROWS = 1_000_000
CLIENTS = 50
QUERY = 'select number, value, machine, "at", flag from gold.facts'
SHORT = "select machine, count(*), avg(value) from gold.small where machine = %s group by machine"


def make_lake(folder: Path) -> None:
    """One table of a million rows, one of ten thousand."""
    for name, count in (("facts", ROWS), ("small", 10_000)):
        numbers = np.arange(count)
        rows = pa.record_batch(
            {
                "machine": pa.array([f"press-{number % 7}" for number in range(count)]),
                "at": pa.array(1_767_225_600_000_000_000 + numbers * 1_000_000, pa.timestamp("ns", "UTC")),
                "number": pa.array(numbers, pa.int64()),
                "value": pa.array(numbers * 0.37),
                "flag": pa.array(numbers % 2 == 0),
            }
        )
        table = LakeTable(folder / "gold" / name, partition_by=("day",))
        table.append(Block(name, rows, 0, Position(name, count)))


def best(rounds: int, *measured: Callable[[], float]) -> list[float]:
    """The shortest time of each, taken in turns."""
    took = [[one() for one in measured] for _ in range(rounds)]
    return [min(times) for times in zip(*took, strict=True)]


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    def measure() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return measure


def by_asyncpg(address: str) -> Callable[[], float]:
    async def main() -> float:
        client = await asyncpg.connect(address, user="bench", ssl=False)
        begun = time.perf_counter()
        rows = await client.fetch(QUERY)
        took = time.perf_counter() - begun
        assert len(rows) == ROWS
        await client.close()
        return took

    return lambda: asyncio.run(main())


def by_bytes(address: str) -> Callable[[], float]:
    """Every row in binary, received and dropped."""
    port = urlsplit(address).port
    body = b"user\0bench\0database\0boucle\0\0"
    text = QUERY.encode()
    asked = b"".join(
        kind + struct.pack(">I", len(data) + 4) + data
        for kind, data in (
            (b"P", b"\0" + text + b"\0\0\0"),
            (b"B", b"\0\0" + struct.pack(">HHHH", 0, 0, 1, 1)),
            (b"E", b"\0\0\0\0\0"),
            (b"S", b""),
        )
    )

    def drain() -> float:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(struct.pack(">II", len(body) + 8, 196608) + body)
            tail = b""
            while not tail.endswith(b"Z\0\0\0\x05I"):
                tail = raw.recv(65_536)[-6:]
            begun = time.perf_counter()
            raw.sendall(asked)
            tail, size, room = b"", 0, bytearray(1 << 20)
            while not tail.endswith(b"Z\0\0\0\x05I"):
                count = raw.recv_into(room)
                size += count
                tail = (tail + bytes(room[max(0, count - 6) : count]))[-6:]
            assert size > ROWS * 40
            return time.perf_counter() - begun

    return drain


def by_flight(address: str) -> Callable[[], float]:
    def fetch() -> None:
        with flightsql.connect(address, autocommit=True) as client, client.cursor() as cursor:
            cursor.execute(QUERY)
            assert len(cursor.fetch_arrow_table()) == ROWS

    return timed(fetch)


def crowd(address: str, seconds: float) -> tuple[float, list[float], int]:
    """Questions a second of fifty clients, the time of each in seconds, and how many failed."""
    times: list[float] = []
    failed: list[BaseException] = []
    end = time.perf_counter() + seconds

    def ask(number: int) -> None:
        try:
            with psycopg.connect(address, user="bench", autocommit=True) as client:
                while time.perf_counter() < end:
                    begun = time.perf_counter()
                    client.execute(SHORT, (f"press-{number % 7}",)).fetchall()
                    times.append(time.perf_counter() - begun)
        except psycopg.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    begun = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return len(times) / (time.perf_counter() - begun), times, len(failed)


def figures(told: dict[str, str], lake: Path, rounds: int, seconds: float) -> list[Figure]:
    sql = Sql(lake, postgres=True)
    place = sql.session()
    connection = place._cursor  # noqa: SLF001 - the same confined DuckDB, by its own fetch
    place.bind(QUERY)

    def arrow() -> None:
        assert sum(batch.num_rows for batch in place.read(QUERY).rows) == ROWS

    def tuples() -> None:
        assert len(connection.sql(QUERY).fetchall()) == ROWS

    bytes_s, arrow_s, flight_s = best(rounds, by_bytes(told["sql"]), timed(arrow), by_flight(told["flight"]))
    rows_s, tuples_s = best(max(1, rounds // 3), by_asyncpg(told["sql"]), timed(tuples))
    rate, times, failed = crowd(told["sql"], seconds)
    size = sum(batch.nbytes for batch in place.read(QUERY).rows) / 1e6
    sql.close()
    stream, fetch = "DuckDB in process, Arrow batches", "DuckDB in process, fetchall"
    return [
        figure("sql_rows_s", rows_s, "s", peer=fetch, peer_value=tuples_s),
        figure("sql_rows_ratio", rows_s / tuples_s, "× DuckDB", goal="<= 1.3"),
        figure("sql_bytes_s", bytes_s, "s", peer=stream, peer_value=arrow_s),
        figure("sql_bytes_ratio", bytes_s / arrow_s, "× DuckDB", goal="<= 1.3"),
        figure("flight_arrow_s", flight_s, "s", peer=stream, peer_value=arrow_s),
        figure("flight_mb_per_s", size / flight_s, "MB/s"),
        figure("sql_clients_per_s", rate, "1/s"),
        figure("sql_clients_p99_ms", 1000 * percentile(times, 0.99), "ms"),
        figure("sql_clients_failed", failed, "", goal="<= 0"),
    ]


def main() -> None:
    asked = options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder) / "lake"
        make_lake(lake)
        command = [sys.executable, "-m", "boucle.cli.main", "serve", "--json", "--run", folder,
                   "--sql", "127.0.0.1:0", "--flight", "127.0.0.1:0"]  # fmt: skip
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            publish(figures(told, lake, 3 if asked.quick else 9, 3 if asked.quick else 20), asked)
        finally:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    main()
