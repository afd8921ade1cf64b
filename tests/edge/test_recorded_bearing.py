"""Recorded bearings (MFPT, evaluation only): the envelope lines name the defective race."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from boucle.clock import SECOND
from boucle.edge.reduce import Reduce
from tests.edge.signals import START, rows_of, vibration

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "mfpt_bearing"
pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason="needs ../shared/data/mfpt_bearing (MFPT bearing data)"
)
RATE, SHAFT = 48_828, 25.0


def recordings() -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = pq.read_table(FOLDER / "files.parquet").to_pylist()
    return files


def test_every_recorded_defect_is_named_in_every_second() -> None:
    signals = pq.read_table(FOLDER / "signals.parquet")
    wrong = []
    for file in recordings():
        edge = Reduce(
            "events",
            rate_hz=RATE,
            shaft_hz=SHAFT,
            bpfo=file["BPFO"] / SHAFT,
            bpfi=file["BPFI"] / SHAFT,
        )
        taken = signals.filter(pc.equal(signals["file"], file["file"]))["accel_g"]
        samples = taken.to_numpy().astype(np.float32)[: 3 * RATE]
        chunk = ("rig", "vib", START, samples)
        rows = rows_of(edge.step(vibration([chunk], START + 3 * SECOND)))
        assert len(rows) >= 2
        for row in rows:
            named = "outer_race" if row["env_bpfo"] > row["env_bpfi"] else "inner_race"
            strongest = max(row["env_bpfo"], row["env_bpfi"])
            if named != file["label"] or strongest < 3:
                wrong.append((file["file"], row["env_bpfo"], row["env_bpfi"]))
    assert not wrong
