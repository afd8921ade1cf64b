"""The SQL endpoint as other people's clients see it: psql, psycopg, asyncpg, SQLAlchemy, JDBC."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa

from boucle.outlet.endpoint import SqlEndpoint
from tests.outlet.served import connected, endpoint, make_lake
from tests.outlet.test_tools import questions

JAR = Path(__file__).parents[2] / "build" / "jdbc" / "postgresql-42.7.4.jar"
FIRST = datetime(2025, 12, 31, 23, 59, 59, 123456, UTC)
LISTS = "d dt+ l dn+ df dv di ds dm du dT dp ddp dx db do dC dy dE dc dD dL conninfo encoding"
NAIVE = datetime(1999, 12, 31, 3, 4, 5, 600000)  # noqa: DTZ001 - a timestamp without a zone
EVERYTHING = """select 1::smallint, 2::int, 3::bigint, 1.5::float4, 2.5::float8, true, 'é'::text, '\\x41\\xFF'::blob,
    date '2020-01-02', time '10:11:12.5', timestamp '1999-12-31 03:04:05.6', timestamptz '2020-01-02 03:04:05.6+00',
    interval '1 month 2 days 3 seconds', 12345.6789::decimal(18,4), -0.00012::decimal(10,5),
    123456789012345678901234.5678::decimal(38,4), 0::decimal(9,3), 170141183460469231731::hugeint,
    uuid '00112233-4455-6677-8899-aabbccddeeff', '{"a":1}'::json, {'a': 1, 'b': [true]}, [1, null, 3],
    ['a"', 'b,', null], [1.5]::decimal(4,2)[], [date '2020-01-01'], []::int[], null, [[1], [2]]"""
VALUES: tuple[Any, ...] = (
    1, 2, 3, 1.5, 2.5, True, "é", b"A\xff",
    date(2020, 1, 2), time(10, 11, 12, 500000), NAIVE, datetime(2020, 1, 2, 3, 4, 5, 600000, UTC),
    timedelta(days=32, seconds=3), Decimal("12345.6789"), Decimal("-0.00012"),
    Decimal("123456789012345678901234.5678"), Decimal("0.000"), Decimal(170141183460469231731),
    UUID("00112233-4455-6677-8899-aabbccddeeff"), {"a": 1}, {"a": 1, "b": [True]}, [1, None, 3], ['a"', "b,", None],
    [Decimal("1.50")], [date(2020, 1, 1)], [], None, [[1], [2]],
)  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlEndpoint]:
    with endpoint(make_lake(tmp_path_factory.mktemp("lake"))) as running:
        yield running


@pytest.fixture(scope="module")
def psql(served: SqlEndpoint) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = shutil.which("psql")
    if program is None:
        pytest.skip("psql is not installed: apt-get install postgresql-client")

    def ask(*commands: str, **extra: str) -> subprocess.CompletedProcess[str]:
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(served.port), "PGUSER": "ana", "PGDATABASE": "boucle"}
        words = [word for command in commands for word in ("-c", command)]
        return subprocess.run(
            [program, "-X", "-w", "-P", "pager=off", *words], env={**os.environ, **where, **extra},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return ask


def test_psql_lists_tables_and_describes_them(psql: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    listed = psql("\\dt").stdout
    assert " raw    | vibration | table" in listed
    assert " silver | features  | table" in listed
    told = psql("\\d features").stdout
    assert 'Table "silver.features"' in told
    assert " at      | timestamp with time zone |           | not null |" in told
    assert " samples | real[] " in told
    assert '"features_pkey" PRIMARY KEY, btree ("machine", "at")' in told
    assert "how much it shakes [mm/s]" in psql("\\d+ features").stdout


@pytest.mark.parametrize(
    "command",
    [
        *("\\" + name for name in LISTS.split()),
        "\\z features",
        "\\dt silver.*",
        "\\d raw.vibration",
    ],
)
def test_psql_asks_nothing_that_is_not_there(
    psql: Callable[..., subprocess.CompletedProcess[str]], command: str
) -> None:
    done = psql(command)
    assert "ERROR" not in done.stderr
    assert done.returncode == 0


def test_psql_reads_values_and_errors(psql: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = psql(
        "select machine, value from features order by at limit 1",
        "select nope from features",
        "select 1 as still",
    )
    assert " press-1 |   0.0" in done.stdout
    assert "B512" in done.stderr
    assert "LINE 1: select nope from features\n               ^" in done.stderr
    assert "still" in done.stdout
    assert (
        psql(
            "copy (select machine, value from features order by at limit 1) to stdout with csv header"
        ).stdout
        == "machine,value\npress-1,0.0\n"
    )
    assert (
        "press-1\t0.0"
        in psql("\\copy (select machine, value from features order by at limit 1) to stdout").stdout
    )


@pytest.mark.parametrize("binary", [False, True])
def test_psycopg_reads_every_type(served: SqlEndpoint, binary: bool) -> None:
    with connected(served) as client:
        row = client.cursor(binary=binary).execute(EVERYTHING).fetchone()
        assert row is not None
        for given, wanted in zip(row, VALUES, strict=True):
            assert given == wanted
            assert type(given) is type(wanted)


@pytest.mark.parametrize("binary", [False, True])
def test_psycopg_sends_every_type(served: SqlEndpoint, binary: bool) -> None:
    sent: list[tuple[Any, str]] = [
        (7, "bigint"), (-3, "smallint"), (1.25, "double"), (True, "boolean"), ("é'", "varchar"), (b"\0\xff", "blob"),
        (date(2020, 2, 29), "date"), (datetime(2026, 1, 1, 1, 2, 3, 4, UTC), "timestamptz"), (NAIVE, "timestamp"),
        (Decimal("-12.345"), "decimal(9,3)"), (UUID(int=5), "uuid"), (timedelta(days=2, seconds=5), "interval"),
        (None, "int"),
        ([1, None, 3], "bigint[]"), (["a,b", 'c"'], "varchar[]"), (time(1, 2, 3), "time"),
    ]  # fmt: skip
    mark = "%b" if binary else "%t"
    with connected(served) as client:
        for value, kind in sent:
            got = client.execute(f"select {mark}::{kind}", (value,)).fetchone()
            assert got == (value,), kind


def test_psycopg_cursors_stream_and_copy(served: SqlEndpoint) -> None:
    with connected(served, autocommit=False) as client:
        with client.cursor("mine") as cursor:
            cursor.itersize = 100
            cursor.execute("select i from range(1000) t(i)")
            assert cursor.fetchmany(3) == [(0,), (1,), (2,)]
            assert client.execute("select 'between'").fetchone() == ("between",)
            assert sum(row[0] for row in cursor) == sum(range(3, 1000))
        with client.cursor().copy(
            "copy (select i, 'a' || chr(9) || i, null from range(3) t(i)) to stdout"
        ) as copy:
            assert list(copy.rows()) == [(str(i), f"a\t{i}", None) for i in range(3)]
        with client.cursor().copy(
            "copy (select i, i / 2.0 from range(3) t(i)) to stdout (format binary)"
        ) as copy:
            copy.set_types(["int8", "float8"])
            assert list(copy.rows()) == [(i, i / 2) for i in range(3)]
        with client.cursor().copy(
            "copy features (machine, value) to stdout (format csv, header, delimiter ';')"
        ) as copy:
            assert b"".join(copy).startswith(b"machine;value\npress-")
        with client.cursor().copy("copy (select 1 where false) to stdout (format binary)") as copy:
            assert list(copy.rows()) == []


def test_psycopg_pipelines(served: SqlEndpoint) -> None:
    with connected(served) as client, client.pipeline() as pipeline:
        first = client.execute("select 1")
        pipeline.sync()
        second = client.execute("select nope")
        with pytest.raises(psycopg.errors.UndefinedColumn):
            pipeline.sync()
        del second
        third = client.execute("select 3")
        pipeline.sync()
        assert (first.fetchone(), third.fetchone()) == ((1,), (3,))


def test_asyncpg_reads_writes_and_introspects(served: SqlEndpoint) -> None:
    async def main() -> None:
        client = await asyncpg.connect(
            host="127.0.0.1", port=served.port, user="ana", database="boucle", ssl=False
        )
        rows = await client.fetch(
            "select at, samples from features where value >= $1 and machine = any($2) order by at limit $3",
            0.0,
            ["press-1"],
            1,
        )
        assert [tuple(row) for row in rows] == [(FIRST, [0.5, 0.5, 0.5])]
        row = await client.fetchrow(EVERYTHING)
        for given, wanted in zip(row, VALUES, strict=True):
            assert given == wanted or isinstance(wanted, dict | list)
        assert await client.fetchval("select $1::int[]", [1, 2]) == [1, 2]
        assert await client.fetchval("select $1", "text is what is not said") == "text is what is not said"
        async with client.transaction():
            assert len([one async for one in client.cursor("select i from range(1000) t(i)")]) == 1000
        assert len(await client.fetch("select * from range(100000)")) == 100_000
        with pytest.raises(asyncpg.UndefinedColumnError):
            await client.fetch("select nope from features")
        with pytest.raises(TimeoutError):
            await client.fetch(
                "select count(*) from range(100000000) a, range(100000) b where a.range * b.range = 7",
                timeout=0.3,
            )
        assert await client.fetchval("select current_user") == "ana"
        await client.reset()
        await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_sqlalchemy_reflects_and_asks(served: SqlEndpoint, driver: str) -> None:
    engine = sa.create_engine(f"postgresql+{driver}://ana@127.0.0.1:{served.port}/boucle")
    look = sa.inspect(engine)
    assert {"raw", "silver", "gold"} <= set(look.get_schema_names())
    assert look.get_table_names("silver") == ["features"]
    assert look.get_view_names("silver") == []
    assert look.has_table("features", "silver")
    assert look.get_pk_constraint("features", "silver")["constrained_columns"] == ["machine", "at"]
    assert look.get_table_comment("features", "silver")["text"] == "One row per machine and second."
    for ask in (
        look.get_foreign_keys,
        look.get_indexes,
        look.get_unique_constraints,
        look.get_check_constraints,
    ):
        assert ask("features", "silver") == []
    columns = {one["name"]: one for one in look.get_columns("features", "silver")}
    assert (str(columns["at"]["type"]), columns["at"]["nullable"]) == ("TIMESTAMP", False)
    assert columns["value"]["comment"] == "how much it shakes [mm/s]"
    meta = sa.MetaData()
    meta.reflect(engine, schema="silver")
    table = meta.tables["silver.features"]
    with engine.connect() as client:
        asked = (
            sa.select(table.c.machine, sa.func.count())
            .where(table.c.value > 0.5)
            .group_by(table.c.machine)
            .order_by(table.c.machine)
        )
        assert [tuple(row) for row in client.execute(asked)] == [("press-1", 1), ("press-2", 2)]
        stream = client.execution_options(stream_results=True).execute(sa.text("select * from range(5000)"))
        assert len(stream.fetchall()) == 5000
    engine.dispose()


def test_jdbc(served: SqlEndpoint, tmp_path: Path) -> None:
    java = shutil.which("java")
    if java is None:
        pytest.skip("there is no Java: apt-get install default-jdk-headless")
    if not JAR.exists():
        maven = shutil.which("mvn")
        if maven is None:
            pytest.skip(f"no JDBC driver: put it at build/jdbc/{JAR.name}, or apt-get install maven")
        what = "-Dartifact=org.postgresql:postgresql:42.7.4"
        subprocess.run(
            [maven, "-q", "-B", "dependency:copy", what, f"-DoutputDirectory={JAR.parent}"],
            check=False,
            capture_output=True,
            timeout=200,
        )
        if not JAR.exists():
            pytest.skip("Maven could not fetch org.postgresql:postgresql:42.7.4")
    where = f"jdbc:postgresql://127.0.0.1:{served.port}/boucle?sslmode=disable"
    program = str(Path(__file__).with_name("Jdbc.java"))
    with connected(served) as client:
        asked = [*questions(client, "metabase"), *questions(client, "dbeaver"), *questions(client, "grafana")]
    told_to = tmp_path / "questions"
    told_to.write_text("\x1e".join(f"{one['name']}\x1f{one['least']}\x1f{one['sql']}" for one in asked))
    done = subprocess.run(
        [java, "-cp", str(JAR), program, where, "ana", "none", str(told_to)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert told["catalogs"] == "[boucle]"
    assert told["tables"] == "[features One row per machine and second.]"
    assert told["columns"].startswith(
        "[machine text NO, sensor text YES, at timestamptz NO, value float8 YES, samples _float4 YES"
    )
    assert (told["asked"], told["wrong"]) == (str(len(asked)), "[]")  # what Metabase and DBeaver ask beside
    assert told["everyTable"] == "[raw vibration, silver features]"
    assert told["someSchemas"] == "[silver]"
    assert told["privileges"] == "[SELECT]"
    assert told["best"] == "[machine, at]"
    assert (told["schema"], told["isolation"], told["tableTypes"]) == ("gold", "true", "true")
    assert told["keys"] == "[machine 1, at 2]"
    assert told["indexes"] == "[features_pkey machine, features_pkey at]"
    rounds = {told[f"round{number}"] for number in range(8)}  # text, then binary
    assert rounds == {"press-1 2026-01-01T00:00:01.123456Z 2.0 7 12.50 true 2026-01-02 [2.5, 2.5, 2.5]"}
    assert told["fetched"] == f"100000 {sum(range(100_000))}"
    assert (told["refused"], told["timeout"], told["after"]) == ("42703", "57014", "1 true")
