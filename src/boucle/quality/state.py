"""The rules of one table over rows that come in Blocks: what is known so far, mergeable over any cut.

`update` counts a Block in, `merge` counts in another state of the same rules, and `measured` gives the numbers that
one pass over all the rows would give: counts add up, extremes and moments are merged, keys are a multiset that
spills to disk (`key_counts`). Rules of kind `sql` ask the whole table and are left to `sql_pass`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from boucle.block import in_nanos
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.product.rules import Rule
from boucle.quality.figures import ColumnFigures, buckets_of, merged
from boucle.quality.key_counts import MEMORY_KEYS, KeyCounts
from boucle.quality.key_hash import keys_of
from boucle.quality.masks import Mask, Test, row_test
from boucle.quality.verdict import Measured

__all__ = ["Function", "TableState"]

Function = Callable[[pa.RecordBatch], Any]
"""A rule of kind `python`: of a batch of the rule's columns, True for each bad row, or how many are bad."""


_FAILURES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pa.ArrowException,
)
"""What somebody's function may raise over values it did not expect."""
_COUNTED = {"null", "missing", "invalid", "python"}


class _Kept(Struct):
    """What `save` writes besides the keys."""

    rows: int
    bad: dict[str, int]
    newest: dict[str, Nanos | None]
    figures: dict[str, ColumnFigures]
    buckets: dict[str, dict[int, int]]
    unable: dict[str, str]
    kinds: dict[str, str]
    keys: dict[str, dict[str, Any]]


class TableState:
    """What is known of the rows of one table.

    `folder` is where keys spill to and where `save` writes; None: all stays in memory. `functions` are those of the
    `python` rules, by rule. `references` are the keys that must be kept because another table leads to them.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        folder: Path | None = None,
        *,
        functions: Mapping[str, Function] | None = None,
        references: Sequence[tuple[str, ...]] = (),
        memory_keys: int = MEMORY_KEYS,
    ) -> None:
        self.rules = tuple(rules)
        self._folder, self._functions = folder, dict(functions or {})
        self._tests: dict[str, Test] = {}
        self._schema: pa.Schema | None = None
        self._kept = _Kept(0, {}, {}, {}, {}, {}, {}, {})
        wanted = [rule.columns for rule in rules if rule.kind in {"duplicate", "foreign_key"}]
        self._keys = {
            _key_name(columns): KeyCounts(
                None if folder is None else folder / _key_name(columns), memory_keys
            )
            for columns in dict.fromkeys([*wanted, *references])
        }
        self._key_columns = {_key_name(columns): columns for columns in [*wanted, *references]}

    @property
    def rows(self) -> int:
        """Counted so far."""
        return self._kept.rows

    def update(self, rows: pa.RecordBatch) -> dict[str, Mask]:
        """Count a batch in; rule → the rows of it that break it, for rules about rows that are broken in it.

        A row that repeats a key breaks a `duplicate` rule; whether a foreign key leads somewhere is known in the end.
        """
        if self._schema is None or not self._schema.equals(rows.schema):
            self._fit(rows.schema)
        kept = self._kept
        kept.rows += rows.num_rows
        found: dict[str, Mask] = {}
        for rule in self.rules:
            bad = self._bad(rule, rows)
            if bad is not None:
                found[rule.id] = bad
                kept.bad[rule.id] = kept.bad.get(rule.id, 0) + int(bad.sum())
        self._count_keys(rows, found)
        self._count_figures(rows)
        return found

    def _fit(self, schema: pa.Schema) -> None:
        """Make the tests for the types there are."""
        self._schema, self._tests = schema, {}
        self._kept.kinds.update({field.name: str(field.type) for field in schema})
        for rule in self.rules:
            missing = [column for column in rule.columns if column not in schema.names]
            if missing and rule.kind != "type":
                self._kept.unable[rule.id] = f'there is no column "{missing[0]}"'
            elif rule.kind in {"null", "missing", "invalid"}:
                try:
                    self._tests[rule.id] = row_test(rule, schema.field(rule.columns[0]).type)
                except BoucleError as error:
                    self._kept.unable[rule.id] = error.why or error.what
            elif rule.kind == "sql":
                self._kept.unable[rule.id] = "a query asks the whole table, not its Blocks"
            elif rule.kind == "freshness" and not pa.types.is_temporal(schema.field(rule.columns[0]).type):
                self._kept.unable[rule.id] = f"{rule.columns[0]} is no time"

    def _bad(self, rule: Rule, rows: pa.RecordBatch) -> Mask | None:
        if rule.id in self._kept.unable:
            return None
        if rule.kind == "python":
            return self._by_function(rule, rows)
        test = self._tests.get(rule.id)
        return None if test is None else test(rows.column(rule.columns[0]))

    def _by_function(self, rule: Rule, rows: pa.RecordBatch) -> Mask | None:
        function = self._functions.get(rule.id)
        if function is None:
            self._kept.unable[rule.id] = f"{rule.given['use']} was not given"
            return None
        try:
            told = function(rows.select(list(rule.columns)) if rule.columns else rows)
            bad = np.asarray(told, dtype=np.bool_)
        except _FAILURES as error:
            raise BoucleError(
                "B444",
                f"{rule.id}: {rule.given['use']} failed",
                why=f"{type(error).__name__}: {error}",
                fix="give back one truth value for each row: True where it is bad",
            ) from error
        if bad.shape != (rows.num_rows,):
            raise BoucleError(
                "B444",
                f"{rule.id}: {rule.given['use']} told {bad.shape} values of {rows.num_rows} rows",
                fix="give back one truth value for each row: True where it is bad",
            )
        return bad if bad.any() else None

    def _count_keys(self, rows: pa.RecordBatch, found: dict[str, Mask]) -> None:
        for name, columns in self._key_columns.items():
            if not all(column in rows.schema.names for column in columns):
                continue
            arrays = [rows.column(column) for column in columns]
            valid: Mask | None = None
            if any(array.null_count for array in arrays):
                valid = np.logical_and.reduce([np.asarray(array.is_valid()) for array in arrays])
                arrays = [array.filter(pa.array(valid)) for array in arrays]
            again = self._keys[name].add(keys_of(arrays))
            if not again.any():
                continue
            bad = again
            if valid is not None:
                bad = np.zeros(rows.num_rows, np.bool_)
                bad[np.flatnonzero(valid)[again]] = True
            for rule in self.rules:
                if rule.kind == "duplicate" and rule.columns == columns:
                    found[rule.id] = bad

    def _count_figures(self, rows: pa.RecordBatch) -> None:
        kept = self._kept
        for rule in self.rules:
            if rule.id in kept.unable or not rule.columns:
                continue
            column = rule.columns[0]
            if rule.kind == "freshness":
                newest = in_nanos(_as_timestamp(_largest(rows.column(column))))[0].as_py()
                known = kept.newest.get(column)
                kept.newest[column] = newest if known is None else max(known, newest or known)
            elif rule.kind == "anomaly":
                now = ColumnFigures.of(rows.column(column))
                kept.figures[column] = kept.figures.get(column, ColumnFigures()).merged(now)
            elif rule.kind == "distribution":
                kept.buckets[column] = merged(kept.buckets.get(column, {}), buckets_of(rows.column(column)))

    def merge(self, other: "TableState") -> None:
        """Count in everything another state of the same rules has seen."""
        mine, its = self._kept, other._kept  # noqa: SLF001 - another state of the same kind
        mine.rows += its.rows
        for rule, bad in its.bad.items():
            mine.bad[rule] = mine.bad.get(rule, 0) + bad
        for column, newest in its.newest.items():
            known = mine.newest.get(column)
            mine.newest[column] = newest if known is None else max(known, newest or known)
        for column, figures in its.figures.items():
            mine.figures[column] = mine.figures.get(column, ColumnFigures()).merged(figures)
        for column, buckets in its.buckets.items():
            mine.buckets[column] = merged(mine.buckets.get(column, {}), buckets)
        mine.unable |= its.unable
        mine.kinds |= its.kinds
        for name, keys in self._keys.items():
            keys.merge(other._keys[name])  # noqa: SLF001

    def keys(self, columns: tuple[str, ...]) -> KeyCounts | None:
        """The keys of these columns, when they are kept."""
        return self._keys.get(_key_name(columns))

    def measured(self, others: Mapping[str, "TableState"] | None = None) -> Measured:
        """The numbers so far. `others` are the states of the tables that foreign keys lead to, by name."""
        kept = self._kept
        able = [rule for rule in self.rules if rule.id not in kept.unable]
        told = Measured(
            rows=kept.rows, kinds=dict(kept.kinds), newest=dict(kept.newest), figures=dict(kept.figures),
            buckets={column: dict(found) for column, found in kept.buckets.items()}, unable=dict(kept.unable),
            bad={rule.id: kept.bad.get(rule.id, 0) for rule in able if rule.kind in _COUNTED},
            surplus={}, values={},
        )  # fmt: skip
        for rule in able:
            if rule.kind == "duplicate":
                keys = self._keys[_key_name(rule.columns)]
                told.bad[rule.id], told.surplus[rule.id] = keys.repeated, keys.total - keys.distinct
            elif rule.kind == "foreign_key":
                self._count_orphans(rule, others or {}, told)
        return told

    def _count_orphans(self, rule: Rule, others: Mapping[str, "TableState"], told: Measured) -> None:
        other = others.get(rule.given["table"])
        keys = None if other is None else other.keys(tuple(rule.given["keys"]))
        if keys is None:
            told.unable[rule.id] = f"the rows of {rule.given['table']} do not flow here"
        else:
            told.bad[rule.id] = self._keys[_key_name(rule.columns)].missing(keys)

    # ── kept across restarts ──────────────────────────────────────────────────────────────────

    def save(self) -> bytes:
        """Write the keys beside what already lies in the folder; the bytes are what `load` needs."""
        assert self._folder is not None, "a state without a folder is not kept"
        self._kept.keys = {name: keys.save(self._folder / name) for name, keys in self._keys.items()}
        return msgspec.msgpack.encode(self._kept)

    def load(self, told: bytes) -> None:
        """Go on from what `save` gave; what it did not name is removed."""
        assert self._folder is not None, "a state without a folder is not kept"
        self._kept = msgspec.msgpack.decode(told, type=_Kept)
        for name, kept in self._kept.keys.items():
            if name in self._keys:
                self._keys[name].load(self._folder / name, kept)
        self.sweep()

    def sweep(self) -> None:
        """Remove files that the last `save` or `load` does not name."""
        assert self._folder is not None, "a state without a folder is not kept"
        for name, kept in self._kept.keys.items():
            if name in self._keys:
                self._keys[name].sweep(self._folder / name, kept)

    def settle(self) -> None:
        """Wait until nothing is written into the folder any more: before it is taken away."""
        for keys in self._keys.values():
            keys.settle()

    def row_rules(self) -> Iterator[Rule]:
        """The rules whose bad rows `update` can name."""
        return (rule for rule in self.rules if rule.id in self._tests or rule.kind in {"duplicate", "python"})


def _key_name(columns: tuple[str, ...]) -> str:
    return "keys-" + "+".join(
        "".join(c if c.isalnum() or c in "_-" else f"%{ord(c):x}" for c in one) for one in columns
    )


def _largest(column: Any) -> Any:
    """The largest value alone, as an array of one: cheaper to convert than the whole column."""
    return pa.array([pc.max(column)], column.type)


def _as_timestamp(column: Any) -> Any:
    return column.cast(pa.timestamp("s")) if pa.types.is_date(column.type) else column
