"""The questions BI tools ask when they connect, through the drivers they use: psycopg, and Go's pgx and lib/pq."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from boucle.outlet.endpoint import SqlEndpoint
from tests.outlet.served import connected, endpoint, make_lake

TOOLS = Path(__file__).parent / "tools"
_QUESTION = re.compile(r"^-- ([^\n]+), at least (\d+) rows\n(.*?);\n(?=\n|\Z)", re.DOTALL | re.MULTILINE)
_OIDS = (
    "SELECT n.oid, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'silver' AND c.relname = 'features'"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlEndpoint]:
    with endpoint(make_lake(tmp_path_factory.mktemp("lake"))) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: SqlEndpoint) -> Iterator["psycopg.Connection[Any]"]:
    with connected(served) as running:
        yield running


def questions(client: "psycopg.Connection[Any]", tool: str) -> list[dict[str, Any]]:
    """What a tool asks, with the OIDs it would have learnt on its way."""
    row = client.execute(_OIDS).fetchone()
    assert row is not None
    told = []
    for name, least, text in _QUESTION.findall((TOOLS / f"{tool}.sql").read_text(encoding="utf-8")):
        sql = text.replace("{schema}", str(row[0])).replace("{table}", str(row[1]))
        told.append({"name": f"{tool}: {name}", "least": int(least), "sql": sql})
    assert len(told) >= 10
    return told


@pytest.mark.parametrize("tool", ["grafana", "metabase", "dbeaver"])
def test_what_a_tool_asks_is_answered(client: "psycopg.Connection[Any]", tool: str) -> None:
    for one in questions(client, tool):
        for prepared in (False, True):
            rows = client.execute(one["sql"], prepare=prepared).fetchall()
            assert len(rows) >= one["least"], one["name"]


def test_functions_of_postgresql_mean_what_they_mean_there(client: "psycopg.Connection[Any]") -> None:
    wanted = {
        "format('%I.%s = %L', 'a b', 'c', 'd''e')": "\"a b\".c = 'd''e'",
        "format('100%%')": "100%",
        "format('{} and {}', 1, 2)": "1 and 2",
        "to_char(timestamp '2026-01-02 03:04:05.678', 'YYYY-MM-DD HH24:MI:SS.MS')": "2026-01-02 03:04:05.678",
        "to_char(date '2026-03-04', 'DD Mon YY')": "04 Mar 26",
        "current_setting('search_path')": "gold, silver, raw",
        "array_to_string(parse_ident('\"A b\".Table'), '|')": "A b|table",
        "(SELECT string_agg(i::text, ',') FROM generate_series(1, 3) AS i)": "1,2,3",
        "(SELECT s[2] FROM string_to_array('a,b', ',') s)": "b",
        "(SELECT max(a.n)::text FROM generate_series(1, 4) AS a(n))": "4",
    }
    for text, value in wanted.items():
        assert client.execute(f"SELECT {text}").fetchone() == (value,), text


def test_go_drivers(served: SqlEndpoint, client: "psycopg.Connection[Any]", tmp_path: Path) -> None:
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("there is no Go: apt-get install golang")
    program = tmp_path / "pg"
    made = subprocess.run(
        [go, "build", "-o", str(program), "."], cwd=TOOLS / "pg", env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"the Go drivers could not be fetched or built: {made.stderr.strip()[-300:]}")
    where = f"host=127.0.0.1 port={served.port} user=ana dbname=boucle sslmode=disable"
    asked = {"Where": where, "Questions": questions(client, "grafana")}
    done = subprocess.run(
        [program], input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["Wrong"] == []
    assert told["Asked"] == 4 * len(asked["Questions"])
    assert told["Values"] == ["press-1 2025-12-31T23:59:59.123456Z 0"] * 3 + ["4 42501"]
