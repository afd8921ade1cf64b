"""Waveforms described: against NumPy and SciPy, and the laws of every operator."""

import operator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.signal
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.edge import Waveform
from boucle.errors import BoucleError, ContractBroken
from boucle.ports import Describes, Operator
from tests.edge.signals import START, TIME, Chunk, cut, rows_of, vibration
from tests.stream.laws import any_way, cuts, feed, shuffled, table

RATE, SIZE = 1000, 200
RNG = np.random.default_rng(5)
ALL = {
    "n": "count",
    "mean": "mean",
    "low": "min",
    "high": "max",
    "rms": "rms",
    "peak": "peak",
    "crest": "crest",
    "skewness": "skewness",
    "kurtosis": "kurtosis",
    "slow": "band(5, 100)",
    "fast": "band(100, 500)",
    "spectrum": "spectrum",
    "psd": "psd(64)",
    "envelope": "envelope(100, 300)",
}
SIGNALS: dict[tuple[str, str], NDArray[np.float32]] = {
    ("m1", "x"): (RNG.normal(0.5, 0.3, 1000)).astype(np.float32),
    ("m1", "y"): (RNG.gamma(2.0, 0.3, 1000)).astype(np.float32),
    ("m2", "x"): np.sin(np.arange(1000) * 0.7).astype(np.float32),
}


def waveform(**changed: Any) -> Waveform:
    told: dict[str, Any] = {"by": ["machine", "sensor"], "size": "200ms", "rate_hz": RATE, "values": ALL}
    return Waveform("windows", **(told | changed))


def chunks(size: int = 50) -> list[Chunk]:
    lists = [cut(*key, signal, size, RATE) for key, signal in SIGNALS.items()]
    return sorted((chunk for held in lists for chunk in held), key=operator.itemgetter(2))


def ordered(blocks: list[Block], stream: str = "windows") -> list[dict[str, Any]]:
    return sorted(table(blocks, stream), key=operator.itemgetter("at", "machine", "sensor"))


ROWS = vibration(chunks()).rows
WHOLE = ordered(feed(waveform(), "vibration", ROWS, [0, ROWS.num_rows], 0))


def test_it_is_an_operator() -> None:
    assert isinstance(waveform(), Operator)


def test_every_value_is_that_of_numpy_and_scipy() -> None:
    assert len(WHOLE) == 5 * len(SIGNALS)
    for row in WHOLE:
        first = (row["at"] - START) * RATE // SECOND
        x = SIGNALS[row["machine"], row["sensor"]][first : first + SIZE].astype(np.float64)
        c = x - x.mean()
        power = np.abs(np.fft.rfft(c)) ** 2 * 2 / SIZE**2
        assert (row["n"], row["complete"]) == (SIZE, True)
        assert (row["low"], row["high"]) == (x.min(), x.max())
        for name, right in {
            "mean": x.mean(),
            "rms": x.std(),
            "peak": np.abs(c).max(),
            "crest": np.abs(c).max() / x.std(),
            "skewness": scipy.stats.skew(x),
            "kurtosis": scipy.stats.kurtosis(x, fisher=False),
            "slow": power[1:20].sum(),
            "fast": power[20:100].sum(),
        }.items():
            assert row[name] == pytest.approx(right, rel=1e-5, abs=1e-6), name
        amplitude = np.abs(np.fft.rfft(c)) * 2 / SIZE
        amplitude[-1] /= 2
        assert row["spectrum"] == pytest.approx(amplitude, rel=1e-4, abs=1e-6)
        _, density = scipy.signal.welch(c, RATE, nperseg=64, detrend=False)
        assert row["psd"] == pytest.approx(density, rel=1e-4, abs=1e-9)


def test_the_envelope_is_that_of_scipys_filter_and_hilbert_transform() -> None:
    t = np.arange(SIZE) / RATE
    signal = np.sin(2 * np.pi * 200 * t) * (1 + 0.5 * np.sin(2 * np.pi * 25 * t))
    spectrum = np.fft.rfft(signal)
    spectrum[:20] = spectrum[60:] = 0
    squared = np.abs(scipy.signal.hilbert(np.fft.irfft(spectrum, SIZE))) ** 2
    hann = scipy.signal.get_window("hann", SIZE)
    expected = np.abs(np.fft.rfft((squared - squared.mean()) * hann)) * 4 / SIZE
    chunk = ("m", "x", START, signal.astype(np.float32))
    (row,) = rows_of(waveform().step(vibration([chunk])))
    assert np.argmax(row["envelope"]) == 5
    assert row["envelope"][2:40] == pytest.approx(expected[2:40], abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_cut_any_arrival_any_crash_the_same_bits(data: st.DataObject) -> None:
    given_ = any_way(data, waveform, "vibration", ROWS, 300)
    assert ordered(given_) == WHOLE
    assert not table(given_, "windows/late")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_overlap_and_gaps_keep_the_laws(data: st.DataObject) -> None:
    kept = ROWS.take(pa.array([i for i in range(ROWS.num_rows) if i % 7 != 3]))
    values = {"n": "count", "rms": "rms", "mean": "mean", "b": "band(5, 300)"}
    told: dict[str, Any] = {"every": "50ms", "values": values}
    right = ordered(feed(waveform(**told), "vibration", kept, [0, kept.num_rows], 0))
    assert {row["complete"] for row in right} == {True, False}
    assert len(right) == 23 * len(SIGNALS) - 1, "one window lies in a gap"
    jitter = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=20))
    rows = shuffled(kept, [one * SECOND // 1000 for one in jitter])
    cut_ = data.draw(cuts(rows.num_rows))
    crash = data.draw(st.integers(0, len(cut_)))
    lateness = 300 * SECOND // 1000
    given_ = feed(waveform(**told), "vibration", rows, cut_, lateness, lambda: waveform(**told), crash)
    assert ordered(given_) == right


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_where_chunks_overlap_the_one_that_starts_later_is_kept(data: st.DataObject) -> None:
    """In whatever order they come; NaN is missing, whoever brings it."""
    pieces: list[Chunk] = []
    brought: dict[int, list[tuple[int, float]]] = {}
    for _ in range(data.draw(st.integers(1, 8))):
        begin = data.draw(st.integers(0, SIZE - 1))
        drawn = data.draw(st.lists(st.sampled_from([1, 2, 3, np.nan]), min_size=1, max_size=60))
        samples = np.array(drawn, np.float32)[: SIZE - begin]
        pieces.append(("m", "x", START + begin * SECOND // RATE, samples))
        for place in np.flatnonzero(~np.isnan(samples)).tolist():
            brought.setdefault(begin + place, []).append((begin, float(samples[place])))
    there = np.array([max(candidates)[1] for candidates in brought.values()])
    count = sum(int((~np.isnan(samples)).sum()) for *_, samples in pieces)
    values = {"n": "count", "mean": "mean", "low": "min", "high": "max", "rms": "rms"}
    edge = waveform(values=values)
    given_: list[Block] = []
    for piece in data.draw(st.permutations(pieces)):
        given_ += edge.step(vibration([piece]))
        state, edge = edge.snapshot(), waveform(values=values)
        edge.restore(state)
        assert edge.snapshot() == state
    given_ += edge.step(vibration([], START + SECOND))
    rows = rows_of(given_)
    if not len(there):
        assert not rows
        return
    (row,) = rows
    if row["complete"]:
        return  # given before the last chunk: what came after it was late
    assert row["n"] == count
    assert row["mean"] == pytest.approx(there.mean(), rel=1e-6)
    assert (row["low"], row["high"]) == (there.min(), there.max())
    assert row["rms"] == pytest.approx(there.std(), abs=1e-6)


def test_late_chunks_go_apart_with_how_late_they_are() -> None:
    edge = waveform(values={"n": "count"})
    held = cut("m", "x", np.ones(200), 50, RATE)
    assert len(rows_of(edge.step(vibration(held, START + SECOND // 10)))) == 1
    (late,) = edge.step(vibration(held[2:4], START + SECOND // 10))
    assert (late.stream, late.rows.column("late_by_ns").to_pylist()) == ("windows/late", [0, 0])
    edge.step(vibration([], START + SECOND))
    late, *_ = edge.step(vibration([("new", "x", START, np.ones(300, np.float32))], START + SECOND))
    assert late.rows.column("late_by_ns").to_pylist() == [SECOND]
    assert edge.late_rows == 3


def test_a_window_of_which_nothing_is_finite_is_none() -> None:
    edge = waveform(values={"n": "count", "rms": "rms"})
    signal = np.full(3 * SIZE, np.nan, np.float32)
    signal[:10] = 1
    edge.step(vibration([("m", "x", START, signal)]))
    (row,) = rows_of(edge.step(vibration([], START + SECOND)))
    assert (row["n"], row["rms"], row["complete"]) == (10, 0, False)


def test_a_watermark_alone_is_passed_on() -> None:
    edge = waveform(values={"n": "count"})
    (block,) = edge.step(vibration([], START + SECOND // 2))
    assert (len(block), block.watermark) == (0, START + 2 * SECOND // 5)
    assert edge.step(vibration([], START + SECOND // 2 + 1)) == []


def test_gaps_do_not_read_as_quiet() -> None:
    edge = waveform(values={"n": "count", "rms": "rms", "b": "band(5, 500)", "lines": "spectrum"})
    tone = np.sin(2 * np.pi * 50 * np.arange(SIZE) / RATE)
    held = cut("m", "x", tone, 50, RATE)
    del held[1]
    edge.step(vibration(held))
    (row,) = rows_of(edge.step(vibration([], START + SECOND)))
    assert (row["n"], row["complete"]) == (150, False)
    assert row["rms"] == pytest.approx(tone.std(), rel=0.1)
    assert row["b"] == pytest.approx(tone.var(), rel=0.2)


def test_no_key_other_names_large_lists_and_nulls() -> None:
    held = vibration(cut("m", "x", SIGNALS["m1", "x"], 100, RATE)).rows
    renamed = pa.record_batch(
        {
            "begun": held.column("at").cast(pa.timestamp("us", tz="UTC")),
            "wave": held.column("samples").cast(pa.large_list(pa.float64())),
        }
    )
    edge = waveform(by=[], time="begun", samples="wave")
    rows = rows_of(edge.step(Block("v", renamed, 0, Position("v", 0))))
    expected = [row for row in WHOLE if (row["machine"], row["sensor"]) == ("m1", "x")]
    assert [row["rms"] for row in rows] == [row["rms"] for row in expected]
    nothing = pa.record_batch(
        {"at": pa.array([START], TIME), "samples": pa.array([None], pa.list_(pa.float32()))}
    )
    assert waveform(by="sensor", values={"n": "count"}).keys == 0
    assert rows_of(waveform(by=[]).step(Block("v", nothing, START + SECOND, Position("v", 0)))) == []
    timeless = nothing.set_column(0, "at", pa.array([None], TIME))
    with pytest.raises(ContractBroken, match="B401"):
        waveform(by=[]).step(Block("v", timeless, 0, Position("v", 0)))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"values": {}}, "B220"),
        ({"values": {"a": "median"}}, "B220"),
        ({"values": {"a": "band(1)"}}, "B220"),
        ({"values": {"a": "band(300, 100)"}}, "B220"),
        ({"values": {"a": "band(100, 501)"}}, "B220"),
        ({"values": {"a": "band(1-2, 501)"}}, "B220"),
        ({"values": {"a": "psd(400)"}}, "B220"),
        ({"values": {"a": "rms(3)"}}, "B220"),
        ({"every": "1s"}, "B220"),
        ({"size": "1.5ms"}, "B220"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], code: str) -> None:
    with pytest.raises(BoucleError, match=code):
        waveform(**wrong)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(BoucleError, match="B221 windows: vibration has no column axis"):
        waveform(by=["axis"]).step(vibration(chunks()))


def test_what_is_remembered_can_be_looked_at() -> None:
    edge = waveform()
    assert isinstance(edge, Describes)
    assert edge.describe() == {"keys": 0, "open_windows": 0}
    edge.step(vibration(chunks()[:9]))
    told = {"keys": 3, "open_windows": 3, "oldest": START, "newest": START + SECOND // 5}
    assert edge.describe() == told
    row = {"machine": "m2", "sensor": "x", "at": START, "covered": 150, "of": SIZE}
    assert edge.describe({"machine": "m2"}) == {**told, "remembered": [row]}
    edge.step(vibration(chunks()[9:12]))
    assert edge.describe({"sensor": "x"}) == {"keys": 3, "open_windows": 0, "remembered": []}


def test_a_snapshot_of_another_version_is_refused() -> None:
    with pytest.raises(BoucleError, match="B602"):
        waveform().restore(b"\xff")
