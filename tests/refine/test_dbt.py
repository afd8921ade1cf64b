"""A dbt project as one step: its model is staged, audited, published as any SQL; what dbt says against it is told."""

import os
import shutil
from pathlib import Path

import pytest

from boucle.errors import BoucleError
from boucle.lake.whole import Lake
from boucle.refine.dbt import find_dbt
from boucle.refine.run import refine
from boucle.refine.transform import transforms_of
from tests.refine.payments import arrived, ask, shop

PROJECT = Path(__file__).parent / "dbt_shop"
BUILT = Path(__file__).parents[2] / "build" / "dbt" / "bin" / "dbt"


@pytest.fixture
def dbt(monkeypatch: pytest.MonkeyPatch) -> None:
    if "BOUCLE_DBT" not in os.environ and shutil.which("dbt") is None:
        if not BUILT.exists():
            pytest.skip(
                'dbt is not installed: uv venv build/dbt; uv pip install "dbt-core<1.12" dbt-duckdb there'
            )
        monkeypatch.setenv("BOUCLE_DBT", str(BUILT))


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROJECT, tmp_path / "product"))


@pytest.mark.real
@pytest.mark.usefixtures("dbt")
def test_a_model_is_published_by_the_same_gates(tmp_path: Path, product: Path) -> None:
    lake = Lake(tmp_path / "lake")
    arrived(lake, (1, 0, "a", 5.0), (2, 0, "a", -3.0), (3, 0, "b", 2.0))
    (one,) = transforms_of(shop(product))
    assert refine(one, lake, tmp_path / "work").state == "published"
    assert ask(lake, "spent", ["card", "payments", "spent"]) == [("a", 1, 5.0), ("b", 1, 2.0)]
    assert refine(one, lake, tmp_path / "work").state == "unchanged"
    arrived(lake, (4, 0, "b", 5e6))
    assert refine(one, lake, tmp_path / "work").state == "held", "more than the contract allows"
    assert ask(lake, "spent", ["card", "spent"]) == [("a", 5.0), ("b", 2.0)]
    project = product / "dbt" / "models" / "spent.sql"
    project.write_text(project.read_text().replace("ref('accepted')", "ref('acepted')"))
    (broken,) = transforms_of(shop(product))
    assert broken.digest != one.digest
    with pytest.raises(BoucleError, match="B535") as error:
        refine(broken, lake, tmp_path / "work")
    assert "acepted" in error.value.why


def test_without_dbt_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUCLE_DBT", "/nowhere/dbt")
    with pytest.raises(BoucleError, match="B540"):
        find_dbt()


def test_a_folder_that_is_no_project_is_a_problem(product: Path) -> None:
    (product / "dbt" / "dbt_project.yml").unlink()
    with pytest.raises(BoucleError, match="no dbt project"):
        transforms_of(shop(product))
