"""The page about detectors without a model: its Python runs, its steps can be made and tell what they declare."""

import importlib
import re
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from boucle.block import Block, Position

PAGE = Path("docs/how-to/detect.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_python_runs() -> None:
    exec(compile(block("python"), "detect.md", "exec"), {})


@pytest.mark.parametrize("step", yaml.safe_load(block("yaml"))["steps"], ids=lambda step: step["id"])
def test_the_steps_can_be_made_and_tell_what_they_declare(step: dict[str, object]) -> None:
    module, _, name = str(step["use"]).partition(":")
    made = getattr(importlib.import_module(module), name)
    settings = step["with"]
    assert isinstance(settings, dict)
    signals = settings["columns"] if "columns" in settings else [settings["column"]]
    named = {"at": pa.array([0], pa.timestamp("ns", "UTC")), "machine": ["a"]}
    rows = pa.record_batch(named | {one: [1.0] for one in signals})
    (out,) = made(step["id"], **settings).step(Block("readings", rows, 0, Position("rows", 1)))
    assert set(out.rows.schema.names) == set(made.trace({"readings": rows.schema.names}, **settings).columns)
