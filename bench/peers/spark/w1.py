"""W1 in Spark Structured Streaming: messages as rows with an array, transformWithStateInPandas keyed by
groups of sensors (keyed by single sensors it spends its time on the keys), files as source."""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql.streaming import StatefulProcessor
from pyspark.sql.types import ArrayType, BinaryType, DoubleType, StructField, StructType

sys.path.append(str(Path(__file__).resolve().parent.parent))
from shared import CHUNK, RATE, describe, load, tell

HELD = RATE // CHUNK
GROUPS = 2
FILES = 5


class Windows(StatefulProcessor):
    """The windows that are not complete lie in the engine's state between two batches."""

    def init(self, handle):
        self.held = handle.getListState("held", StructType([StructField("chunk", BinaryType())]))

    def handleInputRows(self, key, rows, timerValues):
        chunks = {}
        if self.held.exists():
            for (raw,) in self.held.get():
                sensor, tick = np.frombuffer(raw, dtype=np.int64, count=2)
                chunks.setdefault((int(sensor), int(tick) // HELD), {})[int(tick) % HELD] = raw[16:]
        out = []
        for frame in rows:
            for sensor, tick, samples in zip(frame["sensor"], frame["tick"], frame["samples"]):
                chunks.setdefault((sensor, tick // HELD), {})[tick % HELD] = samples
        for place in [place for place, pieces in chunks.items() if len(pieces) == HELD]:
            pieces = chunks.pop(place)
            whole = np.frombuffer(b"".join(pieces[n] for n in range(HELD)), dtype=np.float32)
            out.append(describe(*place, whole))
        left = [
            (np.array([sensor, second * HELD + n]).tobytes() + bytes(piece),)
            for (sensor, second), pieces in chunks.items()
            for n, piece in pieces.items()
        ]
        self.held.put(left) if left else self.held.clear()
        yield pd.DataFrame({"told": out})

    def close(self):
        pass


def session(scratch):
    # Spark's own workers: this Python, and what the scripts share.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    return (
        SparkSession.builder.master("local[2]")
        .config("spark.sql.shuffle.partitions", GROUPS)
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.warehouse.dir", f"{scratch}/warehouse")
        .config(
            "spark.sql.streaming.stateStore.providerClass",
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
        )
        .config("spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled", "true")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 100_000)
        .config("spark.sql.execution.arrow.transformWithStateInPySpark.maxRecordsPerBatch", 100_000)
        .getOrCreate()
    )


def main(folder, answer):
    samples, order = load(folder, "samples", "order")
    signal = samples.shape[1] // RATE
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "in").mkdir()
        step = -(-len(order) // FILES)
        for number in range(FILES):
            some = order[number * step : (number + 1) * step]
            table = pa.table(
                {
                    "sensor": some[:, 0],
                    "tick": some[:, 1],
                    "samples": pa.array(
                        [samples[s, t * CHUNK : (t + 1) * CHUNK].tobytes() for s, t in some.tolist()]
                    ),
                }
            )
            pq.write_table(table, f"{scratch}/in/{number:03}.parquet", compression="none")
        spark = session(scratch)
        spark.sparkContext.setLogLevel("ERROR")
        stored = []

        def keep(frame, _batch):
            stored.extend(frame.toArrow()["told"].to_pylist())

        source = (
            spark.readStream.schema("sensor int, tick int, samples binary")
            .option("maxFilesPerTrigger", 1)
            .parquet(f"{scratch}/in")
        )
        told = (
            source.selectExpr("*", f"sensor % {GROUPS} AS part")
            .groupBy("part")
            .transformWithStateInPandas(
                Windows(),
                StructType([StructField("told", ArrayType(DoubleType()))]),
                outputMode="append",
                timeMode="None",
            )
        )
        begun = time.perf_counter()
        query = (
            told.writeStream.foreachBatch(keep)
            .option("checkpointLocation", f"{scratch}/checkpoint")
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
        seconds = time.perf_counter() - begun
        spark.stop()
    tell(answer, stored, samples.size, [seconds], sensors=len(samples), signal=signal)


if __name__ == "__main__":
    main(*sys.argv[1:])
