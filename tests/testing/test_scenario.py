"""A scenario is read whole, or every mistake is told with its line."""

from pathlib import Path

import pytest

from boucle.errors import DeclarationError, Problem
from boucle.testing import Disturbance, Fault, Operation, PressLine, Scenario, load_scenario

PRESS = Path("examples/press/scenario.yaml")


def problems(tmp_path: Path, text: str) -> list[Problem]:
    file = tmp_path / "scenario.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DeclarationError) as caught:
        load_scenario(file)
    return list(caught.value.problems)


def test_the_default_story() -> None:
    story = load_scenario(PRESS)
    assert (story.duration, story.chunk, story.machines) == (120, 0.1, ("press-1", "press-2", "press-3"))
    wear, drift = story.faults
    assert (wear.machine, wear.kind, wear.family, wear.onset) == ("press-2", "outer_race", "machine", 15)
    assert (drift.machine, drift.kind, drift.family, drift.sensors) == (
        "press-3",
        "gain",
        "sensor",
        ("vib_x",),
    )
    assert (drift.onset, drift.over, drift.to) == (40, 10, 0.55)
    assert {d.kind for d in story.disturbances} >= {"malformed", "nan", "duplicate", "future", "late"}
    assert set(story.title) == {"en", "fr"}


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "machines: [north, south]\nduration: 2min\nspeed: 30\n"
        "operation: [{machine: north, at: 30s, speed: 25, load: 0.8}]\n"
        "faults: [{machine: south, kind: noise, sensor: all, onset: 0s, over: 1min, to: 0.2}]\n"
        "disturbances: [{kind: nan, machine: north, times: [1s, 2500ms]}, {kind: inf, rate: 0.1}]\n",
        encoding="utf-8",
    )
    story = load_scenario(file)
    assert story.machines == ("north", "south")
    assert story.operation == (Operation(machine="north", at=30, speed=25, load=0.8),)
    assert story.faults[0].sensors == ("vib_x", "vib_y", "vib_z")
    assert story.disturbances[0].times == (1.0, 2.5)
    assert story.disturbances[1] == Disturbance(kind="inf", rate=0.1)


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "duratoin: 10s\n"  # 1
        "aging: fast\n"  # 2
        "machines: 2\n"  # 3
        "faults:\n"  # 4
        "  - {machine: press-9, kind: outer_race, onset: 1s}\n"  # 5
        "  - {machine: press-1, kind: rust, onset: 1s}\n"  # 6
        "  - {machine: press-1, kind: gain, sensor: vib_q, onset: 1s, to: 0.5}\n"  # 7
        "  - {machine: press-1, kind: offset, sensor: vib_x, onset: 5 parsecs}\n"  # 8
        "  - {kind: stuck, sensor: vib_x, onset: 1s}\n"  # 9
        "disturbances:\n"  # 10
        "  - {kind: nan, count: 3, rate: 1}\n",  # 11
    )
    assert [problem.line for problem in found] == [1, 2, 6, 8, 9]
    assert all(problem.file == "scenario.yaml" for problem in found)
    assert 'did you mean "duration"' in found[0].fix
    assert "duration" in found[3].why
    # What the sound parts say is checked once every value can be read.
    found = problems(
        tmp_path,
        "machines: 2\nduration: 0s\nfaults:\n"
        "  - {machine: press-9, kind: outer_race, onset: 1s, severity: 2}\n"  # 4
        "  - {machine: press-1, kind: gain, sensor: vib_q, onset: 1s, to: 0.5}\n"  # 5
        "  - {machine: press-1, kind: loose, sensor: oil_temperature, onset: 1s}\n"  # 6
        "operation:\n  - {machine: press-1, at: 1s}\n"  # 8
        "disturbances:\n  - {kind: nan, count: 3, rate: 1}\n",  # 10
    )
    assert [problem.line for problem in found] == [2, 4, 4, 5, 6, 6, 8, 10]
    assert all(problem.fix for problem in found if problem.line != 2)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "B231"),
        ("- 1\n", "B231"),
        ("a: 1\n---\nb: 2\n", "B231"),
        ("a: [1\n", "B202"),
        ("speed: 1\nspeed: 2", "B202"),
    ],
)
def test_a_file_that_is_no_scenario(tmp_path: Path, text: str, code: str) -> None:
    assert problems(tmp_path, text)[0].code == code


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="no file"):
        load_scenario(tmp_path / "nowhere.yaml")


def test_a_scenario_built_in_python_is_checked_too() -> None:
    fault = Fault(machine="press-7", kind="imbalance", onset=0)
    with pytest.raises(DeclarationError, match="no machine"):
        PressLine(Scenario(faults=(fault,)))
