"""The two workloads of the engine benchmarks, and the answers every engine is checked against.

W1, a hall of presses: 64 sensors at 10 kHz, messages of 100 ms (1000 float32) per sensor, one message in a
hundred late by up to 500 ms. Asked per sensor and second: count, mean, min, max, r.m.s. and kurtosis (both
about the mean) and the energy of 8 frequency bands. Each second is band-limited to 10–4500 Hz on its own
bins, so that a band-pass at the edge changes nothing and one answer checks everybody.

W2, a bank: card transactions in order of event time (whole milliseconds, no two alike). Asked per event:
count and sum of the same card over 10 min, 1 h and 24 h, count and mean of the same terminal over 24 h;
a window is (t - size, t], the event included.

The answers come by another way than any engine: W1 by NumPy in double precision, W2 by a self-join in SQL on
a subset of the cards and terminals. Both workloads lie in a folder as .npy files, which any Python reads.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = [
    "BANDS",
    "CARDS",
    "CARD_WINDOWS_MS",
    "CHUNK",
    "RATE",
    "SENSORS",
    "START_MS",
    "TERMINALS",
    "TERMINAL_WINDOW_MS",
    "Verdict",
    "check_cards",
    "check_windows",
    "expected_cards",
    "expected_windows",
    "make_cards",
    "make_waves",
]

Doubles = NDArray[np.float64]

RATE = 10_000
SENSORS = 64
CHUNK = 1000
LATE_SHARE = 0.01
LATE_TICKS = 5
"""A late message comes up to five messages of its sensor (500 ms) after its turn."""
BANDS = (10, 27, 80, 300, 600, 1000, 2000, 3600, 4500)
START_MS = 1_767_225_600_000
"""The first instant of both workloads, ms since the epoch, on a whole day."""

CARDS, TERMINALS = 50_000, 10_000
STEP_MS = 259
"""Time between two transactions is 1 to 259 ms: 2 M of them last three days."""
CARD_WINDOWS_MS = (600_000, 3_600_000, 86_400_000)
TERMINAL_WINDOW_MS = 86_400_000

TOLERANCE = 1e-6
"""Relative, of sums (means)."""
SPECTRAL_TOLERANCE = 1e-4
"""Relative, of r.m.s., kurtosis and band energies: engines may transform in single precision."""


class Verdict(Struct, frozen=True):
    """Whether an engine's answer is right."""

    right: bool
    wrong_share: float
    """Of the values looked at, those that are wrong or missing."""
    checked: int


def make_waves(folder: Path, seconds: int, seed: int = 7) -> None:
    """W1: `samples.npy` (sensors, seconds × rate) and `order.npy`, the (sensor, message) in arrival order."""
    random = np.random.default_rng(seed)
    samples = np.empty((SENSORS, seconds * RATE), dtype=np.float32)
    bins = np.arange(RATE // 2 + 1)
    inside = (bins >= BANDS[0]) & (bins < BANDS[-1])
    for sensor in range(SENSORS):
        spectrum = random.normal(size=(seconds, len(bins))) + 1j * random.normal(size=(seconds, len(bins)))
        gain = inside * (1 + 30 * np.exp(-(((bins - 40 * (2 + sensor)) / 60.0) ** 2)))
        signal = np.fft.irfft(spectrum * gain, n=RATE, axis=1) * (10 + sensor)
        offset = random.uniform(0.5, 1.5, size=(seconds, 1))
        samples[sensor] = (signal + offset).astype(np.float32).ravel()
    messages = seconds * RATE // CHUNK
    tick, sensor_of = np.meshgrid(np.arange(messages), np.arange(SENSORS), indexing="ij")
    late = random.random(tick.shape) < LATE_SHARE
    due = tick + np.where(late, random.integers(1, LATE_TICKS, tick.shape) + 0.5, 0.0)
    turn = np.argsort(due.ravel(), kind="stable")
    order = np.column_stack([sensor_of.ravel()[turn], tick.ravel()[turn]]).astype(np.int32)
    np.save(folder / "samples.npy", samples)
    np.save(folder / "order.npy", order)


def expected_windows(folder: Path) -> Doubles:
    """The right answer of W1: sensor, second, count, mean, min, max, rms, kurtosis, band_0 … band_7."""
    samples = np.load(folder / "samples.npy")
    rows = []
    for sensor in range(len(samples)):
        windows = samples[sensor].astype(np.float64).reshape(-1, RATE)
        mean = windows.mean(axis=1)
        centred = windows - mean[:, None]
        square = (centred**2).mean(axis=1)
        power = np.abs(np.fft.rfft(centred, axis=1)) ** 2 * 2 / RATE**2
        bands = [power[:, low:high].sum(axis=1) for low, high in pairwise(BANDS)]
        index = np.arange(len(windows), dtype=np.float64)
        rows.append(
            np.column_stack(
                [
                    np.full(len(windows), sensor, dtype=np.float64),
                    index,
                    np.full(len(windows), RATE, dtype=np.float64),
                    mean,
                    windows.min(axis=1),
                    windows.max(axis=1),
                    np.sqrt(square),
                    (centred**4).mean(axis=1) / square**2,
                    *bands,
                ]
            )
        )
    return np.concatenate(rows)


def check_windows(
    expected: Doubles, given: Doubles, sensors: int, seconds: int, *, spectra: bool = True
) -> Verdict:
    """Compare the windows of the first `sensors` and `seconds`: each there once, count and values right.

    Without `spectra` only the moments: for engines that have no transform.
    """
    width = expected.shape[1] if spectra else 8
    expected, given = expected[:, :width], given[:, :width]
    wanted = expected[(expected[:, 0] < sensors) & (expected[:, 1] < seconds)]
    known = {(int(row[0]), int(row[1])): row[2:] for row in given}
    if len(known) != len(given) or not set(known) <= {(int(row[0]), int(row[1])) for row in wanted}:
        return Verdict(False, 1.0, len(wanted))
    tolerance = np.array([0.0, TOLERANCE, TOLERANCE, TOLERANCE, *[SPECTRAL_TOLERANCE] * (width - 6)])
    wrong = 0
    for row in wanted:
        answer = known.get((int(row[0]), int(row[1])))
        if answer is None or not (np.abs(answer - row[2:]) <= tolerance * np.abs(row[2:])).all():
            wrong += 1
    return Verdict(wrong == 0, wrong / len(wanted), len(wanted))


def make_cards(folder: Path, events: int, seed: int = 7) -> None:
    """W2: `at.npy` (ms), `card.npy`, `terminal.npy`, `amount.npy`, one entry per event in order of time."""
    random = np.random.default_rng(seed)
    np.save(folder / "at.npy", START_MS + np.cumsum(random.integers(1, STEP_MS + 1, events)))
    np.save(folder / "card.npy", random.integers(0, CARDS, events).astype(np.int32))
    np.save(folder / "terminal.npy", random.integers(0, TERMINALS, events).astype(np.int32))
    np.save(folder / "amount.npy", np.round(random.lognormal(3.2, 1.0, events), 2))


class CardAnswers(Struct, frozen=True):
    """The right answer of W2 for some cards and some terminals."""

    cards: Any
    """Numbers of the events of the cards looked at."""
    card_features: Any
    """count, sum over 10 min; over 1 h; over 24 h."""
    terminals: Any
    terminal_features: Any
    """count, mean over 24 h."""


def expected_cards(folder: Path) -> CardAnswers:
    """A self-join in SQL: every earlier event of the same card or terminal that lies inside the window."""
    names = ("at", "card", "terminal", "amount")
    columns = {name: np.load(folder / f"{name}.npy") for name in names}
    columns["number"] = np.arange(len(columns["at"]))
    database = duckdb.connect()
    database.execute("SET threads = 2; SET enable_progress_bar = false")
    database.register("given", columns)
    database.execute("CREATE TABLE events AS SELECT * FROM given")
    sums = ", ".join(
        f"count(*) FILTER (b.at > a.at - {size}), "
        f"coalesce(sum(b.amount) FILTER (b.at > a.at - {size}), 0)::DOUBLE"
        for size in CARD_WINDOWS_MS
    )
    cards = database.execute(
        f"SELECT a.number, {sums} FROM events a JOIN events b ON a.card = b.card AND b.at <= a.at "
        "WHERE a.card % 97 = 5 AND b.card % 97 = 5 GROUP BY a.number ORDER BY a.number"
    ).fetchnumpy()
    terminals = database.execute(
        "SELECT a.number, count(*), avg(b.amount) FROM events a JOIN events b ON a.terminal = b.terminal "
        f"AND b.at <= a.at AND b.at > a.at - {TERMINAL_WINDOW_MS} "
        "WHERE a.terminal % 97 = 5 AND b.terminal % 97 = 5 GROUP BY a.number ORDER BY a.number"
    ).fetchnumpy()
    database.close()
    card_columns, terminal_columns = list(cards.values()), list(terminals.values())
    return CardAnswers(
        cards=np.asarray(card_columns[0], dtype=np.int64),
        card_features=np.column_stack(card_columns[1:]).astype(np.float64),
        terminals=np.asarray(terminal_columns[0], dtype=np.int64),
        terminal_features=np.column_stack(terminal_columns[1:]).astype(np.float64),
    )


def check_cards(expected: CardAnswers, given: Doubles) -> Verdict:
    """Compare features (events, 8) of the first events, in order; NaN where an engine gave none."""
    wrong = checked = 0
    parts = [
        (expected.cards, expected.card_features, given[:, :6]),
        (expected.terminals, expected.terminal_features, given[:, 6:8]),
    ]
    for numbers, features, answers in parts:
        inside = numbers < len(given)
        wanted, answer = features[inside], answers[numbers[inside]]
        close = np.abs(answer - wanted) <= TOLERANCE * np.abs(wanted)
        close[:, 0::2] = answer[:, 0::2] == wanted[:, 0::2]
        wrong += int((~close.all(axis=1)).sum())
        checked += int(inside.sum())
    return Verdict(wrong == 0 and checked > 0, wrong / max(checked, 1), checked)
