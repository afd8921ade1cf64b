"""Small expressions over columns, as they stand in a product file: `temperature > 80 and status == 'Good'`.

The text is read by Python's own parser, checked node by node and turned into Arrow kernels (whole columns)
or plain functions (one row at a time); nothing is evaluated as Python. Both ways give the same numbers.

Written can be: numbers, 'text', True, False, None; columns by name, or `col('any name')`; `+ - * / // % **`;
`== != < <= > >=`, chained too; `in (…)`, `is None`; `and or not`; `a if b else c`; and the functions of
`FUNCTIONS`. Null is unknown, as in SQL: `null > 3` is null, and a condition that is null does not hold.
Times count as int64 ns since the epoch, decimals as float64. Integers that leave int64 raise B221;
`a / b` is a float, and by zero ±inf or nan (IEEE 754). `a // b` is the quotient rounded down, `a % b` what is left
of it, with the sign of b, as in Python: `-7 // 2` is -4, `-7 % 2` is 1; by zero both are null.
"""

from boucle.stream.expression.evaluate import column_of, scalar_of
from boucle.stream.expression.language import AGGREGATES, FUNCTIONS, Expression, Node, Typed
from boucle.stream.expression.plain import plain_column, plain_type

__all__ = [
    "AGGREGATES",
    "FUNCTIONS",
    "Expression",
    "Node",
    "Typed",
    "column_of",
    "plain_column",
    "plain_type",
    "scalar_of",
]
