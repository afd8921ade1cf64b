"""Rows of sound presses drawn without waveforms: the same as by way of one, and what a plant does to them."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bench.attribution import quiet
from bench.attribution.episodes import Episode
from bench.attribution.motion import TICKS, Build, Moved, build, moved
from bench.attribution.plant import RATES, Day, Lost, day
from bench.attribution.rows import START, from_waveforms
from bench.attribution.same import COLUMNS, apart, compared, table
from bench.attribution.sound import rows_of_day, sound_rows
from bench.attribution.spectrum import BANDS, tones, waveform
from msgspec.structs import replace

from boucle.clock import SECOND
from boucle.drift.evidence import weigh
from boucle.drift.heat import on_curves
from boucle.drift.reading import Reading, learn
from boucle.testing.scenario import Scenario
from tests.drift.seconds import SLOW, Row, seconds, told

PRESS = Scenario(machines=("press",), speed=33.0, load=1.05, duration=150)
FLOOR = np.diff(BANDS) * 2 * 0.018**2 / 10_000
"""g² that the noise adds to each band: what is far below it is not seen."""


def ran(*speeds: float, seconds: int = 40) -> tuple[Build, Moved]:
    """A press, its set-point going through `speeds`."""
    press = build(PRESS, 3)
    asked = np.repeat(speeds, seconds * TICKS)
    still = np.zeros(len(asked))
    return press, moved(press, asked, still + 1.05, still, np.ones(len(asked), bool), 5)


def test_tones_have_the_energy_of_the_waveform() -> None:
    press, seconds = ran(33.0, 40.0, 26.5, 0.0, 33.0)
    energy, mean = tones(press, seconds)
    assert (seconds.struck >= 0).sum() > 70
    for second in (*range(12), *range(30, 40), 75, 79, 110, 150, 190):
        wave = waveform(press, seconds, second, None).astype(np.float64)
        power = 2 * np.abs(np.fft.rfft(wave - wave.mean(axis=1, keepdims=True), axis=1)) ** 2 / 10_000**2
        real = np.stack([power[:, low:high].sum(axis=1) for low, high in pairwise(BANDS)], 1)
        off = np.abs(energy[second] - real) / (real + FLOOR)
        assert off[:, :4].max() < 0.002, second
        # Where nothing is but what the gear mesh leaks from another band.
        assert off[:, 4:].max() < 0.06, second
        assert np.abs(mean[second] - wave.mean(axis=1)).max() < 2e-6


def test_drawn_rows_are_distributed_as_rows_from_waveforms() -> None:
    real = from_waveforms(Episode("sound", "healthy", 3, PRESS))
    drawn = pa.Table.from_batches([sound_rows(PRESS, 3, 900)])
    found = compared(real, drawn)
    assert [one.column for one in found] == list(COLUMNS)
    # 120 seconds of waveform: their mean is known to a tenth of a standard deviation, a temperature's to a third.
    for one in found:
        wanders = one.column in ("speed", "bearing_temperature", "oil_temperature", "motor_current")
        assert abs(one.mean) < (1.2 if wanders else 0.4), one
        assert abs(one.spread) < (0.6 if wanders else 0.3), one
        assert abs(one.lag) < 0.3, one
        assert one.beside < 0.45, one
        assert wanders or one.p > 1e-3, one
    heavier = pa.Table.from_batches([sound_rows(Scenario(machines=("press",), speed=33.0, load=1.2), 3, 900)])
    assert min(one.p for one in compared(real, heavier) if "_band_" in one.column) < 1e-6, "more load is seen"
    told = table(apart([found, found]))
    assert told.count("\n") == len(COLUMNS) + 2
    assert "| largest |" in told


def plain(seconds: int) -> Day:
    """Two presses that only run."""
    ticks = seconds * TICKS
    return Day(
        seconds=seconds,
        setpoint=[np.full(ticks, 33.0), np.full(ticks, 40.0)],
        load=[np.ones(ticks)] * 2,
        warmer=np.zeros(ticks),
        heard=np.ones(ticks, bool),
        away=np.zeros(seconds, bool),
        lost=[[], []],
        restarts=(),
    )


def test_rows_come_as_the_edge_gives_them_and_losses_show() -> None:
    heard, away = np.ones(250 * TICKS, bool), np.zeros(250, bool)
    heard[20 * TICKS : 60 * TICKS] = False
    away[100:103] = True
    plan = replace(plain(250), heard=heard, away=away, lost=[[Lost(130, (4, 5))], []])
    rows = pa.Table.from_batches(rows_of_day(plan, 7))
    at = pc.divide(pc.subtract(rows.column("at").cast(pa.int64()), START), SECOND).to_numpy()
    machine = np.array(rows.column("machine").to_pylist())
    assert at.tolist() == sorted(at.tolist())
    assert set(range(250)) - set(at.tolist()) == {100, 101, 102}
    one = rows.filter(pa.array(machine == "press-1"))
    seconds = at[machine == "press-1"].tolist()
    gap = one.slice(seconds.index(130), 1).to_pylist()[0]
    assert gap["x_count"] == gap["z_count"] == 8000
    assert 0.5 < gap["x_band_6"] / one.slice(seconds.index(131), 1).to_pylist()[0]["x_band_6"] < 2
    silent = one.slice(seconds.index(30), 1).to_pylist()[0]
    assert silent["oil_temperature_count"] == 0
    assert silent["oil_temperature"] is not None, "the last value is in force"
    assert one.slice(seconds.index(55), 1).to_pylist()[0]["oil_temperature"] is None, "for half a minute"
    assert set(rows.column("x_count").to_pylist()) == {8000, 10_000}


def test_a_day_is_the_same_every_time_and_has_what_it_says() -> None:
    one, other = day(5), day(5)
    assert np.array_equal(one.setpoint[1], other.setpoint[1])
    assert np.array_equal(one.warmer, other.warmer)
    assert not np.array_equal(one.setpoint[0], day(6).setpoint[0])
    assert all(0.6 < (setpoint > 0).mean() < 0.98 for setpoint in one.setpoint)
    assert all(setpoint.max() <= 41 for setpoint in one.setpoint)
    assert 2 < np.ptp(one.warmer) < 12
    assert any(one.lost)
    assert set(RATES) > {"hall", "short stops", "coils"}


def test_sound_presses_are_judged_by_the_step_itself_over_a_restart() -> None:
    plan = replace(plain(360), restarts=(200,))
    found = quiet.judged_day(plan, 7)
    assert found.rows == found.running == 720
    assert sum(found.families.values()) == 720
    assert found.families["none"] > 650
    assert found.alarms == ()


def test_an_accusation_is_an_alarm_once() -> None:
    plan = plain(240)
    batches = []
    for batch in rows_of_day(plan, 7):
        at = batch.column("at").cast(pa.int64()).to_numpy()
        factor = np.where(
            (at >= START + 120 * SECOND) & (np.array(batch.column("machine").to_pylist()) == "press-1"),
            0.25,
            1,
        )
        columns = {
            name: pa.array(column.to_numpy(zero_copy_only=False) * factor)
            if name.startswith("x_band_")
            else column
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        batches.append(pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema))
    found = quiet.judged_rows(iter(batches), plan, 7)
    (alarm,) = found.alarms
    assert (alarm.machine, alarm.about) == ("press-1", "sensor gain vib_x")
    assert 120 < alarm.begun < 150
    assert alarm.ended == 239
    assert alarm.confidence > 0.8
    said = quiet.by_cause([found])
    assert "| sensor gain vib_x | 1 |" in said
    assert "| in all | 1 |" in said


def test_the_bound_is_garwoods() -> None:
    assert round(quiet.at_most(0, 3), 3) == 0.999
    assert round(quiet.at_most(1, 1), 2) == 4.74


def test_a_silent_plc_leaves_nothing_to_be_held_against() -> None:
    def silent(row: Row, since: int) -> None:
        if since < 12:
            for name in SLOW:
                row[f"{name}_count"], row[f"{name}_noise"] = 0.0, None
            row["hydraulic_pressure"] = 171.0  # the last one heard, read in the stroke

    assert told(seconds(60, silent)) == [("none", "", "machine")]


def test_a_temperature_that_is_where_it_always_was_has_not_drifted_on_the_way_there() -> None:
    readings = [Reading.of(row["at"], row, ("x", "y", "z")) for row in seconds(24)]
    evidence = weigh(readings[12:], learn(readings[:12]))
    held = on_curves(evidence, {"bearing_temperature": (-1.4, 0.1), "oil_temperature": (-1.4, 0.1)})
    assert held.slow == evidence.slow
    away = [replace(one, slow=(one.slow[0] + 3, *one.slow[1:])) for one in readings[12:]]
    held = on_curves(weigh(away, learn(readings[:12])), {"bearing_temperature": (2.5, 0.1)})
    assert held.slow["bearing_temperature"] == 2.5


def test_a_tone_that_hops_over_a_bands_edge_has_not_moved() -> None:
    def hop(row: Row, since: int) -> None:
        del since
        for axis in "xyz":
            gone = 0.8 * row[f"{axis}_band_4"]
            row[f"{axis}_band_4"] -= gone
            row[f"{axis}_band_5"] += gone

    def fall(row: Row, since: int) -> None:
        hop(row, since)
        row["y_band_5"] *= 0.5

    assert told(seconds(60, hop)) == [("none", "", "machine")]
    assert told(seconds(60, fall))[-1] != ("none", "", "machine"), "one axis alone does not hop"
