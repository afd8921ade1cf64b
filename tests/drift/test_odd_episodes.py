"""The benches of strange faults and of fleets: what they do to rows, and how they are counted."""

import pytest
from bench.attribution import fleet
from bench.attribution.episodes import FINAL, TUNING
from bench.attribution.score import Outcome, Said
from bench.attribution.strange import STRANGE, strange, table

from boucle.testing.scenario import check_scenario
from tests.drift.seconds import seconds
from tests.drift.test_episodes import outcome, said


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_fault_changes_rows_and_keeps_their_columns(kind: str) -> None:
    (row,) = seconds(1)
    changed = dict(row)
    STRANGE[kind][1](changed, 1.0, "y", 1.0)
    assert list(changed) == list(row)
    assert changed != row
    untouched = "x" if kind == "swapped" else "motor_current" if kind != "leak" else "oil_temperature"
    assert all(changed[name] == row[name] for name in row if name.startswith(f"{untouched}_mean"))


def test_strange_faults_are_drawn_the_same_from_seeds_of_their_own() -> None:
    final, tuning = list(strange(FINAL)), list(strange(TUNING))
    assert final == list(strange(FINAL))
    assert len(final) == 40 * len(STRANGE)
    assert not {one.episode.seed for one in final} & {one.episode.seed for one in tuning}


def of(kind: str, *told: Said) -> Outcome:
    return outcome((), *told, group=f"strange/{kind}")


def test_what_is_wrong_at_any_moment_is_wrong() -> None:
    unknown = said("unknown", "", "vib_x")
    shown = table([
        of("hum", unknown), of("hum", unknown, said("sensor", "noise", "vib_x")),
        of("hum", unknown, said("machine", "imbalance", "press")), of("hum"),
    ])  # fmt: skip
    assert "| hum | sensor | 1 | 1 | 1 | 1 |" in shown


def test_fleets_are_two_sound_presses_but_for_the_hall() -> None:
    halls = list(fleet.fleets(FINAL, 3))
    assert {one.kind for one in halls} == set(fleet.KINDS)
    assert not any(check_scenario(one.episode.scenario) for one in halls)
    assert all(bool(one.episode.scenario.operation) == (one.kind == "hall") for one in halls)
    shown = fleet.table({"alone": [(False, True), (True, True)]})
    assert "| one thermometer, no other on the press | 2 | 1 | 2 |" in shown
