"""The contract of a whole table, held against its rows: numbers, verdicts, and some of the rows that break it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from msgspec import Struct

from boucle.block import as_dicts
from boucle.clock import Nanos
from boucle.product.rules import Rule
from boucle.quality.relation import Relation
from boucle.quality.sql_pass import MEMORY, Sample, WholeTable
from boucle.quality.verdict import Measured, Outcome, Record, judge

if TYPE_CHECKING:
    from boucle.quality.state import Function

__all__ = ["Failing", "TableReport", "check_table", "failing_rows"]


class Failing(Struct, frozen=True, kw_only=True):
    """A row that breaks a rule."""

    table: str
    rule: str
    severity: str
    columns: tuple[str, ...]
    values: tuple[Any, ...]
    """What the row has in these columns."""
    row: dict[str, Any]


class TableReport(Struct, frozen=True, kw_only=True):
    """What a check of one table found."""

    table: str
    at: Nanos
    rows: int
    outcomes: tuple[Outcome, ...]
    failing: tuple[Failing, ...]
    measured: Measured


def check_table(
    table: str,
    rules: Sequence[Rule],
    relation: Relation,
    *,
    now: Nanos,
    others: Mapping[str, Relation] | None = None,
    functions: "Mapping[str, Function] | None" = None,
    history: Sequence[Record] = (),
    sample: Sample | None = None,
    show: int = 10,
    memory: str = MEMORY,
    connection: Any = None,
) -> TableReport:
    """Check a table by its rules. `others` are the tables foreign keys lead to, `functions` those of `python` rules.

    Of each broken rule about rows at most `show` rows are given back. `connection`: see `WholeTable`. B442 and B443
    when the rows cannot be read.
    """
    with WholeTable(relation, others, memory=memory, sample=sample, connection=connection) as whole:
        measured = whole.measure(rules)
        failing: list[Failing] = []
        programmed = [rule for rule in rules if rule.kind == "python"]
        if programmed:
            failing += _by_functions(whole, programmed, functions or {}, measured, show)
        outcomes = judge(rules, measured, history, now)
        for rule, outcome in zip(rules, outcomes, strict=True):
            if show and outcome.state == "broken" and rule.kind != "python" and measured.bad.get(rule.id):
                failing += failing_rows(rule, whole.failing(rule, show))
    return TableReport(
        table=table, at=now, rows=measured.rows, outcomes=outcomes, failing=tuple(failing), measured=measured
    )


def _by_functions(
    whole: WholeTable,
    rules: Sequence[Rule],
    functions: "Mapping[str, Function]",
    measured: Measured,
    show: int,
) -> list[Failing]:
    """Python sees batches of the columns it asked for, streamed: memory stays bounded."""
    from boucle.quality.state import TableState

    known = [rule for rule in rules if all(column in whole.kinds for column in rule.columns)]
    state = TableState(known, functions=functions)
    everything = any(not rule.columns for rule in known)
    columns = [] if everything else list(dict.fromkeys(column for rule in known for column in rule.columns))
    failing: list[Failing] = []
    if known:
        for batch in whole.batches(columns):
            for rule_id, bad in state.update(batch).items():
                rule = next(one for one in known if one.id == rule_id)
                shown = sum(one.rule == rule_id for one in failing)
                rows = pa.table(batch).filter(pa.array(bad)).slice(0, max(0, show - shown))
                failing += failing_rows(rule, rows)
    told = state.measured()
    measured.bad |= told.bad
    measured.unable |= told.unable
    gone = {rule.id: "one of its columns is not there" for rule in rules if rule not in known}
    measured.unable |= gone
    return failing


def failing_rows(rule: Rule, rows: pa.Table) -> list[Failing]:
    """Rows as they are shown and kept; times as whole nanoseconds, as everywhere in boucle."""
    told = []
    for batch in rows.combine_chunks().to_batches():
        for row in as_dicts(batch):
            values = tuple(row.get(column) for column in rule.columns)
            told.append(
                Failing(
                    table=rule.table,
                    rule=rule.id,
                    severity=rule.severity,
                    columns=rule.columns,
                    values=values,
                    row=row,
                )
            )
    return told
