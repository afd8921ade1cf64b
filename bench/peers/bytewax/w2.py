"""W2 in Bytewax. `branches`: card and terminal keyed straight from the source, each in order, put together
by event number at the end. `rekeyed`: by card, then the result by terminal, as one writes it at first."""

import sys
import time
from collections import deque
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main

sys.path.append(str(Path(__file__).resolve().parent.parent))
import numpy as np
from shared import CARD_WINDOWS_MS, DAY_MS, load, tell

EVENTS = 100_000
BATCH = 64


def sliding(sizes):
    def take(state, event):
        at, amount = event[1], event[4]
        if state is None:
            state = [[deque(), 0.0] for _ in sizes]
        told = []
        for window, size in zip(state, sizes):
            events = window[0]
            events.append((at, amount))
            window[1] += amount
            while events[0][0] <= at - size:
                window[1] -= events.popleft()[1]
            told += (len(events), window[1])
        return state, (event, told)

    return take


def branches(events, out):
    flow = Dataflow("features")
    source = op.input("in", flow, TestingSource(events, BATCH))
    cards = op.stateful_map("card", op.map("by_card", source, lambda e: (e[2], e)), sliding(CARD_WINDOWS_MS))
    places = op.stateful_map(
        "terminal", op.map("by_terminal", source, lambda e: (e[3], e)), sliding((DAY_MS,))
    )
    op.output("out", op.merge("both", cards, places), TestingSink(out))
    return flow


def rekeyed(events, out):
    flow = Dataflow("features")
    source = op.input("in", flow, TestingSource(events, BATCH))
    cards = op.stateful_map("card", op.map("by_card", source, lambda e: (e[2], e)), sliding(CARD_WINDOWS_MS))
    again = op.map("by_terminal", cards, lambda item: (item[1][0][3], (*item[1][0], item[1][1])))
    op.output("out", op.stateful_map("terminal", again, sliding((DAY_MS,))), TestingSink(out))
    return flow


def main(folder, answer, kind):
    whole = load(folder, "at", "card", "terminal", "amount")
    columns = [column[: min(EVENTS, len(whole[0]) // 5)].tolist() for column in whole]
    events = [
        (n, at, f"c{card}", f"t{place}", amount) for n, (at, card, place, amount) in enumerate(zip(*columns))
    ]
    out = []
    flow = (branches if kind == "branches" else rekeyed)(events, out)
    begun = time.perf_counter()
    cluster_main(flow, [], 0, worker_count_per_proc=1)
    seconds = time.perf_counter() - begun
    told = np.full((len(events), 8), np.nan)
    for _, (event, values) in out:
        if len(values) == 6:
            told[event[0], :6] = values
        else:
            told[event[0], 6:] = values[0], values[1] / values[0]
            if len(event) == 6:
                told[event[0], :6] = event[5]
    tell(answer, told, len(events), [seconds])


if __name__ == "__main__":
    main(*sys.argv[1:])
