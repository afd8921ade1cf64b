"""W2 in Quix Streams from a mock Kafka, on a subset: the events on a topic keyed by card and on another keyed
by terminal (a group_by would send them there), features in the engine's state, put together at the end."""

import json
import sys
import tempfile
import time
from pathlib import Path

from kafka import Cluster, topic

sys.path.append(str(Path(__file__).resolve().parent.parent))
import numpy as np
from shared import CARD_WINDOWS_MS, DAY_MS, load, tell

EVENTS = 20_000


def sliding(sizes):
    """Events of the longest window in the state of the key; sums are taken anew."""

    def take(event, state):
        at = event[1]
        held = [one for one in state.get("held", []) if one[0] > at - sizes[-1]]
        held.append([at, event[2]])
        state.set("held", held)
        told = []
        for size in sizes:
            inside = [amount for moment, amount in held if moment > at - size]
            told += (len(inside), sum(inside))
        return [event[0], *told]

    return take


def main(folder, answer):
    columns = [column[:EVENTS].tolist() for column in load(folder, "at", "card", "terminal", "amount")]
    cluster = Cluster()
    events = list(enumerate(zip(*columns)))
    for name, key in (("cards", 1), ("terminals", 2)):
        messages = [(str(e[key]), json.dumps([n, e[0], e[3]]).encode(), e[0]) for n, e in events]
        cluster.send(name, messages)
    told = np.full((len(events), 8), np.nan)
    ended, taken = [], []

    def keep(values):
        if len(values) == 7:
            told[values[0], :6] = values[1:]
        else:
            told[values[0], 6:] = values[1], values[2] / values[1]
        ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        application = cluster.application(scratch)
        for name, sizes in (("cards", CARD_WINDOWS_MS), ("terminals", (DAY_MS,))):
            frame = application.dataframe(topic(application, name, "json"))
            frame.apply(sliding(sizes), stateful=True).update(keep)
        application._on_message_processed = lambda *_: taken or taken.append(time.perf_counter())
        begun = time.perf_counter()
        application.run(count=2 * len(events), timeout=20, collect=False)
    tell(answer, told, len(events), [ended[-1] - (taken[0] if taken else begun)])


if __name__ == "__main__":
    main(*sys.argv[1:])
