"""PostgreSQL's SQL as tools write it, made into DuckDB's, word by word.

DuckDB reads most of PostgreSQL's SQL as it is. What it does not know are the catalogue's names and the casts that
look things up (`'press'::regclass`); those words are replaced, and nothing else is touched. A statement is cut into
tokens, never matched as a whole, so that what stands in a text or a comment stays as it is.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

__all__ = ["Names", "parameters_cast", "rewrite", "split", "without_any", "without_parameters", "words"]

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/|$))
      | (?P<string>[eE]'(?:[^'\\]|\\.|'')*(?:'|$)|(?:[bBxX]|[uU]&)?'(?:[^']|'')*(?:'|$)
          |\$(?P<mark>[A-Za-z_\x80-\uffff]\w*)\$.*?(?:\$(?P=mark)\$|\Z)|\$\$.*?(?:\$\$|\Z))
      | (?P<quoted>"(?:[^"]|"")*(?:"|$))
      | (?P<parameter>\$\d+)
      | (?P<word>[A-Za-z_\x80-\uffff][\w$]*)
      | (?P<number>\d[\w.]*)
      | (?P<sign>::|\S)""",
    re.VERBOSE | re.DOTALL,
)
_LOOK_UP = {"regclass", "regtype", "regproc", "regprocedure", "regnamespace", "regrole"}
_TYPES = {
    "oid": "uinteger",
    "name": "varchar",
    '"char"': "varchar",
    "cstring": "varchar",
    "unknown": "varchar",
    "pg_node_tree": "varchar",
    "int2vector": "smallint[]",
    "oidvector": "uinteger[]",
    "xid": "uinteger",
    "jsonb": "json",
    "bpchar": "varchar",
}
_FUNCTIONS = {"json_build_object": "json_object", "jsonb_build_object": "json_object"}
_IN_FROM = {"generate_series", "string_to_array"}
_AFTER_TABLES = {"where", "join", "left", "right", "full", "inner", "cross", "natural", "on", "using", "group", "order",
                 "having", "limit", "offset", "union", "except", "intersect", "window", "fetch", "for"}  # fmt: skip
_CLAUSES = {"select", "and", "or", "not", "in", "any", "when", "then", "else", "on", "where"}
_WHO = {"current_user", "session_user", "user", "current_role"}


class _Token(Struct):
    kind: str
    text: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        return self.before + self.text + self.after

    @property
    def lower(self) -> str:
        return self.text.lower()


class Names(Struct, frozen=True):
    """What the catalogue defines: relations and functions of `pg_catalog`, and those of `information_schema`."""

    relations: frozenset[str]
    functions: frozenset[str]
    information: frozenset[str]
    home: str
    information_home: str


def _tokens(text: str) -> list[_Token]:
    return [_Token(found.lastgroup or "sign", found[0]) for found in _TOKEN.finditer(text)]


def split(text: str) -> list[str]:
    """The statements of a text, without the `;` between them; empty ones are left out."""
    statements: list[str] = []
    held: list[str] = []
    said = False
    for token in [*_tokens(text), _Token("sign", ";")]:
        if token.kind == "sign" and token.text == ";":
            if said:
                statements.append("".join(held).strip())
            held, said = [], False
        else:
            held.append(token.text)
            said = said or token.kind != "space"
    return statements


def words(statement: str) -> list[str]:
    """The tokens that say something, words in lower case; texts and quoted names as they are."""
    return [
        token.lower if token.kind == "word" else token.text
        for token in _tokens(statement)
        if token.kind != "space"
    ]


def parameters_cast(statement: str, kinds: Mapping[int, str]) -> str:
    """Every `$n` that has a type here, cast to it."""
    return "".join(
        f"CAST({token.text} AS {kinds[int(token.text[1:])]})"
        if token.kind == "parameter" and int(token.text[1:]) in kinds
        else token.text
        for token in _tokens(statement)
    )


def without_any(statement: str) -> tuple[str, frozenset[int]]:
    """The statement with `any($1)` as `$1`, and those parameters: what one must be tells what the list is."""
    tokens = _tokens(statement)
    told = [token for token in tokens if token.kind != "space"]
    found = set()
    for index, token in enumerate(told[:-3]):
        inner = told[index + 2]
        whole = _is(told, index + 1, "(") and _is(told, index + 3, ")")
        if token.lower in {"any", "all", "some"} and whole and inner.kind == "parameter":
            found.add(int(inner.text[1:]))
            _clear(told, index, index + 2)
            _clear(told, index + 3, index + 4)
    return "".join(token.text for token in tokens), frozenset(found)


def without_parameters(statement: str) -> str:
    """Every `$n` as NULL."""
    return "".join("NULL" if token.kind == "parameter" else token.text for token in _tokens(statement))


def rewrite(statement: str, names: Names, user: str) -> str:
    """The statement with the words of PostgreSQL's catalogue replaced by ours."""
    tokens = _tokens(statement)
    told = [token for token in tokens if token.kind != "space"]
    if not _concerned(told, names):
        return statement
    _operators(told)
    _series(told, names)
    _qualified(told, names)
    _casts(told, names.home)
    _users(told, user)
    return "".join(map(str, tokens))


def _concerned(told: Sequence[_Token], names: Names) -> bool:
    known: Collection[str] = {
        "pg_catalog", "information_schema", "operator", "collate", *_IN_FROM, *_LOOK_UP, *_WHO, *_TYPES, *_FUNCTIONS,
        *names.relations, *names.functions,
    }  # fmt: skip
    return any(token.lower in known or token.text.startswith("'{") for token in told)


def _is(told: Sequence[_Token], index: int, *wanted: str) -> bool:
    return (
        index >= 0
        and index + len(wanted) <= len(told)
        and all(told[index + step].lower == one for step, one in enumerate(wanted))
    )


def _clear(told: Sequence[_Token], begin: int, end: int) -> None:
    for token in told[begin:end]:
        token.text, token.kind = "", "gone"


def _operators(told: list[_Token]) -> None:
    """`OPERATOR(pg_catalog.~)` is `~`; the collations are all byte order here."""
    for index in range(len(told)):
        if _is(told, index, "operator", "(", "pg_catalog", "."):
            end = next((at for at in range(index, len(told)) if told[at].text == ")"), len(told) - 1)
            sign = "".join(token.text for token in told[index + 4 : end])
            _clear(told, index, end + 1)
            told[index].text = f" {sign} "
        elif _is(told, index, "collate"):
            length = 4 if _is(told, index + 2, ".") else 2
            _clear(told, index, min(index + length, len(told)))
    told[:] = [token for token in told if token.text]


def _series(told: list[_Token], names: Names) -> None:
    """A function in FROM under one name is PostgreSQL's column of that name: `generate_series(1, 3) AS i`."""
    for index, token in enumerate(told):
        if token.lower not in _IN_FROM or not _is(told, index + 1, "(") or not _among_tables(told, index):
            continue
        end = _closing(told, index + 1)
        name = end + 2 if _is(told, end + 1, "as") else end + 1
        if (
            name >= len(told)
            or told[name].kind not in {"word", "quoted"}
            or told[name].lower in _AFTER_TABLES
        ):
            continue
        if _is(told, name + 1, "("):
            continue  # the column is named
        if token.lower == "generate_series" and not any(
            one.lower in names.functions for one in told[index:end]
        ):
            told[name].after += f"({told[name].text})"
            continue
        # DuckDB gives a table function no subqueries, and our functions of the catalogue are some.
        many = token.lower == "generate_series"
        token.before += "(SELECT unnest(" if many else "(SELECT "
        told[end].after += f"{')' if many else ''} AS {told[name].text})"


def _among_tables(told: Sequence[_Token], index: int) -> bool:
    """Whether a word stands where a table would."""
    if (
        not _is(told, index - 1, "from")
        and not _is(told, index - 1, ",")
        and not _is(told, index - 1, "join")
    ):
        return False
    depth = 0
    for token in reversed(told[:index]):
        depth += {")": 1, "(": -1}.get(token.text, 0)
        if depth < 0:
            return False
        if depth == 0 and token.lower in {"from", "join", *_CLAUSES, "by"}:
            return token.lower in {"from", "join"}
    return False


def _qualified(told: list[_Token], names: Names) -> None:
    for index, token in enumerate(told):
        name = told[index + 2].lower.strip('"') if index + 2 < len(told) else ""
        if token.lower in {"pg_catalog", '"pg_catalog"'} and _is(told, index + 1, "."):
            if name in names.relations or name in names.functions:
                token.text = names.home
            else:
                _clear(told, index, index + 2)
        elif token.lower in {"information_schema", '"information_schema"'} and _is(told, index + 1, "."):
            if name in names.information:
                token.text = names.information_home
        elif token.lower in _FUNCTIONS and _is(told, index + 1, "("):
            token.text = _FUNCTIONS[token.lower]
        elif token.kind in {"word", "quoted"} and not _is(told, index - 1, "."):
            called = _is(told, index + 1, "(")
            bare = token.lower.strip('"')
            if (called and bare in names.functions) or (
                bare in names.relations and not _is(told, index - 1, "as")
            ):
                token.text = f"{names.home}.{token.text}"
    told[:] = [token for token in told if token.text]


def _casts(told: list[_Token], home: str) -> None:
    index = 0
    while index < len(told):
        if told[index].text == "::" and index + 1 < len(told):
            _colons(told, index, home)
        elif told[index].lower == "as" and index + 2 < len(told) and told[index + 2].text == ")":
            _cast(told, index, home)
        index += 1


def _colons(told: list[_Token], sign: int, home: str) -> None:
    """`value::type`."""
    wanted = told[sign + 1].lower
    listed = _is(told, sign + 2, "[")
    if wanted in _LOOK_UP and not listed and sign:
        begin = _operand(told, sign)
        told[begin].before = f"{home}.{wanted}_{_way(told[begin:sign])}({told[begin].before}"
        told[sign - 1].after += ")"
        _clear(told, sign, sign + 2)
        told[:] = [token for token in told if token.kind != "gone"]
        return
    if wanted in _TYPES:
        told[sign + 1].text = _TYPES[wanted]
    if listed and sign and told[sign - 1].text.startswith("'{"):
        told[sign - 1].text = "'[" + told[sign - 1].text[2:-2] + "]'"


def _cast(told: list[_Token], at: int, home: str) -> None:
    """`CAST(value AS type)`; `at` is where the AS stands."""
    wanted, begin = told[at + 1].lower, _opening(told, at + 2)
    if not begin or told[begin - 1].lower != "cast":
        return
    if wanted in _LOOK_UP:
        told[begin - 1].text = f"{home}.{wanted}_{_way(told[begin + 1 : at])}"
        _clear(told, at, at + 2)
        told[:] = [token for token in told if token.kind != "gone"]
    elif wanted in _TYPES:
        told[at + 1].text = _TYPES[wanted]


def _way(value: Sequence[_Token]) -> str:
    """`'press'::regclass` asks for a number, `oid::regclass` for a name."""
    texts = {"pg_get_serial_sequence", "quote_ident", "format", "text", "varchar"}
    literal = all(token.kind in {"string", "parameter"} for token in value)
    return "in" if literal or any(token.lower in texts for token in value) else "out"


def _operand(told: Sequence[_Token], sign: int) -> int:
    """Where the value before a `::` begins."""
    index = sign - 1
    if told[index].text == ")":
        index = _opening(told, index)
        while index > 0 and (told[index - 1].kind in {"word", "quoted"} or told[index - 1].text == "."):
            if told[index - 1].lower in _CLAUSES:
                break
            index -= 1
        return index
    while index >= 2 and told[index - 1].text == ".":
        index -= 2
    return max(index, 0)


def _closing(told: Sequence[_Token], opening: int) -> int:
    depth = 0
    for index in range(opening, len(told)):
        depth += {"(": 1, ")": -1}.get(told[index].text, 0)
        if depth == 0:
            return index
    return len(told) - 1


def _opening(told: Sequence[_Token], closing: int) -> int:
    depth = 0
    for index in range(closing, -1, -1):
        depth += {")": 1, "(": -1}.get(told[index].text, 0)
        if depth == 0:
            return index
    return 0


def _users(told: Sequence[_Token], user: str) -> None:
    for index, token in enumerate(told):
        if (
            token.kind == "word"
            and token.lower in _WHO
            and not _is(told, index - 1, ".")
            and not _is(told, index - 1, "as")
        ):
            token.text = "'" + user.replace("'", "''") + "'"
            if _is(told, index + 1, "(", ")"):
                _clear(told, index + 1, index + 3)
