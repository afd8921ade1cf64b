"""`boucle serve`: in a process of its own, asked by real clients, ended by a signal."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as driver
import httpx
import psycopg
import pytest

from boucle.catalog.usage import Usage
from boucle.cli.main import main
from tests.cli.command import BOUCLE, boucle, environment
from tests.outlet.served import make_lake

PRODUCT = """\
apiVersion: v1.0.0
kind: DataProduct
id: press
name: The press
version: 1.0.0
status: active
outputPorts:
  - {name: features, type: PORT, version: 1.0.0, contractId: signals}
---
apiVersion: v3.1.0
kind: DataContract
id: signals
version: 1.0.0
status: active
schema:
  - name: features
    properties:
      - {name: machine, logicalType: string, required: true}
      - {name: at, logicalType: timestamp, required: true}
      - {name: value, logicalType: KIND}
---
kind: Loop
apiVersion: boucle/v1
id: loop
product: press
contract: signals
sources:
  features: {from: "memory:features", schema: features}
"""


@pytest.fixture
def product(tmp_path: Path) -> Path:
    make_lake(tmp_path / "run" / "lake")
    folder = tmp_path / "press"
    folder.mkdir()
    (folder / "product.yaml").write_text(PRODUCT.replace("PORT", "rest").replace("KIND", "number"))
    return folder


@contextmanager
def served(*words: str, cwd: Path) -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        [*BOUCLE, "serve", "--json", *words],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        yield json.loads(line)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_one_command_serves_sql_flight_and_rest(product: Path) -> None:
    where = ["--sql", "127.0.0.1:0", "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with served("press", *where, cwd=product.parent) as told:
        with psycopg.connect(told["sql"], user="ana") as client:
            assert client.execute("select count(*) from features").fetchone() == (4,)
        with driver.connect(told["flight"], autocommit=True) as client, client.cursor() as cursor:
            cursor.execute("select count(*) from features")
            assert cursor.fetchone() == (4,)
        page: Any = httpx.get(told["http"] + "products/press/tables/features/rows").json()
        assert len(page["rows"]) == 4
        assert httpx.get(told["http"] + "products/press/tables/vibration/rows").status_code == 404
    usage = Usage(product.parent / "run" / "usage.sqlite")
    used = {(one.name, one.who, one.via, one.times, one.rows) for one in usage.used("press")}
    usage.close()
    assert used == {
        ("features", "ana", "sql", 1, 1), ("features", "", "flight", 1, 1), ("features", "", "rest", 1, 4),
    }, "the catalogue shows who reads what"  # fmt: skip


def test_a_run_alone_can_be_served(product: Path) -> None:
    with (
        served("--run", "run", "--sql", "127.0.0.1:0", cwd=product.parent) as told,
        psycopg.connect(told["sql"], user="ana") as client,
    ):
        assert client.execute("select count(*) from raw.vibration").fetchone() == (6,)


def test_users_are_added_and_asked(product: Path) -> None:
    added = subprocess.run(
        [*BOUCLE, "serve", "--add-user", "ana", "--users", "users"],
        cwd=product.parent,
        env=environment(),
        input="secret\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert added.returncode == 0, added.stderr
    with served("press", "--sql", "127.0.0.1:0", "--users", "users", cwd=product.parent) as told:
        psycopg.connect(told["sql"], user="ana", password="secret").close()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(told["sql"], user="ana", password="wrong")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nowhere"], "B810"),
        (["--run", "nowhere"], "B810"),
        (["press", "--sql", "somewhere"], "B842"),
        (["press", "--sql", "0.0.0.0:0"], "B841"),
        (["press", "--http", "0.0.0.0:0"], "B841"),
        (["press", "--certificate", "x.pem"], "B843"),
        (["press", "--certificate", "x.pem", "--key", "x.key"], "B843"),
        (["press", "--users", "nobody"], "B840"),
        (["--add-user", "ana"], "B840"),
    ],
)
def test_what_cannot_be_served_says_why(
    product: Path,
    words: list[str],
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(product.parent)
    assert (main(["serve", *words]), capsys.readouterr().err.partition(" ")[0]) == (1, code)


def test_a_table_that_is_not_what_was_promised_is_not_served(product: Path) -> None:
    file = product / "product.yaml"
    file.write_text(file.read_text().replace("logicalType: number", "logicalType: boolean"))
    done = boucle("serve", "press", cwd=product.parent)
    assert done.returncode == 1
    assert "B845" in done.stderr
    assert '"value" is double, not boolean' in done.stderr


def test_an_unknown_port_is_a_mistake_of_the_declaration(product: Path) -> None:
    file = product / "product.yaml"
    file.write_text(file.read_text().replace("type: rest", "type: soap"))
    for verb in ("serve", "check"):
        done = boucle(verb, "press", cwd=product.parent)
        assert (done.returncode, "B846" in done.stderr + done.stdout) == (1, True), verb
