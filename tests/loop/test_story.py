"""The default story on the manual clock, over many seeds: right press, right cause, no slow-down for a sensor."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from boucle.event import Command, Event, Outcome, Receipt
from boucle.loop.view import Accounting
from tests.loop.manual import ManualPlant

SEEDS = range(1, 13)
SECONDS = 75


class Story(NamedTuple):
    """What came of a story, small enough to send between processes."""

    told: list[Event | tuple[Command, Receipt]]
    verdicts: dict[str, list[dict[str, Any]]]
    truth: dict[str, dict[str, Any]]
    setpoints: dict[str, float]
    orders: set[str]
    accounting: Accounting
    injected: dict[str, int]

    def events(self, kind: str) -> list[Event]:
        return [one for one in self.told if isinstance(one, Event) and one.kind == kind]

    def receipts(self, prefix: str) -> list[tuple[Command, Receipt]]:
        return [one for one in self.told if isinstance(one, tuple) and one[0].target.startswith(prefix)]


def play(folder: Path, seed: int, stop_at: int | None = None) -> ManualPlant:
    """The story, played; with `stop_at` stopped and started again at that second."""
    plant = ManualPlant(folder, seed)
    plant.loop.open()
    plant.run(stop_at or SECONDS)
    plant.loop.close()
    if stop_at:
        plant.restart()
        plant.run(SECONDS - stop_at)
        plant.loop.close()
    return plant


def story(folder: Path, seed: int, stop_at: int | None = None) -> Story:
    plant = play(folder, seed, stop_at)
    injected: dict[str, int] = {}
    for injection in plant.line.injections:
        injected[injection.expected] = injected.get(injection.expected, 0) + injection.readings
    return Story(
        told=plant.told,
        verdicts={machine: plant.verdicts(machine) for machine in plant.line.machines},
        truth={fault["machine"]: fault for fault in plant.line.truth()},
        setpoints={
            machine: float(plant.plc.value(machine, "speed_setpoint")) for machine in plant.line.machines
        },
        orders={order["WorkType"] for order in plant.orders.all()},
        accounting=plant.loop.picture.accounting(),
        injected=injected,
    )


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Story]]]:
    """Every story, played on all processors at once; each is a minute of three presses."""
    folder = tmp_path_factory.mktemp("stories")
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        played = {str(seed): pool.submit(story, folder / str(seed), seed) for seed in SEEDS}
        played["7 again"] = pool.submit(story, folder / "again", 7)
        played["5 stopped"] = pool.submit(story, folder / "stopped", 5, 33)
        yield played


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_default_story(stories: dict[str, Future[Story]], seed: int) -> None:
    story = stories[str(seed)].result()

    (wear,) = story.events("machine_wear")
    assert wear.subject == "press-2"
    assert wear.evidence["cause"] == story.truth["press-2"]["cause"] == "outer_race"
    assert wear.at > story.truth["press-2"]["onset"], "nothing is said before it happens"

    (drift,) = story.events("sensor_drift")
    assert (drift.evidence["cause"], drift.evidence["subject"]) == ("gain", "press-3/vib_x")
    assert drift.at > story.truth["press-3"]["onset"]
    assert set(wear.says) == set(drift.says) == {"en", "fr"}

    slowed = story.receipts("plc/")
    assert slowed, "the worn press is slowed down"
    for command, receipt in slowed:
        assert command.target == "plc/press-2/speed_setpoint", "only the worn press is"
        assert receipt.outcome is Outcome.applied
        assert 24 <= command.value <= 40
        assert receipt.read_back == pytest.approx(command.value)
    assert story.setpoints["press-2"] == pytest.approx(slowed[-1][0].value)
    assert story.setpoints["press-1"] == story.setpoints["press-3"] == 40

    ordered = {
        (command.value["WorkType"], command.value["HierarchyScope"], receipt.outcome)
        for command, receipt in story.receipts("mes/")
    }
    assert ordered == {
        ("Maintenance", "press-2", Outcome.applied),
        ("Calibration", "press-3/vib_x", Outcome.applied),
    }
    assert story.orders == {"Maintenance", "Calibration"}

    counts = story.accounting
    assert counts.balanced()
    assert counts.pending == counts.shed == 0
    # Every injected mistake is found again where it belongs, and nothing else is.
    assert counts.duplicate == story.injected.get("duplicate", 0)
    assert counts.late == story.injected.get("late", 0)
    assert counts.quarantined == sum(counts.reasons.values()) == story.injected.get("quarantined", 0)


@pytest.mark.slow
def test_the_same_seed_tells_the_same_story(stories: dict[str, Future[Story]]) -> None:
    first, second = stories["7"].result(), stories["7 again"].result()
    assert first.told == second.told
    assert first.verdicts == second.verdicts


@pytest.mark.slow
def test_a_restart_goes_on_where_it_was(stories: dict[str, Future[Story]]) -> None:
    """Stopped and started again in mid-story: the same verdicts, and no command twice."""
    whole, cut = stories["5"].result(), stories["5 stopped"].result()
    assert cut.verdicts == whole.verdicts
    commands = [command.id for command, _ in cut.receipts("")]
    assert commands == [command.id for command, _ in whole.receipts("")]


def test_a_slower_press_vibrates_less(tmp_path: Path) -> None:
    plant = play(tmp_path, 3)
    acted = plant.receipts("plc/press-2")[0][1].at
    before, after = [], []
    for block in plant.loop.tables.read("features"):
        for row in block.rows.to_pylist():
            if row["machine"] == "press-2" and row["x_rms"] is not None:
                at = int(row["at"].timestamp() * 1e9)
                if acted - 4e9 < at < acted:
                    before.append(row["x_rms"])
                elif acted + 6e9 < at < acted + 10e9:
                    after.append(row["x_rms"])
    assert sum(after) / len(after) < 0.9 * sum(before) / len(before)
