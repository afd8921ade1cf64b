"""A run of the simulated line kept in a folder: the signals, and the truth beside them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from boucle.testing.disturbance import VIBRATION

if TYPE_CHECKING:
    from boucle.testing.line import PressLine

__all__ = ["record"]


def record(line: "PressLine", folder: Path, seconds: float) -> None:
    """Run `line` for `seconds` and write vibration, process, history (Parquet) and truth.json."""
    from boucle.testing.line import PROCESS_SCHEMA

    folder.mkdir(parents=True, exist_ok=True)
    until = line.elapsed + seconds
    with (
        pq.ParquetWriter(folder / "vibration.parquet", VIBRATION, compression="zstd") as fast,
        pq.ParquetWriter(folder / "process.parquet", PROCESS_SCHEMA, compression="zstd") as slow,
    ):
        while line.elapsed < until - 1e-9:
            tick = line.step()
            for _, batch in tick.vibration:
                fast.write_batch(batch)
            slow.write_batch(tick.process)
    pq.write_table(line.history(), folder / "history.parquet")
    told = {
        "seed": line.seed,
        "start": line.start,
        "seconds": line.elapsed,
        "machines": list(line.machines),
        "truth": line.truth(),
    }
    (folder / "truth.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
