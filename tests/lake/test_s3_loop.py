"""A whole loop whose lake lies in a bucket (`run.lake`), then asked by SQL, by `boucle serve` and by REST."""

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from boucle.bus.memory import MemorySource
from boucle.cli.main import main
from boucle.clock import SystemClock
from boucle.errors import BoucleError
from boucle.lake.sql import Sql
from boucle.lake.whole import Lake
from boucle.loop.plan import build_plan
from boucle.loop.run import Loop
from boucle.product.project import load_project
from tests.cli.test_serve import served
from tests.conftest import unused_port
from tests.lake.bucket import KEYS, Server, find_minio
from tests.loop.test_load import PRODUCT, rows, until

ROWS = 500


@pytest.fixture(scope="module", params=["moto", pytest.param("minio", marks=pytest.mark.real)])
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a lake that a loop has filled, its writer in a process of its own, and left."""
    if request.param == "minio" and find_minio() is None:
        pytest.skip("MinIO is not installed: GOBIN=build/minio go install github.com/minio/minio@latest")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        server = Server(request.param, unused_port(), tmp_path_factory.mktemp("bucket"))
        address = server.address(f"plant/{uuid.uuid4().hex[:8]}")
        run_a_loop(address, tmp_path_factory.mktemp("run"))
        yield address
        server.stop()


def run_a_loop(address: str, folder: Path) -> None:
    settings = {"run.lake": address, "run.lake_every": "1s"}
    sources = {name: MemorySource(stream=name) for name in ("needed", "surplus", "waves")}
    plan = build_plan(load_project(PRODUCT, None, settings))
    loop = Loop(plan, SystemClock(), sources=sources, folder=folder)
    loop.open()
    loop.start()
    try:
        for first in range(0, ROWS, 100):
            sources["needed"].put_rows(rows(first, 100))
        until(
            lambda: any(one.name == "passed" and one.rows for one in loop.tables.view()), "rows in the bucket"
        )
    finally:
        loop.stop()
    assert not (folder / "lake").exists()


def test_the_tables_hold_every_row_and_sql_reads_them(
    lake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Lake(lake).find("passed").rows == ROWS
    assert main(["sql", "--lake", lake, "--json", "SELECT count(*) AS n, max(seq) AS last FROM passed"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": ROWS, "last": ROWS - 1}]
    assert main(["sql", "--lake", lake, "--json"]) == 0
    named = {row["table"]: row["rows"] for row in json.loads(capsys.readouterr().out)}
    assert named["passed"] == ROWS
    assert named["lineage_events"] >= 2
    assert main(["lake", "export", "passed", str(tmp_path), "--lake", lake, "--as", "csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == ROWS


def test_files_are_fetched_once_and_gone_at_the_end(lake: str) -> None:
    sql = Sql(lake)
    assert sql._mirror is not None
    folder = sql._mirror.folder
    assert sql.query("SELECT count(*) AS n FROM passed").to_pylist() == [{"n": ROWS}]
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    assert first
    assert sql.query("SELECT min(seq) AS n FROM passed AT (VERSION => 1)").num_rows == 1
    session = sql.session()
    assert sum(batch.num_rows for batch in session.read("SELECT seq FROM passed").rows) == ROWS
    session.close()
    assert first.items() <= {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}.items()
    sql._mirror._tidy(time.monotonic() + 3600)
    assert not list(folder.rglob("*.parquet"))
    with pytest.raises(BoucleError, match="B510"):
        sql.query("SELECT * FROM read_parquet('/etc/*')")
    sql.close()
    sql.close()
    assert not folder.exists()


def test_boucle_serve_answers_from_the_bucket(lake: str, tmp_path: Path) -> None:
    shutil.copytree(PRODUCT, tmp_path / "loaded")
    (tmp_path / "loaded" / "boucle.toml").write_text(f'[run]\nlake = "{lake}"\n', encoding="utf-8")
    with served("loaded", "--sql", "127.0.0.1:0", "--http", "127.0.0.1:0", cwd=tmp_path) as told:
        with psycopg.connect(told["sql"], user="ana") as client:
            assert client.execute("SELECT count(*) FROM passed").fetchone() == (ROWS,)
        page = httpx.get(told["http"] + "products/loaded/tables/passed/rows", params={"limit": 3}).json()
        assert len(page["rows"]) == 3


def test_a_bucket_that_does_not_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    away = Sql(f"s3://lake/x?endpoint=http://127.0.0.1:{unused_port()}")
    with pytest.raises(BoucleError, match="B541"):
        away.query("SELECT 1")
    away.close()
