"""Each sensor fault does what it says, and nothing else."""

from typing import Any

import numpy as np
import pytest

from boucle.testing.instrument import Instrument, Reading
from boucle.testing.scenario import Fault
from tests.testing.signals import band, press, rms, waves

CHUNK = 0.1


def fault(kind: Any, to: float | None, onset: float = 0, over: float = 0) -> Fault:
    return Fault(machine="press-1", kind=kind, sensor="vib_x", onset=onset, over=over, to=to)


def readings(signal: np.ndarray, *faults: Fault) -> list[Reading | None]:
    instrument = Instrument(list(faults), np.random.default_rng(1))
    chunks = signal.reshape(-1, 1000)
    return [instrument.measure(number * CHUNK, CHUNK, chunk) for number, chunk in enumerate(chunks)]


def measured(signal: np.ndarray, *faults: Fault) -> np.ndarray:
    return np.concatenate([reading.values for reading in readings(signal, *faults) if reading is not None])


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    wave: np.ndarray = waves(press(), 6)[0]
    return wave


def test_a_sound_sensor_changes_nothing(truth: np.ndarray) -> None:
    assert np.array_equal(measured(truth), truth)
    assert np.array_equal(measured(truth, fault("gain", 0.5, onset=100)), truth)


def test_gain_scales_every_band_alike(truth: np.ndarray) -> None:
    before = truth.copy()
    after = measured(truth, fault("gain", 0.55))
    assert np.array_equal(before, truth), "the true signal is not touched"
    for low, high in ((10, 50), (50, 400), (400, 700), (700, 1600), (1600, 5000)):
        assert band(after, low, high) / band(truth, low, high) == pytest.approx(0.55, rel=1e-4)


def test_gain_develops_in_a_straight_line(truth: np.ndarray) -> None:
    drifting = fault("gain", 0.5, onset=1, over=4)
    ratio = rms(measured(truth, drifting).reshape(-1, 1000)) / rms(truth.reshape(-1, 1000))
    assert ratio[:10] == pytest.approx(1)
    assert ratio[29] == pytest.approx(0.75, abs=0.02)
    assert ratio[50:] == pytest.approx(0.5)
    assert Instrument([drifting], np.random.default_rng(1)).gain(3) == pytest.approx(0.75)


def test_offset_moves_the_mean_only(truth: np.ndarray) -> None:
    after = measured(truth, fault("offset", 0.3))
    assert (after - truth).mean() == pytest.approx(0.3, rel=1e-3)
    assert (after - after.mean()).std() == pytest.approx(float(truth.std()), rel=1e-3)


def test_stuck_repeats_the_last_value(truth: np.ndarray) -> None:
    after = measured(truth, fault("stuck", None, onset=2))
    assert np.array_equal(after[:19_000], truth[:19_000])
    assert set(after[20_000:]) == {after[20_000]}


def test_noise_adds_its_power(truth: np.ndarray) -> None:
    added = measured(truth, fault("noise", 0.2)) - truth
    assert rms(added) == pytest.approx(0.2, rel=0.02)
    assert abs(np.corrcoef(added, truth)[0, 1]) < 0.02


def test_dropout_loses_its_share_in_gaps() -> None:
    silent = np.zeros(5_000_000, dtype=np.float32)
    there = np.array([reading is not None for reading in readings(silent, fault("dropout", 0.3))])
    assert 1 - there.mean() == pytest.approx(0.3, abs=0.04)
    gaps = np.count_nonzero(there[:-1] & ~there[1:])
    assert np.count_nonzero(~there) / gaps == pytest.approx(3, abs=0.5)


def test_a_loose_mount_loses_the_high_frequencies_and_rattles(truth: np.ndarray) -> None:
    after = measured(truth, fault("loose", 1.0))
    assert band(after, 1400, 1600) < 0.7 * band(truth, 1400, 1600)
    assert band(after, 15, 60) == pytest.approx(band(truth, 15, 60), rel=0.05)
    assert band(after, 700, 1000) > 1.3 * band(truth, 700, 1000)


def test_a_wrong_clock_shifts_time_not_values(truth: np.ndarray) -> None:
    found = [reading for reading in readings(truth, fault("clock", 5000, onset=2)) if reading]
    assert np.array_equal(np.concatenate([reading.values for reading in found]), truth)
    shifts = [reading.shift for reading in found]
    assert set(shifts[:20]) == {0}
    assert np.allclose(np.diff(shifts[20:]), 500_000)  # 5000 ppm of 0.1 s, in ns


def test_faults_come_together(truth: np.ndarray) -> None:
    after = measured(truth, fault("offset", 1.0), fault("gain", 0.5))
    assert np.allclose(after, truth * 0.5 + 1, atol=1e-5)


def test_slow_sensors_fail_too() -> None:
    warm = Fault(machine="press-1", kind="offset", sensor="bearing_temperature", onset=0, to=15)
    reading = Instrument([warm], np.random.default_rng(1)).measure(0, CHUNK, np.array([48.0]))
    assert reading is not None
    assert reading.values[0] == 63
    assert reading.values.dtype == np.float64
