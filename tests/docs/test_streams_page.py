"""The page about streams: its Python runs, its YAML builds."""

import re
from pathlib import Path

import pyarrow as pa
import yaml

from boucle.block import Block, Position
from boucle.loop.flow import Flow

PAGE = Path("docs/how-to/streams.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "streams.md", "exec"), {})


def test_the_yaml_builds_and_runs() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    flow = Flow()
    payments = flow.source("payments")
    for step in yaml.safe_load(text)["steps"]:
        payments.to(step["use"], step["id"], **step["with"])
    at = pa.array([0, 30_000_000_000, 90_000_000_000], pa.timestamp("ns", "UTC"))
    rows = pa.record_batch(
        {"at": at, "card": [1, 1, 2], "terminal": ["a", "a", "b"], "amount": [1.0, 3.0, 5.0]}
    )
    given = flow.run([Block("payments", rows, 0, Position("payments", 3))])
    (features,) = [block.rows for block in given["features"] if len(block)]
    assert features["count_10min"].to_pylist() == [1, 2, 1]
    assert features["mean_7d"].to_pylist() == [1.0, 2.0, 5.0]
    minutes = pa.Table.from_batches([block.rows for block in given["per_minute"]])
    assert minutes["total"].to_pylist() == [4.0, 5.0]
