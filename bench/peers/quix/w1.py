"""W1 in Quix Streams from a mock Kafka, on a subset. `blocks`: a message is 100 ms of a sensor, the windows
being made lie in the engine's state. `rows`: a message is a sample, windows are the engine's own."""

import struct
import sys
import tempfile
import time
from pathlib import Path

from kafka import Cluster, topic
from quixstreams.dataframe.windows import Collect

sys.path.append(str(Path(__file__).resolve().parent.parent))
import numpy as np
from shared import CHUNK, RATE, START_MS, describe, load, tell

HELD = RATE // CHUNK
"""Messages of a window."""


def blocks(samples, order, sensors, signal):
    for sensor, tick in order.tolist():
        if sensor < sensors and tick < signal * HELD:
            at = START_MS + tick * CHUNK * 1000 // RATE
            chunk = samples[sensor, tick * CHUNK : (tick + 1) * CHUNK]
            yield str(sensor), struct.pack("<qq", sensor, tick) + chunk.tobytes(), at


def window_of_blocks(value, state):
    sensor, tick = struct.unpack_from("<qq", value)
    second, place = divmod(tick, HELD)
    there = state.get(f"n{second}", 0) + 1
    if there < HELD:
        state.set_bytes(f"{second}/{place}", value[16:])
        state.set(f"n{second}", there)
        return None
    pieces = [value[16:] if n == place else state.get_bytes(f"{second}/{n}") for n in range(HELD)]
    for n in range(HELD):
        if n != place:
            state.delete(f"{second}/{n}")
    state.delete(f"n{second}")
    return describe(sensor, second, np.frombuffer(b"".join(pieces), dtype=np.float32))


def rows(samples, order, sensors, signal):
    for sensor, tick in order.tolist():
        if sensor < sensors and tick < signal * HELD:
            chunk = samples[sensor, tick * CHUNK : (tick + 1) * CHUNK].tolist()
            for index, value in enumerate(chunk):
                yield str(sensor), struct.pack(">d", value), START_MS + (tick * CHUNK + index) * 1000 // RATE
    for sensor in range(sensors):  # windows close only when something later comes
        yield str(sensor), struct.pack(">d", 0.0), START_MS + (signal + 5) * 1000


def main(folder, answer, kind):
    samples, order = load(folder, "samples", "order")
    sensors, signal = (16, min(15, samples.shape[1] // RATE)) if kind == "blocks" else (2, 3)
    cluster = Cluster()
    messages = list((blocks if kind == "blocks" else rows)(samples, order, sensors, signal))
    cluster.send("vibration", messages)
    out = []
    with tempfile.TemporaryDirectory() as scratch:
        application = cluster.application(scratch)
        if kind == "blocks":
            frame = application.dataframe(topic(application, "vibration", "bytes"))
            frame = frame.apply(window_of_blocks, stateful=True)
            frame = frame.filter(lambda told: told is not None)
            frame.update(lambda told: (out.append(told), ended.append(time.perf_counter()))[0])
        else:
            frame = application.dataframe(topic(application, "vibration", "double"))
            frame = frame.tumbling_window(1000, grace_ms=600).agg(value=Collect()).final()

            def keep(told, key, _at, _headers):
                second = (told["start"] - START_MS) // 1000
                if second < signal:
                    out.append(describe(int(key), second, np.array(told["value"], dtype=np.float32)))
                    ended.append(time.perf_counter())

            frame = frame.update(keep, metadata=True)
        ended = []
        taken = []
        application._on_message_processed = lambda *_: taken or taken.append(time.perf_counter())
        begun = time.perf_counter()
        application.run(count=len(messages), timeout=20, collect=False)
    first = taken[0] if taken else begun
    tell(answer, out, sensors * signal * RATE, [ended[-1] - first], sensors=sensors, signal=signal)


if __name__ == "__main__":
    main(*sys.argv[1:])
