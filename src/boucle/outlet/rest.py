"""REST: pages of a product's tables over HTTP, with an OpenAPI document made of the contract.

/                                             which product
/products/{id}                                its tables
/products/{id}/openapi.json                   OpenAPI 3.1
/products/{id}/tables/{name}                  columns, version
/products/{id}/tables/{name}/rows             rows: filters, order, pages at one version, four forms
/products/{id}/tables/{name}/events           rows as they come, CloudEvents over Server-Sent Events
/token                                        POST: a bearer token for a name and a password

Errors are problem documents (RFC 9457) that carry our code and the fix.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.sql import Sql
from boucle.outlet.filters import Page, Question, cursor_of, question, read_cursor
from boucle.outlet.notes import TableNote
from boucle.outlet.openapi import MEDIA, document
from boucle.outlet.tokens import VALID_S, Tokens
from boucle.outlet.users import Users
from boucle.outlet.uses import Uses

__all__ = ["create_rest"]

_STATUS = {
    "B505": 410,
    "B511": 404,
    "B525": 410,
    "B852": 400,
    "B853": 406,
    "B854": 401,
    "B512": 400,
    "B513": 400,
}


def create_rest(
    sql: Sql,
    product: str,
    *,
    title: str = "",
    version: str = "",
    about: Mapping[str, TableNote] | None = None,
    shown: Sequence[str] = (),
    users: Users | None = None,
    uses: Uses | None = None,
) -> Starlette:
    """The interface of one product. `shown` are the tables to be seen (none: all); `users` who may ask (None: all)."""
    pages = _Pages(
        sql, product, title, version, dict(about or {}), tuple(shown), Tokens(users) if users else None, uses
    )
    home = f"/products/{product}"
    return Starlette(
        routes=[
            Route("/", pages.home),
            Route("/token", pages.token, methods=["POST"]),
            Route(home, pages.product),
            Route(f"{home}/openapi.json", pages.openapi),
            Route(f"{home}/tables/{{name}}", pages.table),
            Route(f"{home}/tables/{{name}}/rows", pages.rows),
            Route(f"{home}/tables/{{name}}/events", pages.events),
        ],
        exception_handlers={BoucleError: _failed, HTTPException: _refused},
    )


class _Pages:
    def __init__(
        self, sql: Sql, product: str, title: str, version: str, about: dict[str, TableNote], shown: tuple[str, ...],
        tokens: Tokens | None, uses: Uses | None,
    ) -> None:  # fmt: skip
        self.uses = uses
        self.sql, self.id, self.title, self.version = sql, product, title, version
        self.about, self.shown, self.tokens = about, shown, tokens

    def allow(self, request: Request) -> str:
        """Who asks ("" where anybody may); B854 when it is nobody known."""
        if self.tokens is None:
            return ""
        who = self.tokens.who(request.headers.get("authorization", ""))
        if who is None:
            raise BoucleError(
                "B854", "this needs a name and a password", fix="Authorization: Basic … or Bearer …"
            )
        return who

    def tables(self) -> dict[str, LakeTable]:
        """The tables that are shown, by name; the most refined zone of a name wins."""
        found = {table.name: table for table in self.sql.tables()}
        return {name: table for name, table in found.items() if not self.shown or name in self.shown}

    def one(self, request: Request) -> LakeTable:
        name, tables = request.path_params["name"], self.tables()
        if name not in tables:
            raise BoucleError(
                "B511", f'there is no table "{name}"', fix=f"known: {', '.join(sorted(tables))}"
            )
        return tables[name]

    def home(self, _: Request) -> Response:
        return JSONResponse(
            {"products": [{"id": self.id, "title": self.title, "href": f"/products/{self.id}"}]}
        )

    def token(self, request: Request) -> Response:
        token = self.tokens.login(request.headers.get("authorization", "")) if self.tokens else None
        if token is None:
            raise BoucleError(
                "B854",
                "name and password do not belong together, or were not given",
                fix="Authorization: Basic …",
            )
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": int(VALID_S)})

    def product(self, request: Request) -> Response:
        self.allow(request)
        home = f"/products/{self.id}"
        tables = [
            {"name": name, "zone": table.zone, "version": table.version, "rows": table.rows,
             "description": self.about.get(name, TableNote()).description, "href": f"{home}/tables/{name}"}
            for name, table in sorted(self.tables().items())
        ]  # fmt: skip
        return JSONResponse(
            {
                "id": self.id,
                "title": self.title,
                "version": self.version,
                "openapi": f"{home}/openapi.json",
                "tables": tables,
            }
        )

    def openapi(self, _: Request) -> Response:
        tables = {
            name: (_shown(table), self.about.get(name, TableNote()))
            for name, table in sorted(self.tables().items())
        }
        return JSONResponse(document(self.id, self.version, self.title, tables, self.tokens is not None))

    def table(self, request: Request) -> Response:
        self.allow(request)
        table = self.one(request)
        note = self.about.get(table.name, TableNote())
        columns = [
            {"name": field.name, "type": str(field.type),
             "description": note.columns[field.name].description if field.name in note.columns else ""}
            for field in _shown(table)
        ]  # fmt: skip
        rows = f"/products/{self.id}/tables/{table.name}/rows"
        told = {
            "name": table.name,
            "zone": table.zone,
            "version": table.version,
            "description": note.description,
        }
        return JSONResponse({**told, "key": list(note.key), "columns": columns, "rows": rows})

    def rows(self, request: Request) -> Response:
        who = self.allow(request)
        media = _media(request.headers.get("accept", ""))
        table = self.one(request)
        given = request.query_params
        page = read_cursor(given["cursor"]) if given.get("cursor") else None
        version = page.version if page else _version(given.get("version", ""), table)
        place = self.sql.session()
        try:
            relation = self.sql.at(table, version)
            shape = place.bind(f"SELECT * FROM {relation}")  # noqa: S608 - paths of the lake, quoted
            kinds = {
                name: kind
                for name, kind in zip(shape.names, shape.types, strict=True)
                if name not in {"_file", "_row"}
            }
            asked = question(given.multi_items(), kinds, page)
            text = (
                f"SELECT {asked.select} FROM {relation} WHERE {asked.where} "  # noqa: S608 - quoted names, values apart
                f"ORDER BY {asked.order_by} LIMIT {asked.limit + 1}"
            )
            answer = place.read(text, asked.values)
            found = pa.Table.from_batches(answer.rows, answer.schema)
        finally:
            place.close()
        return self.page(request, version, asked, found, media, who)

    def page(
        self, request: Request, version: int, asked: Question, found: pa.Table, media: str, who: str
    ) -> Response:
        following = None
        if len(found) > asked.limit:
            found = found.slice(0, asked.limit)
            after = [found.column(name)[-1].as_py() for name in asked.sorted_by]
            kept = [
                (name, value)
                for name, value in request.query_params.multi_items()
                if name not in {"cursor", "version", "order"}
            ]
            cursor = cursor_of(Page(version, asked.order, after))
            following = f"{request.url.path}?{urlencode([*kept, ('cursor', cursor)])}"
        if self.uses is not None:
            self.uses.table(request.path_params["name"], who, "rest", len(found))
        rows = found.select(range(len(asked.columns))).rename_columns(list(asked.columns))
        headers = {"x-table-version": str(version), "vary": "Accept, Authorization"}
        if following:
            headers["link"] = f'<{following}>; rel="next"'
        return Response(_body(rows, media, version, following), media_type=media, headers=headers)

    def events(self, request: Request) -> Response:
        from boucle.outlet.cloudevents import live

        who = self.allow(request)
        table = self.one(request)
        since = request.headers.get("last-event-id", "").partition(".")[0] or request.query_params.get(
            "since", ""
        )
        start = _version(since, table) if since else table.version
        if self.uses is not None:
            self.uses.table(table.name, who, "events", 0)
        return StreamingResponse(
            live(table, self.id, start, request.is_disconnected), media_type="text/event-stream"
        )


def _shown(table: LakeTable) -> pa.Schema:
    schema = table.schema
    split = {f"{name}_ns" for name in schema.names}
    return pa.schema([field for field in schema if field.name not in split])


def _version(text: str, table: LakeTable) -> int:
    if not text:
        return table.version
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BoucleError("B852", f"{text!r} is no version", fix=f"a number up to {table.version}")
    return int(text)


def _media(accept: str) -> str:
    """The form the client likes best of those there are; B853 when it likes none."""
    if not accept:
        return MEDIA[0]
    wanted = []
    for index, one in enumerate(accept.split(",")):
        kind, *options = [part.strip() for part in one.split(";")]
        weight = next((part[2:] for part in options if part.startswith("q=")), "1")
        try:
            wanted.append((-float(weight), index, kind.lower()))
        except ValueError:
            continue
    for place, _, name in sorted(wanted):
        found = [media for media in MEDIA if name in {media, "*/*", f"{media.partition('/')[0]}/*"}]
        if found and place < 0:
            return found[0]
    raise BoucleError("B853", f"rows are not given as {accept}", fix=f"Accept: {', '.join(MEDIA)}")


def _body(rows: pa.Table, media: str, version: int, following: str | None) -> bytes:
    if media == MEDIA[3]:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        return sink.getvalue()
    if media == MEDIA[2]:
        return _csv(rows)
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows.to_pylist()]
    if media == MEDIA[1]:
        return b"".join(msgspec.json.encode(row) + b"\n" for row in plain)
    return msgspec.json.encode({"version": version, "rows": plain, "next": following})


def _csv(rows: pa.Table) -> bytes:
    """Rows as CSV (RFC 4180): lists and structs as JSON, times as text."""
    columns = [_as_text(column) if _nested(column.type) else column for column in rows.columns]
    sink = io.BytesIO()
    pa_csv.write_csv(pa.table(columns, names=rows.column_names), sink)
    return sink.getvalue()


def _nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind))


def _as_text(column: pa.ChunkedArray) -> pa.Array:
    values = column.to_pylist()
    return pa.array(
        [None if one is None else msgspec.json.encode(_plain(one)).decode() for one in values], pa.string()
    )


def _plain(value: Any) -> Any:
    """A value JSON has: what is not a number becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def _problem(status: int, code: str, title: str, detail: str, fix: str) -> Response:
    told = {
        "type": f"urn:boucle:{code or status}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "fix": fix,
    }
    headers = {"www-authenticate": 'Basic realm="boucle", Bearer'} if status == 401 else None
    return Response(
        msgspec.json.encode({name: value for name, value in told.items() if value}),
        status,
        headers,
        "application/problem+json",
    )


def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, BoucleError)
    status = 503 if error.retryable else _STATUS.get(error.code, 500)
    return _problem(status, error.code, error.what, error.why, error.fix)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, "", str(error.detail), "", "")
