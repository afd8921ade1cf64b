"""Protocol Buffers: a proto3 message of the columns; descriptions are comments, numbers follow the order."""

import re
from collections.abc import Iterator

from msgspec import Struct

from boucle.errors import BoucleError
from boucle.product.columns import Column, Kind
from boucle.product.formats.losses import Losses, identifier

__all__ = ["read", "write"]

_DEEPEST = 60
_TIMESTAMP = "google.protobuf.Timestamp"


def write(name: str, columns: tuple[Column, ...], losses: Losses) -> str:
    """The `.proto` file; a column that is not required is `optional`."""
    losses.unsaid(columns, {"description"})
    writer = _Writer(losses)
    message = writer.message(identifier(name), columns, "", "")
    if identifier(name) != name:
        losses.note("", f"the name {name!r} is told as {identifier(name)}")
    imports = 'import "google/protobuf/timestamp.proto";\n\n' if writer.moments else ""
    return f'syntax = "proto3";\n\n{imports}{message}'


class _Writer:
    def __init__(self, losses: Losses) -> None:
        self.moments = False
        self._losses = losses

    def message(self, name: str, columns: tuple[Column, ...], indent: str, path: str) -> str:
        lines: list[str] = []
        names: list[str] = []
        for one in columns:
            names.append(identifier(one.name, names))
        # Messages inside share their names with the fields.
        taken = set(names)
        inner: list[str] = []
        for number, (one, field) in enumerate(zip(columns, names, strict=True), 1):
            if field != one.name:
                self._losses.note(f"{path}{one.name}", f"the name is told as {field}")
            # 19000 to 19999 belong to Protocol Buffers themselves.
            place = number if number < 19000 else number + 1000
            lines += [f"{indent}  // {line}" for line in one.description.splitlines()]
            lines.append(
                f"{indent}  {self._field(one, indent, f'{path}{one.name}', inner, taken)} {field} = {place};"
            )
        return (
            f"{indent}message {name} {{\n"
            + "".join(inner)
            + "".join(f"{line}\n" for line in lines)
            + f"{indent}}}\n"
        )

    def _field(self, one: Column, indent: str, path: str, inner: list[str], taken: set[str]) -> str:
        kind = one.kind
        if kind.family in {"array", "map"}:
            item = kind.item or Column("item", Kind("any"))
            if not one.required:
                self._losses.note(path, "a missing list or map reads as an empty one")
            if item.kind.family in {"array", "map"}:
                self._losses.note(path, f"a {kind.family} of {item.kind.family}s is told as text in JSON")
                return "repeated string" if kind.family == "array" else "map<string, string>"
            if not item.required:
                self._losses.note(path, "its values cannot be missing")
            word = self._type(item, indent, f"{path}_item", inner, taken)
            return f"repeated {word}" if kind.family == "array" else f"map<string, {word}>"
        word = self._type(one, indent, path, inner, taken)
        return word if one.required else f"optional {word}"

    def _type(self, one: Column, indent: str, path: str, inner: list[str], taken: set[str]) -> str:  # noqa: C901 - one case a family
        kind = one.kind
        match kind.family:
            case "boolean":
                return "bool"
            case "integer":
                if kind.bits < 32:
                    self._losses.note(path, f"{kind.bits} bits are told as 32")
                return f"{'' if kind.signed else 'u'}int{max(kind.bits, 32)}"
            case "number":
                if kind.bits == 16:
                    self._losses.note(path, "16 bits are told as 32")
                return "double" if kind.bits == 64 else "float"
            case "timestamp":
                self.moments = True
                if kind.unit != "ns" or not kind.zone:
                    self._losses.note(path, "a timestamp is told as a moment in nanoseconds")
                return _TIMESTAMP
            case "binary":
                if kind.length is not None:
                    self._losses.note(path, f"the length of {kind.length} bytes is not said")
                return "bytes"
            case "object":
                words = [word for word in re.split(r"[^A-Za-z0-9]+", path) if word]
                name = identifier("".join(word[:1].upper() + word[1:] for word in words) or "Value", taken)
                taken.add(name)
                inner.append(self.message(name, kind.fields, f"{indent}  ", f"{path}."))
                return name
            case "date" | "time" | "decimal" | "any":
                self._losses.note(path, f"{kind.family} is told as text")
        if kind.format:
            self._losses.note(path, f"format {kind.format!r} is not said")
        return "string"


_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<word>[A-Za-z_.][\w.]*)|(?P<number>[-+]?\d[\w.]*)|(?P<sign>[{}\[\]<>()=;,:])"""
    r"""|(?P<line>\n)|(?P<space>[ \t\r\f]+)""",
    re.DOTALL,
)
_SCALARS = {
    "double": Kind("number", 64), "float": Kind("number", 32), "bool": Kind("boolean"),
    "string": Kind("string"), "bytes": Kind("binary"), _TIMESTAMP: Kind("timestamp", unit="ns"),
    **dict.fromkeys(("int32", "sint32", "sfixed32"), Kind("integer", 32)),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), Kind("integer", 64)),
    **dict.fromkeys(("uint32", "fixed32"), Kind("integer", 32, signed=False)),
    **dict.fromkeys(("uint64", "fixed64"), Kind("integer", 64, signed=False)),
}  # fmt: skip


class _Field(Struct):
    name: str
    label: str
    type: str
    description: str


class _Message(Struct):
    name: str
    fields: list[_Field]
    inner: dict[str, "_Message"]
    enums: dict[str, list[str]]


def read(content: str | bytes, losses: Losses) -> list[tuple[str, tuple[Column, ...]]]:
    """Every message of a `.proto` file that no other message holds."""
    text = content.decode() if isinstance(content, bytes) else content
    top = _Parser(text, losses).file()
    found = {name: _columns(message, [top], losses, (name,)) for name, message in top.inner.items()}
    used = {field.type.rpartition(".")[2] for message in top.inner.values() for field in _all_fields(message)}
    chosen = [name for name in found if name not in used] or list(found)
    if not chosen:
        raise _not_proto("it holds no message", 1)
    return [(name, found[name]) for name in chosen]


def _not_proto(why: str, line: int) -> BoucleError:
    return BoucleError(
        "B247", "this .proto file cannot be read", where=f"line {line}", why=why, fix="give proto2 or proto3"
    )


def _all_fields(message: _Message) -> Iterator[_Field]:
    yield from message.fields
    for inner in message.inner.values():
        yield from _all_fields(inner)


class _Parser:
    """Reads what a table needs of a .proto file: messages, fields, enums and the comments before them."""

    def __init__(self, text: str, losses: Losses) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._losses = losses
        self._comments: list[str] = []
        self._proto2 = False

    def file(self) -> _Message:
        top = _Message("", [], {}, {})
        while (word := self._next()) != "":
            if word == "message":
                self._message(top, 0)
            elif word == "enum":
                self._enum(top)
            elif word == "syntax":
                self._expect("=")
                self._proto2 = self._next().strip("\"'") == "proto2"
                self._expect(";")
            elif word in {"service", "extend"}:
                self._losses.note("", f"{word} {self._next()} is passed over")
                self._expect("{")
                self._skip_block()
            elif word != ";":
                self._skip_statement()
            self._comments = []
        return top

    def _message(self, into: _Message, depth: int) -> None:
        if depth > _DEEPEST:
            raise _not_proto(f"messages are nested deeper than {_DEEPEST} levels", self._line())
        found = _Message(self._next(), [], {}, {})
        into.inner[found.name] = found
        self._expect("{")
        self._comments = []
        self._fields(found, depth)

    def _fields(self, found: _Message, depth: int, choice: bool = False) -> None:
        while (word := self._next()) != "}":
            match word:
                case "":
                    raise _not_proto("a brace is not closed", self._line())
                case "message":
                    self._message(found, depth + 1)
                case "enum":
                    self._enum(found)
                case "oneof":
                    name = self._next()
                    self._losses.note(
                        f"{found.name}.{name}", "that only one of its fields is given is not said"
                    )
                    self._expect("{")
                    self._fields(found, depth + 1, choice=True)
                case "option" | "reserved" | "extensions":
                    self._skip_statement()
                case "extend":
                    self._next()
                    self._expect("{")
                    self._skip_block()
                case ";":
                    pass
                case _:
                    self._field(found, word, choice)
            self._comments = []

    def _field(self, found: _Message, word: str, choice: bool) -> None:
        said = "\n".join(self._comments)
        label = "optional" if choice else ""
        if word in {"optional", "required", "repeated"}:
            label, word = word, self._next()
        if word == "map" and self._peek() == "<":
            self._next()
            key, _, value, _ = (self._next() for _ in range(4))
            if key != "string":
                self._losses.note(f"{found.name}", f"keys of type {key} are told as text")
            label, word = "map", value
        name = self._next()
        if not re.fullmatch(r"\w+", name):
            raise _not_proto(f"{name!r} stands where a field's name should", self._line())
        self._expect("=")
        self._next()
        self._skip_statement()
        found.fields.append(_Field(name, label, word, said))

    def _enum(self, into: _Message) -> None:
        name, values = self._next(), []
        self._expect("{")
        while (word := self._next()) != "}":
            if word == "":
                raise _not_proto("a brace is not closed", self._line())
            if word not in {"option", "reserved", ";"}:
                values.append(word)
            if word != ";":
                self._skip_statement()
        into.enums[name] = values

    def _skip_statement(self) -> None:
        depth = 0
        while (word := self._next()) != "":
            depth += (word in {"{", "[", "("}) - (word in {"}", "]", ")"})
            if depth == 0 and word in {";", "}"}:
                return

    def _skip_block(self) -> None:
        depth = 1
        while depth and (word := self._next()) != "":
            depth += (word == "{") - (word == "}")

    def _expect(self, sign: str) -> None:
        if (word := self._next()) != sign:
            raise _not_proto(f"{word!r} stands where {sign!r} should", self._line())

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _line(self) -> int:
        return self._tokens[min(self._at, len(self._tokens)) - 1][1] if self._tokens else 1

    def _next(self) -> str:
        while self._at < len(self._tokens):
            word, _ = self._tokens[self._at]
            self._at += 1
            if not word.startswith(("//", "/*")):
                return word
            self._comments.append(word.removeprefix("//").removeprefix("/*").removesuffix("*/").strip())
        return ""


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _not_proto(f"{text[at]!r} belongs to no word of the language", line)
        if match.lastgroup not in {"line", "space"}:
            yield match[0], line
        line += match[0].count("\n")
        at = match.end()


def _columns(
    message: _Message, scopes: list[_Message], losses: Losses, path: tuple[str, ...]
) -> tuple[Column, ...]:
    return tuple(_column(field, [message, *scopes], losses, path) for field in message.fields)


def _column(field: _Field, scopes: list[_Message], losses: Losses, path: tuple[str, ...]) -> Column:
    here = ".".join((*path[1:], field.name))
    kind, values = _kind(field.type, scopes, losses, path, here)
    if field.label in {"repeated", "map"}:
        family = "array" if field.label == "repeated" else "map"
        item = Column("item" if family == "array" else "value", kind, required=True, values=values)
        return Column(field.name, Kind(family, item=item), required=True, description=field.description)  # type: ignore[arg-type]
    return Column(
        field.name, kind, required=field.label != "optional", description=field.description, values=values
    )


def _kind(
    word: str, scopes: list[_Message], losses: Losses, path: tuple[str, ...], here: str
) -> tuple[Kind, tuple[str, ...]]:
    if word in _SCALARS:
        return _SCALARS[word], ()
    short = word.removeprefix(".")
    if short.startswith("google.protobuf.") and short.endswith("Value"):
        inner = short.removeprefix("google.protobuf.").removesuffix("Value").lower()
        if inner in _SCALARS:
            return _SCALARS[inner], ()
    last = short.rpartition(".")[2]
    for scope in scopes:
        if last in scope.enums:
            return Kind("string"), tuple(scope.enums[last])
        if last in scope.inner:
            if last in path:
                losses.note(here, f"{last} holds itself: inside it is any value")
                return Kind("any"), ()
            return Kind("object", fields=_columns(scope.inner[last], scopes, losses, (*path, last))), ()
    losses.note(here, f"the type {word} stands in another file: it is told as any")
    return Kind("any"), ()
