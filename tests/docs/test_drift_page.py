"""The page about verdicts: its Python runs, its steps exist and take what it gives them."""

import importlib
import re
from pathlib import Path
from typing import Any

import yaml

PAGE = Path("docs/how-to/drift.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_python_runs() -> None:
    exec(compile("\n".join(blocks("python")), "drift.md", "exec"), {})


def test_the_steps_exist() -> None:
    steps: list[dict[str, Any]] = [
        step for text in blocks("yaml") for step in yaml.safe_load(text).get("steps", [])
    ]
    assert len(steps) == 2
    for step in steps:
        module, _, name = step["use"].partition(":")
        getattr(importlib.import_module(module), name)(step["id"], **step.get("with", {}))
