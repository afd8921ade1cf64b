"""Where the columns of a step come from, as its declaration tells: what `trace` of the operators is made of.

Nothing here looks at rows, and nothing is guessed: an input whose columns are not known has the column `*`,
and what is made from all of a row by a function of Python is UNKNOWN.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boucle.ports import From, How, Traced
from boucle.stream.expression import Expression, Node

__all__ = [
    "ANY", "Inputs", "carried", "computed", "every", "expressed", "filtered", "grouped", "joined", "made_of",
    "of_feature", "one_of", "opaque", "told_of", "traced_windows",
]  # fmt: skip

ANY = "*"
"""The column of an input whose columns nobody knows: it stands for all of them."""

Inputs = Mapping[str, Sequence[str]]
"""Stream → its columns."""


def one_of(inputs: Inputs) -> str:
    """The only input of a step that takes one."""
    return next(iter(inputs), "")


def carried(inputs: Inputs) -> dict[str, tuple[From, ...]]:
    """Every column as it is; one that several inputs have comes from each of them."""
    found: dict[str, tuple[From, ...]] = {}
    for stream, columns in inputs.items():
        for column in columns:
            found[column] = (*found.get(column, ()), From(stream, column))
    return found


def made_of(stream: str, columns: Iterable[str], how: How, says: str = "") -> tuple[From, ...]:
    """Some columns of one stream, each once; empty names are left out."""
    return tuple(From(stream, name, how, says) for name in dict.fromkeys(columns) if name)


def told_of(
    inputs: Inputs,
    columns: Iterable[str],
    says: str,
    *,
    by: Sequence[str],
    per: str,
    tells: Sequence[str],
    carry: Sequence[str],
) -> Traced:
    """Steps that pass each row on and tell something of it: keys, time and `carry` as they are, `tells` from `columns`.

    `says` is how it is made of them, `per` what each key has of its own.
    """
    stream = one_of(inputs)
    kept = {name: (From(stream, name),) for name in dict.fromkeys([*by, "at", *carry])}
    made = (*made_of(stream, columns, "TRANSFORMATION", says), *made_of(stream, by, "GROUP_BY", per))
    return Traced(kept | dict.fromkeys(tells, made))


def every(inputs: Inputs, says: str) -> tuple[From, ...]:
    """All columns of all inputs: nobody declared which."""
    return tuple(From(stream, name, "UNKNOWN", says) for stream, names in inputs.items() for name in names)


def opaque(inputs: Inputs, why: str, columns: Iterable[str] = (ANY,)) -> Traced:
    """A step that does not tell: each of its columns may come from all of its inputs."""
    return Traced({name: every(inputs, why) for name in columns}, unknown=why)


def computed(told: Any, inputs: Inputs) -> tuple[From, ...]:
    """What an expression over the columns of one input reads; a function of Python may read everything.

    B220 for a text that is no expression.
    """
    if not isinstance(told, str | Expression):
        return every(inputs, "a function of Python")
    expression = Expression(told) if isinstance(told, str) else told
    stream = one_of(inputs)
    if expression.node.op == "column":
        return (From(stream, expression.node.value),)
    return _unique(_read(expression.node, stream, "TRANSFORMATION", expression.text))


def expressed(node: Node, stream: str, says: str) -> tuple[From, ...]:
    """The same of an expression of a pattern, which speaks of steps: `avg(hot.pressure)`."""
    if node.op in ("column", "step") or (node.op == "aggregate" and node.value[0] in ("first", "last")):
        return (From(stream, _name(node), "IDENTITY", says),)
    return _unique(_read(node, stream, "TRANSFORMATION", says))


def _name(node: Node) -> str:
    return node.value if isinstance(node.value, str) else node.value[-1]


def _read(node: Node, stream: str, how: How, says: str) -> Iterable[From]:
    if node.op in ("column", "step", "prev", "aggregate"):
        if name := _name(node):
            yield From(stream, name, "AGGREGATION" if node.op == "aggregate" else how, says)
        return
    for place, one in enumerate(node.args):
        decides = node.op == "if_else" and place == 0
        yield from _read(one, stream, "CONDITIONAL" if decides else how, says)


def _unique(found: Iterable[From]) -> tuple[From, ...]:
    return tuple(dict.fromkeys(found))


def filtered(told: Any, inputs: Inputs, says: str = "") -> tuple[From, ...]:
    """The columns a condition looks at to keep rows or drop them."""
    return tuple(
        From(one.stream, one.column, "UNKNOWN" if one.how == "UNKNOWN" else "FILTER", says or str(told))
        for one in computed(told, inputs)
    )


def grouped(stream: str, by: Sequence[str] | str, time: str, window: str) -> tuple[From, ...]:
    """Keys and time, which decide to which group and window a row belongs."""
    names = (by,) if isinstance(by, str) else tuple(by)
    return (*made_of(stream, names, "GROUP_BY"), *made_of(stream, [time], "WINDOW", window))


def joined(
    inputs: Inputs, left: str, right: str, by: Any, time: str, *, both_times: bool, says: str
) -> Traced:
    """The columns of a join: the keys and the rest of the left, then the rest of the right."""
    pairs = (
        dict(by)
        if isinstance(by, Mapping)
        else {name: name for name in ([by] if isinstance(by, str) else by)}
    )
    lefts, rights = list(inputs.get(left, (ANY,))), list(inputs.get(right, (ANY,)))
    columns: dict[str, tuple[From, ...]] = {"at": (From(left, time, "TRANSFORMATION", says),)}
    if both_times:
        columns["at"] = (*columns["at"], From(right, time, "TRANSFORMATION", says))
        columns["left_at"] = (From(left, time),)
    columns["right_at"] = (From(right, time),)
    columns |= {name: (From(left, name),) for name in [*pairs, *lefts] if name != time}
    for name in rights:
        if name not in (time, *pairs.values()):
            columns[f"{name}_right" if name in lefts and name != ANY else name] = (From(right, name),)
    if ANY in lefts and ANY in rights:
        columns[ANY] = (From(left, ANY), From(right, ANY))
    keys = (
        *made_of(left, [*pairs, time], "JOIN", says),
        *made_of(right, [*pairs.values(), time], "JOIN", says),
    )
    return Traced(columns, keys)


def traced_windows(inputs: Inputs, **declared: Any) -> Traced:
    """Tumbling, Hopping, Session and Counted: keys, times, values, revision."""
    from boucle.stream.aggregate import read_aggregates

    stream, time = one_of(inputs), declared.get("time", "at")
    by = declared.get("by", ())
    lengths = [f"{name} {declared[name]}" for name in ("size", "every", "gap") if name in declared]
    window = f"window: {', '.join(lengths)}"
    names = (by,) if isinstance(by, str) else tuple(by)
    columns: dict[str, tuple[From, ...]] = {name: (From(stream, name),) for name in names}
    starts = made_of(stream, [time], "TRANSFORMATION", window)
    columns |= dict.fromkeys(("at", "window_start", "window_end"), starts)
    for one in read_aggregates(dict(declared["values"]), stream):
        says = f"{declared['values'][one.name]} per {window}"
        # A count has no column of its own: it is of the rows.
        columns[one.name] = made_of(stream, [one.column], "AGGREGATION", says)
    columns["revision"] = starts
    if "idle" in declared:
        columns["complete"] = starts
    return Traced(columns, grouped(stream, names, time, window))


def of_feature(
    stream: str, time: str, told: Mapping[str, Any], column: str, by: Sequence[str]
) -> tuple[From, ...]:
    """A sliding feature: its value, and the keys and the time that say which rows count."""
    delay = f", {told['delay']} late" if told.get("delay") else ""
    says = f"{told['of']} over {told['over']}{delay} by {', '.join(by)}"
    return (
        *made_of(stream, [column], "AGGREGATION", says),
        *made_of(stream, by, "GROUP_BY", says),
        *made_of(stream, [time], "WINDOW", says),
    )
