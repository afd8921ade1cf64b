"""The transformations a product declares: read, put in order, and checked before anything runs."""

import hashlib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import sqlglot
from msgspec import Struct
from sqlglot import exp

from boucle.errors import BoucleError, DeclarationError, Problem, near
from boucle.product.contract import StreamContract
from boucle.product.duration import seconds
from boucle.product.lines import Document, Path_
from boucle.product.project import Project
from boucle.product.transforms import GateSpec, TransformSpec

__all__ = [
    "AFTER",
    "CHANGED",
    "JUDGED",
    "PREVIOUS",
    "REMOVED",
    "Transform",
    "bare",
    "check_transforms",
    "tables_of",
    "transforms_of",
]

CHANGED, REMOVED = "changed", "removed"
"""Schemas in which an incremental transformation finds what each input gained and lost since it last ran."""
PREVIOUS = "previous"
"""The output table as it is published now; gates see it."""
STAGED = "staged"
JUDGED = "judged"
"""The schema of what the contract's rules about many rows are judged on: the tables that foreign keys lead to."""
AFTER = f'{JUDGED}."the table after"'
"""The output table as it will be when the batch is published."""


class Transform(Struct, frozen=True):
    """One declared transformation, with its text."""

    name: str
    spec: TransformSpec
    file: Path
    """The SQL file, or the folder of the dbt project."""
    text: str
    contracts: dict[str, StreamContract]

    @property
    def digest(self) -> str:
        """Changes when another result is asked for, so that the table is made anew."""
        told = repr(
            (self.text, self.spec.mode, self.spec.key, self.spec.time, self.spec.model, self.spec.with_)
        )
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def bare(table: str) -> str:
    """`readings` of `raw.readings`."""
    return table.rpartition(".")[2]


def transforms_of(project: Project, chosen: tuple[str, ...] = ()) -> list[Transform]:
    """The transformations of a product, each after those it reads from; DeclarationError carries every problem."""
    problems = check_transforms(project)
    if problems:
        raise DeclarationError(problems)
    found = {name: _read(project, name, spec) for name, spec in project.loop.transforms.items()}
    graph = {name: {bare(one) for one in made.spec.from_} & set(found) for name, made in found.items()}
    ordered = [found[name] for name in TopologicalSorter(graph).static_order()]
    if unknown := [name for name in chosen if name not in found]:
        file, line = project.loop_document.file, project.loop_document.line(("transforms",))
        fix = near(unknown[0], found)
        raise DeclarationError(
            [Problem("B530", f"there is no transform {unknown[0]!r}", file, line, fix=fix)]
        )
    return [one for one in ordered if not chosen or one.name in chosen]


def _read(project: Project, name: str, spec: TransformSpec) -> Transform:
    file = project.folder / (spec.sql or ("dbt" if spec.use == "dbt" else f"sql/{name}.sql"))
    text = file.read_text(encoding="utf-8") if spec.use == "sql" else _project_text(file)
    return Transform(name, spec, file, text, project.contracts)


def _project_text(folder: Path) -> str:
    """Every text a dbt project is made of, so that a change of any makes another digest."""
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix in {".sql", ".yml", ".yaml", ".csv"}
        and not {"target", "logs", "dbt_packages"} & set(file.relative_to(folder).parts)
    )
    return "\n".join(f"{file.relative_to(folder)}\n{file.read_text(encoding='utf-8')}" for file in files)


def check_transforms(project: Project) -> list[Problem]:
    """Every problem of the declared transformations, as `boucle check` prints them."""
    return list(_Check(project).problems())


class _Check:
    def __init__(self, project: Project) -> None:
        self.loop, self.folder, self.contracts = project.loop, project.folder, project.contracts
        self.document: Document = project.loop_document
        self.tables = {**dict.fromkeys([*self.loop.tables, "events", "quarantine"]), **self.loop.transforms}
        self.tables |= {f"{name}_late": None for name in self.loop.sources}

    def problems(self) -> Iterator[Problem]:
        """All of them, transform by transform."""
        for name, spec in self.loop.transforms.items():
            at: Path_ = ("transforms", name)
            if name in self.loop.tables:
                yield self.said(at, f"{name!r} is already a table fed by a stream", "give it another name")
            if spec.mode == "merge" and not spec.key:
                yield self.said(
                    at, f"{name}: mode merge without a key", "key: the columns that identify a row"
                )
            for index, table in enumerate(spec.from_):
                if bare(table) not in self.tables:
                    fix = near(bare(table), self.tables)
                    yield self.said((*at, "from", index), f"{name} reads {table!r}, which nothing makes", fix)
            for index, gate in enumerate(spec.gates):
                yield from self.gate((*at, "gates", index), name, spec, gate)
            yield from self.text(at, name, spec)
        yield from self.circle()
        yield from self.upkeep()

    def upkeep(self) -> Iterator[Problem]:
        """Durations that cannot be read, and rules for tables that nothing makes."""
        lake = self.loop.lake
        for table in lake.tables:
            if table not in self.tables:
                fix = near(table, self.tables)
                yield self.said(("lake", "tables", table), f"lake: nothing makes a table {table!r}", fix)
        for place, rule in (
            (("lake",), lake),
            *((("lake", "tables", name), lake.of(name)) for name in lake.tables),
        ):
            for word in ("every", "history", "rows"):
                text = getattr(rule, word)
                try:
                    if text and seconds(text) <= 0:
                        yield self.said((*place, word), f"lake: {word} is nothing", "give more than 0")
                except BoucleError as error:
                    yield self.said((*place, word), f"lake: {word}: {error.what}", error.fix)

    def circle(self) -> Iterator[Problem]:
        """Transformations that read from each other."""
        named = self.loop.transforms
        graph = {name: {bare(one) for one in spec.from_} & set(named) for name, spec in named.items()}
        try:
            tuple(TopologicalSorter(graph).static_order())
        except CycleError as error:
            path = " → ".join(reversed(error.args[1]))
            yield self.said(
                ("transforms", error.args[1][0]), f"a circle: {path}", "let one of them read something else"
            )

    def gate(self, at: Path_, name: str, spec: TransformSpec, gate: GateSpec) -> Iterator[Problem]:
        """A gate that says nothing, too much, or what cannot be executed."""
        said = [word for word in ("schema", "sql", "rows", "drift") if getattr(gate, word)]
        if len(said) != 1:
            what = f"{name}: a gate has exactly one of schema, sql, rows and drift, not {len(said)}"
            yield self.said(at, what, "make it several gates" if said else "say what must hold")
        if gate.schema and gate.schema not in self.contracts:
            fix = near(gate.schema, self.contracts)
            yield self.said((*at, "schema"), f"{name}: there is no schema object {gate.schema!r}", fix)
        if gate.sql:
            known = {STAGED, PREVIOUS, *map(bare, spec.from_)}
            line = self.document.line((*at, "sql"))
            yield from self.select(name, gate.sql, known, self.document.file, line)

    def text(self, at: Path_, name: str, spec: TransformSpec) -> Iterator[Problem]:
        """A file that is absent or is no SELECT over the declared inputs."""
        if spec.use == "dbt":
            folder = self.folder / (spec.sql or "dbt")
            if not (folder / "dbt_project.yml").is_file():
                yield self.said(
                    at, f"{name}: {folder} is no dbt project", "sql: the folder with dbt_project.yml"
                )
            return
        file = self.folder / (spec.sql or f"sql/{name}.sql")
        if not file.resolve().is_relative_to(self.folder.resolve()):
            yield self.said(at, f"{name}: {spec.sql} lies outside the product", "keep it beside product.yaml")
            return
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            yield self.said(
                at, f"{name}: there is no file {file}", "write the SELECT there, or say `sql: FILE`"
            )
            return
        except UnicodeDecodeError as error:
            yield self.said(at, f"{name}: {file} is not UTF-8", f"save it as UTF-8 ({error.reason})")
            return
        yield from self.select(name, text, set(map(bare, spec.from_)), str(file), 1)

    def select(self, name: str, text: str, known: set[str], file: str, first: int) -> Iterator[Problem]:
        """A text that is not one SELECT, or reads what is not declared."""
        try:
            trees = [tree for tree in sqlglot.parse(text, dialect="duckdb") if tree is not None]
        except (sqlglot.errors.SqlglotError, RecursionError) as error:
            told = getattr(error, "errors", None) or [{}]
            line = first + int(told[0].get("line") or 1) - 1
            why = str(told[0].get("description") or error).splitlines()[0]
            yield Problem("B531", f"{name}: the SQL cannot be read", file, line, why, "correct it")
            return
        if len(trees) != 1 or not isinstance(trees[0], exp.Query):
            what = f"{name}: one SELECT is wanted"
            yield Problem(
                "B531",
                what,
                file,
                first,
                f"{len(trees)} statements",
                "write a single SELECT (WITH … is fine)",
            )
            return
        for table in sorted(tables_of(trees[0])):
            schema, _, last = table.rpartition(".")
            if last in known and (schema in {"", CHANGED, REMOVED, "raw", "silver", "gold"}):
                continue
            fix = f"{near(last, sorted(known))}; every table it reads stands in `from`"
            yield Problem("B532", f"{name} reads {table!r}, which it does not declare", file, first, fix=fix)

    def said(self, at: Path_, what: str, fix: str) -> Problem:
        """A problem of product.yaml."""
        return Problem("B530", what, self.document.file, self.document.line(at), fix=fix)


def tables_of(tree: Any) -> set[str]:
    """The tables a query reads, `schema.name` where it says the schema; not its own WITH names."""
    own = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    found = set()
    for table in tree.find_all(exp.Table):
        if isinstance(table.this, exp.Identifier) and (table.db or table.name.lower() not in own):
            found.add(f"{table.db}.{table.name}" if table.db else table.name)
    return found
