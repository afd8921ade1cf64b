"""SQL over the tables of a lake, through DuckDB: read-only, and nothing outside the lake's folder.

`Sql.query` answers one question at once; `Sql.session` gives a reader of its own: parameters, answers in
batches, transactions that see one state of the lake, interruption (the endpoints of `boucle.outlet` are
built on it). Each table is a view under its name, and under `zone.name`; the view is the file list of the newest
Delta version, so a query sees whole commits only. DuckDB 2.0 traps handled here: `at` became a
keyword (our time column is called so: the bare word is quoted), `EXPLAIN ANALYZE COPY` writes a
file although it parses as EXPLAIN, a name that is no table is looked up among Python's variables
unless told not to, and `get_table_names` breaks on views over a list of files.
"""

import difflib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.lake.datafile import DataFile
from boucle.lake.delta import LakeTable
from boucle.lake.duck import literal
from boucle.lake.duck import name as quoted
from boucle.lake.mirror import Mirror
from boucle.lake.place import is_bucket
from boucle.lake.stored import DAY
from boucle.lake.then import as_it_was
from boucle.lake.whole import ZONES, Lake

__all__ = ["ZONES", "Answer", "Bound", "Sql", "SqlRefused", "SqlSession", "find_tables"]

_DATABASE = "boucle"
_BARE = "bare"
"""Where the names without a zone stand; DuckDB searches `main` whatever the search path."""
_POSTGRES = ("integer_division = true", "default_null_order = 'nulls_last_on_asc_first_on_desc'")
_EXPLAIN = re.compile(r"^\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)
_WORD = re.compile(rb"\w+|.", re.DOTALL)
_NO_TABLE = re.compile(r'Table with name "?([^"\s]+)"? does not exist')
_NO_COLUMN = re.compile(r'column (?:named )?"([^"]+)"(?: not found|$)', re.IGNORECASE | re.MULTILINE)
_CARET = re.compile(r"^LINE \d+: (.*)\n( *)\^", re.MULTILINE)


def find_tables(lake: str | Path) -> list[LakeTable]:
    """Every Delta table of a lake, raw zone first, then by name."""
    if is_bucket(lake):
        return Lake(lake).tables()
    logs = sorted(Path(lake).absolute().glob("*/*/_delta_log"))
    tables = [LakeTable(path.parent) for path in logs]
    return sorted(
        tables, key=lambda table: (ZONES.index(table.zone) if table.zone in ZONES else -1, table.name)
    )


class SqlRefused(BoucleError):
    """SQL that was not answered; `kind` is DuckDB's word for why, `near` the word it stumbled over ("": unknown)."""

    def __init__(self, error: BoucleError, kind: str, near: str) -> None:
        super().__init__(error.code, error.what, where=error.where, why=error.why, fix=error.fix)
        self.kind, self.near = kind, near


class Bound(Struct, frozen=True):
    """What a statement will answer and wants to be given, without running it. Types in DuckDB's words."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    parameters: dict[int, str]
    """By number from 1; `UNKNOWN` where the statement leaves it open."""


class Answer(Struct, frozen=True):
    """An answer on its way: read or close `rows` before the session is asked again."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    schema: pa.Schema
    rows: Iterator[pa.RecordBatch]


class Sql:
    """Questions to the tables of one lake: a folder, or `s3://bucket/prefix?endpoint=…`.
    Thread-safe: one query runs at a time, sessions beside it.

    `memory` bounds what all questions together may hold (DuckDB's spelling: `2GB`). With `postgres`, integers divide
    as integers and nulls sort as in PostgreSQL; both are DuckDB's own way without.
    """

    def __init__(self, lake: str | Path, memory: str = "", *, postgres: bool = False) -> None:
        self.lake: str | Path = str(lake) if is_bucket(lake) else Path(lake).absolute()
        self._mirror = Mirror() if is_bucket(lake) else None
        self._lock = threading.Lock()
        self._tables: dict[Path, LakeTable] = {}
        self._shown: dict[Path, int] = {}
        readable = Path(self.lake) if self._mirror is None else self._mirror.folder
        self._connection = _confined(readable, memory, postgres)

    def query(self, text: str) -> pa.Table:
        """The answer to one SELECT (or SHOW, DESCRIBE, SUMMARIZE, EXPLAIN).

        Raises B510 for anything that could write or leave the lake, B511 and B512 for an unknown
        table or column with the likely one, B513 for other mistakes in the SQL.
        """
        with self._lock:
            self._find()
            text = _quote_at(as_it_was(text, list(self._tables.values()), self.at))
            self._check_reads(text)
            self._show(text)
            try:
                relation = self._connection.sql(text)
                return pa.table({"": []}) if relation is None else relation.to_arrow_table()
            except duckdb.Error as error:
                raise self._explained(text, error) from None

    def session(self) -> "SqlSession":
        """A reader of its own; close it."""
        return SqlSession(self, self._connection.cursor())

    def tables(self) -> list[LakeTable]:
        """The tables there are now."""
        with self._lock:
            self._find()
            return list(self._tables.values())

    def known(self) -> list[str]:
        """The names of the tables there were when somebody last asked."""
        return list({table.name for table in self._tables.values()})

    def at(self, table: LakeTable, version: int) -> str:
        """A relation to ask FROM: the table as it was at a version, with `_file` and `_row` that tell each row apart.

        Their order stays the same as long as the version can be read. Raises B505 when it cannot.
        """
        files, schema = table.files(version), table.schema_at(version)
        columns = ", ".join(quoted(column) for column in _shown_columns(schema))
        if not files:
            empty = (
                ", ".join(f"NULL AS {quoted(column)}" for column in _shown_columns(schema))
                or "NULL AS nothing"
            )
            return f"(SELECT {empty}, '' AS _file, 0::BIGINT AS _row WHERE false)"
        paths = ", ".join(map(literal, self._paths(table, files)))
        start = len(str(table.folder if self._mirror is None else self._mirror.of(table))) + 2
        return (
            f"(SELECT {columns}, substr(filename, {start}) AS _file, file_row_number AS _row "  # noqa: S608
            f"FROM read_parquet([{paths}], union_by_name = true, hive_partitioning = true, "
            "hive_types_autocast = false, filename = true, file_row_number = true))"
        )

    def renew(self) -> list[tuple[str, str, str, str]]:
        """Bring every view to the newest version; zone, table, column and DuckDB type of all of them, in order."""
        with self._lock:
            self._find()
            self._show("")
            rows: list[tuple[str, str, str, str]] = self._connection.execute(
                "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() "
                "WHERE database_name = ? AND list_contains(?, schema_name) "
                "ORDER BY schema_name, table_name, column_index",
                [_DATABASE, list({table.zone for table in self._tables.values()})],
            ).fetchall()
            return rows

    def define(self, statements: str, rows: Mapping[str, pa.Table]) -> None:
        """Run our own definitions (schemas, views, macros) in one transaction; `rows` can be read by name in them.

        Only for SQL out of this package: nothing of what a reader wrote may come here.
        """
        with self._lock:
            for name, table in rows.items():
                self._connection.register(name, table)
            self._connection.execute("BEGIN")
            try:
                self._connection.execute(statements)
                self._connection.execute("COMMIT")
            except duckdb.Error:
                self._connection.execute("ROLLBACK")
                raise
            finally:
                for name in rows:
                    self._connection.unregister(name)

    def close(self) -> None:
        """Give back DuckDB's memory, and the copies of a bucket's files. Safe to call twice."""
        self._connection.close()
        if self._mirror is not None:
            self._mirror.close()

    def _paths(self, table: LakeTable, files: Sequence[DataFile]) -> list[str]:
        """Where DuckDB finds these files."""
        return [file.path for file in files] if self._mirror is None else self._mirror.bring(table, files)

    def _find(self) -> None:
        found = {table.folder: table for table in find_tables(self.lake)}
        for gone in [table for folder, table in self._tables.items() if folder not in found]:
            self._drop(gone)
        self._tables = {folder: self._tables.get(folder, table) for folder, table in found.items()}

    def _check_reads(self, text: str) -> None:
        try:
            statements = self._connection.extract_statements(text)
            kinds = [one.type for one in statements]
            if kinds == [duckdb.StatementType.EXPLAIN]:
                statements = self._connection.extract_statements(_EXPLAIN.sub("", text, count=1))
                kinds = [one.type for one in statements]
        except duckdb.Error as error:
            raise self._explained(text, error) from None
        if len(kinds) != 1:
            raise BoucleError("B513", f"one statement at a time, not {len(kinds)}", fix="ask them one by one")
        if kinds[0] != duckdb.StatementType.SELECT:
            raise BoucleError(
                "B510",
                f"{str(kinds[0]).rpartition('.')[2]} is refused: SQL only reads the lake",
                why="tables are written by the loop alone, so that every row is accounted for",
                fix="use SELECT, DESCRIBE, SUMMARIZE or SHOW TABLES (PIVOT needs ON column IN (values))",
            )

    def _show(self, text: str) -> None:
        """Bring the views the text names, or all when it names none, to the newest version."""
        lower = text.lower()
        named = [table for table in self._tables.values() if table.name.lower() in lower]
        for table in named or self._tables.values():
            version = table.version
            if self._shown.get(table.folder) != version:
                self._view(table)
                self._shown[table.folder] = version

    def _view(self, table: LakeTable) -> None:
        body = self._body(table)
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(table.zone)}")
        self._connection.execute(
            f"CREATE OR REPLACE VIEW {quoted(table.zone)}.{quoted(table.name)} AS {body}"
        )
        same = [other for other in self._tables.values() if other.name == table.name]
        if same[-1] is table:
            self._connection.execute(f"CREATE OR REPLACE VIEW {_BARE}.{quoted(table.name)} AS {body}")

    def _drop(self, table: LakeTable) -> None:
        self._shown.pop(table.folder, None)
        self._connection.execute(f"DROP VIEW IF EXISTS {quoted(table.zone)}.{quoted(table.name)}")
        self._connection.execute(f"DROP VIEW IF EXISTS {_BARE}.{quoted(table.name)}")
        for other in self._tables.values():
            if other.name == table.name:  # the bare name may now mean another zone
                self._shown.pop(other.folder, None)

    def _body(self, table: LakeTable) -> str:
        schema, files = table.schema, table.files()
        columns = ", ".join(quoted(column) for column in _shown_columns(schema))
        if not files:
            empty = f"empty {table.zone} {table.name}"
            self._connection.register("boucle empty", schema.empty_table())
            self._connection.execute(
                f"CREATE OR REPLACE TABLE {_DATABASE}.main.{quoted(empty)} AS FROM {quoted('boucle empty')}"
            )
            self._connection.unregister("boucle empty")
            return f"SELECT {columns} FROM {_DATABASE}.main.{quoted(empty)}"  # noqa: S608 - quoted names, not values
        paths = ", ".join(map(literal, self._paths(table, files)))
        return (
            f"SELECT {columns} FROM read_parquet([{paths}], "  # noqa: S608 - quoted names and literals
            "union_by_name = true, hive_partitioning = true, hive_types_autocast = false)"
        )

    def _explained(self, text: str, error: Exception) -> SqlRefused:
        said = str(error).strip()
        kind = said.partition(": ")[0].removesuffix(" Error")
        told = self._told(text, said, isinstance(error, duckdb.PermissionException))
        return SqlRefused(told, kind, _near(said))

    def _told(self, text: str, said: str, forbidden: bool) -> BoucleError:
        names = {
            name for table in self._tables.values() for name in (table.name, f"{table.zone}.{table.name}")
        }
        if missing := _NO_TABLE.search(said):
            return _unknown("B511", "table", missing[1], names, str(self.lake))
        if missing := _NO_COLUMN.search(said):
            lower = text.lower()
            used = [table for table in self._tables.values() if table.name.lower() in lower]
            columns = {name for table in used for name in _shown_columns(table.schema)}
            return _unknown("B512", "column", missing[1], columns, "")
        kind, _, detail = said.partition(": ")
        if forbidden:
            return BoucleError("B510", "only the lake's tables can be read", why=detail, fix="SHOW TABLES")
        return BoucleError("B513", f"the SQL cannot be answered ({kind})", why=detail)


class SqlSession:
    """One reader's place: what it set, its transaction, the answer it is reading. Not for two threads at once.

    A statement sees each table at the newest version
    there was when it began; in a transaction all statements see what the first one saw.
    """

    def __init__(self, sql: Sql, cursor: Any) -> None:
        self._sql, self._cursor = sql, cursor
        self._reader: pa.RecordBatchReader | None = None
        self._cursor.execute(f"SET search_path = '{_DATABASE}.{_BARE}'")

    def set(self, name: str, value: str) -> None:
        """Set `timezone` or `search_path` for this session alone; DuckDB refuses every other setting."""
        try:
            self._cursor.execute(f"SET {name} = {literal(value)}")
        except duckdb.Error as error:
            raise self._sql._explained("", error) from error  # noqa: SLF001 - of the same file

    def bind(self, text: str) -> Bound:
        """The columns and parameters of one reading statement. Raises as `Sql.query`, with what DuckDB said."""
        return self._bound(self._begun(text))

    def _bound(self, text: str) -> Bound:
        try:
            # The only way to know types of parameters without values; the public `sql` runs what has parameters.
            names, types, parameters, *_ = self._cursor._bind(text, with_writes=True, values=None)  # noqa: SLF001
        except duckdb.Error as error:
            raise self._sql._explained(text, error) from error  # noqa: SLF001
        wanted = {int(name): str(kind) for name, kind in parameters if name.isdigit()}
        return Bound(tuple(names), tuple(map(str, types)), wanted)

    def read(self, text: str, values: Sequence[Any] = (), batch: int = 65_536) -> Answer:
        """Begin to answer one reading statement; `batch` bounds the rows held at a time.

        Raises as `bind`, also while the rows are read. A text given for a parameter means whatever the statement
        expects there. An interrupted statement raises with the kind `INTERRUPT`.
        """
        text = self._begun(text)
        try:
            relation = self._cursor.sql(text, params=list(values)) if values else self._cursor.sql(text)
            if relation is None:
                return Answer((), (), pa.schema([]), iter(()))
            names, types = tuple(relation.columns), tuple(map(str, relation.types))
            self._reader = relation.to_arrow_reader(batch)
        except (duckdb.Error, OSError) as error:
            raise self._sql._explained(text, error) from error  # noqa: SLF001
        return Answer(names, types, self._reader.schema, self._rows(text, self._reader))

    def _rows(self, text: str, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise self._sql._explained(text, error) from error  # noqa: SLF001
        finally:
            reader.close()

    def _begun(self, text: str) -> str:
        """What is asked, checked, with the views it names at their newest version."""
        self.drop()
        sql = self._sql
        with sql._lock:  # noqa: SLF001
            sql._find()  # noqa: SLF001
            text = _quote_at(as_it_was(text, list(sql._tables.values()), sql.at))  # noqa: SLF001
            sql._check_reads(text)  # noqa: SLF001
            sql._show(text)  # noqa: SLF001
        return text

    def drop(self) -> None:
        """Forget the rest of the answer that is being read."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def begin(self) -> None:
        """From here on, every statement sees one state of the lake, until `end`."""
        self.drop()
        self._cursor.execute("BEGIN")

    def end(self) -> None:
        """Leave the transaction, if there is one."""
        self.drop()
        try:
            self._cursor.execute("ROLLBACK")
        except duckdb.TransactionException:
            return  # none was open

    def interrupt(self) -> None:
        """Stop the statement that runs; from any thread."""
        self._cursor.interrupt()

    def close(self) -> None:
        """Give back the connection. Safe to call twice."""
        self.drop()
        self._cursor.close()


def _confined(lake: Path, memory: str, postgres: bool) -> Any:
    connection = duckdb.connect(":memory:")
    connection.execute(f"ATTACH ':memory:' AS {_DATABASE}")
    connection.execute(f"USE {_DATABASE}")
    for schema in (*ZONES, _BARE):
        connection.execute(f"CREATE SCHEMA {schema}")
    connection.execute(f"SET search_path = '{_DATABASE}.{_BARE}'")
    for setting in (
        f"allowed_directories = [{literal(str(lake))}]",
        "TimeZone = 'UTC'",
        *(_POSTGRES if postgres else ()),
        *([f"memory_limit = {literal(memory)}"] if memory else []),
        "temp_directory = ''",
        "python_enable_replacements = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "allowed_configs = ['timezone', 'search_path']",
        "lock_configuration = true",
    ):
        connection.execute(f"SET GLOBAL {setting}")
    return connection


def _near(said: str) -> str:
    """The word DuckDB points at, or names."""
    if found := _CARET.search(said):
        begin = len(found[2]) - (found[0].index(found[1]))
        word = re.match(r"\w+|\S", found[1][max(0, begin) :])
        return word[0] if word else ""
    named = _NO_TABLE.search(said) or _NO_COLUMN.search(said) or re.search(r'near "(.+?)"', said)
    return named[1].rpartition(".")[2] if named else ""


def _quote_at(text: str) -> str:
    """Quote the bare word `at`, except in `AT TIME ZONE` and `AT (VERSION => …)`."""
    raw = text.encode()  # DuckDB counts bytes
    starts = [begin for begin, _ in duckdb.tokenize(text)]
    words = [_WORD.match(raw, begin) for begin in starts]
    for index in range(len(words) - 1, -1, -1):
        after = words[index + 1] if index + 1 < len(words) else None
        if _is(words[index], b"at") and not _is(after, b"time", b"local", b"("):
            begin = starts[index]
            raw = raw[:begin] + b'"' + raw[begin : begin + 2] + b'"' + raw[begin + 2 :]
    return raw.decode()


def _is(word: re.Match[bytes] | None, *wanted: bytes) -> bool:
    return word is not None and word[0].lower() in wanted


def _shown_columns(schema: pa.Schema) -> list[str]:
    """The columns people see: `X_ns`, the nanoseconds of `X`, stays behind; `day` comes last."""
    split = {f"{name}_ns" for name in schema.names}
    names = [name for name in schema.names if name not in split and name != DAY]
    return [*names, DAY] if DAY in schema.names else names


def _unknown(code: str, what: str, name: str, known: Iterable[str], where: str) -> BoucleError:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'Did you mean "{near[0]}"? ' if near else ""
    none = "run the loop first: there is none yet" if what == "table" else ""
    fix = f"{hint}Known: {', '.join(names)}" if names else none
    return BoucleError(code, f'there is no {what} "{name}"', where=where, fix=fix)
