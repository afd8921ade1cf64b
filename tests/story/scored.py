"""A product that scores payments, ready to be killed: its models, its input, and what must become of every row."""

import datetime as dt
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.lake.sql import Sql
from boucle.models.algorithms import fit, to_onnx, trees
from boucle.models.file import Column, ModelFile
from boucle.models.onnx import OnnxModel
from boucle.models.registry import Registry, registry_of
from boucle.ports import WIRE
from boucle.serve.switches import Switches
from tests.loop.killing import Recorded

__all__ = ["TABLES", "Judged", "judge", "product", "recorded", "tables"]

PRODUCT = Path(__file__).parent / "scored_product"
TABLES = ("scored", "performance", "reasons")
START = 1_790_000_000_000_000_000
STEP = 200_000_000
"""Nanoseconds between two payments."""
_LATER = 30_000_000_000
"""Between a payment and what became of it."""
_VERSIONS = 3


def product(folder: Path) -> Registry:
    """A copy of the product with a registry of its own: three versions, of which the first is champion."""
    shutil.copytree(PRODUCT, folder, dirs_exist_ok=True)
    registry = registry_of(folder)
    for seed in range(_VERSIONS):
        chance = np.random.default_rng(seed)
        inputs = chance.random((300, 2)).astype(np.float32)
        truth = (inputs[:, 0] + (1 + seed) * inputs[:, 1] > 1 + seed / 2).astype(np.float64)
        made = fit("lightgbm", "classification", {"n_estimators": 8, "num_leaves": 5}, inputs, truth, seed)
        model = ModelFile.build(
            to_onnx(made, "lightgbm", "classification", 2, "probability"),
            name="fraud",
            inputs=(Column("a"), Column("b")),
            outputs=(Column("probability"),),
            created="2026-11-22T00:00:00Z",
            trained_on={"seeds": [seed]},
            metrics={},
        )
        registry.add(model, by="tests", files=trees(made, "lightgbm"))
    registry.promote("fraud", 1, by="tests")
    return registry


def recorded(folder: Path, rows: int, seed: int) -> Recorded:
    """Write payments and their labels; some come twice, some lack a number, some labels are corrected."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    payments: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    duplicates = 0
    for number in range(rows):
        at = START + number * STEP
        a, b = chance.random(), chance.random()
        told = {"payment": number, "card": f"card-{number % 37}", "at": _text(at), "a": a, "b": b}
        if chance.random() < 0.05:
            told["a"] = None
        payments.append(told)
        if number > 20 and chance.random() < 0.03:
            payments.append(payments[-chance.randint(2, 15)])
            duplicates += 1
        labels.append({"payment": number, "at": _text(at + _LATER), "fraud": int(a + b > 1)})
    _write(folder / "payments.arrow", payments)
    _write(folder / "labels.arrow", labels)
    return Recorded(folder, -(-len(payments) // 5), rows, duplicates)


def _text(at: int) -> str:
    whole, part = divmod(at, 10**9)
    return f"{dt.datetime.fromtimestamp(whole, dt.UTC):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"


def _write(file: Path, told: list[dict[str, Any]]) -> None:
    columns = {
        "topic": [file.stem] * len(told),
        "payload": [json.dumps(one).encode() for one in told],
        "received": [START] * len(told),
        "retained": [False] * len(told),
    }
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_file(out, WIRE) as writer:
        writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=WIRE))


def tables(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, in a fixed order."""
    lake = Sql(run / "lake")
    found = {}
    for name in TABLES:
        rows = lake.query(f"select * from {name} order by all").to_pylist()
        found[name] = rows
    lake.close()
    return found


class Judged(Struct, frozen=True):
    """What became of the payments of one run; every count but the last two must be 0."""

    missing: int
    twice: int
    unscored: int
    elsewhere: int
    """Rows whose version is not the one that the journal names for their place."""
    unequal: int
    """Rows whose score is not what their version gives."""
    switches: int
    versions: int

    @property
    def sound(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.missing or self.twice or self.unscored or self.elsewhere or self.unequal)


def judge(folder: Path, run: Path, rows: int) -> Judged:
    """Hold the scored table against the journal of versions, and each score against the model itself."""
    scored = sorted(tables(run)["scored"], key=lambda row: row["payment"])
    there = [row["payment"] for row in scored]
    journal = Switches()
    journal.open(run / "steps" / "scored")
    journal.close()
    registry = registry_of(folder)
    models = {str(number): OnnxModel(registry.load(f"fraud/{number}")) for number in range(1, _VERSIONS + 1)}
    elsewhere = sum(row["a"] is not None and not _named(journal, row) for row in scored)
    unequal = sum(row["a"] is None and row["probability"] != 0.5 for row in scored)
    for version, model in models.items():
        mine = [row for row in scored if row["a"] is not None and row["version"] == version]
        unequal += sum(
            given != row["probability"] for given, row in zip(_scores(model, mine), mine, strict=True)
        )
    return Judged(
        missing=rows - len(set(there)),
        twice=len(there) - len(set(there)),
        unscored=sum(row["probability"] is None for row in scored),
        elsewhere=elsewhere,
        unequal=unequal,
        switches=len(journal.switches),
        versions=len({row["version"] for row in scored} - {None}),
    )


def _named(journal: Switches, row: dict[str, Any]) -> bool:
    """Whether the journal names the version of a row. A payment's number is its place: duplicates never come so far."""
    held = journal.at(row["payment"])
    who = held.arms.get(row["arm"]) if held is not None else None
    return who is not None and row["version"] == str(who.number)


def _scores(model: OnnxModel, rows: list[dict[str, Any]]) -> list[float]:
    columns = {name: pa.array([row[name] for row in rows], pa.float64()) for name in ("a", "b")}
    block = Block("rows", pa.record_batch(columns), 0, Position("p", 0))
    given: list[float] = model.score(block).rows.column("probability").to_pylist()
    return given
