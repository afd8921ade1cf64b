"""A table of the product in PostgreSQL: fed by the loop's own process for tables, every row once."""

import os
import shutil
import signal
from pathlib import Path

import psycopg
import pytest

from boucle.errors import DeclarationError
from boucle.loop.view import TablesView
from boucle.product.project import load_project
from tests.lake.server import PostgresServer
from tests.loop.test_load import PRODUCT, Loaded, rows, until

pytestmark = pytest.mark.real


def product(folder: Path, table: str, to: str = "postgresql://{warehouse}") -> Path:
    """The loaded product with what passed in a table elsewhere."""
    copy = folder / "product"
    shutil.copytree(PRODUCT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "product.yaml").read_text(encoding="utf-8")
    text = text.replace("  passed: {from: passed,", f'  {table}: {{from: passed, to: "{to}",')
    (copy / "product.yaml").write_text(text, encoding="utf-8")
    return copy


def sequence(server: PostgresServer, table: str) -> list[int]:
    with psycopg.connect(server.address) as connection:
        known = connection.execute("select to_regclass(%s)", [f"silver.{table}"]).fetchone()
        if known == (None,):
            return []
        found = connection.execute(f"select seq from silver.{table} order by seq".encode()).fetchall()
        return [row[0] for row in found]


def test_what_passes_is_in_the_table_once_whoever_is_killed(postgres: PostgresServer, tmp_path: Path) -> None:
    settings = {"addresses.warehouse": postgres.address.partition("://")[2], "run.lake_every": "50ms"}
    made = product(tmp_path, "passed_once")
    loaded = Loaded(tmp_path / "run", settings, made)
    for first in range(0, 500, 10):
        loaded.needed.put_rows(rows(first, 10))
    until(lambda: sequence(postgres, "passed_once"), "the first rows are in the table")
    keeper = loaded.loop.tables._keeper
    assert keeper is not None
    os.kill(keeper._process.pid, signal.SIGKILL)
    for first in range(500, 1000, 10):
        loaded.needed.put_rows(rows(first, 10))
    loaded.drain()
    loaded.stop()
    again = Loaded(tmp_path / "run", settings, made, needed=loaded.needed)
    again.needed.put_rows(rows(1000, 10))
    again.received("needed", 10)
    again.drain()
    until(lambda: [one.rows for one in shown(again)] == [1010], "the page shows every row")
    (table,) = shown(again)
    assert (table.zone, table.version >= 1) == ("silver", True)
    again.stop()
    assert sequence(postgres, "passed_once") == list(range(1010))
    assert not (tmp_path / "run" / "lake" / "silver").exists()


def shown(loaded: Loaded) -> list[TablesView]:
    return [one for one in loaded.loop.picture.fresh().tables if one.name == "passed_once"]


def test_while_the_server_is_away_rows_wait_in_the_log(postgres: PostgresServer, tmp_path: Path) -> None:
    settings = {"addresses.warehouse": postgres.address.partition("://")[2], "run.lake_every": "50ms"}
    postgres.stop()
    try:
        loaded = Loaded(tmp_path / "run", settings, product(tmp_path, "passed_late"))
        loaded.needed.put_rows(rows(0, 10))
        until(lambda: "B515" in loaded.loop.tables.failures.get("passed_late", ""), "it is told")
        assert loaded.loop.tables.committed("passed") is None, "nothing of it may be forgotten"
    finally:
        postgres.start()
    until(lambda: sequence(postgres, "passed_late") == list(range(10)), "the table has followed")
    loaded.stop()
    assert loaded.counted("needed").balanced()


def test_a_replay_writes_to_the_lake_alone(tmp_path: Path) -> None:
    project = load_project(product(tmp_path, "passed"), None, {"addresses.warehouse": "boucle@nowhere/db"})
    assert project.loop.tables["passed"].to == "postgresql://{warehouse}"
    assert {table.to for table in project.within_lake().loop.tables.values()} == {""}


def test_where_to_is_checked(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="B204") as told:
        load_project(product(tmp_path, "passed", "postgres://somewhere/db"))
    (problem,) = told.value.problems
    assert 'Did you mean "postgresql"?' in problem.fix
