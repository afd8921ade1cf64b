"""W1 in Bytewax: event-time tumbling windows over whole NumPy blocks, or over single samples."""

import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main

sys.path.append(str(Path(__file__).resolve().parent.parent))
import numpy as np
from shared import CHUNK, RATE, START_MS, describe, load, tell

START = datetime.fromtimestamp(START_MS / 1000, timezone.utc)
SECOND = timedelta(seconds=1)
TICK = timedelta(milliseconds=1000 * CHUNK // RATE)
LATE = timedelta(milliseconds=600)
"""Half a second and a message: Bytewax counts from the newest item of the key."""


def place_block(window, item):
    at, samples = item
    offset = round((at - START) / SECOND * RATE) % RATE
    window[offset : offset + len(samples)] = samples
    return window


def place_row(window, item):
    at, value = item
    window[at.microsecond * RATE // 1_000_000] = value
    return window


def flow(items, batch, place, out):
    dataflow = Dataflow("windows")
    stream = op.input("in", dataflow, TestingSource(items, batch))
    clock = win.EventClock(lambda item: item[0], LATE)
    windower = win.TumblingWindower(length=SECOND, align_to=START)
    folded = win.fold_window(
        "fold",
        stream,
        clock,
        windower,
        lambda: np.full(RATE, np.nan, dtype=np.float32),
        place,
        lambda left, right: np.where(np.isnan(left), right, left),
        ordered=False,
    )
    described = op.map("describe", folded.down, lambda held: describe(int(held[0]), held[1][0], held[1][1]))
    op.output("out", described, TestingSink(out))
    return dataflow


def main(folder, answer, kind):
    samples, order = load(folder, "samples", "order")
    if kind == "blocks":
        sensors, signal, place, batch = len(samples), samples.shape[1] // RATE, place_block, 64
        items = [
            (str(sensor), (START + tick * TICK, samples[sensor, tick * CHUNK : (tick + 1) * CHUNK]))
            for sensor, tick in order.tolist()
        ]
    else:
        sensors, signal, place, batch = 4, min(5, samples.shape[1] // RATE), place_row, 1000
        step = timedelta(microseconds=1_000_000 // RATE)
        items = [
            (str(sensor), (START + tick * TICK + index * step, value))
            for sensor, tick in order.tolist()
            if sensor < sensors and tick < signal * RATE // CHUNK
            for index, value in enumerate(samples[sensor, tick * CHUNK : (tick + 1) * CHUNK].tolist())
        ]
    seconds = []
    for _ in range(4 if kind == "blocks" else 1):
        out = []
        dataflow = flow(items, batch, place, out)
        begun = time.perf_counter()
        cluster_main(dataflow, [], 0, worker_count_per_proc=1)
        seconds.append(time.perf_counter() - begun)
    tell(answer, out, sensors * signal * RATE, seconds[-3:], sensors=sensors, signal=signal)


if __name__ == "__main__":
    main(*sys.argv[1:])
