"""The pages about the interfaces: their Python runs, their ports are known."""

import re
from pathlib import Path

import pytest
import yaml

from boucle.outlet.ports import KINDS, output_ports

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


@pytest.mark.parametrize("page", ["sql-endpoint", "consume"])
def test_the_python_runs(page: str) -> None:
    text = (HOW_TO / f"{page}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(code, f"{page}.md", "exec"), {})


def test_the_ports_of_the_page_are_known() -> None:
    text = (HOW_TO / "consume.md").read_text(encoding="utf-8")
    (declared,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ports = output_ports(yaml.safe_load(declared))
    assert [port.kind for port in ports] == [kind for kind in KINDS if kind != "tables"]
