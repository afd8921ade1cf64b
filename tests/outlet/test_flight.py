"""Arrow Flight SQL as the ADBC driver sees it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as driver
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from pyarrow import flight

from boucle.catalog.usage import Usage
from boucle.errors import BoucleError
from boucle.lake.sql import Sql
from boucle.outlet.flight import FlightEndpoint
from boucle.outlet.users import Users, add_user
from boucle.outlet.uses import Uses
from tests.outlet.served import ABOUT, make_lake
from tests.outlet.test_sql_session import pair

__all__ = ["pair"]


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sql]:
    opened = Sql(make_lake(tmp_path_factory.mktemp("lake")), "1GB", postgres=True)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(sql: Sql) -> Iterator[FlightEndpoint]:
    with FlightEndpoint(sql, about=ABOUT) as running:
        yield running


def asked(served: FlightEndpoint, query: str, values: Any = None) -> list[tuple[Any, ...]]:
    with driver.connect(served.uri, autocommit=True) as client, client.cursor() as cursor:
        cursor.execute(query, values)
        return list(cursor.fetchall())


def test_questions_are_answered(served: FlightEndpoint) -> None:
    assert asked(served, "select machine, value from features order by at limit 2") == [
        ("press-1", 0.0),
        ("press-2", 1.0),
    ]
    assert asked(
        served, "select machine from features where value > $1 and machine = $2", (0.5, "press-1")
    ) == [("press-1",)]
    assert asked(served, "explain select 1")[0][0] == "physical_plan"


def test_a_million_rows_arrive(served: FlightEndpoint) -> None:
    with driver.connect(served.uri, autocommit=True) as client, client.cursor() as cursor:
        cursor.execute("select i, i * 1.5::double as half, 'm' || (i % 7) as name from range(1000000) t(i)")
        table = cursor.fetch_arrow_table()
    assert len(table) == 1_000_000
    assert table.column("half")[123_456].as_py() == 185_184.0


def test_tables_types_keys_and_facts_are_told(served: FlightEndpoint) -> None:
    with driver.connect(served.uri, autocommit=True) as client:
        assert client.adbc_get_table_types() == ["TABLE"]
        assert client.adbc_get_info()["vendor_name"] == "boucle"
        assert client.adbc_get_table_schema("features", db_schema_filter="silver").names[:3] == [
            "machine",
            "sensor",
            "at",
        ]
        (catalog,) = client.adbc_get_objects(depth="all").read_all().to_pylist()
    tables = {
        table["table_name"]: table
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    }
    assert set(tables) == {"features", "vibration"}
    assert [one["column_name"] for one in tables["features"]["table_columns"]][-1] == "day"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("select nope from features", "B512"),
        ("select * from nope", "B511"),
        ("selec", "B513"),
        ("drop table features", "B510"),
        ("select 'x'::int", "B513"),
    ],
)
def test_refusals_are_told_and_leak_no_path_of_the_lake(
    served: FlightEndpoint, sql: Sql, query: str, code: str
) -> None:
    with pytest.raises(driver.Error, match=code) as refused:
        asked(served, query)
    assert str(sql.lake) not in str(refused.value)
    assert asked(served, "select 1") == [(1,)]


def test_users_log_in_once_and_go_on_with_a_token(sql: Sql, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    add_user(tmp_path / "users", "ana", "secret")
    usage = Usage(tmp_path / "usage.sqlite")
    uses = Uses(usage, "press", sql)
    with FlightEndpoint(sql, users=Users(tmp_path / "users"), certificate=pair, uses=uses) as running:
        login = {
            "username": "ana",
            "password": "secret",
            DatabaseOptions.TLS_ROOT_CERTS.value: pair[0].read_text(),
        }
        with (
            driver.connect(running.uri, db_kwargs=login, autocommit=True) as client,
            client.cursor() as cursor,
        ):
            cursor.execute("select count(*) from features")
            assert cursor.fetchone() == (4,)
        with pytest.raises(driver.Error, match="B831"):
            driver.connect(
                running.uri, db_kwargs={**login, "password": "wrong"}, autocommit=True
            ).cursor().execute("select 1")
    assert [(one.name, one.who, one.via, one.times) for one in usage.used("press")] == [
        ("features", "ana", "flight", 1)
    ]
    usage.close()


def test_beyond_this_machine_users_and_tls_are_needed(sql: Sql) -> None:
    with pytest.raises(BoucleError, match="B841"):
        FlightEndpoint(sql, host="0.0.0.0")


def test_foreign_bytes_are_refused(served: FlightEndpoint) -> None:
    client = flight.connect(served.uri.replace("grpc", "grpc+tcp"))
    for command in (b"", b"\xff" * 20, b"\x0a\x05hello"):
        with pytest.raises(pa.ArrowInvalid, match="B850"):
            client.get_flight_info(flight.FlightDescriptor.for_command(command))
    with pytest.raises(pa.ArrowInvalid, match="B850"):
        list(client.do_action(flight.Action("BeginTransaction", b"")))
    client.close()
