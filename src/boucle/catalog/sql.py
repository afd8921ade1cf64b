"""Which column of a query comes from which column of which table, read with sqlglot.

CTEs, subqueries, set operations, window functions, `select *`, aliases that refer to each other: what the tables'
columns settle is told, what they do not is said in `problems`, and nothing is guessed. Identifiers are compared
without case, as DuckDB does. A table is known by its name, with its schema where the query writes one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from boucle.errors import BoucleError
from boucle.ports import From, How

if TYPE_CHECKING:
    from sqlglot.optimizer.scope import Scope

__all__ = ["Tables", "TracedSql", "trace_sql"]

Tables = Mapping[str, Sequence[str]]
"""Table (`name` or `schema.name`) → its columns."""

_STRENGTH: dict[str, int] = {"IDENTITY": 0, "TRANSFORMATION": 1, "AGGREGATION": 2}
_DEEPEST = 60
"""Scopes within scopes; a query beyond it is refused rather than followed."""
_LONGEST = 400_000


class TracedSql(Struct, frozen=True):
    """What one statement makes: `target` is empty for a bare query."""

    target: str
    columns: dict[str, tuple[From, ...]]
    rows: tuple[From, ...]
    """Filters, joins, groups and sorting: what decides which rows there are."""
    reads: tuple[str, ...]
    problems: tuple[str, ...] = ()


def trace_sql(text: str, tables: Tables, *, dialect: str = "duckdb") -> list[TracedSql]:
    """Every SELECT, CREATE … AS and INSERT … SELECT of a text, in order; a later one may read an earlier one's table.

    B560 when the text cannot be parsed, or is deeper or longer than anybody writes.
    """
    from sqlglot import parse
    from sqlglot.errors import SqlglotError

    known = {_plain(name): list(columns) for name, columns in tables.items()}
    if len(text) > _LONGEST:
        raise _refused(f"{len(text)} characters are more than {_LONGEST}")
    found = []
    try:
        for tree in parse(text, dialect=dialect):
            if tree is None:
                continue
            told = _statement(tree, known, dialect)
            if told is None:
                continue
            found.append(told)
            if told.target:
                known[_plain(told.target)] = list(told.columns)
    except (SqlglotError, RecursionError, ValueError, AssertionError, AttributeError, KeyError) as error:
        raise _refused(" ".join(str(error).split())[:300] or type(error).__name__) from error
    return found


def _refused(why: str) -> BoucleError:
    return BoucleError(
        "B560", "the SQL cannot be read", why=why, fix="try it with `boucle sql`, then read again"
    )


def _statement(tree: Any, known: dict[str, list[str]], dialect: str) -> TracedSql | None:
    from sqlglot import exp

    target, named = "", None
    query = tree
    if isinstance(tree, exp.Update | exp.Merge | exp.Pivot):
        target = "" if isinstance(tree, exp.Pivot) else _table_name(tree.this)
        reads = tuple(dict.fromkeys(_table_name(one) for one in tree.find_all(exp.Table)))
        return TracedSql(target, {}, (), reads, (f"{tree.key.upper()} is not followed column by column",))
    if isinstance(tree, exp.Create | exp.Insert):
        if not isinstance(tree.expression, exp.Query):
            return None
        made = tree.this
        if isinstance(made, exp.Schema):
            made, named = made.this, [one.name for one in tree.this.expressions]
        target, query = _table_name(made), tree.expression
        if isinstance(tree, exp.Insert) and named is None:
            named = known.get(_plain(target))
        if tree.args.get("with_") is not None and query.args.get("with_") is None:
            query.set("with_", tree.args["with_"])
    if not isinstance(query, exp.Query):
        return None
    told = _Query(query.copy(), known, dialect).traced(target)
    if named is not None and len(named) == len(told.columns):
        # INSERT goes by place, not by name.
        told = structs.replace(told, columns=dict(zip(named, told.columns.values(), strict=True)))
    return told


class _Query:
    def __init__(self, query: Any, known: dict[str, list[str]], dialect: str) -> None:
        from sqlglot import exp

        self._known, self._dialect = known, dialect
        identifiers: list[str] = [one.name for one in query.find_all(exp.Identifier)]
        for columns in known.values():
            identifiers += columns
        self._written = {name.lower(): name for name in identifiers if name != name.lower()}
        self._flat: dict[str, str] = {}
        """A name of ours → the table as the query writes it: sqlglot wants tables of one depth."""
        self._problems: dict[str, None] = {}
        self._reads: dict[str, None] = {}
        self._query = self._qualified(query)

    def _qualified(self, query: Any) -> Any:
        from sqlglot import exp
        from sqlglot.optimizer.qualify import qualify

        common = {one.alias.lower() for one in query.find_all(exp.CTE)}
        schema: dict[str, object] = {}
        for table in list(query.find_all(exp.Table)):
            if not isinstance(table.this, exp.Identifier):
                continue  # a function: read_csv('…')
            written = _table_name(table)
            if written.lower() in common:
                continue
            flat = next(
                (ours for ours, name in self._flat.items() if name == written), f"t{len(self._flat)}__"
            )
            self._flat[flat] = written
            if not table.alias:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name)))
            table.set("this", exp.to_identifier(flat))
            table.set("db", None)
            table.set("catalog", None)
            columns = self._columns_of(_plain(written))
            if columns is not None:
                schema[flat] = {column.lower(): "unknown" for column in columns}
        for column in query.find_all(exp.Column):
            column.set("db", None)
        return qualify(
            query,
            dialect=self._dialect,
            schema=schema,
            validate_qualify_columns=False,
            allow_partial_qualification=True,
            identify=False,
            quote_identifiers=False,
        )

    def _columns_of(self, name: str) -> list[str] | None:
        found = self._known.get(name)
        if found is None and "." in name:
            found = self._known.get(name.rpartition(".")[2])
        if found is None and "." not in name:
            found = next((told for key, told in self._known.items() if key.rpartition(".")[2] == name), None)
        return found

    def traced(self, target: str) -> TracedSql:
        from sqlglot.optimizer.scope import build_scope

        scope = build_scope(self._query)
        if scope is None:
            return TracedSql(target, {}, (), (), ("this is no query",))
        columns = {self._spelt(name): made for name, made in self._outputs(scope, 0).items()}
        rows = tuple(dict.fromkeys(self._rows(scope, 0)))
        return TracedSql(target, columns, rows, tuple(self._reads), tuple(self._problems))

    def _spelt(self, name: str) -> str:
        return self._written.get(name, name)

    def _outputs(self, scope: "Scope", depth: int) -> dict[str, tuple[From, ...]]:
        """Output column → what it is made from, of a query or of the branches of a set operation."""
        from sqlglot import exp

        if depth > _DEEPEST:
            raise ValueError("queries within queries without end")
        tree = scope.expression
        if isinstance(tree, exp.SetOperation):
            branches = [list(self._outputs(one, depth + 1).items()) for one in scope.set_operation_scopes]
            names = [name for name, _ in branches[0]] if branches else []
            if len({len(one) for one in branches}) > 1:
                self._problem("the branches of a set operation have different numbers of columns")
            return {
                name: tuple(
                    dict.fromkeys(made for one in branches if place < len(one) for made in one[place][1])
                )
                for place, name in enumerate(names)
            }
        if not isinstance(tree, exp.Select):
            return {}
        found: dict[str, tuple[From, ...]] = {}
        for told in tree.expressions:
            value = told.unalias()
            if value.is_star:
                self._star(scope, value)
                continue
            says = value.sql(dialect=self._dialect)[:160]
            found[told.alias_or_name] = tuple(dict.fromkeys(self._made(scope, value, says, depth)))
        return found

    def _star(self, scope: "Scope", value: Any) -> None:
        named = value.table if hasattr(value, "table") else ""
        sources = [named] if named else list(scope.selected_sources)
        told = ", ".join(self._source_name(scope, one) for one in sources)
        self._problem(f"* of {told or 'the query'}: its columns are not known")

    def _source_name(self, scope: "Scope", alias: str) -> str:
        from sqlglot import exp

        source = scope.sources.get(alias)
        if not isinstance(source, exp.Table):
            return str(alias)
        if isinstance(source.this, exp.Identifier):
            return self._named(source)
        return str(source.this.sql(dialect=self._dialect))[:80]

    def _named(self, table: Any) -> str:
        """A table as the query writes it."""
        name = _table_name(table)
        written: str = self._flat.get(name, name)
        self._reads[written] = None
        return written

    def _problem(self, what: str) -> None:
        self._problems[what] = None

    def _made(self, scope: "Scope", value: Any, says: str, depth: int) -> Iterator[From]:
        """The columns of tables that a value comes from."""
        from sqlglot import exp

        for column in value.find_all(exp.Column):
            if _within_other_query(column, value):
                continue
            how = _how(column, value)
            for one in self._followed(scope, column, depth):
                yield _composed(one, how, says)
        for inner in scope.subquery_scopes:
            if _inside(inner.expression, value):
                for made in self._outputs(inner, depth + 1).values():
                    for one in made:
                        yield _composed(one, "TRANSFORMATION", says)
                for one in self._rows(inner, depth + 1):
                    yield one

    def _followed(self, scope: "Scope", column: Any, depth: int) -> tuple[From, ...]:
        """A column of a query as columns of tables."""
        from sqlglot import exp
        from sqlglot.optimizer.scope import Scope

        if depth > _DEEPEST:
            raise ValueError("queries within queries without end")
        source = next(
            (one.sources[column.table] for one in _above(scope) if column.table in one.sources), None
        )
        name = column.name
        if source is None and not column.table:
            told = [self._source_name(scope, one) for one in scope.selected_sources]
            known = all(self._columns_of(_plain(one)) is not None for one in told)
            says = "is in none of" if known else "may be of any of"
            self._problem(f"column {self._spelt(name)} {says}: {', '.join(told) or 'nothing'}")
            return ()
        if isinstance(source, exp.Table) and not isinstance(source.this, exp.Identifier):
            self._problem(
                f"{source.this.sql(dialect=self._dialect)[:80]}: the columns of a function are not known"
            )
            return ()
        if isinstance(source, exp.Table):
            table = self._named(source)
            columns = self._columns_of(_plain(table))
            if columns is not None and name not in {one.lower() for one in columns}:
                self._problem(f"{table} has no column {self._spelt(name)}")
            return (From(table, self._spelt(name)),)
        if isinstance(source, Scope):
            source = _first_branch(scope, source)
            if not isinstance(source.expression, exp.Query):
                inner = source.expression.find_all(exp.Column)  # VALUES, or unnest(of a column)
                return tuple(
                    _composed(made, "TRANSFORMATION", source.expression.sql(dialect=self._dialect)[:160])
                    for one in inner
                    for made in self._followed(scope, one, depth + 1)
                )
            made = self._outputs(source, depth + 1).get(name)
            if made is None:
                self._problem(f"{column.table} has no column {self._spelt(name)}")
            return made or ()
        self._problem(f"{column.sql()}: {column.table or 'it'} is no table of the query")
        return ()

    def _rows(self, scope: "Scope", depth: int) -> Iterator[From]:
        """What decides which rows a query has, its sources' own included."""
        from sqlglot import exp
        from sqlglot.optimizer.scope import Scope

        if depth > _DEEPEST:
            raise ValueError("queries within queries without end")
        for branch in scope.set_operation_scopes:
            yield from self._rows(branch, depth + 1)
        tree = scope.expression
        if not isinstance(tree, exp.Select):
            return
        for how, part in _deciding(tree):
            yield from self._decides(scope, how, part, depth)
        for _, source in scope.selected_sources.values():
            if isinstance(source, Scope) and _first_branch(scope, source) is source:
                yield from self._rows(source, depth + 1)
            elif isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                self._named(source)

    def _decides(self, scope: "Scope", how: How, part: Any, depth: int) -> Iterator[From]:
        """The columns of one clause, those of the queries within it included."""
        from sqlglot import exp

        says = part.sql(dialect=self._dialect)[:160]
        for column in part.find_all(exp.Column):
            if not _within_other_query(column, part):
                for one in self._followed(scope, column, depth):
                    yield From(one.stream, one.column, how, says)
        for inner in scope.subquery_scopes:
            if _inside(inner.expression, part):
                for made in self._outputs(inner, depth + 1).values():
                    yield from (From(one.stream, one.column, how, says) for one in made)
                yield from self._rows(inner, depth + 1)


def _deciding(tree: Any) -> Iterator[tuple[How, Any]]:
    from sqlglot import exp

    parts: list[tuple[How, Any]] = [
        ("FILTER", tree.args.get("where")),
        ("GROUP_BY", tree.args.get("group")),
        ("FILTER", tree.args.get("having")),
        ("FILTER", tree.args.get("qualify")),
        ("SORT", tree.args.get("order")),
    ]
    distinct = tree.args.get("distinct")
    if isinstance(distinct, exp.Distinct) and distinct.args.get("on") is not None:
        parts.append(("GROUP_BY", distinct.args["on"]))
    parts += [("JOIN", join.args.get("on")) for join in tree.args.get("joins") or ()]
    return ((how, part) for how, part in parts if part is not None)


def _how(column: Any, value: Any) -> How:
    """What becomes of a column on its way up to the value it stands in."""
    from sqlglot import exp

    if column is value:
        return "IDENTITY"
    how: How = "IDENTITY" if isinstance(value, exp.Paren) else "TRANSFORMATION"
    below, node = column, column.parent
    while node is not None and below is not value:
        if isinstance(node, exp.Window) and below is not node.this:
            return "WINDOW"
        if isinstance(node, exp.If) and below is node.this:
            return "CONDITIONAL"
        if isinstance(node, exp.Case) and below is node.this:
            return "CONDITIONAL"
        if isinstance(node, exp.Filter) and below is not node.this:
            return "CONDITIONAL"
        if isinstance(node, exp.AggFunc):
            how = "AGGREGATION"
        elif not isinstance(node, exp.Paren) and how == "IDENTITY":
            how = "TRANSFORMATION"
        below, node = node, node.parent
    return how


def _composed(one: From, how: How, says: str) -> From:
    """A column through one more expression: the stronger of both, and what decides stays what decides."""
    if one.how not in _STRENGTH:
        return one
    if how in _STRENGTH and _STRENGTH[one.how] >= _STRENGTH[how]:
        return From(one.stream, one.column, one.how, one.says or ("" if how == "IDENTITY" else says))
    return From(one.stream, one.column, how, says)


def _within_other_query(node: Any, top: Any) -> bool:
    """Whether a query stands between a node and the part it was found in."""
    from sqlglot import exp

    above = node.parent
    while above is not None and node is not top:
        if isinstance(above, exp.Query) and not isinstance(above, exp.Table) and above is not top:
            return _inside(above, top)
        if above is top:
            return False
        above = above.parent
    return False


def _inside(node: Any, top: Any) -> bool:
    while node is not None:
        if node is top:
            return True
        node = node.parent
    return False


def _above(scope: "Scope") -> Iterable["Scope"]:
    found = []
    above: Any = scope
    while above is not None:
        found.append(above)
        above = above.parent
    return found


def _first_branch(scope: "Scope", source: "Scope") -> "Scope":
    """The query that a recursive one begins with, where `source` is its place-holder within itself."""
    for above in _above(scope):
        for branch in above.set_operation_scopes:
            if branch.expression is source.expression:
                return branch
    return source


def _table_name(table: Any) -> str:
    parts: list[str] = [table.text("db"), table.name] if hasattr(table, "name") else [str(table)]
    return ".".join(part for part in parts if part)


def _plain(name: str) -> str:
    return name.replace('"', "").lower()
