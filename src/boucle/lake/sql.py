"""SQL over the tables of a lake, through DuckDB: read-only, and nothing outside the lake's folder.

Each table is a view under its name, and under `zone.name`; the view is the file list of the newest
Delta version, so a query sees whole commits only. DuckDB 2.0 traps handled here: `at` became a
keyword (our time column is called so: the bare word is quoted), `EXPLAIN ANALYZE COPY` writes a
file although it parses as EXPLAIN, a name that is no table is looked up among Python's variables
unless told not to, and `get_table_names` breaks on views over a list of files.
"""

import difflib
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from boucle.errors import BoucleError
from boucle.lake.delta import LakeTable
from boucle.lake.stored import DAY

__all__ = ["ZONES", "Sql", "find_tables"]

ZONES = ("raw", "silver", "gold")
"""From what came in to what people decide on; a bare table name means the most refined zone that has it."""

_EXPLAIN = re.compile(r"^\s*explain\s+(analyze\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)
_WORD = re.compile(rb"\w+|.", re.DOTALL)
_NO_TABLE = re.compile(r'Table with name "?([^"\s]+)"? does not exist')
_NO_COLUMN = re.compile(r'column (?:named )?"([^"]+)"(?: not found|$)', re.IGNORECASE | re.MULTILINE)


def find_tables(lake: str | Path) -> list[LakeTable]:
    """Every Delta table of a lake folder, raw zone first, then by name."""
    logs = sorted(Path(lake).absolute().glob("*/*/_delta_log"))
    tables = [LakeTable(path.parent) for path in logs]
    return sorted(
        tables, key=lambda table: (ZONES.index(table.zone) if table.zone in ZONES else -1, table.name)
    )


class Sql:
    """Questions to the tables of one lake folder. Thread-safe: one query runs at a time."""

    def __init__(self, lake: str | Path) -> None:
        self.lake = Path(lake).absolute()
        self._lock = threading.Lock()
        self._tables: dict[Path, LakeTable] = {}
        self._shown: dict[Path, int] = {}
        self._connection = _confined(self.lake)

    def query(self, text: str) -> pa.Table:
        """The answer to one SELECT (or SHOW, DESCRIBE, SUMMARIZE, EXPLAIN).

        Raises B510 for anything that could write or leave the lake, B511 and B512 for an unknown
        table or column with the likely one, B513 for other mistakes in the SQL.
        """
        with self._lock:
            self._find()
            text = _quote_at(text)
            self._check_reads(text)
            self._show(text)
            try:
                relation = self._connection.sql(text)
                return pa.table({"": []}) if relation is None else relation.to_arrow_table()
            except duckdb.Error as error:
                raise self._explained(text, error) from None

    def tables(self) -> list[LakeTable]:
        """The tables there are now."""
        with self._lock:
            self._find()
            return list(self._tables.values())

    def close(self) -> None:
        """Give back DuckDB's memory. Safe to call twice."""
        self._connection.close()

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
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(table.zone)}")
        self._connection.execute(f"CREATE OR REPLACE VIEW {_name(table.zone)}.{_name(table.name)} AS {body}")
        same = [other for other in self._tables.values() if other.name == table.name]
        if same[-1] is table:
            self._connection.execute(f"CREATE OR REPLACE VIEW {_name(table.name)} AS {body}")

    def _drop(self, table: LakeTable) -> None:
        self._shown.pop(table.folder, None)
        self._connection.execute(f"DROP VIEW IF EXISTS {_name(table.zone)}.{_name(table.name)}")
        self._connection.execute(f"DROP VIEW IF EXISTS main.{_name(table.name)}")
        for other in self._tables.values():
            if other.name == table.name:  # the bare name may now mean another zone
                self._shown.pop(other.folder, None)

    def _body(self, table: LakeTable) -> str:
        schema, files = table.schema, table.files()
        columns = ", ".join(_name(column) for column in _shown_columns(schema))
        if not files:
            empty = f"empty {table.zone} {table.name}"
            self._connection.register(empty, schema.empty_table())
            return f"SELECT {columns} FROM {_name(empty)}"  # noqa: S608 - quoted names, not values
        paths = ", ".join(_literal(file.path) for file in files)
        return (
            f"SELECT {columns} FROM read_parquet([{paths}], "  # noqa: S608 - quoted names and literals
            "union_by_name = true, hive_partitioning = true, hive_types_autocast = false)"
        )

    def _explained(self, text: str, error: duckdb.Error) -> BoucleError:
        said = str(error).strip()
        names = {
            name for table in self._tables.values() for name in (table.name, f"{table.zone}.{table.name}")
        }
        if missing := _NO_TABLE.search(said):
            return _unknown("B511", "table", missing[1], names, f"in the lake {self.lake}")
        if missing := _NO_COLUMN.search(said):
            lower = text.lower()
            used = [table for table in self._tables.values() if table.name.lower() in lower]
            columns = {name for table in used for name in _shown_columns(table.schema)}
            return _unknown("B512", "column", missing[1], columns, "")
        kind, _, detail = said.partition(": ")
        if isinstance(error, duckdb.PermissionException):
            return BoucleError("B510", "only the lake's tables can be read", why=detail, fix="SHOW TABLES")
        return BoucleError("B513", f"the SQL cannot be answered ({kind})", why=detail)


def _confined(lake: Path) -> Any:
    connection = duckdb.connect(":memory:")
    connection.execute(f"SET allowed_directories = [{_literal(str(lake))}]")
    for setting in (
        "TimeZone = 'UTC'",
        "temp_directory = ''",
        "python_enable_replacements = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


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
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f'Did you mean "{near[0]}"? ' if near else ""
    return BoucleError(
        code,
        f'there is no {what} "{name}"' + (f" {where}" if where else ""),
        fix=f"{hint}Known: {', '.join(sorted(known)) or 'none yet, run the loop first'}",
    )


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
