"""The SQL endpoint: who gets in, what is refused, what a session keeps, what it survives."""

import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.outlet.endpoint import SqlEndpoint, tls_context
from boucle.outlet.session import Limits
from boucle.outlet.users import Users, add_user
from boucle.testing.conformance.table import readings
from tests.outlet.served import connected, endpoint, make_lake

SLOW = "select count(*) from range(100000000) a, range(100000) b where a.range * b.range = 7"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def served(lake: Path) -> Iterator[SqlEndpoint]:
    with endpoint(lake) as running:
        yield running


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "server.pem", folder / "server.key"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", names, "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return pem, key


@pytest.fixture
def users(tmp_path: Path) -> Users:
    add_user(tmp_path / "users", "ana", "pässwörd ½")
    add_user(tmp_path / "users", "bob", "other")
    return Users(tmp_path / "users")


def test_passwords_are_checked_and_never_stored(lake: Path, users: Users) -> None:
    text = users.file.read_text()
    assert "pässwörd" not in text
    assert text.count("SCRAM-SHA-256$4096:") == 2
    assert users.file.stat().st_mode & 0o077 == 0
    with endpoint(lake, users=users) as running:
        with connected(running, password="pässwörd ½") as client:
            assert client.execute("select current_user").fetchone() == ("ana",)
        for user, password in (("ana", "wrong"), ("nobody", "other"), ("ana", "")):
            with pytest.raises(psycopg.OperationalError, match="password"):
                connected(running, user=user, password=password)
        add_user(users.file, "ana", "changed")  # seen without a restart
        connected(running, password="changed").close()


def test_tls_is_required_where_there_is_a_certificate(lake: Path, pair: tuple[Path, Path]) -> None:
    with endpoint(lake, certificate=tls_context(*pair)) as running:
        with connected(
            running, host="localhost", hostaddr="127.0.0.1", sslmode="verify-full", sslrootcert=str(pair[0])
        ) as client:
            assert client.pgconn.ssl_in_use
            assert client.execute("select count(*) from features").fetchone() == (4,)
        with pytest.raises(psycopg.OperationalError, match="B832"):
            connected(running, sslmode="disable")
        direct = ssl.create_default_context(cafile=str(pair[0]))
        direct.set_alpn_protocols(["postgresql"])
        with direct.wrap_socket(
            socket.create_connection(("127.0.0.1", running.port)), server_hostname="localhost"
        ) as raw:
            raw.sendall(startup(user="ana"))
            assert raw.recv(1) == b"R"
    with endpoint(lake, certificate=tls_context(*pair), tls="allowed") as running:
        connected(running, sslmode="disable").close()


def test_bytes_slipped_in_before_tls_are_refused(lake: Path, pair: tuple[Path, Path]) -> None:
    with (
        endpoint(lake, certificate=tls_context(*pair)) as running,
        socket.create_connection(("127.0.0.1", running.port)) as raw,
    ):
        raw.sendall(struct.pack(">II", 8, 80877103) + startup(user="ana"))
        assert b"B830" in drained(raw)


def test_beyond_this_machine_users_and_tls_are_needed(
    lake: Path, users: Users, pair: tuple[Path, Path]
) -> None:
    for how in (
        {},
        {"users": users},
        {"certificate": tls_context(*pair)},
        {"users": users, "certificate": tls_context(*pair), "tls": "allowed"},
    ):
        with pytest.raises(BoucleError, match="B841"), endpoint(lake, host="0.0.0.0", **how):
            pass
    with pytest.raises(BoucleError, match="B843"):
        tls_context(users.file, users.file)


def test_a_port_in_use_is_told(lake: Path, served: SqlEndpoint) -> None:
    from boucle.lake.sql import Sql

    with pytest.raises(BoucleError, match="B842"):
        SqlEndpoint(Sql(lake), port=served.port).start()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("select nope from features", "42703"),
        ("select * from nope", "42P01"),
        ("selec 1", "42601"),
        ("select foo(1)", "42883"),
        ("select 1 / 0", "22012"),
        ("select 'abc'::int", "22P02"),
        ("select 300::tinyint", "22003"),
        ("select machine, count(*) from features", "42803"),
        ("insert into features values (1)", "42501"),
        ("create table x (a int)", "42501"),
        ("copy features to '/tmp/x.csv'", "42501"),
        ("copy features from stdin", "42501"),
        ("attach 'x.db'", "42501"),
        ("install httpfs", "42501"),
        ("load httpfs", "42501"),
        ("select * from read_csv('/etc/passwd')", "42501"),
        ("select * from read_text('/etc/hostname')", "42501"),
        ("select * from '/etc/passwd'", "42P01"),
        ("explain analyze copy (select 1) to '/tmp/x.csv'", "42501"),
        ("set threads = 1", "42704"),
        ("set memory_limit = '1TB'", "42704"),
        ("set enable_external_access = true", "42704"),
        ("set lock_configuration = false", "42704"),
        ("set client_encoding = 'latin1'", "0A000"),
        ("set datestyle = 'german'", "0A000"),
        ("set server_version = '9'", "55P02"),
        ("set timezone = 'Nowhere/Land'", "22023"),
        ("set statement_timeout = 'soon'", "22023"),
        ("show nothing_such", "42704"),
        ("fetch 1 from nothing", "34000"),
        ("fetch backward 1 from nothing", "0A000"),
        ("declare c cursor for select 1", "25P01"),
        ("deallocate nothing", "26000"),
        ("select 'nope'::regclass", "42P01"),
        ("pragma database_list", "42501"),
        ("call pragma_version()", "42501"),
        ("use raw", "42501"),
    ],
)
def test_what_is_refused_says_why_and_the_session_goes_on(served: SqlEndpoint, text: str, state: str) -> None:
    with connected(served) as client:
        with pytest.raises(psycopg.Error) as refused:
            client.execute(text)
        assert refused.value.sqlstate == state, refused.value
        assert client.execute("select 1").fetchone() == (1,)


def test_the_place_of_a_mistake_is_told(served: SqlEndpoint) -> None:
    with connected(served) as client:
        for text, place in (
            ("select 1,\n  nope from features", "13"),
            ("select * frm features", "14"),
            ("select * from nope", "15"),
        ):
            with pytest.raises(psycopg.Error) as refused:
                client.execute(text)
            assert refused.value.diag.statement_position == place


def test_a_transaction_sees_one_state_and_fails_as_one(tmp_path: Path) -> None:
    lake = make_lake(tmp_path)
    with endpoint(lake) as running, connected(running) as client:

        def count() -> Any:
            row = client.execute("select count(*) from raw.vibration").fetchone()
            assert row is not None
            return row[0]

        client.execute("begin")
        assert count() == 6
        LakeTable(lake / "raw" / "vibration").append(readings(6, 6))
        assert count() == 6
        client.execute("commit")
        assert count() == 12
        client.execute("begin")
        client.execute("savepoint one")
        with pytest.raises(psycopg.errors.UndefinedColumn):
            client.execute("select nope from features")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            client.execute("select 1")
        client.execute("rollback to savepoint one")
        assert count() == 12
        with pytest.raises(psycopg.errors.UndefinedColumn):
            client.execute("select nope from features")
        assert client.execute("commit").statusmessage == "ROLLBACK"
        assert count() == 12


def test_new_versions_and_tables_are_seen_without_breaking_what_runs(tmp_path: Path) -> None:
    lake = make_lake(tmp_path)
    with (
        endpoint(lake) as running,
        connected(running, autocommit=False) as client,
        connected(running) as other,
        client.cursor("slow") as cursor,
    ):
        cursor.execute("select v.value from raw.vibration v, range(2000)")
        assert len(cursor.fetchmany(10)) == 10
        LakeTable(lake / "raw" / "vibration").append(readings(6, 6))
        LakeTable(lake / "gold" / "later").append(readings(0, 1))
        assert other.execute("select count(*) from raw.vibration").fetchone() == (12,)
        assert other.execute("select count(*) from later").fetchone() == (1,)
        assert other.execute(
            "select relname from pg_class where relnamespace = 'gold'::regnamespace"
        ).fetchall() == [("later",)]
        assert len(cursor.fetchall()) == 6 * 2000 - 10


def test_settings_are_kept_for_the_session(served: SqlEndpoint) -> None:
    with connected(served, options="-c search_path=raw -c statement_timeout=5s") as client:
        assert client.execute("show search_path").fetchone() == ("raw",)
        with pytest.raises(psycopg.errors.UndefinedTable):
            client.execute("select count(*) from features")
        client.execute("set search_path to silver, raw")
        assert client.execute("select count(*) from features").fetchone() == (4,)
        client.execute("set time zone 'Europe/Paris'")
        row = client.execute(
            "select date_trunc('day', timestamptz '2026-06-01 23:30:00+00')::date::text"
        ).fetchone()
        assert row == ("2026-06-02",)
        assert client.info.parameter_status("TimeZone") == "Europe/Paris"
        client.execute("set application_name = 'me'")
        assert client.info.parameter_status("application_name") == "me"
        client.execute("discard all")
        assert client.execute("show timezone").fetchone() == ("UTC",)
        assert client.execute("show search_path").fetchone() == ("raw",)
        client.execute("begin")
        client.execute("set local statement_timeout = '1ms'")
        client.execute("rollback")
        assert client.execute("show statement_timeout").fetchone() == ("5s",)


def test_integers_divide_and_nulls_sort_as_in_postgresql(served: SqlEndpoint) -> None:
    with connected(served) as client:
        assert client.execute("select 7 / 2, 7 / 2.0").fetchone() == (3, 3.5)
        assert client.execute("select * from (values (1), (null)) t(a) order by a desc").fetchall() == [
            (None,),
            (1,),
        ]


def test_statements_are_cancelled_and_timed(served: SqlEndpoint) -> None:
    with connected(served) as client:
        threading.Timer(0.3, client.cancel_safe).start()
        begun = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled, match="on request"):
            client.execute(SLOW)
        client.execute("set statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled, match="time"):
            client.execute(SLOW)
        assert client.execute("select 1").fetchone() == (1,)
        assert time.monotonic() - begun < 30
        client.cancel_safe()  # nothing runs: nothing happens
        assert client.execute("select 2").fetchone() == (2,)


def test_a_wrong_secret_cancels_nothing(served: SqlEndpoint) -> None:
    with connected(served) as client:
        row: list[Any] = []
        asking = threading.Thread(
            target=lambda: row.append(client.execute("select sum(i) from range(30000000) t(i)").fetchone())
        )
        asking.start()
        with socket.create_connection(("127.0.0.1", served.port)) as raw:
            raw.sendall(struct.pack(">IIII", 16, 80877102, client.info.backend_pid, 1))
            assert drained(raw) == b""
        asking.join(60)
        assert row == [(sum(range(30_000_000)),)]


def test_limits_hold(lake: Path) -> None:
    with endpoint(lake, limits=Limits(connections=2, message=10_000, statement=0.2, login=0.5)) as running:
        with connected(running) as one, connected(running):
            with pytest.raises(psycopg.OperationalError, match="B833"):
                connected(running)
            with pytest.raises(psycopg.errors.QueryCanceled):
                one.execute(SLOW)
            with pytest.raises(psycopg.OperationalError, match="B834"):
                one.execute("select '" + "x" * 20_000 + "'")
        with socket.create_connection(("127.0.0.1", running.port)) as silent:
            assert drained(silent) == b""  # hung up after the time to log in


def test_memory_is_bounded_and_told(lake: Path) -> None:
    with endpoint(lake, memory="100MB") as running, connected(running) as client:
        with pytest.raises(psycopg.errors.OutOfMemory):
            client.execute("select list(i) from range(20000000) t(i) group by i % 10000000")
        assert client.execute("select 1").fetchone() == (1,)


def test_a_million_rows_arrive(served: SqlEndpoint) -> None:
    with connected(served) as client:
        rows = (
            client.cursor(binary=True)
            .execute("select i, i * 1.5::double, 'm' || (i % 7) from range(1000000) t(i)")
            .fetchall()
        )
        assert len(rows) == 1_000_000
        assert rows[123_456] == (123_456, 185_184.0, f"m{123_456 % 7}")


def test_fifty_clients_at_once(served: SqlEndpoint) -> None:
    failed: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            with connected(served) as client:
                for step in range(4):
                    assert client.execute(
                        "select count(*), %s::int from features where value >= %s", (step, 0)
                    ).fetchone() == (4, step)
                assert client.execute("select sum(i) from range(20000) t(i)").fetchone() == (
                    sum(range(20_000)),
                )
        except (psycopg.Error, AssertionError) as error:
            failed.append(error)

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(60)
    assert failed == []


def test_shutting_down_ends_clients_and_returns(lake: Path) -> None:
    with endpoint(lake) as running:
        client = connected(running)
        told: list[BaseException] = []

        def ask() -> None:
            try:
                client.execute(SLOW)
            except psycopg.Error as error:
                told.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.2)
    asking.join(20)
    assert len(told) == 1


def startup(**parameters: str) -> bytes:
    body = (
        struct.pack(">I", 196608)
        + b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
        + b"\0"
    )
    return struct.pack(">I", len(body) + 4) + body


def drained(raw: socket.socket) -> bytes:
    raw.settimeout(20)
    data = b""
    try:
        while more := raw.recv(65_536):
            data += more
    except ConnectionResetError:
        pass
    return data
