"""The pages on the lake and on refining: commands are understood, Python and SQL run, YAML is a sound declaration."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from boucle.block import Block, Position
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql
from boucle.product.project import load_project
from boucle.refine.samples import try_samples
from boucle.refine.transform import transforms_of
from tests.refine.payments import SHOP

PAGES = [Path("docs/how-to/lake.md"), Path("docs/how-to/refine.md")]
TEXTS = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXTS[page], re.MULTILINE | re.DOTALL)


COMMANDS = [
    line.partition("  #")[0].strip()
    for page in TEXTS
    for block in blocks(page, "bash")
    for line in block.splitlines()
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str) -> None:
    _, verb, *words = shlex.split(command)
    parser = argparse.ArgumentParser()
    importlib.import_module(f"boucle.cli.{verb}").arguments(parser)
    assert vars(parser.parse_args(words))


def test_the_python_and_the_sql_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.record_batch(
        {"machine": ["a"], "at": pa.array([0], pa.timestamp("ns", "UTC")), "health": [0.5]}
    )
    table = LakeTable(tmp_path / "run" / "lake" / "gold" / "maintenance_summary")
    table.append(Block("it", rows, 0, Position("it", 1)))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("lake", "python")
    exec(compile(code, "lake.md", "exec"), {})
    (query,) = blocks("lake", "sql")
    sql = Sql(tmp_path / "run" / "lake")
    moment = re.compile(r"TIMESTAMP => '[^']*'")
    assert sql.query(moment.sub("VERSION => 1", query)).num_rows == 1
    sql.close()


def test_the_declarations_are_sound(tmp_path: Path) -> None:
    declared, case, dbt = (yaml.safe_load(text) for text in blocks("refine", "yaml"))
    (upkeep,) = (yaml.safe_load(text) for text in blocks("lake", "yaml"))
    upkeep["lake"]["tables"] = {"payments": upkeep["lake"]["tables"]["vibration_events"]}
    dbt["transforms"]["by_dbt"] = dbt["transforms"].pop("spent")
    documents = list(yaml.safe_load_all((SHOP / "product.yaml").read_text()))
    documents[2] |= {"transforms": declared["transforms"] | dbt["transforms"], **upkeep}
    (tmp_path / "sql" / "tests").mkdir(parents=True)
    (tmp_path / "dbt").mkdir()
    (tmp_path / "dbt" / "dbt_project.yml").write_text("name: shop\n")
    (tmp_path / "product.yaml").write_text(yaml.safe_dump_all(documents, sort_keys=False))
    (tmp_path / "sql" / "accepted.sql").write_text(blocks("refine", "sql")[0])
    (tmp_path / "sql" / "spent.sql").write_text((SHOP / "sql" / "spent.sql").read_text())
    (tmp_path / "sql" / "tests" / "spent.yaml").write_text(yaml.safe_dump(case))
    project = load_project(tmp_path)
    transforms = {one.name: one for one in transforms_of(project)}
    assert set(transforms) == {"accepted", "by_dbt", "spent"}
    (tried,) = try_samples(transforms["spent"], project)
    assert tried.passed, tried.says
