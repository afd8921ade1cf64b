"""The page about contracts: its Python runs, its commands are real."""

import re
from pathlib import Path

import pytest

from boucle.cli.main import VERBS, main

PAGE = Path("docs/how-to/contracts.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "contracts.md", "exec"), {})


def test_the_commands_have_these_flags(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^boucle (\w+)( (?:export|import))?(.*)$", PAGE, re.MULTILINE)
    assert len(commands) >= 10
    for verb, word, rest in commands:
        assert verb in VERBS
        with pytest.raises(SystemExit):
            main([verb, *word.split(), "--help"])
        shown = capsys.readouterr().out
        assert all(flag in shown for flag in re.findall(r"--[a-z-]+", rest.partition(" # ")[0]))
