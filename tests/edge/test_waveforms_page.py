"""The page about waveforms: its Python runs, its YAML builds."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.loop.flow import Flow
from tests.edge.signals import TIME, vibration
from tests.stream.laws import FOREVER

PAGE = Path("docs/how-to/waveforms.md").read_text(encoding="utf-8")
RATE = 48_000


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "waveforms.md", "exec"), {})


def test_the_yaml_builds_and_runs() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    flow = Flow()
    streams = {name: flow.source(name) for name in ("vibration", "tacho")}
    for step in yaml.safe_load(text)["steps"]:
        first, *beside = (streams[name] for name in step["from"])
        streams[step["id"]] = first.to(step["use"], step["id"], *beside, **step["with"])
    t = np.arange(4 * RATE) / RATE
    turning = np.sin(2 * np.pi * 25 * t) + 0.5 * np.sin(2 * np.pi * 23 * 25 * t)
    pulses = pa.array([turn * SECOND // 25 for turn in range(100)], TIME)
    tacho = pa.record_batch({"machine": ["m"] * 100, "at": pulses})
    waveform = vibration([("m", "x", 0, turning.astype(np.float32))], FOREVER)
    given = flow.run([Block("tacho", tacho, FOREVER, Position("tacho", 100)), waveform])
    seconds = [row for block in given["seconds"] for row in block.rows.to_pylist() if row["complete"]]
    assert len(seconds) >= 3
    for row in seconds:
        assert np.isclose(row["mesh"], 0.5**2 / 2, rtol=5e-3)
        assert len(row["density"]) == 1025
    orders = [row for block in given["by_order"] for row in block.rows.to_pylist() if row["complete"]]
    assert len(orders) >= 2
    for row in orders:
        assert np.allclose([row["unbalance"], row["mesh"]], [1, 0.5], rtol=0.02)
