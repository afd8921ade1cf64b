"""W2 in Spark Structured Streaming, on a subset: transformWithStateInPandas keyed by shards of many cards, a
second query by shards of terminals, NumPy within a shard, 24 h of events in the engine's state; put together
at the end."""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.streaming import StatefulProcessor
from pyspark.sql.types import BinaryType, DoubleType, StructField, StructType
from w1 import session

sys.path.append(str(Path(__file__).resolve().parent.parent))
from shared import CARD_WINDOWS_MS, DAY_MS, load, tell

SHARDS = 2
FILES = 4
EVENTS = 500_000


def names(sizes):
    return ["number", *(f"{kind}_{size}" for size in sizes for kind in ("count", "sum"))]


class Sliding(StatefulProcessor):
    """Running sums over events in order of key and time; where each window begins by binary search."""

    def __init__(self, sizes):
        self.sizes = sizes

    def init(self, handle):
        self.held = handle.getValueState("held", StructType([StructField("events", BinaryType())]))

    def handleInputRows(self, key, rows, timerValues):
        new = pd.concat(list(rows))
        new = np.column_stack([new[name].to_numpy(np.float64) for name in ("number", "ms", "who", "amount")])
        old = np.zeros((0, 4))
        if self.held.exists():
            old = np.frombuffer(self.held.get()[0], dtype=np.float64).reshape(-1, 4)
        every = np.concatenate([old, new])
        fresh = np.arange(len(every)) >= len(old)
        turn = np.lexsort((every[:, 1], every[:, 2]))
        every, fresh = every[turn], fresh[turn]
        number, ms, who, amount = every.T
        base = ms.min()
        place = who * 2.0**35 + (ms - base)  # one ascending number: key, then time
        before = np.concatenate([[0.0], np.cumsum(amount)])
        here = np.arange(1, len(every) + 1)
        told = [number]
        for size in self.sizes:
            since = np.maximum(place - size, who * 2.0**35 - 0.5)
            begin = np.searchsorted(place, since, side="right")
            told += [here - begin, before[here] - before[begin]]
        kept = every[ms > ms.max() - DAY_MS]
        self.held.update((kept.tobytes(),))
        yield pd.DataFrame({name: column[fresh] for name, column in zip(names(self.sizes), told)})

    def close(self):
        pass


def main(folder, answer):
    columns = load(folder, "at", "card", "terminal", "amount")
    at, card, terminal, amount = (column[:EVENTS] for column in columns)
    out = np.full((len(at), 8), np.nan)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "in").mkdir()
        table = pa.table(
            {"number": np.arange(len(at)), "ms": at, "card": card, "terminal": terminal, "amount": amount}
        )
        step = -(-len(at) // FILES)
        for number in range(FILES):
            pq.write_table(table.slice(number * step, step), f"{scratch}/in/{number:03}.parquet")
        spark = session(scratch)
        spark.sparkContext.setLogLevel("ERROR")
        source = (
            spark.readStream.schema("number long, ms long, card int, terminal int, amount double")
            .option("maxFilesPerTrigger", 1)
            .parquet(f"{scratch}/in")
        )

        def keeper(columns):
            def keep(frame, _batch):
                told = np.column_stack([column.to_numpy() for column in frame.toArrow().columns])
                out[told[:, 0].astype(np.int64)[:, None], columns] = told[:, 1:]

            return keep

        begun = time.perf_counter()
        queries = []
        for who, sizes, columns in (
            ("card", CARD_WINDOWS_MS, [0, 1, 2, 3, 4, 5]),
            ("terminal", (DAY_MS,), [6, 7]),
        ):
            told = (
                source.selectExpr("number", "ms", f"{who} AS who", "amount", f"{who} % {SHARDS} AS part")
                .groupBy("part")
                .transformWithStateInPandas(
                    Sliding(sizes),
                    StructType([StructField(name, DoubleType()) for name in names(sizes)]),
                    outputMode="append",
                    timeMode="None",
                )
            )
            queries.append(
                told.writeStream.foreachBatch(keeper(columns))
                .option("checkpointLocation", f"{scratch}/checkpoint-{who}")
                .trigger(availableNow=True)
                .start()
            )
        for query in queries:
            query.awaitTermination()
        seconds = time.perf_counter() - begun
        spark.stop()
    out[:, 7] /= out[:, 6]
    tell(answer, out, len(at), [seconds])


if __name__ == "__main__":
    main(*sys.argv[1:])
