"""The page about quality: its rules compile, and hold good data for good."""

import re
from pathlib import Path

import pyarrow as pa

from tests.quality.odcs import NOW, rules_of, whole

PAGE = Path("docs/how-to/quality.md").read_text(encoding="utf-8")


def test_the_rules_are_executed() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found, problems = rules_of(text)
    assert problems == []
    rows = pa.table(
        {
            "id": [1, 2],
            "at": pa.array([NOW - 2, NOW - 1], pa.timestamp("ns", "UTC")),
            "customer": [1, 1],
            "amount": [0.01, 12.5],
            "state": ["open", "paid"],
        }
    )
    functions = {
        rule.id: lambda batch: [False] * batch.num_rows for rule in found["orders"] if rule.kind == "python"
    }
    report = whole(found["orders"], rows, others={"customers": pa.table({"id": [1]})}, functions=functions)
    assert {one.state for one in report.outcomes} == {"kept"}, report.outcomes


def test_the_commands_exist() -> None:
    from boucle.cli.main import VERBS

    commands = re.findall(r"^boucle (\w+)", PAGE, re.MULTILINE)
    assert set(commands) == {"quality", "quarantine"} <= set(VERBS)
