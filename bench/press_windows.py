"""How many samples a second the engine turns into one-second windows with spectra, beside its peers.

64 sensors × 10 kHz × 30 s of float32 in messages of 100 ms, 1 % of them late by up to 500 ms; per sensor and
second count, mean, min, max, r.m.s., kurtosis and 8 band energies (`bench.workloads`, W1). Each engine runs
in a process of its own, on the same input, and its whole answer is checked: a wrong one has no goal and says
by how much. Our row is the real path on one thread: Arrow payloads in wire Blocks of 64 messages → decode
against the contract → watermarks → the declared Waveform with the values asked → rows in memory. A second row
has the press's own edge in its place, which computes more (velocity, envelope spectrum, z-score). The third
is the first as it runs for good: every accepted Block is in the event log, on disk (group commit), and a
keeper's thread commits the windows to a Delta table and writes the state of the path, each synced, at every
second of the clock and at the end; the signal comes five times, and the time is that of one. One row has the
two threads of a running loop, source and path. The bare limit is the asked numbers by numba and scipy.fft
straight over one array: no messages, no time, no order; on one thread, and on two.

`*_cpu_s` and `*_peak_mb` are of the whole process with its children: start, imports and input count.
"""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from queue import Queue
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.fft

from bench.figures import options, publish
from bench.peers.engine import Engine, measure_all, rows
from bench.peers.shared import describe, tell
from bench.workloads import BANDS, CHUNK, RATE, SENSORS, START_MS, check_windows, expected_windows, make_waves
from boucle.block import Block, Position
from boucle.bus.log import EventLog
from boucle.clock import SECOND
from boucle.compiled import compiled
from boucle.edge import Reduce, Waveform
from boucle.lake.delta import LakeTable
from boucle.ports import WIRE, Operator
from boucle.product.contract import FieldContract, StreamContract
from boucle.quality.decode import Decoder
from boucle.stream.watermark import Watermarks

GROUP = 4
"""Sensors of one machine."""
MESSAGES = 64
"""Messages of a wire Block: what a broker delivers in 100 ms."""
REPEATS = 5
ROUNDS = 5
"""How often the signal comes in the run that keeps everything."""
TIME = pa.timestamp("ns", tz="UTC")
CONTRACT = StreamContract(
    "vibration",
    (
        FieldContract("machine", pa.string(), required=True),
        FieldContract("sensor", pa.string(), required=True),
        FieldContract("at", TIME, required=True),
        FieldContract("samples", pa.list_(pa.float32()), required=True),
    ),
)


def timed(work: Callable[[], Any], repeats: int = REPEATS) -> tuple[Any, list[float]]:
    """What the work gives, and how long each repetition took, after one that warms up."""
    result = work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begun)
    return result, seconds


def wire_blocks(folder: Path) -> list[Block]:
    """W1 as a broker delivers it: one Arrow stream per message, in order of arrival."""
    samples, order = np.load(folder / "samples.npy"), np.load(folder / "order.npy")
    schema = CONTRACT.schema()
    payloads = []
    for sensor, tick in order.tolist():
        batch = pa.RecordBatch.from_arrays(
            [
                pa.array([f"press-{sensor // GROUP:02}"]),
                pa.array([f"vib-{sensor % GROUP}"]),
                pa.array([START_MS * 1_000_000 + tick * CHUNK * SECOND // RATE], TIME),
                pa.array([samples[sensor, tick * CHUNK : (tick + 1) * CHUNK]], schema.field("samples").type),
            ],
            schema=schema,
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(batch)
        payloads.append(sink.getvalue().to_pybytes())
    blocks = []
    for first in range(0, len(payloads), MESSAGES):
        some = payloads[first : first + MESSAGES]
        topics, times = ["press/vibration"] * len(some), [START_MS * 1_000_000] * len(some)
        columns = [topics, some, times, [False] * len(some)]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, WIRE, strict=True)]
        wire = pa.RecordBatch.from_arrays(arrays, schema=WIRE)
        blocks.append(Block("vibration", wire, 0, Position("press", first + len(some))))
    return blocks


def waveform() -> Waveform:
    """Exactly what W1 asks."""
    values = {name: name for name in ("count", "mean", "min", "max", "rms", "kurtosis")}
    values |= {f"band_{index}": f"band({low}, {high})" for index, (low, high) in enumerate(pairwise(BANDS))}
    return Waveform("windows", by=["machine", "sensor"], size="1s", rate_hz=RATE, values=values)


def press() -> Reduce:
    """The press's own edge."""
    return Reduce("windows", rate_hz=RATE, bands=BANDS)


def accepted(blocks: list[Block], marks: Watermarks) -> Iterator[Block]:
    """Wire Blocks decoded and judged, as the loop does it."""
    decoder = Decoder(CONTRACT, "arrow")
    for wire in blocks:
        block, rejects = decoder.decode(wire)
        assert block is not None
        assert not rejects
        observed = marks.observe(block.rows)
        assert not observed.late.any()
        yield Block("vibration", block.rows, observed.watermark, block.position)


def watermarks() -> Watermarks:
    """Those of the sensors."""
    return Watermarks("at", ["machine", "sensor"], 0.5, 3)


def boucle_path(blocks: list[Block], edge: Operator) -> list[Block]:
    """Wire Blocks to windows in memory."""
    return [given for block in accepted(blocks, watermarks()) for given in edge.step(block)]


def two_threads(blocks: list[Block]) -> list[Block]:
    """The same as a running loop does it: a thread for the source, one for the path, a bounded queue between."""
    queue: Queue[Block | None] = Queue(64)

    def source() -> None:
        for block in accepted(blocks, watermarks()):
            queue.put(block)
        queue.put(None)

    edge, windows = waveform(), list[Block]()
    thread = threading.Thread(target=source)
    thread.start()
    while (block := queue.get()) is not None:
        windows.extend(edge.step(block))
    thread.join()
    return windows


class Kept:
    """What of a run is on disk: the log, the table of windows and the last state."""

    def __init__(self, folder: Path) -> None:
        self.log = EventLog(folder / "log", stream="vibration")
        self.table = LakeTable(folder / "windows", partition_by=("machine", "day"))
        self._state, self._number = folder / "state", 0
        self._waiting: list[Block] = []

    def keep(self, windows: list[Block]) -> None:
        """Take windows for the next commit."""
        self._waiting += windows

    def commit(self, windows: list[Block], state: bytes) -> None:
        """Return when all of it would survive a power cut."""
        self.log.flush()
        self.keep(windows)
        if self._waiting:
            self._number += 1
            self.table.append(self._waiting, app="bench", transaction=self._number)
            self.table.sync()
            self._waiting = []
        with self._state.with_suffix(".new").open("wb") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        self._state.with_suffix(".new").replace(self._state)


def durable_path(blocks: list[Block], folder: Path) -> list[Block]:
    """Wire Blocks to windows that are kept: log, Delta table, and a checkpoint at every second of the clock.

    The signal comes `ROUNDS` times, so that the run lasts for several checkpoints; the windows of the last.
    """
    kept, begun = Kept(folder), time.monotonic()
    ended = threading.Event()

    def group_commit() -> None:
        while not ended.wait(0.01):
            kept.log.flush()

    flusher = threading.Thread(target=group_commit)
    flusher.start()
    with ThreadPoolExecutor(1) as keeper:
        writing: list[Future[None]] = []
        for _ in range(ROUNDS):
            marks, edge, windows, told = watermarks(), waveform(), list[Block](), 0
            for block in accepted(blocks, marks):
                kept.log.append(block)
                windows.extend(edge.step(block))
                if time.monotonic() - begun >= 1 and all(one.done() for one in writing):
                    state = edge.snapshot() + marks.snapshot()
                    writing.append(keeper.submit(kept.commit, filled(windows[told:]), state))
                    told, begun = len(windows), time.monotonic()
            writing.append(keeper.submit(kept.keep, filled(windows[told:])))
        writing.append(keeper.submit(kept.commit, [], edge.snapshot() + marks.snapshot()))
        for one in writing:
            one.result()
    ended.set()
    flusher.join()
    kept.log.close()
    shutil.rmtree(folder)
    return windows


def filled(windows: list[Block]) -> list[Block]:
    """Those that have rows."""
    return [one for one in windows if len(one)]


def boucle(folder: str, answer: str, edge: str) -> None:
    """Our rows; `edge`: `asked`, `threads`, `press` or `kept`."""
    blocks = wire_blocks(Path(folder))
    if edge == "kept":
        with tempfile.TemporaryDirectory(prefix="boucle-bench-") as name:
            windows, seconds = timed(lambda: durable_path(blocks, Path(name) / "kept"), 2)
        seconds = [one / ROUNDS for one in seconds]
    elif edge == "threads":
        sys.setswitchinterval(0.0001)  # as the loop does
        windows, seconds = timed(lambda: two_threads(blocks))
    else:
        make = press if edge == "press" else waveform
        windows, seconds = timed(lambda: boucle_path(blocks, make()))
    table = pa.Table.from_batches([block.rows for block in windows])
    names = ["count", "mean", "min", "max", "rms", "kurtosis", *(f"band_{band}" for band in range(8))]
    machine = pc.cast(pc.utf8_slice_codeunits(table["machine"], 6), pa.int64()).to_numpy()
    sensor = pc.cast(pc.utf8_slice_codeunits(table["sensor"], 4), pa.int64()).to_numpy()
    second = (table["at"].cast(pa.int64()).to_numpy() // 1_000_000 - START_MS) // 1000
    columns = [machine * GROUP + sensor, second, *(table[name].to_numpy() for name in names)]
    samples = int(pc.sum(table["count"]).as_py())
    tell(answer, np.column_stack(columns), samples, seconds, sensors=SENSORS, signal=_signal(folder))


@compiled
def _moments(windows: Any, centred: Any, out: Any) -> None:
    for row in range(windows.shape[0]):
        total, low, high = 0.0, windows[row, 0], windows[row, 0]
        for value in windows[row]:
            total += value
            low, high = min(low, value), max(high, value)
        mean = total / windows.shape[1]
        second, fourth = 0.0, 0.0
        for k in range(windows.shape[1]):
            apart = np.float32(windows[row, k] - mean)
            centred[row, k] = apart
            square = np.float64(apart * apart)
            second += square
            fourth += square * square
        second /= windows.shape[1]
        out[row, 0], out[row, 1], out[row, 2] = mean, low, high
        out[row, 3] = np.sqrt(second)
        out[row, 4] = fourth / windows.shape[1] / second**2


@compiled
def _energies(spectrum: Any, edges: Any, scale: float, out: Any) -> None:
    for row in range(spectrum.shape[0]):
        for band in range(len(edges) - 1):
            energy = 0.0
            for k in range(edges[band], edges[band + 1]):
                value = spectrum[row, k]
                energy += value.real * value.real + value.imag * value.imag
            out[row, 5 + band] = energy * scale


def bare(folder: str, answer: str, threads: str = "1") -> None:
    """The physical limit: the asked numbers of arrays that lie ready."""
    samples = np.load(Path(folder) / "samples.npy").reshape(-1, RATE)
    edges, number = np.array(BANDS), int(threads)
    out = np.empty((len(samples), 13))

    def work(share: int) -> None:
        centred = np.empty((16, RATE), dtype=np.float32)
        for first in range(16 * share, len(samples), 16 * number):
            some = samples[first : first + 16]
            kept = centred[: len(some)]
            _moments(some, kept, out[first : first + 16])
            _energies(scipy.fft.rfft(kept, axis=1), edges, 2 / RATE**2, out[first : first + 16])

    with ThreadPoolExecutor(number) as pool:
        _, seconds = timed(lambda: list(pool.map(work, range(number))))
    _tell_all(answer, out, seconds, folder)


def duckdb_sql(folder: str, answer: str) -> None:
    """Moments by SQL over a table of samples; DuckDB has no FFT, so SciPy takes the lists it orders."""
    samples, order = np.load(Path(folder) / "samples.npy"), np.load(Path(folder) / "order.npy")
    sensors, ticks = order[:, 0], order[:, 1]
    lists = samples.reshape(SENSORS, -1, CHUNK)[sensors, ticks]
    offsets = pa.array(np.arange(len(order) + 1, dtype=np.int32) * CHUNK)
    columns = {
        "sensor": pa.array(sensors),
        "ms": pa.array(ticks.astype(np.int64) * (CHUNK * 1000 // RATE)),
        "samples": pa.ListArray.from_arrays(offsets, pa.array(lists.ravel())),
    }
    database = duckdb.connect()
    database.execute("SET threads = 2; SET enable_progress_bar = false")
    database.register("arrived", pa.table(columns))
    database.execute("CREATE TABLE messages AS SELECT * FROM arrived")
    query = """
        WITH windows AS (
            SELECT sensor, ms // 1000 AS second, flatten(list(samples ORDER BY ms)) AS held
            FROM messages GROUP BY ALL),
        moments AS (
            SELECT sensor, second, count(*) AS n, avg(v::DOUBLE) AS mean, min(v) AS low, max(v) AS high,
                   stddev_pop(v::DOUBLE) AS rms, kurtosis_pop(v::DOUBLE) + 3 AS kurtosis
            FROM (SELECT sensor, ms // 1000 AS second, unnest(samples) AS v FROM messages) GROUP BY ALL)
        SELECT moments.*, held FROM moments JOIN windows USING (sensor, second)"""
    edges = np.array(BANDS)

    def work() -> Any:
        told = database.sql(query).to_arrow_table().combine_chunks()
        held = told["held"].combine_chunks()
        held = held.chunk(0) if isinstance(held, pa.ChunkedArray) else held
        waves = held.flatten().to_numpy().reshape(-1, RATE)
        out = np.empty((len(waves), 13))
        for first in range(0, len(waves), 16):
            some = waves[first : first + 16]
            spectrum = scipy.fft.rfft(some - some.mean(axis=1, keepdims=True), axis=1)
            _energies(spectrum, edges, 2 / RATE**2, out[first : first + 16])
        plain = [told[name].to_numpy().astype(np.float64) for name in told.schema.names[:-1]]
        return np.column_stack([*plain, out[:, 5:]])

    out, seconds = timed(work, 3)
    tell(answer, out, samples.size, seconds, sensors=SENSORS, signal=_signal(folder))


def python(folder: str, answer: str) -> None:
    """One sample after the other; only the FFT of a full window is SciPy's. A subset; the rate is of it."""
    sensors, signal = 4, min(5, _signal(folder))
    samples = np.load(Path(folder) / "samples.npy")[:sensors, : signal * RATE]
    order = np.load(Path(folder) / "order.npy")
    messages = [
        (sensor, tick * 100, samples[sensor, tick * CHUNK : (tick + 1) * CHUNK].tolist())
        for sensor, tick in order.tolist()
        if sensor < sensors and tick < signal * RATE // CHUNK
    ]

    def work() -> list[list[float]]:
        held: dict[tuple[int, int], list[Any]] = {}
        out = []
        for sensor, at, values in messages:
            for index, value in enumerate(values):
                moment = at * 10 + index  # in samples
                key = (sensor, moment // RATE)
                window = held.get(key)
                if window is None:
                    window = held[key] = [0, 0.0, value, value, 0.0, 0.0, 0.0, [0.0] * RATE]
                window[0] += 1
                window[1] += value
                window[2] = min(window[2], value)
                window[3] = max(window[3], value)
                square = value * value
                window[4] += square
                window[5] += square * value
                window[6] += square * square
                window[7][moment % RATE] = value
                if window[0] == RATE:
                    out.append(_finish(key, held.pop(key)))
        return out

    out, seconds = timed(work, 1)
    tell(answer, out, samples.size, seconds, sensors=sensors, signal=signal)


def _finish(key: tuple[int, int], window: list[Any]) -> list[float]:
    number, total, low, high, second, third, fourth, values = window
    mean = total / number
    square = second / number - mean**2
    central = fourth / number - 4 * mean * third / number + 6 * mean**2 * second / number - 3 * mean**4
    bands = describe(*key, np.array(values, dtype=np.float32))[8:]
    return [*key, number, mean, low, high, square**0.5, central / square**2, *bands]


def numpy_loop(folder: str, answer: str) -> None:
    """One NumPy function per window on arrays that lie ready: what engines fed whole blocks can reach."""
    samples = np.load(Path(folder) / "samples.npy")

    def work() -> list[list[float]]:
        return [
            describe(sensor, second, samples[sensor, second * RATE : (second + 1) * RATE])
            for sensor in range(SENSORS)
            for second in range(_signal(folder))
        ]

    out, seconds = timed(work, 3)
    tell(answer, out, samples.size, seconds, sensors=SENSORS, signal=_signal(folder))


def _tell_all(answer: str, out: Any, seconds: list[float], folder: str) -> None:
    signal = _signal(folder)
    keys = np.column_stack([np.repeat(np.arange(SENSORS), signal), np.tile(np.arange(signal), SENSORS)])
    counts = np.full((len(out), 1), RATE)
    values = np.hstack([keys, counts, out])
    tell(answer, values, SENSORS * signal * RATE, seconds, sensors=SENSORS, signal=signal)


def _signal(folder: str) -> int:
    """Seconds of signal in the folder."""
    length: int = np.load(Path(folder) / "samples.npy", mmap_mode="r").shape[1]
    return length // RATE


ENGINES = [
    Engine("boucle", "boucle, real path, 64-message Blocks", "boucle", ("asked",)),
    Engine("boucle_threads", "boucle, a thread for the source, one for the path", "boucle", ("threads",)),
    Engine("boucle_kept", "boucle, with log and Delta sink, checkpoints every second", "boucle", ("kept",)),
    Engine("boucle_press", "boucle, the press's own edge", "boucle", ("press",)),
    Engine("bare", "bare limit, numba + scipy.fft over one array", "bare", goal=0.6),
    Engine("bare_two", "bare limit, two threads", "bare", ("2",)),
    Engine("numpy", "one NumPy + SciPy call a window, no engine", "numpy_loop"),
    Engine("duckdb", "DuckDB 2 threads, moments in SQL, FFT by SciPy", "duckdb_sql"),
    Engine("bytewax_blocks", "Bytewax, whole NumPy blocks", "bytewax/w1", ("blocks",), goal=2),
    Engine("quix_blocks", "Quix Streams, whole blocks, mock Kafka", "quix/w1", ("blocks",), quick=False),
    Engine("spark", "PySpark Structured Streaming, blocks, local[2]", "spark/w1", quick=False, timeout=420),
    Engine("flink_blocks", "PyFlink, blocks, keyed process function", "flink/w1", ("blocks",), quick=False,
           timeout=420),
    Engine("python", "plain Python, per sample, subset", "python", goal=30),
    Engine("bytewax_rows", "Bytewax, per sample, subset", "bytewax/w1", ("rows",), goal=30),
    Engine("quix_rows", "Quix Streams, per sample, subset, mock Kafka", "quix/w1", ("rows",), goal=30,
           quick=False),
    Engine("flink_rows", "Flink SQL, per sample, no FFT, subset", "flink/w1", ("rows",), goal=30, quick=False,
           timeout=420),
]  # fmt: skip


def main() -> None:
    """Measure and tell."""
    asked = options(__doc__)
    with tempfile.TemporaryDirectory(prefix="boucle-bench-") as name:
        folder = Path(name)
        make_waves(folder, 10 if asked.quick else 30)
        expected = expected_windows(folder)
        measured = measure_all(
            ENGINES,
            "bench.press_windows",
            folder,
            lambda told, given: check_windows(
                expected, given, told["sensors"], told["signal"], spectra=told.get("spectra", True)
            ),
            quick=asked.quick,
        )
    publish(rows(measured, "boucle", "samples/s"), asked)


if __name__ == "__main__":
    main()
