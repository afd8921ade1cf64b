"""The page about features online: its Python runs, its step is one."""

import re
from pathlib import Path

import yaml

from boucle.features.online import STATES, Online
from boucle.loop.plan import find_operator

PAGE = Path("docs/how-to/features-online.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "features-online.md", "exec"), {})


def test_the_step_is_built_as_it_stands_there() -> None:
    (code,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (one,) = yaml.safe_load(code)
    step = find_operator(one["use"])(stream=one["id"], folder=Path("examples/fraud"), **one["with"])
    assert isinstance(step, Online)
    assert all(f"| `{state}` |" in PAGE for state in STATES)
