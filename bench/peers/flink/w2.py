"""W2 in Flink SQL, on a subset: four OVER windows as four queries of one job (a streaming query takes one
window only), their rows put together by event number at the end."""

import csv
import sys
import tempfile
import time
from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment

sys.path.append(str(Path(__file__).resolve().parent.parent))
import numpy as np
from shared import load, tell

EVENTS = 50_000
# (t - size, t] in whole milliseconds
WINDOWS = (
    ("card", "INTERVAL '09:59.999' MINUTE TO SECOND(3)"),
    ("card", "INTERVAL '00:59:59.999' HOUR TO SECOND(3)"),
    ("card", "INTERVAL '0 23:59:59.999' DAY TO SECOND(3)"),
    ("terminal", "INTERVAL '0 23:59:59.999' DAY TO SECOND(3)"),
)


def main(folder, answer):
    columns = [column[:EVENTS].tolist() for column in load(folder, "at", "card", "terminal", "amount")]
    out = np.full((len(columns[0]), 8), np.nan)
    with tempfile.TemporaryDirectory() as scratch:
        with (Path(scratch) / "in.csv").open("w", newline="") as file:
            csv.writer(file).writerows((n, *event) for n, event in enumerate(zip(*columns)))
        tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
        tables.get_config().set("parallelism.default", "1")
        tables.execute_sql(
            "CREATE TABLE events (number BIGINT, ms BIGINT, card INT, terminal INT, amount DOUBLE, "
            "ts AS TO_TIMESTAMP_LTZ(ms, 3), WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', "
            f"'path' = 'file://{scratch}/in.csv', 'format' = 'csv')"
        )
        together = tables.create_statement_set()
        for place, (key, span) in enumerate(WINDOWS):
            tables.execute_sql(
                f"CREATE TABLE out{place} (number BIGINT, n BIGINT, total DOUBLE) WITH ('connector' = "
                f"'filesystem', 'path' = 'file://{scratch}/out{place}', 'format' = 'csv')"
            )
            together.add_insert_sql(
                f"INSERT INTO out{place} SELECT number, COUNT(*) OVER w, SUM(amount) OVER w FROM events WINDOW "
                f"w AS (PARTITION BY {key} ORDER BY ts RANGE BETWEEN {span} PRECEDING AND CURRENT ROW)"
            )
        begun = time.perf_counter()
        together.execute().wait()
        seconds = time.perf_counter() - begun
        for place in range(len(WINDOWS)):
            for file in (Path(scratch) / f"out{place}").rglob("*"):
                if file.is_file() and file.stat().st_size:
                    told = np.loadtxt(file, delimiter=",", ndmin=2)
                    out[told[:, 0].astype(int), 2 * place : 2 * place + 2] = told[:, 1:]
    out[:, 7] /= out[:, 6]
    tell(answer, out, len(out), [seconds])


if __name__ == "__main__":
    main(*sys.argv[1:])
