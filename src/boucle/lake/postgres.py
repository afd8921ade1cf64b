"""A table of the product in PostgreSQL, every row exactly once.

The rows, the columns they need and the transaction (app, number) they came with are one SQL transaction, as they
are one commit in Delta Lake: whatever is killed, and whenever, rows and progress cannot disagree. The table is
`<zone>.<name>`; how far each app has come stands in `boucle.progress`. Nanoseconds are split as in the lake
(`boucle.lake.stored`): `at` in microseconds, `at_ns` the rest.

An address is libpq's: `postgresql://user@host:5432/database`. Keep the password in `PGPASSWORD`, `~/.pgpass` or a
service file, which libpq reads by itself.
"""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
import pyarrow as pa
from psycopg import sql

from boucle.address import Address
from boucle.block import Block
from boucle.errors import BoucleError, Unavailable
from boucle.lake.stored import check_transaction, stored_schema, to_stored

__all__ = ["PostgresTable"]

_T = TypeVar("_T")

_PATIENCE_S = 3
_PROGRESS = """
create schema if not exists boucle;
create table if not exists boucle.progress (
    app text, zone text, "table" text, "transaction" bigint not null, "rows" bigint not null,
    version bigint not null, primary key (app, zone, "table")
)
"""
_KINDS: dict[pa.DataType, str] = {
    pa.int8(): "smallint",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.bool_(): "boolean",
    pa.string(): "text",
    pa.binary(): "bytea",
    pa.date32(): "date",
    pa.timestamp("us", tz="UTC"): "timestamptz",
}


def _kind(kind: pa.DataType) -> str:
    """The SQL type that holds every value of an Arrow type."""
    if pa.types.is_list(kind) and kind.value_type in _KINDS:
        return f"{_KINDS[kind.value_type]}[]"
    if pa.types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    return _KINDS.get(kind, "jsonb")


class PostgresTable:
    """Rows of a stream in a table of PostgreSQL: `postgresql://user@host:5432/database`.

    Schema and table are made by the first append; columns are only ever added. `Unavailable` when the server is
    away (B515, tried again later), B514 when it refuses the rows. One object serves several threads.
    """

    def __init__(self, address: Address, name: str, zone: str, *, time: str = "at") -> None:
        self.name, self.zone, self.time = name, zone, time
        self._address = address
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.RLock()
        self._where = f"{address.host or 'local'}/{address.path} {zone}.{name}"
        self._count = (0, -1)  # rows and version, as last seen

    @property
    def rows(self) -> int:
        """Rows appended, as last seen."""
        return self._count[0]

    @property
    def version(self) -> int:
        """How many appends there were, less one, as last seen; -1 before the first."""
        return self._count[1]

    def transaction(self, app: str) -> int | None:
        """The last transaction `app` committed to this table; None when it never did."""
        return self._asked(lambda connection: self._done(connection, app))

    def append(
        self,
        block: Block | Sequence[Block],
        *,
        app: str = "",
        transaction: int | None = None,
        after: int | None = None,
    ) -> int:
        """Add the rows of one Block, or of several, in one SQL transaction, and return the table's version.

        With `transaction`, a number that only grows for each `app`, sending the same rows again changes nothing;
        with `after`, rows are added only when that is the app's last transaction (0: none yet), else B509.
        """
        check_transaction(app, transaction)
        blocks = [block] if isinstance(block, Block) else list(block)
        batches = [one.rows for one in blocks if len(one)]
        if not batches:
            return self.version
        target = pa.unify_schemas([stored_schema(batch.schema, self.time, ()) for batch in batches])
        rows = to_stored(batches, target, self.time)
        return self._asked(lambda connection: self._append(connection, rows, app, transaction, after))

    def _append(
        self,
        connection: psycopg.Connection[Any],
        rows: pa.Table,
        app: str,
        transaction: int | None,
        after: int | None,
    ) -> int:
        # One writer at a time, from the question how far the table is to the commit.
        connection.execute("select pg_advisory_xact_lock(hashtext('boucle'), hashtext(%s))", [self._where])
        done = self._done(connection, app)
        if done is not None and transaction is not None and transaction <= done:
            return self.version
        if after is not None and (done or 0) != after:
            raise self._overtaken(app, after, done or 0)
        if done is None:
            connection.execute("select pg_advisory_xact_lock(hashtext('boucle'))")
            connection.execute(_PROGRESS)
        self._fit(connection, rows.schema)
        self._copy(connection, rows)
        found = connection.execute(
            'insert into boucle.progress as p values (%s, %s, %s, %s, %s, 0) on conflict (app, zone, "table") '
            'do update set "transaction" = excluded."transaction", "rows" = p."rows" + excluded."rows", '
            'version = p.version + 1 returning "rows", version',
            [app, self.zone, self.name, transaction or 0, rows.num_rows],
        ).fetchone()
        assert found is not None
        self._count = (found[0], found[1])
        return int(found[1])

    def _done(self, connection: psycopg.Connection[Any], app: str) -> int | None:
        known = connection.execute("select to_regclass('boucle.progress')").fetchone()
        if known is None or known[0] is None:
            return None
        found = connection.execute(
            'select "transaction", "rows", version from boucle.progress where (app, zone, "table") = (%s, %s, %s)',
            [app, self.zone, self.name],
        ).fetchone()
        if found is None:
            return None
        self._count = (found[1], found[2])
        return int(found[0])

    def _fit(self, connection: psycopg.Connection[Any], schema: pa.Schema) -> None:
        """Make what is missing: the schema, the table, its columns. B502 when a column changed its type."""
        found = connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
            [f'"{self.zone}"."{self.name}"'],
        )
        there: dict[str, str] = dict(found.fetchall())
        wanted = {field.name: _kind(field.type) for field in schema}
        for name, kind in wanted.items():
            if name in there and _ours(there[name]) != kind:
                raise BoucleError(
                    "B502",
                    f'column "{name}" of table "{self.name}" is {there[name]}, the new rows bring {kind}',
                    where=self._where,
                    why="a table only ever gains columns, so that its history stays readable",
                    fix=f'give the new meaning a new name, for example "{name}_2"',
                )
        if not there:
            known = connection.execute("select to_regnamespace(%s)", [self.zone]).fetchone()
            if known is None or known[0] is None:
                connection.execute(sql.SQL("create schema {}").format(sql.Identifier(self.zone)))
            columns = sql.SQL(", ").join(_column(name, kind) for name, kind in wanted.items())
            connection.execute(sql.SQL("create table {} ({})").format(self._named, columns))
            return
        for name, kind in wanted.items():
            if name not in there:
                connection.execute(
                    sql.SQL("alter table {} add column {}").format(self._named, _column(name, kind))
                )

    @property
    def _named(self) -> sql.Identifier:
        return sql.Identifier(self.zone, self.name)

    def _copy(self, connection: psycopg.Connection[Any], rows: pa.Table) -> None:
        names = sql.SQL(", ").join(sql.Identifier(name) for name in rows.column_names)
        columns = [_values(rows.column(name)) for name in rows.column_names]
        with (
            connection.cursor() as cursor,
            cursor.copy(sql.SQL("copy {} ({}) from stdin").format(self._named, names)) as copy,
        ):
            for row in zip(*columns, strict=True):
                copy.write_row(row)

    def compact(self) -> int:
        """Nothing to join: the server tidies by itself."""
        return self.version

    def sync(self) -> int:
        """Nothing to do: what the server committed survives a power cut (`synchronous_commit` is on)."""
        return self.version

    def close(self) -> None:
        """Give back the connection. Safe to call twice."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _asked(self, question: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        """The answer, in one SQL transaction; whatever goes wrong, nothing of it stays."""
        with self._lock:
            try:
                connection = self._connected()
                with connection.transaction():
                    return question(connection)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # Whether a commit under way was done is not known: the next transaction() tells.
                self.close()
                raise Unavailable(
                    "B515",
                    "PostgreSQL cannot be asked now",
                    where=self._where,
                    why=_short(error),
                    fix="start the server, or correct the address in boucle.toml; what is missing is written then",
                ) from error
            except psycopg.Error as error:
                self.close()
                raise BoucleError(
                    "B514",
                    f'PostgreSQL refuses the rows of table "{self.name}"',
                    where=self._where,
                    why=_short(error),
                    fix="grant what is missing, or mend the rows; they wait in the log",
                ) from error

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._address.text, connect_timeout=_PATIENCE_S, application_name="boucle", autocommit=True
            )
            self._connection.execute("set synchronous_commit to on")
        return self._connection

    def _overtaken(self, app: str, after: int, done: int) -> BoucleError:
        return BoucleError(
            "B509",
            f'table "{self.name}" is at transaction {done} of "{app}", not at {after}',
            where=self._where,
            why="another writer serves the same log",
            fix="let one process write a table; this one goes on from where the table is",
        )


def _ours(kind: str) -> str:
    """What we call a type of the server's."""
    return kind.replace("timestamp with time zone", "timestamptz")


def _column(name: str, kind: str) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if _kind(column.type) != "jsonb":
        return values
    return [None if value is None else json.dumps(value, default=str) for value in values]


def _short(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
