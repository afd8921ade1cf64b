"""What a model costs as a step of the path, beside ONNX Runtime alone; how soon a promotion takes effect.

LightGBM, 200 trees of 31 leaves, 24 features, converted to ONNX. Blocks of 1, 64 and 1024 rows of 27 columns (a time,
a text, a whole number, 24 features) go through the step: columns read from Arrow, checked for missing numbers,
scored, counted with time and processor time, the probability appended. Bare is the same model in ONNX Runtime with
the same session options on a float32 matrix that is there already; Blocks of both take turns, and the figures are
medians. `marked_64_us`: with columns for model, version and fallback; `guarded_64_us`: also a canary of 10 % and a
deadline (scores come from another thread); `shadowed_64_us`: a second version in the shadow, on the same two cores.

`promotion_ms`, `rollback_ms`: from the call of promote (or rollback) of the registry to the first row scored by the
other version, under a load of Blocks of 64 rows one after the other; the version that comes is loaded, verified and
warmed first. The registry is new for each promotion, so that nothing is in memory but the champion. Every row is
counted: none lost, none unscored, or the benchmark fails.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.figures import Figure, figure, options, percentile, publish
from boucle.block import Block, Position
from boucle.models.algorithms import to_onnx
from boucle.models.file import Column, ModelFile
from boucle.models.registry import registry_of
from boucle.serve import Score

TREES, WIDTH = 200, 24
NAMES = [f"f{number}" for number in range(WIDTH)]


def trained(seed: int) -> ModelFile:
    """A LightGBM classifier as a model file; another seed gives another version."""
    import lightgbm

    random = np.random.default_rng(seed)
    given = random.normal(size=(20_000, WIDTH))
    label = (given[:, 0] + given[:, 1] * given[:, 2] + random.normal(size=len(given)) > 0).astype(int)
    how = {
        "objective": "binary", "num_leaves": 31, "verbosity": -1, "num_threads": 1, "deterministic": True,
        "force_row_wise": True, "seed": seed,
    }  # fmt: skip
    booster = lightgbm.train(how, lightgbm.Dataset(given, label), TREES)
    return ModelFile.build(
        to_onnx(booster, "lightgbm", "classification", WIDTH, "fraud"),
        name="fraud",
        inputs=tuple(Column(name) for name in NAMES),
        outputs=(Column("fraud"),),
        created="2026-11-22T00:00:00Z",
        trained_on={"seed": seed},
        metrics={},
    )


def block(rows: int) -> Block:
    """A Block as it comes to the step."""
    random = np.random.default_rng(rows)
    columns: dict[str, Any] = {
        "at": pa.array(np.arange(rows), pa.timestamp("ns", "UTC")),
        "card": pa.array([f"card-{number % 50}" for number in range(rows)]),
        "amount": pa.array(random.integers(0, 100, rows)),
    }
    columns |= {name: random.normal(size=rows) for name in NAMES}
    return Block("features", pa.record_batch(columns), 0, Position("p", 0))


class Bare:
    """ONNX Runtime alone, with the session options of the product."""

    def __init__(self, model: ModelFile) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.content, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]

    def of(self, given: Block) -> Callable[[], Any]:
        """Scores the Block's numbers, which are a matrix already."""
        columns = [given.rows.column(name).to_numpy() for name in NAMES]
        matrix = np.ascontiguousarray(np.stack(columns, axis=1), np.float32)
        return lambda: self._session.run(self._outputs, {self._input: matrix})


def in_turns(calls: list[Callable[[], Any]], seconds: float) -> list[float]:
    """The median time of each call, in µs; they take turns, so that a busy moment is everybody's."""
    took: list[list[int]] = [[] for _ in calls]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for place, call in enumerate(calls):
            started = time.perf_counter_ns()
            call()
            took[place].append(time.perf_counter_ns() - started)
    return [percentile([one / 1e3 for one in each], 0.5) for each in took]


def scored(folder: Path, **declared: Any) -> Score:
    """The step, following its registry."""
    score = Score("scored", model="models:fraud@champion", folder=folder, **declared)
    score.attach(folder / f"run-{time.monotonic_ns()}", lambda *_: None)
    score.live()
    return score


def measure_steps(folder: Path, models: list[ModelFile], seconds: float) -> dict[str, float]:
    """Medians in µs, by name."""
    registry = registry_of(folder)
    for model in models:
        registry.add(model, by="bench")
    registry.promote("fraud", 1, by="bench")
    registry.promote("fraud", 2, "challenger", by="bench")
    marks = {"model": "model", "version": "version", "fallback": "why"}
    canary = {"model": "models:fraud@challenger", "percent": 10, "key": "card"}
    plain, bare = scored(folder), Bare(models[0])
    told: dict[str, float] = {}
    for rows in (1, 64, 1024):
        given = block(rows)
        expected = bare.of(given)()[0][:, 0].astype(np.float64)
        assert (plain.step(given)[0].rows["fraud"].to_numpy() == expected).all()
        one, other = in_turns([partial(plain.step, given), bare.of(given)], seconds)
        told[f"step_{rows}"], told[f"bare_{rows}"] = one, other
    given = block(64)
    marked = scored(folder, marks=marks)
    guarded = scored(folder, marks=marks, canary=canary, deadline="1s", fallback="previous")
    told["marked_64"], told["guarded_64"] = in_turns(
        [lambda: marked.step(given), lambda: guarded.step(given)], seconds
    )
    shadowed = scored(folder, shadow="models:fraud@challenger")
    (told["shadowed_64"],) = in_turns([lambda: shadowed.step(given)], seconds)
    assert shadowed.shadow is not None
    told["shadow_share"] = 100 * shadowed.shadow.tally.rows / shadowed.ledger.rows
    for score in (plain, marked, guarded, shadowed):
        assert score.ledger.balanced(), score.ledger
        score.close()
    return told


def measure_changes(folder: Path, models: list[ModelFile], rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of promotions and of rollbacks, under load."""
    promotions: list[float] = []
    rollbacks: list[float] = []
    for number in range(rounds):
        place = folder / str(number)
        place.mkdir()
        registry = registry_of(place)
        for model in models:
            registry.add(model, by="bench")
        registry.promote("fraud", 1, by="bench")
        score = scored(place, marks={"version": "version"})
        given, ending = block(64), threading.Event()
        first: dict[str, int] = {}
        rows = 0

        def load(score: Score, given: Block, ending: threading.Event, first: dict[str, int]) -> None:
            before = ""
            nonlocal rows
            while not ending.is_set():
                out = score.step(given)[0].rows
                rows += out.num_rows
                version = out["version"][0].as_py()
                if version != before:
                    first[version] = time.perf_counter_ns()
                    before = version

        path = threading.Thread(target=load, args=(score, given, ending, first))
        path.start()
        time.sleep(0.2)
        changes: list[tuple[list[float], str, Callable[[], Any]]] = [
            (promotions, "2", partial(registry.promote, "fraud", 2, by="bench")),
            (rollbacks, "1", partial(registry.rollback, "fraud", by="bench")),
        ]
        for into, version, change in changes:
            first.pop(version, None)
            started = time.perf_counter_ns()
            change()
            while version not in first:
                time.sleep(0.001)
            into.append((first[version] - started) / 1e6)
            time.sleep(0.1)
        ending.set()
        path.join()
        assert rows == score.ledger.scored == score.ledger.rows, score.ledger
        score.close()
    return promotions, rollbacks


def main() -> None:
    """Measure and tell."""
    asked = options(__doc__)
    sys.setswitchinterval(0.0001)  # as a running loop does
    models = [trained(seed) for seed in (1, 2)]
    with tempfile.TemporaryDirectory(prefix="boucle-bench-") as name:
        folder = Path(name)
        (folder / "steps").mkdir()
        told = measure_steps(folder / "steps", models, 2 if asked.quick else 10)
        (folder / "changes").mkdir()
        promotions, rollbacks = measure_changes(folder / "changes", models, 5 if asked.quick else 30)
    figures: list[Figure] = [
        figure(f"score_{rows}_us", told[f"step_{rows}"], "µs", peer="ONNX Runtime alone",
               peer_value=told[f"bare_{rows}"])
        for rows in (1, 64, 1024)
    ]  # fmt: skip
    figures += [
        figure("score_64_over_bare", told["step_64"] / told["bare_64"], "×", goal="<= 1.3"),
        figure("marked_64_us", told["marked_64"], "µs"),
        figure("guarded_64_us", told["guarded_64"], "µs"),
        figure("shadowed_64_us", told["shadowed_64"], "µs"),
        figure("shadow_compared_percent", told["shadow_share"], "%"),
        figure("promotion_p50_ms", percentile(promotions, 0.5), "ms"),
        figure("promotion_max_ms", max(promotions), "ms", goal="<= 100"),
        figure("rollback_p50_ms", percentile(rollbacks, 0.5), "ms"),
        figure("rollback_max_ms", max(rollbacks), "ms", goal="<= 100"),
        figure("unscored_rows", 0, "rows", goal="<= 0"),
    ]
    publish(figures, asked)


if __name__ == "__main__":
    main()
