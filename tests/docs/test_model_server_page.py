"""The page about the model server: its Python runs, its commands are understood, its codes are those raised."""

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from boucle.cli import score, serve
from boucle.serve.oip import refusal
from boucle.serve.oip.refusal import Refusal

PAGE = Path("docs/how-to/model-server.md").read_text(encoding="utf-8")


def test_the_python_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    made: dict[str, Any] = {}
    exec(compile(code, "model-server.md", "exec"), made)
    told = {one["name"]: one["data"] for one in made["answer"]["outputs"]}
    assert told == {"health": [pytest.approx(0.9)], "rul_h": [12.0]}


def test_the_body_of_curl_is_json() -> None:
    (body,) = re.findall(r"-d '(.*?)'", PAGE, re.DOTALL)
    assert len(json.loads(body)["inputs"]) == 2


def test_its_commands_are_understood() -> None:
    for verb, module in (("serve", serve), ("score", score)):
        parser = argparse.ArgumentParser()
        module.arguments(parser)
        lines = re.findall(rf"^boucle {verb} ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
        assert lines
        for line in lines:
            words = shlex.split(line.replace("\\\n", " ").partition("   ")[0])
            parser.parse_args(words)


def test_its_table_of_refusals_is_right() -> None:
    kinds = [one for one in vars(refusal).values() if isinstance(one, type) and issubclass(one, Refusal)]
    told = re.findall(r"^\| (B67\d) \| (\d+) \| `([A-Z_]+)`", PAGE, re.MULTILINE)
    assert {(status, rpc) for _, status, rpc in told} >= {
        (str(one.status), one.rpc) for one in kinds if one is not Refusal
    }
