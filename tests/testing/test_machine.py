"""The physics: frequencies where bearing theory puts them, levels where the standard wants them."""

import math

import numpy as np
import pytest

from boucle.testing.machine import BPFI, BPFO, GEAR_TEETH
from boucle.testing.wear import RATING_LIFE, grow, hours_left
from tests.testing.signals import band, envelope, power, press, rms, velocity, waves, worn

SHAFT = 24.0  # Hz at 40 strokes/min


def line_over_floor(signal: np.ndarray, hz: float) -> float:
    """The strongest envelope line within 2 % of `hz`, over the median nearby."""
    frequency, spectrum = envelope(signal)
    near = np.abs(frequency - hz) < 0.02 * hz
    around = (np.abs(frequency - hz) < 0.15 * hz) & ~near
    return float(spectrum[near].max() / np.median(spectrum[around]))


@pytest.mark.parametrize(("kind", "order"), [("outer_race", BPFO), ("inner_race", BPFI)])
def test_a_worn_race_rings_at_its_ball_pass_frequency(kind: str, order: float) -> None:
    other = BPFO + BPFI - order
    signal = waves(press(worn(kind, 0.25)))[0]
    assert line_over_floor(signal, order * SHAFT) > 15
    assert line_over_floor(signal, order * SHAFT) > 3 * line_over_floor(signal, other * SHAFT)
    assert line_over_floor(waves(press())[0], order * SHAFT) < 10


def test_an_inner_race_is_modulated_at_shaft_frequency() -> None:
    inner, outer = (waves(press(worn(kind, 0.5)))[0] for kind in ("inner_race", "outer_race"))
    assert line_over_floor(inner, SHAFT) > 10 > line_over_floor(outer, SHAFT)
    assert line_over_floor(inner, (BPFI - 1) * SHAFT) > 10


@pytest.mark.parametrize("seed", range(4))
def test_healthy_presses_stay_in_zones_a_and_b(seed: int) -> None:
    assert velocity(waves(press(seed=seed))).max() < 2.8
    assert velocity(waves(press(seed=seed))).max() > 0.5


def test_failed_presses_end_in_zones_c_and_d() -> None:
    assert velocity(waves(press(worn("outer_race", 0.65)))).max() > 2.8
    assert velocity(waves(press(worn("outer_race", 1)))).max() > 4.5
    assert velocity(waves(press(worn("imbalance", 0.6)))).max() > 4.5


def test_imbalance_raises_the_first_harmonic_only() -> None:
    healthy, unbalanced = waves(press()), waves(press(worn("imbalance", 0.5)))
    for harmonic, low, high in ((1, 4.0, 5.0), (2, 0.95, 1.05), (3, 0.95, 1.05), (GEAR_TEETH, 0.95, 1.05)):
        around = (harmonic * SHAFT - 3, harmonic * SHAFT + 3)
        ratio = band(unbalanced, *around) / band(healthy, *around)
        assert np.all((low < ratio) & (ratio < high)), harmonic


def test_a_slower_press_vibrates_less() -> None:
    for faults in ([], [worn("outer_race", 0.5)], [worn("lubrication", 0.5)], [worn("imbalance", 0.5)]):
        fast, slow = waves(press(*faults)), waves(press(*faults, speed=30))
        assert np.all(rms(slow) < 0.9 * rms(fast))
        assert np.all(velocity(slow) < 0.95 * velocity(fast))


def test_the_spectrum_follows_the_speed() -> None:
    frequency, bins = power(waves(press(worn("imbalance", 0.8), speed=30))[0])
    assert frequency[bins.argmax()] == pytest.approx(18, abs=0.3)


def test_lubrication_loss_is_broadband_hot_and_costs_current() -> None:
    healthy, dry = press(), press(worn("lubrication", 0.6))
    assert np.all(band(waves(dry), 2000, 4500) > 5 * band(waves(healthy), 2000, 4500))
    assert np.all(band(waves(dry), 10, 300) < 1.1 * band(waves(healthy), 10, 300))
    for _ in range(500):  # 50 s more, for the heat
        (_, cool), (_, hot) = healthy.step(1000), dry.step(1000)
    assert hot["bearing_temperature"] > cool["bearing_temperature"] + 12
    assert hot["oil_temperature"] > cool["oil_temperature"] + 2
    assert hot["motor_current"] > cool["motor_current"] + 5


def test_temperature_follows_speed_within_tens_of_seconds() -> None:
    machine = press()
    before = machine.step(1000)[1]["bearing_temperature"]
    machine.setpoint = 24
    after = [machine.step(1000)[1]["bearing_temperature"] for _ in range(400)]
    assert after[10] > before - 1
    assert after[-1] < before - 7


def test_a_slower_or_less_loaded_press_wears_more_slowly() -> None:
    def after(speed: float, load: float) -> float:
        machine = press(worn("outer_race", 0.1, growth=1), speed=speed, load=load)
        for _ in range(200):
            machine.step(1000)
        return machine.damage

    assert after(40, 1) > after(30, 1) > 0.1
    assert after(40, 1) > after(40, 0.7) > 0.1


def test_remaining_life_is_the_law_itself() -> None:
    machine = press(worn("outer_race", 0.1, growth=1))
    promised, seconds = machine.rul_h, 0.0
    while machine.damage < 1:
        machine.step(10_000)
        seconds += 1
    assert seconds * 2 == pytest.approx(promised, rel=0.03)  # 2 operating hours a second
    assert press().rul_h == pytest.approx(RATING_LIFE)
    assert press(worn("outer_race", 0.3)).rul_h < press(worn("outer_race", 0.3), speed=30).rul_h
    assert hours_left({"outer_race": (0.5, 1)}, 0) == math.inf


def test_growth_does_not_depend_on_the_step() -> None:
    once = grow(0.1, "outer_race", 1, 100, 0.8)
    severity = 0.1
    for _ in range(100):
        severity = grow(severity, "outer_race", 1, 1, 0.8)
    assert severity == pytest.approx(once)


def test_strokes_are_counted_and_felt_once_a_turn() -> None:
    machine = press()
    before = machine.strokes
    signal = waves(machine, seconds=30)[2]
    assert machine.strokes - before == pytest.approx(20, abs=1)
    loud = np.abs(signal.reshape(-1, 500)).max(1) > 0.6  # 50 ms each
    assert np.count_nonzero(loud[1:] & ~loud[:-1]) == pytest.approx(20, abs=1)


def test_speed_follows_its_set_point_with_a_lag() -> None:
    machine = press()
    machine.setpoint = 30
    speeds = [machine.step(1000)[1]["speed_actual"] for _ in range(100)]
    assert speeds[14] == pytest.approx(30 + 10 / math.e, abs=0.6)
    assert speeds[-1] == pytest.approx(30, abs=0.5)


def test_chunks_join_without_a_step() -> None:
    signal = waves(press(worn("imbalance", 0.8)), 3)[0]
    steps = np.abs(np.diff(signal))
    assert steps[999::1000].max() <= np.quantile(steps, 0.9999)


def test_a_press_can_stand_still() -> None:
    machine = press(worn("outer_race", 0.5), speed=0)
    for _ in range(200):
        machine.step(1000)
    signal = waves(machine, 1)
    assert rms(signal).max() < 0.02
    assert np.isfinite(signal).all()
