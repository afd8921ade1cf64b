"""The page about the catalogue: its Python runs, its commands are those there are."""

import re
from pathlib import Path

import pytest

from boucle.cli.main import main

PAGE = Path("docs/how-to/catalogue.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_the_python_runs(code: str) -> None:
    exec(compile(code, "catalogue.md", "exec"), {})


def commands() -> list[list[str]]:
    """Those that ask something: `boucle catalog search "…" --root products`."""
    found = re.findall(
        r"^boucle ((?:catalog (?:search|show)|lineage (?:impact|origin)) .*?)(?:\s+#.*)?$", PAGE, re.MULTILINE
    )
    return [[word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)] for line in found]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[:3]))
def test_the_commands_answer_on_the_press(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rooted = [word if word != "products" else "examples" for word in words]
    if "--root" not in rooted:
        rooted += ["--root", "examples"]
    rooted = [str(tmp_path / word) if word.endswith(".svg") else word for word in rooted]
    assert main([*rooted, "--index", str(tmp_path / "index.sqlite")]) == 0
    assert capsys.readouterr().out
