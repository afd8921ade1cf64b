"""`boucle quality`: the contract held against whole tables and files."""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boucle.errors import BoucleError, DeclarationError

if TYPE_CHECKING:
    from boucle.product.rules import Rule
    from boucle.quality.relation import Relation
    from boucle.quality.sql_pass import Sample
    from boucle.quality.table_check import TableReport
    from boucle.quality.verdict import Outcome

__all__ = ["arguments", "contract_rules", "run"]

_MARKS = {"kept": "✓", "broken": "✗", "unknown": "?"}
_SEVERITIES = ("info", "warning", "error")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle quality`."""
    parser.add_argument(
        "what", nargs="*", help="tables of the lake, or files and folders (default: every table)"
    )
    parser.add_argument(
        "--product", type=Path, default=Path(), metavar="DIR", help="the product's folder (default: here)"
    )
    parser.add_argument(
        "--contract", type=Path, metavar="FILE", help="a DataContract on its own instead of a product"
    )
    parser.add_argument(
        "--table", metavar="NAME", help="the schema object a file holds (default: by the file's name)"
    )
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="the run whose lake is meant (default: run.folder)"
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="TABLE=FILE",
        help="rows that foreign keys lead to",
    )
    parser.add_argument(
        "--sample", metavar="1%|N", help="a share of the keys, or about N rows; the same at every run"
    )
    parser.add_argument("--fail-on", choices=[*_SEVERITIES, "never"], default="error",
                        help="exit 1 from this severity on (default: error)")  # fmt: skip
    parser.add_argument(
        "--rows", type=int, default=5, metavar="N", help="failing rows shown of each rule (default 5)"
    )
    parser.add_argument(
        "--failing", type=Path, metavar="FILE", help="write failing rows there, one JSON object a line"
    )
    parser.add_argument(
        "--keep", type=int, default=1000, metavar="N", help="failing rows written of each rule (default 1000)"
    )
    parser.add_argument("--history", type=Path, metavar="FILE",
                        help="where runs are remembered (default: quality/history.ndjson of the run)")  # fmt: skip
    parser.add_argument("--no-history", action="store_true", help="remember nothing of this run")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: {ok, tables: [{table, rows, outcomes}]}"
    )
    parser.epilog = (
        "examples:\n  boucle quality --product examples/press\n"
        "  boucle quality orders.parquet --contract orders.odcs.yaml --reference customers=customers.parquet\n"
        "  boucle quality maintenance_summary --sample 1% --json"
    )


def run(options: argparse.Namespace) -> int:
    """Check each table; 1 when a rule of the given severity or a graver one is not kept."""
    from boucle.clock import SECOND
    from boucle.quality.history import History
    from boucle.quality.table_check import check_table
    from boucle.quality.verdict import worst

    subject = _Subject(options)
    reports = []
    now = time.time_ns()
    file = options.history or subject.run / "quality" / "history.ndjson"
    history = None if options.no_history else History(file)
    for table, relation in subject.tables():
        rules = subject.rules[table]
        report = check_table(
            table, rules, relation,
            now=now, others=subject.others(rules), functions=subject.functions(rules),
            sample=_sample(options, rules, relation), history=history.of(table) if history else (),
            show=max(options.rows, options.keep if options.failing else 0),
        )  # fmt: skip
        if history and options.sample is None:
            history.add(now, table, report.measured, report.outcomes)
        reports.append(report)
    if options.failing:
        _write_failing(options.failing, reports)
    outcomes = [one for report in reports for one in report.outcomes]
    gravest = worst(outcomes)
    asked = options.fail_on != "never" and gravest is not None
    failed = asked and _SEVERITIES.index(gravest or "info") >= _SEVERITIES.index(options.fail_on)
    if options.json:
        print(json.dumps({"ok": not failed, "worst": gravest, "sample": options.sample,
                          "tables": [_told(report, options.rows) for report in reports]},
                         ensure_ascii=False, default=str))  # fmt: skip
    else:
        for report in reports:
            print("\n".join(_lines(report, options.rows)))
        took = (time.time_ns() - now) / SECOND
        broken = sum(one.state == "broken" for one in outcomes)
        unknown = sum(one.state == "unknown" for one in outcomes)
        print(f"{len(outcomes)} rules, {broken} broken, {unknown} not executed; {took:.1f} s")
    return int(failed)


class _Subject:
    """What is to be checked, by which rules, with which other tables at hand."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.run = options.run or Path()
        self._folder: Path = options.product
        self._feeds: dict[str, str] = {}
        if options.contract is not None:
            self.rules = contract_rules(options.contract)
        else:
            from boucle.product.project import load_project

            project = load_project(options.product)
            self.run = options.run or project.path("run.folder")
            self.rules = {name: contract.rules for name, contract in project.contracts.items()}
            for table, spec in project.loop.tables.items():
                source = project.loop.sources.get(spec.from_)
                self._feeds[table] = source.schema if source else table
        self._given = dict(self._reference(one) for one in options.reference)

    def _reference(self, text: str) -> tuple[str, "Relation"]:
        from boucle.quality.relation import file_relation

        table, sign, file = text.partition("=")
        if not sign or not file:
            raise BoucleError("B447", f"--reference {text} names no file", fix="write TABLE=FILE")
        return table, file_relation(file)

    def tables(self) -> list[tuple[str, "Relation"]]:
        """Schema object and rows, for everything that was asked for."""
        if not self._options.what:
            found = [(self._feeds.get(name, name), rows) for name, rows in self._lake().items()]
            found = [(name, rows) for name, rows in found if name in self.rules]
            if not found:
                raise BoucleError("B447", "there is nothing to check",
                                  why=f"no table of the contract is in {self.run / 'lake'}",
                                  fix="name a file, or run the loop first")  # fmt: skip
            return found
        return [self._one(str(word)) for word in self._options.what]

    def _one(self, word: str) -> tuple[str, "Relation"]:
        from boucle.quality.relation import file_relation

        if Path(word).exists():
            table = self._options.table or self._by_name(Path(word))
            return self._declared(table, word), file_relation(word)
        lake = self._lake()
        if word not in lake:
            known = ", ".join(sorted(lake)) or "none yet"
            raise BoucleError(
                "B447", f"{word} is neither a file nor a table of the lake", fix=f"tables: {known}"
            )
        return self._declared(self._options.table or self._feeds.get(word, word), word), lake[word]

    def _by_name(self, file: Path) -> str:
        stem = file.name.partition(".")[0]
        return next(iter(self.rules)) if stem not in self.rules and len(self.rules) == 1 else stem

    def _declared(self, table: str, of: str) -> str:
        if table not in self.rules:
            known = ", ".join(self.rules) or "none"
            raise BoucleError("B447", f"the contract promises nothing of {table!r}", where=of,
                              fix=f"--table with one of: {known}")  # fmt: skip
        return table

    def _lake(self) -> dict[str, "Relation"]:
        from boucle.lake.sql import find_tables
        from boucle.quality.relation import file_relation

        folder = self.run / "lake"
        return (
            {table.name: file_relation(table.folder) for table in find_tables(folder)}
            if folder.is_dir()
            else {}
        )

    def others(self, rules: "tuple[Rule, ...]") -> dict[str, "Relation"]:
        """The tables that foreign keys and queries may want: those given, else those of the lake."""
        wanted = {rule.given["table"] for rule in rules if rule.kind == "foreign_key"}
        lake = self._lake() if wanted - set(self._given) else {}
        fed = {self._feeds.get(name, name): rows for name, rows in lake.items()}
        return self._given | {name: fed[name] for name in wanted if name in fed and name not in self._given}

    def functions(self, rules: "tuple[Rule, ...]") -> Mapping[str, Any]:
        """The functions of `python` rules, by rule."""
        from boucle.loop.plan import find_operator

        found = {}
        for rule in rules:
            if rule.kind == "python":
                try:
                    found[rule.id] = find_operator(rule.given["use"], self._folder)
                except (ImportError, AttributeError, ValueError) as error:
                    raise BoucleError("B445", f"{rule.id}: {rule.given['use']} cannot be imported", why=str(error),
                                      fix="--product DIR with the folder its module is in") from None  # fmt: skip
        return found


def contract_rules(file: Path) -> "dict[str, tuple[Rule, ...]]":
    """The rules of a DataContract in a file, by schema object; DeclarationError for all that is wrong with it."""
    from boucle.product.lines import read_documents
    from boucle.product.odcs import compile_rules

    documents, problems = read_documents(file)
    wanted = [
        one for one in documents if isinstance(one.value, dict) and one.value.get("kind") == "DataContract"
    ]
    if not problems and len(wanted) != 1:
        raise BoucleError("B447", f"{len(wanted)} DataContracts", where=str(file), fix="name a file with one")
    rules: dict[str, tuple[Rule, ...]] = {}
    if wanted:
        rules, found = compile_rules(wanted[0])
        problems += found
    if problems:
        raise DeclarationError(problems)
    return rules


def _sample(options: argparse.Namespace, rules: "tuple[Rule, ...]", relation: "Relation") -> "Sample | None":
    from boucle.quality.sql_pass import Sample, WholeTable

    if options.sample is None:
        return None
    text = str(options.sample).strip()
    try:
        amount = float(text.removesuffix("%"))
    except ValueError:
        amount = -1.0
    if amount <= 0 or (text.endswith("%") and amount > 100):
        raise BoucleError(
            "B447", f"--sample {text} is no share and no number of rows", fix="write 1%, or 10000"
        )
    by = next((rule.columns for rule in rules if rule.kind == "duplicate"), ())
    if text.endswith("%"):
        return Sample(amount / 100, by)
    with WholeTable(relation) as whole:
        rows = whole.measure([]).rows
    return Sample(min(1.0, amount / max(rows, 1)), by)


def _write_failing(file: Path, reports: "list[TableReport]") -> None:
    import msgspec

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        for report in reports:
            for one in report.failing:
                out.write(msgspec.json.encode(one, enc_hook=str) + b"\n")


def _told(report: "TableReport", rows: int) -> dict[str, Any]:
    from msgspec import structs

    shown: dict[str, list[Any]] = {}
    for one in report.failing:
        kept = shown.setdefault(one.rule, [])
        if len(kept) < rows:
            kept.append(one.row)
    return {
        "table": report.table,
        "rows": report.rows,
        "outcomes": [{**structs.asdict(one), "rows": shown.get(one.rule, [])} for one in report.outcomes],
    }


def _lines(report: "TableReport", rows: int) -> list[str]:
    lines = [f"{report.table}: {report.rows} rows"]
    for one in report.outcomes:
        lines.append(f"  {_MARKS[one.state]} {one.rule}{_found(one)}" + (f" ({one.why})" if one.why else ""))
        if one.state == "broken" and one.impact:
            lines.append(f"      impact: {one.impact}")
        failing = [row for row in report.failing if row.rule == one.rule][:rows]
        lines += [f"      {_row(row.columns, row.values)}  in  {_short(row.row)}" for row in failing]
    return lines


def _found(outcome: "Outcome") -> str:
    if outcome.state == "kept":
        return ""
    if outcome.state == "unknown":
        return f" [{outcome.severity}] not executed"
    found = "broken" if outcome.measured is None else f"{outcome.measured:g}"
    return f" [{outcome.severity}] {found}, {outcome.wanted} was promised"


def _short(row: dict[str, Any]) -> str:
    text = json.dumps(row, default=str, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:159]}…"


def _row(columns: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return ", ".join(f"{column}={value!r}" for column, value in zip(columns, values, strict=True))
