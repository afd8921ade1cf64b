"""Latency, volume and cost of a step that scores: told once when they leave the usual, once when back."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.errors import BoucleError
from boucle.serve import Score
from boucle.serve.alerts import Alerts
from boucle.serve.declared import Cost, Declared, WatchSpec
from boucle.serve.ledger import BOUNDS, Ledger
from boucle.serve.monitor.service import Service, quantile_of
from boucle.serve.ready import Identity
from tests.serve.models import linear, registered

WHO = Identity("risk", 1, "0" * 64)


class Minutes:
    """A ledger that is filled window by window, and what was told of it."""

    def __init__(self, **declared: Any) -> None:
        self.told: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.ledger, self.now = Ledger(), 0
        alerts = Alerts("scored")
        alerts.tell = lambda kind, _severity, says, evidence: self.told.append((kind, says, evidence))
        self.service = Service(alerts, WatchSpec(**declared), Cost(per_cpu_hour=3.6))
        self.service.look(0, self.ledger)

    def pass_(self, blocks: int = 100, *, rows: int = 10, ms: float = 2.0, cpu_ms: float = 1.0) -> None:
        tally = self.ledger.tally(WHO, "champion")
        for _ in range(blocks):
            self.ledger.rows += rows
            self.ledger.add(tally, rows, int(ms * 1e6), int(cpu_ms * 1e6))
        self.now += 60 * SECOND
        self.service.look(self.now, self.ledger)

    def kinds(self) -> list[tuple[str, str]]:
        return [(kind, evidence["reason"]) for kind, _, evidence in self.told]


@pytest.mark.parametrize(
    ("reason", "odd"),
    [
        ("volume", {"blocks": 20}),
        ("volume", {"blocks": 0}),
        ("volume", {"blocks": 400}),
        ("latency", {"ms": 9.0}),
        ("cost", {"cpu_ms": 5.0}),
    ],
)
def test_what_leaves_the_usual_is_told_once_and_when_it_is_back(reason: str, odd: dict[str, Any]) -> None:
    plant = Minutes()
    for number in range(12):
        plant.pass_(95 + number)
    assert plant.told == []
    plant.pass_(**odd)
    plant.pass_(**odd)
    assert plant.kinds() == [("model_trouble", reason)]
    plant.pass_()
    assert plant.kinds()[1:] == [("model_well", reason)]
    says = plant.told[0][1]
    assert "usual" in says["en"]
    assert "habituel" in says["fr"]
    assert "{" not in says["en"] + says["fr"]


def test_a_declared_limit_holds_from_the_first_window() -> None:
    plant = Minutes(p95=0.003, rows=(500, 5000), cost=0.0005, usual=False)
    plant.pass_()
    assert plant.told == []
    plant.pass_(30, ms=4.0, cpu_ms=20.0)
    assert sorted(plant.kinds()) == [
        ("model_trouble", "cost"), ("model_trouble", "latency"), ("model_trouble", "volume"),
    ]  # fmt: skip
    (latency,) = [says for _, says, evidence in plant.told if evidence["reason"] == "latency"]
    assert "p95 latency is 4.85 ms, at most 3 ms is declared" in latency["en"]
    assert "p95 est de 4,85 ms, au plus 3 ms est déclaré" in latency["fr"]


def test_cheaper_and_faster_wake_nobody_and_few_blocks_say_nothing() -> None:
    plant = Minutes()
    for _ in range(8):
        plant.pass_()
    plant.pass_(ms=0.1, cpu_ms=0.1)
    assert plant.told == []
    plant.pass_(5, rows=200, ms=90.0)
    assert plant.told == []


@given(st.lists(st.floats(1e-6, 4.0), min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_class_of_the_exact_one(seconds: list[float], share: float) -> None:
    classes = np.searchsorted(BOUNDS, seconds)
    spread = np.bincount(classes, minlength=len(BOUNDS) + 1).tolist()
    exact = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    place = int(np.searchsorted(BOUNDS, exact))
    low = BOUNDS[place - 1] if place else 0.0
    assert low <= quantile_of(spread, share) <= BOUNDS[min(place, len(BOUNDS) - 1)]
    assert math.isnan(quantile_of([0] * len(spread), share))


@pytest.mark.parametrize(
    "watch",
    [
        {"every": "0s"}, {"rows": [5, 2]}, {"rows": 5}, {"of": 1}, {"history": 2}, {"cost": 0.1}, {"p95": "soon"}, "x",
    ],
)  # fmt: skip
def test_a_watch_that_cannot_be_meant_is_refused(watch: Any) -> None:
    with pytest.raises(BoucleError, match=r"B650|B203"):
        Declared.read("scored", "m", {"watch": watch})
    assert Declared.read("scored", "m", {"watch": True}).watch == WatchSpec()


# ── the shadow decides ────────────────────────────────────────────────────────────────────────


def score(folder: Path, **shadow: Any) -> tuple[Score, list[tuple[str, dict[str, str]]]]:
    told: list[tuple[str, dict[str, str]]] = []
    made = Score(
        "risk",
        model="models:risk@champion",
        folder=folder,
        shadow={"model": "models:risk@challenger", **shadow},
    )

    def tell(kind: str, severity: str, says: dict[str, str], evidence: dict[str, Any]) -> None:
        del severity
        told.append((evidence.get("reason", kind), says))

    made.attach(folder / "run", tell)
    made.live()
    return made, told


def feed(step: Score, rows: int, value: float = 1.0) -> list[float]:
    batch = pa.record_batch({"a": pa.array(np.full(rows, value))})
    given: list[float] = step.step(Block("f", batch, 0, Position("p", 0)))[0].rows["risk"].to_pylist()
    assert step.shadow is not None
    step.shadow.settle()
    return given


def until(step: Score, wanted: Any) -> None:
    end = time.monotonic() + 20
    while not wanted():
        assert time.monotonic() < end
        feed(step, 1)
        time.sleep(0.002)


@pytest.mark.parametrize("limit", [{"disagree": 0.05}, {"flip": 0.05, "flips": {"risk": 1.5}}])
def test_a_version_that_disagrees_too_often_is_told_and_not_let_in(
    tmp_path: Path, limit: dict[str, Any]
) -> None:
    registry = registered(tmp_path, linear(1.0), linear(2.0), linear(1.0, bias=1e-9))
    registry.promote("risk", 2, "challenger", by="tests")
    step, told = score(tmp_path, **limit)
    feed(step, 400, 0.0)  # both give 0
    assert told == []
    until(step, lambda: told)
    assert told[0][0] == "disagrees"
    assert "risk 2 disagrees with risk 1" in told[0][1]["en"]
    assert "5 % sont admis" in told[0][1]["fr"]
    registry.promote("risk", 2, by="tests")
    until(step, lambda: len(told) > 1 and told[1][0] == "held")
    assert feed(step, 1) == [1.0], "the version before goes on"
    state = step.snapshot()
    step.close()
    # After a restart, too.
    step, told = score(tmp_path, **limit)
    step.restore(state)
    until(step, lambda: "held" in [one for one, _ in told])
    assert feed(step, 1) == [1.0]
    registry.promote("risk", 3, by="tests")
    until(step, lambda: step.playing["champion"].number == 3)
    step.close()


def test_a_version_that_agrees_within_the_limit_is_let_in(tmp_path: Path) -> None:
    registry = registered(tmp_path, linear(1.0), linear(1.0, bias=1e-9))
    registry.promote("risk", 2, "challenger", by="tests")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "objections.json").write_bytes(b'{"risk 1": ["half a fi')
    step, told = score(tmp_path, disagree=0.01)
    feed(step, 3000)
    registry.promote("risk", 2, by="tests")
    until(step, lambda: step.playing["champion"].number == 2)
    assert [kind for kind, _ in told] == ["model_changed"]
    step.close()


@pytest.mark.parametrize("shadow", [{"disagree": 1.0}, {"flip": 0.1}, {"disagree": 0.1, "alpha": 0.0}])
def test_limits_that_cannot_be_meant_are_refused(shadow: dict[str, Any]) -> None:
    with pytest.raises(BoucleError, match="B650"):
        Declared.read("scored", "m", {"shadow": {"model": "models:m@challenger", **shadow}})
