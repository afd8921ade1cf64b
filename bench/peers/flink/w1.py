"""W1 in PyFlink, on a subset. `blocks`: messages as whole arrays through a keyed Python process function.
`rows`: SQL over single samples with an event-time tumbling window; SQL has no FFT, so no band energies."""

import csv
import sys
import tempfile
import time
from pathlib import Path

from pyflink.common import Configuration, Types
from pyflink.datastream import KeyedProcessFunction, StreamExecutionEnvironment
from pyflink.datastream.state import MapStateDescriptor
from pyflink.table import EnvironmentSettings, TableEnvironment

sys.path.append(str(Path(__file__).resolve().parent.parent))
import numpy as np
from shared import CHUNK, RATE, START_MS, describe, load, tell

HELD = RATE // CHUNK


class Windows(KeyedProcessFunction):
    """The windows that are not complete lie in the engine's state."""

    def open(self, context):
        self.held = context.get_map_state(MapStateDescriptor("held", Types.INT(), Types.PICKLED_BYTE_ARRAY()))

    def process_element(self, message, _context):
        sensor, tick, raw = message
        second, place = divmod(tick, HELD)
        pieces = self.held.get(second) or {}
        pieces[place] = raw
        if len(pieces) < HELD:
            self.held.put(second, pieces)
            return
        self.held.remove(second)
        whole = np.frombuffer(b"".join(pieces[n] for n in range(HELD)), dtype=np.float32)
        yield tuple(describe(sensor, second, whole))


def settings():
    config = Configuration()
    config.set_string("python.executable", sys.executable)
    config.set_string("python.fn-execution.bundle.size", "1000")
    config.set_string("parallelism.default", "2")
    return config


def blocks(samples, order, sensors, signal):
    environment = StreamExecutionEnvironment.get_execution_environment(settings())
    messages = [
        (sensor, tick, samples[sensor, tick * CHUNK : (tick + 1) * CHUNK].tobytes())
        for sensor, tick in order.tolist()
        if sensor < sensors and tick < signal * HELD
    ]
    kind = Types.TUPLE([Types.INT(), Types.INT(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
    stream = environment.from_collection(messages, kind)
    told = stream.key_by(lambda message: message[0], Types.INT()).process(
        Windows(), Types.TUPLE([Types.DOUBLE()] * 16)
    )
    begun = time.perf_counter()
    with told.execute_and_collect() as found:
        out = [list(row) for row in found]
    return out, time.perf_counter() - begun


def rows(samples, order, sensors, signal, scratch):
    with (Path(scratch) / "in.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        for sensor, tick in order.tolist():
            if sensor < sensors and tick < signal * HELD:
                chunk = samples[sensor, tick * CHUNK : (tick + 1) * CHUNK].tolist()
                start = START_MS + tick * CHUNK * 1000 // RATE
                writer.writerows((sensor, start + n * 1000 // RATE, repr(v)) for n, v in enumerate(chunk))
    tables = TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(settings()).build()
    )
    tables.get_config().set("table.exec.mini-batch.enabled", "true")
    tables.get_config().set("table.exec.mini-batch.allow-latency", "1 s")
    tables.get_config().set("table.exec.mini-batch.size", "5000")
    tables.get_config().set("parallelism.default", "1")
    tables.execute_sql(
        "CREATE TABLE samples (sensor INT, ms BIGINT, v DOUBLE, ts AS TO_TIMESTAMP_LTZ(ms, 3), "
        "WATERMARK FOR ts AS ts - INTERVAL '0.600' SECOND) WITH ('connector' = 'filesystem', "
        f"'path' = 'file://{scratch}/in.csv', 'format' = 'csv')"
    )
    query = (
        "SELECT sensor, window_start, COUNT(*), SUM(v), MIN(v), MAX(v), SUM(v*v), SUM(v*v*v), SUM(v*v*v*v) "
        "FROM TABLE(TUMBLE(TABLE samples, DESCRIPTOR(ts), INTERVAL '1' SECOND)) "
        "GROUP BY sensor, window_start, window_end"
    )
    begun = time.perf_counter()
    with tables.execute_sql(query).collect() as found:
        raw = [list(row) for row in found]
    seconds = time.perf_counter() - begun
    first = min(row[1] for row in raw)
    out = []
    for sensor, start, n, total, low, high, second, third, fourth in raw:
        mean = total / n
        square = second / n - mean**2
        central = fourth / n - 4 * mean * third / n + 6 * mean**2 * second / n - 3 * mean**4
        values = [n, mean, low, high, square**0.5, central / square**2]
        out.append([sensor, round((start - first).total_seconds()), *values, *[np.nan] * 8])
    return out, seconds


def main(folder, answer, kind):
    samples, order = load(folder, "samples", "order")
    sensors, signal = (16, min(10, samples.shape[1] // RATE)) if kind == "blocks" else (4, 5)
    with tempfile.TemporaryDirectory() as scratch:
        if kind == "blocks":
            out, seconds = blocks(samples, order, sensors, signal)
        else:
            out, seconds = rows(samples, order, sensors, signal, scratch)
    items = sensors * signal * RATE
    tell(answer, out, items, [seconds], sensors=sensors, signal=signal, spectra=kind == "blocks")


if __name__ == "__main__":
    main(*sys.argv[1:])
