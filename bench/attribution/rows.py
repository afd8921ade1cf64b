"""Feature rows of episodes, simulated once and kept: waveform → edge → features, as in production.

A second of a press takes some 15 ms of a core, a verdict one; so the rows are kept under run/drift and judged as often
as wanted. Their folder carries a digest of every source they depend on.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bench.attribution.episodes import MACHINE, Episode
from bench.figures import ROOT
from boucle.block import Block, Position
from boucle.clock import SECOND, Nanos
from boucle.edge import Reduce
from boucle.testing.line import PressLine

__all__ = ["MACHINE", "START", "from_waveforms", "operators", "rows_of", "simulate"]

START: Nanos = 1_700_000_000 * SECOND
_LATENESS = SECOND // 2
_PRESS = ROOT / "examples" / "press"
_EDGE = ("baseline", "chunks", "grid", "kernels", "placing", "pool", "reduce", "spectrum", "zone")
_TESTING = ("instrument", "line", "machine", "process", "resonance", "scenario", "wear")


@cache
def folder() -> Path:
    """Where the rows of the present sources are kept."""
    sources = [*(ROOT / "src/boucle/edge" / f"{name}.py" for name in _EDGE), _PRESS / "operators.py"]
    sources += [ROOT / "src/boucle/testing" / f"{name}.py" for name in _TESTING]
    digest = hashlib.sha256(b"".join(one.read_bytes() for one in sources)).hexdigest()[:12]
    return ROOT / "run" / "drift" / digest


@cache
def operators() -> Any:
    """The press's own operators, imported by file as the loop does."""
    spec = importlib.util.spec_from_file_location("press_operators", _PRESS / "operators.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _file(episode: Episode) -> Path:
    told = hashlib.sha256(msgspec.json.encode(episode)).hexdigest()[:12]
    return folder() / f"{episode.name}-{told}.parquet"


def rows_of(episode: Episode) -> pa.Table:
    """The rows of an episode that was simulated before, oldest first."""
    return pq.read_table(_file(episode))


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    (whole,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return whole


def from_waveforms(episode: Episode) -> pa.Table:
    """Feature rows by way of 10 kHz waveforms, as the press product makes them."""
    line = PressLine(episode.scenario, seed=episode.seed, start=START)
    edge, features = Reduce("vibration_events"), operators().PressFeatures("features")
    rows: list[pa.RecordBatch] = []
    while line.elapsed < episode.scenario.duration - 1e-9:
        ticks = [
            line.step() for _ in range(round(1 / episode.scenario.chunk))
        ]  # a second at once: the same rows
        process = _joined([tick.process for tick in ticks])
        slow = Block("process", process, ticks[-1].last - _LATENESS, Position("process", 0))
        edge.step(slow)
        features.step(slow)
        waves = [batch for tick in ticks for _, batch in tick.vibration]
        if waves:
            block = Block("vibration", _joined(waves), ticks[-1].at - _LATENESS, Position("vibration", 0))
            for reduced in edge.step(block):
                rows += [made.rows for made in features.step(reduced)]
    return pa.Table.from_batches(rows)


def _simulated(episode: Episode) -> None:
    target = _file(episode)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    pq.write_table(from_waveforms(episode), partial)
    partial.replace(target)


def simulate(episodes: Iterable[Episode], workers: int = 2) -> Iterator[int]:
    """Simulate what is not kept yet; gives the number of episodes still to come after each."""
    missing = [episode for episode in episodes if not _file(episode).exists()]
    yield len(missing)
    if not missing:
        return
    with ProcessPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(_simulated, missing), 1):
            yield len(missing) - done
