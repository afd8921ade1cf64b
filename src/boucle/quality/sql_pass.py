# ruff: noqa: S608 - names are quoted, values are literals, and the connection reads the given files only
"""A whole table checked by one generated statement, which DuckDB streams through in bounded memory.

Conditions, extremes, moments and histograms are aggregates over one scan; foreign keys are joins to the distinct
keys of the other table; each uniqueness rule is a grouping of its columns alone, which DuckDB spills to disk when
memory is short. A whole number in a span not much wider than the rows it has needs no grouping: a bit for each
possible value tells in one scan how many different ones there are, and only when some are missing are they grouped.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.product.rules import Rule
from boucle.quality.figures import HUGE, ColumnFigures
from boucle.quality.masks import row_test
from boucle.quality.relation import Relation
from boucle.quality.sql_text import bad_when, bucket, literal, name, nanos_since_epoch, placed
from boucle.quality.verdict import Measured, unsuited

__all__ = ["MEMORY", "Sample", "WholeTable"]

MEMORY = "640MB"
"""What DuckDB may use before it spills; its own buffers and Python come on top."""
_BITS_PER_ROW = 16
_MOST_BITS = 1 << 28
_PART = 1 << 12
_MOST_PARTS = 2000
_ROWS = "rows checked"
_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UINTEGER", "USMALLINT", "UTINYINT"}
"""Types whose keys may be told apart by a bit each."""


class Sample(Struct, frozen=True):
    """A part of the rows, the same at every run: a share of the keys, so that rows of one key stay together."""

    share: float
    """Of the rows, more than 0 and at most 1."""
    by: tuple[str, ...] = ()
    """The columns that belong together; all when empty."""


class _Code(Struct, frozen=True):
    sql: str
    span: int


class WholeTable:
    """One table, opened for checking. `others` are the tables its foreign keys lead to. Close it when done.

    With a `connection` of the caller's, in which every relation is a view, that one is asked and left as it was.
    """

    def __init__(
        self,
        relation: Relation,
        others: Mapping[str, Relation] | None = None,
        *,
        memory: str = MEMORY,
        sample: Sample | None = None,
        connection: Any = None,
    ) -> None:
        self._spill = tempfile.TemporaryDirectory(prefix="boucle-quality-")
        self._relation, self._others, self._sample = relation, dict(others or {}), sample
        self._given = connection is not None
        self._views: set[str] = set()
        self._connection = connection or _confined(
            memory, Path(self._spill.name), [relation, *self._others.values()]
        )
        self.kinds = self._describe(relation)
        """Column → its type, in DuckDB's words."""

    def _describe(self, relation: Relation) -> dict[str, str]:
        try:
            found = self._connection.execute(f"DESCRIBE SELECT * FROM {relation.sql}").fetchall()
        except duckdb.Error as error:
            self.close()
            what = f"{relation.files[0]} cannot be read" if relation.files else "the rows cannot be read"
            raise BoucleError(
                "B443", what, why=_first_line(error), fix="check that the file is whole and of its kind"
            ) from None
        return {row[0]: row[1] for row in found}

    def close(self) -> None:
        """Give back memory and files. Safe to call twice."""
        if self._given:
            for view in self._views:
                self._connection.execute(f"DROP VIEW IF EXISTS temp.{view}")
        else:
            self._connection.close()
        self._spill.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── measuring ─────────────────────────────────────────────────────────────────────────────

    def measure(self, rules: Sequence[Rule]) -> Measured:
        """The numbers of every rule that can be executed; the others are in `unable`, with their reason.

        Rules of kind `python` are `measure_python`'s; here they are left out.
        """
        measured = Measured(
            kinds=dict(self.kinds),
            bad={},
            surplus={},
            newest={},
            values={},
            figures={},
            buckets={},
            unable={},
        )
        able = [rule for rule in rules if self._able(rule, measured)]
        select, read = self._aggregates(able)
        answer = self._run(f"SELECT {', '.join(select)} FROM {self._from(able)}")
        values = dict(zip(read, answer, strict=True))
        measured.rows = values[_ROWS]
        for rule in able:
            if rule.kind in {"null", "missing", "invalid", "foreign_key"}:
                measured.bad[rule.id] = values[rule.id]
            elif rule.kind == "freshness":
                measured.newest[rule.columns[0]] = values[f"newest {rule.columns[0]}"]
        self._history_figures(able, values, measured)
        for rule in able:
            if rule.kind == "duplicate":
                measured.bad[rule.id], measured.surplus[rule.id] = self._duplicates(rule, values)
            elif rule.kind == "sql":
                self._query(rule, measured)
        if self._sample is not None:
            (measured.rows,) = self._run(f"SELECT count(*) FROM {self._relation.sql}") if any(
                rule.kind == "row_count" for rule in rules) else (measured.rows,)  # fmt: skip
        return measured

    def _able(self, rule: Rule, measured: Measured) -> bool:
        if rule.kind in {"type", "python", "row_count"}:
            return False  # told by the schema, by the rows, or elsewhere
        for column in rule.columns:
            if column not in self.kinds:
                measured.unable[rule.id] = f'there is no column "{column}"'
                return False
        why = self._why_not(rule)
        if why:
            measured.unable[rule.id] = why
        return not why

    def _why_not(self, rule: Rule) -> str:
        if rule.kind == "invalid":
            try:
                row_test(rule, _arrow_kind(self.kinds[rule.columns[0]]))
            except BoucleError as error:
                return error.why or error.what
        if rule.kind == "foreign_key":
            other = rule.given["table"]
            if other not in self._others:
                return f"the rows of {other} are needed: --reference {other}=FILE"
            known = self._describe(self._others[other])
            if missing := [key for key in rule.given["keys"] if key not in known]:
                return f'{other} has no column "{missing[0]}"'
        if rule.kind == "freshness" and unsuited("date", self.kinds[rule.columns[0]]):
            return f"{rule.columns[0]} is {self.kinds[rule.columns[0]]}, no time"
        return ""

    def _aggregates(self, rules: Sequence[Rule]) -> tuple[list[str], list[str]]:
        """What to select, and what to call each of it."""
        wanted = {_ROWS: "count(*)"}
        joined = 0
        for rule in rules:
            kinds = [self.kinds[column] for column in rule.columns]
            columns = [f"t.{name(column)}" for column in rule.columns]
            there = " AND ".join(f"{column} IS NOT NULL" for column in columns)
            if rule.kind == "foreign_key":
                wanted[rule.id] = _count(f"{there} AND r{joined}.found IS NULL")
                joined += 1
            elif rule.kind == "duplicate" and all(kind in _WHOLE for kind in kinds):
                wanted[f"keys {rule.id}"] = _count(there)
                for column, quoted in zip(rule.columns, columns, strict=True):
                    wanted[f"least key {column}"] = f"min({quoted})"
                    wanted[f"most key {column}"] = f"max({quoted})"
            elif len(columns) == 1:
                wanted |= _aggregates_of(rule, columns[0], kinds[0])
        return list(wanted.values()), list(wanted)

    def _from(self, rules: Sequence[Rule]) -> str:
        text = f"{self._rows()} t"
        keys = [rule for rule in rules if rule.kind == "foreign_key"]
        for number, rule in enumerate(keys):
            targets = rule.given["keys"]
            wanted = ", ".join(f"{name(key)} AS k{index}" for index, key in enumerate(targets))
            other = self._others[rule.given["table"]].sql
            pairs = [f"t.{name(column)} = r{number}.k{index}" for index, column in enumerate(rule.columns)]
            text += (
                f" LEFT JOIN (SELECT DISTINCT {wanted}, true AS found FROM {other}) r{number}"
                f" ON {' AND '.join(pairs)}"
            )
        return text

    def _rows(self) -> str:
        """The rows to look at: all, or the sample."""
        sample = self._sample
        if sample is None:
            return self._relation.sql
        by = [column for column in sample.by if column in self.kinds] or list(self.kinds)
        key = ", ".join(name(column) for column in by)
        most = int(sample.share * 1_000_000)
        return f"(SELECT * FROM {self._relation.sql} WHERE hash({key}) % 1000000 < {most})"

    def _history_figures(self, rules: Sequence[Rule], values: Mapping[str, Any], measured: Measured) -> None:
        for rule in rules:
            if rule.kind == "anomaly" and rule.columns:
                column = rule.columns[0]
                rows, nulls = values[_ROWS], values[f"nulls {column}"] or 0
                count = values.get(f"count {column}") or 0
                if count:
                    moments = [
                        float(values[f"{word} {column}"]) for word in ("mean", "variance", "least", "most")
                    ]
                    figures = ColumnFigures(
                        rows, nulls, count, moments[0], moments[1] * count, moments[2], moments[3]
                    )
                else:
                    figures = ColumnFigures(rows, nulls)
                measured.figures[column] = figures
            elif rule.kind == "distribution":
                column = rule.columns[0]
                measured.buckets[column] = dict(values[f"buckets {column}"] or {})

    # ── uniqueness ────────────────────────────────────────────────────────────────────────────

    def _duplicates(self, rule: Rule, values: Mapping[str, Any]) -> tuple[int, int]:
        """Keys that occur more than once, and the rows they have too many."""
        columns = [name(column) for column in rule.columns]
        where = " AND ".join(f"{column} IS NOT NULL" for column in columns)
        if code := self._dense(rule, values):
            count = values[f"keys {rule.id}"]
            span = f"0, {max(code.span - 1, 1)}"
            (bits,) = self._run(
                f"SELECT bit_count(bitstring_agg({code.sql}, {span})) FROM {self._rows()} WHERE {where}"
            )
            if (bits or 0) == count:
                return 0, 0
            # Some keys repeat: they are grouped only where the bits of a part are fewer than its rows.
            parts = self._run(
                f"SELECT list(part) FROM (SELECT {code.sql} // {_PART} AS part FROM {self._rows()} WHERE {where}"
                f" GROUP BY part HAVING count(*) <> bit_count(bitstring_agg({code.sql} % {_PART}, 0, {_PART - 1})))"
            )[0]
            if len(parts) <= _MOST_PARTS:
                where += f" AND {code.sql} // {_PART} IN ({', '.join(map(str, parts))})"
        grouped = (
            f"SELECT count(*) AS n FROM {self._rows()} WHERE {where}"
            f" GROUP BY {', '.join(columns)} HAVING count(*) > 1"
        )
        keys, surplus = self._run(f"SELECT count(*), coalesce(sum(n) - count(*), 0) FROM ({grouped})")
        return keys, int(surplus)

    def _dense(self, rule: Rule, values: Mapping[str, Any]) -> "_Code | None":
        """The keys as numbers from 0 on, where there are not many more numbers than rows."""
        count = values.get(f"keys {rule.id}")
        if not count:
            return None
        code, span = "0", 1
        for column in rule.columns:
            least, most = values[f"least key {column}"], values[f"most key {column}"]
            width = most - least + 1
            code, span = f"({code} * {width} + (CAST({name(column)} AS BIGINT) - {least}))", span * width
        return _Code(code, span) if span <= min(count * _BITS_PER_ROW, _MOST_BITS) else None

    # ── queries and functions of the contract ─────────────────────────────────────────────────

    def _query(self, rule: Rule, measured: Measured) -> None:
        view = name(rule.table)
        rows = {name(other): relation.sql for other, relation in self._others.items()} | {view: self._rows()}
        for named, sql in rows.items():
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {named} AS SELECT * FROM {sql}")
            self._views.add(named)
        text = placed(rule.given["query"], view, name(rule.columns[0]) if rule.columns else "*")
        try:
            statements = self._connection.extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                measured.unable[rule.id] = "it is not one SELECT"
                return
            answer = self._connection.execute(
                f"SELECT * FROM ({text.strip().rstrip(';')}) LIMIT 2"
            ).fetchall()
        except duckdb.Error as error:
            measured.unable[rule.id] = _first_line(error)
            return
        if len(answer) != 1 or len(answer[0]) != 1 or not _numeric(answer[0][0]):
            measured.unable[rule.id] = "it does not give one row with one number"
            return
        measured.values[rule.id] = float(answer[0][0])

    def batches(self, columns: Sequence[str], rows: int = 100_000) -> pa.RecordBatchReader:
        """The rows, of some columns (all when empty), streamed."""
        wanted = ", ".join(name(column) for column in columns) or "*"
        return self._connection.sql(f"SELECT {wanted} FROM {self._rows()}").to_arrow_reader(rows)

    def failing(self, rule: Rule, most: int) -> pa.Table:
        """At most `most` of the rows that break a rule, whole; empty for a rule that is not about rows."""
        columns = [f"t.{name(column)}" for column in rule.columns]
        rows = self._rows()
        if rule.kind in {"null", "missing", "invalid"}:
            text = f"SELECT t.* FROM {rows} t WHERE {bad_when(rule, self.kinds[rule.columns[0]], columns[0])}"
        elif rule.kind == "foreign_key":
            there = " AND ".join(f"{column} IS NOT NULL" for column in columns)
            text = f"SELECT t.* FROM {self._from([rule])} WHERE {there} AND r0.found IS NULL"
        elif rule.kind == "duplicate":
            keys = ", ".join(name(column) for column in rule.columns)
            there = " AND ".join(f"{name(column)} IS NOT NULL" for column in rule.columns)
            twice = (
                f"SELECT {keys} FROM {rows} WHERE {there} GROUP BY {keys} HAVING count(*) > 1 LIMIT {most}"
            )
            text = f"SELECT t.* FROM {rows} t SEMI JOIN ({twice}) USING ({keys}) ORDER BY {keys}"
        else:
            return pa.table({})
        return self._connection.sql(f"{text} LIMIT {most}").to_arrow_table()

    def _run(self, text: str) -> tuple[Any, ...]:
        try:
            # All of it: DuckDB 2.0 lets nothing else run on a connection with an answer half read.
            answer = self._connection.execute(text).fetchall()
        except duckdb.Error as error:
            raise BoucleError(
                "B443",
                "the rows cannot be read to their end",
                why=_first_line(error),
                fix="see which row it names",
            ) from None
        return tuple(answer[0])


def _confined(memory: str, spill: Path, relations: Sequence[Relation]) -> Any:
    """A DuckDB that reads these files, writes only where it spills, and takes no other setting."""
    connection = duckdb.connect(":memory:")
    for relation in relations:
        if relation.arrow is not None:
            connection.register(relation.sql.strip('"'), relation.arrow)
    files = [file for relation in relations for file in relation.files]
    for setting in (
        "TimeZone = 'UTC'",
        "python_enable_replacements = false",
        "enable_progress_bar = false",  # it would go to standard output, between the JSON
        "preserve_insertion_order = false",
        f"memory_limit = {literal(memory)}",
        f"temp_directory = {literal(str(spill))}",
        f"allowed_directories = [{literal(str(spill))}]",
        f"allowed_paths = [{', '.join(literal(file) for file in files)}]",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def _aggregates_of(rule: Rule, column: str, kind: str) -> dict[str, str]:
    """Those of a rule about one column, by label; columns that several rules look at are asked once."""
    match rule.kind:
        case "null" | "missing" | "invalid":
            return {rule.id: _count(bad_when(rule, kind, column))}
        case "freshness":
            return {f"newest {rule.columns[0]}": f"max({nanos_since_epoch(column, kind)})"}
        case "anomaly":
            return _moments(rule.columns[0], column, kind)
        case "distribution":
            return {f"buckets {rule.columns[0]}": f"histogram({bucket(column, kind)})"}
        case _:
            return {}


def _count(condition: str) -> str:
    # Not count_if: of no rows, or of conditions that are all unknown, it makes NULL.
    return f"count(*) FILTER (WHERE {condition})"


def _moments(column: str, quoted: str, kind: str) -> dict[str, str]:
    found = {f"nulls {column}": f"count(*) - count({quoted})"}
    if unsuited("number", kind):
        return found
    value = f"CAST({quoted} AS DOUBLE)"
    only = f"FILTER (WHERE abs({value}) < {HUGE})"
    return found | {
        f"count {column}": f"count({quoted}) {only}",
        f"mean {column}": f"avg({value}) {only}",
        f"variance {column}": f"var_pop({value}) {only}",
        f"least {column}": f"min({value}) {only}",
        f"most {column}": f"max({value}) {only}",
    }


def _arrow_kind(kind: str) -> pa.DataType:
    """The Arrow type that stands for DuckDB's, as far as a rule asks."""
    if kind.endswith("[]"):
        return pa.list_(_arrow_kind(kind[:-2]))
    for begins, arrow in (
        ("VARCHAR", pa.string()), ("TIMESTAMP WITH", pa.timestamp("us", "UTC")), ("TIMESTAMP", pa.timestamp("us")),
        ("DATE", pa.date32()), ("TIME", pa.time64("us")), ("DOUBLE", pa.float64()), ("FLOAT", pa.float32()),
        ("DECIMAL", pa.decimal128(38, 9)), ("BOOLEAN", pa.bool_()), ("INTERVAL", pa.duration("us")),
    ):  # fmt: skip
        if kind.startswith(begins):
            return arrow
    return pa.int64() if "INT" in kind else pa.binary()


def _numeric(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
