"""The page about features online: its Python runs, its step is one."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

from boucle.features.online import STATES, Online
from boucle.loop.plan import find_operator

PAGE = Path("docs/how-to/features-online.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "features-online.md", "exec"), {})


@pytest.mark.parametrize("command", re.findall(r"^boucle .*$", PAGE, re.MULTILINE))
def test_every_command_is_understood(command: str) -> None:
    _, verb, *words = shlex.split(command)
    parser = argparse.ArgumentParser()
    importlib.import_module(f"boucle.cli.{verb}").arguments(parser)
    assert parser.parse_args(words).product == Path("examples/fraud")


def test_the_step_is_built_as_it_stands_there() -> None:
    (code,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (one,) = yaml.safe_load(code)
    step = find_operator(one["use"])(stream=one["id"], folder=Path("examples/fraud"), **one["with"])
    assert isinstance(step, Online)
    assert all(f"| `{state}` |" in PAGE for state in STATES)
