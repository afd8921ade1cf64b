"""The gates a staged batch goes through: each counts what it looked at and what failed, and says so in a sentence."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.clock import Clock, SystemClock
from boucle.errors import BoucleError
from boucle.lake.duck import DuckError, name
from boucle.product.contract import StreamContract
from boucle.product.transforms import DriftSpec, GateSpec, RowsSpec
from boucle.quality.check import Checker
from boucle.quality.history import History
from boucle.quality.relation import Relation
from boucle.quality.table_check import TableReport, check_table
from boucle.quality.verdict import Outcome
from boucle.refine.transform import AFTER, JUDGED, Transform

__all__ = ["Verdict", "audit"]

_SHOWN = 10
_STAGED = "staged"


class Verdict(Struct, frozen=True):
    """What one gate said; `sample` are some of the rows that failed, `holds` whether the batch may pass it."""

    gate: str
    holds: bool
    severity: str
    checked: int
    failed: int
    says: str
    sample: list[dict[str, Any]] = []


def audit(
    duck: Any,
    transform: Transform,
    before: int | None,
    others: Iterable[str] = (),
    history: History | None = None,
    clock: Clock | None = None,
) -> tuple[list[Verdict], list[TableReport]]:
    """What every gate of a transformation says, and what was measured, to be kept in `history` once it is published.

    Gates look at the view `staged`; rules of a contract about many rows are judged on the table as it will be.
    `before`: the rows of the batch before (None: unknown); `others`: the tables foreign keys lead to that are shown.
    In mode merge a batch whose key is missing or twice never passes.
    """
    rows = int(duck.execute(f"SELECT count(*) FROM {_STAGED}").fetchall()[0][0])
    verdicts = [_keys(duck, transform.spec.key, rows)] if transform.spec.mode == "merge" else []
    clock = clock or SystemClock()
    reports: list[TableReport] = []
    for number, gate in enumerate(transform.spec.gates):
        if gate.schema:
            contract = transform.contracts[gate.schema]
            verdicts.append(_contract(duck, gate, contract, rows, clock))
            told, report = _many(duck, gate, contract, others, history, clock)
            verdicts += told
            reports += [] if report is None else [report]
        elif gate.sql:
            verdicts.append(_sql(duck, gate, rows, number))
        elif gate.rows is not None:
            verdicts.append(_rows(gate, gate.rows, rows, before))
        elif gate.drift is not None:
            verdicts.append(_drift(duck, gate, gate.drift, rows))
    return verdicts, reports


def _verdict(
    gate: GateSpec, named: str, checked: int, failed: int, says: str, sample: Iterable[Any] = ()
) -> Verdict:
    return Verdict(
        gate.name or named, failed <= gate.allow, gate.severity, checked, failed, says, list(sample)
    )


def _dicts(duck: Any, text: str) -> list[dict[str, Any]]:
    found = duck.sql(text).to_arrow_table()
    return [{key: _plain(value) for key, value in row.items()} for row in found.to_pylist()]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _keys(duck: Any, key: Sequence[str], rows: int) -> Verdict:
    columns = ", ".join(map(name, key))
    missing = " OR ".join(f"{name(one)} IS NULL" for one in key)
    text = f"SELECT {columns}, count(*) AS rows FROM {_STAGED} GROUP BY ALL HAVING count(*) > 1 OR {missing}"
    try:
        failed = int(duck.execute(f"SELECT coalesce(sum(rows), 0) FROM ({text})").fetchall()[0][0])
        sample = _dicts(duck, f"{text} LIMIT {_SHOWN}")
    except DuckError as error:
        failed, sample = max(rows, 1), [{"error": _first(error)}]
    says = f"{failed} rows have a key ({', '.join(key)}) that is missing or there twice"
    return Verdict("key", not failed, "error", rows, failed, says, sample)


def _contract(duck: Any, gate: GateSpec, contract: StreamContract, rows: int, clock: Clock) -> Verdict:
    """What one value can break, row by row of the batch."""
    named = f"schema {contract.name}"
    present = {row[0]: None for row in duck.execute(f"DESCRIBE {_STAGED}").fetchall()}
    if missing := [one.name for one in contract.schema() if one.name not in present]:
        return _verdict(gate, named, rows, max(rows, 1), f"there is no column {', '.join(missing)}")
    return _rows_of(duck, gate, named, contract, rows, clock)


def _many(
    duck: Any,
    gate: GateSpec,
    contract: StreamContract,
    others: Iterable[str],
    history: History | None,
    clock: Clock,
) -> tuple[list[Verdict], TableReport | None]:
    """The rules about many rows, of the table as it will be; a verdict of each that is not kept."""
    named = f"schema {contract.name}"
    rules = [rule for rule in contract.rules if not rule.refuses and rule.kind != "type"]
    if not rules:
        return [], None
    led_to = {one: Relation(f"{JUDGED}.{name(one)}") for one in others} | {contract.name: Relation(AFTER)}
    known = () if history is None else history.of(contract.name)
    try:
        report = check_table(
            contract.name, rules, Relation(AFTER), now=clock.now(), others=led_to, history=known, show=_SHOWN,
            connection=duck,
        )  # fmt: skip
    except BoucleError as error:
        says = f"it cannot be judged: {error.what}: {error.why}"
        return [Verdict(gate.name or named, False, gate.severity, 0, 1, says)], None
    shown: dict[str, list[dict[str, Any]]] = {one.rule: [] for one in report.outcomes}
    for one in report.failing:
        shown[one.rule].append({key: _plain(value) for key, value in one.row.items()})
    broken = [one for one in report.outcomes if one.state != "kept"]
    return [_of_rule(gate, named, one, shown[one.rule]) for one in broken], report


def _of_rule(gate: GateSpec, named: str, outcome: Outcome, sample: list[dict[str, Any]]) -> Verdict:
    """A rule that is broken, as gravely as the lesser of rule and gate; or one that cannot be judged here, said."""
    measured = "" if outcome.measured is None else f"{outcome.measured:g}, {outcome.wanted} was promised"
    broken = outcome.state == "broken"
    grave = gate.severity if broken and outcome.severity == "error" else "warning"
    says = measured if broken else f"cannot be judged: {outcome.why}"
    place = f"{gate.name or named}: {outcome.rule}"
    return Verdict(place, not broken, grave, outcome.checked, outcome.failed, says, sample)


def _rows_of(
    duck: Any,
    gate: GateSpec,
    named: str,
    contract: StreamContract,
    rows: int,
    clock: Clock,
) -> Verdict:
    schema = contract.schema()
    checker = Checker(contract, clock=clock)
    failed, reasons, sample = 0, dict[str, int](), list[dict[str, Any]]()
    columns = ", ".join(name(one.name) for one in schema)
    reader = duck.sql(f"SELECT {columns} FROM {_STAGED}").to_arrow_reader(50_000)
    for batch in reader:
        try:
            rows_ = pa.Table.from_batches([batch]).cast(_loose(schema)).combine_chunks().to_batches()
        except pa.ArrowInvalid as error:
            return _verdict(
                gate, named, rows, rows, f"a column cannot have its promised type: {_first(error)}"
            )
        for one in rows_:
            _, rejects = checker.check(Block(contract.name, one, 0, Position(contract.name, 0)))
            failed += len(rejects)
            for reject in rejects:
                reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
                if len(sample) < _SHOWN:
                    sample.append({"reason": reject.reason, "detail": reject.detail})
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    says = f"{failed} of {rows} rows break it: {told}" if failed else f"all {rows} rows keep it"
    return _verdict(gate, named, rows, failed, says, sample)


def _loose(schema: pa.Schema) -> pa.Schema:
    """Nulls are for the checker to count, not for Arrow to refuse."""
    return pa.schema([field.with_nullable(True) for field in schema])


def _sql(duck: Any, gate: GateSpec, rows: int, number: int) -> Verdict:
    named = f"sql {number + 1}"
    text = gate.sql.strip().rstrip(";")
    try:
        failed = int(duck.execute(f"SELECT count(*) FROM ({text})").fetchall()[0][0])
        sample = _dicts(duck, f"SELECT * FROM ({text}) LIMIT {_SHOWN}") if failed else []
    except DuckError as error:
        return Verdict(
            gate.name or named, False, gate.severity, rows, rows, f"it cannot be answered: {_first(error)}"
        )
    return _verdict(
        gate, named, rows, failed, f"{failed} rows should not be there" if failed else "nothing found", sample
    )


def _rows(gate: GateSpec, bounds: RowsSpec, rows: int, before: int | None) -> Verdict:
    wrong = ""
    if rows < bounds.least:
        wrong = f"{rows} rows, at least {bounds.least} are wanted"
    elif bounds.most is not None and rows > bounds.most:
        wrong = f"{rows} rows, at most {bounds.most} are wanted"
    elif bounds.change is not None and before and abs(rows - before) > bounds.change * before:
        wrong = f"{rows} rows after {before}: more than {bounds.change:.0%} apart"
    return Verdict(
        gate.name or "rows", not wrong, gate.severity, rows, int(bool(wrong)), wrong or f"{rows} rows"
    )


def _drift(duck: Any, gate: GateSpec, drift: DriftSpec, rows: int) -> Verdict:
    named = gate.name or f"drift of {drift.column}"
    column = name(drift.column)
    text = f"SELECT avg({column}), stddev_samp({column}), count({column}) FROM "
    try:
        new = duck.execute(text + _STAGED).fetchall()[0]
        old = duck.execute(text + "previous").fetchall()[0]
    except DuckError as error:
        return Verdict(named, False, gate.severity, rows, 1, f"it cannot be answered: {_first(error)}")
    if not new[2] or not old[2]:
        return Verdict(named, True, gate.severity, rows, 0, "nothing to compare with")
    spread = float(old[1] or 0.0)
    away = abs(float(new[0]) - float(old[0]))
    distance = away / spread if spread > 0 else (0.0 if away == 0 else math.inf)
    says = (
        f"mean {float(new[0]):.6g} after {float(old[0]):.6g}: {distance:.3g} spreads, {drift.most:g} allowed"
    )
    holds = distance <= drift.most
    return Verdict(named, holds, gate.severity, rows, int(not holds), says)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
