"""The page about models in the path: its Python runs, its steps are understood."""

import re
from pathlib import Path

import pytest
import yaml

from boucle.errors import BoucleError
from boucle.loop.plan import find_operator
from boucle.serve import Score
from tests.serve.models import linear, registered

PAGE = Path("docs/how-to/serving.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "serving.md", "exec"), {})


def test_the_steps_are_built_as_they_stand_there(tmp_path: Path) -> None:
    registered(tmp_path, linear(1.0, name="fraud", output="probability"))
    blocks = [
        yaml.safe_load(code) for code in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    ]
    declared = [told[0] for told in blocks if isinstance(told, list)]
    built = [find_operator(one["use"])(stream=one["id"], folder=tmp_path, **one["with"]) for one in declared]
    assert [type(one).__name__ for one in built] == ["Score", "Score", "Score", "Trial"]
    with pytest.raises(BoucleError, match="B650"):
        Score("scored", folder=tmp_path, **{**declared[0]["with"], "fallback": "tomorrow"})
