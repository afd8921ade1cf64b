"""A typed expression over whole columns (Arrow kernels) or one row at a time (functions): the same numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boucle.errors import BoucleError
from boucle.stream.expression.language import LEAVES, Typed
from boucle.stream.expression.plain import FLOAT, INT, plain_column

__all__ = ["column_of", "scalar_of"]

_LEAST, _MOST = -(2**63), 2**63 - 1

Leaf = Callable[[Typed], Callable[[Any], Any]]


def column_of(expression: Typed, rows: pa.RecordBatch) -> pa.Array:
    """The values of an expression for every row; a bare column keeps its own type. B221 on overflow."""
    if expression.op == "column":
        return rows.column(expression.value)
    try:
        value = _arrow(expression, rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BoucleError(
            "B221", f"{expression.op} failed", why=str(error), fix="check its numbers"
        ) from error
    if isinstance(value, pa.Scalar):
        return pa.repeat(value, rows.num_rows)
    return value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value


def _arrow(node: Typed, rows: pa.RecordBatch) -> Any:
    if node.op == "literal":
        return pa.scalar(node.value, node.type)
    if node.op == "column":
        return plain_column(rows, node.value)
    return _KERNELS[node.op](*(_arrow(one, rows) for one in node.args))


def _round(value: Any, digits: Any = None) -> Any:
    return pc.round(value, ndigits=0 if digits is None else digits.as_py())


def _floored(function: Any, a: Any, b: Any) -> Any:
    """Division rounded down, or what is left of it; null where the divisor is zero."""
    (number, here), (divisor, there) = _numbers(a), _numbers(b)
    known = here & there & (divisor != 0)
    divisor = np.where(divisor == 0, 1, divisor)
    beyond = (number == _LEAST) & (divisor == -1) & known
    if function is np.floor_divide and number.dtype.kind == "i" and beyond.any():
        raise pa.ArrowInvalid("overflow")
    with np.errstate(all="ignore"):
        told = np.atleast_1d(function(number, divisor))
    column = pa.array(told, mask=~np.broadcast_to(known, told.shape))
    return column[0] if isinstance(a, pa.Scalar) and isinstance(b, pa.Scalar) else column


def _numbers(one: Any) -> tuple[Any, Any]:
    """Numbers, 0 where there is none, and where there is one."""
    if isinstance(one, pa.Scalar):
        return np.array(one.as_py() if one.is_valid else 0, one.type.to_pandas_dtype()), np.array(
            one.is_valid
        )
    return pc.fill_null(one, 0).to_numpy(zero_copy_only=False), one.is_valid().to_numpy(zero_copy_only=False)


_KERNELS: Mapping[str, Callable[..., Any]] = {
    "float": lambda x: pc.cast(x, FLOAT, safe=False),
    "neg": pc.negate_checked,
    "+": pc.add_checked,
    "-": pc.subtract_checked,
    "*": pc.multiply_checked,
    "/": pc.divide,
    "//": partial(_floored, np.floor_divide),
    "%": partial(_floored, np.remainder),
    "**": pc.power,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "and": lambda *x: reduce(pc.and_kleene, x),
    "or": lambda *x: reduce(pc.or_kleene, x),
    "not": pc.invert,
    "abs": pc.abs_checked,
    "ceil": pc.ceil,
    "coalesce": pc.coalesce,
    "concat": lambda *x: pc.binary_join_element_wise(*x, "", null_handling="emit_null"),
    "ends_with": lambda x, end: pc.ends_with(x, end.as_py()),
    "exp": pc.exp,
    "floor": pc.floor,
    "greatest": lambda *x: pc.max_element_wise(*x, skip_nulls=False),
    "if_else": pc.if_else,
    "is_null": pc.is_null,
    "least": lambda *x: pc.min_element_wise(*x, skip_nulls=False),
    "length": lambda x: pc.cast(pc.utf8_length(x), INT),
    "log": pc.ln,
    "lower": pc.utf8_lower,
    "matches": lambda x, pattern: pc.match_substring_regex(x, pattern.as_py()),
    "round": _round,
    "seconds": lambda x: pc.divide(x, 1e9),
    "sqrt": pc.sqrt,
    "starts_with": lambda x, start: pc.starts_with(x, start.as_py()),
    "trim": pc.utf8_trim_whitespace,
    "upper": pc.utf8_upper,
}


def _fits(value: Any) -> Any:
    if type(value) is int and not _LEAST <= value <= _MOST:
        raise BoucleError("B221", "a whole number left 64 bits", fix="multiply by 1.0 to count in floats")
    return value


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    if a == 0 or math.isnan(a) or math.isnan(b):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _floor(a: float, b: float) -> Any:
    return _fits(a // b) if b else None


_SCALARS: Mapping[str, Callable[..., Any]] = {
    "float": float,
    "neg": lambda a: _fits(-a),
    "+": lambda a, b: _fits(a + b),
    "-": lambda a, b: _fits(a - b),
    "*": lambda a, b: _fits(a * b),
    "/": _divide,
    "//": _floor,
    "%": lambda a, b: a % b if b else None,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "not": lambda a: not a,
    "abs": lambda a: _fits(abs(a)),
    "seconds": lambda a: a / 1e9,
    "length": len,
}


def scalar_of(node: Typed, leaf: Leaf) -> Callable[[Any], Any]:
    """The expression as a function of one environment; `leaf` gives that of a column, step or aggregate.

    The same numbers as `column_of`: what is not plain arithmetic goes through the same Arrow kernel.
    """
    if node.op == "literal":
        value = node.value
        return lambda _: value
    if node.op in LEAVES:
        return leaf(node)
    args = [scalar_of(one, leaf) for one in node.args]
    if node.op in ("and", "or"):
        return _kleene(args, decisive=node.op == "or")
    if node.op == "is_null":
        return lambda env: args[0](env) is None
    if node.op == "coalesce":
        return lambda env: next((x for x in (one(env) for one in args) if x is not None), None)
    if node.op == "if_else":
        test, yes, no = args
        return lambda env: None if (told := test(env)) is None else yes(env) if told else no(env)
    function = _SCALARS.get(node.op) or _kernel(node)

    def strict(env: Any) -> Any:
        values = [one(env) for one in args]
        return None if None in values else function(*values)

    return strict


def _kleene(parts: Sequence[Callable[[Any], Any]], *, decisive: bool) -> Callable[[Any], Any]:
    def told(env: Any) -> bool | None:
        result: bool | None = not decisive
        for part in parts:
            one: bool | None = part(env)
            if one is decisive:
                return decisive
            if one is None:
                result = None
        return result

    return told


def _kernel(node: Typed) -> Callable[..., Any]:
    kernel, kinds = _KERNELS[node.op], [one.type for one in node.args]

    def call(*values: Any) -> Any:
        try:
            return kernel(*map(pa.scalar, values, kinds)).as_py()
        except pa.ArrowInvalid as error:
            raise BoucleError("B221", f"{node.op} failed", why=str(error), fix="check its numbers") from error

    return call
