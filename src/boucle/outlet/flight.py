"""Arrow Flight SQL: the same questions, answered in Arrow's own format, for volume.

A ticket holds the question itself, so that nothing is kept between asking and fetching; prepared statements are
kept with their parameters, the oldest forgotten first. `pyarrow.flight` speaks gRPC, `flight_messages` the rest.
"""

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from msgspec import Struct
from pyarrow import flight

from boucle import __version__
from boucle.errors import BoucleError
from boucle.lake.sql import Answer, Sql, SqlRefused
from boucle.outlet.dialect import without_parameters
from boucle.outlet.endpoint import check_exposed
from boucle.outlet.flight_messages import Fields, pack, packed, text, texts, unpack, unpacked
from boucle.outlet.notes import TableNote
from boucle.outlet.tokens import Tokens
from boucle.outlet.users import Users
from boucle.outlet.uses import Uses

__all__ = ["FlightEndpoint"]

_CATALOG = "boucle"
_MOST_KEPT = 1_000
_BATCH = 65_536
_TABLES = pa.schema(
    [
        ("catalog_name", pa.string()),
        ("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("table_type", pa.string(), nullable=False),
    ]
)
_KEYS = pa.schema(
    [
        ("catalog_name", pa.string()),
        ("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("column_name", pa.string(), nullable=False),
        pa.field("key_sequence", pa.int32(), nullable=False),
        ("key_name", pa.string()),
    ]
)
_REFERENCES = pa.schema(
    [
        *[
            (f"{side}_{part}", pa.string())
            for side in ("pk", "fk")
            for part in ("catalog_name", "db_schema_name")
        ],
        *[(f"{side}_{part}", pa.string()) for side in ("pk", "fk") for part in ("table_name", "column_name")],
        ("key_sequence", pa.int32()),
        *[(name, pa.string()) for name in ("fk_key_name", "pk_key_name")],
        *[(name, pa.uint8()) for name in ("update_rule", "delete_rule")],
    ]
)
_INFO: dict[int, str | bool] = {
    0: "boucle",
    1: __version__,
    2: str(pa.__version__),
    3: True,  # read-only
    4: True,  # SQL
    5: False,  # Substrait
    8: False,  # transactions
    504: '"',
    508: True,  # all tables are selectable
}
"""`SqlInfo` by its number in FlightSql.proto."""


class _Prepared(Struct):
    query: str
    values: list[list[Any]]


class FlightEndpoint:
    """Serves the tables of one lake over Flight SQL. Port 0 takes a free one.

    With `users`, a client logs in with name and password and goes on with a token; `certificate` and `key` are PEM
    files (B843). Beyond this machine both are needed (B841).
    """

    def __init__(
        self,
        sql: Sql,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        users: Users | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
        about: Mapping[str, TableNote] | None = None,
        uses: Uses | None = None,
    ) -> None:
        check_exposed(host, users, certificate is not None)
        self.host = host
        self._tls = certificate is not None
        extra: dict[str, Any] = {}
        if certificate is not None:
            extra["tls_certificates"] = [_pair(*certificate)]
        if users is not None:
            extra |= {"auth_handler": _NoHandshake(), "middleware": {"login": _Login(users)}}
        scheme = "grpc+tls" if certificate else "grpc+tcp"
        try:
            self._server = _Server(Questions(sql, about or {}, uses), f"{scheme}://{host}:{port}", **extra)
        except (OSError, pa.ArrowException) as error:
            raise BoucleError(
                "B842",
                f"Flight SQL cannot listen on {host}:{port}",
                why=str(error),
                fix="choose another port, or 0 for a free one",
            ) from error
        self.port = int(self._server.port)

    @property
    def uri(self) -> str:
        """What a Flight SQL driver connects to."""
        return f"{'grpc+tls' if self._tls else 'grpc'}://{self.host}:{self.port}"

    def stop(self) -> None:
        """End what runs and close the port."""
        self._server.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _pair(certificate: str | Path, key: str | Path) -> tuple[bytes, bytes]:
    try:
        return Path(certificate).read_bytes(), Path(key).read_bytes()
    except OSError as error:
        raise BoucleError(
            "B843",
            "the certificate or its key cannot be used",
            where=str(certificate),
            why=str(error),
            fix="two PEM files",
        ) from error


class _NoHandshake(flight.ServerAuthHandler):  # type: ignore[misc]
    """Names and passwords come in headers; gRPC's own handshake has nothing to say."""

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        del outgoing, incoming

    def is_valid(self, token: bytes) -> str:
        del token
        return ""


class _Login(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """`Basic` gives a token, `Bearer` shows it."""

    def __init__(self, users: Users) -> None:
        self._tokens = Tokens(users)

    def start_call(self, info: Any, headers: Mapping[str, Sequence[str]]) -> "_Told":
        del info
        token = self._tokens.login(next(iter(headers.get("authorization", [""]))))
        if token is None:
            raise flight.FlightUnauthenticatedError(
                "B831 name and password do not belong together, or were not given"
            )
        return _Told(token, self._tokens.who(f"Bearer {token}") or "")


class _Told(flight.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, token: str, who: str) -> None:
        self._token, self.who = token, who

    def sending_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"}


def _who(context: Any) -> str:
    """Who logged in for this call; "" where anybody may ask."""
    login = context.get_middleware("login")
    return "" if login is None else str(login.who)


class Questions:
    """What a Flight SQL client may ask, apart from how it asks."""

    def __init__(self, sql: Sql, about: Mapping[str, TableNote], uses: Uses | None = None) -> None:
        self._sql, self._about, self._uses = sql, about, uses
        self._lock = threading.Lock()
        self._prepared: OrderedDict[bytes, _Prepared] = OrderedDict()

    def schema(self, query: str) -> pa.Schema:
        """The columns of an answer, without asking for it."""
        text = without_parameters(query.rstrip().rstrip(";"))
        with closing(self._sql.session()) as place:
            place.bind(text)
            try:
                return place.read(f"SELECT * FROM (\n{text}\n) LIMIT 0").schema  # noqa: S608 - checked as every question
            except SqlRefused:  # EXPLAIN and its like are no tables
                return place.read(text).schema

    def answer(
        self, query: str, values: Sequence[Any] = (), who: str = ""
    ) -> tuple[Answer, Iterator[pa.RecordBatch]]:
        """An answer; its reader is given back when the rows were read."""
        place = self._sql.session()
        try:
            answer = place.read(query, values, _BATCH)
        except BoucleError:
            place.close()
            raise

        def rows() -> Iterator[pa.RecordBatch]:
            with closing(place):
                if self._uses is None:
                    yield from answer.rows
                else:
                    yield from self._uses.counted(query, who, "flight", answer.rows)

        return answer, rows()

    def prepare(self, query: str) -> tuple[bytes, pa.Schema, pa.Schema]:
        """Keep a question; its handle, the columns of its answer and its parameters."""
        with closing(self._sql.session()) as place:
            parameters = place.bind(query).parameters
        handle = secrets.token_bytes(16)
        with self._lock:
            self._prepared[handle] = _Prepared(query, [])
            while len(self._prepared) > _MOST_KEPT:
                self._prepared.popitem(last=False)
        wanted = pa.schema([(f"${number}", _arrow(parameters[number])) for number in sorted(parameters)])
        return handle, self.schema(query), wanted

    def prepared(self, handle: bytes) -> _Prepared:
        """What a handle stands for; B851 when it was forgotten."""
        with self._lock:
            found = self._prepared.get(handle)
        if found is None:
            raise BoucleError("B851", "this prepared statement is not known any more", fix="prepare it again")
        return found

    def forget(self, handle: bytes) -> None:
        """Drop a prepared statement."""
        with self._lock:
            self._prepared.pop(handle, None)

    def bound(self, handle: bytes, who: str = "") -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The answer of a prepared statement, once for each row of parameters."""
        kept = self.prepared(handle)
        if not kept.values:
            answer, rows = self.answer(kept.query, (), who)
            return answer.schema, rows
        answer, rows = self.answer(kept.query, kept.values[0], who)

        def all_rows() -> Iterator[pa.RecordBatch]:
            yield from rows
            for values in kept.values[1:]:
                yield from self.answer(kept.query, values, who)[1]

        return answer.schema, all_rows()

    def told(self, name: str, fields: Fields) -> pa.Table:
        """The metadata commands. B850 for one that is not served."""
        if name == "CommandGetCatalogs":
            return pa.table(
                {"catalog_name": [_CATALOG]},
                pa.schema([pa.field("catalog_name", pa.string(), nullable=False)]),
            )
        if name == "CommandGetTableTypes":
            return pa.table(
                {"table_type": ["TABLE"]}, pa.schema([pa.field("table_type", pa.string(), nullable=False)])
            )
        if name == "CommandGetDbSchemas":
            return self._schemas(fields)
        if name == "CommandGetTables":
            return self._tables(fields)
        if name == "CommandGetPrimaryKeys":
            return self._keys(fields)
        if name in {"CommandGetExportedKeys", "CommandGetImportedKeys", "CommandGetCrossReference"}:
            return _REFERENCES.empty_table()
        if name == "CommandGetSqlInfo":
            return _sql_info(_numbers(fields))
        raise BoucleError("B850", f"{name} is not served", fix="ask with SQL")

    def _named(self) -> dict[tuple[str, str], None]:
        return dict.fromkeys((zone, table) for zone, table, *_ in self._sql.renew())

    def _schemas(self, fields: Fields) -> pa.Table:
        zones = sorted({zone for zone, _ in self._named()})
        found = [
            zone for zone in zones if _like(zone, text(fields, 2)) and text(fields, 1) in {None, _CATALOG}
        ]
        schema = pa.schema(
            [("catalog_name", pa.string()), pa.field("db_schema_name", pa.string(), nullable=False)]
        )
        return pa.table([[_CATALOG] * len(found), found], schema=schema)

    def _tables(self, fields: Fields) -> pa.Table:
        types = texts(fields, 4)
        rows = [
            (zone, table)
            for zone, table in self._named()
            if _like(zone, text(fields, 2)) and _like(table, text(fields, 3)) and text(fields, 1) in {None, _CATALOG}
            and (not types or "TABLE" in types)
        ]  # fmt: skip
        parts: list[list[Any]] = [
            [_CATALOG] * len(rows),
            [zone for zone, _ in rows],
            [name for _, name in rows],
            ["TABLE"] * len(rows),
        ]
        schema = _TABLES
        if fields.get(5, [0])[-1]:
            schema = schema.append(pa.field("table_schema", pa.binary(), nullable=False))
            quoted = [f'SELECT * FROM "{zone}"."{table}"' for zone, table in rows]  # noqa: S608 - names of the lake
            parts.append([self.schema(one).serialize().to_pybytes() for one in quoted])
        return pa.table(
            [pa.array(part, field.type) for part, field in zip(parts, schema, strict=True)], schema=schema
        )

    def _keys(self, fields: Fields) -> pa.Table:
        wanted = (text(fields, 2), text(fields, 3))
        rows = [
            {"catalog_name": _CATALOG, "db_schema_name": zone, "table_name": table, "column_name": column,
             "key_sequence": number, "key_name": f"{table}_pkey"}
            for zone, table in self._named()
            if table == wanted[1] and wanted[0] in {None, zone}
            for number, column in enumerate(self._about.get(table, TableNote()).key, 1)
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=_KEYS)


def _like(name: str, pattern: str | None) -> bool:
    """SQL's LIKE, as the metadata commands filter."""
    if not pattern:
        return True
    signs = {"%": ".*", "_": "."}
    return re.fullmatch("".join(signs.get(one, re.escape(one)) for one in pattern), name) is not None


def _arrow(kind: str) -> pa.DataType:
    known = {
        "BIGINT": pa.int64(),
        "INTEGER": pa.int32(),
        "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(),
        "DATE": pa.date32(),
    }
    return known.get(kind, pa.string())


def _numbers(fields: Fields) -> list[int]:
    """A repeated uint32, packed or not."""
    found: list[int] = []
    for value in fields.get(1, []):
        if isinstance(value, int):
            found.append(value)
        else:
            # each number of a packed field, read as a field of its own
            found += [
                int(one)
                for one in unpacked(b"".join(b"\x08" + part for part in _split_varints(value))).get(1, [])
            ]
    return found


def _split_varints(data: bytes) -> list[bytes]:
    return re.findall(rb"[\x80-\xff]*[\x00-\x7f]", data, re.DOTALL)


def _sql_info(wanted: Sequence[int]) -> pa.Table:
    known = {number: value for number, value in _INFO.items() if not wanted or number in wanted}
    kinds = pa.array([1 if isinstance(value, bool) else 0 for value in known.values()], pa.int8())
    said = [value for value in known.values() if isinstance(value, str)]
    flags = [value for value in known.values() if isinstance(value, bool)]
    seen = [0, 0]
    places = []
    for value in known.values():
        places.append(seen[isinstance(value, bool)])
        seen[isinstance(value, bool)] += 1
    children = [
        pa.array(said, pa.string()),
        pa.array(flags, pa.bool_()),
        pa.array([], pa.int64()),
        pa.array([], pa.int32()),
        pa.array([], pa.list_(pa.string())),
        pa.array([], pa.map_(pa.int32(), pa.list_(pa.int32()))),
    ]
    names = [
        "string_value",
        "bool_value",
        "bigint_value",
        "int32_bitmask",
        "string_list",
        "int32_to_int32_list_map",
    ]
    value = pa.UnionArray.from_dense(kinds, pa.array(places, pa.int32()), children, names)
    schema = pa.schema(
        [pa.field("info_name", pa.uint32(), nullable=False), pa.field("value", value.type, nullable=False)]
    )
    return pa.table([pa.array(list(known), pa.uint32()), value], schema=schema)


class _Server(flight.FlightServerBase):  # type: ignore[misc]
    """Flight's calls, as `Questions`. Each raises a Flight error that says what a BoucleError says."""

    def __init__(self, questions: Questions, location: str, **extra: Any) -> None:
        super().__init__(location, **extra)
        self._questions = questions

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        del context
        with _explained():
            name, fields = unpack(descriptor.command)
            if name == "CommandStatementQuery":
                query = text(fields, 1) or ""
                schema = self._questions.schema(query)
                ticket = pack("TicketStatementQuery", {1: query})
            elif name == "CommandPreparedStatementQuery":
                schema = self._questions.schema(self._questions.prepared(_handle(fields)).query)
                ticket = descriptor.command
            else:
                schema, ticket = self._questions.told(name, fields).schema, descriptor.command
            return flight.FlightInfo(schema, descriptor, [flight.FlightEndpoint(ticket, [])], -1, -1)

    def get_schema(self, context: Any, descriptor: Any) -> Any:
        return flight.SchemaResult(self.get_flight_info(context, descriptor).schema)

    def do_get(self, context: Any, ticket: Any) -> Any:
        with _explained():
            name, fields = unpack(ticket.ticket)
            if name == "TicketStatementQuery":
                answer, rows = self._questions.answer(text(fields, 1) or "", (), _who(context))
                schema = answer.schema
            elif name == "CommandPreparedStatementQuery":
                schema, rows = self._questions.bound(_handle(fields), _who(context))
            else:
                return flight.RecordBatchStream(self._questions.told(name, fields))
            return flight.GeneratorStream(schema, _until_cancelled(context, rows))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        del context
        with _explained():
            name, fields = unpack(descriptor.command)
            if name != "CommandPreparedStatementQuery":
                raise BoucleError(
                    "B510",
                    f"{name} is refused: Flight SQL only reads the lake",
                    why="tables are written by the loop alone, so that every row is accounted for",
                    fix="use SELECT",
                )
            handle = _handle(fields)
            kept = self._questions.prepared(handle)
            kept.values = [list(row.values()) for row in reader.read_all().to_pylist()]
            writer.write(packed({1: handle}))

    def do_action(self, context: Any, action: Any) -> Iterator[bytes]:
        del context
        with _explained():
            if action.type == "CreatePreparedStatement":
                _, fields = unpack(action.body.to_pybytes())
                handle, schema, wanted = self._questions.prepare(text(fields, 1) or "")
                told = {1: handle, 2: schema.serialize().to_pybytes(), 3: wanted.serialize().to_pybytes()}
                return iter([pack("ActionCreatePreparedStatementResult", told)])
            if action.type == "ClosePreparedStatement":
                self._questions.forget(_handle(unpack(action.body.to_pybytes())[1]))
                return iter([])
            raise BoucleError(
                "B850", f"{action.type} is not served", fix="autocommit: there is nothing to commit"
            )

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        del context
        return [("CreatePreparedStatement", "keep a question"), ("ClosePreparedStatement", "forget it")]


def _handle(fields: Fields) -> bytes:
    value = fields.get(1, [b""])[-1]
    return value if isinstance(value, bytes) else b""


def _until_cancelled(context: Any, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with _explained():
        for batch in rows:
            if context.is_cancelled():
                return
            yield batch


class _explained:  # noqa: N801 - read as a word
    """Turns a BoucleError into the error of Flight that means the same."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BoucleError):
            # not str(error): where the lake lies is not the client's business
            said = f"{error.code} {error.what}" + (f": {error.why}" if error.why else "")
            said += f". Fix: {error.fix}" if error.fix else ""
            if error.code in {"B511", "B851"}:
                raise pa.ArrowKeyError(said) from None  # pyarrow tells the client the whole chain
            if error.code == "B510":
                raise flight.FlightUnauthorizedError(
                    said
                ) from None  # pyarrow tells the client the whole chain
            if isinstance(error, SqlRefused) and error.kind == "INTERRUPT":
                raise flight.FlightCancelledError(said) from None  # pyarrow tells the client the whole chain
            if error.retryable:
                raise flight.FlightUnavailableError(
                    said
                ) from None  # pyarrow tells the client the whole chain
            raise pa.ArrowInvalid(said) from None  # pyarrow tells the client the whole chain
