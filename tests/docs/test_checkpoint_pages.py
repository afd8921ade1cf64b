"""The pages on checkpoints and replay: their commands are understood, their operator does what it says."""

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from boucle.ports import Partial

PAGES = [Path("docs/how-to/checkpoints.md"), Path("docs/how-to/replay.md")]
COMMANDS = [
    line.partition("#")[0].strip()
    for page in PAGES
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith("boucle ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    _, verb, *words = shlex.split(command)
    parser = argparse.ArgumentParser()
    importlib.import_module(f"boucle.cli.{verb}").arguments(parser)
    assert vars(parser.parse_args(words))


def test_the_operator_of_the_page_goes_on_from_its_parts() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    one: Any = names["Totals"]()
    other: Any = names["Totals"]()
    assert isinstance(names["Totals"](), Partial)
    one.add("press-1", 1.0)
    one.add("press-2", 2.0)
    newest = one.parts(everything=False)
    one.add("press-2", 0.5)
    assert set(one.parts(everything=True)) == {"press-1", "press-2"}
    one.add("press-2", 0.5)
    changed = one.parts(everything=False)
    assert set(changed) == {"press-2"}
    other.restore_parts(newest | changed)
    assert other.parts(everything=False) == {}
    assert other.parts(everything=True) == one.parts(everything=True)
