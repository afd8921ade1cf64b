"""REST, events and files: what a program that speaks HTTP, and one that reads folders, gets of a product."""

import base64
import csv
import io
import itertools
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from boucle.address import parse_address
from boucle.bus.memory import MemorySink
from boucle.catalog.usage import Usage
from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql
from boucle.outlet.cloudevents import events, publish
from boucle.outlet.export import export, verify
from boucle.outlet.rest import create_rest
from boucle.outlet.users import Users, add_user
from boucle.outlet.uses import Uses
from boucle.testing.conformance.table import readings
from boucle.web.server import serve
from tests.outlet.served import ABOUT, make_lake, numbered
from tests.outlet.test_sql_session import pair

__all__ = ["pair"]

ROWS = "/products/press/tables/features/rows"
MANY = "/products/press/tables/numbered/rows"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_lake(tmp_path_factory.mktemp("lake"))
    LakeTable(folder / "gold" / "numbered").append(numbered(50))
    return folder


@pytest.fixture(scope="module")
def sql(lake: Path) -> Iterator[Sql]:
    opened = Sql(lake, "1GB", postgres=True)
    yield opened
    opened.close()


@contextmanager
def served(app: Any) -> Iterator[httpx.Client]:
    """A real server on a free port, and who asks it."""
    with serve(app, port=0) as running, httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def web(sql: Sql) -> Iterator[httpx.Client]:
    with served(create_rest(sql, "press", title="The press", version="1.2.0", about=ABOUT)) as client:
        yield client


def told(web: httpx.Client, path: str, **asked: Any) -> Any:
    answer = web.get(path, params=asked or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_reader_finds_the_way_from_the_front_door(web: httpx.Client) -> None:
    (product,) = told(web, "/")["products"]
    tables = told(web, product["href"])["tables"]
    assert [(one["name"], one["zone"], one["rows"]) for one in tables] == [
        ("features", "silver", 4), ("numbered", "gold", 50), ("vibration", "raw", 6),
    ]  # fmt: skip
    table = told(web, tables[0]["href"])
    assert table["key"] == ["machine", "at"]
    assert {"name": "value", "type": "double", "description": "how much it shakes"} in table["columns"]
    page = told(web, table["rows"], order="at", limit=1, select="machine,at,value,samples")
    assert page["rows"] == [
        {"machine": "press-1", "at": "2025-12-31T23:59:59.123456Z", "value": 0.0, "samples": [0.5, 0.5, 0.5]}
    ]


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({"number": "lt.3"}, [0, 1, 2]),
        ({"number": "ge.48"}, [48, 49]),
        ({"number": "in.(7,9,400)"}, [7, 9]),
        ({"number": "lt.9", "machine": "eq.press-1"}, [1, 4, 7]),
        ({"share": "is.null", "number": "le.10"}, [0, 5, 10]),
        ({"share": "not.is.null", "number": "lt.3"}, [1, 2]),
        ({"machine": "like.*-2", "number": "lt.6"}, [2, 5]),
        ({"machine": "not.like.press-*"}, []),
        ({"at": "lt.2026-01-01T00:00:01Z"}, [0, 1]),
        ({"machine": "eq.'; drop table x; --"}, []),
    ],
)
def test_filters(web: httpx.Client, asked: dict[str, str], numbers: list[int]) -> None:
    page = told(web, MANY, order="number", **asked)
    assert [row["number"] for row in page["rows"]] == numbers
    assert page["next"] is None


@settings(max_examples=15)
@given(
    st.integers(4, 20),
    st.lists(
        st.sampled_from(["at", "share.desc", "machine", "number.desc", "share"]),
        max_size=3,
        unique_by=lambda one: one.split(".")[0],
    ),
)
def test_pages_are_the_whole_without_gap_or_double(web: httpx.Client, limit: int, order: list[str]) -> None:
    whole = told(web, MANY, limit=1000, order=",".join(order), select="number")["rows"]
    rows, following = [], f"{MANY}?limit={limit}&order={','.join(order)}&select=number"
    while following:
        page = told(web, following)
        rows += page["rows"]
        following = page["next"]
    assert rows == whole
    assert len({row["number"] for row in rows}) == 50


def test_pages_stay_at_their_version(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    table = LakeTable(lake / "gold" / "numbered")
    table.append(numbered(10))
    with served(create_rest(Sql(lake, postgres=True), "press")) as web:
        first = told(web, MANY, limit=6, order="number")
        table.append(numbered(10))
        second = told(web, first["next"])
        assert [row["number"] for row in second["rows"]] == [6, 7, 8, 9]
        assert second["version"] == first["version"] < table.version
        assert len(told(web, MANY)["rows"]) == 20
        assert len(told(web, MANY, version=first["version"])["rows"]) == 10


def test_four_forms(web: httpx.Client) -> None:
    def asked(accept: str) -> Any:
        answer = web.get(MANY, params={"order": "number", "limit": 2}, headers={"accept": accept})
        assert answer.status_code == 200
        assert 'rel="next"' in answer.headers["link"]
        return answer

    lines = asked("application/x-ndjson").text.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1]
    assert [
        row["number"] for row in csv.DictReader(io.StringIO(asked("text/csv;q=0.9, image/png").text))
    ] == ["0", "1"]
    table = pa.ipc.open_stream(asked("application/vnd.apache.arrow.stream").content).read_all()
    assert table.column("number").to_pylist() == [0, 1]
    assert asked("*/*").json()["rows"][1]["number"] == 1
    assert web.get(MANY, headers={"accept": "image/png"}).status_code == 406


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{MANY}?nope=eq.1", 400, "B852"),
        (f"{MANY}?number=1", 400, "B852"),
        (f"{MANY}?number=eq.x", 400, "B513"),
        (f"{MANY}?number=like.1*", 400, "B852"),
        (f"{MANY}?share=is.5", 400, "B852"),
        (f"{MANY}?number=in.5", 400, "B852"),
        (f"{MANY}?limit=0", 400, "B852"),
        (f"{MANY}?limit=many", 400, "B852"),
        (f"{MANY}?order=number.up", 400, "B852"),
        (f"{ROWS}?order=samples", 400, "B852"),
        (f"{MANY}?select=number,nope", 400, "B852"),
        (f"{MANY}?cursor=rubbish", 400, "B852"),
        (f"{MANY}?version=99", 410, "B505"),
        (f"{MANY}?version=-1", 400, "B852"),
        ("/products/press/tables/nope/rows", 404, "B511"),
        ("/nowhere", 404, None),
    ],
)
def test_errors_are_problem_documents(web: httpx.Client, path: str, status: int, code: str | None) -> None:
    answer = web.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert answer.json().get("code") == code


@given(
    st.dictionaries(
        st.sampled_from(
            ["number", "machine", "share", "at", "select", "order", "limit", "cursor", "version", "x"]
        ),
        st.one_of(
            st.text(max_size=20),
            st.sampled_from(["eq.1", "in.(1,2)", "is.null", "not.gt.2", "like.*", "at.desc"]),
        ),
    )
)
def test_any_question_is_answered_or_refused(web: httpx.Client, asked: dict[str, str]) -> None:
    answer = web.get(MANY, params=asked)
    assert answer.status_code in {200, 400, 410}, answer.text


def test_the_openapi_document_is_valid_and_says_what_the_contract_says(web: httpx.Client) -> None:
    document = told(web, "/products/press/openapi.json")
    validate(document)
    row = document["components"]["schemas"]["features"]
    assert row["properties"]["value"] == {
        "type": ["number", "null"],
        "description": "how much it shakes [mm/s]",
    }
    assert row["properties"]["at"]["format"] == "date-time"
    page = told(web, ROWS, limit=1)
    assert set(page["rows"][0]) <= set(row["properties"])


def test_users_are_asked_for_their_password(sql: Sql, tmp_path: Path) -> None:
    add_user(tmp_path / "users", "ana", "secret")
    with served(create_rest(sql, "press", users=Users(tmp_path / "users"))) as web:
        refused = web.get(ROWS)
        assert (refused.status_code, refused.json()["code"]) == (401, "B854")
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert web.get(ROWS, auth=("ana", "wrong")).status_code == 401
        assert web.get(ROWS, auth=("ana", "secret")).status_code == 200
        token = web.post("/token", auth=("ana", "secret")).json()["access_token"]
        assert web.get(ROWS, headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert web.get(ROWS, headers={"authorization": "Bearer x"}).status_code == 401
        assert (
            web.get(
                ROWS, headers={"authorization": "Basic " + base64.b64encode(b"\xff").decode()}
            ).status_code
            == 401
        )


def test_over_tls_and_who_reads_is_counted(sql: Sql, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    add_user(tmp_path / "users", "ana", "secret")
    usage = Usage(tmp_path / "usage.sqlite")
    uses = Uses(usage, "press", sql)
    app = create_rest(sql, "press", users=Users(tmp_path / "users"), uses=uses)
    with serve(app, port=0, certificate=pair) as running:
        assert running.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(pair[0]))
        with httpx.Client(base_url=running.url, verify=trusted, trust_env=False, timeout=30) as web:
            token = web.post("/token", auth=("ana", "secret")).json()["access_token"]
            for login in ({"auth": ("ana", "secret")}, {"headers": {"authorization": f"Bearer {token}"}}):
                assert web.get(ROWS, **login).status_code == 200
    assert [(one.name, one.who, one.via, one.times, one.rows) for one in usage.used("press")] == [
        ("features", "ana", "rest", 2, 8)
    ]
    usage.close()


def test_only_declared_tables_are_shown(sql: Sql) -> None:
    with served(create_rest(sql, "press", shown=["features"])) as web:
        assert web.get(ROWS).status_code == 200
        assert web.get(MANY).status_code == 404


def test_new_rows_are_told_as_they_come(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "gold" / "numbered")
    table.append(numbered(2))
    path = "/products/press/tables/numbered/events"
    with served(create_rest(Sql(tmp_path, postgres=True), "press")) as web:
        with web.stream("GET", path, params={"since": table.version}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            table.append(numbered(3))
            lines = stream.iter_lines()
            told = [
                json.loads(line[6:])
                for line in itertools.islice((one for one in lines if one.startswith("data: ")), 3)
            ]
        assert [one["data"]["number"] for one in told] == [0, 1, 2]
        with web.stream("GET", path, headers={"last-event-id": f"{table.version - 1}.1"}) as stream:
            again = next(line for line in stream.iter_lines() if line.startswith("id: "))
        assert again == f"id: {told[0]['id']}"


def test_rows_are_cloudevents_each_once_with_its_own_id(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "raw" / "vibration")
    table.append(readings(0, 3))
    start = table.version
    table.append(readings(3, 2))
    table.append(readings(5, 2))
    table.compact()  # joined files are no news
    found = [json.loads(payload) for _, payload in events(table, "press", start)]
    assert len(found) == 4
    assert len({one["id"] for one in found}) == 4
    assert {one["specversion"] for one in found} == {"1.0"}
    assert found[0]["type"] == "boucle.press.vibration.row"
    assert found[0]["data"]["machine"].startswith("press-")
    assert [one["id"] for one in found] == [
        json.loads(payload)["id"] for _, payload in events(table, "press", start)
    ]


def test_events_go_to_a_topic_through_a_sink(tmp_path: Path) -> None:
    table = LakeTable(tmp_path / "raw" / "vibration")
    table.append(readings(0, 3))
    sink = MemorySink(parse_address("memory://events", "sink"))
    sink.open()
    upto = publish(table, "press", "press/rows", sink, -1)
    assert upto == table.version
    assert publish(table, "press", "press/rows", sink, upto) == upto
    rows = pa.Table.from_batches([block.rows for block in sink.blocks])
    assert rows.column("topic").to_pylist() == ["press/rows"] * 3
    assert json.loads(rows.column("payload")[0].as_py())["data"]["value"] == 0.0


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_version_becomes_files_with_checksums(sql: Sql, lake: Path, tmp_path: Path, form: str) -> None:
    table = LakeTable(lake / "gold" / "numbered")
    manifest = export(sql, table, tmp_path, form)
    place = tmp_path / "numbered" / str(table.version)
    assert (manifest["rows"], manifest["version"], verify(place)) == (50, table.version, [])
    (file,) = manifest["files"]
    path = place / file["name"]
    if form == "parquet":
        assert sorted(pq.read_table(path).column("number").to_pylist()) == list(range(50))
    else:
        assert sorted(int(row["number"]) for row in csv.DictReader(io.StringIO(path.read_text()))) == list(
            range(50)
        )
    assert export(sql, table, tmp_path, form) == manifest
    path.write_bytes(path.read_bytes()[:-1])
    assert verify(place) == [f"{file['name']} is not what was written"]
    path.unlink()
    assert verify(place) == [f"{file['name']} is missing"]
    assert verify(tmp_path)[0].startswith("manifest.json cannot be read")


def test_what_cannot_be_exported_says_why(sql: Sql, lake: Path, tmp_path: Path) -> None:
    table = LakeTable(lake / "gold" / "numbered")
    for how, code in (({"form": "xlsx"}, "B855"), ({"version": 99}, "B505")):
        with pytest.raises(BoucleError, match=code):
            export(sql, table, tmp_path, **how)
    (tmp_path / "file").write_text("")
    with pytest.raises(BoucleError, match="B856"):
        export(sql, table, tmp_path / "file")
