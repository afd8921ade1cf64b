"""The page about models: its Python runs, its commands are understood, its YAML is a product."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

from boucle.product.document import LoopDocument

PAGE = Path("docs/how-to/models.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^boucle .*$", PAGE, re.MULTILINE)


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "models.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    _, verb, *words = shlex.split(command)
    parser = argparse.ArgumentParser()
    importlib.import_module(f"boucle.cli.{verb}").arguments(parser)
    assert parser.parse_args(words).product == Path("examples/fraud")


def test_the_declaration_is_one() -> None:
    import msgspec

    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    example = Path("examples/fraud/product.yaml").read_text(encoding="utf-8")
    loop = next(one for one in yaml.safe_load_all(example) if one["kind"] == "Loop")
    assert msgspec.convert({**loop, **yaml.safe_load(text)}, LoopDocument).models["fraud"].gates
