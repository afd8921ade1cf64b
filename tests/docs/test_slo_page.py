"""The page on promises: what it declares is measured, what it types is understood."""

import argparse
import re
import shlex
from pathlib import Path

import yaml

from boucle.cli import slo
from boucle.product.check import check_documents
from boucle.product.lines import read_text
from tests.loop.served import Served, served

PAGE = Path("docs/how-to/slo.md").read_text(encoding="utf-8")


def test_what_the_page_declares_is_measured(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    told = yaml.safe_load(block)
    (beside,) = told["customProperties"]
    documents, _ = read_text(served(told["slaProperties"], beside["value"]).encode(), "product.yaml")
    assert check_documents(documents)[2] == []
    plant = Served(tmp_path, told["slaProperties"], beside["value"])
    plant.pass_(5, step=10)
    measured = {one.id: one for one in plant.loop.picture.fresh().objectives}
    plant.loop.close()
    assert set(measured) == {
        "fresh", "latency-readings", "errorRate", "completeness-readings", "readable", "steady", "right",
    }  # fmt: skip
    assert {name for name, one in measured.items() if not one.total} == {"right"}, "its truth is not there"


def test_its_table_lists_every_measure() -> None:
    for name in (
        "freshness",
        "frequency",
        "latency",
        "throughput",
        "availability",
        "completeness",
        "accuracy",
    ):
        assert f"| `{name}` |" in PAGE


def test_its_command_is_understood() -> None:
    parser = argparse.ArgumentParser()
    slo.arguments(parser)
    (line,) = re.findall(r"^\$ boucle slo (.*)$", PAGE, re.MULTILINE)
    assert parser.parse_args(shlex.split(line)).run == Path("run")
