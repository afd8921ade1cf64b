"""Trains the press's model: damage and remaining life from one second of features.

    python examples/press/train.py                  # about five minutes
    python examples/press/train.py --episodes 60 --to /tmp/press_health

Simulated presses of many severities, speeds, loads and faults run through the same edge and features as
in production. A quarter of them also has a faulty *sensor*, so that health comes to mean the machine.
Whole presses are held out. Seeds start at 10 000: tests and demos use smaller ones.

What the model sees of each axis is relative to the axis's own gear mesh (a sensor that lost gain changes
nothing), and only the median of the three axes counts (one sensor that lies changes nothing). That
arithmetic is part of the ONNX file, and training uses its output: the numbers are the same bits in
training and serving.
"""

import argparse
import datetime as dt
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from operators import AXES, PressFeatures

from boucle.block import Block, Position
from boucle.edge import Reduce
from boucle.models import Column, ModelFile
from boucle.models.onnx import OnnxModel
from boucle.testing.line import PressLine
from boucle.testing.scenario import Fault, Operation, Scenario

HERE = Path(__file__).parent
FIRST_SEED = 10_000
RUL_CAP = 200.0
"""Hours; beyond it the remaining life of a sound machine is anybody's guess."""
SETTLE, SECONDS = 7, 13
"""Seconds until speed and edge have settled, and length of an episode."""

_BANDS = range(8)
_PER_AXIS = ("kurtosis", "crest", "bpfo", "bpfi", *(f"band_{band}" for band in _BANDS))
_MESH = ("band_4", "band_5")
COLUMNS = ("speed", *(f"{axis}_{name}" for axis in AXES for name in _PER_AXIS))
_OPSET = 18
_SENSOR_FAULTS: tuple[tuple[str, float | None, float | None], ...] = (
    ("gain", 0.4, 1.6),
    ("offset", -0.3, 0.3),
    ("noise", 0.02, 0.1),
    ("loose", 0.2, 0.9),
    ("stuck", None, None),
)


def scenario(seed: int) -> Scenario:
    """A press drawn at random: maybe a fault of the machine, maybe one of a sensor."""
    rng = np.random.default_rng(seed)
    faults = []
    kinds = ("outer_race", "inner_race", "imbalance", "lubrication")
    if rng.uniform() < 0.8:
        severity = float(rng.uniform(0.02, 1) ** 1.3)
        kind = str(rng.choice(kinds))
        faults.append(Fault(machine="press", kind=kind, onset=0, severity=severity, growth=0))  # type: ignore[arg-type]
    if rng.uniform() < 0.25:
        kind, low, high = _SENSOR_FAULTS[rng.integers(len(_SENSOR_FAULTS))]
        to = None if low is None or high is None else float(rng.uniform(low, high))
        sensor = (
            "all" if kind == "gain" and rng.uniform() < 0.5 else str(rng.choice(["vib_x", "vib_y", "vib_z"]))
        )
        faults.append(Fault(machine="press", kind=kind, sensor=sensor, onset=0, to=to))  # type: ignore[arg-type]
    speed = 40.0 if rng.uniform() < 0.3 else float(rng.uniform(22, 42))
    point = Operation(machine="press", at=0, speed=speed, load=float(rng.uniform(0.85, 1.15)))
    return Scenario(machines=("press",), faults=tuple(faults), operation=(point,), duration=SECONDS)


def episode(seed: int) -> tuple[pa.Table, NDArray[np.float64]]:
    """Feature rows of one press, and per row its true damage and remaining life (hours, capped)."""
    line = PressLine(scenario(seed), seed=seed)
    edge, features = Reduce("vibration_events"), PressFeatures("features")
    rows, truth = [], []
    for _ in range(round(SECONDS / line.scenario.chunk)):
        tick = line.step()
        process = Block("process", tick.process, 0, Position("process", 0))
        edge.step(process)
        features.step(process)
        for _, batch in tick.vibration:
            for events in edge.step(Block("vibration", batch, 0, Position("vibration", 0))):
                for block in features.step(events):
                    rows.append(block.rows)
                    state = line.state("press")
                    truth.append((state.damage, min(RUL_CAP, state.rul_h)))
    return pa.Table.from_batches(rows[SETTLE:]), np.array(truth[SETTLE:])


def collect(seeds: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Inputs, truths, and the seed each row is from."""
    inputs, truths, origin = [], [], []
    for number, seed in enumerate(seeds):
        table, truth = episode(seed)
        inputs.append(np.column_stack([table[name].to_numpy() for name in COLUMNS]).astype(np.float32))
        truths.append(truth)
        origin += [seed] * len(truth)
        if number % 50 == 49:
            sys.stderr.write(f"{number + 1} of {len(seeds)} presses\n")
    return np.concatenate(inputs), np.concatenate(truths), np.array(origin)


def preparation() -> onnx.ModelProto:
    """Columns → relative, logarithmic, median of the axes: the part of the model nobody trains."""
    nodes, constants = [], []

    def constant(name: str, value: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    tiny = constant("tiny", np.array(1e-12, np.float32))
    half = constant(
        "half", np.array([0.5 if name.startswith("band") else 1 for name in _PER_AXIS], np.float32)
    )
    # ln E_band - ln(E_mesh), halved: the logarithm of an amplitude ratio. Lines and shape have no gain.
    is_band = np.array([name.startswith("band") for name in _PER_AXIS], np.float32)
    banded = constant("banded", is_band)
    mesh_at = constant("mesh_at", np.array([_PER_AXIS.index(name) for name in _MESH], np.int64))
    last = constant("last", np.array([1], np.int64))
    width = len(_PER_AXIS)
    ready = []
    for index, axis in enumerate(AXES):
        columns = constant(
            f"{axis}_at", np.arange(1 + index * width, 1 + (index + 1) * width, dtype=np.int64)
        )
        taken = node("Gather", ["input", columns], f"{axis}_taken", axis=1)
        mesh = node("Gather", [taken, mesh_at], f"{axis}_mesh", axis=1)
        mesh = node("ReduceSum", [mesh, last], f"{axis}_mesh_energy", keepdims=1)
        mesh = node("Log", [node("Max", [mesh, tiny], f"{axis}_mesh_safe")], f"{axis}_mesh_log")
        level = node("Log", [node("Max", [taken, tiny], f"{axis}_safe")], f"{axis}_log")
        share = node("Mul", [mesh, banded], f"{axis}_share")
        relative = node("Sub", [level, share], f"{axis}_relative")
        ready.append(node("Mul", [relative, half], f"{axis}_ready"))
    total = node("Sum", ready, "total")
    outer = node("Add", [node("Max", ready, "highest"), node("Min", ready, "lowest")], "outer")
    median = node("Sub", [total, outer], "median")
    speed = node("Gather", ["input", constant("speed_at", np.array([0], np.int64))], "speed", axis=1)
    node("Concat", [speed, median], "prepared", axis=1)
    graph = helper.make_graph(
        nodes,
        "preparation",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, len(COLUMNS)])],
        [helper.make_tensor_value_info("prepared", TensorProto.FLOAT, [None, 1 + width])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)


def prepare(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The output of `preparation`, by ONNX Runtime itself."""
    file = ModelFile.build(
        preparation().SerializeToString(),
        name="preparation",
        inputs=tuple(Column(name) for name in COLUMNS),
        outputs=(),
        created="",
        trained_on={},
        metrics={},
    )
    return OnnxModel(file).run(inputs)


def fit(prepared: NDArray[np.float32], truth: NDArray[np.float64]) -> Any:
    """One boosted forest: damage or hours."""
    # Not the histogram variant: skl2onnx 1.20 writes booleans that onnx 1.23 refuses.
    from sklearn.ensemble import GradientBoostingRegressor

    forest = GradientBoostingRegressor(
        n_estimators=200, learning_rate=0.08, max_depth=4, min_samples_leaf=8, subsample=0.7, random_state=0
    )
    return forest.fit(prepared, truth)


def export(damage: Any, hours: Any, width: int) -> bytes:
    """Preparation, both forests and the limits of health and hours as one ONNX graph."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    whole = preparation()
    for prefix, forest in (("damage_", damage), ("hours_", hours)):
        made = convert_sklearn(
            forest,
            initial_types=[("prepared", FloatTensorType([None, width]))],
            target_opset={"": _OPSET, "ai.onnx.ml": 3},
        )
        renamed = onnx.compose.add_prefix(made, prefix)
        whole.graph.node.append(helper.make_node("Identity", ["prepared"], [f"{prefix}prepared"]))
        whole.graph.node.extend(renamed.graph.node)
        whole.graph.initializer.extend(renamed.graph.initializer)
    whole.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    limits = {"one": 1.0, "zero": 0.0, "cap": RUL_CAP}
    whole.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in limits.items()
    )
    whole.graph.node.extend(
        [
            helper.make_node("Sub", ["one", "damage_variable"], ["raw_health"]),
            helper.make_node("Clip", ["raw_health", "zero", "one"], ["health"]),
            helper.make_node("Clip", ["hours_variable", "zero", "cap"], ["rul_h"]),
            helper.make_node("Concat", ["health", "rul_h"], ["output"], axis=1),
        ]
    )
    del whole.graph.output[:]
    whole.graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 2]))
    onnx.checker.check_model(whole)
    content: bytes = whole.SerializeToString(deterministic=True)
    return content


def measure(found: NDArray[Any], truth: NDArray[Any], mean: float) -> dict[str, float]:
    """Mean absolute error and R² beside those of always answering the training mean."""
    error, spread = found - truth, truth - mean
    return {
        "mae": round(float(np.abs(error).mean()), 4),
        "mae_of_mean": round(float(np.abs(spread).mean()), 4),
        "r2": round(1 - float((error**2).sum() / ((truth - truth.mean()) ** 2).sum()), 4),
    }


def code_version() -> str:
    """A hash of the code the features come from: retrain when it changes."""
    from boucle.edge import reduce, spectrum

    files = [HERE / "operators.py", HERE / "train.py", Path(reduce.__file__), Path(spectrum.__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def train(episodes: int) -> ModelFile:
    """Simulate, fit on four fifths of the presses, measure on the rest."""
    seeds = list(range(FIRST_SEED, FIRST_SEED + episodes))
    inputs, truth, origin = collect(seeds)
    held_out = origin % 5 == 0
    prepared = prepare(inputs)
    forests = [fit(prepared[~held_out], truth[~held_out, target]) for target in (0, 1)]
    told: dict[str, Any] = {
        "name": "press_health",
        "inputs": tuple(Column(name) for name in COLUMNS),
        "outputs": (
            Column("health", description="1 new, 0 failed"),
            Column("rul_h", unit="h", description=f"operating hours left, at most {RUL_CAP:g}"),
        ),
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "trained_on": {
            "first_seed": FIRST_SEED,
            "presses": episodes,
            "held_out": "seeds divisible by 5",
            "rows": int((~held_out).sum()),
            "code": code_version(),
        },
    }
    content = export(*forests, prepared.shape[1])
    scored = OnnxModel(ModelFile.build(content, metrics={}, **told)).run(inputs[held_out]).astype(np.float64)
    mean = truth[~held_out].mean(axis=0)
    metrics = {
        "held_out_rows": int(held_out.sum()),
        "health": measure(scored[:, 0], 1 - truth[held_out, 0], 1 - float(mean[0])),
        "rul_h": measure(scored[:, 1], truth[held_out, 1], float(mean[1])),
    }
    return ModelFile.build(content, metrics=metrics, **told)


def main() -> None:
    """Train, save, and say how good it is."""
    parser = argparse.ArgumentParser(
        description="Train the health model of the press line on simulated presses."
    )
    parser.add_argument("--episodes", type=int, default=900, help="simulated presses (default: 900)")
    parser.add_argument(
        "--to",
        type=Path,
        default=HERE / "models" / "press_health",
        help="model folder (default: %(default)s)",
    )
    given = parser.parse_args()
    file = train(given.episodes)
    file.save(given.to)
    told = {"saved": str(given.to), "bytes": len(file.content), "sha256": file.manifest.sha256}
    sys.stdout.write(json.dumps({**told, **file.manifest.metrics}, indent=2) + "\n")


if __name__ == "__main__":
    main()
