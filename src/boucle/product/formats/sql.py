"""SQL: `CREATE TABLE` for DuckDB and PostgreSQL; ranges, lengths, patterns and lists become checks."""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import structs

from boucle.errors import BoucleError
from boucle.product.columns import Column, Kind
from boucle.product.formats.losses import Losses, facets

__all__ = ["DIALECTS", "read", "write"]

DIALECTS = ("duckdb", "postgresql")

_BOUNDS = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
_LENGTHS = {"minLength": ">=", "maxLength": "<="}
_DUCKDB = {
    "boolean": "BOOLEAN", "date": "DATE", "time": "TIME", "binary": "BLOB", "string": "VARCHAR", "any": "JSON",
}  # fmt: skip
_POSTGRESQL = {
    "boolean": "BOOLEAN", "date": "DATE", "time": "TIME", "binary": "BYTEA", "string": "TEXT", "any": "JSONB",
}  # fmt: skip
_INTEGERS = {8: "TINYINT", 16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}
_PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def write(name: str, columns: tuple[Column, ...], losses: Losses, dialect: str = "duckdb") -> str:
    """The statement that makes the table, and one comment for each description."""
    writer = _Writer(dialect, losses)
    lines = [f"    {line}" for one in columns for line in [writer.column(one)]]
    keyed = sorted((one for one in columns if one.key), key=lambda one: one.key)
    if keyed:
        lines.append(f"    PRIMARY KEY ({', '.join(_quoted(one.name) for one in keyed)})")
    statements = [f"CREATE TABLE {_quoted(name)} (\n" + ",\n".join(lines) + "\n);"]
    for one in columns:
        if one.description:
            target = f"{_quoted(name)}.{_quoted(one.name)}"
            statements.append(f"COMMENT ON COLUMN {target} IS {_literal(one.description)};")
    return "\n".join(statements) + "\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"


class _Writer:
    def __init__(self, dialect: str, losses: Losses) -> None:
        self._postgres = dialect == "postgresql"
        self._losses = losses

    def column(self, one: Column) -> str:
        words = [_quoted(one.name), self._type(one, one.name)]
        words += ["NOT NULL"] if one.required else []
        if one.unique and one.kind.family in {"array", "object", "map"}:
            self._losses.note(one.name, "unique is not said of what holds other values")
        elif one.unique:
            words.append("UNIQUE")
        words += [f"CHECK ({check})" for check in self._checks(one)]
        return " ".join(words)

    def _checks(self, one: Column) -> Iterator[str]:
        name = _quoted(one.name)
        for facet, value in facets(one).items():
            if facet in _BOUNDS and isinstance(value, int | float | str):
                yield f"{name} {_BOUNDS[facet]} {_literal(value)}"
            elif facet in _LENGTHS and isinstance(value, int) and not isinstance(value, bool):
                yield f"length({name}) {_LENGTHS[facet]} {value}"
            elif facet == "pattern" and isinstance(value, str):
                # ODCS patterns match the whole value.
                full = _literal(f"^(?:{value})$")
                yield f"{name} ~ {full}" if self._postgres else f"regexp_matches({name}, {full})"
            elif facet == "enum" and all(isinstance(v, str | int | float) for v in value):
                yield f"{name} IN ({', '.join(map(_literal, value))})"
            elif facet not in {"unique", "primaryKey", "description"}:
                self._losses.note(one.name, f"{facet} {value!r} is not said")

    def _type(self, one: Column, path: str) -> str:  # noqa: C901, PLR0912 - one case a family
        kind = one.kind
        match kind.family:
            case "integer":
                return self._integer(kind, path)
            case "number":
                if kind.bits == 16:
                    self._losses.note(path, "16 bits are told as 32")
                wide = "DOUBLE PRECISION" if self._postgres else "DOUBLE"
                return wide if kind.bits == 64 else "REAL"
            case "decimal":
                return self._decimal(kind, path)
            case "timestamp":
                return self._timestamp(kind, path)
            case "array":
                return self._list(kind, path)
            case "object" | "map":
                return self._nested(kind, path)
            case "any":
                self._losses.note(path, "a value of any type is told as JSON")
            case "time" if kind.unit != "us":
                self._losses.note(path, f"a time in {kind.unit} is told in us")
            case "binary" if kind.length is not None:
                self._losses.note(path, f"the length of {kind.length} bytes is not said")
        if kind.family == "string" and kind.format:
            if kind.format == "uuid":
                return "UUID"
            if kind.format == "json":
                return "JSONB" if self._postgres else "JSON"
            self._losses.note(path, f"format {kind.format!r} is not said")
        return (_POSTGRESQL if self._postgres else _DUCKDB)[kind.family]

    def _integer(self, kind: Kind, path: str) -> str:
        if not self._postgres:
            return ("" if kind.signed else "U") + _INTEGERS[kind.bits]
        if kind.signed and kind.bits > 8:
            return _INTEGERS[kind.bits]
        self._losses.note(path, f"{'' if kind.signed else 'u'}int{kind.bits} is told as a wider integer")
        if kind.bits == 64:
            return "NUMERIC(20, 0)"
        return _INTEGERS[16 if kind.bits == 8 else kind.bits * 2]

    def _decimal(self, kind: Kind, path: str) -> str:
        most = 1000 if self._postgres else 38
        scale = min(max(kind.scale, 0), most)
        precision = min(max(kind.precision, scale, 1), most)
        if (precision, scale) != (kind.precision, kind.scale):
            self._losses.note(path, f"decimal({kind.precision},{kind.scale}) is told as {precision},{scale}")
        return f"{'NUMERIC' if self._postgres else 'DECIMAL'}({precision}, {scale})"

    def _timestamp(self, kind: Kind, path: str) -> str:
        if kind.zone or self._postgres:
            if kind.unit != "us":
                self._losses.note(path, f"a timestamp in {kind.unit} is told in us")
            return "TIMESTAMPTZ" if kind.zone else "TIMESTAMP"
        return "TIMESTAMP" if kind.unit == "us" else f"TIMESTAMP_{kind.unit.upper()}"

    def _list(self, kind: Kind, path: str) -> str:
        item = kind.item or Column("item", Kind("any"))
        self._plain_inside(item, f"{path}[]")
        if self._postgres and item.kind.family in {"array", "object", "map"}:
            self._losses.note(path, f"a list of {item.kind.family}s is told as JSON")
            return "JSONB"
        return f"{self._type(item, f'{path}[]')}[]"

    def _nested(self, kind: Kind, path: str) -> str:
        if self._postgres or (kind.family == "object" and not kind.fields):
            self._losses.note(path, f"an {kind.family} is told as JSON".replace("an map", "a map"))
            return "JSONB" if self._postgres else "JSON"
        if kind.family == "map":
            item = kind.item or Column("value", Kind("any"))
            self._plain_inside(item, f"{path}{{}}")
            return f"MAP(VARCHAR, {self._type(item, path)})"
        inner = []
        for field in kind.fields:
            self._plain_inside(field, f"{path}.{field.name}")
            inner.append(f"{_quoted(field.name)} {self._type(field, f'{path}.{field.name}')}")
        return f"STRUCT({', '.join(inner)})"

    def _plain_inside(self, one: Column, path: str) -> None:
        """Inside a value nothing but types can be said."""
        if one.required:
            self._losses.note(path, "required is not said")
        for facet, value in facets(one).items():
            self._losses.note(path, f"{facet} {value!r} is not said")


def read(
    content: str | bytes, losses: Losses, dialect: str = "duckdb"
) -> list[tuple[str, tuple[Column, ...]]]:
    """Every table that the statements make."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    text = content.decode() if isinstance(content, bytes) else content
    named = "postgres" if dialect == "postgresql" else dialect
    try:
        statements = sqlglot.parse(text, read=named)
    except (SqlglotError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise BoucleError(
            "B247", "this SQL cannot be read", why=why, fix=f"give CREATE TABLE statements of {dialect}"
        ) from None
    tables: dict[str, dict[str, Column]] = {}
    for statement in statements:
        if isinstance(statement, exp.Create) and isinstance(statement.this, exp.Schema):
            name, found = _table(statement.this, losses)
            tables[name] = found
        elif isinstance(statement, exp.Comment):
            _comment(statement, tables)
        elif statement is not None:
            losses.note("", f"a statement was passed over: {statement.sql(dialect=named)[:60]}")
    if not tables:
        raise BoucleError("B247", "this SQL makes no table", fix="give CREATE TABLE statements")
    return [(name, tuple(found.values())) for name, found in tables.items()]


def _table(schema: Any, losses: Losses) -> tuple[str, dict[str, Column]]:
    from sqlglot import exp

    name, found = str(schema.this.name), {}
    for part in schema.expressions:
        if isinstance(part, exp.ColumnDef):
            one = _column(part, losses)
            found[one.name] = one
    for part in schema.expressions:
        if isinstance(part, exp.ColumnDef):
            continue
        for inner in part.expressions if isinstance(part, exp.Constraint) else [part]:
            _constraint(inner, found, losses)
    keyed = [one for one in found.values() if one.key]
    if not keyed and not found:
        losses.note(name, "the table has no column")
    return name, found


def _constraint(part: Any, found: dict[str, Column], losses: Losses) -> None:
    from sqlglot import exp

    if isinstance(part, exp.PrimaryKey):
        for place, key in enumerate(part.expressions, 1):
            name = key.name or str(key.this.name)
            if name in found:
                found[name] = structs.replace(found[name], key=place, required=True)
    elif isinstance(part, exp.UniqueColumnConstraint) and isinstance(part.this, exp.Schema):
        names = [one.name for one in part.this.expressions]
        if len(names) == 1 and names[0] in found:
            found[names[0]] = structs.replace(found[names[0]], unique=True)
        else:
            losses.note(", ".join(names), "unique together is not said")
    elif isinstance(part, exp.CheckColumnConstraint):
        checked = {str(one.name) for one in part.find_all(exp.Column)}
        if len(checked) == 1 and (name := checked.pop()) in found:
            found[name] = _checked(found[name], part.this, losses)
        else:
            losses.note("", f"a check over several columns is not said: {part.sql()[:80]}")
    else:
        losses.note("", f"not said: {part.sql()[:80]}")


def _column(part: Any, losses: Losses) -> Column:
    from sqlglot import exp

    one = Column(part.name, _kind(part.args.get("kind"), part.name, losses))
    most = _length(part.args.get("kind"))
    one = structs.replace(one, options={"maxLength": most}) if most else one
    for constraint in part.constraints:
        kind = constraint.kind
        match kind:
            case exp.NotNullColumnConstraint():
                one = structs.replace(one, required=not kind.args.get("allow_null"))
            case exp.PrimaryKeyColumnConstraint():
                one = structs.replace(one, key=1, required=True)
            case exp.UniqueColumnConstraint():
                one = structs.replace(one, unique=True)
            case exp.CheckColumnConstraint():
                one = _checked(one, kind.this, losses)
            case exp.CommentColumnConstraint():
                one = structs.replace(one, description=str(kind.this.this))
            case _:
                losses.note(one.name, f"not said: {constraint.sql()[:80]}")
    return one


def _length(kind: Any) -> int:
    from sqlglot import exp

    texts = {
        exp.DataType.Type.VARCHAR,
        exp.DataType.Type.CHAR,
        exp.DataType.Type.NVARCHAR,
        exp.DataType.Type.NCHAR,
    }
    if kind is None or kind.this not in texts or not kind.expressions:
        return 0
    text = kind.expressions[0].sql()
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _checked(one: Column, check: Any, losses: Losses) -> Column:  # noqa: C901 - one case a family
    """A check in the form that `write` gives it, or a common one; others are told."""
    from sqlglot import exp

    while isinstance(check, exp.Paren):
        check = check.this
    if isinstance(check, exp.And):
        return _checked(_checked(one, check.left, losses), check.right, losses)
    if isinstance(check, exp.Between):
        bounds = {"minimum": _value(check.args["low"]), "maximum": _value(check.args["high"])}
        if None not in bounds.values():
            return structs.replace(one, options={**one.options, **bounds})
    if isinstance(check, exp.In) and check.expressions:
        listed = [_value(value) for value in check.expressions]
        if None not in listed:
            return structs.replace(one, values=tuple(listed))
    pattern = _pattern(check)
    if pattern is not None:
        return structs.replace(one, options={**one.options, "pattern": pattern})
    names = {exp.GTE: "minimum", exp.LTE: "maximum", exp.GT: "exclusiveMinimum", exp.LT: "exclusiveMaximum"}
    name = names.get(type(check))
    value = _value(check.expression) if name else None
    if name and value is not None:
        if isinstance(check.this, exp.Column):
            return structs.replace(one, options={**one.options, name: value})
        lengths = {"minimum": "minLength", "maximum": "maxLength"}
        if isinstance(check.this, exp.Length) and name in lengths:
            return structs.replace(one, options={**one.options, lengths[name]: value})
    losses.note(one.name, f"a check is not said: {check.sql()[:80]}")
    return one


def _pattern(check: Any) -> str | None:
    from sqlglot import exp

    if isinstance(check, exp.RegexpLike) and isinstance(check.expression, exp.Literal):
        text = str(check.expression.this)
        full = re.fullmatch(r"\^\(\?:(.*)\)\$", text, re.DOTALL)
        return full[1] if full else f".*(?:{text}).*"
    return None


def _value(node: Any) -> Any:
    from sqlglot import exp

    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Cast):
        return _value(node.this)
    text = node.sql()
    if isinstance(node, exp.Literal) and node.is_string:
        return str(node.this)
    if not _PLAIN_NUMBER.fullmatch(text):
        return None
    return int(text) if re.fullmatch(r"-?\d{1,4000}", text) else float(text)


def _comment(statement: Any, tables: dict[str, dict[str, Column]]) -> None:
    from sqlglot import exp

    target, said = statement.this, statement.expression
    if isinstance(target, exp.Column) and isinstance(said, exp.Literal):
        found = tables.get(target.table, {})
        if target.name in found:
            found[target.name] = structs.replace(found[target.name], description=str(said.this))


def _kind(kind: Any, path: str, losses: Losses) -> Kind:
    from sqlglot import exp

    if kind is None:
        losses.note(path, "no type is given")
        return Kind("any")
    word = kind.this
    types = exp.DataType.Type
    if word in {types.ARRAY, types.LIST}:
        inner = kind.expressions[0] if kind.expressions else None
        return Kind("array", item=Column("item", _kind(inner, f"{path}[]", losses)))
    if word == types.MAP:
        values = kind.expressions[1] if len(kind.expressions) > 1 else None
        return Kind("map", item=Column("value", _kind(values, f"{path}{{}}", losses)))
    if word == types.STRUCT:
        fields = [Column(part.name, _kind(part.args.get("kind"), f"{path}.{part.name}", losses))
                  for part in kind.expressions if isinstance(part, exp.ColumnDef)]  # fmt: skip
        return Kind("object", fields=tuple(fields))
    found = _WORDS.get(getattr(word, "name", ""))
    if found is None:
        losses.note(path, f"the type {kind.sql()} is told as any")
        return Kind("any")
    sizes = [part.sql() for part in kind.expressions]
    if found.family == "decimal" and sizes and all(re.fullmatch(r"\d{1,4}", one) for one in sizes):
        return structs.replace(found, precision=int(sizes[0]), scale=int(sizes[1]) if len(sizes) > 1 else 0)
    return found


_WORDS: dict[str, Kind] = {
    "TINYINT": Kind("integer", 8), "SMALLINT": Kind("integer", 16), "INT": Kind("integer", 32),
    "SMALLSERIAL": Kind("integer", 16), "SERIAL": Kind("integer", 32), "BIGSERIAL": Kind("integer", 64),
    "BIGINT": Kind("integer", 64), "UTINYINT": Kind("integer", 8, signed=False),
    "USMALLINT": Kind("integer", 16, signed=False), "UINT": Kind("integer", 32, signed=False),
    "UBIGINT": Kind("integer", 64, signed=False), "FLOAT": Kind("number", 32), "DOUBLE": Kind("number", 64),
    "DECIMAL": Kind("decimal", precision=18, scale=3), "BOOLEAN": Kind("boolean"), "BIT": Kind("boolean"),
    "DATE": Kind("date"), "TIME": Kind("time"), "TIMESTAMP": Kind("timestamp", zone=False),
    "DATETIME": Kind("timestamp", zone=False), "TIMESTAMPNTZ": Kind("timestamp", zone=False),
    "TIMESTAMPTZ": Kind("timestamp"), "TIMESTAMPLTZ": Kind("timestamp"),
    "TIMESTAMP_S": Kind("timestamp", unit="s", zone=False), "TIMESTAMP_MS": Kind("timestamp", unit="ms", zone=False),
    "TIMESTAMP_NS": Kind("timestamp", unit="ns", zone=False), "VARBINARY": Kind("binary"), "BLOB": Kind("binary"),
    "BINARY": Kind("binary"), "UUID": Kind("string", format="uuid"), "JSON": Kind("string", format="json"),
    "JSONB": Kind("string", format="json"), "TEXT": Kind("string"), "VARCHAR": Kind("string"),
    "CHAR": Kind("string"), "NVARCHAR": Kind("string"), "NCHAR": Kind("string"), "BPCHAR": Kind("string"),
}  # fmt: skip
