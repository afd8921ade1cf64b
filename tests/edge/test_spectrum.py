"""Each formula against an independent computation."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from boucle.edge.spectrum import GRAVITY, Analyser, Analysis, line_ratio
from boucle.edge.zone import check_zones, zone
from boucle.errors import BoucleError

N = 10_000
T = np.arange(N) / N
BANDS = (10, 27, 80, 300, 600, 1000, 2000, 3600, 4500)


def analyser(**changed: Any) -> Analyser:
    settings: dict[str, Any] = {
        "band": (10, 4500), "bands": BANDS, "velocity_band": (10, 1000), "envelope_band": (2000, 4500)
    }  # fmt: skip
    return Analyser(N, 1.0, **{**settings, **changed})


def analyse(*signals: NDArray[Any], **changed: Any) -> Analysis:
    samples = np.stack(signals).astype(np.float32)
    means = samples.mean(axis=1, dtype=np.float64)
    return analyser(**changed).analyse(
        (samples - means[:, None]).astype(np.float32), np.full(len(samples), N)
    )


def noise(seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 0.3, N)


def filtered(signal: NDArray[Any], low: float = 10, high: float = 4500) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(signal - signal.mean())
    frequency = np.fft.rfftfreq(N, 1 / N)
    spectrum[(frequency < low) | (frequency >= high)] = 0
    return np.fft.irfft(spectrum, N)


def test_kurtosis_crest_and_rms_are_those_of_the_filtered_signal() -> None:
    spiky = noise(1)
    spiky[::700] += 4
    signals = [noise(), spiky, np.sin(2 * np.pi * 50 * T)]
    found = analyse(*signals)
    for index, signal in enumerate(signals):
        y = filtered(signal)
        assert found.kurtosis[index] == pytest.approx(scipy.stats.kurtosis(y, fisher=False), rel=1e-3)
        assert found.rms[index] == pytest.approx(np.sqrt(np.mean(y**2)), rel=1e-4)
        assert found.crest[index] == pytest.approx(np.abs(y).max() / np.sqrt(np.mean(y**2)), rel=1e-3)
    assert found.kurtosis[2] == pytest.approx(1.5, rel=1e-3), "a sine"


def test_the_noise_filter_keeps_the_band_and_nothing_else() -> None:
    hum, high = np.sin(2 * np.pi * 3 * T), np.sin(2 * np.pi * 4800 * T)
    tone = 0.5 * np.sin(2 * np.pi * 120 * T)
    assert analyse(tone + hum + high + 7).rms[0] == pytest.approx(0.5 / np.sqrt(2), rel=1e-4)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_parseval_the_bands_add_up_to_the_mean_square(seed: int) -> None:
    signal = noise(seed)
    found = analyse(signal)
    assert found.bands[0].sum() == pytest.approx(found.rms[0] ** 2, rel=1e-5)
    for index, (low, high) in enumerate(itertools.pairwise(BANDS)):
        assert found.bands[0, index] == pytest.approx(np.mean(filtered(signal, low, high) ** 2), rel=1e-3)


@pytest.mark.parametrize("frequency", [24.0, 24.5, 159.155, 700.3])
def test_a_sine_of_known_acceleration_has_the_velocity_of_the_textbook(frequency: float) -> None:
    # a = A sin(wt) → v = A/w, r.m.s. /√2; 1 g at 159.155 Hz (w = 1000 rad/s) is 9.80665 mm/s peak
    amplitude = 0.2
    expected = amplitude * GRAVITY / (2 * np.pi * frequency) * 1000 / np.sqrt(2)
    found = analyse(amplitude * np.sin(2 * np.pi * frequency * T + 0.7))
    assert found.velocity[0] == pytest.approx(expected, rel=2e-3)


def test_velocity_agrees_with_integration_in_time() -> None:
    signal = sum(a * np.sin(2 * np.pi * f * T + f) for a, f in ((0.1, 24), (0.05, 48), (0.3, 744)))
    velocity = np.cumsum(signal) / N * GRAVITY * 1000
    velocity -= velocity.mean()
    assert analyse(np.asarray(signal)).velocity[0] == pytest.approx(velocity.std(), rel=5e-3)


def test_the_envelope_is_that_of_the_hilbert_transform() -> None:
    carrier = np.sin(2 * np.pi * 3100 * T) * (1 + 0.5 * np.sin(2 * np.pi * 86 * T))
    squared = np.abs(scipy.signal.hilbert(filtered(carrier, 2000, 4500))) ** 2
    expected = 2 * np.abs(np.fft.rfft((squared - squared.mean()) * np.hanning(N))) / N * 2
    found = analyse(carrier).envelope[0]
    for line in (86, 172):
        assert found[line] == pytest.approx(expected[line], rel=1e-2)
    assert found[86] == pytest.approx(1.0, rel=1e-2), "2·m for a modulation m = 0.5"


def ringing(rate_hz: float, seed: int, strength: float) -> NDArray[np.float64]:
    """A resonance of 3.1 kHz struck `rate_hz` times a second, in noise."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(N)
    hits[(np.arange(0.003, 1, 1 / rate_hz) * N).astype(int)] = strength
    decay = np.exp(-T[:100] * 800) * np.sin(2 * np.pi * 3100 * T[:100])
    return np.convolve(hits, decay)[:N] + rng.normal(0, 0.05, N)


@settings(deadline=None)
@given(st.integers(0, 200), st.floats(-0.018, 0.018))
def test_a_defect_is_found_at_its_own_line_even_when_it_slips(seed: int, slip: float) -> None:
    outer, inner = 3.585 * 24, 5.415 * 24
    found = analyse(ringing(outer * (1 + slip), seed, 0.5), ringing(inner * (1 + slip), seed, 0.5)).envelope
    at_outer, at_inner = line_ratio(found, 1.0, outer), line_ratio(found, 1.0, inner)
    # 3·BPFO and 2·BPFI nearly meet (10.76 and 10.83 turns), so the other line is not silent
    assert at_outer[0] > max(8, 2 * at_inner[0])
    assert at_inner[1] > max(8, 2 * at_outer[1])


@settings(deadline=None)
@given(st.integers(0, 200))
def test_noise_has_no_line(seed: int) -> None:
    assert line_ratio(analyse(noise(seed)).envelope, 1.0, 86.04)[0] < 3


def test_no_signal_no_line() -> None:
    found = analyse(np.full(N, 0.25), noise())
    assert line_ratio(found.envelope, 1.0, 86.04)[0] == 0
    assert line_ratio(found.envelope, 1.0, 2.0)[0] == 0, "slower than the spectrum can tell"
    assert found.rms[0] == found.kurtosis[0] == found.crest[0] == found.velocity[0] == 0


def test_alone_or_together_the_same_bits() -> None:
    signals = [noise(seed) for seed in range(7)]
    together = analyse(*signals)
    for index, signal in enumerate(signals):
        alone = analyse(signal)
        for name in Analysis.__struct_fields__:
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[index]), name


def test_the_amplitude_spectrum_reads_in_the_signals_unit() -> None:
    found = analyse(0.7 * np.sin(2 * np.pi * 240 * T))
    assert analyser().amplitude(found.power[0])[240] == pytest.approx(0.7, rel=1e-4)


def test_zones() -> None:
    assert [zone(value) for value in (0, 1.4, 1.41, 2.8, 4.5, 4.6)] == list("AABBCD")
    with pytest.raises(BoucleError, match="B220"):
        check_zones([1, 3, 2])


@pytest.mark.parametrize(
    "wrong",
    [{"band": (10, 6000)}, {"bands": (10, 5, 80)}, {"velocity_band": (0, 1000)}, {"envelope_band": (5,)}],
)
def test_impossible_frequencies_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B220"):
        analyser(**wrong)
