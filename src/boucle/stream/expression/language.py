"""An expression from its text to a tree whose every node knows its type."""

import ast
import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.stream.expression.plain import BOOL, FLOAT, INT, NULL, TEXT, plain_type

__all__ = ["AGGREGATES", "FUNCTIONS", "LEAVES", "Expression", "Node", "Typed"]

FUNCTIONS: Mapping[str, tuple[str, str]] = {
    "abs": ("n", "n"),
    "ceil": ("n", "float"),
    "coalesce": ("a*", "a"),
    "concat": ("t*", "text"),
    "ends_with": ("tL", "bool"),
    "exp": ("n", "float"),
    "floor": ("n", "float"),
    "greatest": ("n*", "n"),
    "if_else": ("baa", "a"),
    "is_null": ("x", "bool"),
    "least": ("n*", "n"),
    "length": ("t", "int"),
    "log": ("n", "float"),
    "lower": ("t", "text"),
    "matches": ("tL", "bool"),
    "round": ("nI", "float"),
    "seconds": ("n", "float"),
    "sqrt": ("n", "float"),
    "starts_with": ("tL", "bool"),
    "trim": ("t", "text"),
    "upper": ("t", "text"),
}
"""name → what it takes, what it gives. n number, t text, b bool, a any but all the same, x anything,
L a text written out, I a whole number written out (may be left out), * one or more."""

AGGREGATES = ("first", "last", "count", "min", "max", "sum", "avg")
"""Over the rows of a step of a pattern: `avg(hot.temperature)`, `count(small)`."""

_GIVES = {"float": FLOAT, "text": TEXT, "bool": BOOL, "int": INT}
_OPERATORS: Mapping[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_LONGEST, _DEEPEST, _INT64 = 4000, 100, 2**63
LEAVES = ("literal", "column", "step", "aggregate", "prev")


class Node(Struct, frozen=True):
    """One piece of an expression. `value`: a literal; a column's name; (step, column); (what, step, column)."""

    op: str
    args: tuple["Node", ...] = ()
    value: Any = None
    place: int = 0


class Typed(Struct, frozen=True):
    """A node that knows its type: int64, float64, string, bool, or a column's own."""

    op: str
    type: pa.DataType
    args: tuple["Typed", ...] = ()
    value: Any = None


class Expression:
    """A text that was understood. B220 says where it is wrong, B221 (on `bind`) which column is not there.

    `steps` are the names of pattern steps it may refer to (`hot.pressure`); without them it may not.
    """

    def __init__(self, text: str, *, steps: Iterable[str] = ()) -> None:
        if not isinstance(text, str):
            raise BoucleError("B220", f"{text!r} is no expression", fix="write it as text")
        self.text = " ".join(text.splitlines()).strip()
        self._steps = tuple(steps)
        try:
            if len(self.text) > _LONGEST:
                self._refuse(0, "is too long", f"{_LONGEST} characters are enough")
            self.node = self._read(self._parsed(), _DEEPEST)
        except (RecursionError, MemoryError):
            self._refuse(0, "is nested too deeply", "take it apart")

    def bind(self, schema: pa.Schema) -> Typed:
        """The expression over rows of a schema; B221 for unknown columns and wrong types."""
        return self._typed(self.node, schema)

    def leaves(self) -> list[Node]:
        """Columns, steps and aggregates it reads."""
        found, left = [], [self.node]
        while left:
            node = left.pop()
            left += node.args
            if node.op in LEAVES and node.op != "literal":
                found.append(node)
        return found

    def _refuse(self, place: int, what: str, fix: str = "", code: str = "B220") -> NoReturn:
        near = self.text[max(0, place - 12) : place + 20]
        where = f"at character {place + 1}, near {near!r}"
        raise BoucleError(code, f"{self.text[:80]!r}: {what}", why=where, fix=fix)

    def _parsed(self) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            self._refuse(max(0, (error.offset or 1) - 1), f"cannot be read: {error.msg}", "see its grammar")
        except (ValueError, OverflowError) as error:
            self._refuse(0, f"cannot be read: {error}")

    def _read(self, tree: ast.expr, depth: int) -> Node:
        place = len(self.text.encode()[: tree.col_offset].decode(errors="ignore"))
        if depth == 0:
            self._refuse(place, "is nested too deeply", "take it apart")

        match tree:
            case ast.Constant(value=value):
                return self._literal(value, place)
            case ast.Name(id=name):
                return Node("column", (), name, place)
            case ast.Attribute(value=ast.Name(id=step), attr=name):
                return Node("step", (), (self._step(step, place), name), place)
            case ast.Compare(left=left, ops=ops, comparators=others):
                operands = [left, *others]
                pairs = zip(operands[:-1], ops, others, strict=True)
                told = tuple(self._compare(a, op, b, place, depth) for a, op, b in pairs)
                return told[0] if len(told) == 1 else Node("and", told, place=place)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(name, args, place, depth)
        op, parts = _combined(tree)
        if not op:
            self._refuse(place, f"{type(tree).__name__} is not part of the language", "see its grammar")
        return Node(op, tuple(self._read(one, depth - 1) for one in parts), place=place)

    def _literal(self, value: object, place: int) -> Node:
        if value is not None and not isinstance(value, bool | int | float | str):
            self._refuse(place, f"{type(value).__name__} is no value here", "write a number or 'text'")
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            self._refuse(place, "the number does not fit into 64 bits")
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                self._refuse(place, "the text holds half a character")
        return Node("literal", (), value, place)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr, place: int, depth: int) -> Node:
        one = self._read(left, depth - 1)
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List) or not 0 < len(right.elts) < _DEEPEST:
                self._refuse(place, "`in` wants a list", "write: x in ('a', 'b'), or x == 'a'")
            others = [Node("==", (one, self._read(item, depth - 1)), place=place) for item in right.elts]
            found = Node("or", tuple(others), place=place)
            return Node("not", (found,), place=place) if isinstance(op, ast.NotIn) else found
        other = self._read(right, depth - 1)
        if isinstance(op, ast.Is | ast.IsNot):
            if other.op != "literal" or other.value is not None:
                self._refuse(place, "`is` is for None", "write == to compare")
            null = Node("is_null", (one,), place=place)
            return Node("not", (null,), place=place) if isinstance(op, ast.IsNot) else null
        return Node(_OPERATORS[type(op)], (one, other), place=place)

    def _step(self, name: str, place: int) -> str:
        if name not in self._steps:
            near = difflib.get_close_matches(name, self._steps, n=1)
            fix = f'did you mean "{near[0]}"?' if near else f"steps: {', '.join(self._steps) or 'none here'}"
            self._refuse(place, f"there is no step {name!r}", fix)
        return name

    def _call(self, name: str, args: Sequence[ast.expr], place: int, depth: int) -> Node:
        if name == "col" and len(args) == 1 and isinstance(args[0], ast.Constant):
            return Node("column", (), str(args[0].value), place)
        if self._steps and name in AGGREGATES and len(args) == 1:
            match args[0]:
                case ast.Attribute(value=ast.Name(id=step), attr=column) if name != "count":
                    return Node("aggregate", (), (name, self._step(step, place), column), place)
                case ast.Name(id=step) if name == "count":
                    return Node("aggregate", (), (name, self._step(step, place), ""), place)
            self._refuse(place, f"{name} is taken over a step", "write avg(step.column) or count(step)")
        if self._steps and name == "prev" and len(args) == 1 and isinstance(args[0], ast.Name):
            return Node("prev", (), args[0].id, place)
        if name not in FUNCTIONS:
            known = [*FUNCTIONS, *((*AGGREGATES, "prev") if self._steps else ())]
            near = difflib.get_close_matches(name, known, n=1)
            fix = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
            self._refuse(place, f"unknown function {name!r}", fix)
        nodes = tuple(self._read(one, depth - 1) for one in args)
        self._check(name, nodes, place)
        return Node(name, nodes, place=place)

    def _check(self, name: str, nodes: tuple[Node, ...], place: int) -> None:
        takes = FUNCTIONS[name][0]
        wanted = takes.rstrip("*")
        enough = len(nodes) >= 1 if takes[-1] == "*" else len(nodes) == len(wanted)
        if not enough and not (takes == "nI" and len(nodes) == 1):
            self._refuse(place, f"{name} takes {'one or more' if takes[-1] == '*' else len(wanted)} values")
        for kind, node in zip(wanted, nodes, strict=False):
            if kind == "L" and not (node.op == "literal" and isinstance(node.value, str)):
                fix = f"write: {name}(column, 'text')"
                self._refuse(node.place, f"{name} wants its text written out", fix)
            if kind == "I" and not (type(node.value) is int and abs(node.value) < 16):
                self._refuse(node.place, f"{name} wants the digits written out", "write: round(x, 2)")
        if name == "matches":
            try:
                pc.match_substring_regex(pa.array([""]), nodes[1].value)
            except pa.ArrowInvalid as error:
                self._refuse(nodes[1].place, str(error), "the regular expressions are those of RE2")

    def _typed(self, node: Node, schema: pa.Schema) -> Typed:
        match node.op:
            case "literal":
                kinds = {bool: BOOL, int: INT, float: FLOAT, str: TEXT}
                return Typed("literal", kinds.get(type(node.value), NULL), (), node.value)
            case "column" | "prev":
                return Typed(node.op, self._column(node, node.value, schema), (), node.value)
            case "step":
                return Typed("step", self._column(node, node.value[1], schema), (), node.value)
            case "aggregate":
                what, _, column = node.value
                kind = INT if what == "count" else self._column(node, column, schema)
                if what in ("sum", "avg") and kind not in (INT, FLOAT):
                    self._refuse(node.place, f"{what} of {kind}", "take a number", "B221")
                return Typed("aggregate", FLOAT if what == "avg" else kind, (), node.value)
        args = [self._typed(one, schema) for one in node.args]
        if node.op in FUNCTIONS:
            return self._function(node, args)
        if node.op in ("and", "or", "not"):
            args = [self._as(node, one, BOOL) for one in args]
            return Typed(node.op, BOOL, tuple(args))
        if node.op in ("==", "!=", "<", "<=", ">", ">="):
            return Typed(node.op, BOOL, tuple(self._alike(node, args)))
        numbers = self._numbers(node, args)
        if node.op in ("/", "**"):
            return Typed(node.op, FLOAT, tuple(self._as(node, one, FLOAT) for one in numbers))
        return Typed(node.op, numbers[0].type, tuple(numbers))

    def _function(self, node: Node, args: list[Typed]) -> Typed:
        takes, gives = FUNCTIONS[node.op]
        if takes == "x":
            return Typed(node.op, BOOL, tuple(args))
        if takes == "baa":
            args = [self._as(node, args[0], BOOL), *self._alike(node, args[1:])]
        elif takes == "a*":
            args = self._alike(node, args)
        elif takes[0] == "t":
            args = [self._as(node, one, TEXT) for one in args]
        else:
            args = [*self._numbers(node, args[:1]), *args[1:]] if takes == "nI" else self._numbers(node, args)
            if gives == "float":
                args[0] = self._as(node, args[0], FLOAT)
        return Typed(node.op, _GIVES[gives] if gives in _GIVES else args[-1].type, tuple(args))

    def _column(self, node: Node, name: str, schema: pa.Schema) -> pa.DataType:
        if schema.names.count(name) != 1:
            near = difflib.get_close_matches(name, schema.names, n=1)
            fix = f'did you mean "{near[0]}"?' if near else f"columns: {', '.join(schema.names)}"
            self._refuse(node.place, f"there is no column {name!r}", fix, "B221")
        return plain_type(schema.field(name).type)

    def _numbers(self, node: Node, args: list[Typed]) -> list[Typed]:
        for one in args:
            if one.type not in (INT, FLOAT, NULL):
                self._refuse(node.place, f"{node.op} of {one.type}", "it wants numbers", "B221")
        kind = INT if all(one.type == INT for one in args) else FLOAT
        return [self._as(node, one, kind) for one in args]

    def _alike(self, node: Node, args: list[Typed]) -> list[Typed]:
        kinds = {one.type for one in args} - {NULL}
        if kinds <= {INT, FLOAT}:
            return self._numbers(node, args)
        if len(kinds) > 1 or not kinds <= {TEXT, BOOL}:
            told = " and ".join(sorted(map(str, kinds)))
            self._refuse(node.place, f"{node.op} of {told}", "compare like with like", "B221")
        return [self._as(node, one, next(iter(kinds))) for one in args]

    def _as(self, node: Node, one: Typed, kind: pa.DataType) -> Typed:
        if one.type == NULL and one.op == "literal":
            return Typed("literal", kind, (), None)
        if one.type in (NULL, INT) and kind == FLOAT:
            return Typed("float", FLOAT, (one,))
        if one.type != kind:
            self._refuse(node.place, f"{node.op} of {one.type}", f"it wants {kind}", "B221")
        return one


def _combined(tree: ast.expr) -> tuple[str, Sequence[ast.expr]]:
    """The operator and the operands of a compound expression; nothing for what is not in the language."""
    match tree:
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS.get(type(op), ""), (left, right)
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            return "not" if isinstance(tree.op, ast.Not) else "neg", (operand,)
        case ast.BoolOp(op=op, values=values):
            return "and" if isinstance(op, ast.And) else "or", values
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return "if_else", (test, body, orelse)
    return "", ()
